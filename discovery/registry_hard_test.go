package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dentropy/dentropycloud/discovery"
	"github.com/google/go-cmp/cmp"
)

// owned tells what is remembered of a host.
func owned(r *rig, host string) discovery.OwnerRecord {
	synctest.Wait()
	rec := r.owners[host]
	r.Sources() // its lock orders the read before writes to come
	return rec
}

// TestClaimsHoldAgainstWildcards: a host that is reserved by a claim is not to be
// had by way of a wildcard or the catch-all either.
func TestClaimsHoldAgainstWildcards(t *testing.T) {
	some := []discovery.Claim{
		{Domains: []string{"pay.shop.test"}, Project: "shop"},
		{Domains: []string{"*.corp.test"}, Project: "corp"},
		{Domains: []string{"*.free.test"}, Project: "infra"},
		{Domains: []string{"x.free.test"}, Project: "shop"},
	}
	all := append([]discovery.Claim{{Domains: []string{"*"}, Project: "infra"}}, some...)
	tests := []struct {
		claims        []discovery.Claim
		project, host string
		granted       bool
	}{
		{some, "evil", "*.shop.test", false}, // would get pay.shop.test while shop is away
		{some, "evil", "*", false},
		{some, "evil", "*.corp.test", false},
		{some, "evil", "*.a.corp.test", false},
		{some, "evil", "*.test", true}, // a wildcard covers one label: nothing that is claimed
		{some, "shop", "*.shop.test", true},
		{some, "shop", "*", false},           // it may have its own, not those of corp
		{some, "infra", "*.free.test", true}, // the operator gave it the wildcard itself
		{all, "infra", "*", true},
		{all, "evil", "*.test", false},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(len(tt.claims), " ", tt.project, " ", tt.host), func(t *testing.T) {
			inBubble(t, discovery.Options{Claims: tt.claims}, func(t *testing.T, r *rig) {
				r.up.Set(container(tt.project, "web", "w", tt.host))
				who := ""
				if tt.granted {
					who = "w:80"
				}
				want(t, r, tt.host, "/", who)
			})
		})
	}
}

// TestClaimsOfOneService: who joins the route of a service that may, and may not
// itself, gets no traffic.
func TestClaimsOfOneService(t *testing.T) {
	claims := []discovery.Claim{{Domains: []string{"a.test"}, Project: "p", Service: "web"}}
	inBubble(t, discovery.Options{Claims: claims}, func(t *testing.T, r *rig) {
		r.up.Set(container("p", "web", "w", "a.test"))
		r.up.Set(container("p", "evil", "e", "a.test"))
		want(t, r, "a.test", "/", "w:80")
		for _, e := range r.RoutesFor("a.test")[0].Endpoints {
			if e.Ready != (e.Object == "w") || !e.Ready && !strings.Contains(e.Detail, "claims") {
				t.Errorf("endpoint = %+v, want only w ready, and why e is not", e)
			}
		}
		r.Reelect(nil, 0)
		want(t, r, "a.test", "/", "e:80,w:80")
		r.Reelect(claims, 0)
		want(t, r, "a.test", "/", "w:80")
	})
}

// TestUnitsAreRemembered: within a project too, a path stays with the service that
// had it first, across restarts of the program and whichever container is older.
func TestUnitsAreRemembered(t *testing.T) {
	first := container("p", "first", "f", "a.test")
	rival := container("p", "rival", "r", "a.test")
	rival.Created, rival.Routes[0].StripPath = first.Created.Add(-time.Hour), true
	var records map[string]discovery.OwnerRecord
	inBubble(t, discovery.Options{}, func(t *testing.T, r *rig) {
		r.up.Set(first)
		r.up.Set(rival)
		want(t, r, "a.test", "/", "f:80")
		records = maps.Clone(r.owners)
	})
	inBubble(t, discovery.Options{}, func(t *testing.T, r *rig) {
		r.LoadOwners(records)
		r.up.Set(rival) // before the source has told everything
		want(t, r, "a.test", "/", "")
		r.up.Replace([]discovery.Object{rival, first})
		want(t, r, "a.test", "/", "f:80")
		r.up.Delete("f") // the other service of the same people need not wait
		want(t, r, "a.test", "/", "r:80")
	})
}

