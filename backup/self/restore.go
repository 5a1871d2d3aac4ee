package self

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/frame"
	"github.com/dentropy/dentropycloud/backup/volume"
)

// The steps in a journal.
const (
	stepFill = "self.fill" // a new folder is filled
	stepSwap = "self.swap" // parts are about to be swapped; data is a detail
)

// Plan says what a restore would do. While a dentropy runs on the data it refuses.
func (p *Platform) Plan(_ context.Context, m *backup.Manifest, app *backup.App, answers backup.Answers) (*backup.Plan, error) {
	if app.Format != Format {
		return nil, &backup.Problem{
			Message: fmt.Sprintf("the archive holds the app %s, not the state of dentropy", app.Name),
			Hint:    "choose an engine with --engine", Object: app.Name,
		}
	}
	if answers.Name != "" && answers.Name != AppName {
		return nil, &backup.Problem{Message: "the state of dentropy cannot have another name", Hint: "leave out --name", Object: answers.Name}
	}
	plan := &backup.Plan{
		Platform: Name, App: AppName, Answers: answers, Questions: []backup.Question{}, Conflicts: []backup.Conflict{}, Risks: []backup.Risk{},
		Steps: []string{
			"unpack the state into " + filepath.Join(p.opts.Data, newPrefix+"…") + " and verify it",
			"put it in the place of the state in " + p.opts.Data + ", which is kept for an undo",
		},
	}
	for _, t := range m.Trees {
		plan.Bytes += t.Bytes
	}
	full, err := p.holdsState()
	if err != nil {
		return nil, err
	}
	if full {
		c := backup.Conflict{
			Kind: "path", Name: p.opts.Data, Text: "the data folder " + p.opts.Data + " holds a state already",
			Choices: []string{"--on-conflict replace   what is there is kept for an undo"},
		}
		if c.Resolved = answers.OnConflict == "replace"; c.Resolved {
			c.Resolution = "what is there is kept for an undo"
		}
		plan.Conflicts = append(plan.Conflicts, c)
	}
	release, err := p.lock()
	switch {
	case errors.Is(err, backup.ErrLocked):
		plan.Conflicts = append(plan.Conflicts, backup.Conflict{
			Kind: "path", Name: p.opts.Data, Text: "a dentropy runs on the data folder " + p.opts.Data + p.holder(),
			Hint: "stop it, then run: dentropy restore FILE --data-dir " + p.opts.Data,
		})
	case err != nil:
		return nil, err
	default:
		release()
	}
	return plan, nil
}

// holdsState reports whether there are files in the data folder that a restore puts aside.
func (p *Platform) holdsState() (bool, error) {
	exclude, err := p.exclude()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	found := false
	err = filepath.WalkDir(p.opts.Data, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(p.opts.Data, path)
		if err != nil {
			return err
		}
		switch _, out := exclude[filepath.ToSlash(rel)]; {
		case out && d.IsDir():
			return fs.SkipDir
		case out || d.IsDir():
			return nil
		}
		found = true
		return fs.SkipAll
	})
	if err != nil {
		return false, fmt.Errorf("look through the data folder: %w", err)
	}
	return found, nil
}

// lock makes sure that no dentropy runs on the data.
func (p *Platform) lock() (release func(), err error) {
	if p.opts.Lock == "" {
		return func() {}, nil
	}
	if err := os.MkdirAll(filepath.Dir(p.opts.Lock), 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	return backup.LockFile(p.opts.Lock)
}

// holder reads who wrote the lock.
func (p *Platform) holder() string {
	const most = 20 // digits of a number
	b, err := os.ReadFile(p.opts.Lock)
	text := strings.TrimSpace(string(b))
	if err != nil || text == "" || len(text) > most || strings.Trim(text, "0123456789") != "" {
		return ""
	}
	return " (process " + text + ")"
}

// Apply puts the state in the archive in the place of what is there.
func (p *Platform) Apply(ctx context.Context, plan *backup.Plan, in *backup.Reader, opts backup.ApplyOptions, j backup.Journal) (*backup.Undo, error) {
	release, err := p.lock()
	if err != nil {
		return nil, fmt.Errorf("take the data folder: %w", err)
	}
	defer release()
	fresh := filepath.Join(p.opts.Data, newPrefix+j.Op())
	if err := j.Append(stepFill, nil); err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(fresh) }() // what is left of it; otherwise a sweep
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return nil, fmt.Errorf("make the new folder: %w", err)
	}
	if err := fill(ctx, in, fresh, opts); err != nil {
		return nil, err
	}
	d := detail{Op: j.Op()}
	if d.Parts, err = p.parts(fresh, "."); err != nil {
		return nil, fmt.Errorf("compare old and new: %w", err)
	}
	raw, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	undo := &backup.Undo{
		ID: j.Op(), Platform: Name, App: plan.App, Time: now(), Detail: raw,
		Summary: "the state of dentropy is as it was before the restore",
	}
	if err := j.Append(stepSwap, d); err != nil {
		return nil, err
	}
	if opts.Report != nil {
		opts.Report(backup.Progress{Phase: "swap", Text: p.opts.Data})
	}
	if err = p.swap(ctx, d); err == nil {
		err = j.Append(backup.StepUndo, undo)
	}
	if err != nil {
		return nil, errors.Join(err, p.takeBack(d))
	}
	return undo, nil
}

