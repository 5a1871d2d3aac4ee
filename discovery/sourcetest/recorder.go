package sourcetest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dentropy/dentropycloud/discovery"
)

// Patience is how long the helpers of this package wait for something that must
// happen. It is long because machines that run tests are slow; nothing waits for
// all of it unless it fails.
const Patience = 20 * time.Second

// Report is one call of an Updater.
type Report struct {
	Kind    string // "set", "delete", "replace", "unknown"
	ID      string // of set and delete
	Objects []discovery.Object
	Err     error
	At      time.Time
}

// Recorder is a discovery.Updater that keeps what it is told: each report, and the
// objects as they stand. The zero value is ready to use.
type Recorder struct {
	mu      sync.Mutex // guards all below
	reports []Report
	objects map[string]discovery.Object
	stale   error
	closed  bool
	late    int
	changed chan struct{} // closed and replaced at each report
}

func (r *Recorder) note(rep Report, apply func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		r.late++
	}
	if r.objects == nil {
		r.objects = map[string]discovery.Object{}
	}
	rep.At = time.Now()
	r.reports = append(r.reports, rep)
	apply()
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// Set implements discovery.Updater.
func (r *Recorder) Set(o discovery.Object) {
	r.note(Report{Kind: "set", ID: o.ID, Objects: []discovery.Object{o}}, func() { r.objects[o.ID] = o })
}

// Delete implements discovery.Updater.
func (r *Recorder) Delete(id string) {
	r.note(Report{Kind: "delete", ID: id}, func() { delete(r.objects, id) })
}

// Replace implements discovery.Updater.
func (r *Recorder) Replace(objects []discovery.Object) {
	r.note(Report{Kind: "replace", Objects: slices.Clone(objects)}, func() {
		clear(r.objects)
		for _, o := range objects {
			r.objects[o.ID] = o
		}
		r.stale = nil
	})
}

// Unknown implements discovery.Updater.
func (r *Recorder) Unknown(err error) {
	r.note(Report{Kind: "unknown", Err: err}, func() { r.stale = err })
}

// Reports returns everything that was reported, in order.
func (r *Recorder) Reports() []Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.reports)
}

// Count returns how many reports of a kind there were.
func (r *Recorder) Count(kind string) int {
	n := 0
	for _, rep := range r.Reports() {
		if rep.Kind == kind {
			n++
		}
	}
	return n
}

// Objects returns what the source holds by the reports so far, sorted by name.
func (r *Recorder) Objects() []discovery.Object {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.objects), func(a, b discovery.Object) int {
		return strings.Compare(a.Name+a.ID, b.Name+b.ID)
	})
}

// Named returns the object of that name, and whether there is one. Of several, it is
// the one with the lowest id.
func (r *Recorder) Named(name string) (found discovery.Object, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.objects {
		if o.Name == name && (!ok || o.ID < found.ID) {
			found, ok = o, true
		}
	}
	return found, ok
}

// Stale returns the error of the last Unknown since the last Replace.
func (r *Recorder) Stale() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stale
}

// Wait waits until cond holds. cond is called after each report and now and then.
// It fails the test when that takes longer than Patience.
func (r *Recorder) Wait(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond) // cond may look at other things than reports
	defer tick.Stop()
	for {
		r.mu.Lock()
		if r.changed == nil {
			r.changed = make(chan struct{})
		}
		changed := r.changed
		r.mu.Unlock()
		if cond() {
			return
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-deadline.C:
			tb.Fatalf("waited %v for %s; objects: %+v; stale: %v", Patience, what, r.Objects(), r.Stale())
		}
	}
}

// WaitState waits until the object of that name is in the state; the empty state
// means that there is no such object.
func (r *Recorder) WaitState(tb testing.TB, name string, want discovery.State) {
	tb.Helper()
	r.Wait(tb, name+" to be "+string(want), func() bool {
		o, ok := r.Named(name)
		return ok == (want != "") && o.State == want
	})
}

// close makes later reports count as late ones.
func (r *Recorder) close() { r.mu.Lock(); r.closed = true; r.mu.Unlock() }

// Watch starts src and returns what it reports and a function that ends it, waits
// for it, and fails the test where it takes too long or reports anything later. It
// ends with the test in any case.
func Watch(tb testing.TB, src discovery.Source) (*Recorder, func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	rec := &Recorder{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		src.Watch(ctx, rec)
		rec.close()
	}()
	var once sync.Once
	stop := func() {
		tb.Helper()
		once.Do(func() {
			select {
			case <-done:
				tb.Error("Watch returned before its context was done")
			default:
			}
			cancel()
			select {
			case <-done:
			case <-time.After(Patience):
				tb.Errorf("Watch did not return within %v of the end of its context", Patience)
			}
			rec.mu.Lock()
			defer rec.mu.Unlock()
			if rec.late > 0 {
				tb.Errorf("%d reports after Watch had returned", rec.late)
			}
		})
	}
	tb.Cleanup(stop)
	return rec, stop
}
