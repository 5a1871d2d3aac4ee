package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

const (
	// probeFor is how long a restored site may take where the caller sets no limit.
	probeFor = time.Minute
	// probeEvery is the pause between two attempts.
	probeEvery = 200 * time.Millisecond
	// probeOnce bounds one attempt.
	probeOnce = 10 * time.Second
)

// probe asks the site of a host, through its route as a visitor's request would go, and
// returns once it answers with anything but a server's error, or why it does not.
// Without a route yet it waits for one. No host is asked over the network.
func (s *State) probe(ctx context.Context, host string) error {
	host = cleanHost(host)
	if host == "" || strings.HasPrefix(host, "*") {
		return nil // any name would be a guess
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, probeFor)
		defer cancel()
	}
	if by, ok := s.reserved(host); ok {
		return fmt.Errorf("%s is served by %s, not by the restored app", host, by)
	}
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	var last error
	for {
		err := s.probeNow(ctx, host)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil { // the end of the time says nothing about the site
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("https://%s does not answer: %w", host, last)
		case <-s.ended:
			return errors.New("the program is ending")
		}
	}
}

// probeNow makes one attempt.
func (s *State) probeNow(ctx context.Context, host string) error {
	ctx, cancel := context.WithTimeout(ctx, probeOnce)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/", nil)
	if err != nil {
		return err
	}
	r.RequestURI, r.RemoteAddr = "/", "127.0.0.1:0"
	r.Header.Set("User-Agent", "dentropy-probe")
	lr, _, ok, known := s.table.Lookup(host, "/", r)
	switch {
	case !known:
		return errors.New("there is no route for it yet")
	case !ok: // it has other paths only
		if lr, ok = s.anyRouteOf(host); !ok {
			return errors.New("there is no route for it yet")
		}
	}
	if u := lr.upstreams.Load(); len(u.ready) == 0 {
		return fmt.Errorf("its container %s", stateText(u.state, false))
	}
	w := &probeWriter{header: http.Header{}}
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, s.ourServer())
	var hold holder
	defer hold.end()
	if err := s.serve(w, r, lr, &hold); err != nil {
		var he caddyhttp.HandlerError
		if errors.As(err, &he) && he.StatusCode != 0 && he.StatusCode < http.StatusInternalServerError {
			return nil
		}
		return err
	}
	if w.status >= http.StatusInternalServerError {
		return fmt.Errorf("it answers with status %d", w.status)
	}
	return nil
}

// anyRouteOf gives a route of host, whatever its path.
func (s *State) anyRouteOf(host string) (*liveRoute, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, lr := range s.routes {
		for _, u := range lr.units {
			if u.Host == host {
				return lr, true
			}
		}
	}
	return nil, false
}

// ourServer is a server of the running config that leads to our handler: modules ask a
// request for its server.
func (s *State) ourServer() *caddyhttp.Server {
	app := s.newest.Load()
	if app == nil {
		return nil
	}
	mod, err := app.ctx.AppIfConfigured("http")
	if err != nil {
		return nil
	}
	var last *caddyhttp.Server
	for _, srv := range mod.(*caddyhttp.App).Servers {
		for _, route := range srv.Routes {
			if handles(route) {
				last = srv
			}
		}
	}
	return last
}

// probeWriter keeps the status of an answer, and nothing else.
type probeWriter struct {
	header http.Header
	status int
}

func (w *probeWriter) Header() http.Header { return w.header }

func (w *probeWriter) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK { // not what is on the way, such as 103
		w.status = status
	}
}

func (w *probeWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return len(b), nil
}
