package backuptest

import (
	"context"
	"io"
	"sync"
	"sync/atomic"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/storetest"
)

// Store is a backup.Store in memory. The zero value is ready for use.
type Store struct {
	// Step is called before each thing that is done, see storetest.Faulty. Its error is
	// that thing's. nil: all goes well.
	Step func(step string) error
	// Torn lets an archive that is read lose its last bytes.
	Torn bool

	memory  storetest.Memory
	uploads atomic.Int32
}

// faulty is the store with its faults as they are now.
func (s *Store) faulty() *storetest.Faulty {
	return &storetest.Faulty{Store: &s.memory, Fail: func(_ context.Context, step string) error {
		if s.Step == nil {
			return nil
		}
		return s.Step(step)
	}}
}

// String names the store.
func (s *Store) String() string { return s.memory.String() }

// Uploads counts those that are neither committed nor aborted.
func (s *Store) Uploads() int { return int(s.uploads.Load()) }

// Check succeeds, if no step fails.
func (s *Store) Check(ctx context.Context, need int64) error { return s.faulty().Check(ctx, need) }

// Create begins an archive.
func (s *Store) Create(ctx context.Context, name string) (backup.Upload, error) {
	u, err := s.faulty().Create(ctx, name)
	if err != nil {
		return nil, err
	}
	s.uploads.Add(1)
	return &upload{Upload: u, end: sync.OnceFunc(func() { s.uploads.Add(-1) })}, nil
}

type upload struct {
	backup.Upload
	end func()
}

func (u *upload) Commit() error {
	err := u.Upload.Commit()
	if err == nil {
		u.end()
	}
	return err
}

func (u *upload) Abort() error {
	u.end()
	return u.Upload.Abort()
}

// Open reads an archive.
func (s *Store) Open(ctx context.Context, name string) (backup.Object, error) {
	o, err := s.faulty().Open(ctx, name)
	if err != nil || !s.Torn {
		return o, err
	}
	return &torn{io.NewSectionReader(o, 0, o.Size()*9/10), o}, nil
}

type torn struct {
	*io.SectionReader
	io.Closer
}

// List gives the archives, sorted by name.
func (s *Store) List(ctx context.Context) ([]backup.Entity, error) { return s.faulty().List(ctx) }

// Remove deletes an archive.
func (s *Store) Remove(ctx context.Context, name string) error { return s.faulty().Remove(ctx, name) }

// Interface guards
var _ backup.Store = (*Store)(nil)
