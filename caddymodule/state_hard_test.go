package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"github.com/dentropy/dentropycloud/discovery"
)

// TestHostPassesOnWithoutAGap: where a host goes from one route to another, there is
// no moment at which nobody has it: the request would get a 404, or the answer of the
// wildcard beside it.
func TestHostPassesOnWithoutAGap(t *testing.T) {
	s := newState()
	defer func() { _ = s.Destruct() }()
	wanted := func(key, host string) *discovery.Wanted {
		return &discovery.Wanted{Key: key, Spec: &discovery.Route{Hosts: []string{host}, TLS: "off"}, Units: []discovery.Unit{{Host: host, Path: "/"}}}
	}
	change := func(w *discovery.Wanted) discovery.Change { return discovery.Change{Key: w.Key, Route: w} }
	without := func(w *discovery.Wanted) discovery.Change {
		c := *w
		c.Units = nil
		return change(&c)
	}
	a, b := wanted("a", "app.test"), wanted("b", "app.test")
	s.Apply([]discovery.Change{change(wanted("other", "*.test")), change(a)})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	gaps := make(chan int64)
	go func() {
		var n int64
		for ctx.Err() == nil {
			if lr, _, _, known := s.table.Lookup("app.test", "/", nil); !known || lr == nil || lr.key == "other" {
				n++
			}
		}
		gaps <- n
	}()
	for range 5000 {
		s.Apply([]discovery.Change{{Key: "a"}, change(b)})
		s.Apply([]discovery.Change{{Key: "b"}, change(a)})
		s.Apply([]discovery.Change{without(a), change(b)})
		s.Apply([]discovery.Change{change(a), without(b)})
		s.Apply([]discovery.Change{{Key: "b"}})
	}
	cancel()
	if n := <-gaps; n > 0 {
		t.Errorf("%d lookups found the host with nobody or with somebody else", n)
	}
}

