package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/dentropy/dentropycloud/backup"
)

// Memory is a store in memory. The zero value is empty and ready for use.
type Memory struct {
	mu       sync.Mutex // guards archives
	archives map[string]memoryArchive
}

type memoryArchive struct {
	data     []byte
	modified time.Time
}

var _ backup.Store = (*Memory)(nil)

// String names the store.
func (*Memory) String() string { return "memory" }

// Check succeeds as long as ctx lasts.
func (*Memory) Check(ctx context.Context, _ int64) error { return ctx.Err() }

// Create begins an archive.
func (m *Memory) Create(ctx context.Context, name string) (backup.Upload, error) {
	if err := errors.Join(ctx.Err(), validName(name)); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.archives[name]; ok {
		return nil, fmt.Errorf("create %q: %w", name, fs.ErrExist)
	}
	return &memoryUpload{ctx: ctx, m: m, name: name}, nil
}

func validName(name string) error {
	_, err := backup.ParseArchiveName(name)
	return err
}

// memoryUpload is for one goroutine.
type memoryUpload struct {
	ctx  context.Context // for its lifetime
	m    *Memory
	name string
	buf  bytes.Buffer
	over bool
}

func (u *memoryUpload) Write(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.buf.Write(p)
}

func (u *memoryUpload) Commit() error {
	if u.over {
		return errors.New("commit: it is over already")
	}
	u.over = true
	if err := u.ctx.Err(); err != nil {
		return err
	}
	u.m.mu.Lock()
	defer u.m.mu.Unlock()
	if _, ok := u.m.archives[u.name]; ok {
		return fmt.Errorf("commit %q: %w", u.name, fs.ErrExist)
	}
	if u.m.archives == nil {
		u.m.archives = make(map[string]memoryArchive)
	}
	u.m.archives[u.name] = memoryArchive{data: bytes.Clone(u.buf.Bytes()), modified: time.Now()}
	return nil
}

func (u *memoryUpload) Abort() error {
	u.over = true
	return nil
}

// Open reads an archive.
func (m *Memory) Open(ctx context.Context, name string) (backup.Object, error) {
	if err := errors.Join(ctx.Err(), validName(name)); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.archives[name]
	if !ok {
		return nil, fmt.Errorf("open %q: %w", name, fs.ErrNotExist)
	}
	return &memoryObject{Reader: bytes.NewReader(a.data)}, nil
}

type memoryObject struct{ *bytes.Reader }

func (o *memoryObject) Size() int64 { return o.Reader.Size() }
func (*memoryObject) Close() error  { return nil }

// List gives the archives.
func (m *Memory) List(ctx context.Context) ([]backup.Entity, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	out := []backup.Entity{}
	for _, name := range slices.Sorted(maps.Keys(m.archives)) {
		a := m.archives[name]
		out = append(out, backup.Entity{Name: name, Size: int64(len(a.data)), Modified: a.modified})
	}
	return out, nil
}

// Remove deletes an archive.
func (m *Memory) Remove(ctx context.Context, name string) error {
	if err := errors.Join(ctx.Err(), validName(name)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.archives[name]; !ok {
		return fmt.Errorf("remove %q: %w", name, fs.ErrNotExist)
	}
	delete(m.archives, name)
	return nil
}
