package main

import (
	"fmt"
)

// start measures a cold start and the memory of idle routes.
func start(b *bench) (table, error) {
	t := table{
		head: []string{"running containers", "start → all served", "live heap", "resident", "heap per route over the empty program", "resident per route"},
		note: "From the start of the process until its metrics say that all routes serve; each host is then asked once. Heap is after two forced collections.",
	}
	var heap0, rss0 int64
	for _, n := range []int{0, 1000, 10_000} {
		h, err := b.home(n)
		if h != nil {
			defer h.end()
		}
		if err != nil {
			return t, err
		}
		if b.profile != "" {
			if err := h.save("/debug/pprof/heap?gc=1", fmt.Sprintf("%s.heap.%d", b.profile, n)); err != nil {
				return t, err
			}
		}
		heap, rss, err := h.memory()
		if err != nil {
			return t, err
		}
		if n == 0 {
			heap0, rss0 = heap, rss
			t.add(n, h.took, kib(heap), kib(rss), "–", "–")
			continue
		}
		t.add(n, h.took, kib(heap), kib(rss), kib((heap-heap0)/int64(n)), kib((rss-rss0)/int64(n)))
	}
	return t, nil
}

func kib(n int64) string {
	if n > 10<<20 {
		return fmt.Sprintf("%.1f MB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f KB", float64(n)/(1<<10))
}
