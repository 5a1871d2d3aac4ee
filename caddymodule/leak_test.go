package caddymodule

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/dentropy/dentropycloud/discovery"
)

// TestNoLeak adds and removes routes until a leak of one goroutine or one
// kilobyte a route would show: 10,000 times for a plain route, and 1,000 times
// for one with a chain of its own and an active health check.
func TestNoLeak(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	address := backend(t, "b")
	s, _ := current()
	cycle := func(i int, route discovery.Route) {
		o := object("c", route, address)
		o.Routes[0].Hosts = []string{fmt.Sprintf("h%d.test", i%50)}
		up.Set(o)
		up.Delete("c")
	}
	checked := discovery.Route{TLS: "off", Caddyfile: "header X-A b\nreverse_proxy {\n\tlb_policy first\n}"}
	for i := range 50 { // what is made once is made now
		cycle(i, discovery.Route{TLS: "off"})
		cycle(i, checked)
	}
	rest := func() (goroutines int, heap uint64) {
		eventually(t, "everything has ended", func() bool {
			return s.registry.Count()["serving"] == 0 && s.registry.Count()["holding"] == 0
		})
		var m runtime.MemStats
		for range 3 {
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return runtime.NumGoroutine(), m.HeapAlloc
	}
	goroutines, heap := rest()
	for i := range 10_000 {
		cycle(i, discovery.Route{TLS: "off"})
	}
	for i := range 1000 {
		cycle(i, checked)
	}
	const slack = 20 // of goroutines: connections and timers of the test itself
	eventually(t, "the goroutines are back", func() bool { return runtime.NumGoroutine() <= goroutines+slack })
	_, after := rest()
	if grown := int64(after) - int64(heap); grown > 3<<20 {
		t.Errorf("the heap grew by %d KB over 11,000 routes", grown>>10)
	}
	if n := len(s.registry.Routes()); n != 0 {
		t.Errorf("%d routes are left", n)
	}
}
