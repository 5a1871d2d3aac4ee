package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/dentropy/dentropycloud/backup"
)

// recoverRestore finishes a restore or an undo whose process is gone, or takes it back.
// It can be repeated.
func (p *Platform) recoverRestore(ctx context.Context, op backup.Operation, entries []backup.Entry, report func(backup.Progress)) error {
	if report == nil {
		report = func(backup.Progress) {}
	}
	c := &changeover{p: p, op: op.ID, why: op.Kind, opts: backup.ApplyOptions{
		HealthTimeout: healthTimeout, Report: report, Resting: func(*backup.Resting) {},
	}}
	if err := c.replay(entries); err != nil {
		return err
	}
	if !c.begun {
		return nil // nothing was touched
	}
	// What its helpers were doing is of no use any more, and must not go on beside us. The
	// same is true of its guard: what that one does we do now.
	if err := p.removeOurs(ctx, op.ID, roleHelper); err != nil {
		return err
	}
	if err := p.endGuards(ctx, op.ID); err != nil {
		return err
	}
	if c.committed {
		return c.finish(ctx)
	}
	return c.rollBack(ctx)
}

// replay reads what a journal says.
func (c *changeover) replay(entries []backup.Entry) error {
	for _, e := range entries {
		var err error
		if e.Step == stepHalt || !c.left.IsZero() {
			c.left = e.Time // nothing was about to stop before
		}
		switch e.Step {
		case stepChange:
			err = json.Unmarshal(e.Data, &c.rec)
			c.begun = true
			c.marked = slices.ContainsFunc(c.rec.Old, func(o oldOne) bool { return o.Ran })
		case stepOld:
			c.rec.Old, err = decode[[]oldOne](e.Data)
			c.touched = true
			c.marked = slices.ContainsFunc(c.rec.Old, func(o oldOne) bool { return o.Ran })
		case stepHalted:
			var d journalRest
			if d, err = decode[journalRest](e.Data); err == nil {
				c.rec.came(d.ID, d.StartedAt)
			}
		case stepSwap:
			c.rec.Swaps, err = decode[[]swapped](e.Data)
		case stepPath:
			c.rec.Paths, err = decode[[]pathMove](e.Data)
		case stepMade:
			var n newOne
			if n, err = decode[newOne](e.Data); err == nil {
				c.started = true // after the last of them
				for i := range c.rec.New {
					if c.rec.New[i].Temp == n.Temp {
						c.rec.New[i].ID = n.ID
					}
					c.started = c.started && c.rec.New[i].ID != ""
				}
			}
		case backup.StepUndo, backup.StepUndone:
			c.committed = true
		}
		if err != nil {
			return fmt.Errorf("read the journal: step %s: %w", e.Step, err)
		}
	}
	return nil
}
