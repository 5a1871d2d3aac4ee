package backup_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/backuptest"
)

// sized is a platform whose estimates say more than there is.
type sized struct {
	*backuptest.Platform
	change func(*backup.Estimate)
}

func (s sized) Estimate(ctx context.Context, app *backup.App, opts backup.FreezeOptions) (*backup.Estimate, error) {
	if opts.TempDir == "" {
		return nil, errors.New("no folder for images is named")
	}
	est, err := s.Platform.Estimate(ctx, app, opts)
	if err == nil {
		s.change(est)
	}
	return est, err
}

// diskStore is a store with so much space, on a disk.
type diskStore struct {
	*backuptest.Store
	disk string
	free int64
}

func (s *diskStore) Disk() string { return s.disk }

func (s *diskStore) Check(_ context.Context, need int64) error {
	if need > s.free {
		return &backup.Problem{Message: fmt.Sprintf("there is no room for %d", need), Hint: "make room"}
	}
	return nil
}

// with is a manager of the bench with another platform and store.
func (b *bench) with(p backup.Platform, s backup.Store) *backup.Manager {
	b.t.Helper()
	m, err := backup.NewManager(backup.Config{Dir: filepath.Join(b.dir, "backup"), Platforms: []backup.Platform{p}, Stores: map[string]backup.Store{"local": s}})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = m.Close() })
	return m
}

// Data on its way and the archive are there at the same time: on one disk both must fit,
// before anything stops.
func TestSpaceOnOneDisk(t *testing.T) {
	b := newBench(t)
	b.platform.Step = func(step string) error {
		if strings.HasPrefix(step, "stop:") {
			return errors.New("it was stopped")
		}
		return nil
	}
	p := sized{b.platform, func(e *backup.Estimate) { e.Bytes, e.Beside = 1000, map[string]int64{"this": 1050} }}
	for _, tt := range []struct {
		disk string
		free int64
		want string
	}{
		{"this", 999, "no room for 2050"}, {"this", 2049, "on the same disk"}, {"this", 2050, "it was stopped"},
		{"other", 1000, "it was stopped"}, {"", 1000, "it was stopped"},
	} {
		_, err := b.with(p, &diskStore{b.store, tt.disk, tt.free}).Backup(t.Context(), nil, backup.BackupRequest{App: "shop", Encryption: "none"})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("with %d free on disk %q: %v, want %q", tt.free, tt.disk, err, tt.want)
		}
		var store *backup.StoreError
		if tt.want != "it was stopped" && (!errors.As(err, &store) || backup.HintOf(err) == "") {
			t.Errorf("with %d free on disk %q: %v, want a hint, and which store", tt.free, tt.disk, err)
		}
	}
}

func TestTooLargeForOneArchive(t *testing.T) {
	b := newBench(t)
	b.fails("stop:")
	for _, tt := range []struct {
		size backup.VolumeSize
		fits bool
	}{{backup.VolumeSize{Bytes: 20 << 40, Files: 1 << 20}, true}, {backup.VolumeSize{Bytes: 40 << 40}, false}, {backup.VolumeSize{Files: 40 << 30}, false}} {
		p := sized{b.platform, func(e *backup.Estimate) { e.Volumes["data"] = tt.size }}
		_, err := b.with(p, b.store).Backup(t.Context(), nil, backup.BackupRequest{App: "shop", Encryption: "none"})
		if stopped := errors.Is(err, errWrong); stopped != tt.fits || !stopped && backup.HintOf(err) == "" {
			t.Errorf("Backup of %+v = %v, want that it fits %v, before anything stops", tt.size, err, tt.fits)
		}
	}
}

func TestUnknownWords(t *testing.T) {
	b := newBench(t)
	for _, req := range []backup.BackupRequest{
		{Freeze: backup.FreezeOptions{Mode: "stopp"}}, {Capture: backup.CaptureOptions{Images: "yes"}},
		{Capture: backup.CaptureOptions{Layers: "ever"}}, {MaxDowntime: -1}, {Freeze: backup.FreezeOptions{HealthTimeout: -1}},
	} {
		if _, err := b.backup(req); backup.HintOf(err) == "" {
			t.Errorf("Backup(%+v) = %v, want what may be said", req, err)
		}
		if err := b.m.CheckRecipients(req); backup.HintOf(err) == "" {
			t.Errorf("CheckRecipients(%+v) = %v, want what may be said", req, err)
		}
	}
	if names := b.archives(); len(names) > 0 {
		t.Errorf("archives = %v, want none", names)
	}
}

