package caddymodule

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/coder/websocket"
	"github.com/dentropy/dentropycloud/discovery"
)

func off(host string) discovery.Route { return discovery.Route{Hosts: []string{host}, TLS: "off"} }

func TestHoldAndRelease(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	up.Set(object("app", off("app.test"), ""))
	type result struct {
		status int
		body   string
	}
	results := make(chan result)
	const n = 20
	for range n {
		go func() {
			status, body, _ := w.try("http://app.test/held")
			results <- result{status, body}
		}()
	}
	s, err := current()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "all requests wait", func() bool { return s.holding.Load() == n })
	up.Set(object("app", off("app.test"), backend(t, "app")))
	for range n {
		if r := <-results; r.status != 200 || r.body != "app /held" {
			t.Errorf("held request got %d %q, want 200", r.status, r.body)
		}
	}
	if n := s.holding.Load(); n != 0 {
		t.Errorf("%d requests are still counted as waiting", n)
	}
}

func TestHoldEndsWithPage(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	route := off("app.test")
	route.Hold = 30 * time.Millisecond
	o := object("shop-web-1", route, "")
	o.State, o.Detail = discovery.Stopped, "exited with code 3"
	up.Set(o)
	req, _ := http.NewRequest("GET", "http://app.test/", nil)
	req.Header.Set("Accept", "text/html")
	resp, err := w.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("got %d, Retry-After %q, want 503 with Retry-After", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	for _, want := range []string{"is stopped", "shop-web-1", "exited with code 3"} {
		if !strings.Contains(string(body), want) {
			t.Errorf("page does not say %q:\n%s", want, body)
		}
	}
}

func TestHoldIsBounded(t *testing.T) {
	w := newWorld(t, func(app map[string]any) { app["hold_queue"] = 2 })
	up := w.up()
	up.Set(object("app", off("app.test"), ""))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(ctx, "GET", "http://app.test/", nil)
			if resp, err := w.client.Do(req); err == nil {
				_ = resp.Body.Close()
			}
		})
	}
	s, err := current()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "both wait", func() bool { return s.holding.Load() == 2 })
	if status, body := w.get("http://app.test/"); status != 503 || !strings.Contains(body, "too many") {
		t.Errorf("third request: %d %q, want 503 at once", status, body)
	}
	cancel()
	wg.Wait()
	eventually(t, "clients that went away are counted out", func() bool { return s.holding.Load() == 0 })
	if status, _, _ := w.try("http://app.test/"); status != 503 { // waits its 10 s: counted in again
		t.Errorf("status = %d, want 503", status)
	}
}

// TestRefusedConnectionIsTriedAgain covers the moment between the end of a
// program and the event that tells of it.
func TestRefusedConnectionIsTriedAgain(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	serve := func(l net.Listener) *httptest.Server {
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			_, _ = fmt.Fprintf(w, "got %s", b)
		}))
		srv.Listener = l
		srv.Start()
		return srv
	}
	srv := serve(l)
	up.Set(object("app", off("app.test"), address))
	eventually(t, "served", func() bool { status, _ := w.get("http://app.test/"); return status == 200 })
	srv.Close() // nobody tells the source
	answered := make(chan string)
	go func() {
		resp, err := w.client.Post("http://app.test/", "text/plain", strings.NewReader("the body"))
		if err != nil {
			answered <- err.Error()
			return
		}
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		answered <- fmt.Sprint(resp.StatusCode, " ", string(b))
	}()
	s, err := current()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the request waits", func() bool { return s.holding.Load() == 1 })
	l, err = net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	srv = serve(l)
	defer srv.Close()
	if got := <-answered; got != "200 got the body" {
		t.Errorf("got %q, want the body to arrive at the restarted program", got)
	}
}

