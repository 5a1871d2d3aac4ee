package sourcetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/dentropy/dentropycloud/discovery"
)

// Harness is what a source's tests provide to Run: the thing that is watched, under
// the test's control. Names are unique; an object's Name as the source reports it is
// the one that was given.
type Harness interface {
	// Source returns a new source that watches the thing. Its waits should be short.
	Source() discovery.Source
	// Engine is the name that the source's groups carry.
	Engine() string
	// Put adds a running object that asks for host.
	Put(name, host string)
	// Ignored adds one that asks for nothing.
	Ignored(name string)
	// Remove deletes an object for good.
	Remove(name string)
	// Stop makes an object unable to serve, and Start able again, under the same id.
	Stop(name string)
	Start(name string)
	// Break makes the thing unreachable: calls fail, streams end. Put, Remove, Stop
	// and Start still work, unseen.
	Break()
	// Heal ends Break.
	Heal()
}

// Run checks that a source does what discovery.Source asks for. start makes a
// harness whose thing is reachable and holds nothing of interest; it cleans up with
// t.Cleanup.
func Run(t *testing.T, start func(t *testing.T) Harness) {
	tests := []struct {
		name string
		run  func(t *testing.T, h Harness)
	}{
		{"ListsFirst", listsFirst},
		{"Follows", follows},
		{"FollowsStates", followsStates},
		{"IgnoresOthers", ignoresOthers},
		{"AbsentAtFirst", absentAtFirst},
		{"KeepsWhenLost", keepsWhenLost},
		{"ListsAgain", listsAgain},
		{"SameAfterReconnect", sameAfterReconnect},
		{"ManyAtOnce", manyAtOnce},
		{"EndsWithContext", endsWithContext},
		{"TwoWatchers", twoWatchers},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, start(t)) })
	}
}

// listed waits for n Replace reports.
func listed(t *testing.T, rec *Recorder, n int) {
	t.Helper()
	rec.Wait(t, fmt.Sprintf("%d full reports", n), func() bool { return rec.Count("replace") >= n })
}

func listsFirst(t *testing.T, h Harness) {
	h.Put("one", "one.example.com")
	h.Put("two", "two.example.com")
	rec, stop := Watch(t, h.Source())
	rec.WaitState(t, "one", discovery.Running)
	rec.WaitState(t, "two", discovery.Running)
	stop()
	if got := rec.Count("replace"); got != 1 {
		t.Errorf("Replace was called %d times for one connection, want 1", got)
	}
	if first := rec.Reports()[0].Kind; first != "replace" {
		t.Errorf("the first report is %q, want replace", first)
	}
	ids := map[string]bool{}
	for _, o := range rec.Objects() {
		if o.ID == "" || ids[o.ID] {
			t.Errorf("object %q has id %q, want a unique one", o.Name, o.ID)
		}
		ids[o.ID] = true
		if o.Group.Engine != h.Engine() || o.Group.Service == "" {
			t.Errorf("object %q has group %v, want engine %q and a service", o.Name, o.Group, h.Engine())
		}
		if o.Created.IsZero() {
			t.Errorf("object %q has no time of creation", o.Name)
		}
		if len(o.Routes) != 1 || len(o.Routes[0].Hosts) != 1 || o.Routes[0].Hosts[0] != o.Name+".example.com" {
			t.Errorf("object %q asks for %+v, want host %s.example.com", o.Name, o.Routes, o.Name)
			continue
		}
		eps := o.Routes[0].Endpoints
		if len(eps) == 0 || len(eps[0].Candidates) == 0 {
			t.Errorf("object %q has endpoints %+v, want a candidate", o.Name, eps)
			continue
		}
		for _, c := range eps[0].Candidates {
			if c.Address == "" || c.Reason == "" {
				t.Errorf("object %q has candidate %+v, want an address and a reason", o.Name, c)
			}
		}
	}
}

func follows(t *testing.T, h Harness) {
	rec, stop := Watch(t, h.Source())
	listed(t, rec, 1)
	h.Put("one", "one.example.com")
	rec.WaitState(t, "one", discovery.Running)
	h.Put("two", "two.example.com")
	rec.WaitState(t, "two", discovery.Running)
	h.Remove("one")
	rec.WaitState(t, "one", "")
	stop()
	if got := rec.Count("replace"); got != 1 {
		t.Errorf("Replace was called %d times, want 1: single changes are Set and Delete", got)
	}
	if rec.Stale() != nil {
		t.Errorf("stale with %v, want a good connection", rec.Stale())
	}
}

func followsStates(t *testing.T, h Harness) {
	h.Put("one", "one.example.com")
	rec, _ := Watch(t, h.Source())
	rec.WaitState(t, "one", discovery.Running)
	before, _ := rec.Named("one")
	h.Stop("one")
	rec.Wait(t, "one not to run", func() bool {
		o, ok := rec.Named("one")
		return ok && o.State != discovery.Running
	})
	down, _ := rec.Named("one")
	if down.Detail == "" {
		t.Errorf("state %q without detail", down.State)
	}
	if len(down.Routes) != 1 {
		t.Errorf("a stopped object asks for %+v, want its route as before", down.Routes)
	}
	h.Start("one")
	rec.WaitState(t, "one", discovery.Running)
	if after, _ := rec.Named("one"); after.ID != before.ID {
		t.Errorf("id was %q and is %q after stop and start, want the same", before.ID, after.ID)
	}
}

