package backup_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dentropy/dentropycloud/backup"
)

const waitMost = 30 * time.Second

// pause lets a moment pass; false once ctx is over.
func pause(ctx context.Context) bool {
	t := time.NewTimer(5 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func TestBackupAndRestore(t *testing.T) {
	b := newBench(t)
	res, err := b.backup(backup.BackupRequest{})
	if err != nil {
		t.Fatal(err)
	}
	b.running("shop")
	b.clean()
	if names := b.archives(); len(names) != 1 || names[0] != res.Archive {
		t.Errorf("archives = %v, want %s", names, res.Archive)
	}
	if info, err := backup.ParseArchiveName(res.Archive); err != nil || info.App != "shop" || !info.Encrypted {
		t.Errorf("name %q = %+v, %v", res.Archive, info, err)
	}
	man := b.open(res.Archive).Manifest()
	if man.ID != res.ID || man.Status != "complete" || man.Encryption != "all" || len(man.Trees) != 2 || man.Tool != "dentropy test" || len(man.Quiesce.Stopped) != 2 {
		t.Errorf("manifest = %+v", man)
	}
	runs, err := b.m.LastRuns()
	if err != nil || len(runs) != 1 || runs[0].Archive != res.Archive || runs[0].LastError != "" || runs[0].Size != res.Size || runs[0].Took == 0 {
		t.Errorf("LastRuns = %+v, %v", runs, err)
	}

	if err := b.engine.Remove("shop"); err != nil {
		t.Fatal(err)
	}
	back, err := b.m.Restore(t.Context(), nil, b.open(res.Archive), backup.Answers{}, backup.ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b.running("shop")
	b.data()
	b.clean()
	undos, err := b.m.Undos()
	if err != nil || len(undos) != 1 || undos[0].ID != back.Undo || back.App != "shop" {
		t.Errorf("restored as %+v; Undos = %+v, %v", back, undos, err)
	}
	if err := b.m.Undo(t.Context(), nil, "", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := b.engine.App("shop"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the undo: %v, want that there is no app", err)
	}
	if undos, err := b.m.Undos(); err != nil || len(undos) != 0 {
		t.Errorf("Undos = %+v, %v, want none", undos, err)
	}
	b.clean()
	if err := b.m.Undo(t.Context(), nil, "", "shop"); !errors.Is(err, fs.ErrNotExist) || backup.HintOf(err) == "" {
		t.Errorf("undo of nothing = %v, want fs.ErrNotExist with a hint", err)
	}
}

// Whatever goes wrong, at whatever step: what ran runs, nothing is left behind, and no
// archive can be seen.
func TestBackupFailsAtEachStep(t *testing.T) {
	steps := []string{
		"capture", "estimate", "check", "journal:stop", "stop:web", "stop:db", "read:data", "read:spool", "journal:started",
		"images", "create", "write", "segments", "index", "commit", "open",
	}
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			b := newBench(t)
			b.fails(step)
			_, err := b.backup(backup.BackupRequest{})
			if !errors.Is(err, errWrong) {
				t.Fatalf("Backup = %v, want %v", err, errWrong)
			}
			b.heals()
			b.running("shop")
			b.data()
			b.clean()
			if names := b.archives(); len(names) > 0 {
				t.Errorf("archives = %v, want none", names)
			}
			if v := b.m.Jobs()[0]; v.State != "failed" || v.Error == "" {
				t.Errorf("job = %+v, want it failed", v)
			}
			runs, err := b.m.LastRuns()
			if err != nil || len(runs) != 1 || runs[0].LastError == "" || !runs[0].LastSuccess.IsZero() {
				t.Errorf("LastRuns = %+v, %v, want the error", runs, err)
			}
			if _, err := b.backup(backup.BackupRequest{}); err != nil {
				t.Errorf("the next backup: %v", err)
			}
		})
	}
}

// A container that does not start again is started by recovery, for as long as it takes.
func TestBackupLeavesStopped(t *testing.T) {
	b := newBench(t)
	heal := b.fails("start:db")
	_, err := b.backup(backup.BackupRequest{})
	if !errors.Is(err, backup.ErrLeftStopped) {
		t.Fatalf("Backup = %v, want ErrLeftStopped", err)
	}
	if n := b.m.LeftStopped(); n != 1 {
		t.Errorf("LeftStopped = %d, want 1", n)
	}
	heal()
	eventually(t, "recovery has started it", func() bool { return b.m.LeftStopped() == 0 })
	b.running("shop")
	b.clean()
}

// Transit that cannot be cleared costs a warning, and is cleared later.
func TestBackupTransitStays(t *testing.T) {
	b := newBench(t)
	b.fails("close")
	res, err := b.backup(backup.BackupRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "transit") {
		t.Errorf("warnings = %v, want one about transit", res.Warnings)
	}
	if n := b.m.LeftStopped(); n != 0 {
		t.Errorf("LeftStopped = %d while only transit is to be cleared, want 0", n)
	}
	eventually(t, "transit is cleared", func() bool {
		list, err := os.ReadDir(filepath.Join(b.dir, "backup", "journal"))
		return err == nil && len(list) == 0
	})
	b.running("shop")
	b.clean()
	if n := len(b.archives()); n != 1 {
		t.Errorf("%d archives, want 1", n)
	}
}

// An archive that the store does not give back as it was written does not stay.
func TestBackupTornByStore(t *testing.T) {
	b := newBench(t)
	b.store.Torn = true
	if _, err := b.backup(backup.BackupRequest{}); err == nil {
		t.Error("Backup succeeds although the store loses bytes")
	}
	if names := b.archives(); len(names) > 0 {
		t.Errorf("archives = %v, want none", names)
	}
	b.running("shop")
	b.clean()
}

func TestBackupRefuses(t *testing.T) {
	nobody := errors.New("no")
	tests := []struct {
		name string
		req  backup.BackupRequest
		with func(*bench)
		want error // "" is any error with a hint
	}{
		{name: "too long a downtime", req: backup.BackupRequest{MaxDowntime: time.Second}, with: func(b *bench) { b.platform.Downtime = time.Minute }, want: backup.ErrDowntime},
		{name: "not confirmed", req: backup.BackupRequest{Confirm: func(*backup.App, *backup.Estimate) error { return nobody }}, want: nobody},
		{name: "no such app", req: backup.BackupRequest{App: "nobody"}, want: fs.ErrNotExist},
		{name: "no such store", req: backup.BackupRequest{Store: "tape"}, want: fs.ErrNotExist},
		{name: "no such platform", req: backup.BackupRequest{Platform: "moon"}, want: fs.ErrNotExist},
		{name: "unknown encryption", req: backup.BackupRequest{Encryption: "rot13"}},
		{name: "encryption off and on", req: backup.BackupRequest{Encryption: "none", Passphrase: "x"}},
		{name: "passphrase and recipients", req: backup.BackupRequest{Passphrase: "x", Recipients: []string{"age1"}}},
		{name: "changed while it was stopped", with: func(b *bench) {
			b.platform.Notes = []backup.Note{{Path: "rows", Kind: "changed"}}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			if tt.with != nil {
				tt.with(b)
			}
			_, err := b.backup(tt.req)
			if tt.want != nil && !errors.Is(err, tt.want) || tt.want == nil && (err == nil || backup.HintOf(err) == "") {
				t.Errorf("Backup = %v, want %v and a hint", err, tt.want)
			}
			b.running("shop")
			b.clean()
			if names := b.archives(); len(names) > 0 {
				t.Errorf("archives = %v, want none", names)
			}
			if runs, err := b.m.LastRuns(); err != nil || tt.req.Confirm != nil && len(runs) > 0 {
				t.Errorf("LastRuns = %+v, %v: that somebody declined is no failed backup", runs, err)
			}
		})
	}
}

func TestBackupAllowsMissing(t *testing.T) {
	b := newBench(t)
	b.platform.Notes = []backup.Note{{Path: "rows", Kind: "changed"}, {Path: "secret", Kind: "unreadable"}, {Path: "sock", Kind: "socket"}}
	res, err := b.backup(backup.BackupRequest{Freeze: backup.FreezeOptions{AllowMissing: true}})
	if err != nil {
		t.Fatal(err)
	}
	if man := b.open(res.Archive).Manifest(); man.Status != "warnings" || len(man.Warnings) != 4 { // two kinds in each of two volumes
		t.Errorf("manifest: status %s, warnings %q", man.Status, man.Warnings)
	}
}

func TestBackupDryRun(t *testing.T) {
	b := newBench(t)
	b.platform.Step = func(step string) error {
		if strings.HasPrefix(step, "journal:") || strings.HasPrefix(step, "stop:") {
			t.Errorf("a dry run does %s", step)
		}
		return nil
	}
	res, err := b.backup(backup.BackupRequest{DryRun: true})
	if err != nil || res.Estimate == nil || res.Estimate.Bytes == 0 || res.App == nil {
		t.Errorf("Backup = %+v, %v, want an estimate", res, err)
	}
	if names := b.archives(); len(names) > 0 {
		t.Errorf("archives = %v, want none", names)
	}
	if runs, err := b.m.LastRuns(); err != nil || len(runs) > 0 {
		t.Errorf("LastRuns = %v, %v, want none", runs, err)
	}
	b.clean()
}

func TestBackupToWriter(t *testing.T) {
	b := newBench(t)
	var out bytes.Buffer
	named := ""
	res, err := b.backup(backup.BackupRequest{Out: &out, Encryption: "secrets", Named: func(name string) { named = name }})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := backup.ParseArchiveName(res.Archive); err != nil || info.App != "shop" || res.Archive != named {
		t.Errorf("the archive is called %q, and %q before it is written: %v", res.Archive, named, err)
	}
	if int64(out.Len()) != res.Size || len(b.archives()) > 0 {
		t.Errorf("%d bytes, result %+v", out.Len(), res)
	}
	if bytes.Contains(out.Bytes(), []byte("hunter2hunter2")) {
		t.Error("a secret stands in the archive in clear")
	}
	ids, err := b.m.Identities()
	if err != nil {
		t.Fatal(err)
	}
	in, err := backup.NewReader(&out, ids...)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Finish(t.Context()); err != nil {
		t.Errorf("Finish = %v", err)
	}
}

func TestBackupNeedsRecipient(t *testing.T) {
	b := newBench(t)
	m, err := backup.NewManager(backup.Config{
		Dir: t.TempDir(), Platforms: []backup.Platform{b.platform}, Stores: map[string]backup.Store{"local": b.store},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	for _, enc := range []string{"", "all", "secrets"} {
		req := backup.BackupRequest{App: "shop", Encryption: enc}
		if err := m.CheckRecipients(req); !errors.Is(err, backup.ErrNoRecipient) || !strings.Contains(backup.HintOf(err), "dentropy backup key") {
			t.Errorf("CheckRecipients(%q) = %v, want ErrNoRecipient and what to do", enc, err)
		}
		if _, err := m.Backup(t.Context(), nil, req); !errors.Is(err, backup.ErrNoRecipient) {
			t.Errorf("Backup(%q) = %v, want ErrNoRecipient", enc, err)
		}
	}
	if _, err := m.Backup(t.Context(), nil, backup.BackupRequest{App: "shop", Encryption: "none"}); err != nil {
		t.Errorf("unencrypted because that was asked for: %v", err)
	}
	if _, err := m.Backup(t.Context(), nil, backup.BackupRequest{App: "shop", Passphrase: "correct horse", Encryption: "secrets"}); err != nil {
		t.Errorf("with a passphrase: %v", err)
	}
}

// A cancelled backup brings its app back.
func TestBackupCancel(t *testing.T) {
	for _, at := range []string{"stop:db", "read:data", "write", "commit"} {
		t.Run(at, func(t *testing.T) {
			b := newBench(t)
			job, err := b.m.NewJob("backup", "")
			if err != nil {
				t.Fatal(err)
			}
			f := func(step string) error {
				if step == at {
					job.Cancel()
				}
				return nil
			}
			b.platform.Step, b.store.Step = f, f
			_, err = b.m.Backup(t.Context(), job, backup.BackupRequest{App: "shop"})
			if at == "commit" { // it had all
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
			} else if !errors.Is(err, context.Canceled) || job.View().State != "cancelled" {
				t.Errorf("Backup = %v, state %s, want it cancelled", err, job.View().State)
			}
			b.heals()
			b.running("shop")
			b.clean()
		})
	}
}

// A panic ends the job and not the program, which serves sites: neither that of a backup
// nor that of the recovery behind it.
func TestBackupPanicLeavesJournal(t *testing.T) {
	b := newBench(t)
	var recoveries atomic.Int32
	b.platform.Step = func(step string) error {
		if step == "segments" || step == "recover" && recoveries.Add(1) == 1 {
			panic("a bug")
		}
		return nil
	}
	if _, err := b.backup(backup.BackupRequest{}); err == nil || !strings.Contains(err.Error(), "panicked") {
		t.Errorf("Backup = %v, want an error that says so", err)
	}
	eventually(t, "recovery has tidied up", func() bool { return b.m.LeftStopped() == 0 })
	b.running("shop")
	if ops, err := b.engine.Transit(); err != nil || len(ops) > 0 {
		t.Errorf("in transit: %v, %v", ops, err)
	}
	if v := b.m.Jobs()[0]; v.State != "failed" {
		t.Errorf("job = %+v, want it failed", v)
	}
}

// What fails may quote a secret of the app: nothing that is shown or kept does.
func TestBackupErrorsConcealSecrets(t *testing.T) {
	b := newBench(t)
	quote := errors.New("hook: psql: PASSWORD hunter2hunter2 is wrong")
	b.platform.Step = func(step string) error {
		if step == "read:data" {
			return quote
		}
		return nil
	}
	_, err := b.backup(backup.BackupRequest{})
	if !errors.Is(err, quote) {
		t.Fatalf("Backup = %v, want %v", err, quote)
	}
	runs, rerr := b.m.LastRuns()
	if rerr != nil || len(runs) != 1 {
		t.Fatalf("LastRuns = %v, %v", runs, rerr)
	}
	for where, text := range map[string]string{"the error": err.Error(), "the job": b.m.Jobs()[0].Error, "the last run": runs[0].LastError} {
		if strings.Contains(text, "hunter2hunter2") || !strings.Contains(text, "psql: PASSWORD … is wrong") {
			t.Errorf("%s says %q, want it without the secret", where, text)
		}
	}
}

// Two operations on one app do not meet, be they of one manager or of two.
func TestBackupLocks(t *testing.T) {
	b := newBench(t)
	other := b.manager()
	inside, goOn := make(chan struct{}), make(chan struct{})
	b.platform.Step = func(step string) error {
		if step == "read:data" {
			close(inside)
			<-goOn
		}
		return nil
	}
	done := make(chan error)
	go func() {
		_, err := b.backup(backup.BackupRequest{})
		done <- err
	}()
	<-inside
	for _, m := range []*backup.Manager{b.m, other} {
		_, err := m.Backup(t.Context(), nil, backup.BackupRequest{App: "shop"})
		if !errors.Is(err, backup.ErrLocked) || !strings.Contains(err.Error(), b.m.Jobs()[len(b.m.Jobs())-1].ID) {
			t.Errorf("a second backup = %v, want ErrLocked that names the first", err)
		}
		if err := m.Recover(t.Context()); err != nil {
			t.Errorf("Recover meanwhile = %v", err)
		}
	}
	close(goOn)
	if err := <-done; err != nil {
		t.Error(err)
	}
	b.running("shop")
	b.clean()
	b.platform.Step = nil
	if _, err := other.Backup(t.Context(), nil, backup.BackupRequest{App: "shop"}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestCloseBringsAppsBack(t *testing.T) {
	b := newBench(t)
	inside := make(chan struct{})
	b.platform.Step = func(step string) error {
		if step == "read:data" {
			close(inside)
		}
		return nil
	}
	hold := make(chan struct{})
	b.store.Step = func(step string) error {
		if step == "check" {
			<-hold
		}
		return nil
	}
	done := make(chan error)
	go func() {
		_, err := b.backup(backup.BackupRequest{})
		done <- err
	}()
	close(hold)
	<-inside
	if err := b.m.Close(); err != nil {
		t.Error(err)
	}
	<-done
	b.running("shop")
	if _, err := b.m.Backup(t.Context(), nil, backup.BackupRequest{App: "shop"}); err == nil {
		t.Error("a closed manager begins a backup")
	}
}

func TestResting(t *testing.T) {
	b := newBench(t)
	var told []string
	m, err := backup.NewManager(backup.Config{
		Dir: t.TempDir(), Platforms: []backup.Platform{b.platform}, Stores: map[string]backup.Store{"local": b.store},
		Resting: func(r *backup.Resting) {
			running, err := b.engine.Running("shop")
			if err != nil {
				t.Error(err)
			}
			text := r.Why + " of " + r.App + " with " + strings.Join(running, "+")
			if r.Over {
				text += " over"
			}
			told = append(told, text)
		},
		Drain: func(_ context.Context, r *backup.Resting) {
			running, err := b.engine.Running("shop")
			if err != nil {
				t.Error(err)
			}
			told = append(told, "requests to "+r.App+" end with "+strings.Join(running, "+"))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	if _, err := m.Backup(t.Context(), nil, backup.BackupRequest{App: "shop", Encryption: "none"}); err != nil {
		t.Fatal(err)
	}
	want := "backup of shop with db+web, requests to shop end with db+web, backup of shop with db+web over"
	if got := strings.Join(told, ", "); got != want {
		t.Errorf("told %q, want %q", got, want)
	}
}

// Who cancels a backup does not wait for the requests that are under way to its app.
func TestDrainIsCancelled(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	over := 0
	m, err := backup.NewManager(backup.Config{
		Dir: t.TempDir(), Platforms: []backup.Platform{b.platform}, Stores: map[string]backup.Store{"local": b.store},
		Resting: func(r *backup.Resting) {
			if r.Over {
				over++
			}
		},
		Drain: func(ctx context.Context, _ *backup.Resting) {
			cancel()
			<-ctx.Done()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	if _, err := m.Backup(ctx, nil, backup.BackupRequest{App: "shop", Encryption: "none"}); !errors.Is(err, context.Canceled) {
		t.Errorf("backup = %v, want that it was cancelled", err)
	}
	b.running("shop")
	if over != 1 {
		t.Errorf("told %d times that it runs again, want once", over)
	}
}
