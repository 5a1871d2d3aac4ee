package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/dentropy/dentropycloud/discovery/sourcetest"
)

// echo is a websocket backend.
func echo() (port int, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, nil, err
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
	})}
	go func() { _ = srv.Serve(l) }()
	return l.Addr().(*net.TCPAddr).Port, func() { _ = srv.Close() }, nil
}

// container is one labelled container whose backend is on loopback.
func container(name string, port int, labels ...string) sourcetest.Container {
	c := sourcetest.Container{
		Name: name, Exposed: []int{port}, Networks: []sourcetest.Attachment{{Network: "bridge", IP: "127.0.0.1"}},
		Labels: map[string]string{"dentropy.host": host(name)},
	}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		c.Labels[k] = v
	}
	return c
}

func host(name string) string { return name + ".bench.test" }

// home is an engine with n running containers, and the program that serves them.
type home struct {
	*process
	engine *sourcetest.Engine
	port   int
	took   time.Duration // from the program's start to all routes served
	end    func()
}

func (b *bench) home(n int, extra ...string) (*home, error) {
	port, stopBackend, err := backend()
	if err != nil {
		return nil, err
	}
	engine, err := sourcetest.StartEngine(sourcetest.EngineOptions{})
	if err != nil {
		return nil, err
	}
	cs := make([]sourcetest.Container, n)
	for i := range cs {
		cs[i] = container(fmt.Sprint("c", i), port, "dentropy.tls=off")
	}
	engine.Load(cs...)
	begin := time.Now()
	p, err := b.up(engine.Endpoint(), extra...)
	if err != nil {
		return nil, err
	}
	h := &home{process: p, engine: engine, port: port}
	h.end = func() { p.stop(); engine.Close(); stopBackend() }
	err = h.serving(n)
	h.took = time.Since(begin)
	if err == nil && n > 0 {
		err = h.askAll(n)
	}
	return h, err
}

// serving waits until n routes serve.
func (h *home) serving(n int) error {
	return until(2*time.Minute, fmt.Sprint(n, " routes serve"), func() bool {
		v, err := h.metric(`dentropy_routes{state="serving"}`)
		return err == nil && int(v) == n
	})
}

// askAll asks each of the n hosts once.
func (h *home) askAll(n int) error {
	c, err := dialClient(h.http)
	if err != nil {
		return err
	}
	defer c.close()
	for i := range n {
		if status, err := c.get(host(fmt.Sprint("c", i))); err != nil || status != 200 {
			return fmt.Errorf("host %d: status %d: %w", i, status, err)
		}
	}
	return nil
}

const latencyRounds = 500

// latency starts containers one by one and asks for their site without pause
// until it is there.
func latency(b *bench) (table, error) {
	t := table{
		head: []string{"running containers", "p50", "p90", "p99", "max", "CPU per start and stop event"},
		note: fmt.Sprintf("%d containers started one after the other; the clock runs from before the engine writes the event to the first 200, asked for over one kept HTTP connection. The container existed before the event, as any container does, so its host is known and the request is held, not refused. CPU is that of the whole program over 1,000 further start and stop events, 5 ms apart, without requests.", latencyRounds),
	}
	for _, n := range []int{10, 1000, 10_000} {
		if err := b.latencyAt(n, &t); err != nil {
			return t, err
		}
	}
	return t, nil
}

func (b *bench) latencyAt(n int, t *table) error {
	h, err := b.home(n)
	if h != nil {
		defer h.end()
	}
	if err != nil {
		return err
	}
	c, err := dialClient(h.http)
	if err != nil {
		return err
	}
	defer c.close()
	took := make([]time.Duration, 0, latencyRounds)
	for i := range latencyRounds {
		name := fmt.Sprint("new", i)
		begin := time.Now()
		id := h.engine.Run(container(name, h.port, "dentropy.tls=off"))
		for {
			status, err := c.get(host(name))
			if err != nil {
				return err
			}
			if status == 200 {
				break
			}
		}
		took = append(took, time.Since(begin))
		h.engine.Destroy(id)
	}
	slices.Sort(took)
	perEvent, err := h.cpuPerEvent(h.engine.Create(container("paced", h.port, "dentropy.tls=off")))
	if err != nil {
		return err
	}
	at := func(q float64) time.Duration { return took[min(len(took)-1, int(q*float64(len(took))))] }
	t.add(n, at(.5), at(.9), at(.99), took[len(took)-1], perEvent)
	return nil
}

