package caddymodule

import (
	"context"
	"sync"
	"time"
)

// Event is one thing that happened, as GET /dentropy/events streams it.
type Event struct {
	// Seq counts events from 1 since the program started.
	Seq  int64     `json:"seq"`
	Time time.Time `json:"time"`
	// Kind is route, upstream, certificate, source, config, backup or restore.
	Kind   string `json:"kind"`
	Host   string `json:"host,omitempty"`
	Object string `json:"object,omitempty"`
	Text   string `json:"text"`
	Error  string `json:"error,omitempty"`
}

// journal keeps the last events and passes new ones on. A subscriber that does
// not read is left behind, never waited for.
type journal struct {
	mu   sync.Mutex
	seq  int64
	ring [journalLength]Event
	subs map[chan Event]struct{}
}

// journalLength is enough for the events of one deployment of a large compose
// project to be looked at afterwards.
const journalLength = 512

// journalBuffer is how far a subscriber may lag behind.
const journalBuffer = 256

func newJournal() *journal { return &journal{subs: map[chan Event]struct{}{}} }

func (j *journal) add(e Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.seq++
	e.Seq, e.Time = j.seq, time.Now().UTC()
	j.ring[j.seq%journalLength] = e
	for c := range j.subs {
		select {
		case c <- e:
		default: // the gap shows in Seq
		}
	}
}

// last gives the events after seq that are still kept, oldest first.
func (j *journal) last(seq int64) []Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lastLocked(seq)
}

func (j *journal) lastLocked(seq int64) []Event {
	out := []Event{}
	for s := max(seq+1, j.seq-journalLength+1, 1); s <= j.seq; s++ {
		out = append(out, j.ring[s%journalLength])
	}
	return out
}

// subscribe gives the kept events after seq, and a channel with all that follow
// until ctx ends.
func (j *journal) subscribe(ctx context.Context, seq int64) ([]Event, <-chan Event) {
	c := make(chan Event, journalBuffer)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.subs[c] = struct{}{}
	context.AfterFunc(ctx, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		delete(j.subs, c)
	})
	return j.lastLocked(seq), c
}
