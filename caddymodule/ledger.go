package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/dentropy/dentropycloud/discovery"
)

// ledger remembers in Caddy's storage who owns which host. Hosts are spread over
// a fixed number of files by hash, so that one change rewrites a small file
// however many hosts there are. Writing happens behind the caller's back, each
// change at once; changes to one file that queue up while it is written are
// written together.
type ledger struct {
	log *slog.Logger

	mu      sync.Mutex
	storage certmagic.Storage // nil until opened
	shards  [ledgerShards]map[string]discovery.OwnerRecord
	dirty   map[int]bool
	wake    chan struct{}
	cancel  context.CancelFunc
	done    chan struct{}
}

// ledgerShards: with 10,000 hosts a file has 40 of them, 6 KB.
const ledgerShards = 256

// ledgerRetry is the pause after a write that failed.
const ledgerRetry = 5 * time.Second

func newLedger(log *slog.Logger) *ledger {
	l := &ledger{log: log, dirty: map[int]bool{}, wake: make(chan struct{}, 1), done: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	go l.write(ctx)
	return l
}

func shardKey(i int) string { return fmt.Sprintf("dentropy/owners/%02x.json", i) }

func shardOf(host string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(host)) // a hash never fails
	return int(h.Sum32() % ledgerShards)
}

// open reads what is remembered, the first time; later it only follows a config
// to another storage.
func (l *ledger) open(storage certmagic.Storage, registry *discovery.Registry) error {
	l.mu.Lock()
	first := l.storage == nil
	l.storage = storage
	l.mu.Unlock()
	if !first {
		return nil
	}
	keys, err := storage.List(context.Background(), "dentropy/owners", false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list owners: %w", err)
	}
	all := map[string]discovery.OwnerRecord{}
	var errs []error
	for _, key := range keys {
		b, err := storage.Load(context.Background(), key)
		if err != nil {
			errs = append(errs, fmt.Errorf("read %s: %w", key, err))
			continue
		}
		var shard map[string]discovery.OwnerRecord
		if err := json.Unmarshal(b, &shard); err != nil {
			errs = append(errs, fmt.Errorf("read %s: %w", key, err))
			continue
		}
		for host, rec := range shard {
			all[host] = rec
		}
	}
	l.mu.Lock()
	for host, rec := range all {
		l.putLocked(host, &rec)
	}
	l.mu.Unlock()
	registry.LoadOwners(all)
	return errors.Join(errs...)
}

// set notes a change and has it written. It does not block.
func (l *ledger) set(host string, rec *discovery.OwnerRecord) {
	l.mu.Lock()
	i := l.putLocked(host, rec)
	l.dirty[i] = true
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *ledger) putLocked(host string, rec *discovery.OwnerRecord) int {
	i := shardOf(host)
	if l.shards[i] == nil {
		l.shards[i] = map[string]discovery.OwnerRecord{}
	}
	if rec == nil {
		delete(l.shards[i], host)
	} else {
		l.shards[i][host] = *rec
	}
	return i
}

func (l *ledger) write(ctx context.Context) {
	defer close(l.done)
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			if err := l.flush(); err != nil {
				l.log.Error("owners of hosts are not remembered", "error", err)
			}
			return
		case <-l.wake:
		case <-retry.C:
		}
		if err := l.flush(); err != nil {
			l.log.Error("owners of hosts cannot be remembered, trying again", "error", err)
			retry.Reset(ledgerRetry)
		}
	}
}

// flush writes what changed. What could not be written stays marked.
func (l *ledger) flush() error {
	for {
		l.mu.Lock()
		storage, shard := l.storage, -1
		for i := range l.dirty {
			shard = i
			break
		}
		if storage == nil || shard < 0 {
			l.mu.Unlock()
			return nil
		}
		delete(l.dirty, shard)
		b, err := json.Marshal(l.shards[shard])
		empty := len(l.shards[shard]) == 0
		l.mu.Unlock()
		if err == nil {
			err = save(storage, shardKey(shard), b, empty)
		}
		if err != nil {
			l.mu.Lock()
			l.dirty[shard] = true
			l.mu.Unlock()
			return err
		}
	}
}

func save(storage certmagic.Storage, key string, b []byte, empty bool) error {
	ctx := context.Background()
	if !empty {
		return storage.Store(ctx, key, b)
	}
	if err := storage.Delete(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// close writes what is left and ends the writer.
func (l *ledger) close() {
	l.cancel()
	<-l.done
}
