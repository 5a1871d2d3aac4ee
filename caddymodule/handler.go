package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dentropy/dentropycloud/discovery"
)

func init() { caddy.RegisterModule(Handler{}) }

// Handler serves the discovered routes. It belongs into a catch-all site, before
// everything else: requests for a host that no route has go on to the next
// handler.
type Handler struct {
	// Redirect is for the server on the HTTP port: requests for routes with TLS are
	// redirected to HTTPS, those of routes without are served. Default: false.
	Redirect bool `json:"redirect,omitempty"`
	// HTTPSPort is the port that redirects lead to. Default: 443.
	HTTPSPort int `json:"https_port,omitempty"`

	state *State
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.dentropy", New: func() caddy.Module { return new(Handler) }}
}

// Provision finds the state, and makes sure that the config has our app.
func (h *Handler) Provision(ctx caddy.Context) error {
	if _, err := ctx.App("dentropy"); err != nil {
		return err
	}
	state, err := loadState()
	if err != nil {
		return err
	}
	h.state = state
	return nil
}

// Cleanup lets go of the state.
func (h *Handler) Cleanup() error {
	if h.state == nil {
		return nil
	}
	return releaseState()
}

// challengePath is where ACME servers look; whoever solves a challenge behind a
// route must be reachable there without TLS.
const challengePath = "/.well-known/acme-challenge/"

// mostHops is how many proxies a request may have passed, each of which adds to Via.
// A label can lead back to us by an address that is not ours (the host's, where we
// run in a container): such a request must not go round until all sockets are used
// up. Nobody puts as many proxies in a row.
const mostHops = 16

// ServeHTTP sends the request to its route, or to next. A route that ends before
// anything of the request was sent hands it over to the one that took its place.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if len(r.Header["Via"]) > mostHops {
		return caddyhttp.Error(http.StatusLoopDetected, errors.New("the request has come back too often: does a route lead to this proxy itself?"))
	}
	s := h.state
	host, path := discovery.RequestHost(r), matchPath(r.URL.Path)
	if _, static := s.reserved(host); static {
		return next.ServeHTTP(w, r) // no wildcard of a container's answers in its place
	}
	original, uri := *r.URL, r.RequestURI
	var hold holder
	defer hold.end()
	for {
		lr, prefix, ok, known := s.table.Lookup(host, path, r)
		switch {
		case !known && hold.route != nil: // it waited for a container that is being made anew
			if !hold.pause(r, hold.route) {
				return hold.giveUp(w, r, hold.route)
			}
			continue
		case !known:
			return next.ServeHTTP(w, r)
		case !ok:
			return caddyhttp.Error(http.StatusNotFound, fmt.Errorf("no route of %s covers %s", host, r.URL.Path))
		}
		if h.Redirect && lr.spec.TLS != "off" && !strings.HasPrefix(path, challengePath) {
			h.redirect(w, r, host)
			return nil
		}
		if !lr.spec.Access.Allows(clientAddr(r)) {
			return caddyhttp.Error(http.StatusForbidden, fmt.Errorf("%s is not open to this client", host))
		}
		if lr.spec.StripPath && prefix != "/" {
			stripPrefix(r, path, prefix)
		}
		err := s.serve(w, r, lr, &hold)
		if !errors.Is(err, errRouteGone) {
			return err
		}
		*r.URL, r.RequestURI = original, uri
		r.Header.Del(forwardedPrefix)
	}
}

// errRouteGone says that a route ended before it could answer, and that the
// request is as it came.
var errRouteGone = errors.New("the route is gone")

func (h *Handler) redirect(w http.ResponseWriter, r *http.Request, host string) {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if h.HTTPSPort != 0 && h.HTTPSPort != 443 {
		host += ":" + strconv.Itoa(h.HTTPSPort)
	}
	w.Header().Set("Connection", "close") // the client goes elsewhere now
	w.Header().Set("Location", "https://"+host+r.URL.RequestURI())
	w.WriteHeader(http.StatusPermanentRedirect)
}

// serve runs the request through lr: it waits while there is no upstream, and
// tries again where none of the request has been sent.
func (s *State) serve(w http.ResponseWriter, r *http.Request, lr *liveRoute, hold *holder) error {
	lr.requests.Add(1)
	a := &attempt{route: lr, tunnel: r.Method == http.MethodConnect}
	a.ResponseWriter = w
	defer a.done()
	caddyhttp.SetVar(r.Context(), attemptVar, a)
	var saved savedRequest
	if lr.spec.Caddyfile != "" {
		saved = saveRequest(w, r)
	} else if app := s.newest.Load(); app != nil && app.Drain > 0 {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(lr.over, cancel)()
		r = r.WithContext(ctx)
	}
	for tries := 0; ; tries++ {
		if tries > 0 && lr.spec.Caddyfile != "" {
			saved.restore(w, r)
		}
		if lr.ended.Load() {
			return errRouteGone
		}
		c, err := s.acquire(r.Context(), lr)
		if err != nil {
			return err
		}
		if c.proxies && len(lr.upstreams.Load().ready) == 0 {
			c.release() // do not keep an old config's modules alive by waiting
			if !hold.wait(r, lr) {
				return hold.giveUp(w, r, lr)
			}
			continue
		}
		a.done()
		err = s.runChain(r, c, a)
		if !a.again(err) {
			return err
		}
		if a.picked != nil {
			s.registry.Suspect(lr.key, a.picked.address)
		}
		a.done()
		if saved.body.begun() || !hold.pause(r, lr) {
			return hold.giveUp(w, r, lr)
		}
	}
}

