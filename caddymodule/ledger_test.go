package caddymodule

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/certmagic"
	"github.com/dentropy/dentropycloud/discovery"
)

type nobody struct{}

func (nobody) Apply([]discovery.Change) {}

// TestLedgerSurvives writes owners, ends, and reads them in another life; writes
// that fail at first are made up for.
func TestLedgerSurvives(t *testing.T) {
	storage := &flakyStorage{Storage: &certmagic.FileStorage{Path: t.TempDir()}}
	l := newLedger(slog.New(slog.DiscardHandler))
	reg := discovery.NewRegistry(discovery.Options{Sink: nobody{}})
	defer reg.Close()
	if err := l.open(storage, reg); err != nil {
		t.Fatal(err)
	}
	const n = 600
	storage.fail.Store(3)
	for i := range n {
		l.set(fmt.Sprintf("h%d.test", i), &discovery.OwnerRecord{Scope: fmt.Sprintf("docker/p%d/*", i)})
	}
	l.set("h0.test", nil)
	eventually(t, "the faults are used up", func() bool {
		select {
		case l.wake <- struct{}{}:
		default:
		}
		return storage.fail.Load() <= 0
	})
	l.close()

	again := newLedger(slog.New(slog.DiscardHandler))
	defer again.close()
	owners := map[string]discovery.OwnerRecord{}
	second := discovery.NewRegistry(discovery.Options{Sink: nobody{}, Owned: func(h string, r *discovery.OwnerRecord) {
		if r != nil {
			owners[h] = *r
		}
	}})
	defer second.Close()
	if err := again.open(storage, second); err != nil {
		t.Fatal(err)
	}
	got := 0
	for _, shard := range again.shards {
		got += len(shard)
	}
	if got != n-1 {
		t.Errorf("%d owners were read, want %d", got, n-1)
	}
	// a stranger asks: the remembered owner has it
	second.Source("docker").Set(discovery.Object{ID: "x", Name: "x", Group: discovery.Group{Engine: "docker", Service: "x"}, Routes: []discovery.Route{{Hosts: []string{"h7.test"}}}})
	if v := second.RoutesFor("h7.test"); len(v) != 1 || v[0].State != "refused" {
		t.Errorf("views = %+v, want the stranger refused", v)
	}
}

type flakyStorage struct {
	certmagic.Storage
	fail atomic.Int64
}

func (f *flakyStorage) Store(ctx context.Context, key string, value []byte) error {
	if f.fail.Add(-1) >= 0 {
		return errWrong
	}
	return f.Storage.Store(ctx, key, value)
}

func TestJournalKeepsTheLast(t *testing.T) {
	j := newJournal()
	for i := range journalLength + 10 {
		j.add(Event{Text: fmt.Sprint(i)})
	}
	kept := j.last(0)
	if len(kept) != journalLength || kept[0].Text != "10" || kept[len(kept)-1].Seq != journalLength+10 {
		t.Errorf("kept %d from %q to %d", len(kept), kept[0].Text, kept[len(kept)-1].Seq)
	}
	if rest := j.last(journalLength + 8); len(rest) != 2 {
		t.Errorf("%d events since, want 2", len(rest))
	}
}
