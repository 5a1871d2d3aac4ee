package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
)

// ErrNoRecipient says that secrets would be written and that there is nobody to encrypt
// them to.
var ErrNoRecipient = errors.New("there is no key to encrypt to")

// ErrDowntime says that the app would be stopped for longer than is allowed.
var ErrDowntime = errors.New("the app would be stopped for too long")

// Backup makes one archive. The job is known to Jobs from the moment that it is called.
func (m *Manager) Backup(ctx context.Context, job *Job, req BackupRequest) (*BackupResult, error) {
	var res *BackupResult
	kind := kindBackup
	if req.DryRun {
		kind = kindEstimate
	}
	err := m.run(ctx, job, kind, func(op *operation) (any, error) {
		b := &backupRun{operation: op, req: req, began: time.Now(), id: NewArchiveID(time.Now())}
		err := b.backup()
		b.note(err)
		if err != nil {
			return nil, err
		}
		res = b.res
		return res, nil
	})
	return res, err
}

// backupRun is one backup at work.
type backupRun struct {
	*operation
	req   BackupRequest
	began time.Time
	id    string

	platform   Platform
	app        *App
	est        *Estimate
	store      Store // nil where the archive goes to req.Out
	storeName  string
	encryption string
	recipients []age.Recipient
	declined   bool // by whoever was asked
	res        *BackupResult
}

func (b *backupRun) backup() error {
	if err := b.prepare(); err != nil {
		return err
	}
	b.res = &BackupResult{ID: b.id, Store: b.storeName, Estimate: b.est, Encrypted: b.encryption, App: b.app}
	if b.req.DryRun {
		b.res.Warnings = b.job.warnings()
		return nil
	}
	if err := b.begin(b.platform.Name(), b.app.Name); err != nil {
		return err
	}
	err := b.make()
	b.finish(err)
	if err != nil {
		return err
	}
	b.res.Took = time.Since(b.began)
	b.res.Warnings = b.job.warnings()
	b.cfg.Log.Info("app backed up", "app", b.app.Name, "platform", b.platform.Name(), "store", b.storeName,
		"archive", b.res.Archive, "size", b.res.Size, "took", b.res.Took, "downtime", b.res.Quiesce.Downtime)
	return nil
}

// prepare finds out all that can refuse, and touches nothing.
func (b *backupRun) prepare() (err error) {
	cfg, req := &b.cfg, &b.req
	b.job.report(Progress{Phase: "capture"})
	if err := req.check(); err != nil {
		return err
	}
	if b.encryption, b.recipients, err = cfg.recipients(req); err != nil {
		return err
	}
	if req.Out == nil {
		if b.store, b.storeName, err = cfg.store(req.Store); err != nil {
			return err
		}
	}
	if b.platform, err = cfg.platformOf(b.ctx, req.App, req.Platform); err != nil {
		return err
	}
	if err := b.take(b.platform.Name(), req.App); err != nil {
		return err
	}
	if b.app, err = b.platform.Capture(b.ctx, req.App, req.Capture); err != nil {
		return fmt.Errorf("capture %s: %w", req.App, err)
	}
	b.conceal(b.app)
	for _, w := range b.app.Warnings {
		b.job.report(Progress{Warning: w})
	}
	b.job.report(Progress{Phase: "estimate"})
	req.Freeze.HealthTimeout = cmp.Or(req.Freeze.HealthTimeout, cfg.HealthTimeout)
	req.Freeze.Avoid = append(slices.Clone(req.Freeze.Avoid), cfg.avoid()...)
	req.Freeze.Report = b.reporter(req.Freeze.Report)
	req.Freeze.TempDir = filepath.Join(cfg.Dir, dirTemp) // of the operation, once it has begun
	req.Freeze.Resting = b.rest
	if b.est, err = b.platform.Estimate(b.ctx, b.app, req.Freeze); err != nil {
		return fmt.Errorf("estimate the backup of %s: %w", b.app.Name, err)
	}
	if err := b.checkDowntime(); err != nil {
		return err
	}
	if err := b.est.fits(); err != nil {
		return err
	}
	if b.store != nil {
		if err := b.space(); err != nil {
			return err
		}
	}
	if err := b.testEncryption(); err != nil {
		return err
	}
	if req.Confirm != nil && !req.DryRun {
		err = b.confirm(req.Confirm)
		b.declined = err != nil
	}
	return err
}

func (b *backupRun) checkDowntime() error {
	most := b.req.MaxDowntime
	if most <= 0 || b.est.Downtime <= most {
		return nil
	}
	text := fmt.Sprintf("%s would be stopped for about %s, and at most %s is allowed", b.app.Name, b.est.Downtime.Round(time.Second), most)
	if b.est.Basis != "" {
		text += " (" + b.est.Basis + ")"
	}
	return &Problem{Message: text, Hint: "allow more with --max-downtime, or let it run on with --mode hot", Object: b.app.Name, Err: ErrDowntime}
}

