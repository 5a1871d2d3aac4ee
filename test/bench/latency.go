package main

import (
	"fmt"
	"slices"
	"time"
)

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
