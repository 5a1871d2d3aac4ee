//go:build unix

package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/backuptest"
	"github.com/dentropy/dentropycloud/backup/local"
)

// victimEnv makes the test binary a process that works in a folder until it is killed:
// "<folder> <kind> <n>", where n counts the steps until then.
const victimEnv = "DENTROPY_TEST_VICTIM"

func TestMain(m *testing.M) {
	if text := os.Getenv(victimEnv); text != "" {
		victim(strings.Fields(text))
		return
	}
	m.Run()
}

// victimManager is a manager on what is in a folder.
func victimManager(dir string) (*backup.Manager, *backuptest.Platform, backup.Store, error) {
	store, err := local.New(filepath.Join(dir, "store"))
	if err != nil {
		return nil, nil, nil, err
	}
	keys, err := backup.OpenKeys(filepath.Join(dir, "keys"))
	if err == nil {
		_, err = keys.Ensure()
	}
	if err != nil {
		return nil, nil, nil, err
	}
	p := backuptest.NewPlatform("docker", backuptest.NewEngine(filepath.Join(dir, "engine.json")))
	m, err := backup.NewManager(backup.Config{
		Dir: filepath.Join(dir, "backup"), Platforms: []backup.Platform{p}, Stores: map[string]backup.Store{"local": store}, Keys: keys,
	})
	return m, p, store, err
}

// victim backs up, restores or undoes, and kills itself before the n-th step. It returns
// where it was done before.
func victim(args []string) {
	dir, kind := args[0], args[1]
	n, err := strconv.Atoi(args[2])
	if err != nil {
		panic(err)
	}
	m, p, store, err := victimManager(dir)
	if err != nil {
		panic(err)
	}
	p.Step = func(string) error {
		if n--; n < 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	}
	switch kind {
	case "backup":
		_, err = m.Backup(context.Background(), nil, backup.BackupRequest{App: "shop"})
	case "restore":
		list, lerr := store.List(context.Background())
		if lerr != nil || len(list) != 1 {
			panic(fmt.Sprint(list, lerr))
		}
		o, oerr := store.Open(context.Background(), list[0].Name)
		ids, ierr := m.Identities()
		if oerr != nil || ierr != nil {
			panic(errors.Join(oerr, ierr))
		}
		in, rerr := backup.NewReader(o, ids...)
		if rerr != nil {
			panic(rerr)
		}
		_, err = m.Restore(context.Background(), nil, in, backup.Answers{OnConflict: "replace"}, backup.ApplyOptions{})
	case "undo":
		err = m.Undo(context.Background(), nil, "", "shop")
	}
	if err != nil {
		panic(err)
	}
}

// kill runs a victim; over says that it was done before it was killed.
func kill(t *testing.T, dir, kind string, n int) (over bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d", victimEnv, dir, kind, n))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err == nil {
		return true
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL {
			return false
		}
	}
	t.Fatalf("%s: %v\n%s", kind, err, out.String())
	return false
}

// world makes what a victim works on.
func victimWorld(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	app, volumes := shop()
	if err := backuptest.NewEngine(filepath.Join(dir, "engine.json")).Add(app, volumes); err != nil {
		t.Fatal(err)
	}
	return dir
}

// copyOf gives each test a world of its own that was prepared once: processes are what
// these tests spend their time on.
func copyOf(t *testing.T, world string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(world)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// changedWorld is a world with an archive, and an app that has changed since.
func changedWorld(t *testing.T) string {
	t.Helper()
	dir := victimWorld(t)
	kill(t, dir, "backup", 1000)
	if err := backuptest.NewEngine(filepath.Join(dir, "engine.json")).Write("data", "rows", "changed"); err != nil {
		t.Fatal(err)
	}
	return dir
}

// recovered lets a new process take over, and gives a bench to look at what there is.
func recovered(t *testing.T, dir string) *bench {
	t.Helper()
	m, p, store, err := victimManager(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	b := &bench{t: t, dir: dir, engine: backuptest.NewEngine(filepath.Join(dir, "engine.json")), platform: p, store: new(backuptest.Store), m: m}
	if err := m.Recover(t.Context()); err != nil {
		t.Errorf("Recover = %v", err)
	}
	if err := m.Recover(t.Context()); err != nil {
		t.Errorf("Recover again = %v", err)
	}
	b.clean()
	// what can be seen in the store is whole
	list, err := store.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if err := b.open(e.Name).Finish(t.Context()); err != nil {
			t.Errorf("archive %s: %v", e.Name, err)
		}
	}
	return b
}

// Killed before any step of a backup, the app runs again, and the next backup is good.
func TestKillDuringBackup(t *testing.T) {
	for n, over := 0, false; !over; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			dir := victimWorld(t)
			over = kill(t, dir, "backup", n)
			b := recovered(t, dir)
			b.running("shop")
			b.data()
			if _, err := b.backup(backup.BackupRequest{}); err != nil {
				t.Errorf("the next backup: %v", err)
			}
		})
		if n > 100 {
			t.Fatal("it never ends")
		}
	}
}

