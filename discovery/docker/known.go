package docker

import (
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/discovery"
)

// adopt makes a list what is known, except for what was touched while it was on
// its way, and reports everything.
func (w *watcher) adopt(list []container.Summary, touched map[string]bool) {
	listed := make(map[string]bool, len(list))
	var sharing []*record
	for i := range list {
		s := &list[i]
		listed[s.ID] = true
		if touched[s.ID] {
			continue // events know better
		}
		routed := w.read.concerns(s.Labels)
		if !routed && w.sharers[s.ID] == nil {
			continue
		}
		r := w.merge(fromSummary(*s), routed)
		if routed && strings.HasPrefix(r.mode, "container:") {
			sharing = append(sharing, r)
		}
	}
	for id := range w.known {
		if !listed[id] && !touched[id] {
			w.forget(id)
		}
	}
	for _, r := range sharing {
		w.adoptTarget(r, list)
	}
	objects := make([]discovery.Object, 0, len(w.known))
	for _, r := range w.known {
		if r.routed && !r.partial {
			objects = append(objects, w.object(r))
		}
	}
	slices.SortFunc(objects, func(a, b discovery.Object) int { return strings.Compare(a.Name+"\x00"+a.ID, b.Name+"\x00"+b.ID) })
	w.up.Replace(objects)
}

// merge puts what a list says into what is known. The list lacks some things, which
// stay as they were.
func (w *watcher) merge(f facts, routed bool) *record {
	r := w.known[f.id]
	if r == nil {
		r = &record{facts: &f, routed: routed}
		w.known[f.id] = r
	} else {
		old := r.facts
		if !f.exposedKnown && old.exposedKnown {
			f.exposed, f.exposedKnown = old.exposed, true
		}
		f.started, f.restart = old.started, old.restart
		if f.state == old.state && f.exit == old.exit {
			f.since, f.detail = old.since, old.detail
		}
		if f.state == statePaused {
			f.health = old.health // the list does not say
		}
		r.facts, r.routed = &f, routed
	}
	r.partial = routed && !r.exposedKnown && w.read.portsMatter(r.facts)
	if r.partial {
		w.work.want(f.id, time.Time{})
	}
	return r
}

// adoptTarget finds the container whose network r uses in the list.
func (w *watcher) adoptTarget(r *record, list []container.Summary) {
	ref := strings.TrimPrefix(r.mode, "container:")
	for i := range list {
		s := &list[i]
		if s.ID == ref || slices.Contains(s.Names, "/"+ref) || len(ref) >= shortIDLen && strings.HasPrefix(s.ID, ref) {
			ref = s.ID
			if w.known[ref] == nil {
				w.merge(fromSummary(*s), false)
			}
			break
		}
	}
	w.share(r, ref)
}

// shortIDLen is how much of an id is taken for one.
const shortIDLen = 12

// share notes that r uses the network of container id.
func (w *watcher) share(r *record, id string) {
	if mode := "container:" + id; r.mode != mode {
		r.facts = r.edited()
		r.mode = mode
	}
	if w.sharers[id] == nil {
		w.sharers[id] = map[string]bool{}
	}
	w.sharers[id][r.id] = true
}

// object makes the report about a record.
func (w *watcher) object(r *record) discovery.Object {
	net := r.facts
	if ref, ok := strings.CutPrefix(r.mode, "container:"); ok {
		net = nil
		if t := w.known[ref]; t != nil {
			net = t.facts
		}
	}
	return w.read.object(r.facts, net, w.at, w.networks)
}

// report tells about a record, and about those that use its network. seen is when
// the event came that led to it.
func (w *watcher) report(r *record, seen time.Time) {
	w.set(r, seen)
	w.reportSharers(r.id, seen)
}

func (w *watcher) reportSharers(id string, seen time.Time) {
	for other := range w.sharers[id] {
		if r := w.known[other]; r != nil {
			w.set(r, seen)
		}
	}
}

func (w *watcher) set(r *record, seen time.Time) {
	if !r.routed || r.partial {
		return
	}
	o := w.object(r)
	o.Seen = seen
	w.up.Set(o)
}

// edited is a copy of the facts, to be changed.
func (r *record) edited() *facts {
	f := *r.facts
	return &f
}

// forget drops a container without a word.
func (w *watcher) forget(id string) {
	w.work.drop(id)
	r := w.known[id]
	if r == nil {
		return
	}
	delete(w.known, id)
	if ref, ok := strings.CutPrefix(r.mode, "container:"); ok {
		delete(w.sharers[ref], id)
		if len(w.sharers[ref]) == 0 {
			delete(w.sharers, ref)
			w.prune(ref) // it may have been of interest for its network only
		}
	}
}

// remove drops a container that is gone for good.
func (w *watcher) remove(id string, seen time.Time) {
	r := w.known[id]
	w.forget(id)
	if r != nil && r.routed && !r.partial {
		w.up.Delete(id)
	}
	w.reportSharers(id, seen)
}