func TestAccessAndStrip(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	address := backend(t, "b")
	private := off("private.test")
	private.Access = discovery.Access{Private: true}
	closed := off("closed.test")
	closed.Access = discovery.Access{Prefixes: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}
	strip := off("strip.test")
	strip.Paths, strip.StripPath = []string{"/app"}, true
	guard := off("guard.test")
	guard.Paths = []string{"/admin"}
	guard.Access = closed.Access
	open := off("guard.test")
	open.Name = "open"
	for i, r := range []discovery.Route{private, closed, strip, guard} {
		up.Set(object(fmt.Sprint("c", i), r, address))
	}
	o := object("c3", guard, address)
	second := object("x", open, address).Routes[0]
	o.Routes = append(o.Routes, second)
	up.Set(o)
	tests := []struct {
		name, url string
		status    int
		body      string
	}{
		{"private from loopback", "http://private.test/", 200, "b /"},
		{"not in the list", "http://closed.test/", 403, ""},
		{"stripped", "http://strip.test/app/x?y", 200, "b /x?y"},
		{"stripped to root", "http://strip.test/app", 200, "b /"},
		{"escaped", "http://strip.test/app/a%2Fb", 200, "b /a%2Fb"},
		{"outside", "http://strip.test/other", 404, ""},
		{"open part", "http://guard.test/", 200, "b /"},
		{"guarded part", "http://guard.test/admin/x", 403, ""},
		{"around the guard with dots", "http://guard.test/x/../admin/x", 403, ""},
		{"around the guard with slashes", "http://guard.test//admin/x", 403, ""},
		{"around the guard, escaped", "http://guard.test/%61dmin/x", 403, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequest("GET", tt.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			var resp *http.Response
			eventually(t, "the endpoint is verified", func() bool {
				resp, err = w.client.Do(req)
				return err == nil && resp.StatusCode != 503
			})
			defer func() { _ = resp.Body.Close() }()
			b, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != tt.status || tt.body != "" && string(b) != tt.body {
				t.Errorf("got %d %q, want %d %q", resp.StatusCode, b, tt.status, tt.body)
			}
		})
	}
}

func TestReplicasAreBalanced(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	for i := range 3 {
		o := object(fmt.Sprint("r", i), off("app.test"), backend(t, fmt.Sprint("r", i)))
		o.Group = discovery.Group{Engine: "memory", Project: "p", Service: "web"}
		up.Set(o)
	}
	seen := map[string]int{}
	eventually(t, "all three answer", func() bool {
		_, body := w.get("http://app.test/")
		seen[body]++
		return len(seen) == 3
	})
	for range 60 {
		_, body := w.get("http://app.test/")
		seen[body]++
	}
	for who, n := range seen {
		if n < 5 {
			t.Errorf("%s got %d of 60 requests", who, n)
		}
	}
}

