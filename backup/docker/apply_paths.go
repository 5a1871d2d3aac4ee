package docker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/dentropy/dentropycloud/backup"
)

// pathMove is a path of the host that gets new content. It is written beside, and moved
// into its place when all is there. Everything is relative to Base, a folder that is
// there, and no symbolic link is followed below it.
type pathMove struct {
	Path string `json:"path"`
	Base string `json:"base"`
	Rel  string `json:"rel"`
	// Stage is where the new content waits, Keep where the old one goes; "" leaves it in
	// Stage.
	Stage string `json:"stage"`
	Keep  string `json:"keep,omitempty"`
	File  bool   `json:"file,omitempty"`
	// Merge says that the folder is there and stays: only the entries of Steps move. Replace
	// takes the place of entries that are there.
	Merge   bool        `json:"merge,omitempty"`
	Replace bool        `json:"replace,omitempty"`
	Steps   []mergeStep `json:"steps,omitempty"`
	// The inodes of the two before anything is moved; 0 for what is not there.
	StageInode uint64 `json:"stage_inode,omitempty"`
	OldInode   uint64 `json:"old_inode,omitempty"`
	// Parents are folders that are made for it, the deepest first.
	Parents []string `json:"parents,omitempty"`
	// Inside says that it lies in a folder that is exchanged before: what was there has gone
	// with that.
	Inside bool `json:"inside,omitempty"`
	// Stay says that it was there before and stays: it comes back out of the folder Outer,
	// which is exchanged before.
	Stay  bool   `json:"stay,omitempty"`
	Outer string `json:"outer,omitempty"`

	mounts []string // where other file systems are mounted in it
}

type mergeStep struct {
	Path  string `json:"path"`
	There bool   `json:"there,omitempty"`
	Inode uint64 `json:"inode"`
}

// hostStep and hostResult are those of the helper's task host.
type hostStep struct {
	Op   string `json:"op"`
	A    string `json:"a"`
	B    string `json:"b,omitempty"`
	Text string `json:"text,omitempty"`
}

type hostStat struct {
	Exists bool   `json:"exists"`
	Dir    bool   `json:"dir"`
	Empty  bool   `json:"empty"`
	Link   bool   `json:"link"`
	Inode  uint64 `json:"inode"`
	Dev    uint64 `json:"dev"`
}

type hostResult struct {
	Stats  []hostStat  `json:"stats"`
	Merge  []mergeStep `json:"merge"`
	Mounts []string    `json:"mounts"`
}

// hostCaps look at and move whatever the owners are.
var hostCaps = []string{"DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER"}

// host runs steps below a folder of the host.
func (p *Platform) host(ctx context.Context, op, base string, write bool, do ...hostStep) (hostResult, error) {
	var result hostResult
	err := p.helperResult(ctx, helperTask{
		op: op, name: "host", caps: hostCaps,
		input:  map[string]any{"root": volumeRoot + "host", "do": do},
		mounts: []helperMount{{target: volumeRoot + "host", bind: base, write: write}},
	}, &result)
	return result, err
}

// noSuchPath reports whether a helper could not be made since a path of the host is not
// there.
func noSuchPath(err error) bool {
	return err != nil && strings.Contains(err.Error(), "on the engine's host")
}

// lookAt gives what is known of a path of the host, and the deepest folder above it that
// is there. top is the highest folder below which the archive may have made links; such
// are not followed.
func (p *Platform) lookAt(ctx context.Context, op, at, top string) (base string, st hostStat, err error) {
	base = path.Dir(at)
	if top != "" && within(top, at) {
		base = path.Dir(top)
	}
	for {
		rel := strings.TrimPrefix(strings.TrimPrefix(at, base), "/")
		result, err := p.host(ctx, op, base, false, hostStep{Op: "stat", A: rel})
		switch {
		case err == nil && len(result.Stats) == 1:
			return base, result.Stats[0], nil
		case noSuchPath(err) && base != "/":
			base = path.Dir(base)
		case err == nil:
			return base, st, errors.New("the helper does not say what it found")
		default:
			return base, st, fmt.Errorf("look at %s on the engine's host: %w", at, err)
		}
	}
}