// TestUnitsSurviveForget: what is forgotten when the program ends is still known
// when it starts again.
func TestUnitsSurviveForget(t *testing.T) {
	inBubble(t, discovery.Options{}, func(t *testing.T, r *rig) {
		r.up.Set(container("p", "web", "w", "a.test"))
		r.up.Set(container("p", "api", "a", "a.test", "/api"))
		synctest.Wait()
		before := owned(r, "a.test")
		r.Forget("docker")
		if got := owned(r, "a.test"); !maps.Equal(got.Units, before.Units) {
			t.Errorf("units = %v, want %v for the grace time", got.Units, before.Units)
		}
		<-time.After(2 * time.Minute)
		if got := owned(r, "a.test"); got.Scope != "" {
			t.Errorf("owner = %+v, want none after it", got)
		}
	})
}

// TestUnitsAreForgotten: paths that nobody asks for any more are not remembered for
// as long as the host is owned.
func TestUnitsAreForgotten(t *testing.T) {
	inBubble(t, discovery.Options{Grace: time.Minute}, func(t *testing.T, r *rig) {
		r.up.Set(container("p", "web", "w", "a.test"))
		for i := range 100 { // one review app after the other
			r.up.Set(container("p", "app", "app", "a.test", fmt.Sprint("/pr-", i)))
			<-time.After(10 * time.Second)
		}
		if n := len(owned(r, "a.test").Units); n > 10 {
			t.Errorf("%d units are remembered, want those of the last minute", n)
		}
		r.up.Delete("app")
		<-time.After(2 * time.Minute)
		if n := len(owned(r, "a.test").Units); n != 1 {
			t.Errorf("%d units are remembered, want 1", n)
		}
	})
}

// TestSharedHostKeepsUnitsForTheGraceTime: on a host that several projects share,
// a path is not to be had by somebody else while its owner is made anew.
func TestSharedHostKeepsUnitsForTheGraceTime(t *testing.T) {
	claims := []discovery.Claim{{Domains: []string{"a.test"}, Project: "p"}, {Domains: []string{"a.test"}, Project: "q"}}
	inBubble(t, discovery.Options{Claims: claims, Grace: time.Minute}, func(t *testing.T, r *rig) {
		r.up.Set(container("p", "web", "keep", "a.test", "/keep"))
		first, other := container("p", "api", "f", "a.test", "/x"), container("q", "api", "o", "a.test", "/x")
		r.up.Set(first)
		r.up.Set(other)
		want(t, r, "a.test", "/x", "f:80")
		r.up.Delete("f")
		want(t, r, "a.test", "/x", "")
		v := r.RoutesFor("a.test")
		i := slices.IndexFunc(v, func(v discovery.RouteView) bool { return v.Object == "o" })
		if len(v[i].Refused) != 1 || !strings.Contains(v[i].Refused[0].Reason, "gone") {
			t.Errorf("refused = %+v, want that the owner is gone", v[i].Refused)
		}
		<-time.After(30 * time.Second)
		r.up.Set(first)
		want(t, r, "a.test", "/x", "f:80")
		r.up.Delete("f")
		<-time.After(59 * time.Second)
		want(t, r, "a.test", "/x", "")
		<-time.After(2 * time.Second)
		want(t, r, "a.test", "/x", "o:80")
	})
}

// TestTooManyUnits: one object cannot make the registry work for minutes.
func TestTooManyUnits(t *testing.T) {
	r := newRig(discovery.Options{})
	defer r.Close()
	big := discovery.Object{ID: "big", Name: "big", Group: discovery.Group{Engine: "docker", Service: "big"}, State: discovery.Running}
	for i := range 100 {
		route := discovery.Route{Name: fmt.Sprint("r", i)}
		for j := range 100 {
			route.Hosts = append(route.Hosts, fmt.Sprintf("h%d.test", j))
			route.Paths = append(route.Paths, fmt.Sprintf("/%d/%d", i, j))
		}
		big.Routes = append(big.Routes, route)
	}
	begun := time.Now()
	r.up.Set(big)
	r.up.Set(container("", "a", "a", "a.test"))
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("a million units took %v", took)
	}
	views := r.Routes()
	views = views[:min(1, len(views))] // without hosts, so the first
	if len(views) == 0 || len(views[0].Problems) == 0 || !strings.Contains(views[0].Problems[0].Reason, "10000") {
		t.Fatalf("views = %.500s, want a problem that names the number", fmt.Sprint(views))
	}
}

