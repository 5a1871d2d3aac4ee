package caddymodule

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mholt/acmez/v3/acme"
)

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tuning := certTuning{Budget: 3, BudgetWindow: 24 * time.Hour}
		w := newCertWorld(t, tuning)
		for i := range 4 {
			w.Want(fmt.Sprintf("h%d.example.co.uk", i), "acme")
			advance(time.Hour)
		}
		w.Want("a.example.com", "acme")         // another domain
		w.Want("nas.example.co.uk", "internal") // another class
		for _, h := range []string{"h0.example.co.uk", "h1.example.co.uk", "h2.example.co.uk", "a.example.com", "nas.example.co.uk"} {
			if st := w.now(h); st.State != "ready" {
				t.Errorf("%s: %+v", h, st)
			}
		}
		st := w.now("h3.example.co.uk")
		if st.State != "budget" || w.acme.count("h3.example.co.uk") != 0 || st.Attempts != 0 {
			t.Errorf("status = %+v", st)
		}
		if !strings.HasPrefix(st.LastError, "3 new certificates for example.co.uk within 1 days are used up") {
			t.Errorf("LastError = %q", st.LastError)
		}
		if got := time.Until(st.NextTry); got < 19*time.Hour || got > 21*time.Hour {
			t.Errorf("next try in %v, want 20h", got)
		}
		if got := w.Counts()["budget"]; got != 1 {
			t.Errorf("Counts()[budget] = %d", got)
		}
		w.stop()

		// A restart forgets nothing, and the stored certificates need none.
		next := &certWorld{certStore: newCertStore(nil), t: t, storage: w.storage, acme: w.acme, internal: w.internal}
		defer next.stop()
		next.adopt(next.generation(1, tuning))
		for i := range 4 {
			next.Want(fmt.Sprintf("h%d.example.co.uk", i), "acme")
		}
		if st := next.now("h3.example.co.uk"); st.State != "budget" || next.acme.count("h3.example.co.uk") != 0 {
			t.Errorf("after a restart: %+v", st)
		}
		if st := next.now("h2.example.co.uk"); st.State != "ready" {
			t.Errorf("after a restart: %+v", st)
		}
		advance(21 * time.Hour)
		if st := next.now("h3.example.co.uk"); st.State != "ready" {
			t.Errorf("after the window: %+v", st)
		}
	})
}

func TestBudgetRaisedByAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCertWorld(t, certTuning{Budget: 1})
		defer w.stop()
		w.Want("a.example.com", "acme")
		w.now("a.example.com")
		w.Want("b.example.com", "acme")
		if st := w.now("b.example.com"); st.State != "budget" {
			t.Errorf("status = %+v", st)
		}
		w.adopt(w.generation(2, certTuning{Budget: 2}))
		if st := w.now("b.example.com"); st.State != "ready" {
			t.Errorf("status = %+v", st)
		}
	})
}

// A program that crashes and starts over and over does not lock a name out.
func TestBudgetOfFailuresSurvivesRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage, ca := newMemStorage(), &certCA{key: "ca.example"}
		ca.fail(errors.New("no"))
		for range 10 {
			w := &certWorld{certStore: newCertStore(nil), t: t, storage: storage, acme: ca, internal: &certCA{key: "local", local: true}}
			w.adopt(w.generation(1, certTuning{}))
			w.Want("a.example.com", "acme")
			if st := w.now("a.example.com"); st.State != "failed" || st.NextTry.IsZero() || st.LastError == "" {
				t.Errorf("status = %+v", st)
			}
			w.stop()
			<-time.After(time.Minute)
		}
		if got := ca.count(""); got != 4 {
			t.Errorf("asked %d times within an hour, want 4", got)
		}
	})
}

// Many names at once: exactly as many as there are get through, though several
// workers take at the same time.
func TestBudgetIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCertWorld(t, certTuning{Budget: 7})
		defer w.stop()
		for i := range 30 {
			w.Want(fmt.Sprintf("h%d.example.com", i), "acme")
		}
		synctest.Wait()
		if got := w.acme.count(""); got != 7 {
			t.Errorf("asked %d times, want 7", got)
		}
		counts := w.Counts()
		if counts["ready"] != 7 || counts["budget"] != 23 {
			t.Errorf("Counts() = %v", counts)
		}
	})
}

func TestBudgetIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCertWorld(t, certTuning{Budget: 1})
		defer w.stop()
		w.acme.fail(errors.New("no"))
		w.Want("a.example.com", "acme")
		w.now("a.example.com")
		w.acme.fail(nil)
		w.Want("b.example.com", "acme")
		if st := w.now("b.example.com"); st.State != "ready" {
			t.Errorf("a failure took the only certificate: %+v", st)
		}
	})
}

func TestBudgetRateLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCertWorld(t, certTuning{})
		defer w.stop()
		until := time.Now().Add(30 * time.Hour).UTC().Truncate(time.Second)
		w.acme.fail(acme.Problem{Type: acme.ProblemTypeRateLimited, Status: 429,
			Detail: `too many certificates (50) already issued for "example.com" in the last 168h0m0s, retry after ` + until.Format(time.DateTime) + ` UTC`})
		w.Want("a.example.com", "acme")
		if st := w.now("a.example.com"); !st.NextTry.Equal(until) {
			t.Errorf("next try %v, want %v", st.NextTry, until)
		}
		w.acme.fail(nil)
		w.Want("b.example.com", "acme")
		w.Want("c.example.net", "acme")
		if st := w.now("b.example.com"); st.State != "failed" || !st.NextTry.Equal(until) || w.acme.count("b.example.com") != 0 {
			t.Errorf("another name of the domain: %+v", st)
		}
		if st := w.now("c.example.net"); st.State != "ready" {
			t.Errorf("another domain: %+v", st)
		}
		advance(31 * time.Hour)
		for _, host := range []string{"a.example.com", "b.example.com"} {
			if st := w.now(host); st.State != "ready" {
				t.Errorf("after the limit: %+v", st)
			}
		}
	})
}

func TestBudgetStorageDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCertWorld(t, certTuning{})
		defer w.stop()
		w.storage.faulty(func(op, key string) error {
			if strings.HasPrefix(key, "dentropy/") {
				return errors.New("read-only file system")
			}
			return nil
		})
		w.Want("a.example.com", "acme")
		st := w.now("a.example.com")
		if st.State != "failed" || !strings.Contains(st.LastError, "read-only file system") || w.acme.count("") != 0 {
			t.Errorf("asked %d times, status = %+v", w.acme.count(""), st)
		}
	})
}

func TestBudgetIgnoresAWrongClock(t *testing.T) {
	now := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	entry := func(age time.Duration) issuanceEntry { return issuanceEntry{Time: now.Add(-age)} }
	got := recentEntries([]issuanceEntry{
		entry(time.Minute), entry(25 * time.Hour), entry(-10 * 365 * 24 * time.Hour), entry(-time.Minute), entry(time.Hour),
	}, 24*time.Hour, now)
	want := []issuanceEntry{entry(time.Hour), entry(time.Minute), entry(-time.Minute)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("recentEntries (-want +got):\n%s", diff)
	}
}

func TestRegisteredDomain(t *testing.T) {
	for host, want := range map[string]string{
		"a.b.example.com": "example.com", "*.example.co.uk": "example.co.uk", "example.com": "example.com",
		"me.github.io": "me.github.io", "com": "com", "nas": "nas", "2001:db8::1": "2001:db8::1", "192.0.2.1": "192.0.2.1",
	} {
		if got := registeredDomain(host); got != want {
			t.Errorf("registeredDomain(%q) = %q, want %q", host, got, want)
		}
	}
}

func TestCertClass(t *testing.T) {
	tests := []struct {
		name, host, tls string
		patterns        []string
		class, problem  string
	}{
		{name: "public", host: "blog.example.com", class: "acme"},
		{name: "auto", host: "blog.example.com", tls: "auto", class: "acme"},
		{name: "wildcard", host: "*.example.com", class: "acme"},
		{name: "off", host: "blog.example.com", tls: "off"},
		{name: "catch-all", host: "*"},
		{name: "catch-all with class", host: "*", tls: "internal"},
		{name: "internal", host: "blog.example.com", tls: "internal", class: "internal"},
		{name: "configured", host: "blog.example.com", tls: "dns-cf", class: "dns-cf"},
		{name: "unknown", host: "blog.example.com", tls: "dnscf",
			problem: `no issuer "dnscf" is configured; there are: auto, off, acme, dns-cf, internal`},
		{name: "IPv4", host: "192.0.2.1", class: "internal"},
		{name: "IPv6", host: "2001:db8::1", class: "internal"},
		{name: "localhost", host: "localhost", class: "internal"},
		{name: "below localhost", host: "whoami.localhost", class: "internal"},
		{name: "no dot", host: "nas", class: "internal"},
		{name: "no dot, wildcard", host: "*.lan", class: "internal"},
		{name: ".local", host: "nas.local", class: "internal"},
		{name: ".internal", host: "a.b.internal", class: "internal"},
		{name: ".home.arpa", host: "nas.home.arpa", class: "internal"},
		{name: ".test", host: "x.test", class: "internal"},
		{name: "fritz.box", host: "nas.fritz.box", class: "internal"},
		{name: ".box", host: "nas.box", class: "acme"},
		{name: "TLD that does not exist", host: "nas.smith", class: "internal"},
		{name: "private suffix", host: "me.github.io", class: "acme"},
		{name: "pattern", host: "nas.home.example.com", patterns: []string{"*.Home.example.com"}, class: "internal"},
		{name: "pattern, deep", host: "a.b.home.example.com", patterns: []string{"*.home.example.com"}, class: "internal"},
		{name: "pattern, not the domain itself", host: "home.example.com", patterns: []string{"*.home.example.com"}, class: "acme"},
		{name: "pattern, exact", host: "nas.example.com", patterns: []string{"nas.example.com"}, class: "internal"},
		{name: "bad name", host: "a_b$.example.com", problem: `no certificate can be made for "a_b$.example.com"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			classes := []string{"acme", "dns-cf", "internal"}
			class, problem := certClass(tt.host, tt.tls, classes, tt.patterns)
			if class != tt.class || problem != tt.problem {
				t.Errorf("certClass(%q, %q) = %q, %q; want %q, %q", tt.host, tt.tls, class, problem, tt.class, tt.problem)
			}
			if !slices.Equal(classes, []string{"acme", "dns-cf", "internal"}) {
				t.Error("it changes the caller's list")
			}
		})
	}
}