// planPaths finds out how each path of the host gets its content.
func (r *restore) planPaths(ctx context.Context) error {
	var fill []*volumePlan
	for i := range r.d.Volumes {
		if v := &r.d.Volumes[i]; v.Fill && v.Kind != backup.Named {
			fill = append(fill, v)
		}
	}
	// Folders before those that are in them.
	slices.SortFunc(fill, func(a, b *volumePlan) int {
		return cmp.Or(cmp.Compare(strings.Count(a.Name, "/"), strings.Count(b.Name, "/")), cmp.Compare(a.Name, b.Name))
	})
	for _, v := range fill {
		m, err := r.planPath(ctx, v)
		if err != nil {
			return err
		}
		if !m.Inside {
			if err := r.checkMounts(ctx, v, m); err != nil {
				return err
			}
		}
		r.c.rec.Paths = append(r.c.rec.Paths, *m)
		if m.whole() {
			stays, err := r.stays(ctx, m)
			if err != nil {
				return err
			}
			r.c.rec.Paths = append(r.c.rec.Paths, stays...)
		}
		sortMoves(r.c.rec.Paths)
	}
	return nil
}

// planPath finds out how a path of the host gets its content. The folders that it lies in
// are planned already.
func (r *restore) planPath(ctx context.Context, v *volumePlan) (*pathMove, error) {
	var base string
	var st hostStat
	var err error
	outer, inside := r.c.rec.around(v.Name)
	if outer != nil {
		// Beside the outermost: what is in it moves.
		base = outer.Base
		var result hostResult
		result, err = r.p.host(ctx, r.c.op, base, false, hostStep{Op: "stat", A: outer.Rel + strings.TrimPrefix(v.Name, outer.Path)})
		if err == nil && len(result.Stats) != 1 {
			err = errors.New("the helper does not say what it found")
		}
		if err == nil {
			st = result.Stats[0]
		}
	} else {
		base, st, err = r.p.lookAt(ctx, r.c.op, v.Name, r.d.Dir)
	}
	if err != nil {
		return nil, err
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(v.Name, base), "/")
	stage := ".dentropy-restore-" + r.c.op
	m := &pathMove{Path: v.Name, Base: base, Rel: rel, Stage: stage + "/" + v.ID, File: v.Kind == backup.BindFile, OldInode: st.Inode, Inside: inside}
	full := st.Exists && (!st.Dir || !st.Empty)
	problem := func(text, hint string) error {
		return &backup.Problem{Message: v.Name + " " + text, Hint: hint, Object: v.Name}
	}
	switch {
	case rel == "":
		return nil, problem("cannot be replaced as a whole", "name a folder below it")
	case st.Link:
		return nil, problem("is a symbolic link, or below one", "name the folder that it leads to: --volume "+v.ID+"=path:PATH")
	case st.Exists && st.Dir == m.File:
		return nil, problem("is of another kind by now: a file is no folder", "plan again")
	case full && v.Kind == backup.ProjectTree:
		m.Merge, m.Replace = true, v.Swap
	case full && !v.Swap:
		return nil, problem("is there by now", "plan again")
	}
	if inside {
		return m, nil // its old content is kept with that of the folder that it lies in
	}
	if full && v.Swap {
		m.Keep = rel + ".pre-restore-" + r.c.op
	}
	for dir := path.Dir(rel); dir != "." && !st.Exists; dir = path.Dir(dir) {
		m.Parents = append(m.Parents, dir)
	}
	return m, nil
}

// stagePaths makes what data is written into.
func (r *restore) stagePaths(ctx context.Context) error {
	for _, m := range r.c.rec.Paths {
		if m.Stay {
			continue
		}
		op := "mkdir"
		if m.File {
			op = "touch"
		}
		if _, err := r.p.host(ctx, r.c.op, m.Base, true, hostStep{Op: "mkdir", A: path.Dir(m.Stage)}, hostStep{Op: op, A: m.Stage}); err != nil {
			return fmt.Errorf("make a folder beside %s: %w", m.Path, err)
		}
	}
	return nil
}

