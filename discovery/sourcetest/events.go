package sourcetest

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"
)

// What dockerd does (moby daemon/events): it keeps so many events for since=, and
// gives each reader so much room and time before an event is dropped for it.
const (
	eventsKept  = 256
	eventsRoom  = 1024
	eventsGrace = 100 * time.Millisecond
)

// event is one message of the stream.
type event struct {
	kind, action string
	id           string
	attrs        map[string]string
	at           time.Time
	legacy, wire []byte // as JSON for API < 1.52 and from then on
}

type eventActor struct {
	ID         string            `json:"ID"`
	Attributes map[string]string `json:"Attributes"`
}

type eventWire struct {
	Status   string     `json:"status,omitempty"` // gone with API 1.52, as id and from
	ID       string     `json:"id,omitempty"`
	From     string     `json:"from,omitempty"`
	Type     string     `json:"Type"`
	Action   string     `json:"Action"`
	Actor    eventActor `json:"Actor"`
	Scope    string     `json:"scope"`
	Time     int64      `json:"time"`
	TimeNano int64      `json:"timeNano"`
}

func (ev *event) encode() {
	w := eventWire{
		Type: ev.kind, Action: ev.action, Actor: eventActor{ev.id, ev.attrs}, Scope: "local",
		Time: ev.at.Unix(), TimeNano: ev.at.UnixNano(),
	}
	ev.wire = mustJSON(w)
	if ev.kind == "container" {
		w.Status, w.ID, w.From = ev.action, ev.id, ev.attrs["image"]
	}
	ev.legacy = mustJSON(w)
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // the types of this package marshal
	}
	return append(b, '\n')
}

// hub hands events to readers, in order.
type hub struct {
	mu     sync.Mutex // guards all below
	kept   []event
	subs   map[*subscriber]struct{}
	drop   bool
	repeat int
	lost   int
	last   time.Time
}

type subscriber struct {
	types, actions []string
	ch             chan event
	gone           chan struct{} // closed to end the stream
}

func (s *subscriber) wants(ev event) bool {
	if len(s.types) > 0 && !slices.Contains(s.types, ev.kind) {
		return false
	}
	if len(s.actions) == 0 || slices.Contains(s.actions, ev.action) {
		return true
	}
	// moby #25798: with one of these in the filter, prefixes match too.
	if !slices.ContainsFunc(s.actions, func(a string) bool {
		return a == "health_status" || a == "exec_create" || a == "exec_start"
	}) {
		return false
	}
	return slices.ContainsFunc(s.actions, func(a string) bool { return strings.HasPrefix(ev.action, a) })
}

// publish sends events to all readers that want them. A reader that has no room
// left for eventsGrace misses the event, as with dockerd.
func (h *hub) publish(evs ...event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ev := range evs {
		if ev.at.IsZero() {
			ev.at = time.Now()
		}
		if !ev.at.After(h.last) { // coarse clocks: keep the times of events apart
			ev.at = h.last.Add(1)
		}
		h.last = ev.at
		ev.encode()
		if len(h.kept) == eventsKept {
			h.kept = append(h.kept[:0], h.kept[1:]...)
		}
		h.kept = append(h.kept, ev)
		if h.drop {
			continue
		}
		for s := range h.subs {
			if !s.wants(ev) {
				continue
			}
			for range max(1, h.repeat) {
				if !s.send(ev) {
					h.lost++
				}
			}
		}
	}
}

func (s *subscriber) send(ev event) bool {
	select {
	case s.ch <- ev:
		return true
	default:
	}
	t := time.NewTimer(eventsGrace)
	defer t.Stop()
	select {
	case s.ch <- ev:
		return true
	case <-s.gone:
		return false
	case <-t.C:
		return false
	}
}

// subscribe returns the kept events between since and until (zero: none are
// replayed), and unless until is given, a live stream.
func (h *hub) subscribe(s *subscriber, since, until time.Time) []event {
	h.mu.Lock()
	defer h.mu.Unlock()
	var past []event
	if !since.IsZero() || !until.IsZero() {
		for _, ev := range h.kept {
			if !ev.at.Before(since) && (until.IsZero() || !ev.at.After(until)) && s.wants(ev) {
				past = append(past, ev)
			}
		}
	}
	if h.subs == nil {
		h.subs = map[*subscriber]struct{}{}
	}
	h.subs[s] = struct{}{}
	return past
}

func (h *hub) unsubscribe(s *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subs, s)
}

func (h *hub) subscribers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.subs)
}

func (h *hub) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		close(s.gone)
		delete(h.subs, s)
	}
}

func (h *hub) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept = nil
}

func (h *hub) set(f func(*hub)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(h)
}
