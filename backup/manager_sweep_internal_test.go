package backup

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// sweptPlatform notes when it is swept, and says what it is told.
type sweptPlatform struct {
	Platform
	begun  time.Time
	again  []time.Duration
	err    error
	called []time.Duration
}

func (p *sweptPlatform) Name() string { return "swept" }

func (p *sweptPlatform) Sweep(context.Context) (again time.Duration, err error) {
	if n := len(p.called); n < len(p.again) {
		again = p.again[n]
	}
	p.called = append(p.called, time.Since(p.begun))
	return again, p.err
}

func TestKeepSweeps(t *testing.T) {
	for _, tt := range []struct {
		name  string
		again []time.Duration
		err   error
		want  []time.Duration
	}{
		{"nothing is there", nil, nil, []time.Duration{0, sweepEvery}},
		{"something may be nobody's soon", []time.Duration{20 * time.Second, 0}, nil, []time.Duration{0, 20 * time.Second, 20*time.Second + sweepEvery}},
		{"a moment", []time.Duration{1}, nil, []time.Duration{0, sweepSoonest, sweepSoonest + sweepEvery}},
		{"longer than usual", []time.Duration{time.Hour}, nil, []time.Duration{0, sweepEvery}},
		{"the engine is away", nil, errors.New("away"), []time.Duration{0, sweepEvery}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				p := &sweptPlatform{begun: time.Now(), again: tt.again, err: tt.err}
				m, err := NewManager(Config{Dir: dir, Platforms: []Platform{p}})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), tt.want[len(tt.want)-1]+time.Millisecond)
				defer cancel()
				m.Keep(ctx)
				if !slices.Equal(p.called, tt.want) {
					t.Errorf("swept after %v, want %v", p.called, tt.want)
				}
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
