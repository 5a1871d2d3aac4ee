package caddymodule

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mholt/acmez/v3/acme"
)

func TestIssuanceBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCertWorld(t, certTuning{})
		defer w.stop()
		w.acme.fail(acme.Problem{Type: acme.ProblemTypeDNS, Status: 400, Detail: "NXDOMAIN looking up A for a.example.com"})
		start := time.Now()
		w.Want("a.example.com", "acme")
		st := w.now("a.example.com")
		if st.State != "failed" || st.Attempts != 1 || st.Hint == "" ||
			st.LastError != "ca.example: NXDOMAIN looking up A for a.example.com (dns)" {
			t.Errorf("status = %+v", st)
		}
		if next := st.NextTry.Sub(start); next < 2*time.Minute || next > 3*time.Minute {
			t.Errorf("next try after %v, want a little more than 2m", next)
		}
		advance(24 * time.Hour)
		var pauses []time.Duration
		for i, at := range w.acme.times {
			if i > 0 {
				pauses = append(pauses, at.Sub(w.acme.times[i-1]))
			}
		}
		want := certTuning{}.withDefaults().Backoff
		for i, p := range pauses {
			base := want[min(i, len(want)-1)]
			if p < base || p > base*10/8 {
				t.Errorf("pause %d is %v, want %v and up to an eighth more", i, p, base)
			}
		}
		if len(pauses) < 6 {
			t.Errorf("only %d pauses within a day: %v", len(pauses), pauses)
		}
		// A handshake is not held up, nor does it cause an attempt.
		before, n := time.Now(), w.acme.count("")
		if got := w.served("a.example.com"); got != nil || time.Since(before) > 0 || w.acme.count("") != n {
			t.Errorf("served %v after %v, %d attempts more", got, time.Since(before), w.acme.count("")-n)
		}
		w.acme.fail(nil)
		advance(7 * time.Hour)
		if st := w.now("a.example.com"); st.State != "ready" || st.LastError != "" || !st.NextTry.IsZero() {
			t.Errorf("status = %+v", st)
		}
	})
}

func TestIssuanceIsNotHurriedByReloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCertWorld(t, certTuning{})
		defer w.stop()
		w.acme.fail(errors.New("no"))
		w.Want("a.example.com", "acme")
		w.now("a.example.com")
		w.adopt(w.generation(2, certTuning{}))
		if w.now("a.example.com"); w.acme.count("") != 2 {
			t.Errorf("asked %d times, want once more at once after a reload", w.acme.count(""))
		}
		for i := range 50 {
			w.adopt(w.generation(3+i, certTuning{}))
			advance(time.Minute)
		}
		if got := w.acme.count(""); got != 4 {
			t.Errorf("asked %d times within an hour, want 4", got)
		}
		st := w.now("a.example.com")
		if st.LastError == "" || time.Until(st.NextTry) > time.Hour || !st.NextTry.After(time.Now()) {
			t.Errorf("status = %+v", st)
		}
		advance(12 * time.Minute)
		if got := w.acme.count(""); got < 5 {
			t.Errorf("asked %d times in an hour and more, want it to go on", got)
		}
	})
}

func TestIssuanceAcrossAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCertWorld(t, certTuning{})
		defer w.stop()
		hold := make(chan struct{})
		w.acme.do(func(context.Context, string) error { <-hold; return nil })
		w.Want("a.example.com", "acme")
		w.now("a.example.com")
		w.adopt(w.generation(2, certTuning{}))
		w.forget(1)
		close(hold)
		if st := w.now("a.example.com"); st.State != "ready" || w.acme.count("") != 1 {
			t.Errorf("asked %d times, status = %+v", w.acme.count(""), st)
		}
	})
}

func TestIssuanceEndsWithTheName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCertWorld(t, certTuning{Linger: time.Minute})
		defer w.stop()
		w.acme.do(func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() })
		w.Want("a.example.com", "acme")
		w.now("a.example.com")
		w.Drop("a.example.com", "acme")
		advance(2 * time.Minute)
		if n := w.Counts()["obtaining"] + w.Counts()["lingering"]; n != 0 {
			t.Errorf("%d names left", n)
		}
		advance(24 * time.Hour)
		if got := w.acme.count(""); got != 1 {
			t.Errorf("asked %d times", got)
		}
		// A name that fails is left alone while nobody wants it.
		w.acme.fail(errors.New("no"))
		w.Want("b.example.com", "acme")
		w.now("b.example.com")
		w.Drop("b.example.com", "acme")
		advance(24 * time.Hour)
		if got := w.acme.count("b.example.com"); got != 1 {
			t.Errorf("asked %d times", got)
		}
	})
}

func TestIssuanceVisitorWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCertWorld(t, certTuning{})
		defer w.stop()
		hold := make(chan struct{})
		w.acme.do(func(context.Context, string) error { <-hold; return nil })
		w.Want("a.example.com", "acme")
		w.Want("*.example.net", "acme")
		w.Want("a.example.net", "acme")
		start := time.Now()
		if got := w.served("a.example.com"); got != nil || time.Since(start) != 15*time.Second {
			t.Errorf("served %v after %v, want nothing after 15s", got, time.Since(start))
		}
		var wg sync.WaitGroup
		for _, host := range []string{"a.example.com", "a.example.net", "other.example.net"} {
			wg.Go(func() {
				if w.served(host) == nil {
					t.Errorf("the visitor of %s got nothing", host)
				}
			})
		}
		advance(10 * time.Second)
		close(hold)
		wg.Wait()
		if since := time.Since(start); since != 25*time.Second {
			t.Errorf("it took %v", since)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // the visitor has gone
		w.acme.do(func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() })
		w.Want("b.example.com", "acme")
		start = time.Now()
		if c, err := w.Get(ctx, certHello("b.example.com")); c != nil || err != nil || time.Since(start) > 0 {
			t.Errorf("Get = %v, %v after %v", c, err, time.Since(start))
		}
	})
}

func TestIssuanceWaitersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCertWorld(t, certTuning{Waiters: 2})
		defer w.stop()
		w.acme.do(func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() })
		w.Want("a.example.com", "acme")
		start := time.Now()
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { w.served("a.example.com") })
		}
		synctest.Wait()
		if w.served("a.example.com"); time.Since(start) > 0 {
			t.Errorf("the third waited %v", time.Since(start))
		}
		wg.Wait()
	})
}

func TestIssuanceOfFailingNamesLeavesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCertWorld(t, certTuning{Budget: -1})
		defer w.stop()
		slow := func(ctx context.Context, host string) error {
			if strings.HasPrefix(host, "bad") {
				select {
				case <-time.After(5 * time.Minute):
				case <-ctx.Done():
				}
				return errors.New("timeout")
			}
			return nil
		}
		w.acme.do(slow)
		for i := range 100 {
			w.Want(fmt.Sprintf("bad%d.example.com", i), "acme")
		}
		advance(5*time.Minute*13 + time.Minute) // all have failed once, some are tried again
		w.Want("good.example.com", "acme")
		if st := w.now("good.example.com"); st.State != "ready" {
			t.Errorf("status = %+v", st)
		}
	})
}

func TestIssuanceStoredExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCertWorld(t, certTuning{Budget: 1})
		defer w.stop()
		for _, host := range []string{"a.example.com", "b.example.com"} {
			w.acme.store(t, w.storage, host, time.Hour)
		}
		advance(2 * time.Hour)
		w.Want("a.example.com", "acme")
		w.Want("b.example.com", "acme")
		for _, host := range []string{"a.example.com", "b.example.com"} {
			st := w.now(host)
			if st.State != "ready" || st.NotAfter.Before(time.Now()) {
				t.Errorf("%s: %+v", host, st)
			}
		}
		if got := w.acme.count(""); got != 2 {
			t.Errorf("asked %d times, want 2: renewals are free", got)
		}
	})
}

func TestIssuanceRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCertWorld(t, certTuning{Budget: 1})
		defer w.stop()
		w.acme.lifetime = 9 * time.Hour
		w.Want("a.example.com", "acme")
		first := w.now("a.example.com")
		advance(7 * time.Hour)
		second := w.now("a.example.com")
		if second.State != "ready" || second.Serial == first.Serial || w.acme.count("") < 2 {
			t.Errorf("not renewed: %+v", second)
		}
		w.acme.fail(errors.New("down"))
		advance(8 * time.Hour)
		if st := w.now("a.example.com"); st.State != "ready" || !strings.Contains(st.LastError, "renew: ") {
			t.Errorf("a renewal failed, status = %+v", st)
		}
		w.acme.fail(nil)
		advance(6 * time.Hour)
		if st := w.now("a.example.com"); st.LastError != "" || st.NotAfter.Before(time.Now()) {
			t.Errorf("renewed after all, status = %+v", st)
		}
	})
}

