package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/system"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// Undo implements backup.Platform.
func (p *Platform) Undo(ctx context.Context, u *backup.Undo, opts backup.ApplyOptions, j backup.Journal) error {
	d, err := decode[undoDetail](u.Detail)
	if err != nil {
		return fmt.Errorf("read the record of the restore: %w", err)
	}
	if opts.Report == nil {
		opts.Report = func(backup.Progress) {}
	}
	if opts.Resting == nil {
		opts.Resting = func(*backup.Resting) {}
	}
	opts.HealthTimeout = cmp.Or(opts.HealthTimeout, healthTimeout)
	z := &undoing{d: d, c: &changeover{p: p, op: j.Op(), j: j, opts: opts, why: whyUndo}}
	z.c.create = z.create
	defer z.c.leaveGuard(ctx) // as in apply
	if err = z.run(ctx); err == nil {
		return nil
	}
	opts.Report(backup.Progress{Phase: "rollback"})
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	if rerr := z.c.rollBack(back); rerr != nil {
		return errors.Join(err, rerr)
	}
	return asBefore(err)
}

// undoing is an undo at work: a changeover from the restored set to the old one.
type undoing struct {
	d undoDetail
	c *changeover
	// app and plan make create bodies of the old settings.
	app *backup.App
	det *detail
}