// echo is a websocket server that says how many connections it has.
func echo(t testing.TB) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			_, _ = io.WriteString(w, "plain")
			return
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, b) != nil {
				return
			}
		}
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func (w *world) websocket(url string) *websocket.Conn {
	w.t.Helper()
	c, _, err := websocket.Dial(w.t.Context(), url, &websocket.DialOptions{HTTPClient: &http.Client{Transport: &http.Transport{DialContext: w.dial}}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

func speak(t testing.TB, c *websocket.Conn, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := c.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		t.Fatalf("websocket is cut: %v", err)
	}
	_, b, err := c.Read(ctx)
	if err != nil || string(b) != text {
		t.Fatalf("websocket answered %q, %v, want %q", b, err, text)
	}
}

// TestChurnDisturbsNobody is the promise: neighbours come and go, the config is
// never loaded, websockets live, no request fails.
func TestChurnDisturbsNobody(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	up.Set(object("still", off("still.test"), echo(t)))
	eventually(t, "served", func() bool { status, _ := w.get("http://still.test/"); return status == 200 })
	ws := w.websocket("ws://still.test/")
	speak(t, ws, "before")
	s, _ := current()
	app := s.newest.Load()
	ctx, cancel := context.WithCancel(t.Context())
	var failed, served atomic.Int64
	var load sync.WaitGroup
	for range 2 {
		load.Go(func() {
			for ctx.Err() == nil {
				if status, body, err := w.try("http://still.test/"); err != nil || status != 200 || body != "plain" {
					failed.Add(1)
				}
				served.Add(1)
			}
		})
	}
	neighbour := backend(t, "n")
	for i := range 1000 {
		id := fmt.Sprint("n", i%7)
		if i%3 == 2 {
			up.Delete(id)
		} else {
			up.Set(object(id, off(id+".test"), neighbour))
		}
	}
	eventually(t, "enough requests", func() bool { return served.Load() > 50 })
	cancel()
	load.Wait()
	speak(t, ws, "after")
	if failed.Load() > 0 {
		t.Errorf("%d of %d requests failed", failed.Load(), served.Load())
	}
	if s.newest.Load() != app {
		t.Error("the config was loaded anew")
	}
}

func TestReloadDoesNotBlink(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	up.Set(object("still", off("still.test"), echo(t)))
	snippet := off("snippet.test")
	snippet.Caddyfile = "header X-From snippet\nreverse_proxy"
	up.Set(object("snippet", snippet, echo(t)))
	for _, host := range []string{"still", "snippet"} {
		eventually(t, host+" is served", func() bool { status, _ := w.get("http://" + host + ".test/"); return status == 200 })
	}
	plain, own := w.websocket("ws://still.test/"), w.websocket("ws://snippet.test/")
	s, _ := current()
	requests := func() int64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		n := int64(0)
		for _, lr := range s.routes {
			n += lr.requests.Load()
		}
		return n
	}
	before := requests()
	for i := range 10 {
		w.load()
		speak(t, plain, fmt.Sprint(i))
		speak(t, own, fmt.Sprint(i))
		eventually(t, "the snippet's route answers", func() bool { status, _, err := w.try("http://snippet.test/"); return err == nil && status == 200 })
	}
	if after := requests(); after < before+10 {
		t.Errorf("the route's counter went from %d to %d over 10 reloads and 10 requests", before, after)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.generations) != 1 {
		t.Errorf("%d generations are left, want 1", len(s.generations))
	}
	for _, lr := range s.routes {
		if lr.spec.Caddyfile != "" && len(lr.chains) != 1 {
			t.Errorf("%d chains are left of %s, want 1", len(lr.chains), lr.key)
		}
	}
}

func TestHeldRequestOutlivesReload(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	up.Set(object("app", off("app.test"), ""))
	answered := make(chan int)
	go func() {
		status, _, _ := w.try("http://app.test/")
		answered <- status
	}()
	s, _ := current()
	eventually(t, "it waits", func() bool { return s.holding.Load() == 1 })
	w.load()
	w.load()
	up.Set(object("app", off("app.test"), backend(t, "app")))
	if status := <-answered; status != 200 {
		t.Errorf("status = %d, want 200", status)
	}
}

// TestDrain makes sure that a removed route's websocket lives for the drain time
// and no longer, whether the route has a chain of its own or not.
func TestDrain(t *testing.T) {
	for name, snippet := range map[string]string{"plain": "", "own chain": "header X-A b"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(app map[string]any) { app["drain"] = "300ms" })
			up := w.up()
			route := off("app.test")
			route.Caddyfile = snippet
			up.Set(object("app", route, echo(t)))
			eventually(t, "served", func() bool { status, _ := w.get("http://app.test/"); return status == 200 })
			ws := w.websocket("ws://app.test/")
			speak(t, ws, "before")
			begun := time.Now()
			up.Delete("app")
			speak(t, ws, "drains")
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if _, _, err := ws.Read(ctx); err == nil || ctx.Err() != nil {
				t.Errorf("read = %v, want the end of the connection", err)
			}
			if took := time.Since(begun); took < 250*time.Millisecond {
				t.Errorf("cut after %v, want 300ms", took)
			}
		})
	}
}

// failing is an app whose Start fails: it makes a config load fail after ours has
// started, or not yet, since the order is random.
type failing struct{}

func init() { caddy.RegisterModule(failing{}) }

func (failing) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "zz_failing", New: func() caddy.Module { return new(failing) }}
}
func (failing) Start() error { return errWrong }
func (failing) Stop() error  { return nil }