// TestNoRouteLeadsToAListenerOfOurs: the admin API may listen anywhere, and a label
// may name any port of a container in the host's network.
func TestNoRouteLeadsToAListenerOfOurs(t *testing.T) {
	s := newState()
	defer func() { _ = s.Destruct() }()
	for _, host := range []string{"127.0.0.1", "localhost", ""} {
		t.Run("listens on "+host, func(t *testing.T) {
			port := freePort(t)
			na, err := caddy.ParseNetworkAddress(fmt.Sprintf("%s:%d", host, port))
			if err != nil {
				t.Fatal(err)
			}
			ln, err := na.Listen(t.Context(), 0, net.ListenConfig{})
			if err != nil {
				t.Fatal(err)
			}
			l := ln.(net.Listener)
			address := fmt.Sprintf("127.0.0.1:%d", port)
			if err := s.dial(t.Context(), address); err == nil {
				t.Errorf("%s, where this program listens, was verified as an endpoint", address)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
	if err := s.dial(t.Context(), backend(t, "b")); err != nil {
		t.Errorf("a server of somebody else: %v", err)
	}
}

// unreadable fails to read until it is told not to.
type unreadable struct {
	certmagic.Storage
	bad atomic.Bool
}

var errUnreadable = errors.New("i/o timeout")

func (u *unreadable) List(ctx context.Context, path string, recursive bool) ([]string, error) {
	if u.bad.Load() {
		return nil, errUnreadable
	}
	return u.Storage.List(ctx, path, recursive)
}

func (u *unreadable) Load(ctx context.Context, key string) ([]byte, error) {
	if u.bad.Load() {
		return nil, errUnreadable
	}
	return u.Storage.Load(ctx, key)
}

func ledgerOwners(t *testing.T, storage certmagic.Storage) int {
	t.Helper()
	l := newLedger(slog.New(slog.DiscardHandler))
	defer l.close()
	reg := discovery.NewRegistry(discovery.Options{Sink: nobody{}})
	defer reg.Close()
	if err := l.open(storage, reg); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, shard := range l.shards {
		n += len(shard)
	}
	return n
}

// TestLedgerKeepsWhatItCouldNotRead: owners that cannot be read at the start are not
// overwritten by those that come after.
func TestLedgerKeepsWhatItCouldNotRead(t *testing.T) {
	storage := &unreadable{Storage: &certmagic.FileStorage{Path: t.TempDir()}}
	reg := discovery.NewRegistry(discovery.Options{Sink: nobody{}})
	defer reg.Close()
	l := newLedger(slog.New(slog.DiscardHandler))
	if err := l.open(storage, reg); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		l.set(fmt.Sprintf("old%d.test", i), &discovery.OwnerRecord{Scope: "docker/x"})
	}
	l.close()

	storage.bad.Store(true)
	l = newLedger(slog.New(slog.DiscardHandler))
	if err := l.open(storage, reg); err == nil {
		t.Fatal("storage that cannot be read was taken for empty")
	}
	for i := range 1000 {
		l.set(fmt.Sprintf("new%d.test", i), &discovery.OwnerRecord{Scope: "docker/y"})
	}
	l.set("old0.test", nil)
	l.set("old1.test", &discovery.OwnerRecord{Scope: "docker/y"})
	storage.bad.Store(false)
	l.close()
	if got := ledgerOwners(t, storage.Storage); got != 1099 {
		t.Errorf("%d owners are stored, want 1099", got)
	}
}

// TestLedgerFollowsAnotherStorage: a config with another storage takes all that is
// known along.
func TestLedgerFollowsAnotherStorage(t *testing.T) {
	reg := discovery.NewRegistry(discovery.Options{Sink: nobody{}})
	defer reg.Close()
	first, second := &certmagic.FileStorage{Path: t.TempDir()}, &certmagic.FileStorage{Path: t.TempDir()}
	l := newLedger(slog.New(slog.DiscardHandler))
	if err := l.open(first, reg); err != nil {
		t.Fatal(err)
	}
	l.set("a.test", &discovery.OwnerRecord{Scope: "docker/x"})
	eventually(t, "it is written", func() bool { return first.Exists(t.Context(), shardKey(shardOf("a.test"))) })
	if err := l.open(&certmagic.FileStorage{Path: first.Path}, reg); err != nil {
		t.Fatal(err)
	}
	if err := l.open(second, reg); err != nil {
		t.Fatal(err)
	}
	l.close()
	if got := ledgerOwners(t, second); got != 1 {
		t.Errorf("%d owners are in the new storage, want 1", got)
	}
}

func TestFailedReloadLeavesTheLedger(t *testing.T) {
	w := newWorld(t, nil)
	w.up()
	s, _ := current()
	root := func() string {
		s.ledger.mu.Lock()
		defer s.ledger.mu.Unlock()
		return s.ledger.storage.(*certmagic.FileStorage).Path
	}
	before := root()
	storage := w.config["storage"]
	w.config["storage"] = map[string]any{"module": "file_system", "root": t.TempDir()}
	w.config["apps"].(map[string]any)["zz_failing"] = map[string]any{}
	for range 12 { // apps start in any order
		if err := caddy.Load(mustJSON(w.config), true); err == nil {
			t.Fatal("a config with an app that fails to start was loaded")
		}
		if got := root(); got != before {
			t.Fatalf("owners are written to %s after a failed reload, want %s", got, before)
		}
	}
	w.config["storage"] = storage
	delete(w.config["apps"].(map[string]any), "zz_failing")
}

// TestReloadAllowsWhatWasRefused: what the operator allows by a reload is served
// then, and not when the container is started again.
func TestReloadAllowsWhatWasRefused(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	route := off("app.test")
	route.Caddyfile = "panics serve"
	up.Set(object("app", route, backend(t, "app")))
	if status, _ := w.get("http://app.test/"); status != 404 {
		t.Fatalf("status = %d before it is allowed", status)
	}
	w.config["apps"].(map[string]any)["dentropy"].(map[string]any)["allow_handlers"] = []string{"http.handlers.panics"}
	w.load()
	eventually(t, "it is served", func() bool { status, _ := w.get("http://app.test/"); return status == 200 })
}

// TestChainOfAnEarlierConfigEnds: a route that a config could not set up goes on with
// the chain of the one before, and that one ends when there is a better one.
func TestChainOfAnEarlierConfigEnds(t *testing.T) {
	w := newWorld(t, func(app map[string]any) { app["allow_handlers"] = []string{"http.handlers.fickle"} })
	up := w.up()
	route := off("app.test")
	route.Caddyfile = "fickle"
	up.Set(object("app", route, backend(t, "app")))
	eventually(t, "it is served", func() bool { status, _ := w.get("http://app.test/"); return status == 200 })
	s, _ := current()
	chainNow := func() *chain {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, lr := range s.routes {
			return lr.chain.Load()
		}
		return nil
	}
	first := chainNow()
	fickleFails.Store(true)
	defer fickleFails.Store(false)
	w.load()
	if chainNow() != first {
		t.Fatal("the chain did not go on")
	}
	fickleFails.Store(false)
	w.load()
	if chainNow() == first {
		t.Fatal("the route was not set up again")
	}
	select {
	case <-first.done:
	case <-time.After(10 * time.Second):
		t.Error("the chain of the first config was never cleaned up")
	}
}
