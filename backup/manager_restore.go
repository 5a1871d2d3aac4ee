package backup

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The kinds of operations.
const (
	kindBackup  = "backup"
	kindRestore = "restore"
	kindUndo    = "undo"
	// kindEstimate is a backup that is not made.
	kindEstimate = "estimate"
)

// keptUndos is how many restores of one app can be undone: each keeps a whole old set
// of volumes.
const keptUndos = 3

// Plan says what restoring an archive would do. in stands behind its head and is not
// read further.
func (m *Manager) Plan(ctx context.Context, in *Reader, answers Answers) (*Plan, error) {
	cfg := m.config()
	_, plan, err := cfg.plan(ctx, in, answers)
	return plan, err
}

func (c *Config) plan(ctx context.Context, in *Reader, answers Answers) (Platform, *Plan, error) {
	if c.Probe == nil {
		answers.NoProbe = true // no proxy runs here: the plan must not promise it
	}
	app, err := in.App()
	if err != nil {
		return nil, nil, fmt.Errorf("read settings of the app: %w", err)
	}
	p, err := c.platformFor(app, answers.Platform)
	if err != nil {
		return nil, nil, err
	}
	plan, err := p.Plan(ctx, in.Manifest(), app, answers)
	if err != nil {
		return nil, nil, fmt.Errorf("plan the restore: %w", err)
	}
	// lists are never null for whoever reads them as JSON
	plan.Steps, plan.Questions = orEmpty(plan.Steps), orEmpty(plan.Questions)
	plan.Conflicts, plan.Risks = orEmpty(plan.Conflicts), orEmpty(plan.Risks)
	return p, plan, nil
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// Restore restores an archive. It plans again, and refuses where the plan is not ready.
func (m *Manager) Restore(ctx context.Context, job *Job, in *Reader, answers Answers, opts ApplyOptions) (*RestoreResult, error) {
	var res *RestoreResult
	err := m.run(ctx, job, kindRestore, func(op *operation) (any, error) {
		var err error
		if res, err = op.restore(in, answers, opts); err != nil {
			res = nil
			return nil, err
		}
		return res, nil
	})
	return res, err
}

func (op *operation) restore(in *Reader, answers Answers, opts ApplyOptions) (*RestoreResult, error) {
	defer in.Until(op.ctx)() // the stream may stall: whoever cancels does not wait for it
	if opts.Probe != nil {
		op.cfg.Probe = opts.Probe
	}
	op.job.report(Progress{Phase: "plan"})
	p, plan, err := op.cfg.plan(op.ctx, in, answers)
	if err != nil {
		return nil, err
	}
	// the plan says which app it is, and it holds only once nobody else changes that one
	if err := op.take(p.Name(), plan.App); err != nil {
		return nil, err
	}
	target := plan.App
	if p, plan, err = op.cfg.plan(op.ctx, in, answers); err != nil {
		return nil, err
	}
	if plan.App != target {
		return nil, &Problem{Message: "what is there has changed while the restore was planned", Hint: "try again", Object: target}
	}
	if !plan.Ready() {
		return nil, &NotReadyError{Plan: plan}
	}
	if app, err := in.App(); err == nil { // the plan has read it
		op.conceal(app)
	}
	for _, w := range plan.Warnings {
		op.job.report(Progress{Warning: w})
	}
	if err := op.begin(p.Name(), plan.App); err != nil {
		return nil, err
	}
	undo, err := p.Apply(op.ctx, plan, in, op.applyOptions(opts), op.journal)
	if err != nil {
		op.finish(err)
		return nil, fmt.Errorf("restore %s: %w", plan.App, err)
	}
	res := &RestoreResult{App: plan.App, Platform: p.Name(), Plan: plan.Shown()}
	if undo != nil {
		undo.ID = cmp.Or(undo.ID, op.job.ID())
		undo.Platform, undo.App = cmp.Or(undo.Platform, p.Name()), cmp.Or(undo.App, plan.App)
		undo.Archive = cmp.Or(undo.Archive, in.Manifest().ID)
		if undo.Time.IsZero() {
			undo.Time = time.Now().UTC()
		}
	}
	op.keepUndo(res, undo)
	op.forgetOld(p, plan.App)
	op.cfg.Log.Info("app restored", "app", plan.App, "platform", p.Name(), "operation", op.job.ID())
	res.Warnings = op.job.warnings()
	return res, nil
}

func (op *operation) applyOptions(opts ApplyOptions) ApplyOptions {
	opts.HealthTimeout = cmp.Or(opts.HealthTimeout, op.cfg.HealthTimeout)
	opts.TempDir = cmp.Or(opts.TempDir, op.temp)
	opts.Report = op.reporter(opts.Report)
	opts.Resting = op.rest
	opts.Probe = op.cfg.Probe
	return opts
}

// reporter passes progress on to the job, and to who else wants it.
func (op *operation) reporter(also func(Progress)) func(Progress) {
	if also == nil {
		return op.job.report
	}
	return func(p Progress) {
		op.job.report(p)
		also(p)
	}
}

// Undos lists the restores that can be undone, newest first.
func (m *Manager) Undos() ([]Undo, error) {
	cfg := m.config()
	return cfg.undos()
}

// undos reads all records. One that makes no sense is passed over, and is in the error.
func (c *Config) undos() ([]Undo, error) {
	list, err := os.ReadDir(filepath.Join(c.Dir, dirUndo))
	if err != nil {
		return nil, fmt.Errorf("list undo records: %w", err)
	}
	out := []Undo{}
	var errs []error
	for _, e := range list {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !validOp(id) {
			continue
		}
		var u Undo
		b, err := os.ReadFile(c.undoPath(id))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err == nil {
			err = json.Unmarshal(b, &u)
		}
		if err == nil && u.ID != id {
			err = fmt.Errorf("it is about %q", u.ID)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("read undo record %s: %w", id, err))
			continue
		}
		out = append(out, u)
	}
	slices.SortFunc(out, func(a, b Undo) int { return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(b.ID, a.ID)) })
	return out, errors.Join(errs...)
}

