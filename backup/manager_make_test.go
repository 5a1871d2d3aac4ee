package backup_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/backuptest"
)

// errWrong is what goes wrong in tests.
var errWrong = errors.New("something is wrong")

// bench is a manager with an engine that runs the app "shop", and a store.
type bench struct {
	t        testing.TB
	dir      string
	engine   *backuptest.Engine
	platform *backuptest.Platform
	store    *backuptest.Store
	m        *backup.Manager
}

func shop() (backuptest.App, map[string]backuptest.Files) {
	return backuptest.App{Name: "shop", Containers: []backuptest.Container{
			{Name: "db", Running: true, Volumes: []string{"data"}, Env: map[string]string{"PASSWORD": "hunter2hunter2"}},
			{Name: "batch", Volumes: []string{"spool"}},
			{Name: "web", Running: true},
		}}, map[string]backuptest.Files{
			"data":  {"rows": strings.Repeat("a row\n", 3000), "empty": "", "sub/deep": "x"},
			"spool": {},
		}
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), store: new(backuptest.Store)}
	b.engine = backuptest.NewEngine(filepath.Join(b.dir, "engine.json"))
	app, volumes := shop()
	if err := b.engine.Add(app, volumes); err != nil {
		t.Fatal(err)
	}
	b.platform = backuptest.NewPlatform("docker", b.engine)
	b.m = b.manager()
	return b
}

// manager makes a further manager on the same folder.
func (b *bench) manager() *backup.Manager {
	b.t.Helper()
	keys, err := backup.OpenKeys(filepath.Join(b.dir, "keys"))
	if err == nil {
		_, err = keys.Ensure()
	}
	if err != nil {
		b.t.Fatal(err)
	}
	m, err := backup.NewManager(backup.Config{
		Dir: filepath.Join(b.dir, "backup"), Platforms: []backup.Platform{b.platform}, Stores: map[string]backup.Store{"local": b.store},
		Keys: keys, Tool: "dentropy test", Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = m.Close() })
	return m
}

// fails makes the step that begins like this fail, until heal is called: recovery may
// run meanwhile.
func (b *bench) fails(step string) (heal func()) {
	var healed atomic.Bool
	f := func(s string) error {
		if strings.HasPrefix(s, step) && !healed.Load() {
			return errWrong
		}
		return nil
	}
	b.platform.Step, b.store.Step = f, f
	return func() { healed.Store(true) }
}

func (b *bench) heals() { b.platform.Step, b.store.Step = nil, nil }

func (b *bench) backup(req backup.BackupRequest) (*backup.BackupResult, error) {
	if req.App == "" {
		req.App = "shop"
	}
	return b.m.Backup(b.t.Context(), nil, req)
}

// running checks that exactly what ran at the beginning runs.
func (b *bench) running(app string) {
	b.t.Helper()
	got, err := b.engine.Running(app)
	if want := []string{"db", "web"}; err != nil || !slices.Equal(got, want) {
		b.t.Errorf("running = %v, %v, want %v", got, err, want)
	}
}

// clean checks that no operation has left anything behind: no journal, nothing in
// transit, no upload, no temporary files.
func (b *bench) clean() {
	b.t.Helper()
	for _, dir := range []string{"journal", "tmp"} {
		if list, err := os.ReadDir(filepath.Join(b.dir, "backup", dir)); err != nil || len(list) > 0 {
			b.t.Errorf("%s holds %v, %v, want nothing", dir, list, err)
		}
	}
	if ops, err := b.engine.Transit(); err != nil || len(ops) > 0 {
		b.t.Errorf("in transit: %v, %v, want nothing", ops, err)
	}
	if n := b.store.Uploads(); n != 0 {
		b.t.Errorf("%d uploads are neither committed nor aborted", n)
	}
	if n := b.m.LeftStopped(); n != 0 {
		b.t.Errorf("LeftStopped = %d, want 0", n)
	}
}

func (b *bench) archives() []string {
	b.t.Helper()
	step := b.store.Step
	b.store.Step = nil
	defer func() { b.store.Step = step }()
	all, err := b.m.Archives(b.t.Context(), "")
	if err != nil {
		b.t.Fatal(err)
	}
	var names []string
	for _, e := range all["local"] {
		names = append(names, e.Name)
	}
	return names
}

// open reads the head of an archive in the store.
func (b *bench) open(name string) *backup.Reader {
	b.t.Helper()
	o, err := b.m.OpenArchive(b.t.Context(), "", name)
	if err != nil {
		b.t.Fatal(err)
	}
	ids, err := b.m.Identities()
	if err != nil {
		b.t.Fatal(err)
	}
	in, err := backup.NewReader(o, ids...)
	if err != nil {
		b.t.Fatal(err)
	}
	return in
}

// data checks that the app's volumes hold what they held at the beginning.
func (b *bench) data() {
	b.t.Helper()
	_, want := shop()
	for name, files := range want {
		got, err := b.engine.Files(name)
		if err != nil || !maps.Equal(got, files) {
			b.t.Errorf("volume %s = %v, %v, want what was there", name, slices.Sorted(maps.Keys(got)), err)
		}
	}
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitMost)
	defer cancel()
	for !ok() {
		if !pause(ctx) {
			t.Fatalf("not in time: %s", what)
		}
	}
}
