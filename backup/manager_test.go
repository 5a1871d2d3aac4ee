package backup_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/backuptest"
)

// readOnly is a platform behind a proxy that lets nobody write.
type readOnly struct{ *backuptest.Platform }

func (readOnly) Writable(context.Context) error {
	return &backup.Problem{Message: "the engine is read-only", Hint: "let the proxy allow POST"}
}

func TestAppsOfSeveralPlatforms(t *testing.T) {
	b := newBench(t)
	twin := backuptest.NewPlatform("docker:nas", b.engine)
	dead := backuptest.NewPlatform("docker:dead", nil)
	dead.Step = func(string) error { return errWrong }
	other := backuptest.NewEngine(filepath.Join(b.dir, "other.json"))
	if err := other.Add(backuptest.App{Name: "wiki"}, nil); err != nil {
		t.Fatal(err)
	}
	m, err := backup.NewManager(backup.Config{
		Dir: t.TempDir(), Stores: map[string]backup.Store{"local": b.store},
		Platforms: []backup.Platform{b.platform, twin, dead, readOnly{backuptest.NewPlatform("docker:ro", other)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	apps, errs := m.Apps(t.Context())
	if len(apps) != 3 || len(errs) != 2 || !errors.Is(errs[0], errWrong) || backup.HintOf(errs[1]) == "" {
		t.Errorf("Apps = %+v, %v, want three apps, a dead engine and one that is read-only", apps, errs)
	}
	_, err = m.Capture(t.Context(), "shop", "", backup.CaptureOptions{})
	if !errors.Is(err, backup.ErrAmbiguous) || backup.HintOf(err) == "" {
		t.Errorf("an app on two platforms: %v, want ErrAmbiguous with a hint", err)
	}
	if app, err := m.Capture(t.Context(), "shop", "docker:nas", backup.CaptureOptions{}); err != nil || app.Platform != "docker:nas" {
		t.Errorf("with the platform: %v, %v", app, err)
	}
	if _, err := m.Capture(t.Context(), "wiki", "", backup.CaptureOptions{}); err != nil {
		t.Errorf("an app on one platform: %v", err)
	}
	// it may be on the engine that cannot be asked: not "there is none"
	if _, err := m.Capture(t.Context(), "nobody", "", backup.CaptureOptions{}); !errors.Is(err, errWrong) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an app that may be on the dead engine: %v, want why it cannot be known", err)
	}
}

func TestArchivesOfSeveralStores(t *testing.T) {
	b := newBench(t)
	dead := &backuptest.Store{Step: func(string) error { return errWrong }}
	m, err := backup.NewManager(backup.Config{Dir: t.TempDir(), Stores: map[string]backup.Store{"local": b.store, "dead": dead}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	all, err := m.Archives(t.Context(), "")
	if list, ok := all["local"]; !ok || list == nil || len(all) != 1 || !errors.Is(err, errWrong) {
		t.Errorf("Archives = %v, %v, want what can be listed, and the error", all, err)
	}
	if err := m.RemoveArchive(t.Context(), "local", "none.dentropy.tar"); !errors.Is(err, fs.ErrNotExist) || backup.HintOf(err) == "" {
		t.Errorf("RemoveArchive = %v, want fs.ErrNotExist with a hint", err)
	}
}

// Runs of many apps at once, of two managers, are all remembered.
func TestLastRunsAtOnce(t *testing.T) {
	b := newBench(t)
	other := b.manager()
	const apps = 8
	for i := range apps {
		name := fmt.Sprint("app", i)
		err := b.engine.Add(backuptest.App{Name: name, Containers: []backuptest.Container{{Name: "c" + name, Running: true}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for i := range apps {
		wg.Go(func() {
			m := []*backup.Manager{b.m, other}[i%2]
			if _, err := m.Backup(t.Context(), nil, backup.BackupRequest{App: fmt.Sprint("app", i)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	runs, err := b.m.LastRuns()
	if err != nil || len(runs) != apps {
		t.Errorf("LastRuns = %+v, %v, want %d", runs, err, apps)
	}
	b.clean()
}
