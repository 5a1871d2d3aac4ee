package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// staticConfig is a plain Caddy with n sites, as JSON.
func staticConfig(n, httpPort, admin, backend int) string {
	routes := make([]any, n)
	for i := range routes {
		routes[i] = map[string]any{
			"match":    []any{map[string]any{"host": []string{host(fmt.Sprint("c", i))}}},
			"handle":   []any{map[string]any{"handler": "reverse_proxy", "upstreams": []any{map[string]any{"dial": fmt.Sprint("127.0.0.1:", backend)}}}},
			"terminal": true,
		}
	}
	b, err := json.Marshal(map[string]any{
		"admin": map[string]any{"listen": fmt.Sprint("127.0.0.1:", admin)},
		"apps": map[string]any{"http": map[string]any{"servers": map[string]any{"s": map[string]any{
			"listen": []string{fmt.Sprint("127.0.0.1:", httpPort)}, "routes": routes, "automatic_https": map[string]any{"disable": true},
		}}}},
	})
	if err != nil {
		panic(err) // plain data
	}
	return string(b)
}

// static starts a plain Caddy with n sites and waits until the last one serves.
func (b *bench) static(n, backend int) (p *process, admin int, err error) {
	h, err := freePort()
	if err != nil {
		return nil, 0, err
	}
	if admin, err = freePort(); err != nil {
		return nil, 0, err
	}
	if p, err = b.caddy("caddy.json", staticConfig(n, h, admin, backend)); err != nil {
		return nil, 0, err
	}
	p.http = fmt.Sprint("127.0.0.1:", h)
	return p, admin, p.awaitListening()
}

// added compares an added route with POST /load of a config with one site more.
func added(b *bench) (table, error) {
	t := table{
		head: []string{"sites", "POST /load, p50 of 9", "container started, p50 of 99", "ratio"},
		note: "Both from the first byte of the change to the first 200 of the new site.",
	}
	for _, n := range []int{10, 1000, 10_000} {
		ours, err := b.addedOurs(n)
		if err != nil {
			return t, err
		}
		theirs, err := b.addedTheirs(n)
		if err != nil {
			return t, err
		}
		t.add(n, theirs, ours, fmt.Sprintf("%.0f ×", float64(theirs)/float64(ours)))
	}
	return t, nil
}

func (b *bench) addedOurs(n int) (time.Duration, error) {
	h, err := b.home(n)
	if h != nil {
		defer h.end()
	}
	if err != nil {
		return 0, err
	}
	return median(99, func(i int) error {
		name := fmt.Sprint("new", i)
		h.engine.Run(container(name, h.port, "dentropy.tls=off"))
		return firstAnswer(h.http, host(name))
	})
}

func (b *bench) addedTheirs(n int) (time.Duration, error) {
	port, stop, err := backend()
	if err != nil {
		return 0, err
	}
	defer stop()
	p, admin, err := b.static(n, port)
	if err != nil {
		return 0, err
	}
	defer p.stop()
	var httpPort int
	if _, err := fmt.Sscanf(p.http, "127.0.0.1:%d", &httpPort); err != nil {
		return 0, err
	}
	configs := make([]string, 9)
	for i := range configs {
		configs[i] = staticConfig(n+i+1, httpPort, admin, port)
	}
	return median(len(configs), func(i int) error {
		resp, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/load", admin), "application/json", strings.NewReader(configs[i]))
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 200 {
			return fmt.Errorf("load: %s", resp.Status)
		}
		return firstAnswer(p.http, host(fmt.Sprint("c", n+i)))
	})
}

// firstAnswer asks until the site answers; each try is a connection of its own,
// since a reload closes kept ones.
func firstAnswer(address, host string) error {
	return until(time.Minute, host+" answers", func() bool {
		c, err := dialClient(address)
		if err != nil {
			return false
		}
		defer c.close()
		status, err := c.get(host)
		return err == nil && status == 200
	})
}

