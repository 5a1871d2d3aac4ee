package caddymodule

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/discovery"
)

// drainBed is a state with two routes, without a config.
type drainBed struct {
	*backups
	web, other *liveRoute
	up         discovery.Updater
	rest       backup.Resting
}

type noUpdater struct{ discovery.Updater }

func (noUpdater) Set(discovery.Object) {}

func newDrainBed() *drainBed {
	s := &State{journal: newJournal(), routes: map[string]*liveRoute{}}
	s.backups = newBackups(s)
	b := &drainBed{backups: s.backups}
	route := func(key, address string) *liveRoute {
		w := &discovery.Wanted{Key: key, Spec: &discovery.Route{}, Ready: []string{address}}
		lr := newLiveRoute(s, w)
		lr.setUpstreams(w)
		s.routes[key] = lr
		return lr
	}
	b.web, b.other = route("docker/shop/*#1", "10.0.0.1:80"), route("docker/other/*#2", "10.0.0.2:80")
	b.up = b.backups.rest.watching("docker", noUpdater{})
	b.up.Set(object("web", discovery.Route{}, "10.0.0.1:80"))
	b.up.Set(object("other", discovery.Route{}, "10.0.0.2:80"))
	b.rest = backup.Resting{Platform: "docker", App: "shop", Why: "backup", Containers: []string{"web"}, Back: time.Now().Add(time.Minute)}
	return b
}

// begin begins a request.
func begin(t *testing.T, lr *liveRoute) *attempt {
	t.Helper()
	a := &attempt{route: lr}
	a.ResponseWriter = httptest.NewRecorder()
	if a.pick() == nil {
		t.Fatal("there is no upstream")
	}
	return a
}

func TestDrainWaits(t *testing.T) {
	tests := []struct {
		name  string
		setup func(t *testing.T, b *drainBed, cancel func())
		took  time.Duration
		cut   bool
	}{
		{"nothing is under way", func(*testing.T, *drainBed, func()) {}, 0, false},
		{"one that ends", func(t *testing.T, b *drainBed, _ func()) {
			time.AfterFunc(3*time.Second, begin(t, b.web).done)
		}, 3 * time.Second, false},
		{"the last of several", func(t *testing.T, b *drainBed, _ func()) {
			for i := range 5 {
				time.AfterFunc(time.Duration(i)*time.Second, begin(t, b.web).done)
			}
		}, 4 * time.Second, false},
		{"one that does not end in time", func(t *testing.T, b *drainBed, _ func()) { begin(t, b.web) }, drainMost, true},
		{"cancelled", func(t *testing.T, b *drainBed, cancel func()) {
			begin(t, b.web)
			time.AfterFunc(time.Second, cancel)
		}, time.Second, false},
		{"of another app", func(t *testing.T, b *drainBed, _ func()) { begin(t, b.other) }, 0, false},
		{"events", func(t *testing.T, b *drainBed, _ func()) {
			a := begin(t, b.web)
			a.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			a.WriteHeader(200)
		}, 0, false},
		{"a websocket", func(t *testing.T, b *drainBed, _ func()) { begin(t, b.web).WriteHeader(101) }, 0, false},
		{"a websocket over HTTP/2", func(t *testing.T, b *drainBed, _ func()) {
			a := begin(t, b.web)
			a.tunnel = true
			a.WriteHeader(200)
		}, 0, false},
		{"events that begin late, beside one that ends later", func(t *testing.T, b *drainBed, _ func()) {
			a := begin(t, b.web)
			a.Header().Set("Content-Type", "text/event-stream")
			time.AfterFunc(time.Second, func() { a.WriteHeader(200) })
			time.AfterFunc(2*time.Second, begin(t, b.web).done)
		}, 2 * time.Second, false},
		{"events that have ended do not stand for another", func(t *testing.T, b *drainBed, _ func()) {
			a := begin(t, b.web)
			a.WriteHeader(101)
			time.AfterFunc(time.Second, a.done)
			time.AfterFunc(5*time.Second, begin(t, b.web).done)
		}, 5 * time.Second, false},
		{"a page with early hints", func(t *testing.T, b *drainBed, _ func()) {
			a := begin(t, b.web)
			a.WriteHeader(103)
			a.Header().Set("Content-Type", "text/html")
			a.WriteHeader(200)
			time.AfterFunc(time.Second, a.done)
		}, time.Second, false},
		{"of a container that is not well", func(t *testing.T, b *drainBed, _ func()) {
			time.AfterFunc(time.Second, begin(t, b.web).done)
			b.web.setUpstreams(&discovery.Wanted{State: discovery.Unhealthy})
			b.web.setUpstreams(&discovery.Wanted{State: discovery.Unhealthy})
		}, time.Second, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newDrainBed()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				tt.setup(t, b, cancel)
				b.resting(&b.rest)
				if a := (&attempt{route: b.web}); a.pick() != nil {
					t.Error("a new request is passed on")
				}
				begun := time.Now()
				b.drain(ctx, &b.rest)
				if took := time.Since(begun); took != tt.took {
					t.Errorf("it took %v, want %v", took, tt.took)
				}
				if got := b.backups.rest.of(b.web); got == nil || !got.Back.Equal(b.rest.Back.Add(tt.took)) {
					t.Errorf("of = %+v, want it back %v later than was said first", got, tt.took)
				}
				text := fmt.Sprint(b.state.journal.last(0))
				if cut := strings.Contains(text, "1 requests are still under way after 10s"); cut != tt.cut {
					t.Errorf("journal = %s, want that something is cut: %v", text, tt.cut)
				}
				over := b.rest
				over.Over = true
				b.resting(&over)
			})
		})
	}
}

