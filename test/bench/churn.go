package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

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
				if c.must(host(fmt.Sprint("c", i))) != nil {
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