func median(n int, f func(i int) error) (time.Duration, error) {
	took := make([]time.Duration, n)
	for i := range took {
		begin := time.Now()
		if err := f(i); err != nil {
			return 0, err
		}
		took[i] = time.Since(begin)
	}
	slices.Sort(took)
	return took[n/2], nil
}

// random compares requests for random hosts. Both programs run at once, and are
// asked in turn.
func random(b *bench) (table, error) {
	t := table{
		head: []string{"sites", "static Caddy, requests/s", "discovered, requests/s", "median of the ratios", "lowest", "highest", "static Caddy, CPU/request", "discovered, CPU/request", "ratio"},
		note: fmt.Sprintf("%d interleaved pairs of %s with %d kept connections. Load and backend take their part of the two cores, about as much as the discovered side does; CPU/request is that of the program alone.", randomPairs, randomTime, randomConns),
	}
	for _, n := range []int{10, 1000, 10_000} {
		if err := b.randomAt(n, &t); err != nil {
			return t, err
		}
	}
	return t, nil
}

const (
	randomPairs = 5
	randomTime  = 3 * time.Second
	randomConns = 16
)

func (b *bench) randomAt(n int, t *table) error {
	h, err := b.home(n)
	if h != nil {
		defer h.end()
	}
	if err != nil {
		return err
	}
	p, _, err := b.static(n, h.port)
	if err != nil {
		return err
	}
	defer p.stop()
	var ours, theirs load
	ratios := make([]float64, randomPairs)
	for i := range ratios {
		x, err := h.random(n)
		if err != nil {
			return err
		}
		y, err := p.random(n)
		if err != nil {
			return err
		}
		ratios[i] = x.rate() / y.rate()
		ours.add(x)
		theirs.add(y)
	}
	slices.Sort(ratios)
	t.add(n, fmt.Sprintf("%.0f", theirs.rate()), fmt.Sprintf("%.0f", ours.rate()), fmt.Sprintf("%.1f ×", ratios[randomPairs/2]), ratios[0], ratios[randomPairs-1],
		fmt.Sprintf("%.0f µs", theirs.cost()), fmt.Sprintf("%.0f µs", ours.cost()), fmt.Sprintf("%.1f ×", theirs.cost()/ours.cost()))
	return nil
}

// load is what came of some time of requests.
type load struct {
	served    int64
	took, cpu time.Duration
}

func (l *load) add(m load) { l.served, l.took, l.cpu = l.served+m.served, l.took+m.took, l.cpu+m.cpu }

// rate is requests a second, cost the microseconds of CPU of one.
func (l load) rate() float64 { return float64(l.served) / l.took.Seconds() }
func (l load) cost() float64 { return float64(l.cpu) / float64(l.served) / 1e3 }

// run sends the requests that next names over conns kept connections, each until
// next says that it was the last, and measures what they cost the program.
func (p *process) run(conns int, next func(sent int) (host string, more bool)) (load, error) {
	before, err := p.cpu()
	if err != nil {
		return load{}, err
	}
	var served atomic.Int64
	var g sync.WaitGroup
	errs := make([]error, conns)
	begin := time.Now()
	for i := range conns {
		g.Go(func() {
			c, err := dialClient(p.http)
			if err != nil {
				errs[i] = err
				return
			}
			defer c.close()
			for sent := 0; ; sent++ {
				name, more := next(sent)
				if !more {
					return
				}
				if errs[i] = c.must(name); errs[i] != nil {
					return
				}
				served.Add(1)
			}
		})
	}
	g.Wait()
	took := time.Since(begin)
	after, err := p.cpu()
	return load{served.Load(), took, after - before}, errors.Join(append(errs, err)...)
}

// random asks for random hosts of n for a while.
func (p *process) random(n int) (load, error) {
	begin := time.Now()
	return p.run(randomConns, func(int) (string, bool) {
		return host(fmt.Sprint("c", rand.IntN(n))), time.Since(begin) < randomTime
	})
}
