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
	"github.com/docker/docker/api/types/volume"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// Folders that lie in each other. A folder is exchanged as a whole, so whatever lies in it
// goes aside with it:
//
//	what the archive has, too     is not exchanged, but moved into the new folder: its old
//	(inside)                      content is kept where it was, in the old folder
//	what the archive has not      is live data that is to stay: it is moved back from the
//	(stay)                        old folder into the new one
//	another file system that      cannot be moved: nothing is changed
//	is mounted there
//
// All of these are moves like the others, in one list, folders before those that are in
// them. They are taken back in the opposite order, each only where it was done, so that it
// does not matter where it was cut off.

// before orders moves: folders before those that are in them.
func (m *pathMove) before(o *pathMove) int {
	stay := func(m *pathMove) int {
		if m.Stay {
			return 0
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(strings.Count(m.Path, "/"), strings.Count(o.Path, "/")), cmp.Compare(m.Path, o.Path), cmp.Compare(stay(m), stay(o)),
	)
}

func sortMoves(list []pathMove) {
	slices.SortFunc(list, func(a, b pathMove) int { return a.before(&b) })
}

// whole reports whether a move exchanges a folder as a whole.
func (m *pathMove) whole() bool {
	return !m.File && !m.Merge && !m.Inside && !m.Stay && m.OldInode != 0
}

// around gives the folder that is exchanged, and with it what is at a path; nil where none
// is. inside says that the path is not moved back.
func (c *changeRecord) around(at string) (outer *pathMove, inside bool) {
	for i := range c.Paths { // folders before those that are in them
		m := &c.Paths[i]
		switch {
		case !within(m.Path, at) || m.Path == at && !m.Stay:
		case m.Stay:
			inside = false
		case m.whole():
			outer, inside = m, true
		}
	}
	return outer, inside
}

// outerOf gives the move that a stay belongs to.
func (c *changeRecord) outerOf(s *pathMove) *pathMove {
	for i := range c.Paths {
		if m := &c.Paths[i]; m.whole() && m.Base == s.Base && m.Rel == s.Outer {
			return m
		}
	}
	return nil
}

// stays finds what lies in a folder that is to be exchanged, and is not the archive's.
func (r *restore) stays(ctx context.Context, outer *pathMove) ([]pathMove, error) {
	var at []string
	for i := range r.d.Volumes {
		paths, err := r.livePaths(ctx, i)
		if err != nil {
			return nil, err
		}
		for _, p := range paths {
			if p != outer.Path && within(outer.Path, p) {
				at = append(at, p)
			}
		}
	}
	slices.Sort(at)
	var out []pathMove
	for _, p := range slices.Compact(at) {
		if slices.ContainsFunc(out, func(m pathMove) bool { return within(m.Path, p) }) {
			continue // it moves with that one
		}
		rel := outer.Rel + strings.TrimPrefix(p, outer.Path)
		result, err := r.p.host(ctx, r.c.op, outer.Base, false, hostStep{Op: "stat", A: rel})
		if err != nil {
			return nil, fmt.Errorf("look at %s: %w", p, err)
		}
		if len(result.Stats) == 1 && result.Stats[0].Inode != 0 {
			out = append(out, outer.stay(rel, p, result.Stats[0].Inode))
		}
	}
	return out, nil
}

// stay is the move that brings something back into a folder that was exchanged.
func (m *pathMove) stay(rel, at string, inode uint64) pathMove {
	return pathMove{
		Path: at, Base: m.Base, Rel: rel, Stay: true, Outer: m.Rel, StageInode: inode,
		Stage: cmp.Or(m.Keep, m.Stage) + strings.TrimPrefix(rel, m.Rel),
	}
}

// livePaths are where a volume lies on the host whose data is not the archive's. A
// project's folder that is there is merged, and so it stays as well.
func (r *restore) livePaths(ctx context.Context, i int) ([]string, error) {
	v, was := &r.d.Volumes[i], &r.app.Volumes[i]
	switch {
	case v.Kind == backup.ProjectTree && v.Fill:
		return []string{v.Name}, nil
	case v.Kind == backup.ProjectTree, v.Kind == backup.Tmpfs:
		return nil, nil
	case v.Kind != backup.Named && v.Fill:
		return nil, nil
	case v.Kind != backup.Named:
		out := []string{v.Name}
		if was.Kind == v.Kind {
			out = append(out, moved(r.d, was.Name)) // another is used in its place
		}
		return out, nil
	}
	out := []string{hostPath(was)}
	err := r.p.call(ctx, "inspect volume "+v.Name, func(ctx context.Context, c *dockerengine.Conn) error {
		var have volume.Volume
		have, err := c.VolumeInspect(ctx, v.Name)
		if errdefs.IsNotFound(err) {
			return nil // it is not made yet
		}
		out = append(out, hostPath(&backup.Volume{Kind: backup.Named, Driver: have.Driver, Options: have.Options}))
		return err
	})
	return slices.DeleteFunc(out, func(p string) bool { return p == "" }), err
}

// mountsIn looks at a folder of the host as it is, with what is mounted there, and tells
// which folders below it are where something else is mounted. A folder that is not there is
// no error.
func (p *Platform) mountsIn(ctx context.Context, op, at string) (st hostStat, below []string, err error) {
	var result hostResult
	err = p.helperResult(ctx, helperTask{
		op: op, name: "host", caps: hostCaps,
		input:  map[string]any{"root": volumeRoot + "host", "do": []hostStep{{Op: "stat", A: "."}, {Op: "mounts"}}},
		mounts: []helperMount{{target: volumeRoot + "host", bind: at, recursive: true}},
	}, &result)
	switch {
	case noSuchPath(err):
		return st, nil, nil
	case err != nil:
		return st, nil, fmt.Errorf("look for what is mounted in %s: %w", at, err)
	case len(result.Stats) != 1:
		return st, nil, errors.New("the helper does not say what it found")
	}
	return result.Stats[0], result.Mounts, nil
}

// checkMounts sees that a move does not go below another file system, or take one away. A
// helper sees a folder without what is mounted in it.
func (r *restore) checkMounts(ctx context.Context, v *volumePlan, m *pathMove) error {
	hint := "name another folder: --volume " + v.ID + "=path:PATH; or keep what is there: --volume " + v.ID + "=existing"
	if v.Kind == backup.ProjectTree {
		hint = "choose another folder with --project-dir"
	}
	for dir := m.Path; dir != m.Base && dir != "/"; dir = path.Dir(dir) {
		if m.File && dir == m.Path {
			continue
		}
		is, below, err := r.p.mountsIn(ctx, r.c.op, dir)
		if err != nil {
			return err
		}
		if !is.Exists {
			continue // the next one above is
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(dir, m.Base), "/")
		seen, err := r.p.host(ctx, r.c.op, m.Base, false, hostStep{Op: "stat", A: rel})
		if err != nil {
			return fmt.Errorf("look at %s: %w", dir, err)
		}
		switch {
		case len(seen.Stats) != 1:
			return errors.New("the helper does not say what it found")
		case seen.Stats[0].Inode == is.Inode && seen.Stats[0].Dev == is.Dev:
		case dir == m.Path:
			return &backup.Problem{Message: dir + " is where another file system is mounted: it cannot be exchanged as a whole", Hint: hint, Object: m.Path}
		default:
			return &backup.Problem{Message: fmt.Sprintf("another file system is mounted at %s, above %s", dir, m.Path), Hint: hint, Object: m.Path}
		}
		if dir == m.Path && len(below) > 0 {
			if m.whole() {
				return &backup.Problem{
					Message: fmt.Sprintf("another file system is mounted at %s: it would be taken away with %s, which is to be replaced", path.Join(dir, below[0]), m.Path),
					Hint:    "unmount it, or " + hint, Object: m.Path,
				}
			}
			m.mounts = below
		}
		return nil
	}
	return nil
}

// sameLive sees that what lies in folders that are to be exchanged is as it was planned.
func (r *restore) sameLive(ctx context.Context, m *pathMove) error {
	if m.Stay {
		result, err := r.p.host(ctx, r.c.op, m.Base, false, hostStep{Op: "stat", A: m.Rel})
		if err != nil {
			return fmt.Errorf("look at %s: %w", m.Path, err)
		}
		if len(result.Stats) != 1 || result.Stats[0].Inode == 0 {
			return changedMeanwhile(m.Path)
		}
		m.StageInode = result.Stats[0].Inode
		return nil
	}
	_, below, err := r.p.mountsIn(ctx, r.c.op, m.Path)
	if err != nil {
		return err
	}
	stays, err := r.stays(ctx, m)
	if err != nil {
		return err
	}
	known := func(s pathMove) bool {
		return slices.ContainsFunc(r.c.rec.Paths, func(o pathMove) bool { return o.Stay && o.Path == s.Path })
	}
	if i := slices.IndexFunc(stays, func(s pathMove) bool { return !known(s) }); i >= 0 {
		return changedMeanwhile(stays[i].Path)
	}
	if len(below) > 0 {
		return changedMeanwhile(path.Join(m.Path, below[0]))
	}
	return nil
}

func changedMeanwhile(at string) error {
	return &backup.Problem{Message: at + " was changed while the restore was under way", Hint: "try again", Object: at}
}

// freeOfMounts returns an error where something is mounted in a folder that is to be moved
// or removed.
func (p *Platform) freeOfMounts(ctx context.Context, op, at string) error {
	_, below, err := p.mountsIn(ctx, op, at)
	if err == nil && len(below) > 0 {
		err = &backup.Problem{
			Message: fmt.Sprintf("another file system is mounted at %s: it would be taken away with %s", path.Join(at, below[0]), at),
			Hint:    "unmount it, and try again", Object: at,
		}
	}
	return err
}

// broughtBack says whether a stay is where the restore has brought it.
func (c *changeover) broughtBack(ctx context.Context, s *pathMove) (bool, error) {
	outer := c.rec.outerOf(s)
	if outer == nil || outer.StageInode == 0 {
		return false, nil // nothing was moved
	}
	result, err := c.host(ctx, s.Base, false, hostStep{Op: "stat", A: outer.Rel})
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", outer.Path, err)
	}
	return len(result.Stats) == 1 && result.Stats[0].Inode == outer.StageInode, nil
}
