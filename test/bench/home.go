package main

import (
	"fmt"
	"net"
	"net/http"
	"strings"
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
		if err := c.must(host(fmt.Sprint("c", i))); err != nil {
			return err
		}
	}
	return nil
}