// TestDeadAddressesHoldUpNobody: addresses that swallow packets keep a probe busy
// for its whole time; a container that has just started does not queue behind
// them.
func TestDeadAddressesHoldUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &consumer{routes: map[string]*discovery.Wanted{}}
		r := discovery.NewRegistry(discovery.Options{Sink: c, Dial: func(ctx context.Context, address string) error {
			if strings.HasPrefix(address, "dead") {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}})
		defer r.Close()
		up := r.Source("docker")
		for i := range 3000 {
			id := fmt.Sprint("dead", i)
			up.Set(container("", id, id, id+".test"))
		}
		<-time.After(time.Minute)
		begun := time.Now()
		up.Set(container("", "a", "a", "a.test"))
		for c.serves("a.test", "/") != "a:80" {
			<-time.After(time.Millisecond)
		}
		if took := time.Since(begun); took > 100*time.Millisecond {
			t.Errorf("a fresh container was served after %v", took)
		}
	})
}

// TestRecheck: what the consumer refused is looked at again when the consumer's
// rules change, without a word from the source.
func TestRecheck(t *testing.T) {
	allowed, asked := false, 0
	opts := discovery.Options{Check: func(route discovery.Route) *discovery.Problem {
		asked++
		if route.Caddyfile != "" && !allowed {
			return &discovery.Problem{Reason: "not allowed"}
		}
		return nil
	}}
	inBubble(t, opts, func(t *testing.T, r *rig) {
		o := container("", "a", "a", "a.test")
		o.Routes[0].Caddyfile = "reverse_proxy nas:80"
		o.Problems = []discovery.Problem{{Route: "other", Reason: "wrong"}}
		for range 10 { // a container that crashes and is started again
			r.up.Set(o)
		}
		want(t, r, "a.test", "/", "")
		if asked != 1 {
			t.Errorf("asked %d times about the same route, want once", asked)
		}
		allowed = true
		r.Recheck()
		want(t, r, "a.test", "/", "a:80")
		if v := r.RoutesFor("a.test"); len(v) != 1 || len(v[0].Problems) != 0 {
			t.Errorf("views = %+v, want no problem any more", v)
		}
		if n := len(r.Routes()); n != 2 { // the dialect's own problem stays
			t.Errorf("%d views, want the route and the other's problem", n)
		}
		r.Recheck()
		want(t, r, "a.test", "/", "a:80")
	})
}

// TestSourceChangesAreTold: each loss and return of a source once, however often it
// is tried.
func TestSourceChangesAreTold(t *testing.T) {
	var got []string
	opts := discovery.Options{SourceChanged: func(v discovery.SourceView) { got = append(got, string(v.State)+" "+v.Error) }}
	inBubble(t, opts, func(t *testing.T, r *rig) {
		lost := errors.New("connection refused")
		r.up.Unknown(lost)
		r.up.Unknown(lost)
		r.up.Replace(nil)
		r.up.Replace(nil)
		r.up.Unknown(lost)
	})
	if diff := cmp.Diff([]string{"unknown connection refused", "connected ", "unknown connection refused"}, got); diff != "" {
		t.Error(diff)
	}
}

func BenchmarkRoutesFor(b *testing.B) {
	r := newRig(discovery.Options{})
	defer r.Close()
	for i := range 10_000 {
		r.up.Set(container("", fmt.Sprint(i), fmt.Sprint(i), fmt.Sprintf("h%d.test", i)))
	}
	for b.Loop() {
		if len(r.RoutesFor("h77.test")) != 1 {
			b.Fatal("not found")
		}
	}
}
