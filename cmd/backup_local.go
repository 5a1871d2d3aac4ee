package dentropycmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/dentropy/dentropycloud/backup"
	filestore "github.com/dentropy/dentropycloud/backup/local"
)

// local does the work in this process.
type local struct {
	m    *backup.Manager
	keys *backup.Keys
	dir  string
	talk io.Writer
	// recovered says that what dead operations left behind has been looked after.
	recovered bool
}

// outputStore is the name of the store of -o.
const outputStore = "output"

// workDir is the data folder that work in this process uses.
func workDir(cmd *cobra.Command) (string, error) {
	given, _ := cmd.Flags().GetString("data-dir")
	if given == "" {
		given = os.Getenv("DENTROPY_DATA_DIR")
	}
	return dataDir(given, os.Getenv, os.Geteuid() == 0)
}

// backupDir, keysDir and storeDir are where a running dentropy has the same.
func backupDir(dataDir string) string { return filepath.Join(dataDir, "backup") }
func keysDir(dataDir string) string   { return filepath.Join(dataDir, "backup", "keys") }
func storeDir(dataDir string) string  { return filepath.Join(dataDir, "backups") }

// newLocal makes a manager on the data folder that a running dentropy would use. It
// contacts nobody.
func newLocal(cmd *cobra.Command, folder string) (*local, error) {
	dir, err := workDir(cmd)
	if err != nil {
		return nil, err
	}
	if err := backup.MakeFolder(dir); err != nil {
		return nil, fmt.Errorf("the data folder %s cannot be made: %w: use --data-dir with another folder, or run as root", dir, cause(err))
	}
	l := &local{dir: dir, talk: cmd.ErrOrStderr()}
	if l.keys, err = backup.OpenKeys(keysDir(dir)); err != nil {
		return nil, err
	}
	stores := map[string]backup.Store{}
	if stores[backup.LocalStore], err = filestore.New(storeDir(dir)); err != nil {
		return nil, err
	}
	folders := []string{storeDir(dir)}
	if folder != "" {
		if stores[outputStore], err = filestore.New(folder); err != nil {
			return nil, err
		}
		folders = append(folders, folder)
	}
	// What the library has to tell comes as progress, warnings and errors.
	log := slog.New(slog.DiscardHandler)
	platforms, err := platformsHere(cmd, dir, folders, log)
	if err != nil {
		return nil, err
	}
	l.m, err = backup.NewManager(backup.Config{
		Dir: backupDir(dir), Platforms: platforms, Stores: stores, Keys: l.keys,
		Tool: "dentropy " + Version(), Log: log,
	})
	return l, err
}

func (l *local) close() error { return l.m.Close() }

// recover finishes what a dead process left behind, before other work. What cannot be
// finished now is told, and keeps nobody from other apps: of the same one, the work itself
// finishes it first or refuses.
func (l *local) recover(ctx context.Context) error {
	if l.recovered {
		return nil
	}
	l.recovered = true
	ops, err := l.m.Leftovers()
	if err != nil {
		return err
	}
	for _, op := range ops {
		_, _ = fmt.Fprintf(l.talk, "dentropy: the %s of %s on %s that began at %s was interrupted: what it left stopped is brought back first\n",
			clean(op.Kind), clean(op.App), clean(op.Platform), op.Time.Local().Format(time.DateTime))
	}
	err = l.m.RecoverOnce(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		_, _ = fmt.Fprintf(l.talk, "dentropy: what was interrupted cannot be finished now, and is tried again the next time: %s\n", clean(err.Error()))
	}
	return nil
}

// run does work as a job that is shown.
func (l *local) run(ctx context.Context, kind string, show func(backup.JobView), work func(*backup.Job) error) error {
	if err := l.recover(ctx); err != nil {
		return err
	}
	job, err := l.m.NewJob(kind, "")
	if err != nil {
		return err
	}
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = job.Follow(following, func(v backup.JobView) error { // ends with the job
			if show != nil {
				show(v)
			}
			return nil
		})
	}()
	err = work(job)
	<-done
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return errCancelled
	}
	return err
}