func (c *Config) undoPath(id string) string { return filepath.Join(c.Dir, dirUndo, id+".json") }

// saveUndo keeps a record, durably.
func (c *Config) saveUndo(u *Undo) error {
	if !validOp(u.ID) {
		return fmt.Errorf("save undo record: %q is no id", u.ID)
	}
	b, err := json.Marshal(u)
	if err != nil {
		return fmt.Errorf("save undo record: %w", err)
	}
	if err := writeFile(c.undoPath(u.ID), b); err != nil {
		return fmt.Errorf("save undo record: %w", err)
	}
	return nil
}

func (c *Config) removeUndo(id string) error {
	if err := os.Remove(c.undoPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove undo record: %w", err)
	}
	return syncDir(filepath.Join(c.Dir, dirUndo))
}

// forgetOld removes what is kept of older restores of an app than can be undone. What
// cannot be removed now is tried again after the next restore.
func (op *operation) forgetOld(p Platform, app string) {
	undos, err := op.cfg.undos()
	if err != nil {
		op.cfg.Log.Warn("undo records cannot be read", "error", err)
	}
	n := 0
	for i := range undos {
		u := &undos[i]
		if u.Platform != p.Name() || u.App != app {
			continue
		}
		if n++; n <= keptUndos {
			continue
		}
		err := p.Forget(op.ctx, u)
		if err == nil {
			err = op.cfg.removeUndo(u.ID)
		}
		if err != nil {
			op.cfg.Log.Warn("what an old restore kept cannot be removed", "app", app, "undo", u.ID, "error", err)
		}
	}
}

// Undo takes a restore back; id "" is the newest (of app, where that is not "").
func (m *Manager) Undo(ctx context.Context, job *Job, id, app string) error {
	return m.run(ctx, job, kindUndo, func(op *operation) (any, error) { return nil, op.undo(id, app) })
}

// FindUndo gives the record that Undo would work off.
func (m *Manager) FindUndo(id, app string) (*Undo, error) {
	cfg := m.config()
	return cfg.findUndo(id, app)
}

func (c *Config) findUndo(id, app string) (*Undo, error) {
	undos, err := c.undos()
	for i := range undos {
		if u := &undos[i]; (id == "" || u.ID == id) && (app == "" || u.App == app) {
			return u, nil
		}
	}
	if err != nil {
		return nil, err
	}
	what := "there is no restore to undo"
	if id != "" {
		what += " with the id " + id
	}
	if app != "" {
		what += " of " + app
	}
	return nil, &Problem{Message: what, Hint: "it has been undone already, or more restores have followed than are kept", Object: cmp.Or(id, app), Err: fs.ErrNotExist}
}

func (op *operation) undo(id, app string) error {
	u, err := op.cfg.findUndo(id, app)
	if err != nil {
		return err
	}
	p, err := op.cfg.platform(u.Platform)
	if err != nil {
		return err
	}
	if err := op.take(u.Platform, u.App); err != nil {
		return err
	}
	if u, err = op.cfg.findUndo(u.ID, u.App); err != nil {
		return err // another one was quicker
	}
	if err := op.begin(u.Platform, u.App); err != nil {
		return err
	}
	if err = op.journal.Append(stepUndoes, u.ID); err == nil {
		err = p.Undo(op.ctx, u, op.applyOptions(ApplyOptions{}), op.journal)
	}
	if err != nil {
		op.finish(err)
		return fmt.Errorf("undo the restore of %s: %w", u.App, err)
	}
	if err := op.journal.Append(stepEnd, nil); err != nil {
		op.cfg.Log.Warn("end of undo is not in the journal", "operation", op.job.ID(), "error", err)
	}
	if err := op.cfg.removeUndo(u.ID); err != nil {
		op.job.report(Progress{Warning: err.Error()})
	}
	op.finish(nil)
	op.cfg.Log.Info("restore undone", "app", u.App, "platform", u.Platform, "undo", u.ID)
	return nil
}
