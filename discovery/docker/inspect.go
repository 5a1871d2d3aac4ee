package docker

import (
	"context"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/dentropy/dentropycloud/internal/backoff"
)

// inspector asks for single containers: several at a time, one container at most
// once at a time, and one that hangs or fails never in the way of others.
type inspector struct {
	w      *watcher
	jobs   map[string]*job
	ready  []string // first come, first served
	active int
}

// job is one container that is to be inspected.
type job struct {
	running bool
	again   bool // something happened since it began
	dropped bool // its container is gone
	wait    backoff.Backoff
	retry   *time.Timer // set while it waits to be tried again
	// wanted is when the event came that asks for it, first the next time, then the
	// one that is running.
	wanted, current time.Time
	// What the record had counted when the inspection began.
	lives, healths uint64
}

func newInspector(w *watcher) *inspector {
	return &inspector{w: w, jobs: map[string]*job{}}
}

// want asks for a container. Asking again before its turn has come costs nothing.
// seen is when the event came that asks, zero if there is none.
func (i *inspector) want(id string, seen time.Time) {
	j := i.jobs[id]
	if j != nil && j.wanted.IsZero() {
		j.wanted = seen
	}
	switch {
	case j == nil:
		i.jobs[id] = &job{wanted: seen, wait: backoff.Backoff{Min: i.w.timing.minBackoff, Max: i.w.timing.maxBackoff}}
		i.ready = append(i.ready, id)
	case j.running:
		j.again = true
	case j.retry != nil:
		j.retry.Stop()
		j.retry = nil
		i.ready = append(i.ready, id)
	}
}

// pending says that an answer about a container is to come.
func (i *inspector) pending(id string) bool { return i.jobs[id] != nil }

// drop forgets a container that is gone.
func (i *inspector) drop(id string) {
	j := i.jobs[id]
	if j == nil {
		return
	}
	j.dropped = true
	if j.retry != nil {
		j.retry.Stop()
	}
	if !j.running {
		delete(i.jobs, id) // its place in ready is skipped
	}
}

func (i *inspector) stop() {
	for _, j := range i.jobs {
		if j.retry != nil {
			j.retry.Stop()
		}
	}
}

// dispatch begins as many inspections as there is room for.
func (i *inspector) dispatch(ctx context.Context) {
	for i.active < parallel && len(i.ready) > 0 {
		id := i.ready[0]
		i.ready = i.ready[1:]
		j := i.jobs[id]
		if j == nil || j.running {
			continue
		}
		j.running, j.current, j.wanted = true, j.wanted, time.Time{}
		i.active++
		if r := i.w.known[id]; r != nil {
			j.lives, j.healths = r.lives, r.healths
		}
		i.run(ctx, id, j)
	}
}

func (i *inspector) run(ctx context.Context, id string, j *job) {
	w := i.w
	counted := true
	release := func() { // runs in the loop
		if counted {
			counted = false
			i.active--
		}
	}
	answered := make(chan struct{})
	results := w.results
	slow := time.AfterFunc(w.timing.slow, func() {
		select {
		case results <- release:
		case <-answered:
		case <-ctx.Done():
		}
	})
	w.background(ctx, func() func() {
		var f facts
		var plain error
		err := w.within(ctx, w.timing.call, "inspect container "+shorten(id), func(ctx context.Context) error {
			f, plain = inspect(ctx, w.conn, id)
			return plain
		})
		slow.Stop()
		close(answered)
		return func() {
			release()
			j.running = false
			i.done(ctx, id, j, f, err, errdefs.IsNotFound(plain))
		}
	})
}

// done takes the answer about a container.
func (i *inspector) done(ctx context.Context, id string, j *job, f facts, err error, gone bool) {
	w := i.w
	switch {
	case j.dropped:
		delete(i.jobs, id)
	case gone:
		delete(i.jobs, id)
		w.remove(id, j.current)
	case err != nil:
		w.log.Debug("inspection failed, trying again", "error", err)
		j.again, j.wanted = false, j.current
		i.retryLater(ctx, id, j)
	default:
		w.learn(f, j)
		j.wait.Reset()
		if id != f.id { // it was asked for by name
			delete(i.jobs, id)
			w.renamed(id, f.id, j.current)
			return
		}
		w.prune(id)
		if j.again {
			j.again = false
			i.ready = append(i.ready, id)
			return
		}
		delete(i.jobs, id)
	}
}

// retryLater puts a failed job back in line after a while.
func (i *inspector) retryLater(ctx context.Context, id string, j *job) {
	results := i.w.results // the next connection has a channel of its own
	j.retry = time.AfterFunc(j.wait.Next(), func() {
		select {
		case results <- func() { i.retried(id, j) }:
		case <-ctx.Done():
		}
	})
}

func (i *inspector) retried(id string, j *job) {
	if i.jobs[id] == j && j.retry != nil && !j.dropped {
		j.retry = nil
		i.ready = append(i.ready, id)
	}
}

// learn takes over what an inspection says and reports it.
func (w *watcher) learn(f facts, j *job) {
	r := w.known[f.id]
	routed := w.read.concerns(f.labels)
	if r == nil {
		r = &record{}
		w.known[f.id] = r
		r.lives, r.healths = j.lives, j.healths
	}
	old := facts{}
	if r.facts != nil {
		old = *r.facts
	}
	// Where events have come since it was asked, they win: the answer may be older,
	// and if it is not, the event that says so is on its way.
	if r.lives != j.lives {
		f.state, f.exit, f.exited, f.detail, f.since = old.state, old.exit, old.exited, old.detail, old.since
	}
	if r.healths != j.healths {
		f.health = old.health
	}
	if w.touched != nil {
		w.touched[f.id] = true
	}
	w.unshare(&old, &f)
	r.facts, r.routed, r.partial = &f, routed, false
	if f.running() {
		r.killed = false
	}
	if ref, ok := strings.CutPrefix(f.mode, "container:"); ok && routed {
		ref = w.resolve(ref)
		w.share(r, ref)
		if w.known[ref] == nil {
			w.work.want(ref, j.current)
		}
	}
	w.report(r, j.current)
}

// unshare forgets the network that a container used before. That never changes in
// Docker; other engines may allow it.
func (w *watcher) unshare(old, now *facts) {
	ref, ok := strings.CutPrefix(old.mode, "container:")
	if ok && old.mode != now.mode && old.id != "" && w.sharers[ref] != nil {
		delete(w.sharers[ref], old.id)
		if len(w.sharers[ref]) == 0 {
			delete(w.sharers, ref)
		}
	}
}

// resolve finds the id of a container that is known by id, the beginning of its id,
// or name.
func (w *watcher) resolve(ref string) string {
	if w.known[ref] != nil || len(ref) == 64 {
		return ref
	}
	for id, r := range w.known {
		if r.name == ref || (len(ref) >= shortIDLen && strings.HasPrefix(id, ref)) {
			return id
		}
	}
	return ref
}

// renamed moves those that use the network of a container from the name they know
// it by to its id.
func (w *watcher) renamed(ref, id string, seen time.Time) {
	for other := range w.sharers[ref] {
		if r := w.known[other]; r != nil {
			w.share(r, id)
		}
	}
	delete(w.sharers, ref)
	w.prune(id)
	w.reportSharers(id, seen)
}

// prune drops a container that neither asks for routes nor lends its network.
func (w *watcher) prune(id string) {
	if r := w.known[id]; r != nil && !r.routed && w.sharers[id] == nil {
		delete(w.known, id)
	}
}
