package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dentropy/dentropycloud/discovery"
)

// holder lets one request wait for an upstream, within the route's patience and
// the bounds on waiting requests. The zero value has not waited yet.
type holder struct {
	deadline *time.Timer
	route    *liveRoute // counted in as waiting; nil if not
	retries  int
	full     bool
}

const (
	defaultHold  = 10 * time.Second
	defaultQueue = 1000
	// queuesTogether bounds all waiting requests as a multiple of one route's
	// queue: one dead but popular route must not use up what the others need.
	queuesTogether = 10
	// retryAfter is what a client is told to wait, in seconds, and pageReload when the
	// page loads itself again.
	retryAfter = "5"
	pageReload = 5
)

// patience is how long requests of lr may wait.
func (lr *liveRoute) patience() time.Duration {
	switch {
	case lr.spec.Hold < 0:
		return 0
	case lr.spec.Hold > 0:
		return lr.spec.Hold
	}
	if app := lr.state.newest.Load(); app != nil && app.Hold != nil {
		return time.Duration(*app.Hold)
	}
	return defaultHold
}

// start counts the request in; false if it may not wait.
func (h *holder) start(lr *liveRoute) bool {
	if h.route != nil {
		return true
	}
	d := lr.state.restPatienceOf(lr, lr.patience())
	if d <= 0 {
		return false
	}
	queue := int64(defaultQueue)
	if app := lr.state.newest.Load(); app != nil && app.HoldQueue > 0 {
		queue = int64(app.HoldQueue)
	}
	h.full = lr.held.Add(1) > queue
	if !h.full {
		if h.full = lr.state.holding.Add(1) > queue*queuesTogether; h.full {
			lr.state.holding.Add(-1)
		}
	}
	if h.full {
		lr.held.Add(-1)
		lr.state.meters.holds.WithLabelValues("full").Inc()
		return false
	}
	h.route = lr
	h.deadline = time.NewTimer(d)
	return true
}

// wait returns true once lr has an upstream again or has ended, false if patience
// is over.
func (h *holder) wait(r *http.Request, lr *liveRoute) bool {
	if !h.start(lr) {
		return false
	}
	for {
		u := lr.upstreams.Load()
		if len(u.ready) > 0 || lr.ended.Load() {
			return true
		}
		select {
		case <-u.changed:
		case <-h.deadline.C:
			return false
		case <-r.Context().Done():
			return false
		}
	}
}

// pause waits a little before the next try, longer each time.
func (h *holder) pause(r *http.Request, lr *liveRoute) bool {
	if !h.start(lr) {
		return false
	}
	d := min(retryFirst<<min(h.retries, 16), retryMost)
	h.retries++
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-h.deadline.C:
		return false
	case <-r.Context().Done():
		return false
	}
}

// end counts the request out.
func (h *holder) end() {
	if h.route == nil {
		return
	}
	h.deadline.Stop()
	h.route.held.Add(-1)
	h.route.state.holding.Add(-1)
	h.route.state.meters.holds.WithLabelValues("waited").Inc()
	h.route = nil
}

// giveUp answers a request that could not be served.
func (h *holder) giveUp(w http.ResponseWriter, r *http.Request, lr *liveRoute) error {
	if errors.Is(r.Context().Err(), context.Canceled) {
		w.WriteHeader(499) // as Caddy's reverse_proxy records a client that went away
		return nil
	}
	lr.state.meters.holds.WithLabelValues("gave_up").Inc()
	u := lr.upstreams.Load()
	head := w.Header()
	state, retry, reload := stateText(u.state, h.full), retryAfter, pageReload
	if rest := lr.state.backups.rest.of(lr); rest != nil && !h.full {
		state, retry = restText(rest)
		if n, err := strconv.Atoi(retry); err == nil {
			reload = min(max(n, reload), int(restReloadMost.Seconds()))
		}
	}
	head.Set("Retry-After", retry)
	head.Set("Cache-Control", "no-store")
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		return caddyhttp.Error(http.StatusServiceUnavailable, fmt.Errorf("no upstream: %s", u.state))
	}
	page := pageData{Host: discovery.RequestHost(r), State: state, Reload: reload}
	if inside := (discovery.Access{Private: true}); inside.Allows(clientAddr(r)) {
		// addresses and names of containers are for those at home
		page.Object, page.Detail = u.object, u.detail
		if !u.since.IsZero() {
			page.Since = u.since.UTC().Format(time.RFC3339)
		}
	}
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		head.Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, err := fmt.Fprintln(w, page.text())
		return err
	}
	head.Set("Content-Type", "text/html; charset=utf-8")
	head.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	w.WriteHeader(http.StatusServiceUnavailable)
	return holdPage.Execute(w, page)
}

func stateText(s discovery.State, full bool) string {
	if full {
		return "has too many visitors waiting"
	}
	switch s {
	case discovery.Created:
		return "has not been started yet"
	case discovery.Starting:
		return "is starting"
	case discovery.Unhealthy:
		return "is running but reports that it is not well"
	case discovery.Paused:
		return "is paused"
	case discovery.Restarting:
		return "is restarting"
	case discovery.Stopped:
		return "is stopped"
	}
	return "is running but does not answer yet"
}

type pageData struct {
	Host, State, Object, Detail, Since string
	Reload                             int // seconds
}

func (p pageData) text() string {
	s := p.Host + " " + p.State + "; try again "
	if p.Reload > pageReload {
		s += fmt.Sprintf("in %d seconds", p.Reload)
	} else {
		s += "in a few seconds"
	}
	if p.Object != "" {
		s += "\ncontainer: " + p.Object
	}
	if p.Detail != "" {
		s += "\ndetail: " + p.Detail
	}
	return s
}

var holdPage = template.Must(template.New("hold").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="{{.Reload}}"><title>{{.Host}}</title>
<style>
body{font:1rem/1.5 system-ui,sans-serif;margin:0;min-height:100vh;display:grid;place-items:center;background:#f6f7f9;color:#1c2330}
main{max-width:34rem;padding:2rem}h1{font-size:1.4rem;margin:0 0 .5rem}dl{color:#5a6475;font-size:.9rem}dt{float:left;clear:left;width:6rem}dd{margin:0 0 .2rem 6rem;overflow-wrap:anywhere}
@media(prefers-color-scheme:dark){body{background:#12161d;color:#e6e9ef}dl{color:#98a2b3}}
</style></head><body><main>
<h1>{{.Host}} {{.State}}</h1>
<p>This page tries again every {{if eq .Reload 5}}five{{else}}{{.Reload}}{{end}} seconds.</p>
{{if .Object}}<dl><dt>Container</dt><dd>{{.Object}}</dd>{{if .Detail}}<dt>Detail</dt><dd>{{.Detail}}</dd>{{end}}{{if .Since}}<dt>Since</dt><dd>{{.Since}}</dd>{{end}}</dl>{{end}}
</main></body></html>
`))
