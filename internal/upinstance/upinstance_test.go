package upinstance_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dentropy/dentropycloud/internal/upinstance"
)

func TestReload(t *testing.T) {
	ctx := t.Context()
	if err := upinstance.Reload(ctx); !errors.Is(err, upinstance.ErrNone) {
		t.Fatalf("Reload() without instance = %v, want ErrNone", err)
	}
	want := errors.New("bad file")
	first := upinstance.Register(func(context.Context) error { return nil })
	second := upinstance.Register(func(context.Context) error { return want })
	first() // was replaced already: must not take the second one away
	if !upinstance.Active() {
		t.Fatal("Active() = false, want true after Register")
	}
	if err := upinstance.Reload(ctx); !errors.Is(err, want) {
		t.Errorf("Reload() = %v, want %v", err, want)
	}
	second()
	if err := upinstance.Reload(ctx); !errors.Is(err, upinstance.ErrNone) {
		t.Errorf("Reload() after unregister = %v, want ErrNone", err)
	}
}

func TestReloadsDoNotOverlap(t *testing.T) {
	var inside, calls atomic.Int32
	defer upinstance.Register(func(context.Context) error {
		if n := inside.Add(1); n != 1 {
			t.Errorf("%d reloads at once, want 1", n)
		}
		calls.Add(1)
		inside.Add(-1)
		return nil
	})()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := upinstance.Reload(t.Context()); err != nil {
				t.Errorf("Reload() = %v, want nil", err)
			}
		})
	}
	wg.Wait()
	if calls.Load() != 20 {
		t.Errorf("%d calls, want 20", calls.Load())
	}
}

func TestReloadHeedsContextWhileWaiting(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	defer upinstance.Register(func(context.Context) error {
		close(entered)
		<-release
		return nil
	})()
	done := make(chan error, 1)
	go func() { done <- upinstance.Reload(context.Background()) }()
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := upinstance.Reload(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Reload() with a cancelled context = %v, want %v", err, context.Canceled)
	}
	close(release)
	if err := <-done; err != nil {
		t.Errorf("first Reload() = %v, want nil", err)
	}
}
