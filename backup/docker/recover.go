package docker

import (
	"context"
	"errors"
	"fmt"

	"github.com/dentropy/dentropycloud/backup"
)

// Recover implements backup.Platform: it brings back what an operation whose process is
// gone has brought to rest, and removes what it left on the engine.
func (p *Platform) Recover(ctx context.Context, op backup.Operation, entries []backup.Entry, report func(backup.Progress)) error {
	if report == nil {
		report = func(backup.Progress) {}
	}
	if op.Kind != "backup" {
		return p.recoverRestore(ctx, op, entries, report)
	}
	r := replayFreeze(entries)
	// A helper reads for nobody any more.
	if err := p.removeOurs(ctx, op.ID, roleHelper); err != nil {
		return err
	}
	if r.plan != nil && !r.back {
		back, err := p.bringBackAfter(ctx, r.last, r.plan.Halt, r.plan.Health, report)
		if err != nil {
			return err
		}
		if !back.First.IsZero() {
			p.log.Info("app brought back after a crash", "app", op.App, "operation", op.ID)
		}
	}
	for _, h := range r.post {
		p.recoverHook(ctx, h, report)
	}
	return p.clearOp(ctx, op.ID, r.layers, report)
}

// recoverHook runs a hook that is due, where its container runs.
func (p *Platform) recoverHook(ctx context.Context, h hookRun, report func(backup.Progress)) {
	st, err := p.state(ctx, h.ID)
	if err == nil && (st == nil || !st.Running || st.Paused) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, backTimeout)
	defer cancel()
	if err == nil {
		_, err = p.runHook(ctx, h)
	}
	if err != nil {
		report(backup.Progress{Phase: "start", Warning: err.Error()})
	}
}

// clearOp removes what an operation left on the engine. The app runs: what cannot be
// removed is a warning, except for a guard, which would go on acting.
func (p *Platform) clearOp(ctx context.Context, op string, layers []string, report func(backup.Progress)) error {
	report(backup.Progress{Phase: "clean"})
	if err := p.removeOurs(ctx, op, roleHelper, roleGuard); err != nil {
		return err
	}
	for _, ref := range layers {
		p.removeImage(ctx, ref)
	}
	if err := p.cleanTransit(ctx, op); err != nil {
		if gone(err) || errors.Is(err, context.Canceled) {
			return err
		}
		report(backup.Progress{Phase: "clean", Warning: fmt.Sprintf("what was read lies in the volume %s still, in the folder %s: %v", p.opts.TransitVolume, op, err)})
	}
	p.sweepHelpers(ctx)
	return nil
}
