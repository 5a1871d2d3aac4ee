package backup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Whoever has only just taken an app's lock, or lets go of it, has not said who it is:
// that moment is waited for. One that has said so is not.
func TestLockWaitsForTheNameless(t *testing.T) {
	m, err := NewManager(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	job, err := m.NewJob(kindBackup, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	op := &operation{m: m, cfg: m.config(), job: job, ctx: ctx, kind: kindBackup}
	dir := filepath.Join(op.cfg.Dir, dirLocks)

	held, err := lockApp(dir, "docker", "shop", lockHolder{PID: os.Getpid(), Op: "0123456789ab", Kind: kindBackup})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := op.lockApp("docker", "shop"); !errors.Is(err, ErrLocked) {
		t.Fatalf("lockApp while a backup has the lock = %v, want ErrLocked", err)
	}
	if err := held.f.Truncate(0); err != nil { // as at both ends of an operation
		t.Fatal(err)
	}
	go func() {
		time.AfterFunc(20*time.Millisecond, held.release)
	}()
	lock, err := op.lockApp("docker", "shop")
	if err != nil {
		t.Fatalf("lockApp while nobody says who has the lock = %v, want it a moment later", err)
	}
	cancel()
	if _, err := op.lockApp("docker", "shop"); err == nil || errors.Is(err, context.Canceled) == errors.Is(err, ErrLocked) {
		t.Errorf("lockApp of a cancelled operation = %v, want one of both reasons", err)
	}
	lock.release()
}
