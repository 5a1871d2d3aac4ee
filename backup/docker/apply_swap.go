package docker

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// swapCaps move the data folders of volumes, whoever they belong to.
var swapCaps = []string{"DAC_OVERRIDE", "FOWNER"}

// inodes asks which data folder is which.
func (c *changeover) inodes(ctx context.Context, names []string) (map[string]uint64, error) {
	var result struct {
		Inodes map[string]uint64 `json:"inodes"`
	}
	err := c.p.helperResult(ctx, helperTask{
		op: c.op, name: "inode", caps: swapCaps,
		input:  map[string]any{"root": volumeRoot + "volumes", "names": names},
		mounts: []helperMount{{target: volumeRoot + "volumes", bind: c.rec.VolumeRoot}},
	}, &result)
	if err != nil {
		return nil, err
	}
	return result.Inodes, nil
}

// swap exchanges the data of two volumes.
func (c *changeover) swap(ctx context.Context, a, b string) error {
	return c.p.runHelper(ctx, helperTask{
		op: c.op, name: "swap", caps: swapCaps,
		input:  map[string]any{"root": volumeRoot + "volumes", "a": a, "b": b},
		mounts: []helperMount{{target: volumeRoot + "volumes", bind: c.rec.VolumeRoot, write: true}},
	})
}

// exchange gives volumes that are there the new data, and keeps the old in others. Nothing
// of the old set runs when it begins.
func (c *changeover) exchange(ctx context.Context) error {
	if len(c.rec.Swaps) == 0 {
		return c.oldRests(ctx)
	}
	c.opts.Report(backup.Progress{Phase: "swap"})
	var names []string
	for _, s := range c.rec.Swaps {
		names = append(names, s.Final, s.Keep)
	}
	inodes, err := c.inodes(ctx, names)
	if err != nil {
		return err
	}
	for i := range c.rec.Swaps {
		s := &c.rec.Swaps[i]
		s.FinalInode, s.KeepInode = inodes[s.Final], inodes[s.Keep]
		if s.FinalInode == 0 || s.KeepInode == 0 {
			return fmt.Errorf("exchange data of volume %s: its folder is not where the engine says that it keeps volumes", s.Final)
		}
	}
	if err := c.oldRests(ctx); err != nil {
		return err
	}
	if err := c.append(stepSwap, c.rec.Swaps); err != nil {
		return err
	}
	for _, s := range c.rec.Swaps {
		c.opts.Report(backup.Progress{Phase: "swap", Text: s.Final})
		if err := c.swap(ctx, s.Final, s.Keep); err != nil {
			return err
		}
	}
	return nil
}

// swapBack takes exchanges back, as far as they were done.
func (c *changeover) swapBack(ctx context.Context) error {
	var names []string
	for _, s := range c.rec.Swaps {
		if s.FinalInode != 0 {
			names = append(names, s.Final, s.Keep)
		}
	}
	if len(names) == 0 {
		return nil
	}
	inodes, err := c.inodes(ctx, names)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range c.rec.Swaps {
		if s.FinalInode != 0 && inodes[s.Final] == s.KeepInode && inodes[s.Keep] == s.FinalInode {
			errs = append(errs, c.swap(ctx, s.Final, s.Keep))
		}
	}
	return errors.Join(errs...)
}

// rollBack makes everything as it was. It can be repeated, and does not mind what was
// never done. The error wraps backup.ErrLeftStopped where containers that ran do not run.
func (c *changeover) rollBack(ctx context.Context) error {
	if !c.begun {
		return nil
	}
	// Until the old set runs again, nothing else matters; what fails here leaves it
	// stopped, and recovery goes on.
	err := c.removeNew(ctx)
	if err == nil {
		err = c.swapBack(ctx)
	}
	if err == nil {
		err = c.pathsBack(ctx)
	}
	if err == nil {
		err = c.oldBack(ctx)
	}
	if err != nil {
		c.leaveGuard(ctx)
		if len(c.rec.Old) == 0 {
			// Nothing that ran is stopped, yet half a restore is there: recovery goes on.
			return &leftOver{fmt.Errorf("take it back: %w", err)}
		}
		if !errors.Is(err, backup.ErrLeftStopped) {
			err = fmt.Errorf("%w: %w", backup.ErrLeftStopped, err)
		}
		return fmt.Errorf("take it back: %w", err)
	}
	c.opts.Resting(nil)
	errs := []error{c.endGuard(ctx)}
	for _, v := range c.rec.Volumes {
		errs = append(errs, c.p.removeVolume(ctx, v, c.op))
	}
	for _, n := range c.rec.Networks {
		errs = append(errs, c.p.removeNetwork(ctx, n, c.op))
	}
	errs = append(errs, c.clearStaging(ctx))
	c.removeImages(ctx)
	if err := errors.Join(errs...); err != nil {
		return &leftOver{fmt.Errorf("clear away what was restored: %w", err)}
	}
	return nil
}