func TestIssuanceRepairsStorage(t *testing.T) {
	w := newCertWorld(t, certTuning{})
	certStoreFiles(t, w.storage, "ca.example", "a.example.com", nil, []byte("garbage"))
	w.Want("a.example.com", "acme")
	w.is("a.example.com", "ready")
	if got := w.acme.count(""); got != 1 {
		t.Errorf("asked %d times", got)
	}
}

func TestIssuanceStorageDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCertWorld(t, certTuning{})
		defer w.stop()
		w.acme.store(t, w.storage, "a.example.com", 90*24*time.Hour)
		w.storage.faulty(func(op, key string) error {
			if op == "load" && strings.Contains(key, "a.example.com") {
				return errors.New("connection refused")
			}
			return nil
		})
		w.Want("a.example.com", "acme")
		st := w.now("a.example.com")
		if st.State != "failed" || !strings.Contains(st.LastError, "connection refused") || w.acme.count("") != 0 {
			t.Errorf("asked %d times, status = %+v", w.acme.count(""), st)
		}
		w.storage.faulty(nil)
		advance(3 * time.Minute)
		if st := w.now("a.example.com"); st.State != "ready" || w.acme.count("") != 0 {
			t.Errorf("asked %d times, status = %+v", w.acme.count(""), st)
		}
	})
}

func TestIssuanceSurvivesAPanic(t *testing.T) {
	w := newCertWorld(t, certTuning{})
	w.acme.do(func(context.Context, string) error { panic("plugin") })
	w.Want("a.example.com", "acme")
	if st := w.is("a.example.com", "failed"); !strings.Contains(st.LastError, "plugin") {
		t.Errorf("status = %+v", st)
	}
}

// After a start all certificates are in storage and none in memory: a visitor
// does not wait until the queue gets to his site.
func TestIssuanceStoredIsServedBeforeTheQueue(t *testing.T) {
	const names = 500
	w := newCertWorld(t, certTuning{})
	stall := make(chan struct{})
	for i := range names {
		w.acme.store(t, w.storage, fmt.Sprintf("h%d.example.com", i), 90*24*time.Hour)
	}
	w.storage.faulty(func(op, key string) error {
		if op == "load" && strings.Contains(key, "/h") && !strings.Contains(key, "h499.") {
			<-stall
		}
		return nil
	})
	for i := range names {
		w.Want(fmt.Sprintf("h%d.example.com", i), "acme")
	}
	if w.served("h499.example.com") == nil {
		t.Error("not served")
	}
	close(stall)
	certAwait(t, "all are ready", func() bool { return w.Counts()["ready"] == names })
	if got := w.acme.count(""); got != 0 {
		t.Errorf("the CA was asked %d times", got)
	}
}

func BenchmarkIssuanceStored(b *testing.B) {
	const names = 10_000
	for b.Loop() {
		b.StopTimer()
		w := newCertWorld(b, certTuning{})
		w.acme.store(b, w.storage, "h0.example.com", 90*24*time.Hour)
		cert, _ := w.storage.Load(b.Context(), "certificates/ca.example/h0.example.com/h0.example.com.crt")
		key, _ := w.storage.Load(b.Context(), "certificates/ca.example/h0.example.com/h0.example.com.key")
		_ = cert
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			b.Fatal(err)
		}
		for i := range names { // one key for all: making 10,000 is not what is measured
			host := fmt.Sprintf("h%d.example.com", i)
			certStoreFiles(b, w.storage, "ca.example", host,
				w.acme.sign(pair.Leaf.PublicKey, []string{host}, 90*24*time.Hour), key)
		}
		w.forget(1) // as in a start: names first, then the config
		var m0, m1 runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m0)
		b.StartTimer()
		for i := range names {
			w.Want(fmt.Sprintf("h%d.example.com", i), "acme")
		}
		wanted := b.Elapsed()
		w.adopt(w.generation(2, certTuning{}))
		first := time.Now()
		if w.served("h9999.example.com") == nil {
			b.Fatal("not served")
		}
		b.ReportMetric(float64(time.Since(first).Microseconds()), "µs/first-handshake")
		certAwait(b, "all are ready", func() bool { return w.Counts()["ready"] == names })
		b.StopTimer()
		_ = wanted
		runtime.GC()
		runtime.ReadMemStats(&m1)
		b.ReportMetric(float64(m1.HeapAlloc-m0.HeapAlloc)/names, "B/name")
		w.stop()
		b.StartTimer()
	}
}

