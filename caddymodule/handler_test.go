package caddymodule

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestAbortedResponseIsCountedOut: a program that breaks off in the middle of an
// answer makes the proxy panic with http.ErrAbortHandler; the chain of the route
// must end all the same when the route does.
func TestAbortedResponseIsCountedOut(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, "the first words")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	defer srv.Close()
	route := off("app.test")
	route.Caddyfile = "header X-From snippet\nreverse_proxy"
	up.Set(object("app", route, srv.Listener.Addr().String()))
	s, err := current()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "served", func() bool { return s.registry.Count()["serving"] == 1 })
	if _, _, err := w.try("http://app.test/"); err == nil {
		t.Fatal("the answer was not broken off")
	}
	s.mu.Lock()
	var c *chain
	for _, lr := range s.routes {
		c = lr.chain.Load()
	}
	s.mu.Unlock()
	up.Delete("app")
	late := time.NewTimer(10 * time.Second)
	defer late.Stop()
	select {
	case <-c.done:
	case <-late.C:
		t.Errorf("the chain of the removed route still counts %d requests", c.refs.Load())
	}
}

// TestHeldRequestFollowsTheHost: a request that waits for a container goes to the
// one that is made in its place, whatever that one's labels say.
func TestHeldRequestFollowsTheHost(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	plain, snippet := off("app.test"), off("app.test")
	snippet.Caddyfile = "header X-From snippet\nreverse_proxy"
	strip := off("app.test")
	strip.Paths, strip.StripPath = []string{"/held"}, true
	s, err := current()
	if err != nil {
		t.Fatal(err)
	}
	next := backend(t, "next")
	up.Set(object("app", plain, ""))
	for i, now := range []struct {
		name string
		sets func()
		body string
	}{
		{"other labels", func() { up.Set(object("app", snippet, "")); up.Set(object("app", snippet, next)) }, "next /held/x"},
		{"made anew", func() { up.Delete("app"); up.Set(object("app", snippet, next)) }, "next /held/x"},
		{"prefix taken off", func() { up.Set(object("app", strip, "")); up.Delete("app"); up.Set(object("app", plain, next)) }, "next /held/x"},
	} {
		t.Run(now.name, func(t *testing.T) {
			answered := make(chan string)
			go func() {
				resp, err := w.client.Post("http://app.test/held/x", "text/plain", strings.NewReader("body"))
				if err != nil {
					answered <- err.Error()
					return
				}
				b, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				answered <- fmt.Sprint(resp.StatusCode, " ", string(b))
			}()
			eventually(t, "the request waits", func() bool { return s.holding.Load() == 1 })
			now.sets()
			if got := <-answered; got != "200 "+now.body {
				t.Errorf("got %q, want 200 %s", got, now.body)
			}
			eventually(t, "nothing waits", func() bool { return s.holding.Load() == 0 })
			if i < 2 {
				up.Set(object("app", snippet, ""))
			}
		})
	}
}

// TestStripResolvesDots: the prefix comes off the path as it was matched.
func TestStripResolvesDots(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	strip := off("strip.test")
	strip.Paths, strip.StripPath = []string{"/app"}, true
	up.Set(object("app", strip, backend(t, "b")))
	s, _ := current()
	eventually(t, "served", func() bool { return s.registry.Count()["serving"] == 1 })
	for path, want := range map[string]string{"/app/x": "/x", "//app/x": "/x", "/y/../app/x?q": "/x?q", "/./app": "/", "/app/a%2Fb": "/a%2Fb", "/%61pp/x": "/x"} {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", w.http))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: strip.test\r\nConnection: close\r\n\r\n", path)
		b, _ := io.ReadAll(conn)
		_ = conn.Close()
		if !strings.HasSuffix(strings.TrimSpace(string(b)), "b "+want) {
			t.Errorf("%s: got %q, want the container to see %s", path, b, want)
		}
	}
}

// TestLoopEnds: a route that leads back to us, by an address that is not ours, ends
// before it has used up all sockets.
func TestLoopEnds(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	var passed atomic.Int64
	go func() { // what the engine does for a port of the host
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			passed.Add(1)
			go func() {
				defer func() { _ = in.Close() }()
				out, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", w.http))
				if err != nil {
					return
				}
				defer func() { _ = out.Close() }()
				go func() { _, _ = io.Copy(out, in) }()
				_, _ = io.Copy(in, out)
			}()
		}
	}()
	up.Set(object("loop", off("loop.test"), l.Addr().String()))
	s, err := current()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it answers the probe", func() bool { return s.registry.Count()["serving"] == 1 })
	if status, _ := w.get("http://loop.test/"); status != http.StatusLoopDetected {
		t.Errorf("status = %d, want %d", status, http.StatusLoopDetected)
	}
	if n := passed.Load(); n > 50 {
		t.Errorf("the request went round %d times", n)
	}
}

// TestWildcardSiteIsReserved: a name that a wildcard site of the config takes before
// we see it is not said to be served, unless that site asks us.
func TestWildcardSiteIsReserved(t *testing.T) {
	w := newWorld(t, nil)
	site := func(host string, handlers ...any) any {
		return map[string]any{
			"match": []any{map[string]any{"host": []string{host}}}, "terminal": true,
			"handle": []any{map[string]any{"handler": "subroute", "routes": []any{map[string]any{"handle": handlers}}}},
		}
	}
	servers := w.config["apps"].(map[string]any)["http"].(map[string]any)["servers"].(map[string]any)
	plain := servers["http"].(map[string]any)
	respond := map[string]any{"handler": "static_response", "body": "static"}
	routes := plain["routes"].([]any)
	plain["routes"] = slices.Concat([]any{site("*.static.test", respond), site("*.ours.test", map[string]any{"handler": "dentropy"}, respond)},
		routes[:1], []any{site("*.last.test", respond)}, routes[1:])
	w.load()
	up := w.up()
	for host, want := range map[string]string{"a.static.test": "static", "a.ours.test": "b /", "a.last.test": "b /"} {
		up.Set(object(host, off(host), backend(t, "b")))
		state := "serving"
		if want == "static" {
			state = "refused"
		}
		s, _ := current()
		eventually(t, host+" is "+state, func() bool {
			v := s.registry.RoutesFor(host)
			return len(v) == 1 && v[0].State == state
		})
		if _, body := w.get("http://" + host + "/"); body != want {
			t.Errorf("%s answers %q, want %q", host, body, want)
		}
	}
}

// TestOnlyTheContainersRefusalIsTriedAgain: where the snippet passes the answer of the
// container on to another server, and that one refuses, the container has had the
// request already.
func TestOnlyTheContainersRefusalIsTriedAgain(t *testing.T) {
	dead := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	w := newWorld(t, func(app map[string]any) { app["allow_upstreams"] = []string{dead} })
	up := w.up()
	var had atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		had.Add(1)
		w.WriteHeader(http.StatusAccepted)
	}))
	defer srv.Close()
	route := off("app.test")
	route.Caddyfile = "reverse_proxy {\n@later status 202\nhandle_response @later {\nreverse_proxy " + dead + "\n}\n}"
	route.Hold = 100 * time.Millisecond
	up.Set(object("app", route, srv.Listener.Addr().String()))
	s, err := current()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "served", func() bool { return s.registry.Count()["serving"] == 1 })
	resp, err := w.client.Post("http://app.test/", "text/plain", strings.NewReader("order"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if n := had.Load(); resp.StatusCode != http.StatusBadGateway || n != 1 {
		t.Errorf("status %d, and the container had the request %d times, want 502 and once", resp.StatusCode, n)
	}
}