// leftOver says that half a restore is there, in nobody's way: recovery goes on clearing it
// away, as it does where containers are left stopped.
type leftOver struct{ err error }

func (e *leftOver) Error() string { return e.err.Error() }

func (e *leftOver) Unwrap() error { return e.err }

// Is makes the operation's journal stay.
func (e *leftOver) Is(target error) bool { return target == backup.ErrLeftStopped }

// removeNew removes the new containers: those whose id is known, and those with a name
// that nobody else gives.
func (c *changeover) removeNew(ctx context.Context) error {
	for _, n := range slices.Backward(c.rec.New) {
		if err := c.endLost(ctx, n); err != nil {
			return err
		}
		for _, ref := range []string{n.ID, n.Temp} {
			if ref == "" {
				continue
			}
			if err := c.p.insist(ctx, "remove container", func(ctx context.Context, conn *dockerengine.Conn) error {
				return removeGently(ctx, conn, ref, true)
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// endLost ends what runs of a new container that the engine takes for stopped: once it is
// removed, nobody would know of that any more, and it would go on with the app's data.
func (c *changeover) endLost(ctx context.Context, n newOne) error {
	if !c.started || !n.Start || n.ID == "" {
		return nil
	}
	st, err := c.p.state(ctx, n.ID)
	if err != nil || st == nil || st.Running || st.Restarting || st.Paused {
		return err // a removal ends what the engine knows of
	}
	switch err = c.p.endLost(ctx, n.ID); {
	case err == nil:
		c.warn("the engine had lost track of %s, as it does when its daemon is killed in a start: what ran of it was ended", n.Name)
	case errors.Is(err, errNothingLost), errdefs.IsNotFound(err):
	case gone(err), ctx.Err() != nil:
		return err
	default:
		c.p.log.Warn("it is not known whether something runs of a container that is removed", "container", n.Name, "error", err)
	}
	return nil
}

// oldBack gives old containers their names and policies, and starts those that ran.
func (c *changeover) oldBack(ctx context.Context) error {
	if !c.touched {
		return nil // whoever has stopped or changed one since has meant it so
	}
	var list []halted
	for _, o := range c.rec.Old {
		err := c.p.rename(ctx, o.ID, o.Name)
		if errdefs.IsNotFound(err) {
			c.warn("%s was removed meanwhile, and is left so", o.Name)
			continue
		}
		if err == nil && !o.Restart.IsNone() {
			err = c.p.setRestart(ctx, o.ID, o.Restart)
		}
		if err != nil {
			return err
		}
		if o.Ran {
			list = append(list, o.halted)
		}
	}
	// Its own time: what it waits for may take longer than what is left of ours.
	if _, err := c.p.bringBackAfter(ctx, c.left, list, c.rec.Health, c.opts.Report); err != nil {
		return err
	}
	for _, o := range c.rec.Old {
		if o.Paused {
			if _, err := c.p.pauseContainer(ctx, o.ID); err != nil {
				c.warn("%s was paused before, and runs now: %v", o.Name, err)
			}
		}
	}
	return nil
}

// finish does what is left after the point from which on nothing is taken back. It can
// be repeated.
func (c *changeover) finish(ctx context.Context) error {
	var errs []error
	for _, o := range c.rec.Old {
		errs = append(errs, c.p.insist(ctx, "remove container", func(ctx context.Context, conn *dockerengine.Conn) error {
			// Its anonymous volumes stay: an undo needs them.
			return removeGently(ctx, conn, o.ID, false)
		}))
	}
	for _, n := range c.rec.Drop {
		errs = append(errs, c.p.removeNetwork(ctx, n, ""))
	}
	errs = append(errs, c.clearStaging(ctx))
	return errors.Join(errs...)
}

// removeVolume removes a volume that the operation op made; op "" is any restore's.
func (p *Platform) removeVolume(ctx context.Context, name, op string) error {
	return p.insist(ctx, "remove volume "+name, func(ctx context.Context, conn *dockerengine.Conn) error {
		v, err := conn.VolumeInspect(ctx, name)
		if errdefs.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if l := v.Labels[labelRestore]; l == "" || op != "" && l != op {
			return nil // somebody else's
		}
		err = conn.VolumeRemove(ctx, name, false)
		if errdefs.IsNotFound(err) {
			return nil
		}
		return err
	})
}

// removeNetwork removes a network that the operation op made; op "" is any restore's. One
// that is in use stays.
func (p *Platform) removeNetwork(ctx context.Context, name, op string) error {
	return p.insist(ctx, "remove network "+name, func(ctx context.Context, conn *dockerengine.Conn) error {
		n, err := conn.NetworkInspect(ctx, name, network.InspectOptions{})
		if errdefs.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if l := n.Labels[labelRestore]; l == "" || op != "" && l != op || len(n.Containers) > 0 {
			return nil
		}
		err = conn.NetworkRemove(ctx, n.ID)
		if errdefs.IsNotFound(err) {
			return nil
		}
		return err
	})
}