// make brings the app to rest, and writes the archive. Whatever happens, the app runs
// again, or the error wraps ErrLeftStopped.
func (b *backupRun) make() (err error) {
	opts := b.req.Freeze
	opts.TempDir = b.temp
	frozen, err := b.platform.Freeze(b.ctx, b.app, b.est, opts, b.journal)
	b.rest(nil)
	if err != nil {
		return fmt.Errorf("back up %s: %w", b.app.Name, err)
	}
	b.res.Quiesce = frozen.Report()
	defer func() {
		// the engine may be slow: what is cancelled is the backup, not the tidying up
		ctx := context.WithoutCancel(b.ctx)
		b.job.report(Progress{Phase: "clean"})
		if cl := frozen.Close(ctx); cl != nil && err == nil {
			b.job.report(Progress{Warning: fmt.Sprintf("transit could not be cleared, and will be later: %v", cl)})
			b.leave(true)
		} else if cl != nil {
			err = errors.Join(err, cl)
			b.leave(true)
		}
	}()
	if err := b.checkTrees(frozen.Trees()); err != nil {
		return err
	}
	if b.store == nil {
		b.res.Archive = b.archiveName()
		if b.req.Named != nil {
			b.req.Named(b.res.Archive)
		}
		sum, err := b.write(frozen, &endableWriter{ctx: b.ctx, w: b.req.Out, limit: stalledAfter})
		if err != nil {
			return fmt.Errorf("write the archive: %w", err)
		}
		b.res.Size, b.res.SHA256 = sum.Size, sum.SHA256
		return nil
	}
	return b.upload(frozen)
}

// checkTrees collects what reading came upon, and refuses an archive that lacks data or
// has torn data where nothing should have changed.
func (b *backupRun) checkTrees(trees map[string]*Tree) error {
	var bad []string
	for i := range b.app.Volumes {
		v := &b.app.Volumes[i]
		t := trees[v.ID]
		if t == nil {
			continue
		}
		counts := map[string]int{}
		first := map[string]string{}
		for _, n := range t.Notes {
			if !n.Severe() {
				continue
			}
			if counts[n.Kind]++; counts[n.Kind] == 1 {
				first[n.Kind] = n.Path
			}
		}
		atRest := v.Consistency == "stopped" || v.Consistency == "paused"
		for _, kind := range []string{"unreadable", "changed", "vanished"} {
			n := counts[kind]
			if n == 0 {
				continue
			}
			text := fmt.Sprintf("volume %s: %d files %s, the first is %s", v.Name, n, noteWords[kind], first[kind])
			if !b.req.Freeze.AllowMissing && (kind == "unreadable" || atRest) {
				bad = append(bad, text)
			} else {
				b.job.report(Progress{Warning: text})
			}
		}
		if t.NotesLost > 0 {
			b.job.report(Progress{Warning: fmt.Sprintf("volume %s: %d more notes are not kept", v.Name, t.NotesLost)})
		}
	}
	if len(bad) > 0 {
		return &Problem{
			Message: strings.Join(bad, "; "), Object: b.app.Name,
			Hint: "find out what writes there while the app is stopped, or go on without with --allow-missing",
		}
	}
	return nil
}

var noteWords = map[string]string{
	"unreadable": "cannot be read", "changed": "changed while they were read", "vanished": "vanished while they were read",
}

func (b *backupRun) archiveName() string {
	return ArchiveName(b.app.Name, b.began, b.id, b.encryption == EncryptAll)
}

// upload writes the archive to the store. It can be seen there only when it is complete.
func (b *backupRun) upload(frozen Frozen) error {
	name := b.archiveName()
	up, err := b.store.Create(b.ctx, name)
	if err != nil {
		return &StoreError{Store: b.storeName, Err: err}
	}
	sum, err := b.write(frozen, up)
	if err == nil {
		err = b.over() // cancelled with the last byte: not what was asked for
	}
	if err != nil {
		if ab := up.Abort(); ab != nil {
			b.cfg.Log.Warn("unfinished archive stays", "store", b.storeName, "archive", name, "error", ab)
		}
		return fmt.Errorf("write the archive to store %s: %w", b.storeName, err)
	}
	if err := up.Commit(); err != nil {
		_ = up.Abort() // what Commit says counts
		return fmt.Errorf("complete the archive in store %s: %w", b.storeName, err)
	}
	b.res.Archive, b.res.Size, b.res.SHA256 = name, sum.Size, sum.SHA256
	b.job.report(Progress{Phase: "verify"})
	if err := b.readBack(name, sum); err != nil {
		b.res.Archive = ""
		if rm := b.store.Remove(context.WithoutCancel(b.ctx), name); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
			err = errors.Join(err, rm)
		}
		return fmt.Errorf("read the archive back from store %s: %w", b.storeName, err)
	}
	return nil
}