// fill unpacks the archive's only volume into a new folder, and proves that it is what
// was read, and that the archive is complete.
func fill(ctx context.Context, in *backup.Reader, root string, opts backup.ApplyOptions) error {
	tree := in.Manifest().Trees[volumeID]
	if tree == nil {
		return errors.New("the archive holds no state of dentropy")
	}
	if err := skipTo(in); err != nil {
		return err
	}
	raw := frame.NewReader(in.VolumeStream(ctx, volumeID), 0)
	defer func() { _ = raw.Close() }()
	_, err := volume.Write(ctx, root, raw, volume.WriteOptions{
		MaxEntries: tree.Entries, MaxBytes: tree.Bytes, MaxStored: tree.Stored, NoDevices: true,
		Progress: func(at volume.Progress) {
			if opts.Report != nil {
				opts.Report(backup.Progress{Phase: "fill", Done: at.Bytes, Total: tree.Stored, Files: at.Files})
			}
		},
	})
	if err == nil {
		_, err = io.Copy(io.Discard, raw) // what stands behind the tar's end
	}
	if err != nil {
		return fmt.Errorf("unpack the state: %w", err)
	}
	if err := raw.Close(); err != nil { // it reads ahead: nobody may read the archive meanwhile
		return fmt.Errorf("unpack the state: %w", err)
	}
	if err := in.Finish(ctx); err != nil {
		return err
	}
	sums, _, err := volume.Hash(ctx, root, volume.ReadOptions{})
	if err != nil {
		return fmt.Errorf("verify the state: %w", err)
	}
	if sums.Hash != tree.Hash && os.Geteuid() == 0 { // others cannot give files away
		return fmt.Errorf("verify the state: it is not what was backed up: %w", backup.ErrCorrupt)
	}
	return nil
}

// skipTo goes on to the first segment of the state.
func skipTo(in *backup.Reader) error {
	for {
		m, err := in.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the archive holds no state of dentropy: %w", backup.ErrCorrupt)
		}
		if err != nil {
			return err
		}
		if m.Kind == backup.MemberSegment && m.Volume == volumeID {
			return nil
		}
	}
}

// detail reads an undo record, and trusts nothing in it that leads out of the data
// folder.
func (p *Platform) detail(u *backup.Undo) (detail, error) {
	var d detail
	if err := json.Unmarshal(u.Detail, &d); err != nil {
		return d, fmt.Errorf("read undo record: %w", err)
	}
	return d, d.check()
}

func (d detail) check() error {
	const digits = 12
	if len(d.Op) != digits || strings.Trim(d.Op, "0123456789abcdef") != "" {
		return fmt.Errorf("read undo record: %q is no id of an operation", d.Op)
	}
	for _, part := range d.Parts {
		if !filepath.IsLocal(part.Path) || part.Path == "." {
			return fmt.Errorf("read undo record: %q is no path in the data folder", part.Path)
		}
	}
	return nil
}

// Undo brings the old state back.
func (p *Platform) Undo(_ context.Context, u *backup.Undo, _ backup.ApplyOptions, j backup.Journal) error {
	d, err := p.detail(u)
	if err != nil {
		return err
	}
	release, err := p.lock()
	if errors.Is(err, backup.ErrLocked) {
		return &backup.Problem{
			Message: "a dentropy runs on the data folder " + p.opts.Data + p.holder(),
			Hint:    "stop it, then run: dentropy restore --undo --data-dir " + p.opts.Data, Object: AppName, Err: err,
		}
	}
	if err != nil {
		return err
	}
	defer release()
	if !there(filepath.Join(p.opts.Data, beforePrefix+d.Op)) {
		return fmt.Errorf("what was there before the restore is gone: %w", fs.ErrNotExist)
	}
	if err := j.Append(stepSwap, d); err != nil {
		return err
	}
	return p.takeBack(d)
}

// Recover takes back a restore that was cut off, and finishes an undo.
func (p *Platform) Recover(_ context.Context, op backup.Operation, entries []backup.Entry, _ func(backup.Progress)) error {
	for _, e := range entries {
		if e.Step == backup.StepUndo {
			return os.RemoveAll(filepath.Join(p.opts.Data, newPrefix+op.ID)) // it was done
		}
	}
	for _, e := range entries {
		if e.Step != stepSwap {
			continue
		}
		var d detail
		if err := json.Unmarshal(e.Data, &d); err != nil {
			return fmt.Errorf("read journal: %w", err)
		}
		if err := d.check(); err != nil {
			return err
		}
		// A dentropy that runs by now began with what is half there: it is taken back all
		// the same, and it serves what it has in memory until it starts again.
		if err := p.takeBack(d); err != nil {
			return err
		}
	}
	return os.RemoveAll(filepath.Join(p.opts.Data, newPrefix+op.ID))
}
