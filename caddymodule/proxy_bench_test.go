package caddymodule

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dentropy/dentropycloud/discovery"
)

// BenchmarkServe is what a request costs beside Caddy's own proxy: it is held against its
// route, gets an upstream, and is counted in and out.
func BenchmarkServe(b *testing.B) {
	s := &State{journal: newJournal(), routes: map[string]*liveRoute{}}
	s.backups = newBackups(s)
	w := &discovery.Wanted{Key: "docker/shop/*#1", Spec: &discovery.Route{}, Ready: []string{"10.0.0.1:80"}}
	lr := newLiveRoute(s, w)
	lr.setUpstreams(w)
	c := newChain(func() {})
	c.proxies = true
	c.handler = caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		ups, err := Upstreams{}.GetUpstreams(r)
		if err != nil || len(ups) != 1 {
			b.Errorf("upstreams = %v, %v", ups, err)
		}
		w.WriteHeader(http.StatusOK)
		return nil
	})
	s.newest.Store(&App{plain: map[string]*chain{"": c}})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		r := httptest.NewRequest("GET", "http://shop.test/", nil)
		r = r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, map[string]any{}))
		rec := &nothing{h: http.Header{"Content-Type": {"text/html"}}}
		for pb.Next() {
			if err := s.serve(rec, r, lr, new(holder)); err != nil {
				b.Error(err)
			}
		}
	})
}

type nothing struct{ h http.Header }

func (n *nothing) Header() http.Header         { return n.h }
func (n *nothing) Write(b []byte) (int, error) { return len(b), nil }
func (n *nothing) WriteHeader(int)             {}