func (z *undoing) run(ctx context.Context) error {
	c := z.c
	if err := z.prepare(ctx); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{c.setAside, c.exchangeBack, z.movePaths, c.make} {
		if err := step(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if err := c.start(ctx, true); err != nil {
		return err
	}
	if err := c.append(backup.StepUndone, nil); err != nil {
		return err
	}
	c.committed = true
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	if err := c.finish(end); err != nil {
		c.warn("some of what was restored is still there, stopped: %v", err)
	}
	c.opts.Resting(nil)
	if err := z.dropOverride(end); err != nil {
		c.warn("the file %s that the restore has written is still there: %v", overrideFile, err)
	}
	z.tell()
	return nil
}

// tell says where the restored data is.
func (z *undoing) tell() {
	aside, left := z.d.leftovers()
	if len(aside) > 0 {
		z.c.warn("the restored data is kept, in case something was written since: %s; remove it when you do not need it", strings.Join(aside, ", "))
	}
	if len(left) > 0 {
		z.c.warn("what the restore had brought is left as it is: %s", strings.Join(left, ", "))
	}
}

// leftovers are what an undo leaves of a restore. aside has a name of its own, and is in
// nobody's way; left may be in use by now, or be a folder that was there before.
func (d *undoDetail) leftovers() (aside, left []string) {
	for _, s := range d.Swaps {
		aside = append(aside, "the volume "+s.Keep)
	}
	for _, v := range d.Volumes {
		if !slices.ContainsFunc(d.Swaps, func(s swapped) bool { return s.Keep == v }) {
			left = append(left, "the volume "+v)
		}
	}
	for i := range d.Paths {
		m := &d.Paths[i]
		if m.Stay {
			continue // it has nothing of the restore's
		}
		if m.Keep != "" {
			aside = append(aside, path.Join(m.Base, m.Keep))
		}
		added := slices.ContainsFunc(m.Steps, func(s mergeStep) bool { return !s.There && s.Path != overrideFile })
		inAnother := slices.ContainsFunc(d.Paths, func(o pathMove) bool {
			return o.Path != m.Path && within(o.Path, m.Path) && (o.Keep == "" && !o.Merge || m.Inside)
		})
		switch {
		case m.Merge && added:
			left = append(left, "the files added to "+m.Path)
		case !m.Merge && m.Keep == "" && !inAnother:
			left = append(left, m.Path)
		}
	}
	return aside, left
}

// dropOverride removes the adapted compose file where the restore has added it to a folder
// that was there: it names what is no more.
func (z *undoing) dropOverride(ctx context.Context) error {
	for _, m := range z.d.Paths {
		for _, s := range m.Steps {
			if s.There || s.Path != overrideFile {
				continue
			}
			at := path.Join(m.Rel, s.Path)
			result, err := z.c.p.host(ctx, z.c.op, m.Base, false, hostStep{Op: "stat", A: at})
			if err != nil {
				return err
			}
			if len(result.Stats) != 1 || result.Stats[0].Inode != s.Inode {
				continue // it is gone, or somebody's by now
			}
			if _, err := z.c.p.host(ctx, z.c.op, m.Base, true, hostStep{Op: "remove", A: at}); err != nil {
				return err
			}
		}
	}
	return nil
}

// prepare looks whether all is there that the old set needs, and takes down what will be
// changed.
func (z *undoing) prepare(ctx context.Context) error {
	c := z.c
	c.opts.Report(backup.Progress{Phase: "prepare"})
	if _, err := c.p.EnsureHelper(ctx); err != nil {
		return err
	}
	err := c.p.call(ctx, "ask what it is", func(ctx context.Context, conn *dockerengine.Conn) error {
		var info system.Info
		info, err := conn.Info(ctx)
		c.rec.VolumeRoot, c.api = path.Join(info.DockerRootDir, "volumes"), conn.ClientVersion()
		return err
	})
	if err != nil {
		return err
	}
	c.rec.App = z.d.App
	if err := z.current(ctx); err != nil {
		return err
	}
	z.app, z.det = &backup.App{Format: Format}, &detail{}
	for i := range z.d.Old {
		o := &z.d.Old[i]
		if err := z.needs(ctx, o); err != nil {
			return err
		}
		z.app.Containers = append(z.app.Containers, o.Container)
		z.det.Containers = append(z.det.Containers, containerPlan{Was: o.Container.Name, Name: o.Container.Name, Image: o.Image, Start: o.Ran})
		for _, m := range o.Container.Mounts {
			if z.det.volume(m.Volume) == nil {
				z.det.Volumes = append(z.det.Volumes, volumePlan{ID: m.Volume, Kind: backup.Named, Was: m.Volume, Name: m.Volume})
			}
		}
		c.rec.New = append(c.rec.New, newOne{
			Temp: o.Container.Name + ".undo-" + c.op, Name: o.Container.Name, Start: o.Ran, Paused: o.Paused, DependsOn: o.Container.DependsOn,
		})
	}
	for _, s := range z.d.Swaps {
		c.rec.Swaps = append(c.rec.Swaps, swapped{Final: s.Final, Keep: s.Keep})
	}
	for i := range z.d.Paths {
		m := &z.d.Paths[i]
		if m.Keep == "" || !m.whole() {
			continue
		}
		if err := errors.Join(c.p.freeOfMounts(ctx, c.op, m.Path), c.p.freeOfMounts(ctx, c.op, path.Join(m.Base, m.Keep))); err != nil {
			return err
		}
	}
	c.rec.Drop = z.d.Networks
	return c.begin()
}

// current finds the restored containers: those of the restore, or those that compose has
// made in their place.
func (z *undoing) current(ctx context.Context) error {
	groups, err := z.c.p.groups(ctx)
	if err != nil {
		return err
	}
	ours := map[string]bool{}
	for _, n := range z.d.New {
		ours[n.ID], ours[n.Name] = true, true
	}
	for _, g := range groups {
		for _, s := range g.members {
			if !ours[s.ID] && !ours[containerName(s)] {
				continue // what was added since stays
			}
			if g.self {
				return &backup.Problem{Message: fmt.Sprintf("this program runs in the app %s by now: it cannot be replaced", g.name), Object: g.name}
			}
			old, err := z.c.p.oldOne(ctx, s.ID)
			if err != nil {
				return err
			}
			if old != nil {
				z.c.rec.Old = append(z.c.rec.Old, *old)
			}
		}
	}
	orderOld(z.c.rec.Old)
	return nil
}

// needs looks whether an old container can be made again.
func (z *undoing) needs(ctx context.Context, o *undoContainer) error {
	id, err := z.c.p.imageID(ctx, o.Image)
	if err != nil {
		return err
	}
	switch {
	case id == "" && o.Image != o.Container.ImageID, id != o.Container.ImageID && !strings.HasPrefix(o.Image, undoRepo+":"):
		o.Image = o.Container.ImageID // its tag is gone, or another image's
		if id, err = z.c.p.imageID(ctx, o.Image); err != nil {
			return err
		}
	}
	if id == "" {
		return &backup.Problem{Message: fmt.Sprintf("the image of %s is not on the engine any more", o.Container.Name), Hint: "pull or load " + o.Container.Image + " and try again", Object: o.Container.Name}
	}
	for _, m := range o.Container.Mounts {
		err := z.c.p.call(ctx, "inspect volume "+m.Volume, func(ctx context.Context, conn *dockerengine.Conn) error {
			_, err := conn.VolumeInspect(ctx, m.Volume)
			return err
		})
		if errdefs.IsNotFound(err) {
			return &backup.Problem{Message: fmt.Sprintf("the volume %s of %s is not there any more", m.Volume, o.Container.Name), Object: m.Volume}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (z *undoing) create(_ context.Context, i int, ids map[string]string) (*newContainer, error) {
	env := &bodyEnv{app: z.app, d: z.det, api: z.c.api, ids: ids}
	return createBody(&z.app.Containers[i], &z.det.Containers[i], env)
}

// exchangeBack exchanges what the restore has exchanged. What somebody has exchanged back
// already stays so.
func (c *changeover) exchangeBack(ctx context.Context) error { return c.exchange(ctx) }

// movePaths moves paths of the host back.
func (z *undoing) movePaths(ctx context.Context) error {
	c := z.c
	for _, m := range z.d.Paths {
		if m.Keep == "" {
			continue // nothing was there before: what was restored stays
		}
		// The other way round: what was kept waits, and what is there is kept.
		back := pathMove{Path: m.Path, Base: m.Base, Rel: m.Rel, Stage: m.Keep, File: m.File, Merge: m.Merge, Replace: m.Replace}
		do := []hostStep{{Op: "stat", A: back.Stage}, {Op: "stat", A: back.Rel}}
		if m.Merge {
			for _, s := range m.Steps {
				if s.There {
					back.Steps = append(back.Steps, mergeStep{Path: s.Path, There: true})
					do = append(do, hostStep{Op: "stat", A: path.Join(back.Stage, s.Path)})
				}
			}
		}
		var stats []hostStat
		for part := range slices.Chunk(do, mostSteps) {
			result, err := c.host(ctx, m.Base, false, part...)
			if err != nil {
				return fmt.Errorf("look at %s: %w", m.Path, err)
			}
			stats = append(stats, result.Stats...)
		}
		if len(stats) != len(do) || !stats[0].Exists || !stats[1].Exists {
			return &backup.Problem{Message: fmt.Sprintf("what was kept of %s is not there any more", m.Path), Object: m.Path}
		}
		back.StageInode, back.OldInode = stats[0].Inode, stats[1].Inode
		for i := range back.Steps {
			back.Steps[i].Inode = stats[2+i].Inode
		}
		back.Steps = slices.DeleteFunc(back.Steps, func(s mergeStep) bool { return s.Inode == 0 })
		c.rec.Paths = append(c.rec.Paths, back)
	}
	if len(c.rec.Paths) == 0 {
		return nil
	}
	slices.Reverse(c.rec.Paths) // the deepest first
	if err := z.stays(ctx); err != nil {
		return err
	}
	if err := c.append(stepPath, c.rec.Paths); err != nil {
		return err
	}
	return c.placePaths(ctx)
}

// stays brings what has stayed in a folder back into it, once that is exchanged.
func (z *undoing) stays(ctx context.Context) error {
	c := z.c
	for _, m := range z.d.Paths { // folders before those that are in them
		if !m.Stay {
			continue
		}
		i := slices.IndexFunc(c.rec.Paths, func(o pathMove) bool { return !o.Stay && o.Base == m.Base && o.Rel == m.Outer })
		if i < 0 {
			continue // its folder stays as it is
		}
		result, err := c.host(ctx, m.Base, false, hostStep{Op: "stat", A: m.Rel})
		if err != nil {
			return fmt.Errorf("look at %s: %w", m.Path, err)
		}
		if len(result.Stats) == 1 && result.Stats[0].Inode != 0 { // else somebody has removed it
			c.rec.Paths = append(c.rec.Paths, c.rec.Paths[i].stay(m.Rel, m.Path, result.Stats[0].Inode))
		}
	}
	return nil
}

// Forget implements backup.Platform.
func (p *Platform) Forget(ctx context.Context, u *backup.Undo) error {
	d, err := decode[undoDetail](u.Detail)
	if err != nil {
		return fmt.Errorf("read the record of the restore: %w", err)
	}
	var errs []error
	for _, s := range d.Swaps {
		errs = append(errs, p.removeVolume(ctx, s.Keep, d.Op))
	}
	for _, v := range d.Anonymous {
		errs = append(errs, p.call(ctx, "remove volume", func(ctx context.Context, conn *dockerengine.Conn) error {
			err := conn.VolumeRemove(ctx, v, false)
			if errdefs.IsNotFound(err) || errdefs.IsConflict(err) { // gone, or in use again
				return nil
			}
			return err
		}))
	}
	for _, tag := range d.Layers {
		errs = append(errs, p.call(ctx, "remove image", func(ctx context.Context, conn *dockerengine.Conn) error {
			_, err := conn.ImageRemove(ctx, tag, image.RemoveOptions{PruneChildren: true})
			if errdefs.IsNotFound(err) || errdefs.IsConflict(err) {
				return nil
			}
			return err
		}))
	}
	for _, m := range d.Paths {
		if m.Keep == "" {
			continue
		}
		var err error
		if !m.File {
			err = p.freeOfMounts(ctx, d.Op, path.Join(m.Base, m.Keep))
		}
		if err == nil {
			_, err = p.host(ctx, d.Op, m.Base, true, hostStep{Op: "remove", A: m.Keep})
		}
		if noSuchPath(err) {
			err = nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