// Whoever is counted after the rest was told is none: no request reaches a container that
// stops, however many come.
func TestNoneSlipsThrough(t *testing.T) {
	b := newDrainBed()
	var stopped atomic.Bool
	var served, missed atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	const requesters = 4
	for range requesters {
		wg.Go(func() {
			for ctx.Err() == nil {
				all, a := b.web.upstreams.Load(), &attempt{route: b.web}
				if a.pick() == nil {
					missed.Add(1)
					<-all.changed
					continue
				}
				if stopped.Load() {
					t.Error("a request meets a container that has stopped")
				}
				served.Add(1)
				a.done()
			}
		})
	}
	for range 50 {
		n := served.Load()
		eventually(t, "it is served", func() bool { return served.Load() > n })
		before := missed.Load()
		rest := b.rest
		b.resting(&rest)
		b.drain(ctx, &rest)
		stopped.Store(true)
		eventually(t, "all wait", func() bool { return missed.Load() >= before+requesters })
		stopped.Store(false)
		rest.Over = true
		b.resting(&rest)
	}
	cancel()
	wg.Wait()
}

// Containers rest, and serve again, each by itself: as far as it is known where they are.
func TestAboutToStop(t *testing.T) {
	b := newDrainBed()
	web := object("web", discovery.Route{}, "10.0.0.1:80")
	moved := object("web", discovery.Route{}, "10.0.0.9:80")
	serving := func(want string) {
		t.Helper()
		if got := strings.Join(b.backups.rest.serving([]string{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:80"}), " "); got != want {
			t.Errorf("serving %s, want %s", got, want)
		}
	}
	serving("10.0.0.1:80 10.0.0.2:80 10.0.0.9:80")
	b.resting(&b.rest)
	serving("10.0.0.2:80 10.0.0.9:80")
	b.up.Set(moved)
	serving("10.0.0.1:80 10.0.0.2:80")
	unwell := web
	unwell.State = discovery.Unhealthy
	b.up.Set(unwell)
	serving("10.0.0.2:80 10.0.0.9:80")
	b.up.Set(down(web, discovery.Stopped))
	b.up.Set(web)
	serving("10.0.0.1:80 10.0.0.2:80 10.0.0.9:80")
	b.resting(&b.rest) // somebody has started it: it stops once more
	serving("10.0.0.2:80 10.0.0.9:80")
	over := b.rest
	over.Over = true
	b.resting(&over)
	serving("10.0.0.1:80 10.0.0.2:80 10.0.0.9:80")
}
