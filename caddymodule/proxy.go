package caddymodule

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/dentropy/dentropycloud/discovery"
)

func init() { caddy.RegisterModule(Upstreams{}) }

// upstreams are the addresses of a route at one moment. A change stores a new
// value and closes changed of the old one.
type upstreams struct {
	ready []*upstream
	// leaving were ready before, and may still have requests under way.
	leaving []*upstream
	changed chan struct{}
	// what to say while ready is empty
	state  discovery.State
	detail string
	object string
	since  time.Time
}

// upstream is one address of one route; it lives as long as the address is ready, or
// requests to it are under way.
type upstream struct {
	address  string
	inFlight atomic.Int64
	// endless are those of inFlight that do not end by themselves: see attempt.
	endless atomic.Int64
	// wake is told when fewer are under way; nil while nobody waits for that.
	wake atomic.Pointer[chan struct{}]
}

// busy reports whether requests are under way that will end. Those that come meanwhile
// may be missed.
func (u *upstream) busy() bool {
	// In this order, and see attempt.done: whatever ends in between counts too much, not
	// too little.
	n := u.inFlight.Load()
	return n > u.endless.Load()
}

// tell wakes who waits until it is busy no more.
func (u *upstream) tell() {
	if wake := u.wake.Load(); wake != nil {
		select {
		case *wake <- struct{}{}:
		default: // it will look anyway
		}
	}
}

// setUpstreams swaps the addresses; held requests wake up. Calls come one at a
// time, with state.mu held or before anybody else knows lr.
func (lr *liveRoute) setUpstreams(w *discovery.Wanted) {
	old := lr.upstreams.Load()
	lr.wanted = w
	next := &upstreams{changed: make(chan struct{}), state: w.State, detail: w.Detail, object: w.Object, since: w.Since}
	known := func(address string) *upstream {
		for _, list := range [][]*upstream{old.ready, old.leaving} {
			for _, u := range list {
				if u.address == address {
					return u
				}
			}
		}
		return &upstream{address: address}
	}
	for _, address := range lr.state.backups.rest.serving(w.Ready) {
		next.ready = append(next.ready, known(address))
	}
	for _, u := range old.ready { // not asked whether they are busy: they may be at once
		if !slices.Contains(next.ready, u) {
			next.leaving = append(next.leaving, u)
		}
	}
	for _, u := range old.leaving {
		if u.inFlight.Load() > 0 && !slices.Contains(next.ready, u) {
			next.leaving = append(next.leaving, u)
		}
	}
	lr.upstreams.Store(next)
	close(old.changed)
}

// pick gives the less busy of two addresses chosen at random, which balances as
// well as looking at all of them; nil if there is none.
func (u *upstreams) pick() *upstream {
	switch n := len(u.ready); n {
	case 0:
		return nil
	case 1:
		return u.ready[0]
	default:
		i := rand.IntN(n)
		j := rand.IntN(n - 1)
		if j >= i {
			j++
		}
		if u.ready[j].inFlight.Load() < u.ready[i].inFlight.Load() {
			i = j
		}
		return u.ready[i]
	}
}

// attempt is a request on its way to an upstream of its route. It travels in the
// request's variables, under attemptVar, and the response goes through it: there it is
// seen that a response does not end by itself.
type attempt struct {
	caddyhttp.ResponseWriterWrapper

	route   *liveRoute
	picked  *upstream // that was tried last
	missed  bool      // there was none to try
	endless bool      // counted as such
	tunnel  bool      // the request asks for one, as websockets do over HTTP/2
}

const attemptVar = "dentropy.attempt"

func (a *attempt) pick() *upstream {
	a.done()
	for {
		all := a.route.upstreams.Load()
		u := all.pick()
		if u == nil {
			a.missed = true
			return nil
		}
		u.inFlight.Add(1)
		// Whoever takes u out of service first and then finds nobody counted can be sure
		// that nobody comes: so it is looked at again after counting.
		if a.route.upstreams.Load() == all {
			a.picked = u
			return u
		}
		u.inFlight.Add(-1)
		u.tell()
	}
}

func (a *attempt) done() {
	if u := a.picked; u != nil {
		a.picked = nil
		if a.endless {
			a.endless = false
			u.endless.Add(-1)
		}
		u.inFlight.Add(-1) // after endless: see upstream.busy
		u.tell()
	}
	a.missed = false
}

// goesOn notes that the response does not end by itself.
func (a *attempt) goesOn() {
	if a.picked != nil && !a.endless {
		a.endless = true
		a.picked.endless.Add(1)
		a.picked.tell()
	}
}

// WriteHeader implements http.ResponseWriter.
func (a *attempt) WriteHeader(status int) {
	// Other informational ones come from another goroutine, and are no response yet.
	switch {
	case status == http.StatusSwitchingProtocols, status/100 == 2 && a.tunnel, status >= 200 && endless(a.Header()):
		a.goesOn()
	}
	a.ResponseWriter.WriteHeader(status)
}

