// Package demosite is the small website that `make run` puts into its demo containers:
// one page that says who answered, with which address and headers, and a counter that
// ticks over an open connection, to be watched while its neighbours come and go.
//
// Serve runs it; Handler is the site alone. It is no example of how to write a
// website and promises nothing.
package demosite

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// tick is how often the counter moves: slow enough to read, fast enough to show a cut.
const tick = time.Second

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// view is what the page and the JSON answer show.
type view struct {
	Name     string   `json:"name"`
	Hostname string   `json:"hostname"`
	Proto    string   `json:"proto"`
	Host     string   `json:"host"`
	Path     string   `json:"path"`
	From     string   `json:"from"`
	Headers  []header `json:"headers"`
}

type header struct {
	Name   string   `json:"name"`
	Values []string `json:"values"`
}

// Handler returns the site: a page on every path (JSON for a client that does not ask
// for HTML), and server-sent events on /ticks. name is what it calls itself.
func Handler(name string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		v := newView(name, r)
		if !wantsHTML(r) {
			w.Header().Set("Content-Type", "application/json")
			enc := json.NewEncoder(w)
			enc.SetIndent("", "  ")
			_ = enc.Encode(v) // the client has gone
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'")
		_ = page.Execute(w, v) // the client has gone
	})
	mux.HandleFunc("GET /ticks", ticks)
	return mux
}

// Serve listens on address and serves the site until ctx is done.
func Serve(ctx context.Context, address, name string) error {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen for the demo site: %w", err)
	}
	srv := &http.Server{
		Handler:           Handler(name),
		ReadHeaderTimeout: 10 * time.Second, // a client that never finishes its request
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		_ = srv.Close() // the counters are open for ever: there is nothing to wait for
	})
	err = srv.Serve(ln)
	if !stop() {
		<-closed
	}
	if errors.Is(err, http.ErrServerClosed) && ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve the demo site: %w", err)
}

// ticks sends a counter for as long as the client listens.
func ticks(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	rc := http.NewResponseController(w)
	every := time.NewTicker(tick)
	defer every.Stop()
	for n := 0; ; n++ {
		if _, err := fmt.Fprintf(w, "data: %d\n\n", n); err != nil {
			return
		}
		if err := rc.Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-every.C:
		}
	}
}

func newView(name string, r *http.Request) view {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "unknown"
	}
	v := view{
		Name:     cmp.Or(name, hostname),
		Hostname: hostname,
		Proto:    r.Proto,
		Host:     r.Host,
		Path:     r.URL.Path,
		From:     r.RemoteAddr,
	}
	for name, values := range r.Header {
		v.Headers = append(v.Headers, header{name, values})
	}
	slices.SortFunc(v.Headers, func(a, b header) int { return cmp.Compare(a.Name, b.Name) })
	return v
}

// wantsHTML tells a browser from everything else, which would rather have JSON.
func wantsHTML(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Accept"), "text/html")
}