func (h *home) cpuPerEvent(id string) (time.Duration, error) {
	const events = 1000
	before, err := h.cpu()
	if err != nil {
		return 0, err
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := range events {
		<-tick.C
		if i%2 == 0 {
			h.engine.Start(id)
		} else {
			h.engine.Die(id, 0)
		}
	}
	after, err := h.cpu()
	return (after - before) / events, err
}

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

// churn counts what 1,000 events of neighbours do to everybody else.
func churn(b *bench) (table, error) {
	t := table{head: []string{"events", "websockets open", "websockets cut", "requests beside", "requests failed", "config loads"}, note: "A container is created and started, or stopped and removed, every 5 ms."}
	h, err := b.home(20)
	if h != nil {
		defer h.end()
	}
	if err != nil {
		return t, err
	}
	loads := func() (float64, error) { return h.metric("caddy_config_last_reload_success_timestamp_seconds") }
	loaded, err := loads()
	if err != nil {
		return t, err
	}
	echoPort, stopEcho, err := echo()
	if err != nil {
		return t, err
	}
	defer stopEcho()
	h.engine.Run(container("echo", echoPort, "dentropy.tls=off"))
	if err := h.serving(21); err != nil {
		return t, err
	}
	sockets, err := h.websockets(100)
	if err != nil {
		return t, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var served, failed atomic.Int64
	var load sync.WaitGroup
	for i := range 2 {
		load.Go(func() {
			c, err := dialClient(h.http)
			if err != nil {
				failed.Add(1)
				return
			}
			defer c.close()
			for ctx.Err() == nil {
				if status, err := c.get(host(fmt.Sprint("c", i))); err != nil || status != 200 {
					failed.Add(1)
					return
				}
				served.Add(1)
			}
		})
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := range 500 {
		<-tick.C
		id := h.engine.Run(container(fmt.Sprint("n", i), h.port, "dentropy.tls=off"))
		<-tick.C
		h.engine.Destroy(id)
	}
	err = until(time.Minute, "all events are dealt with", func() bool {
		v, err := h.metric(`dentropy_source_objects{source="docker"}`)
		return err == nil && v == 21
	})
	cancel()
	load.Wait()
	if err != nil {
		return t, err
	}
	cut := 0
	for _, ws := range sockets {
		if err := ping(ws); err != nil {
			cut++
		}
		_ = ws.CloseNow()
	}
	now, err := loads()
	if err != nil {
		return t, err
	}
	changed := 0
	if now != loaded {
		changed = 1
	}
	t.add(1000, len(sockets), cut, served.Load(), failed.Load(), changed)
	return t, nil
}

func (h *home) websockets(n int) ([]*websocket.Conn, error) {
	dial := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, h.http)
	}}}
	var all []*websocket.Conn
	for range n {
		ws, _, err := websocket.Dial(context.Background(), "ws://"+host("echo"), &websocket.DialOptions{HTTPClient: dial})
		if err != nil {
			return nil, err
		}
		all = append(all, ws)
		if err := ping(ws); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func ping(ws *websocket.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := ws.Write(ctx, websocket.MessageText, []byte("x")); err != nil {
		return err
	}
	_, _, err := ws.Read(ctx)
	return err
}

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

// random asks for random hosts of n for a while.
func (p *process) random(n int) (load, error) {
	before, err := p.cpu()
	if err != nil {
		return load{}, err
	}
	var served atomic.Int64
	var g sync.WaitGroup
	errs := make(chan error, randomConns)
	begin := time.Now()
	for range randomConns {
		g.Go(func() {
			c, err := dialClient(p.http)
			if err != nil {
				errs <- err
				return
			}
			defer c.close()
			for time.Since(begin) < randomTime {
				if status, err := c.get(host(fmt.Sprint("c", rand.IntN(n)))); err != nil || status != 200 {
					errs <- fmt.Errorf("status %d: %w", status, err)
					return
				}
				served.Add(1)
			}
		})
	}
	g.Wait()
	select {
	case err := <-errs:
		return load{}, err
	default:
	}
	took := time.Since(begin)
	after, err := p.cpu()
	return load{served.Load(), took, after - before}, err
}

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
	before, err := p.cpu()
	if err != nil {
		return 0, err
	}
	var g sync.WaitGroup
	errs := make(chan error, 4)
	for range 4 {
		g.Go(func() {
			c, err := dialClient(p.http)
			if err != nil {
				errs <- err
				return
			}
			defer c.close()
			for range n / 4 {
				if status, err := c.get("c0.bench.test"); err != nil || status != 200 {
					errs <- fmt.Errorf("status %d: %w", status, err)
					return
				}
			}
		})
	}
	g.Wait()
	select {
	case err := <-errs:
		return 0, err
	default:
	}
	after, err := p.cpu()
	return (after - before) / time.Duration(n), err
}

