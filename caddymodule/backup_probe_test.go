package caddymodule

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dentropy/dentropycloud/discovery"
)

func TestProbe(t *testing.T) {
	b := newBackupWorld(t)
	s, _ := current()
	up := b.up()
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }))
	t.Cleanup(bad.Close)
	teapot := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.Copy(w, strings.NewReader(strings.Repeat("x", 1<<20)))
	}))
	t.Cleanup(teapot.Close)
	snippet := discovery.Route{Hosts: []string{"auth.test"}, Caddyfile: "respond 401"}
	pathed := off("path.test")
	pathed.Paths = []string{"/deep"}
	up.Replace([]discovery.Object{
		object("good", discovery.Route{Hosts: []string{"good.test"}}, strings.TrimPrefix(teapot.URL, "http://")),
		object("bad", off("bad.test"), strings.TrimPrefix(bad.URL, "http://")),
		object("auth", snippet, backend(t, "x")),
		object("path", pathed, backend(t, "x")),
		object("down", off("down.test"), ""),
	})
	eventually(t, "all that run are ready", func() bool { return s.registry.Count()["serving"] == 4 })
	for host, want := range map[string]string{
		"good.test": "", "GOOD.test": "", "auth.test": "", "path.test": "", "*.wild.test": "",
		"bad.test": "status 502", "down.test": "its container", "none.test": "no route",
	} {
		wait := 200 * time.Millisecond
		if want == "" {
			wait = 20 * time.Second
		}
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		err := s.probe(ctx, host)
		cancel()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("probe(%q) = %v, want %q", host, err, want)
		}
	}
	// a route that comes while it is waited for
	done := make(chan error)
	go func() { done <- s.probe(t.Context(), "late.test") }()
	up.Set(object("late", off("late.test"), backend(t, "late")))
	if err := <-done; err != nil {
		t.Errorf("probe of a route that comes late = %v", err)
	}
}