// mergePlan notes what will be moved. The data is there and verified by now.
func (r *restore) mergePlan(ctx context.Context) error {
	if err := r.writeOverride(ctx); err != nil {
		return err
	}
	if err := r.checkLinks(ctx); err != nil {
		return err
	}
	if len(r.c.rec.Paths) == 0 {
		return nil
	}
	for i := range r.c.rec.Paths {
		m := &r.c.rec.Paths[i]
		if m.Stay || m.whole() {
			if err := r.sameLive(ctx, m); err != nil {
				return err
			}
		}
		if m.Stay {
			continue
		}
		do := []hostStep{{Op: "stat", A: m.Stage}, {Op: "stat", A: m.Rel}}
		if m.Merge {
			do = append(do, hostStep{Op: "merge", A: m.Stage, B: m.Rel})
		}
		result, err := r.p.host(ctx, r.c.op, m.Base, false, do...)
		if err != nil {
			return fmt.Errorf("look at %s: %w", m.Path, err)
		}
		if len(result.Stats) != 2 || result.Stats[0].Inode == 0 || result.Stats[1].Inode != m.OldInode {
			return changedMeanwhile(m.Path)
		}
		m.StageInode, m.Steps = result.Stats[0].Inode, result.Merge
		for _, s := range m.Steps {
			if i := slices.IndexFunc(m.mounts, func(at string) bool { return s.There && within(s.Path, at) }); i >= 0 && m.Replace {
				return &backup.Problem{
					Message: fmt.Sprintf("another file system is mounted at %s: it would be taken away with %s, which is to be replaced", path.Join(m.Path, m.mounts[i]), s.Path),
					Hint:    "unmount it, or move what is there out of the way", Object: m.Path,
				}
			}
		}
		if m.Merge && !m.Replace {
			m.Steps = slices.DeleteFunc(m.Steps, func(s mergeStep) bool {
				if s.There {
					r.warn("%s/%s is there already, with other content, and stays as it is", m.Path, s.Path)
				}
				return s.There
			})
		}
	}
	return r.c.append(stepPath, r.c.rec.Paths)
}

// checkLinks sees that no symbolic link of the archive leads a mount out of the project's
// folder: what is below that is taken to be the app's.
func (r *restore) checkLinks(ctx context.Context) error {
	project := r.c.rec.path(r.d.Dir)
	if project.Path == "" || slices.Contains(r.plan.Answers.Allow, riskPath) || slices.Contains(r.plan.Answers.Allow, acceptAll) {
		return nil
	}
	var names []string
	var do []hostStep
	for i := range r.d.Volumes {
		v := &r.d.Volumes[i]
		device := v.Name
		if v.Kind == backup.Named {
			device = path.Clean(r.app.Volumes[i].Options["device"])
		}
		rel := strings.TrimPrefix(device, r.d.Dir+"/")
		if v.Kind == backup.ProjectTree || !strings.HasPrefix(device, r.d.Dir+"/") {
			continue
		}
		names = append(names, device, device)
		do = append(do, hostStep{Op: "stat", A: path.Join(project.Stage, rel)}, hostStep{Op: "stat", A: path.Join(project.Rel, rel)})
	}
	if len(do) == 0 {
		return nil
	}
	result, err := r.p.host(ctx, r.c.op, project.Base, false, do...)
	if err != nil {
		return fmt.Errorf("look at the project's folder: %w", err)
	}
	for i, st := range result.Stats {
		if st.Link {
			return &backup.Problem{
				Message: fmt.Sprintf("%s is a symbolic link, or below one: a container would see what it leads to", names[i]),
				Hint:    "accept it with --allow " + riskPath, Object: names[i],
			}
		}
	}
	return nil
}

// writeOverride puts the adapted compose file into the project's folder, before that is
// in its place.
func (r *restore) writeOverride(ctx context.Context) error {
	project := r.c.rec.path(r.d.Dir)
	if !r.d.Override || project.Path == "" {
		return nil
	}
	text, err := r.composeOverride()
	if err != nil {
		return err
	}
	at := path.Join(project.Stage, overrideFile)
	if _, err := r.p.host(ctx, r.c.op, project.Base, true, hostStep{Op: "remove", A: at}, hostStep{Op: "put", A: at, Text: text}); err != nil {
		return fmt.Errorf("write %s: %w", overrideFile, err)
	}
	return nil
}

// decode reads the data of a journal's entry.
func decode[T any](raw json.RawMessage) (T, error) {
	var v T
	err := json.Unmarshal(raw, &v)
	return v, err
}