// endless reports whether the header is of a response that goes on until somebody
// leaves: events, and the pictures of a camera.
func endless(h http.Header) bool {
	v := h["Content-Type"]
	if len(v) == 0 {
		return false
	}
	return strings.HasPrefix(v[0], "text/event-stream") || strings.HasPrefix(v[0], "multipart/x-mixed-replace")
}

// Hijack implements http.Hijacker, for handlers that ask for no more than that.
func (a *attempt) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	a.goesOn()
	return http.NewResponseController(a.ResponseWriter).Hijack()
}

// FlushError is what http.ResponseController asks for.
func (a *attempt) FlushError() error {
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// Flush implements http.Flusher, for handlers that ask for no more than that.
func (a *attempt) Flush() {
	_ = a.FlushError() // as http.Flusher does not tell
}

// again reports whether err leaves the request fit for another try: no
// connection to the container came about, or there was no address to try.
func (a *attempt) again(err error) bool {
	return err != nil && (a.missed || a.picked != nil && isDialError(err, a.picked.address))
}

// Upstreams is the upstream source of the container behind a route: it gives the
// reverse_proxy it stands in one address of the route that the request was found
// to belong to. It has no options.
type Upstreams struct{}

// CaddyModule returns the Caddy module information.
func (Upstreams) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.reverse_proxy.upstreams.dentropy", New: func() caddy.Module { return new(Upstreams) }}
}

// GetUpstreams gives one address: choosing among several is done here, so that
// the cost of a request does not grow with the number of replicas. The value is
// new each time, since the proxy writes to it.
func (Upstreams) GetUpstreams(r *http.Request) ([]*reverseproxy.Upstream, error) {
	a, ok := caddyhttp.GetVar(r.Context(), attemptVar).(*attempt)
	if !ok {
		return nil, errors.New("this request belongs to no discovered route")
	}
	u := a.pick()
	if u == nil {
		return nil, nil
	}
	return []*reverseproxy.Upstream{{Dial: u.address}}, nil
}

// UnmarshalCaddyfile sets up the source from Caddyfile tokens. Syntax:
//
//	dynamic dentropy
func (*Upstreams) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return noOptions(d)
}

// proxyConfig is the JSON of a reverse_proxy to the container, for each scheme
// that it may be spoken to in. A container's own HTTPS certificate is not
// verified: nobody issues certificates for addresses of a container network.
func proxyConfig(scheme string) (json.RawMessage, error) {
	const upstreams = `"dynamic_upstreams":{"source":"dentropy"}`
	switch scheme {
	case "", "http":
		return json.RawMessage(`{` + upstreams + `}`), nil
	case "https":
		return json.RawMessage(`{` + upstreams + `,"transport":{"protocol":"http","tls":{"insecure_skip_verify":true}},` +
			// Caddy would send the container's address as the host because of TLS
			`"headers":{"request":{"set":{"Host":["{http.request.hostport}"]}}}}`), nil
	case "h2c":
		return json.RawMessage(`{` + upstreams + `,"transport":{"protocol":"http","versions":["h2c","2"]}}`), nil
	}
	return nil, fmt.Errorf("scheme %q is not known: use http, https or h2c", scheme)
}

// plainSchemes are those that a generation keeps a shared proxy for.
var plainSchemes = []string{"http", "https", "h2c"}

// newPlainProxy provisions the proxy that all plain routes of one scheme share.
// One for all means that a plain route costs nothing but its entry in the table.
func newPlainProxy(ctx caddy.Context, scheme string) (*chain, error) {
	raw, err := proxyConfig(scheme)
	if err != nil {
		return nil, err
	}
	ctx, cancel := detach(ctx)
	mod, err := ctx.LoadModuleByID("http.handlers.reverse_proxy", raw)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("set up the proxy for %s backends: %w", scheme, err)
	}
	proxy := mod.(caddyhttp.MiddlewareHandler)
	c := newChain(cancel)
	c.proxies = true
	c.handler = caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		return proxy.ServeHTTP(w, r, endOfChain)
	})
	return c, nil
}

// isDialError reports whether err means that no connection to address came about:
// nothing of the request has been sent, it may be tried again. A snippet may dial
// other servers when the container has had the request already; which one refused
// can only be read, since Caddy's error hides the one it holds.
func isDialError(err error, address string) bool {
	var dial reverseproxy.DialError
	if !errors.As(err, &dial) {
		return false
	}
	if _, err := netip.ParseAddrPort(address); err != nil {
		return true // a name, that of a remote engine: the error has what it stands for
	}
	return strings.Contains(dial.Error(), address+":")
}

// Interface guards
var (
	_ http.Hijacker               = (*attempt)(nil)
	_ http.Flusher                = (*attempt)(nil)
	_ reverseproxy.UpstreamSource = Upstreams{}
	_ caddyfile.Unmarshaler       = (*Upstreams)(nil)
)
