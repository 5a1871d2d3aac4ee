package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCertWantedNameIsServed(t *testing.T) {
	w := newCertWorld(t, certTuning{})
	w.Want("a.example.com", "acme")
	st := w.is("a.example.com", "ready")
	if st.Class != "acme" || st.Issuer != "ca.example" || st.Serial == "" || st.NotAfter.IsZero() || st.RenewAfter.IsZero() || st.Attempts != 1 {
		t.Errorf("status = %+v", st)
	}
	if got := w.served("A.Example.com."); !slices.Equal(got, []string{"a.example.com"}) {
		t.Errorf("served %v", got)
	}
	if got := w.served("b.example.com"); got != nil {
		t.Errorf("a name that nobody wants was served %v", got)
	}
	if got := w.Counts()["ready"]; got != 1 {
		t.Errorf("Counts()[ready] = %d, want 1", got)
	}
	if got := len(w.Status()); got != 1 {
		t.Errorf("len(Status()) = %d, want 1", got)
	}
}

func TestCertLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCertWorld(t, certTuning{})
		defer w.stop()
		w.Want("a.example.com", "acme")
		w.Want("a.example.com", "acme") // two routes
		if st := w.now("a.example.com"); st.State != "ready" {
			t.Fatalf("status = %+v", st)
		}
		w.Drop("a.example.com", "acme")
		if st := w.now("a.example.com"); st.State != "ready" {
			t.Errorf("one route left, state = %s", st.State)
		}
		w.Drop("a.example.com", "acme")
		if st := w.now("a.example.com"); st.State != "lingering" {
			t.Errorf("no route left, state = %s", st.State)
		}
		advance(9 * time.Minute)
		if w.served("a.example.com") == nil {
			t.Error("not served while it lingers")
		}
		w.Want("a.example.com", "acme") // the container was only made anew
		advance(time.Hour)
		if st := w.now("a.example.com"); st.State != "ready" || w.acme.count("") != 1 {
			t.Errorf("wanted again: state = %s, the CA was asked %d times", st.State, w.acme.count(""))
		}
		w.Drop("a.example.com", "acme")
		advance(11 * time.Minute)
		if st, ok := w.StatusOf("a.example.com"); ok {
			t.Errorf("still there after lingering: %+v", st)
		}
		if got := w.served("a.example.com"); got != nil {
			t.Errorf("a forgotten name is served %v", got)
		}
		for state, n := range w.Counts() {
			if n != 0 {
				t.Errorf("Counts()[%s] = %d, want 0", state, n)
			}
		}
		// From storage, without the CA.
		w.Want("a.example.com", "acme")
		if st := w.now("a.example.com"); st.State != "ready" || w.acme.count("") != 1 {
			t.Errorf("wanted after all: state = %s, the CA was asked %d times", st.State, w.acme.count(""))
		}
		w.Drop("b.example.com", "acme") // never wanted
		w.Drop("a.example.com", "internal")
		if st := w.now("a.example.com"); st.State != "ready" {
			t.Errorf("dropping what was not wanted: state = %s", st.State)
		}
	})
}

// advance lets time pass in a bubble.
func advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestCertFirstClassStaysUntilDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCertWorld(t, certTuning{})
		defer w.stop()
		w.Want("a.example.com", "acme")
		w.Want("a.example.com", "internal")
		w.now("a.example.com")
		if got := w.by("a.example.com"); got != "ca.example" {
			t.Errorf("issued by %s, want the first class", got)
		}
		w.Drop("a.example.com", "acme")
		st := w.now("a.example.com")
		if got := w.by("a.example.com"); got != "local" || st.Class != "internal" || st.State != "ready" {
			t.Errorf("issued by %s, status %+v, want the class that is left", got, st)
		}
		// As a changed label does it: the new wish, then the old one.
		w.Want("a.example.com", "acme")
		w.Drop("a.example.com", "internal")
		w.now("a.example.com")
		if got := w.by("a.example.com"); got != "ca.example" {
			t.Errorf("issued by %s, want the new class", got)
		}
		if got := len(w.exact("a.example.com")); got != 1 {
			t.Errorf("%d certificates in the cache, want 1", got)
		}
	})
}

func TestCertWildcardCovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCertWorld(t, certTuning{})
		defer w.stop()
		w.Want("*.example.com", "acme")
		w.Want("a.example.com", "acme")
		w.Want("a.b.example.com", "acme")   // two labels: not covered
		w.Want("c.example.com", "internal") // asks for another kind of CA
		w.Want("example.com", "acme")
		st := w.now("a.example.com")
		if st.State != "covered" || st.CoveredBy != "*.example.com" || st.NotAfter.IsZero() {
			t.Errorf("status = %+v", st)
		}
		want := map[string][]string{
			"a.example.com":   {"*.example.com"},
			"a.b.example.com": {"a.b.example.com"},
			"c.example.com":   {"c.example.com"},
			"example.com":     {"example.com"},
			"x.y.example.com": nil,
		}
		for host, names := range want {
			if got := w.served(host); !slices.Equal(got, names) {
				t.Errorf("%s was served %v, want %v", host, got, names)
			}
		}
		if got := w.acme.count("a.example.com"); got != 0 {
			t.Errorf("a certificate of its own was asked for %d times", got)
		}
		w.Drop("*.example.com", "acme")
		if st := w.now("a.example.com"); st.State != "covered" {
			t.Errorf("while the wildcard lingers: state = %s", st.State)
		}
		advance(11 * time.Minute)
		if got := w.served("a.example.com"); !slices.Equal(got, []string{"a.example.com"}) {
			t.Errorf("after the wildcard is gone: served %v", got)
		}
		// It comes back: who has a certificate keeps it.
		w.Want("*.example.com", "acme")
		if st := w.now("a.example.com"); st.State != "ready" {
			t.Errorf("state = %s", st.State)
		}
		w.Want("d.example.com", "acme")
		if st := w.now("d.example.com"); st.State != "covered" {
			t.Errorf("state = %s", st.State)
		}
	})
}

func TestCertWildcardThatFailsCoversNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCertWorld(t, certTuning{})
		defer w.stop()
		w.acme.do(func(_ context.Context, host string) error {
			if isWildcard(host) {
				return errors.New("no such provider")
			}
			return nil
		})
		w.Want("a.example.com", "acme")
		w.Want("*.example.com", "acme")
		w.Want("b.example.com", "acme")
		for _, host := range []string{"a.example.com", "b.example.com"} {
			if st := w.now(host); st.State != "ready" {
				t.Errorf("%s: %+v", host, st)
			}
		}
		w.acme.fail(nil)
		advance(5 * time.Minute)
		if st := w.now("*.example.com"); st.State != "ready" {
			t.Errorf("status = %+v", st)
		}
	})
}

func TestCertReload(t *testing.T) {
	w := newCertWorld(t, certTuning{})
	hosts := []string{"a.example.com", "b.example.com", "*.example.net"}
	for _, h := range hosts {
		w.Want(h, "acme")
	}
	w.Want("nas.lan", "internal")
	for _, h := range append(hosts, "nas.lan") {
		w.is(h, "ready")
	}
	before := w.Status()
	for i := 2; i < 6; i++ { // reloads that succeed, and some that fail after their start
		w.adopt(w.generation(i, certTuning{}))
		if i%2 == 0 {
			w.forget(i)
			if got := w.cur.Load().ID; got == i {
				t.Errorf("config %v is in force after it was taken back", got)
			}
		} else {
			w.forget(w.gens[0].ID)
		}
		for _, h := range hosts {
			if w.served(h) == nil {
				t.Errorf("%s is not served after reload %d", h, i)
			}
		}
	}
	if diff := cmp.Diff(before, w.Status()); diff != "" {
		t.Errorf("reloads changed something (-before +after):\n%s", diff)
	}
	if got := w.acme.count("") + w.internal.count(""); got != 4 {
		t.Errorf("issuers were asked %d times, want 4", got)
	}
}