// certificate measures the first HTTPS answer of a new name: from the internal
// CA, with a certificate that is stored already, and from an ACME server.
func certificate(b *bench) (table, error) {
	t := table{
		head: []string{"certificate", "event → first 200 over HTTPS, p50", "p99"},
		note: fmt.Sprintf("%d names each (%d from Pebble, which refuses 5 %% of nonces and asks its clients to poll an order after a second or more). Every try is a handshake of its own.", certRounds, acmeRounds),
	}
	if err := b.internalCertificates(&t); err != nil {
		return t, err
	}
	return t, b.acmeCertificates(&t)
}

const (
	certRounds = 100
	acmeRounds = 20
)

func (b *bench) internalCertificates(t *table) error {
	h, err := b.home(10)
	if h != nil {
		defer func() { h.end() }()
	}
	if err != nil {
		return err
	}
	pem, err := os.ReadFile(filepath.Join(h.data, "pki/authorities/local/root.crt"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	ids := make([]string, certRounds)
	fresh, err := h.httpsTimes(certRounds, roots, func(i int) {
		ids[i] = h.engine.Run(container(fmt.Sprint("tls", i), h.port, "dentropy.tls=internal"))
	})
	if err != nil {
		return err
	}
	t.add("new, from the internal CA", fresh[certRounds/2], fresh[certRounds-1])
	h.stop()
	for _, id := range ids {
		h.engine.Destroy(id)
	}
	again, err := b.upIn(h.data, h.engine.Endpoint())
	if err != nil {
		return err
	}
	h.process = again
	h.end = func() { again.stop(); h.engine.Close() }
	if err := h.serving(10); err != nil {
		return err
	}
	stored, err := h.httpsTimes(certRounds, roots, func(i int) {
		h.engine.Run(container(fmt.Sprint("tls", i), h.port, "dentropy.tls=internal"))
	})
	if err != nil {
		return err
	}
	t.add("stored", stored[certRounds/2], stored[certRounds-1])
	return nil
}

func (b *bench) acmeCertificates(t *table) error {
	http, err := freePort()
	if err != nil {
		return err
	}
	https, err := freePort()
	if err != nil {
		return err
	}
	p, err := b.startPebble(http, https)
	if p != nil {
		defer p.stop()
	}
	if err != nil {
		return err
	}
	h, err := b.home(10, "--acme-ca", p.directory, "--acme-ca-root", p.root, "--http-port", fmt.Sprint(http), "--https-port", fmt.Sprint(https))
	if h != nil {
		defer h.end()
	}
	if err != nil {
		return err
	}
	roots, err := p.roots()
	if err != nil {
		return err
	}
	took, err := h.httpsTimes(acmeRounds, roots, func(i int) {
		h.engine.Run(container(fmt.Sprint("tls", i), h.port, "dentropy.tls=acme"))
	})
	if err != nil {
		return err
	}
	t.add("new, from Pebble", took[acmeRounds/2], took[acmeRounds-1])
	return nil
}

// httpsTimes gives the sorted times from begin(i) to the first 200 of site i.
func (h *home) httpsTimes(n int, roots *x509.CertPool, begin func(i int)) ([]time.Duration, error) {
	took := make([]time.Duration, n)
	for i := range took {
		name := host(fmt.Sprint("tls", i))
		at := time.Now()
		begin(i)
		if err := until(time.Minute, name+" answers", func() bool {
			conn, err := tls.Dial("tcp", h.https, &tls.Config{ServerName: name, RootCAs: roots, MinVersion: tls.VersionTLS12})
			if err != nil {
				return false
			}
			c := newClient(conn)
			defer c.close()
			status, err := c.get(name)
			return err == nil && status == 200
		}); err != nil {
			return nil, err
		}
		took[i] = time.Since(at)
	}
	slices.Sort(took)
	return took, nil
}
