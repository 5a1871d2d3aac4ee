package backuptest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dentropy/dentropycloud/backup"
)

// Plan says what a restore would do. An app of the same name is a conflict.
func (p *Platform) Plan(ctx context.Context, _ *backup.Manifest, app *backup.App, answers backup.Answers) (*backup.Plan, error) {
	if err := p.step(ctx, "plan"); err != nil {
		return nil, err
	}
	plan := &backup.Plan{
		Platform: p.name, App: cmp.Or(answers.Name, app.Name), Answers: answers,
		Steps: []string{"fill volumes", "swap", "start"}, Questions: []backup.Question{}, Conflicts: []backup.Conflict{}, Risks: []backup.Risk{},
	}
	_, err := p.engine.App(plan.App)
	if err == nil {
		plan.Conflicts = append(plan.Conflicts, backup.Conflict{
			Kind: "container", Name: plan.App, Text: "there is an app " + plan.App, Hint: "use --on-conflict replace",
			Choices: []string{"--on-conflict replace"}, Resolved: answers.OnConflict == "replace",
		})
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return plan, nil
}

// set is an app with its volumes, as an undo keeps it.
type set struct {
	Had     bool
	App     App
	Volumes map[string]Files
}

// Apply restores an app.
func (p *Platform) Apply(ctx context.Context, plan *backup.Plan, in *backup.Reader, opts backup.ApplyOptions, j backup.Journal) (*backup.Undo, error) {
	app, err := in.App()
	if err != nil {
		return nil, err
	}
	if err := p.append(ctx, j, "fill", nil); err != nil {
		return nil, err
	}
	volumes, err := p.fill(ctx, in, j.Op())
	if err != nil {
		return nil, errors.Join(err, p.clear(j.Op()))
	}
	next := App{Name: plan.App}
	for _, c := range app.Containers {
		n := Container{Name: c.Name, Running: c.State == backup.Running}
		for _, m := range c.Mounts {
			n.Volumes = append(n.Volumes, m.Volume)
		}
		next.Containers = append(next.Containers, n)
	}
	old, err := p.keep(plan.App)
	if err != nil {
		return nil, errors.Join(err, p.clear(j.Op()))
	}
	detail, err := json.Marshal(old)
	if err != nil {
		return nil, err
	}
	undo := &backup.Undo{ID: j.Op(), Platform: p.name, App: plan.App, Time: time.Now().UTC(), Summary: "the app as it was", Detail: detail}
	if opts.Resting != nil {
		opts.Resting(&backup.Resting{Platform: p.name, App: plan.App, Why: "restore", Back: time.Now()})
		defer opts.Resting(nil)
	}
	swap := func() error {
		if err := p.append(ctx, j, "swap", old); err != nil {
			return err
		}
		if err := p.step(ctx, "swap"); err != nil {
			return err
		}
		if err := p.put(plan.App, set{Had: true, App: next, Volumes: volumes}, j.Op()); err != nil {
			return err
		}
		if opts.Probe != nil && len(plan.Hosts) > 0 {
			if err := opts.Probe(ctx, plan.Hosts[0]); err != nil {
				return err
			}
		}
		return p.append(ctx, j, backup.StepUndo, undo)
	}
	if err := swap(); err != nil {
		return nil, errors.Join(err, p.put(plan.App, old, j.Op()))
	}
	return undo, nil
}

// fill reads all volumes of an archive, all of which it must be.
func (p *Platform) fill(ctx context.Context, in *backup.Reader, op string) (map[string]Files, error) {
	raw := map[string]*bytes.Buffer{}
	for {
		m, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if m.Kind != backup.MemberSegment {
			continue
		}
		if raw[m.Volume] == nil {
			if err := p.step(ctx, "fill:"+m.Volume); err != nil {
				return nil, err
			}
			raw[m.Volume] = new(bytes.Buffer)
		}
		if _, err := io.Copy(raw[m.Volume], in); err != nil {
			return nil, err
		}
	}
	if err := p.step(ctx, "finish"); err != nil {
		return nil, err
	}
	if err := in.Finish(ctx); err != nil {
		return nil, err
	}
	out := map[string]Files{}
	for v, b := range raw {
		files, err := unpack(b.Bytes())
		if err != nil {
			return nil, err
		}
		out[v] = files
	}
	return out, p.engine.change(func(w *world) error { w.Transit[op] = out; return nil })
}

// keep gives an app as it is, for an undo.
func (p *Platform) keep(name string) (set, error) {
	old := set{Volumes: map[string]Files{}}
	err := p.engine.change(func(w *world) error {
		old.App, old.Had = w.Apps[name]
		for _, c := range old.App.Containers {
			for _, v := range c.Volumes {
				old.Volumes[v] = w.Volumes[v]
			}
		}
		return nil
	})
	return old, err
}

// put makes name what s says, in one step, and clears what op has in transit.
func (p *Platform) put(name string, s set, op string) error {
	return p.engine.change(func(w *world) error {
		for _, c := range w.Apps[name].Containers {
			for _, v := range c.Volumes {
				delete(w.Volumes, v)
			}
		}
		delete(w.Apps, name)
		delete(w.Transit, op)
		if s.Had {
			w.Apps[name] = s.App
			maps.Copy(w.Volumes, s.Volumes)
		}
		return nil
	})
}

// Undo brings the old set back.
func (p *Platform) Undo(ctx context.Context, u *backup.Undo, _ backup.ApplyOptions, j backup.Journal) error {
	if err := p.step(ctx, "undo"); err != nil {
		return err
	}
	var old set
	if err := json.Unmarshal(u.Detail, &old); err != nil {
		return fmt.Errorf("read undo: %w", err)
	}
	if err := p.append(ctx, j, "undo-swap", old); err != nil {
		return err
	}
	return p.put(u.App, old, j.Op())
}

// Forget has nothing to remove: an undo's record holds all.
func (p *Platform) Forget(ctx context.Context, _ *backup.Undo) error { return p.step(ctx, "forget") }

// Recover starts what a backup stopped, and takes an unfinished restore back.
func (p *Platform) Recover(ctx context.Context, op backup.Operation, entries []backup.Entry, _ func(backup.Progress)) error {
	if err := p.step(ctx, "recover"); err != nil {
		return err
	}
	finished := slices.ContainsFunc(entries, func(e backup.Entry) bool { return e.Step == backup.StepUndo })
	for _, e := range entries {
		switch {
		case e.Step == "stop":
			var todo stopped
			if err := json.Unmarshal(e.Data, &todo); err != nil {
				return err
			}
			if err := p.start(ctx, todo); err != nil {
				return err
			}
		case e.Step == "swap" && !finished, strings.HasPrefix(e.Step, "undo-swap"):
			var old set
			if err := json.Unmarshal(e.Data, &old); err != nil {
				return err
			}
			if err := p.put(op.App, old, op.ID); err != nil {
				return err
			}
		}
	}
	return p.clear(op.ID)
}