func BenchmarkCertGet(b *testing.B) {
	w := newCertWorld(b, certTuning{Budget: -1})
	w.Want("a.example.com", "internal")
	w.is("a.example.com", "ready")
	hello := certHello("a.example.com")
	b.Run("served", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if c, _ := w.Get(b.Context(), hello); c == nil {
				b.Fatal("nothing")
			}
		}
	})
	unknown := certHello("unknown.example.com")
	b.Run("unknown", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if c, _ := w.Get(b.Context(), unknown); c != nil {
				b.Fatal("something")
			}
		}
	})
}

func TestIssueErrorText(t *testing.T) {
	now := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	limited := func(detail string) error {
		return fmt.Errorf("[a.example.com] creating new order: %w", acme.Problem{Type: acme.ProblemTypeRateLimited, Status: 429, Detail: detail})
	}
	tests := []struct {
		name  string
		err   error
		text  string
		limit rateLimit
	}{
		{name: "plain", err: errors.New("dial tcp: refused"), text: "dial tcp: refused"},
		{name: "two issuers", err: errors.Join(errors.New("a: no"), errors.New("b: no")), text: "a: no; b: no"},
		{
			name: "domain", err: limited(`too many certificates (50) already issued for "example.com" in the last 168h0m0s, retry after 2026-11-25 01:02:03 UTC: see https://x`),
			text:  `too many certificates (50) already issued for "example.com" in the last 168h0m0s, retry after 2026-11-25 01:02:03 UTC: see https://x (rateLimited)`,
			limit: rateLimit{until: time.Date(2026, 11, 25, 1, 2, 3, 0, time.UTC), scope: limitDomain},
		},
		{
			name: "domain that is the host itself", err: limited(`too many certificates (50) already issued for "a.example.com" in the last 168h0m0s`),
			text:  `too many certificates (50) already issued for "a.example.com" in the last 168h0m0s (rateLimited)`,
			limit: rateLimit{until: now.Add(time.Hour), scope: limitDomain},
		},
		{
			name: "exact set", err: limited(`too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s, retry after 2026-11-25 01:02:03 UTC`),
			text:  `too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s, retry after 2026-11-25 01:02:03 UTC (rateLimited)`,
			limit: rateLimit{until: time.Date(2026, 11, 25, 1, 2, 3, 0, time.UTC), scope: limitHost},
		},
		{
			name: "host", err: limited(`too many failed authorizations (5) for "a.example.com" in the last 1h0m0s, retry after 2026-11-24T08:30:00Z`),
			text:  `too many failed authorizations (5) for "a.example.com" in the last 1h0m0s, retry after 2026-11-24T08:30:00Z (rateLimited)`,
			limit: rateLimit{until: time.Date(2026, 11, 24, 8, 30, 0, 0, time.UTC), scope: limitHost},
		},
		{
			name: "account", err: limited(`too many new orders (300) from this account in the last 3h0m0s`),
			text:  `too many new orders (300) from this account in the last 3h0m0s (rateLimited)`,
			limit: rateLimit{until: now.Add(time.Hour), scope: limitAccount},
		},
		{
			name: "nonsense date", err: limited(`retry after 2999-11-25 01:02:03 UTC`), text: `retry after 2999-11-25 01:02:03 UTC (rateLimited)`,
			limit: rateLimit{until: now.Add(time.Hour), scope: limitAccount},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if text, _ := issueErrorText(tt.err); text != tt.text {
				t.Errorf("text = %q, want %q", text, tt.text)
			}
			limit, ok := issueRateLimit(tt.err, "a.example.com", now)
			limit.detail = ""
			if ok == tt.limit.until.IsZero() {
				t.Errorf("ok = %v", ok)
			}
			if diff := cmp.Diff(tt.limit, limit, cmp.AllowUnexported(rateLimit{})); ok && diff != "" {
				t.Errorf("limit (-want +got):\n%s", diff)
			}
		})
	}
}