// acquire gives the chain that serves lr now, counted in.
func (s *State) acquire(ctx context.Context, lr *liveRoute) (*chain, error) {
	for {
		c := lr.chain.Load()
		if lr.spec.Caddyfile == "" {
			app := s.newest.Load()
			if app == nil { // the servers of the first config may start before our app
				select {
				case <-s.ready:
				case <-ctx.Done():
					return nil, ctx.Err()
				}
				if app = s.newest.Load(); app == nil {
					return nil, caddyhttp.Error(http.StatusServiceUnavailable, errors.New("shutting down"))
				}
			}
			c = app.plain[lr.spec.Scheme]
		}
		if lr.ended.Load() {
			return nil, errRouteGone
		}
		if c == nil {
			err := errors.New("the route could not be set up")
			if p := lr.failed.Load(); p != nil {
				err = *p
			}
			return nil, caddyhttp.Error(http.StatusServiceUnavailable, err)
		}
		if c.acquire() {
			return c, nil
		}
		// ended between finding and counting: its successor is in place already,
		// unless everything has ended
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if lr.chain.Load() == c || lr.spec.Caddyfile == "" && s.newest.Load().plainIs(lr.spec.Scheme, c) {
			return nil, caddyhttp.Error(http.StatusServiceUnavailable, errors.New("shutting down"))
		}
	}
}

// runChain runs the request through c and counts it out, however it ends. It
// contains a panic in a route's module.
func (s *State) runChain(r *http.Request, c *chain, a *attempt) (err error) {
	defer c.release()
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(p) // net/http's own way to end a response
		}
		s.log.Error("panic in a route's handler", "host", r.Host, "panic", p, "stack", string(debug.Stack()))
		err = caddyhttp.Error(http.StatusInternalServerError, fmt.Errorf("panic: %v", p))
	}()
	return c.serve(r, a)
}

// matchPath is the path that rules are held against. Dot segments and double
// slashes are resolved, so that nobody gets past a guarded prefix with them.
func matchPath(p string) string {
	if !strings.Contains(p, "//") && !strings.Contains(p, "/.") {
		return p
	}
	clean := path.Clean("/" + p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	return clean
}

// forwardedPrefix tells the container what was taken off the path.
const forwardedPrefix = "X-Forwarded-Prefix"

// stripPrefix takes prefix off path, which is the request's as it was matched, in
// place as Caddy's own rewrites do, since placeholders are bound to this request.
func stripPrefix(r *http.Request, path, prefix string) {
	trim := func(p string) string {
		p = strings.TrimPrefix(p, prefix)
		if !strings.HasPrefix(p, "/") {
			p = "/" + p
		}
		return p
	}
	if path == r.URL.Path && strings.HasPrefix(r.URL.RawPath, prefix) {
		r.URL.RawPath = trim(r.URL.RawPath)
	} else {
		r.URL.RawPath = "" // the prefix itself was escaped, or not at the beginning: encode anew
	}
	r.URL.Path = trim(path)
	r.RequestURI = r.URL.RequestURI()
	r.Header.Set(forwardedPrefix, prefix)
}

// savedRequest is what a handler chain may change of a request, and of the header of
// its response, before it is known whether the container answers.
type savedRequest struct {
	method, host, uri string
	url               url.URL
	header, response  http.Header
	body              *watchedBody // nil for none
}

func saveRequest(w http.ResponseWriter, r *http.Request) savedRequest {
	s := savedRequest{r.Method, r.Host, r.RequestURI, *r.URL, r.Header.Clone(), w.Header().Clone(), nil}
	if r.Body != nil && r.Body != http.NoBody {
		s.body = &watchedBody{ReadCloser: r.Body}
		r.Body = s.body
	}
	return s
}

// watchedBody is a request's body. What a handler has read of it before its container
// refused the connection (request_buffers does) is not there for another try.
type watchedBody struct {
	io.ReadCloser
	read atomic.Bool
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.read.Store(true)
	return b.ReadCloser.Read(p)
}

func (b *watchedBody) begun() bool { return b != nil && b.read.Load() }

// restore makes r and the header of w what they were, for another run of the chain.
func (s savedRequest) restore(w http.ResponseWriter, r *http.Request) {
	r.Method, r.Host, r.RequestURI = s.method, s.host, s.uri
	*r.URL = s.url
	if s.body != nil {
		r.Body = s.body
	}
	restoreHeader(r.Header, s.header)
	restoreHeader(w.Header(), s.response)
}

func restoreHeader(h, saved http.Header) {
	clear(h)
	for k, v := range saved {
		h[k] = slices.Clone(v)
	}
}

// clientAddr is the client's address as Caddy determined it, trusted proxies
// considered.
func clientAddr(r *http.Request) netip.Addr {
	text, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	if text == "" {
		text, _, _ = net.SplitHostPort(r.RemoteAddr)
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return addr
}

// parseDirective sets up the handler from Caddyfile tokens. Syntax:
//
//	dentropy [redirect [<https_port>]]
func parseDirective(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h.Next()
	handler := new(Handler)
	for h.NextArg() {
		switch arg := h.Val(); {
		case arg == "redirect" && !handler.Redirect:
			handler.Redirect = true
		case handler.Redirect && handler.HTTPSPort == 0:
			port, err := strconv.ParseUint(arg, 10, 16)
			if err != nil || port == 0 {
				return nil, h.Errf("bad port %q", arg)
			}
			handler.HTTPSPort = int(port)
		default:
			return nil, h.Errf("unrecognized option %q", arg)
		}
	}
	if h.NextBlock(0) {
		return nil, h.Errf("dentropy takes no block here; the options are global: { dentropy { … } }")
	}
	return handler, nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)

// retryFirst is the pause before a request is tried again after a refused
// connection; it doubles, so that a refusing address is not hammered.
const (
	retryFirst = 2 * time.Millisecond
	retryMost  = 250 * time.Millisecond
)
