package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dentropy/dentropycloud/discovery"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// liveRoute is a wanted route as requests see it. What it asks for never changes
// (another specification is another route); its upstreams and its place in the
// table do.
type liveRoute struct {
	key   string
	spec  *discovery.Route
	state *State

	upstreams atomic.Pointer[upstreams]
	chain     atomic.Pointer[chain] // its own; nil for a plain route
	failed    atomic.Pointer[error] // why chain is missing or of an earlier config
	held      atomic.Int64          // requests that wait
	requests  atomic.Int64          // served so far
	ended     atomic.Bool           // it is in the table no more
	match     func(*http.Request) bool
	// over is done when the drain time of a removed plain route is: there is no
	// chain of its own whose clean-up would end its requests
	over   context.Context
	finish context.CancelFunc

	// guarded by state.mu
	wanted *discovery.Wanted // as it was passed on last
	units  []discovery.Unit
	certs  map[string]string // host -> issuer class
	chains map[*App]*chain
	// refused is the config whose rules do not let the route's snippet be; that of
	// an earlier config does not go on then
	refused *App
}

func newLiveRoute(s *State, w *discovery.Wanted) *liveRoute {
	lr := &liveRoute{key: w.Key, spec: w.Spec, state: s}
	lr.over, lr.finish = context.WithCancel(context.Background()) //nolint:gosec // end sees to it
	if w.Spec.Caddyfile != "" {
		lr.chains = map[*App]*chain{}
	}
	match, err := w.Spec.Match.Compile(clientAddr)
	if err != nil { // check has refused it before
		match = func(*http.Request) bool { return false }
	}
	lr.match = match
	lr.upstreams.Store(&upstreams{changed: make(chan struct{})})
	lr.wanted = &discovery.Wanted{}
	return lr
}

func (lr *liveRoute) firstHost() string {
	if len(lr.spec.Hosts) == 0 {
		return ""
	}
	return lr.spec.Hosts[0]
}

func (lr *liveRoute) rule(path string) discovery.Rule[*liveRoute] {
	return discovery.Rule[*liveRoute]{
		ID: lr.key, Path: path, Exact: lr.spec.Match.Exact, Priority: lr.spec.Priority,
		Accept: lr.match, Narrow: lr.spec.Match.Conditions(), Value: lr,
	}
}

// end lets the requests in flight finish; nobody finds lr any more.
func (lr *liveRoute) end() {
	lr.ended.Store(true)
	drain := time.Duration(0)
	if app := lr.state.newest.Load(); app != nil {
		drain = time.Duration(app.Drain)
	}
	if drain > 0 {
		time.AfterFunc(drain, lr.finish)
	}
	last := lr.chain.Swap(nil)
	for app, c := range lr.chains {
		delete(lr.chains, app)
		if c != last {
			c.retire(drain)
		}
	}
	if last != nil {
		last.retire(drain)
	}
	lr.setUpstreams(&discovery.Wanted{State: discovery.Stopped, Detail: "removed"})
}

// chain is a provisioned handler chain with a caddy.Context of its own: that of
// one route, or the shared proxy of all plain routes of a generation.
type chain struct {
	handler caddyhttp.Handler
	errors  caddyhttp.Handler // the route's handle_errors; nil for none
	config  *caddyhttp.HTTPErrorConfig
	proxies bool // it leads to the container, so it needs an upstream

	cancel func() // cancels its context and cleans up every module in it
	refs   atomic.Int64
	once   sync.Once
	done   chan struct{} // closed once it is cleaned up
}

func newChain(cancel func()) *chain {
	c := &chain{cancel: cancel, done: make(chan struct{})}
	c.refs.Store(1)
	return c
}