func ignoresOthers(t *testing.T, h Harness) {
	h.Ignored("other")
	h.Put("one", "one.example.com")
	rec, _ := Watch(t, h.Source())
	rec.WaitState(t, "one", discovery.Running)
	h.Ignored("another")
	h.Put("two", "two.example.com")
	rec.WaitState(t, "two", discovery.Running)
	for _, o := range rec.Objects() {
		if len(o.Routes) == 0 && len(o.Problems) == 0 {
			t.Errorf("object %q asks for nothing and is reported", o.Name)
		}
	}
}

func absentAtFirst(t *testing.T, h Harness) {
	h.Put("one", "one.example.com")
	h.Break()
	rec, _ := Watch(t, h.Source())
	rec.Wait(t, "Unknown", func() bool { return rec.Stale() != nil })
	if rec.Count("replace") != 0 {
		t.Error("Replace was called although nothing is known")
	}
	h.Heal()
	rec.WaitState(t, "one", discovery.Running)
	if rec.Stale() != nil {
		t.Errorf("stale with %v after it appeared", rec.Stale())
	}
}

func keepsWhenLost(t *testing.T, h Harness) {
	h.Put("one", "one.example.com")
	rec, stop := Watch(t, h.Source())
	rec.WaitState(t, "one", discovery.Running)
	h.Break()
	rec.Wait(t, "Unknown", func() bool { return rec.Stale() != nil })
	stop()
	if o, ok := rec.Named("one"); !ok || o.State != discovery.Running {
		t.Errorf("object is %+v, %v after the connection was lost, want it as it was", o, ok)
	}
	for _, r := range rec.Reports() {
		if r.Kind == "delete" {
			t.Errorf("%q was deleted because the connection was lost", r.ID)
		}
	}
}

func listsAgain(t *testing.T, h Harness) {
	h.Put("stays", "stays.example.com")
	h.Put("goes", "goes.example.com")
	h.Put("stops", "stops.example.com")
	rec, _ := Watch(t, h.Source())
	listed(t, rec, 1)
	h.Break()
	rec.Wait(t, "Unknown", func() bool { return rec.Stale() != nil })
	h.Remove("goes")
	h.Stop("stops")
	h.Put("comes", "comes.example.com")
	h.Heal()
	rec.WaitState(t, "comes", discovery.Running)
	rec.WaitState(t, "goes", "")
	rec.WaitState(t, "stays", discovery.Running)
	if o, ok := rec.Named("stops"); !ok || o.State == discovery.Running {
		t.Errorf("object that stopped meanwhile is %+v, %v; want it there and not running", o, ok)
	}
	if rec.Stale() != nil {
		t.Errorf("stale with %v after it came back", rec.Stale())
	}
}

func sameAfterReconnect(t *testing.T, h Harness) {
	h.Put("one", "one.example.com")
	h.Put("two", "two.example.com")
	h.Stop("two")
	rec, _ := Watch(t, h.Source())
	both := func() bool { return len(rec.Objects()) == 2 }
	rec.Wait(t, "both objects", both)
	before := rec.Objects()
	n := rec.Count("replace")
	h.Break()
	rec.Wait(t, "Unknown", func() bool { return rec.Stale() != nil })
	h.Heal()
	listed(t, rec, n+1)
	rec.Wait(t, "both objects", both)
	// A time may become known, and things have several times for the same end.
	times := cmp.Comparer(func(a, b time.Time) bool { return a.IsZero() || b.IsZero() || a.Sub(b).Abs() < time.Second })
	diff := cmp.Diff(before, rec.Objects(), cmpopts.EquateEmpty(), times,
		cmpopts.IgnoreFields(discovery.Object{}, "Resolve", "Seen"))
	if diff != "" {
		t.Errorf("nothing happened, but objects changed over a reconnect (-before +after):\n%s", diff)
	}
}

func manyAtOnce(t *testing.T, h Harness) {
	const n = 100
	rec, _ := Watch(t, h.Source())
	listed(t, rec, 1)
	for i := range n {
		h.Put(fmt.Sprintf("o%d", i), fmt.Sprintf("o%d.example.com", i))
		if i%2 == 1 {
			h.Remove(fmt.Sprintf("o%d", i))
		}
	}
	rec.Wait(t, "half of the objects, running", func() bool {
		all := rec.Objects()
		for i := range all {
			if all[i].State != discovery.Running {
				return false
			}
		}
		return len(all) == n/2
	})
}

func endsWithContext(t *testing.T, h Harness) {
	_, stop := Watch(t, h.Source())
	stop() // while it connects
	rec, stop := Watch(t, h.Source())
	listed(t, rec, 1)
	stop()
	h.Break()
	rec, stop = Watch(t, h.Source())
	rec.Wait(t, "Unknown", func() bool { return rec.Stale() != nil })
	stop() // while it waits to try again
}

func twoWatchers(t *testing.T, h Harness) {
	h.Put("one", "one.example.com")
	a, stopA := Watch(t, h.Source()) // as during a reload of the configuration
	b, _ := Watch(t, h.Source())
	a.WaitState(t, "one", discovery.Running)
	b.WaitState(t, "one", discovery.Running)
	stopA()
	h.Put("two", "two.example.com")
	b.WaitState(t, "two", discovery.Running)
}
