package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
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
	ready   []*upstream
	changed chan struct{}
	// what to say while ready is empty
	state  discovery.State
	detail string
	object string
	since  time.Time
}

// upstream is one address of one route; it lives as long as the address is ready.
type upstream struct {
	address  string
	inFlight atomic.Int64
}

// setUpstreams swaps the addresses; held requests wake up. Calls come one at a
// time.
func (lr *liveRoute) setUpstreams(w *discovery.Wanted) {
	old := lr.upstreams.Load()
	next := &upstreams{changed: make(chan struct{}), state: w.State, detail: w.Detail, object: w.Object, since: w.Since}
	for _, address := range w.Ready {
		i := slices.IndexFunc(old.ready, func(u *upstream) bool { return u.address == address })
		if i >= 0 {
			next.ready = append(next.ready, old.ready[i])
		} else {
			next.ready = append(next.ready, &upstream{address: address})
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
// request's variables, under attemptVar.
type attempt struct {
	route  *liveRoute
	picked *upstream // that was tried last
	missed bool      // there was none to try
}

const attemptVar = "dentropy.attempt"

func (a *attempt) pick() *upstream {
	a.done()
	a.picked = a.route.upstreams.Load().pick()
	if a.missed = a.picked == nil; !a.missed {
		a.picked.inFlight.Add(1)
	}
	return a.picked
}

func (a *attempt) done() {
	if a.picked != nil {
		a.picked.inFlight.Add(-1)
		a.picked = nil
	}
	a.missed = false
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
	_ reverseproxy.UpstreamSource = Upstreams{}
	_ caddyfile.Unmarshaler       = (*Upstreams)(nil)
)