// acquire counts a request in; false if the chain has ended.
func (c *chain) acquire() bool {
	for {
		n := c.refs.Load()
		if n <= 0 {
			return false
		}
		if c.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release counts a request, or the owner, out. The last one cleans up, in the
// background: closing websockets may take a while.
func (c *chain) release() {
	if c.refs.Add(-1) == 0 {
		go c.destroy()
	}
}

func (c *chain) destroy() {
	c.once.Do(func() {
		defer close(c.done)
		cancelSafely(c.cancel)
	})
}

// retire drops the owner's count. Requests in flight, hijacked connections among
// them, go on until they end, or until drain is over if it is not 0.
func (c *chain) retire(drain time.Duration) {
	c.release()
	if drain <= 0 {
		return
	}
	go func() {
		t := time.NewTimer(drain)
		defer t.Stop()
		select {
		case <-t.C:
			c.destroy()
		case <-c.done:
		}
	}()
}

func (c *chain) serve(r *http.Request, a *attempt) error {
	err := c.handler.ServeHTTP(a, r)
	if err != nil && c.errors != nil && !a.again(err) {
		return c.errors.ServeHTTP(a, c.config.WithError(r, err))
	}
	return err
}

// detach gives a context for modules that outlive the config load they are made
// in: a reload cancels the config's context at once, while requests go on.
func detach(parent caddy.Context) (caddy.Context, func()) {
	parent.Context = context.WithoutCancel(parent.Context)
	ctx, cancel := caddy.NewContext(parent)
	for _, c := range heavyCollectors {
		ctx.GetMetricsRegistry().Unregister(c)
	}
	return ctx, cancel
}

// heavyCollectors come with every caddy.Context and cost 10 KB each time
// (facts: 14.7 KB a context with them, 4.5 KB without).
var heavyCollectors = []prometheus.Collector{
	collectors.NewBuildInfoCollector(),
	collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	collectors.NewGoCollector(),
}

// buildChain provisions the chain of a route with a snippet in app's config.
func (s *State) buildChain(app *App, spec *discovery.Route) (c *chain, err error) {
	s.provisioning.Lock()
	defer s.provisioning.Unlock()
	start := time.Now()
	defer func() { s.meters.provisioned(time.Since(start), err) }()

	snippet, err := app.snippet(spec)
	if err != nil {
		return nil, err
	}
	ctx, cancel := detach(app.ctx)
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic while provisioning a route", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("a module panicked while it was set up: %v", p)
		}
		if err != nil {
			cancelSafely(cancel)
			c = nil
		}
	}()
	c = newChain(cancel)
	c.proxies = snippet.UsesContainer
	routes := cloneRoutes(snippet.Routes)
	if err := routes.Provision(ctx); err != nil {
		return nil, err
	}
	c.handler = routes.Compile(endOfChain)
	if snippet.Errors != nil {
		c.config = &caddyhttp.HTTPErrorConfig{Routes: cloneRoutes(snippet.Errors.Routes)}
		if err := c.config.Routes.Provision(ctx); err != nil {
			return nil, err
		}
		c.errors = c.config.Routes.Compile(endOfErrors)
	}
	return c, nil
}

// cancelSafely cleans up: a plugin that panics meanwhile must not end the program.
func cancelSafely(cancel func()) {
	defer func() {
		if p := recover(); p != nil {
			slog.New(lateLog{}).Error("panic while cleaning up a route", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	cancel()
}

// cloneRoutes copies a route list: provisioning empties the raw JSON.
func cloneRoutes(in caddyhttp.RouteList) caddyhttp.RouteList {
	b, err := json.Marshal(in)
	if err != nil { // cannot happen: it came from JSON
		panic(err)
	}
	var out caddyhttp.RouteList
	if err := json.Unmarshal(b, &out); err != nil {
		panic(err)
	}
	return out
}

var endOfChain = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
	return caddyhttp.Error(http.StatusNotFound, errors.New("the route's snippet does not answer this request"))
})

var endOfErrors = caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
	code := http.StatusInternalServerError
	if he, ok := r.Context().Value(caddyhttp.ErrorCtxKey).(caddyhttp.HandlerError); ok && he.StatusCode >= 400 {
		code = he.StatusCode
	}
	w.WriteHeader(code)
	return nil
})
