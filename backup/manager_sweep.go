package backup

import (
	"context"
	"sync"
	"time"
)

const (
	// sweepEvery is how often Keep lets platforms sweep where nothing is known to be left.
	sweepEvery = 5 * time.Minute
	// sweepSoonest is between two sweeps, whatever a platform says.
	sweepSoonest = time.Second
)

// sweeper is a Platform that can remove what processes that are gone have left on its
// engine and no journal tells of, such as what measured for them.
type sweeper interface {
	// Sweep removes what is certainly nobody's. again is when something that is there may
	// be nobody's by then, 0 where nothing is there. It can be called beside everything
	// else, and again after an error.
	Sweep(ctx context.Context) (again time.Duration, err error)
}

// keepSwept lets the platforms sweep at once and then from time to time, until ctx is over.
func (m *Manager) keepSwept(ctx context.Context) {
	for {
		t := time.NewTimer(m.sweep(ctx))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// sweep lets all platforms sweep once, at the same time, and says when to come again.
func (m *Manager) sweep(ctx context.Context) time.Duration {
	cfg := m.config()
	var wg sync.WaitGroup
	var mu sync.Mutex // guards next
	next := sweepEvery
	for _, p := range cfg.Platforms {
		s, ok := p.(sweeper)
		if !ok {
			continue
		}
		wg.Go(func() {
			again, err := s.Sweep(ctx)
			if err != nil { // an engine that is away: whatever else is done there tells of it
				cfg.Log.Debug("what was left on an engine is not removed yet", "platform", p.Name(), "error", err)
			}
			mu.Lock()
			defer mu.Unlock()
			if again > 0 {
				next = min(next, max(again, sweepSoonest))
			}
		})
	}
	wg.Wait()
	return next
}
