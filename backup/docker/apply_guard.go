package docker

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/dentropy/dentropycloud/backup"
)

// A guard watches over a changeover from before anything is done to the old containers
// until the exchange begins (data, paths, the new containers). Where this program is gone,
// it gives the old containers their policies and names back and starts them: nothing of
// theirs has been changed by then.
//
//	guard ▸ restart policies off ▸ journal ▸ stop in reverse order, each in the journal
//	▸ the guard is told that all is well, says that it has heard, and is removed
//	▸ the engine lists no guard ▸ nothing of the old set runs ▸ exchange …
//
// From the exchange on no guard may act: old containers would run with the new data, or
// beside the new ones. A guard that has heard the word has done nothing and never will. One
// that was lost on the way (it was killed, the engine was restarted) may have asked for a
// start that is under way still, whether or not it has been removed since: then nothing is
// exchanged, and the changeover is taken back, which is what the guard wants as well. So
// at no moment does a guard work against this program, or against another that recovers:
// that one removes guards first, and finds none in the journal of an exchange.
//
// What is cut off later is taken back, or finished, by Recover alone.

// standGuard starts the guard. Without one it goes on, with a warning.
func (c *changeover) standGuard(ctx context.Context) error {
	err := c.p.ensureTransit(ctx)
	if err == nil {
		c.marked = true
		c.guards, err = c.p.keepGuardOf(ctx, guardSpec{Op: c.op, Old: slices.Clone(c.rec.Old), Why: c.why, Health: c.rec.Health})
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	// One that was started and did not answer would act later, in the middle of all.
	if there := c.p.endGuards(ctx, c.op); there != nil {
		return errors.Join(err, there)
	}
	c.opts.Report(guardWarning(err))
	return nil
}

// dismissGuard ends the watch, and returns nil only where no guard has done or will do
// anything.
func (c *changeover) dismissGuard(ctx context.Context) error {
	k := c.guards
	if k == nil {
		return nil
	}
	c.guards = nil
	quiet := k.release(ctx, true)
	if err := c.p.endGuards(ctx, c.op); err != nil {
		return err
	}
	if !quiet {
		return &backup.Problem{
			Message: "the guard that watches over " + c.rec.App + " was lost while its containers were stopped: it may be starting them again",
			Hint:    "try again; if it comes again, look whether the engine is restarted, or ends containers for want of memory", Object: c.rec.App,
		}
	}
	c.marked = false
	return nil
}

// oldRests returns an error where something of the old set runs.
func (c *changeover) oldRests(ctx context.Context) error {
	var names []string
	for _, o := range c.rec.Old {
		st, err := c.p.state(ctx, o.ID)
		if err != nil {
			return err
		}
		if st != nil && (st.Running || st.Restarting || st.Paused) {
			names = append(names, o.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return &backup.Problem{
		Message: "somebody started " + strings.Join(names, ", ") + " while it was about to be replaced",
		Hint:    "look for what starts containers (autoheal, watchtower, a cron job, compose), and try again", Object: names[0],
	}
}

// endGuard ends the watch where all is taken back and the old set runs: the guard, and what
// it has noted for itself, are of no use any more.
func (c *changeover) endGuard(ctx context.Context) error {
	if k := c.guards; k != nil {
		c.guards = nil
		k.release(ctx, true)
	}
	if err := c.p.endGuards(ctx, c.op); err != nil {
		return err
	}
	if !c.marked {
		return nil
	}
	if err := c.p.cleanTransit(ctx, c.op); err != nil {
		if gone(err) || errors.Is(err, context.Canceled) {
			return err
		}
		c.warn("an empty file stays in the volume %s, in the folder %s.guard: %v", c.p.opts.TransitVolume, c.op, err)
	}
	c.marked = false
	return nil
}

// leaveGuard lets the guard do what it is there for.
func (c *changeover) leaveGuard(ctx context.Context) {
	if k := c.guards; k != nil {
		c.guards = nil
		k.release(ctx, false)
	}
}