// Backups that have not got as far as the app are remembered, so that nobody takes an app
// for healthy whose engine is down each night.
func TestEarlyFailuresAreRemembered(t *testing.T) {
	b := newBench(t)
	last := func(m *backup.Manager) string {
		t.Helper()
		runs, err := m.LastRuns()
		if err != nil || len(runs) > 1 {
			t.Fatalf("LastRuns = %+v, %v", runs, err)
		}
		if len(runs) == 0 {
			return "none"
		}
		return runs[0].LastError
	}
	if _, err := b.backup(backup.BackupRequest{App: "slip"}); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if got := last(b.m); got != "none" {
		t.Errorf("after a slip of the name: %q, want nothing", got)
	}
	b.fails("capture")
	if _, err := b.backup(backup.BackupRequest{}); err == nil {
		t.Fatal("no error")
	}
	if got := last(b.m); !strings.Contains(got, "capture shop") {
		t.Errorf("after an engine that failed: %q", got)
	}
	b.heals()
	if _, err := b.backup(backup.BackupRequest{}); err != nil {
		t.Fatal(err)
	}
	// with a second platform nobody knows where the app is while one is down
	other := backuptest.NewPlatform("self", backuptest.NewEngine(filepath.Join(b.dir, "other.json")))
	m, err := backup.NewManager(backup.Config{
		Dir: filepath.Join(b.dir, "backup"), Platforms: []backup.Platform{b.platform, other}, Stores: map[string]backup.Store{"local": b.store},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	b.fails("list")
	if _, err := m.Backup(t.Context(), nil, backup.BackupRequest{App: "shop", Encryption: "none"}); err == nil {
		t.Fatal("no error")
	}
	if got := last(m); !strings.Contains(got, "find app") {
		t.Errorf("after an engine that is down: %q", got)
	}
	b.heals()
	if err := b.engine.Remove("shop"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Backup(t.Context(), nil, backup.BackupRequest{App: "shop", Encryption: "none"}); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if got := last(m); !strings.Contains(got, "no app") {
		t.Errorf("after the app has gone: %q", got)
	}
}

// A journal in a folder that nobody looks into any more would leave its app stopped.
func TestConfigureStrandsNoJournal(t *testing.T) {
	b := newBench(t)
	cfg := backup.Config{Dir: filepath.Join(b.dir, "elsewhere"), Platforms: []backup.Platform{b.platform}, Stores: map[string]backup.Store{"local": b.store}}
	dead := filepath.Join(b.dir, "backup", "journal", "aaaaaaaaaaaa.ndjson")
	if err := os.WriteFile(dead, []byte(`{"id":"aaaaaaaaaaaa","kind":"backup","platform":"docker:gone","app":"photos","time":"2026-11-24T10:00:00Z"}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.m.Configure(cfg); backup.HintOf(err) == "" {
		t.Errorf("Configure = %v, want a refusal that says what to do", err)
	}
	link := filepath.Join(b.dir, "link")
	if err := os.Symlink(filepath.Join(b.dir, "backup"), link); err != nil {
		t.Fatal(err)
	}
	same := cfg
	same.Dir = link
	if err := b.m.Configure(same); err != nil {
		t.Errorf("Configure with another name of the folder = %v", err)
	}
	if err := os.Remove(dead); err != nil {
		t.Fatal(err)
	}
	if err := b.m.Configure(cfg); err != nil {
		t.Errorf("Configure = %v, want the other folder in use", err)
	}
}

// Estimates push no other jobs out.
func TestEstimatesAreKeptApart(t *testing.T) {
	b := newBench(t)
	var ended []string
	m, err := backup.NewManager(backup.Config{
		Dir: filepath.Join(b.dir, "backup"), Platforms: []backup.Platform{b.platform}, Stores: map[string]backup.Store{"local": b.store},
		Ended: func(v backup.JobView) { ended = append(ended, v.Kind) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	if _, err := m.Backup(t.Context(), nil, backup.BackupRequest{App: "shop", Encryption: "none"}); err != nil {
		t.Fatal(err)
	}
	for range 60 {
		if _, err := m.Backup(t.Context(), nil, backup.BackupRequest{App: "shop", Encryption: "none", DryRun: true}); err != nil {
			t.Fatal(err)
		}
	}
	jobs := m.Jobs()
	if len(jobs) > 20 || !slices.ContainsFunc(jobs, func(v backup.JobView) bool { return v.Kind == "backup" }) {
		t.Errorf("%d jobs are kept, want the backup among a few", len(jobs))
	}
	if ended[0] != "backup" || ended[1] != "estimate" {
		t.Errorf("ended %q, want a backup and then estimates", ended)
	}
}

// A question that is answered no, or by cancelling, is no failure of the app.
func TestConfirmEnds(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithTimeout(t.Context(), waitMost)
	defer cancel()
	never := make(chan struct{})
	defer close(never)
	_, err := b.m.Backup(ctx, nil, backup.BackupRequest{App: "shop", Confirm: func(*backup.App, *backup.Estimate) error {
		cancel()
		<-never
		return nil
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Backup = %v, want that it was cancelled", err)
	}
	b.clean()
}