// Killed before any step of a restore, there is the old app or the new one, whole; the
// new one can be undone.
func TestKillDuringRestore(t *testing.T) {
	world := changedWorld(t)
	for n, over := 0, false; !over; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			dir := copyOf(t, world)
			engine := backuptest.NewEngine(filepath.Join(dir, "engine.json"))
			over = kill(t, dir, "restore", n)
			b := recovered(t, dir)
			b.running("shop")
			files, err := engine.Files("data")
			if err != nil {
				t.Fatal(err)
			}
			undos, err := b.m.Undos()
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case files["rows"] == "changed" && len(undos) == 0 && !over:
				return // taken back
			case files["rows"] == "changed", len(undos) != 1:
				t.Fatalf("rows changed = %v, %d undos, done = %v", files["rows"] == "changed", len(undos), over)
			}
			b.data()
			if err := b.m.Undo(t.Context(), nil, "", "shop"); err != nil {
				t.Fatal(err)
			}
			if files, err := engine.Files("data"); err != nil || files["rows"] != "changed" {
				t.Errorf("after the undo: %v, %v", files["rows"] == "changed", err)
			}
		})
		if n > 100 {
			t.Fatal("it never ends")
		}
	}
}

func TestKillDuringUndo(t *testing.T) {
	world := changedWorld(t)
	kill(t, world, "restore", 1000)
	for n, over := 0, false; !over; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			dir := copyOf(t, world)
			engine := backuptest.NewEngine(filepath.Join(dir, "engine.json"))
			over = kill(t, dir, "undo", n)
			b := recovered(t, dir)
			b.running("shop")
			undos, err := b.m.Undos()
			if err != nil {
				t.Fatal(err)
			}
			if len(undos) > 0 {
				if err := b.m.Undo(t.Context(), nil, "", "shop"); err != nil {
					t.Fatal(err)
				}
			}
			if files, err := engine.Files("data"); err != nil || files["rows"] != "changed" {
				t.Errorf("after the undo: %v, %v", files["rows"] == "changed", err)
			}
		})
		if n > 100 {
			t.Fatal("it never ends")
		}
	}
}

// A new operation on an app finishes what was left behind of it first.
func TestNextOperationRecovers(t *testing.T) {
	dir := victimWorld(t)
	const afterStop = 7
	kill(t, dir, "backup", afterStop)
	m, p, _, err := victimManager(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	var healed atomic.Bool // recovery runs on its own meanwhile
	p.Step = func(step string) error {
		if step == "recover" && !healed.Load() {
			return errWrong
		}
		return nil
	}
	if _, err := m.Backup(t.Context(), nil, backup.BackupRequest{App: "shop"}); !errors.Is(err, errWrong) || backup.HintOf(err) == "" {
		t.Errorf("Backup where recovery fails = %v, want that with a hint", err)
	}
	healed.Store(true)
	res, err := m.Backup(t.Context(), nil, backup.BackupRequest{App: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(res.Quiesce.Stopped); n != 2 {
		t.Errorf("%d containers were stopped, want both that ran before the crash", n)
	}
	if running, err := backuptest.NewEngine(filepath.Join(dir, "engine.json")).Running("shop"); err != nil || len(running) != 2 {
		t.Errorf("running = %v, %v", running, err)
	}
}

// Recovery goes on until the engine answers; what can never be finished is an error at
// once, and stays.
func TestRecoverTriesAgain(t *testing.T) {
	dir := victimWorld(t)
	kill(t, dir, "backup", 7)
	m, p, _, err := victimManager(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	tries := 0
	p.Step = func(step string) error {
		if step == "recover" {
			if tries++; tries < 2 {
				if n := m.LeftStopped(); n != 1 {
					t.Errorf("LeftStopped = %d, want 1", n)
				}
				return errWrong
			}
		}
		return nil
	}
	if err := m.Recover(t.Context()); err != nil || tries != 2 || m.LeftStopped() != 0 {
		t.Errorf("Recover = %v after %d tries, %d left", err, tries, m.LeftStopped())
	}

	kill(t, dir, "backup", 7)
	other, err := backup.NewManager(backup.Config{Dir: filepath.Join(dir, "backup")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	if err := other.Recover(t.Context()); !errors.Is(err, fs.ErrNotExist) || other.LeftStopped() != 1 {
		t.Errorf("Recover without the platform = %v, %d left, want that it is missing, and 1", err, other.LeftStopped())
	}
	if err := os.WriteFile(filepath.Join(dir, "backup", "journal", "ffffffffffff.ndjson"), []byte("garbage\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Recover(t.Context()); err == nil || m.LeftStopped() != 1 {
		t.Errorf("Recover with a journal of garbage = %v, %d left, want an error, and 1", err, m.LeftStopped())
	}
}

// Two processes do not work on one app.
func TestLockAcrossProcesses(t *testing.T) {
	dir := victimWorld(t)
	m, p, _, err := victimManager(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	p.Step = func(step string) error {
		if step != "read:data" {
			return nil
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s backup 1000", victimEnv, dir))
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "under way (process "+strconv.Itoa(os.Getpid())) {
			t.Errorf("a second process: %v\n%s", err, out)
		}
		return nil
	}
	if _, err := m.Backup(t.Context(), nil, backup.BackupRequest{App: "shop"}); err != nil {
		t.Error(err)
	}
}
