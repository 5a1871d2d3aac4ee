package backup_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/backuptest"
)

// stalled gives some bytes and then nothing any more, until it is released. waits is
// closed when it is asked for what does not come.
type stalled struct {
	r        io.Reader
	waits    chan struct{}
	released chan struct{}
}

func newStalled(t *testing.T, b []byte) *stalled {
	s := &stalled{r: bytes.NewReader(b), waits: make(chan struct{}), released: make(chan struct{})}
	t.Cleanup(func() { close(s.released) })
	return s
}

func (s *stalled) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if errors.Is(err, io.EOF) {
		close(s.waits)
		<-s.released
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

func (s *stalled) Write(p []byte) (int, error) {
	close(s.waits)
	<-s.released
	return len(p), nil
}

// archiveOf makes an archive of the app in memory.
func (b *bench) archiveOf() []byte {
	b.t.Helper()
	var out bytes.Buffer
	if _, err := b.backup(backup.BackupRequest{Encryption: "none", Out: &out}); err != nil {
		b.t.Fatal(err)
	}
	return out.Bytes()
}

// A restore ends when it is cancelled, and with the manager, also while it waits for a
// stream that never goes on.
func TestRestoreFromStalledStream(t *testing.T) {
	for _, how := range []string{"cancelled", "client gone", "closed"} {
		t.Run(how, func(t *testing.T) {
			b := newBench(t)
			archive := b.archiveOf()
			s := newStalled(t, archive[:len(archive)-3000])
			in, err := backup.NewReader(s)
			if err != nil {
				t.Fatal(err)
			}
			job, err := b.m.NewJob("restore", "")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), waitMost)
			defer cancel()
			done := make(chan error, 1)
			go func() {
				_, err := b.m.Restore(ctx, job, in, backup.Answers{OnConflict: "replace"}, backup.ApplyOptions{})
				done <- err
			}()
			<-s.waits
			switch how {
			case "cancelled":
				job.Cancel()
			case "client gone":
				cancel()
			case "closed":
				_ = b.m.Close()
			}
			select {
			case err := <-done:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("Restore = %v, want that it was cancelled", err)
				}
			case <-time.After(waitMost):
				t.Fatal("the restore goes on waiting")
			}
			if v := job.View(); v.State != "cancelled" {
				t.Errorf("job = %+v, want it cancelled", v)
			}
			b.running("shop")
			b.data()
			b.clean()
		})
	}
}

func TestOpenReaderEnds(t *testing.T) {
	a := makeArchive(t, archiveOptions{encryption: "none", noImages: true})
	s := newStalled(t, a.bytes[:1000])
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-s.waits; cancel() }()
	if _, err := backup.OpenReader(ctx, s); !errors.Is(err, context.Canceled) {
		t.Errorf("OpenReader = %v, want that it was cancelled", err)
	}
}

// A backup ends when it is cancelled, also while nobody takes its archive.
func TestBackupToStalledReader(t *testing.T) {
	b := newBench(t)
	s := newStalled(t, nil)
	job, err := b.m.NewJob("backup", "")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := b.m.Backup(t.Context(), job, backup.BackupRequest{App: "shop", Encryption: "none", Out: s})
		done <- err
	}()
	<-s.waits
	job.Cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Backup = %v, want that it was cancelled", err)
		}
	case <-time.After(waitMost):
		t.Fatal("the backup goes on waiting")
	}
	b.running("shop")
	b.clean()
	if _, err := b.backup(backup.BackupRequest{}); err != nil {
		t.Errorf("the next backup: %v", err)
	}
}

// Whoever leaves a question open does not keep others from the app for ever.
func TestConfirmIsNotWaitedForForEver(t *testing.T) {
	dir := t.TempDir()
	engine := backuptest.NewEngine(filepath.Join(dir, "engine.json"))
	app, volumes := shop()
	if err := engine.Add(app, volumes); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		m, err := backup.NewManager(backup.Config{
			Dir: filepath.Join(dir, "backup"), Platforms: []backup.Platform{backuptest.NewPlatform("docker", engine)},
			Stores: map[string]backup.Store{"local": new(backuptest.Store)},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = m.Close() }()
		answered := make(chan struct{})
		began := time.Now()
		_, err = m.Backup(t.Context(), nil, backup.BackupRequest{App: "shop", Encryption: "none", Confirm: func(*backup.App, *backup.Estimate) error {
			<-answered
			return nil
		}})
		if backup.HintOf(err) == "" || time.Since(began) > time.Hour {
			t.Errorf("Backup = %v after %v, want within an hour that nobody answers", err, time.Since(began))
		}
		if _, err := m.Backup(t.Context(), nil, backup.BackupRequest{App: "shop", Encryption: "none"}); err != nil {
			t.Errorf("the next backup: %v", err)
		}
		close(answered)
		if runs, err := m.LastRuns(); err != nil || len(runs) != 1 || runs[0].LastError != "" {
			t.Errorf("LastRuns = %+v, %v, want the one that was made", runs, err)
		}
	})
}
