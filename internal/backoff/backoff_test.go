package backoff_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dentropy/dentropycloud/internal/backoff"
)

func TestNext(t *testing.T) {
	tests := []struct {
		name  string
		b     backoff.Backoff
		upper []time.Duration // the upper bound of each wait in turn
	}{
		{
			name:  "zero value",
			upper: []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 1600 * time.Millisecond, 3200 * time.Millisecond, 5 * time.Second, 5 * time.Second},
		},
		{
			name:  "first wait above the cap",
			b:     backoff.Backoff{Min: time.Minute, Max: time.Second},
			upper: []time.Duration{time.Second, time.Second},
		},
		{
			name:  "no overflow",
			b:     backoff.Backoff{Min: math.MaxInt64 / 3, Max: math.MaxInt64},
			upper: []time.Duration{math.MaxInt64 / 3, math.MaxInt64 / 3 * 2, math.MaxInt64},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for range 100 { // the waits are random
				b := tt.b
				for i, upper := range tt.upper {
					if got := b.Next(); got < upper/2 || got > upper {
						t.Fatalf("wait %d = %v, want between %v and %v", i, got, upper/2, upper)
					}
				}
				b.Reset()
				if got := b.Next(); got > tt.upper[0] {
					t.Fatalf("after Reset: wait = %v, want at most %v", got, tt.upper[0])
				}
			}
		})
	}
}

func TestNextVaries(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 20 {
		seen[(&backoff.Backoff{}).Next()] = true
	}
	if len(seen) < 2 {
		t.Errorf("20 first waits are all %v, want jitter", seen)
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		b := backoff.Backoff{Min: time.Second, Max: 4 * time.Second}
		start := time.Now()
		waits := 0
		for b.Wait(ctx) == nil {
			waits++
		}
		if got := time.Since(start); got != 10*time.Second {
			t.Errorf("waited %v in all, want to end with ctx after 10s", got)
		}
		if waits < 3 || waits > 6 {
			t.Errorf("%d waits in 10s, want 3 to 6", waits)
		}
		start = time.Now()
		if err := b.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 0 {
			t.Errorf("Wait with a done ctx = %v after %v, want its error at once", err, time.Since(start))
		}
	})
}