func TestFailedReloadLeavesEverything(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	snippet := off("app.test")
	snippet.Caddyfile = "header X-From snippet\nreverse_proxy"
	up.Set(object("app", snippet, echo(t)))
	eventually(t, "served", func() bool { status, _ := w.get("http://app.test/"); return status == 200 })
	ws := w.websocket("ws://app.test/")
	s, _ := current()
	app := s.newest.Load()
	bad := strings.Replace(string(mustJSON(w.config)), `"apps":{`, `"apps":{"zz_failing":{},`, 1)
	for i := range 12 {
		if err := caddy.Load([]byte(bad), true); err == nil {
			t.Fatal("a config with an app that fails to start was loaded")
		}
		if s.newest.Load() != app {
			t.Fatalf("after failed load %d another generation serves", i)
		}
		speak(t, ws, fmt.Sprint(i))
		up.Set(object(fmt.Sprint("n", i), off(fmt.Sprintf("n%d.test", i)), backend(t, "n")))
		// Caddy's own listeners lose a few connections at each load; see cmd for ours
		for _, host := range []string{fmt.Sprintf("n%d.test", i), "app.test"} {
			eventually(t, host+" is served", func() bool { status, _, err := w.try("http://" + host + "/"); return err == nil && status == 200 })
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.generations) != 1 || len(s.sources) != 1 {
		t.Errorf("%d generations and %d sources are left, want 1 and 1", len(s.generations), len(s.sources))
	}
}

// panics is a handler that panics when it is provisioned or when it serves.
type panics struct {
	When string `json:"when,omitempty"`
}

func init() {
	caddy.RegisterModule(panics{})
	httpcaddyfile.RegisterHandlerDirective("panics", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		p := new(panics)
		h.Next()
		h.Args(&p.When)
		return p, nil
	})
	httpcaddyfile.RegisterDirectiveOrder("panics", httpcaddyfile.Before, "header")
}

func (panics) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.panics", New: func() caddy.Module { return new(panics) }}
}

func (p *panics) Provision(caddy.Context) error {
	if p.When == "provision" {
		panic("as the test wants it")
	}
	return nil
}

func (p *panics) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if r.URL.Path == "/panic" {
		panic("as the test wants it")
	}
	return next.ServeHTTP(w, r)
}

func TestPanicIsContained(t *testing.T) {
	w := newWorld(t, func(app map[string]any) { app["allow_handlers"] = []string{"http.handlers.panics"} })
	up := w.up()
	address := backend(t, "b")
	route := func(host, snippet string) discovery.Route {
		r := off(host)
		r.Caddyfile = snippet
		return r
	}
	up.Set(object("serves", route("serves.test", "panics serve"), address))
	up.Set(object("provisions", route("provisions.test", "panics provision"), address))
	up.Set(object("other", off("other.test"), address))
	eventually(t, "the good routes are served", func() bool {
		a, _ := w.get("http://other.test/")
		b, _ := w.get("http://serves.test/")
		return a == 200 && b == 200
	})
	if status, _, err := w.try("http://serves.test/panic"); err != nil || status != 500 {
		t.Errorf("a panic while serving: %d, %v, want 500", status, err)
	}
	if status, _ := w.get("http://provisions.test/"); status != 404 {
		t.Errorf("a route that cannot be set up: %d, want 404", status)
	}
	s, _ := current()
	v := s.registry.Routes()
	i := slices.IndexFunc(v, func(v discovery.RouteView) bool { return v.Object == "provisions" })
	if i < 0 || len(v[i].Problems) != 1 || !strings.Contains(v[i].Problems[0].Reason, "panicked") {
		t.Errorf("views = %+v, want the panic named", v)
	}
}

func TestOpenIssuanceIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	tls := w.config["apps"].(map[string]any)["tls"].(map[string]any)["automation"].(map[string]any)
	delete(tls, "on_demand")
	err := caddy.Load(mustJSON(w.config), true)
	if err == nil || !strings.Contains(err.Error(), "permission dentropy") {
		t.Errorf("Load = %v, want a refusal that names the permission", err)
	}
}

// TestHoldHTTP10 makes sure that a client without keep-alive is held too.
func TestHoldHTTP10(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	up.Set(object("app", off("app.test"), ""))
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", w.http))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, "GET / HTTP/1.0\r\nHost: app.test\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	s, _ := current()
	eventually(t, "it waits", func() bool { return s.holding.Load() == 1 })
	up.Set(object("app", off("app.test"), backend(t, "app")))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || !strings.Contains(line, "200") {
		t.Errorf("answer %q, %v, want 200", line, err)
	}
}
