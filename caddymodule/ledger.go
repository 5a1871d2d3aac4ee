package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
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

	mu      sync.Mutex        // guards all up to dirty
	storage certmagic.Storage // nil until opened
	shards  [ledgerShards]map[string]discovery.OwnerRecord
	// unread are the shards that could not be read yet, with the hosts that have
	// changed in them: the rest of their files is not to be overwritten.
	unread map[int]map[string]bool
	dirty  map[int]bool

	wake   chan struct{}
	cancel context.CancelFunc
	done   chan struct{}
}

// ledgerShards: with 10,000 hosts a file has 40 of them, 6 KB.
const ledgerShards = 256

// ledgerRetry is the pause after a write that failed.
const ledgerRetry = 5 * time.Second

func newLedger(log *slog.Logger) *ledger {
	l := &ledger{log: log, unread: map[int]map[string]bool{}, dirty: map[int]bool{}, wake: make(chan struct{}, 1), done: make(chan struct{})}
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
// to another storage. Owners that cannot be read are lost to this life, not to
// the next.
func (l *ledger) open(storage certmagic.Storage, registry *discovery.Registry) error {
	if !l.follow(storage) {
		return nil
	}
	keys, err := storage.List(context.Background(), "dentropy/owners", false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	all := map[string]discovery.OwnerRecord{}
	var errs []error
	if err != nil {
		errs = append(errs, fmt.Errorf("list owners: %w", err))
	}
	l.mu.Lock()
	for i := range ledgerShards {
		if err != nil || slices.Contains(keys, shardKey(i)) {
			l.unread[i] = map[string]bool{}
		}
	}
	l.mu.Unlock()
	for i := range ledgerShards {
		if err != nil || !slices.Contains(keys, shardKey(i)) {
			continue
		}
		shard, err := l.catchUp(storage, i)
		if err != nil {
			errs = append(errs, err)
		}
		maps.Copy(all, shard)
	}
	registry.LoadOwners(all)
	return errors.Join(errs...)
}

// follow writes to storage from now on; first says that it is the first one. Where
// it is another place than before, all that is known goes there.
func (l *ledger) follow(storage certmagic.Storage) (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.storage
	l.storage = storage
	if before == nil || samePlace(before, storage) {
		return before == nil
	}
	for i, shard := range l.shards {
		if len(shard) > 0 {
			l.dirty[i] = true
		}
	}
	l.wakeUp()
	return false
}

// samePlace reports whether two storages of two configs are one. Most say what
// they are in a word; where that is not known, writing again does no harm.
func samePlace(a, b certmagic.Storage) bool {
	return fmt.Sprintf("%T %v", a, a) == fmt.Sprintf("%T %v", b, b)
}

// catchUp reads a shard that has not been read, all but what has changed in it
// meanwhile. A file that makes no sense counts as read: it will not get better.
func (l *ledger) catchUp(storage certmagic.Storage, i int) (shard map[string]discovery.OwnerRecord, err error) {
	b, err := storage.Load(context.Background(), shardKey(i))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", shardKey(i), err)
	default:
		if err = json.Unmarshal(b, &shard); err != nil {
			shard, err = nil, fmt.Errorf("read %s: %w", shardKey(i), err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for host, rec := range shard {
		if !l.unread[i][host] {
			l.putLocked(host, &rec)
		}
	}
	delete(l.unread, i)
	return shard, err
}

// set notes a change and has it written. It does not block.
func (l *ledger) set(host string, rec *discovery.OwnerRecord) {
	l.mu.Lock()
	i := l.putLocked(host, rec)
	if changed := l.unread[i]; changed != nil {
		changed[host] = true
	}
	l.dirty[i] = true
	l.mu.Unlock()
	l.wakeUp()
}

func (l *ledger) wakeUp() {
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
	l.mu.Lock()
	storage, shards := l.storage, slices.Collect(maps.Keys(l.dirty))
	l.mu.Unlock()
	if storage == nil {
		return nil
	}
	var errs []error
	for _, i := range shards {
		if err := l.flushShard(storage, i); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (l *ledger) flushShard(storage certmagic.Storage, i int) error {
	l.mu.Lock()
	unread := l.unread[i] != nil
	l.mu.Unlock()
	if unread {
		if _, err := l.catchUp(storage, i); err != nil {
			return err // where it was garbage, the next time writes over it
		}
	}
	l.mu.Lock()
	delete(l.dirty, i)
	b, err := json.Marshal(l.shards[i])
	empty := len(l.shards[i]) == 0
	l.mu.Unlock()
	if err == nil {
		err = save(storage, shardKey(i), b, empty)
	}
	if err != nil {
		l.mu.Lock()
		l.dirty[i] = true
		l.mu.Unlock()
	}
	return err
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
