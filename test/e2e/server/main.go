// Command server is what the containers of the end-to-end tests run: it tells who it
// is and what it was asked, can be slow, unhealthy or crash on demand, and echoes
// websockets.
//
//	server [-port 8080] [-name NAME] [-unhealthy] [-after 2s]
//	server health [-port 8080]        the HEALTHCHECK: asks the running one
//	server fill FILE MEGABYTES        writes a file that does not compress
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coder/websocket"
)

func main() {
	args := os.Args[1:]
	if len(args) == 3 && args[0] == "fill" {
		if err := fill(args[1], args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	health := len(args) > 0 && args[0] == "health"
	if health {
		args = args[1:]
	}
	flags := flag.NewFlagSet("server", flag.ExitOnError)
	port := flags.Int("port", 8080, "port to listen on")
	name := flags.String("name", "", "what it calls itself (default: the host name)")
	unhealthy := flags.Bool("unhealthy", false, "start unhealthy; POST /health/ok makes it healthy")
	after := flags.Duration("after", 0, "wait before listening, as a slow starter does")
	flags.Parse(args)

	if health {
		os.Exit(checkHealth(*port))
	}
	if *name == "" {
		*name, _ = os.Hostname()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	select {
	case <-time.After(*after):
	case <-ctx.Done():
		return
	}
	srv := &http.Server{Addr: fmt.Sprintf(":%d", *port), Handler: handler(*name, !*unhealthy)}
	context.AfterFunc(ctx, func() { srv.Close() })
	if err := srv.ListenAndServe(); err != http.ErrServerClosed {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func fill(path, megabytes string) error {
	n, err := strconv.ParseInt(megabytes, 10, 32)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.Reader, n<<20)
	return errors.Join(err, f.Close())
}

// checkHealth asks the server that runs in the same container.
func checkHealth(port int) int {
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/health", port))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		fmt.Println(resp.Status)
		return 1
	}
	return 0
}

func handler(name string, isHealthy bool) http.Handler {
	var healthy atomic.Bool
	healthy.Store(isHealthy)
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{
			"name": name, "host": r.Host, "path": r.URL.Path, "proto": r.Proto, "headers": r.Header,
		})
	})
	// /slow?ms=200 answers after that time.
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
		select {
		case <-time.After(time.Duration(ms) * time.Millisecond):
			fmt.Fprintln(w, name)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/crash", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	mux.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) {
		if !healthy.Load() {
			http.Error(w, "unhealthy", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/health/{state}", func(w http.ResponseWriter, r *http.Request) {
		healthy.Store(r.PathValue("state") == "ok")
	})
	mux.HandleFunc("/count", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, n, err)
	})
	mux.HandleFunc("/ws", echo)
	return mux
}

// echo sends every message of a websocket back.
func echo(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // any origin
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		kind, data, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), kind, data); err != nil {
			return
		}
	}
}
