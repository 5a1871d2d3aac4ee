package caddymodule

import (
	"context"
	"fmt"
	"time"

	"github.com/dentropy/dentropycloud/backup"
)

// drainMost bounds the wait for requests that are under way when an app is about to
// stop. It is what engines give a container to end by itself.
const drainMost = 10 * time.Second

// reserve holds the upstreams of all routes against what is about to stop. When it
// returns, requests that find themselves counted (see attempt.pick) are the last.
func (s *State) reserve() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, lr := range s.routes {
		ready := s.backups.rest.serving(lr.wanted.Ready)
		if lr.servesLocked(ready) {
			continue // nobody is woken in vain
		}
		lr.setUpstreams(lr.wanted)
	}
}

// servesLocked reports whether these addresses are served already, no more and no fewer.
func (lr *liveRoute) servesLocked(ready []string) bool {
	now := lr.upstreams.Load().ready
	if len(now) != len(ready) {
		return false
	}
	for i, u := range now { // in the order of what is wanted
		if u.address != ready[i] {
			return false
		}
	}
	return true
}

// drain waits until the requests to what is about to stop have ended, except those that
// do not end by themselves. It is called after resting, so that no more come.
func (b *backups) drain(ctx context.Context, rest *backup.Resting) {
	left := b.leaving(rest)
	if len(left) == 0 {
		return
	}
	wake := make(chan struct{}, 1)
	for _, u := range left {
		u.wake.Store(&wake)
		defer u.wake.Store(nil)
	}
	begun := time.Now()
	b.rest.late(rest, drainMost)
	defer func() { b.rest.late(rest, time.Since(begun)) }()
	limit := time.NewTimer(drainMost)
	defer limit.Stop()
	for {
		busy := int64(0)
		for _, u := range left {
			if u.busy() {
				busy += u.inFlight.Load() - u.endless.Load()
			}
		}
		if busy == 0 {
			return
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return
		case <-limit.C:
			b.state.journal.add(Event{Kind: rest.Why, Object: rest.App, Text: fmt.Sprintf("%d requests are still under way after %s, and are cut", busy, drainMost)})
			return
		}
	}
}

// leaving are the upstreams that an app which is about to stop has, with requests that
// will end.
func (b *backups) leaving(rest *backup.Resting) []*upstream {
	addresses := b.rest.addresses(rest)
	if len(addresses) == 0 {
		return nil
	}
	b.state.mu.Lock()
	defer b.state.mu.Unlock()
	var out []*upstream
	for _, lr := range b.state.routes {
		for _, u := range lr.upstreams.Load().leaving {
			if addresses[u.address] && u.busy() {
				out = append(out, u)
			}
		}
	}
	return out
}

// addresses are those of the containers of an app that are about to stop.
func (r *rests) addresses(rest *backup.Resting) map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	key, out := restKey(rest), map[string]bool{}
	for id, of := range r.about[rest.Platform] {
		if of != key {
			continue
		}
		for _, address := range r.known[rest.Platform][id].addresses {
			out[address] = true
		}
	}
	return out
}

// late puts off when an app is expected back, from what was said first.
func (r *rests) late(rest *backup.Resting, by time.Duration) {
	later := *rest
	later.Back = rest.Back.Add(by)
	key := restKey(rest)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, all := range r.now {
		if all[key] != nil {
			all[key] = &later
		}
	}
}
