package docker

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/dentropy/dentropycloud/backup"
)

// place moves what was written into its place.
func (r *restore) place(ctx context.Context) error { return r.c.placePaths(ctx) }

func (c *changeover) placePaths(ctx context.Context) error {
	for i := range c.rec.Paths {
		m := &c.rec.Paths[i]
		c.opts.Report(backup.Progress{Phase: "swap", Text: m.Path})
		if err := c.hostAll(ctx, m.Base, m.steps()); err != nil {
			return fmt.Errorf("move %s into its place: %w", m.Path, err)
		}
	}
	return nil
}

// steps move what was written into its place.
func (m *pathMove) steps() []hostStep {
	var do []hostStep
	if len(m.Parents) > 0 {
		do = append(do, hostStep{Op: "mkdir", A: m.Parents[0]})
	}
	switch {
	case m.Merge:
		replaced := false
		for _, s := range m.Steps {
			op := "rename"
			if s.There {
				op, replaced = "exchange", true
			}
			do = append(do, hostStep{Op: op, A: path.Join(m.Stage, s.Path), B: path.Join(m.Rel, s.Path)})
		}
		if !replaced {
			m.Keep = ""
		}
	case m.Inside, m.Stay:
		// The folder that it lies in may have come with an empty one.
		do = append(do, hostStep{Op: "mkdir", A: path.Dir(m.Rel)}, hostStep{Op: "rmdir", A: m.Rel}, hostStep{Op: "rename", A: m.Stage, B: m.Rel})
	case m.OldInode != 0:
		do = append(do, hostStep{Op: "exchange", A: m.Stage, B: m.Rel})
	default:
		// The project's folder may have come with an empty one.
		do = append(do, hostStep{Op: "rmdir", A: m.Rel}, hostStep{Op: "rename", A: m.Stage, B: m.Rel})
	}
	if m.Keep != "" {
		do = append(do, hostStep{Op: "rename", A: m.Stage, B: m.Keep})
	}
	return do
}

// mostSteps bounds the steps of one run of the helper: they are its arguments.
const mostSteps = 200

// hostAll runs any number of steps.
func (c *changeover) hostAll(ctx context.Context, base string, do []hostStep) error {
	for part := range slices.Chunk(do, mostSteps) {
		if _, err := c.host(ctx, base, true, part...); err != nil {
			return err
		}
	}
	return nil
}

// host runs steps below a folder of the host.
func (c *changeover) host(ctx context.Context, base string, write bool, do ...hostStep) (hostResult, error) {
	if c.hosts != nil {
		return c.hosts(base, do)
	}
	return c.p.host(ctx, c.op, base, write, do...)
}

// pathsBack takes moves back, as far as they were done.
func (c *changeover) pathsBack(ctx context.Context) error {
	for _, m := range slices.Backward(c.rec.Paths) {
		if m.StageInode == 0 {
			continue // nothing was moved
		}
		if m.Stay {
			if yes, err := c.broughtBack(ctx, &m); err != nil {
				return err
			} else if !yes {
				continue
			}
		}
		do := []hostStep{{Op: "stat", A: m.Rel}, {Op: "stat", A: m.Stage}}
		if m.Keep != "" {
			do = append(do, hostStep{Op: "stat", A: m.Keep})
		}
		for _, s := range m.Steps {
			do = append(do, hostStep{Op: "stat", A: path.Join(m.Rel, s.Path)})
		}
		var stats []hostStat
		for part := range slices.Chunk(do, mostSteps) {
			result, err := c.host(ctx, m.Base, false, part...)
			if err != nil {
				return fmt.Errorf("look at %s: %w", m.Path, err)
			}
			stats = append(stats, result.Stats...)
		}
		if len(stats) != len(do) {
			return errors.New("the helper does not say what it found")
		}
		if err := c.hostAll(ctx, m.Base, m.back(stats)); err != nil {
			return fmt.Errorf("move %s back: %w", m.Path, err)
		}
	}
	return nil
}

// back gives the steps that take a move back. stats are of the place, the stage, what is
// kept if anything is, and the entries that were merged.
func (m *pathMove) back(stats []hostStat) []hostStep {
	rel, stage, rest := stats[0], stats[1], stats[2:]
	var do []hostStep
	if m.Stay {
		if rel.Exists && !stage.Exists {
			do = append(do, hostStep{Op: "mkdir", A: path.Dir(m.Stage)}, hostStep{Op: "rename", A: m.Rel, B: m.Stage})
		}
		return do
	}
	if m.Keep != "" {
		if rest[0].Exists && !stage.Exists {
			do = append(do, hostStep{Op: "rename", A: m.Keep, B: m.Stage})
		}
		rest = rest[1:]
	}
	switch {
	case m.Merge:
		for i, s := range m.Steps {
			if rest[i].Inode != s.Inode {
				continue
			}
			op := "rename"
			if s.There {
				op = "exchange"
			}
			do = append(do, hostStep{Op: op, A: path.Join(m.Rel, s.Path), B: path.Join(m.Stage, s.Path)})
		}
	case rel.Inode != m.StageInode:
	case m.Inside:
		do = append(do, hostStep{Op: "rename", A: m.Rel, B: m.Stage})
	case m.OldInode != 0:
		do = append(do, hostStep{Op: "exchange", A: m.Rel, B: m.Stage})
	default:
		do = append(do, hostStep{Op: "rename", A: m.Rel, B: m.Stage})
	}
	for _, p := range m.Parents {
		do = append(do, hostStep{Op: "rmdir", A: p})
	}
	return do
}

// clearStaging removes the folders that data waited in.
func (c *changeover) clearStaging(ctx context.Context) error {
	var errs []error
	seen := map[string]bool{}
	for _, m := range c.rec.Paths {
		stage := path.Dir(m.Stage)
		if seen[m.Base] || stage != ".dentropy-restore-"+c.op {
			continue
		}
		seen[m.Base] = true
		_, err := c.p.host(ctx, c.op, m.Base, true, hostStep{Op: "remove", A: stage})
		if noSuchPath(err) {
			err = nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
