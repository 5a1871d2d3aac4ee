package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

const (
	pairs           = 10
	requestsPerPair = 20_000
)

// perRequest compares the CPU of one request with a static Caddyfile's.
func perRequest(b *bench) (table, error) {
	t := table{
		head: []string{"discovered routes", "static Caddyfile, CPU/request", "discovered, CPU/request", "median of the ratios", "lowest", "highest"},
		note: fmt.Sprintf("The static Caddyfile holds that one site. %d interleaved pairs of %d requests over 4 kept connections; CPU of the program alone.", pairs, requestsPerPair),
	}
	for _, n := range []int{10, 10_000} {
		if err := b.perRequestAt(n, &t); err != nil {
			return t, err
		}
	}
	return t, nil
}

func (b *bench) perRequestAt(n int, t *table) error {
	h, err := b.home(n)
	if h != nil {
		defer h.end()
	}
	if err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	admin, err := freePort()
	if err != nil {
		return err
	}
	p, err := b.caddy("Caddyfile", fmt.Sprintf("{\n\tadmin 127.0.0.1:%d\n}\nhttp://c0.bench.test:%d {\n\tbind 127.0.0.1\n\treverse_proxy 127.0.0.1:%d\n}\n", admin, port, h.port))
	if err != nil {
		return err
	}
	defer p.stop()
	p.http = fmt.Sprint("127.0.0.1:", port)
	if err := p.awaitListening(); err != nil {
		return err
	}
	if b.profile != "" {
		if err := h.profile(fmt.Sprintf("%s.%d", b.profile, n)); err != nil {
			return err
		}
	}
	var ratios []float64
	var ours, theirs time.Duration
	for i := range pairs + 1 {
		var a, z time.Duration
		first, second := h.process, p
		if i%2 == 1 { // who goes first must not matter
			first, second = p, h.process
		}
		x, err := first.cpuOf(requestsPerPair)
		if err != nil {
			return err
		}
		y, err := second.cpuOf(requestsPerPair)
		if err != nil {
			return err
		}
		if a, z = x, y; i%2 == 1 {
			a, z = y, x
		}
		if i == 0 {
			continue // warms up
		}
		ours, theirs = ours+a, theirs+z
		ratios = append(ratios, float64(a)/float64(z))
	}
	slices.Sort(ratios)
	micros := func(d time.Duration) string { return fmt.Sprintf("%.1f µs", float64(d)/pairs/1e3) }
	t.add(n, micros(theirs), micros(ours), fmt.Sprintf("%.3f", (ratios[(pairs-1)/2]+ratios[pairs/2])/2), ratios[0], ratios[pairs-1])
	return nil
}

// profile writes a CPU profile of ten seconds of requests.
func (h *home) profile(file string) error {
	done := make(chan error, 1)
	go func() { done <- h.save("/debug/pprof/profile?seconds=10", file) }()
	for {
		select {
		case err := <-done:
			return err
		default:
			if _, err := h.cpuOf(1000); err != nil {
				return err
			}
		}
	}
}

// save writes an answer of the admin API to a file.
func (h *home) save(path, file string) error {
	resp, err := h.admin.Get(h.base + path)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = out.ReadFrom(resp.Body)
	return errors.Join(err, out.Close())
}

// cpuOf is the CPU of the program for one of n requests.
func (p *process) cpuOf(n int) (time.Duration, error) {
	const conns = 4
	l, err := p.run(conns, func(sent int) (string, bool) { return host("c0"), sent < n/conns })
	return l.cpu / time.Duration(n), err
}
