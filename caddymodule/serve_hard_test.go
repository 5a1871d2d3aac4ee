package caddymodule

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestHeldRequestGoesToTheSuccessor: a container that is made anew with other labels
// asks for another route; who waits for the old one gets the new one.
func TestHeldRequestGoesToTheSuccessor(t *testing.T) {
	for name, snippet := range map[string]string{"plain": "", "snippet": "header X-A b"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			up := w.up()
			before, after := off("app.test"), off("app.test")
			before.Paths, before.StripPath, before.Caddyfile = []string{"/api"}, true, snippet
			after.Caddyfile = snippet
			up.Set(object("app", before, ""))
			answered := make(chan string)
			go func() {
				status, body, _ := w.try("http://app.test/api/x?y")
				answered <- fmt.Sprint(status, " ", body)
			}()
			s, _ := current()
			eventually(t, "it waits", func() bool { return s.holding.Load() == 1 })
			begun := time.Now()
			up.Set(object("app", after, backend(t, "app")))
			if got := <-answered; got != "200 app /api/x?y" {
				t.Errorf("got %q, want the new route's answer, with the prefix that it does not strip", got)
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("answered after %v", took)
			}
			if n := s.holding.Load(); n != 0 {
				t.Errorf("%d requests are still counted as waiting", n)
			}
		})
	}
}

// TestHeldRequestOfARemovedRoute: without a successor it waits as long as for any
// container, and then gets the page, not a 404.
func TestHeldRequestOfARemovedRoute(t *testing.T) {
	w := newWorld(t, func(app map[string]any) { app["hold"] = "400ms" })
	up := w.up()
	up.Set(object("app", off("app.test"), ""))
	answered := make(chan int)
	go func() {
		status, _, _ := w.try("http://app.test/")
		answered <- status
	}()
	s, _ := current()
	eventually(t, "it waits", func() bool { return s.holding.Load() == 1 })
	begun := time.Now()
	up.Delete("app")
	if status := <-answered; status != 503 {
		t.Errorf("status = %d, want 503", status)
	}
	if took := time.Since(begun); took < 200*time.Millisecond || took > 10*time.Second {
		t.Errorf("gave up after %v, want 400ms", took)
	}
}

// TestChurnOfLabelsLosesNoRequest replaces a container by one with other labels, over
// and over, under load.
func TestChurnOfLabelsLosesNoRequest(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	address := backend(t, "app")
	wild := off("*.test")
	up.Set(object("wild", wild, backend(t, "wild")))
	version := func(i int) {
		r := off("app.test")
		if i%2 == 1 {
			r.Caddyfile = "header X-Version " + fmt.Sprint(i)
		}
		up.Set(object("app", r, address))
	}
	version(0)
	eventually(t, "served", func() bool { _, body := w.get("http://app.test/"); return strings.HasPrefix(body, "app") })
	var stop atomic.Bool
	failed := make(chan string, 100)
	done := make(chan struct{}, 2)
	for range 2 {
		go func() {
			for !stop.Load() {
				begun := time.Now()
				if status, body, err := w.try("http://app.test/"); err != nil || status != 200 || !strings.HasPrefix(body, "app") || time.Since(begun) > 5*time.Second {
					select {
					case failed <- fmt.Sprint(status, " ", body, " ", err, " after ", time.Since(begun)):
					default:
					}
				}
			}
			done <- struct{}{}
		}()
	}
	for i := range 300 {
		version(i)
	}
	stop.Store(true)
	<-done
	<-done
	close(failed)
	for f := range failed {
		t.Error(f)
	}
}

// TestRetryLeavesNoTraceInTheResponse: what a snippet adds to the response is there
// once, however often the container refused the connection before.
func TestRetryLeavesNoTraceInTheResponse(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	route := off("app.test")
	route.Caddyfile = "header +X-Added one"
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	o := object("app", route, address)
	o.Routes[0].Endpoints[0].Verified = true // it is not asked before
	up.Set(o)
	headers := make(chan http.Header)
	go func() {
		resp, err := w.client.Get("http://app.test/")
		if err != nil {
			t.Error(err)
			headers <- nil
			return
		}
		_ = resp.Body.Close()
		headers <- resp.Header
	}()
	s, _ := current()
	eventually(t, "it waits", func() bool { return s.holding.Load() == 1 })
	backendAt(t, "app", address)
	if got := (<-headers).Values("X-Added"); len(got) != 1 {
		t.Errorf("X-Added = %q, want it once", got)
	}
}

// TestWildcardDoesNotTakeAStaticHost: the redirect of a static site comes after our
// handler on port 80, where a wildcard of a container must not answer in its place.
func TestWildcardDoesNotTakeAStaticHost(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	servers := w.config["apps"].(map[string]any)["http"].(map[string]any)["servers"].(map[string]any)
	https := servers["https"].(map[string]any)
	https["routes"] = append([]any{map[string]any{
		"match":  []any{map[string]any{"host": []string{"static.test"}}},
		"handle": []any{map[string]any{"handler": "static_response", "body": "static"}},
	}}, https["routes"].([]any)...)
	w.load()
	up.Set(object("wild", off("*.test"), backend(t, "wild")))
	up.Set(object("any", off("*"), backend(t, "any")))
	eventually(t, "the wildcard is served", func() bool { status, _ := w.get("http://other.test/"); return status == 200 })
	if status, body := w.get("http://static.test/"); status != 404 {
		t.Errorf("http://static.test/ = %d %q, want what follows our handler", status, body)
	}
}