func TestCertReloadWithOtherIssuer(t *testing.T) {
	w := newCertWorld(t, certTuning{})
	w.Want("a.example.com", "acme")
	w.is("a.example.com", "ready")
	w.acme = &certCA{key: "other.example"}
	w.adopt(w.generation(2, certTuning{}))
	w.forget(1)
	certAwait(t, "the new CA's certificate is served", func() bool { return w.by("a.example.com") == "other.example" })

	gen := w.generation(3, certTuning{})
	delete(gen.Classes, "acme")
	w.adopt(gen)
	st := w.is("a.example.com", "failed")
	if want := `no issuer "acme" is configured; there are: internal`; st.LastError != want {
		t.Errorf("LastError = %q, want %q", st.LastError, want)
	}
	w.forget(3)
	w.is("a.example.com", "ready")
	if got := w.acme.count(""); got != 1 {
		t.Errorf("the CA was asked %d times, want 1", got)
	}
}

func TestCertWantedBeforeAnyConfig(t *testing.T) {
	w := &certWorld{certStore: newCertStore(nil), t: t, storage: newMemStorage(),
		acme: &certCA{key: "ca.example"}, internal: &certCA{key: "local", local: true}}
	t.Cleanup(w.stop)
	w.Want("a.example.com", "acme")
	w.Want("nas.lan", "internal")
	if got := w.served("a.example.com"); got != nil {
		t.Errorf("served %v", got)
	}
	up := make(chan struct{})
	gen := w.generation(1, certTuning{})
	gen.Active = func() bool {
		select {
		case <-up:
			return true
		default:
			return false
		}
	}
	w.adopt(gen)
	w.is("nas.lan", "ready")
	if got := w.acme.count(""); got != 0 {
		t.Errorf("a CA on the network was asked before the servers are up")
	}
	close(up)
	w.is("a.example.com", "ready")
}

func TestCertCaddyHasOne(t *testing.T) {
	w := newCertWorld(t, certTuning{})
	gen := w.generation(2, certTuning{})
	gen.Static = func(host string) bool { return host == "a.example.com" }
	w.adopt(gen)
	w.Want("a.example.com", "acme")
	if st := w.is("a.example.com", "covered"); st.CoveredBy != "caddy" {
		t.Errorf("status = %+v", st)
	}
	if got := w.acme.count(""); got != 0 {
		t.Errorf("the CA was asked %d times", got)
	}
	w.adopt(w.generation(3, certTuning{})) // the static site is gone
	w.is("a.example.com", "ready")
}

func TestCertChangesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCertWorld(t, certTuning{})
		defer w.stop()
		var mu sync.Mutex
		var told []string
		w.onChange = func(host string, st CertStatus) {
			w.mu.Lock() // no lock is held
			defer w.mu.Unlock()
			mu.Lock()
			defer mu.Unlock()
			if s := host + " " + st.State; len(told) == 0 || told[len(told)-1] != s {
				told = append(told, s)
			}
		}
		hold := make(chan struct{})
		w.acme.do(func(context.Context, string) error { <-hold; return nil })
		w.Want("a.example.com", "acme")
		w.now("a.example.com")
		close(hold)
		w.now("a.example.com")
		w.Drop("a.example.com", "acme")
		advance(11 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		last := told
		if len(last) > 4 {
			last = last[len(last)-4:]
		}
		if diff := cmp.Diff([]string{"a.example.com obtaining", "a.example.com ready", "a.example.com lingering", "a.example.com gone"}, last); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	})
}

func TestCertStopEndsWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCertWorld(t, certTuning{})
		w.acme.do(func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() })
		for i := range 30 {
			w.Want(fmt.Sprintf("h%d.example.com", i), "acme")
		}
		synctest.Wait()
		w.stop()
		w.stop()
		w.Want("late.example.com", "acme") // a latecomer does no harm
		w.Drop("h1.example.com", "acme")
		w.forget(1)
		synctest.Wait() // the bubble fails the test if a goroutine is left
	})
}