func (l *local) apps(ctx context.Context) (appsAnswer, error) {
	// Whoever looks why an app is down is who it should be brought back for.
	if err := l.recover(ctx); err != nil {
		return appsAnswer{}, err
	}
	apps, errs := l.m.Apps(ctx)
	a := appsAnswer{Apps: apps, Problems: []problemLine{}}
	if a.Apps == nil {
		a.Apps = []backup.AppInfo{}
	}
	for _, err := range errs {
		line := problemLine{Error: err.Error(), Hint: backup.HintOf(err)}
		if pe, ok := errors.AsType[*backup.PlatformError](err); ok {
			line.Platform, line.Error = pe.Platform, pe.Err.Error()
		}
		a.Problems = append(a.Problems, line)
	}
	return a, nil
}

func (l *local) app(ctx context.Context, name, platform string, opts backup.CaptureOptions) (*backup.App, error) {
	if err := l.recover(ctx); err != nil {
		return nil, err
	}
	a, err := l.m.Capture(ctx, name, platform, opts)
	if err != nil {
		return nil, err
	}
	public, _ := backup.Redact(a)
	return public, nil
}

func (l *local) lastRuns(context.Context) ([]backup.LastRun, error) { return l.m.LastRuns() }

func (l *local) key(context.Context) (keyAnswer, error) {
	return keyAnswer{KeyStatus: l.keys.Status()}, nil
}

func (l *local) makeKey(context.Context) (keyAnswer, error) {
	made, err := l.keys.Ensure()
	return keyAnswer{KeyStatus: l.keys.Status(), Created: made}, err
}

func (l *local) estimate(ctx context.Context, req backup.BackupRequest) (*backup.BackupResult, error) {
	req.DryRun = true
	return l.m.Backup(ctx, nil, req)
}

func (l *local) backup(ctx context.Context, req backup.BackupRequest, to output, confirm confirmer, show func(backup.JobView)) (*backup.BackupResult, error) {
	req.Confirm, req.Out = confirm, to.w
	if to.folder != "" {
		req.Store = outputStore
	}
	var res *backup.BackupResult
	err := l.run(ctx, "backup", show, func(job *backup.Job) (err error) {
		res, err = l.m.Backup(ctx, job, req)
		return err
	})
	if res != nil && to.folder != "" {
		res.Store = to.folder
	}
	return res, err
}

func (l *local) plan(ctx context.Context, in *archiveInput, a backup.Answers) (*backup.Plan, error) {
	a.NoProbe = true // nothing serves the site before `up` runs
	return l.m.Plan(ctx, in.reader, a)
}

func (l *local) restore(ctx context.Context, in *archiveInput, a backup.Answers, show func(backup.JobView)) (*backup.RestoreResult, error) {
	a.NoProbe = true
	var res *backup.RestoreResult
	err := l.run(ctx, "restore", show, func(job *backup.Job) (err error) {
		res, err = l.m.Restore(ctx, job, in.reader, a, backup.ApplyOptions{})
		return err
	})
	return res, err
}

func (l *local) undos(context.Context) ([]backup.Undo, error) { return l.m.Undos() }

func (l *local) undo(ctx context.Context, id, app string, show func(backup.JobView)) error {
	return l.run(ctx, "undo", show, func(job *backup.Job) error {
		return l.m.Undo(ctx, job, id, app)
	})
}

func (l *local) archives(ctx context.Context, store string) (map[string][]backup.Entity, []string, error) {
	list, err := l.m.Archives(ctx, store)
	if err != nil && len(list) > 0 { // of some
		return list, []string{err.Error()}, nil
	}
	return list, nil, err
}

func (l *local) open(ctx context.Context, store, name string) (io.ReadCloser, error) {
	return l.m.OpenArchive(ctx, store, name)
}
