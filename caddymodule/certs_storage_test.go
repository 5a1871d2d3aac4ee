package caddymodule

import (
	"context"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/caddyserver/certmagic"
)

// memStorage is storage in memory. Unlike files it works in synctest bubbles,
// where certmagic's lock files would keep a goroutine.
type memStorage struct {
	mu    sync.Mutex // guards the rest
	data  map[string][]byte
	locks map[string]chan struct{}
	fault func(op, key string) error // may fail or stall an operation
}

func newMemStorage() *memStorage {
	return &memStorage{data: make(map[string][]byte), locks: make(map[string]chan struct{})}
}

func (m *memStorage) faulty(f func(op, key string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

// begin gives the fault of an operation, then locks.
func (m *memStorage) begin(op, key string) error {
	m.mu.Lock()
	fault := m.fault
	m.mu.Unlock()
	if fault != nil {
		if err := fault(op, key); err != nil {
			return err
		}
	}
	m.mu.Lock()
	return nil
}

func (m *memStorage) Store(_ context.Context, key string, value []byte) error {
	if err := m.begin("store", key); err != nil {
		return err
	}
	defer m.mu.Unlock()
	m.data[key] = slices.Clone(value)
	return nil
}

func (m *memStorage) Load(_ context.Context, key string) ([]byte, error) {
	if err := m.begin("load", key); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	v, ok := m.data[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(v), nil
}

func (m *memStorage) Delete(_ context.Context, key string) error {
	if err := m.begin("delete", key); err != nil {
		return err
	}
	defer m.mu.Unlock()
	maps.DeleteFunc(m.data, func(k string, _ []byte) bool { return k == key || strings.HasPrefix(k, key+"/") })
	return nil
}

func (m *memStorage) Exists(_ context.Context, key string) bool {
	if m.begin("exists", key) != nil {
		return false
	}
	defer m.mu.Unlock()
	_, ok := m.data[key]
	return ok
}

func (m *memStorage) List(_ context.Context, path string, _ bool) ([]string, error) {
	if err := m.begin("list", path); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var keys []string
	for k := range m.data {
		if strings.HasPrefix(k, path+"/") {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

func (m *memStorage) Stat(_ context.Context, key string) (certmagic.KeyInfo, error) {
	if err := m.begin("stat", key); err != nil {
		return certmagic.KeyInfo{}, err
	}
	defer m.mu.Unlock()
	v, ok := m.data[key]
	if !ok {
		return certmagic.KeyInfo{}, fs.ErrNotExist
	}
	return certmagic.KeyInfo{Key: key, Size: int64(len(v)), IsTerminal: true}, nil
}

func (m *memStorage) Lock(ctx context.Context, name string) error {
	if err := m.begin("lock", name); err != nil {
		return err
	}
	lock := m.locks[name]
	if lock == nil {
		lock = make(chan struct{}, 1)
		m.locks[name] = lock
	}
	m.mu.Unlock()
	select {
	case lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *memStorage) Unlock(_ context.Context, name string) error {
	m.mu.Lock()
	lock := m.locks[name]
	m.mu.Unlock()
	<-lock
	return nil
}
