package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// plain is what goes into SQL as it is.
var plain = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// shop serves the rows of a database:
//
//	GET /            its name
//	GET /rows        the keys, one a line
//	PUT /rows/KEY    adds a row; 200 says that it is committed
//	GET /health      200 while the database answers
func shop(args []string) error {
	flags := flag.NewFlagSet("shop", flag.ExitOnError)
	kind := flags.String("db", "psql", "psql or sqlite")
	name := flags.String("name", "shop", "what it calls itself")
	if err := flags.Parse(args); err != nil {
		return err
	}
	db, err := openDatabase(*kind)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, *name) })
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { answer(w, db, "SELECT 1") })
	mux.HandleFunc("GET /rows", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, db, "SELECT key || ' ' || value FROM entries ORDER BY key")
	})
	mux.HandleFunc("PUT /rows/{key}", func(w http.ResponseWriter, r *http.Request) {
		value, err := io.ReadAll(io.LimitReader(r.Body, 65))
		key := r.PathValue("key")
		if err != nil || !plain.MatchString(key) || !plain.Match(value) {
			http.Error(w, "bad key or value", http.StatusBadRequest)
			return
		}
		// A proxy may ask again where the first answer was lost.
		answer(w, db, fmt.Sprintf("INSERT INTO entries VALUES('%s', '%s') ON CONFLICT(key) DO NOTHING", key, value))
	})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	srv := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: time.Minute}
	ended := make(chan error, 1)
	go func() {
		<-ctx.Done()
		ended <- srv.Shutdown(context.Background())
	}()
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return errors.Join(<-ended, db.close())
}

// answer asks once more where the database was away.
func answer(w http.ResponseWriter, db *database, sql string) {
	lines, err := db.query(sql)
	if err != nil {
		lines, err = db.query(sql)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	io.WriteString(w, strings.Join(append(lines, ""), "\n"))
}
