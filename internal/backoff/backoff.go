// Package backoff spaces out repeated attempts: exponentially longer waits, with
// jitter so that many clients do not return in step, and with a cap.
//
//	b := backoff.Backoff{Max: 5 * time.Second}
//	for b.Wait(ctx) == nil {
//		if try() == nil {
//			b.Reset()
//		}
//	}
//
// The n-th wait lies between half and the whole of Min·2ⁿ, and never above Max.
// It does not count attempts and never gives up: ctx ends it.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// The bounds of a zero Backoff.
const (
	DefaultMin = 100 * time.Millisecond
	DefaultMax = 5 * time.Second
)

// Backoff is the state of one sequence of attempts. The zero value is ready to
// use. It is not safe for concurrent use.
type Backoff struct {
	// Min is the upper bound of the first wait. Default: DefaultMin.
	Min time.Duration
	// Max caps every wait, jitter included. Default: DefaultMax.
	Max time.Duration

	step time.Duration // the upper bound of the last wait; 0 before the first
}

// Next returns the next wait.
func (b *Backoff) Next() time.Duration {
	low, high := b.Min, b.Max
	if low <= 0 {
		low = DefaultMin
	}
	if high <= 0 {
		high = DefaultMax
	}
	switch {
	case b.step <= 0:
		b.step = low
	case b.step > high/2: // doubling would pass the cap, or overflow
		b.step = high
	default:
		b.step *= 2
	}
	b.step = min(b.step, high)
	return Jitter(b.step)
}

// Reset makes the next wait a first one again.
func (b *Backoff) Reset() { b.step = 0 }

// Wait waits for Next, or until ctx is done and then returns its error.
func (b *Backoff) Wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t := time.NewTimer(b.Next())
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Jitter returns a random duration between half of d and d.
func Jitter(d time.Duration) time.Duration {
	if d <= 1 {
		return d
	}
	half := d / 2
	return d - half + rand.N(half+1)
}
