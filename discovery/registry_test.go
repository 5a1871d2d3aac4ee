package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dentropy/dentropycloud/discovery"
	"github.com/google/go-cmp/cmp"
)

// consumer is a sink that keeps what it was told, and counts.
type consumer struct {
	mu      sync.Mutex
	routes  map[string]*discovery.Wanted
	changes int
}

func (c *consumer) Apply(changes []discovery.Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ch := range changes {
		c.changes++
		if ch.Route == nil {
			delete(c.routes, ch.Key)
		} else {
			c.routes[ch.Key] = ch.Route
		}
	}
}

// serves tells who serves a unit: the addresses, or "hold", or "".
func (c *consumer) serves(host, path string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, w := range c.routes {
		for _, u := range w.Units {
			if u.Host == host && u.Path == path {
				if len(w.Ready) == 0 {
					out = append(out, "hold")
				} else {
					out = append(out, strings.Join(w.Ready, ","))
				}
			}
		}
	}
	slices.Sort(out)
	return strings.Join(out, " AND ")
}

// dialer answers for the addresses that are up.
type dialer struct {
	mu    sync.Mutex
	down  map[string]bool
	dials int
}

func (d *dialer) dial(_ context.Context, address string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dials++
	if d.down[address] {
		return errors.New("dial tcp " + address + ": connect: connection refused")
	}
	return nil
}

func (d *dialer) set(address string, up bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down == nil {
		d.down = map[string]bool{}
	}
	d.down[address] = !up
}

type rig struct {
	*discovery.Registry
	*consumer
	dialer *dialer
	up     discovery.Updater
	owners map[string]discovery.OwnerRecord
}

// inBubble runs f with a registry whose time is fake; see testing/synctest.
func inBubble(t *testing.T, opts discovery.Options, f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(opts)
		defer r.Close()
		f(t, r)
	})
}

func newRig(opts discovery.Options) *rig {
	r := &rig{consumer: &consumer{routes: map[string]*discovery.Wanted{}}, dialer: &dialer{}, owners: map[string]discovery.OwnerRecord{}}
	opts.Sink, opts.Dial = r.consumer, r.dialer.dial
	opts.Owned = func(host string, rec *discovery.OwnerRecord) {
		if rec == nil {
			delete(r.owners, host)
		} else {
			r.owners[host] = *rec
		}
	}
	r.Registry = discovery.NewRegistry(opts)
	r.up = r.Source("docker")
	return r
}

// container is a running object; route names its host and path.
func container(project, service, id, host string, paths ...string) discovery.Object {
	route := discovery.Route{Hosts: strings.Split(host, ","), Paths: paths}
	o := discovery.Object{
		ID: id, Name: id, Group: discovery.Group{Engine: "docker", Project: project, Service: service},
		Created: time.Unix(1000, 0), State: discovery.Running,
		Resolve: func(discovery.Route) discovery.Endpoint { return at(id + ":80") },
	}
	route.Endpoints = []discovery.Endpoint{at(id + ":80")}
	o.Routes = []discovery.Route{route}
	return o
}

func at(address string) discovery.Endpoint {
	return discovery.Endpoint{Candidates: []discovery.Candidate{{Address: address, Reason: "test"}}}
}

func want(t *testing.T, r *rig, host, path, who string) {
	t.Helper()
	synctest.Wait()
	if got := r.serves(host, path); got != who {
		t.Errorf("%s%s is served by %q, want %q", host, path, got, who)
	}
}

func TestServedOnceVerified(t *testing.T) {
	inBubble(t, discovery.Options{}, func(t *testing.T, r *rig) {
		r.dialer.set("a:80", false)
		r.up.Set(container("", "a", "a", "a.test"))
		want(t, r, "a.test", "/", "hold")
		if v := r.RoutesFor("a.test"); v[0].State != "holding" || !strings.Contains(v[0].Endpoints[0].Detail, "connection refused") {
			t.Errorf("view = %+v, want the reason of the refused connect", v[0])
		}
		r.dialer.set("a:80", true)
		<-time.After(time.Second) // fake time: the prober asks again by then
		want(t, r, "a.test", "/", "a:80")
	})
}

func TestStatesAndSwap(t *testing.T) {
	inBubble(t, discovery.Options{}, func(t *testing.T, r *rig) {
		o := container("", "a", "a", "a.test")
		r.up.Set(o)
		want(t, r, "a.test", "/", "a:80")
		for _, s := range []discovery.State{discovery.Created, discovery.Starting, discovery.Unhealthy, discovery.Paused, discovery.Restarting, discovery.Stopped} {
			o.State = s
			r.up.Set(o)
			want(t, r, "a.test", "/", "hold")
		}
		o.State = discovery.Running
		o.Routes = slices.Clone(o.Routes)
		o.Routes[0].Endpoints = []discovery.Endpoint{at("b:80")}
		r.up.Set(o)
		want(t, r, "a.test", "/", "b:80")
		r.Suspect(r.RoutesFor("a.test")[0].Key, "b:80")
		want(t, r, "a.test", "/", "b:80") // it answers the probe
		r.up.Delete("a")
		want(t, r, "a.test", "/", "")
	})
}

func TestSpecPointerStays(t *testing.T) {
	inBubble(t, discovery.Options{}, func(t *testing.T, r *rig) {
		r.up.Set(container("p", "web", "w1", "a.test"))
		synctest.Wait()
		before := slices.Collect(maps.Values(r.routes))[0]
		r.up.Set(container("p", "web", "w2", "a.test"))
		want(t, r, "a.test", "/", "w1:80,w2:80")
		if after := r.routes[before.Key]; after.Spec != before.Spec {
			t.Error("a further replica made another spec: the route would be provisioned again")
		}
		n := r.changes
		r.up.Set(container("p", "web", "w2", "a.test")) // news that is none
		synctest.Wait()
		if r.changes != n {
			t.Errorf("%d changes for a repeated report, want 0", r.changes-n)
		}
	})
}

func TestSharedWithinProject(t *testing.T) {
	inBubble(t, discovery.Options{}, func(t *testing.T, r *rig) {
		r.up.Set(container("p", "blue", "b", "a.test"))
		r.up.Set(container("p", "green", "g", "a.test"))
		want(t, r, "a.test", "/", "b:80,g:80")
		other := container("p", "red", "r", "a.test")
		other.Routes[0].StripPath = true
		r.up.Set(other)
		want(t, r, "a.test", "/", "b:80,g:80")
		v := r.RoutesFor("a.test")
		i := slices.IndexFunc(v, func(v discovery.RouteView) bool { return v.Object == "r" })
		if v[i].State != "refused" || !strings.Contains(v[i].Refused[0].Reason, "other settings") {
			t.Errorf("view = %+v, want a refusal that names the other settings", v[i])
		}
	})
}

func TestOlderKeepsHost(t *testing.T) {
	inBubble(t, discovery.Options{Grace: time.Minute}, func(t *testing.T, r *rig) {
		old, young := container("one", "web", "old", "a.test"), container("two", "web", "young", "a.test", "/api")
		young.Created = old.Created.Add(time.Second)
		r.up.Replace([]discovery.Object{young, old}) // the order of a list says nothing
		want(t, r, "a.test", "/", "old:80")
		want(t, r, "a.test", "/api", "") // other paths are the owner's as well
		v := r.RoutesFor("a.test")
		if v[1].State != "refused" || !strings.Contains(v[1].Refused[0].Reason, "belongs to docker/one/*") {
			t.Errorf("view = %+v, want a refusal that names the owner", v[1])
		}
		old.State = discovery.Stopped // a restart does not lose it
		r.up.Set(old)
		want(t, r, "a.test", "/", "hold")
		r.up.Delete("old")
		want(t, r, "a.test", "/api", "")
		<-time.After(59 * time.Second)
		want(t, r, "a.test", "/api", "")
		<-time.After(2 * time.Second)
		want(t, r, "a.test", "/api", "young:80")
		r.up.Set(old) // too late
		want(t, r, "a.test", "/", "")
	})
}

func TestTieByName(t *testing.T) {
	inBubble(t, discovery.Options{}, func(t *testing.T, r *rig) {
		r.up.Replace([]discovery.Object{container("", "b", "b", "a.test"), container("", "a", "a", "a.test")})
		want(t, r, "a.test", "/", "a:80")
	})
}

func TestNewVersionTakesOverWhenReady(t *testing.T) {
	inBubble(t, discovery.Options{}, func(t *testing.T, r *rig) {
		r.up.Set(container("p", "web", "v1", "a.test"))
		want(t, r, "a.test", "/", "v1:80")
		v2 := container("p", "web", "v2", "a.test")
		v2.Created, v2.Routes[0].StripPath = v2.Created.Add(time.Hour), true
		r.dialer.set("v2:80", false)
		r.up.Set(v2)
		want(t, r, "a.test", "/", "v1:80")
		r.dialer.set("v2:80", true)
		<-time.After(time.Second)
		want(t, r, "a.test", "/", "v2:80")
		r.up.Delete("v1")
		want(t, r, "a.test", "/", "v2:80")
	})
}

func TestOwnersAreRemembered(t *testing.T) {
	records := map[string]discovery.OwnerRecord{}
	inBubble(t, discovery.Options{}, func(t *testing.T, r *rig) {
		r.up.Set(container("young", "web", "y", "a.test"))
		synctest.Wait()
		records = maps.Clone(r.owners)
	})
	if rec := records["a.test"]; rec.Scope != "docker/young/*" || rec.Units["/"] != "docker/young/web" {
		t.Fatalf("remembered %+v, want docker/young with its unit", rec)
	}
	older := container("older", "web", "o", "a.test")
	older.Created = time.Unix(1, 0)
	inBubble(t, discovery.Options{Grace: time.Minute}, func(t *testing.T, r *rig) {
		r.LoadOwners(records)
		r.up.Set(older) // before the source has told everything
		want(t, r, "a.test", "/", "")
		r.up.Replace([]discovery.Object{older, container("young", "web", "y", "a.test")})
		want(t, r, "a.test", "/", "y:80")
	})
	inBubble(t, discovery.Options{Grace: time.Minute}, func(t *testing.T, r *rig) {
		r.LoadOwners(records)
		r.up.Replace([]discovery.Object{older})
		want(t, r, "a.test", "/", "")
		<-time.After(61 * time.Second)
		want(t, r, "a.test", "/", "o:80")
	})
}

func TestOwnersOfAnEngineThatIsNoMore(t *testing.T) {
	inBubble(t, discovery.Options{Grace: time.Minute}, func(t *testing.T, r *rig) {
		r.LoadOwners(map[string]discovery.OwnerRecord{"a.test": {Scope: "docker:nas/x"}, "b.test": {Scope: "docker/x"}})
		r.SettleOwners([]string{"docker"})
		r.up.Set(container("", "y", "y", "a.test,b.test"))
		want(t, r, "a.test", "/", "")
		<-time.After(61 * time.Second)
		want(t, r, "a.test", "/", "y:80")
		want(t, r, "b.test", "/", "") // that engine has not answered yet
	})
}

func TestClaims(t *testing.T) {
	claims := []discovery.Claim{{Domains: []string{"*.shop.test", "shop.test"}, Project: "shop"}, {Domains: []string{"both.test"}, Project: "a"}, {Domains: []string{"both.test"}, Project: "b"}}
	inBubble(t, discovery.Options{Claims: claims}, func(t *testing.T, r *rig) {
		r.up.Set(container("evil", "web", "e", "www.shop.test"))
		want(t, r, "www.shop.test", "/", "")
		r.up.Set(container("shop", "web", "s", "www.shop.test"))
		want(t, r, "www.shop.test", "/", "s:80")
		r.up.Set(container("a", "web", "a1", "both.test"))
		r.up.Set(container("b", "web", "b1", "both.test", "/b"))
		want(t, r, "both.test", "/", "a1:80")
		want(t, r, "both.test", "/b", "b1:80")
		r.Reelect(nil, 0)
		want(t, r, "both.test", "/b", "")
	})
}

func TestReserved(t *testing.T) {
	static := true
	opts := discovery.Options{Reserved: func(host string) (string, bool) { return "the Caddyfile", static && host == "a.test" }}
	inBubble(t, opts, func(t *testing.T, r *rig) {
		r.up.Set(container("", "a", "a", "a.test,b.test"))
		want(t, r, "a.test", "/", "")
		want(t, r, "b.test", "/", "a:80")
		static = false
		r.Reelect(nil, 0)
		want(t, r, "a.test", "/", "a:80")
	})
}

func TestLastGoodVersionGoesOn(t *testing.T) {
	inBubble(t, discovery.Options{}, func(t *testing.T, r *rig) {
		r.up.Set(container("p", "web", "v1", "a.test"))
		v2 := container("p", "web", "v2", "x")
		v2.Routes = nil
		v2.Problems = []discovery.Problem{{Label: "dentropy.hots", Value: "a.test", Reason: "unknown key", Hint: "dentropy.host"}}
		r.up.Set(v2)
		r.up.Delete("v1")
		want(t, r, "a.test", "/", "v2:80")
		v := r.RoutesFor("a.test")
		if len(v) != 1 || !v[0].LastGood || len(v[0].Problems) != 1 {
			t.Errorf("views = %+v, want one with the problem and last_good", v)
		}
		r.up.Set(container("p", "web", "v2", "a.test"))
		want(t, r, "a.test", "/", "v2:80")
		if v := r.RoutesFor("a.test"); v[0].LastGood || len(v[0].Problems) > 0 {
			t.Errorf("view = %+v, want it mended", v[0])
		}
	})
	inBubble(t, discovery.Options{}, func(t *testing.T, r *rig) { // never was good
		o := container("p", "web", "v", "x")
		o.Routes, o.Problems = nil, []discovery.Problem{{Label: "dentropy.host", Value: "a b.test", Reason: "not a host name"}}
		r.up.Set(o)
		synctest.Wait()
		if v := r.Routes(); len(v) != 1 || v[0].State != "error" || len(r.routes) != 0 {
			t.Errorf("views = %+v, routes = %v, want the error and no route", v, r.routes)
		}
	})
}

func TestCheckRefusesOneRoute(t *testing.T) {
	opts := discovery.Options{Check: func(route discovery.Route) *discovery.Problem {
		if route.Caddyfile == "bad" {
			return &discovery.Problem{Label: "dentropy.caddyfile", Reason: "bad"}
		}
		return nil
	}}
	inBubble(t, opts, func(t *testing.T, r *rig) {
		o := container("p", "web", "w", "a.test")
		second := o.Routes[0]
		second.Name, second.Hosts, second.Caddyfile = "api", []string{"b.test"}, "bad"
		o.Routes = append(o.Routes, second)
		r.up.Set(o)
		want(t, r, "a.test", "/", "w:80")
		want(t, r, "b.test", "/", "")
	})
}

func TestUnknownKeepsRoutes(t *testing.T) {
	inBubble(t, discovery.Options{}, func(t *testing.T, r *rig) {
		r.up.Replace([]discovery.Object{container("", "a", "a", "a.test")})
		r.up.Unknown(errors.New("no socket"))
		want(t, r, "a.test", "/", "a:80")
		if v := r.Routes()[0]; !v.Stale {
			t.Error("not marked stale")
		}
		if s := r.Sources()[0]; s.State != discovery.SourceUnknown || s.Error != "no socket" {
			t.Errorf("source = %+v, want unknown with the error", s)
		}
		r.up.Replace([]discovery.Object{container("", "b", "b", "b.test")})
		want(t, r, "a.test", "/", "")
		want(t, r, "b.test", "/", "b:80")
		if v := r.Routes()[0]; v.Stale {
			t.Error("still marked stale")
		}
		r.Forget("docker")
		want(t, r, "b.test", "/", "")
		r.up.Set(container("", "c", "c", "c.test")) // by a source that was told to end
		want(t, r, "c.test", "/", "")
	})
}

// TestAgainstModel holds the registry, fed with random events in small worlds,
// against what it must hold at rest: a registry that is told only the final
// truth serves the same units, and nobody else's routes were touched.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			r := newRig(discovery.Options{Grace: time.Second})
			defer r.Close()
			truth := map[string]discovery.Object{}
			for range 200 {
				id := fmt.Sprint("c", rnd.IntN(6))
				switch rnd.IntN(6) {
				case 0:
					delete(truth, id)
					r.up.Delete(id)
				case 1:
					r.up.Replace(slices.Collect(maps.Values(truth)))
				case 2:
					<-time.After(time.Duration(rnd.IntN(1500)) * time.Millisecond)
				default:
					o := container([]string{"", "p", "q"}[rnd.IntN(3)], []string{"s", "t"}[rnd.IntN(2)], id, []string{"a.test", "b.test", "a.test,b.test"}[rnd.IntN(3)], []string{"/", "/x"}[rnd.IntN(2)])
					if old, ok := truth[id]; ok {
						o.Group = old.Group
					}
					o.State = []discovery.State{discovery.Running, discovery.Stopped}[rnd.IntN(2)]
					o.Routes[0].StripPath = rnd.IntN(4) == 0
					truth[id] = o
					r.up.Set(o)
				}
			}
			<-time.After(time.Hour) // all grace is over
			synctest.Wait()
			owner := map[discovery.Unit]string{}
			for key, w := range r.routes {
				for _, u := range w.Units {
					if other, ok := owner[u]; ok {
						t.Fatalf("seed %d: %v is served by %s and %s", seed, u, other, key)
					}
					owner[u] = key
				}
			}
			asked := map[discovery.Unit]bool{}
			for _, v := range r.Routes() {
				for _, u := range v.Granted {
					asked[u] = true
					if owner[u] != v.Key {
						t.Fatalf("seed %d: view grants %v to %s, the consumer has %s", seed, u, v.Key, owner[u])
					}
				}
			}
			for _, o := range truth {
				for _, h := range o.Routes[0].Hosts {
					claimed := slices.ContainsFunc(slices.Collect(maps.Keys(owner)), func(u discovery.Unit) bool { return u.Host == h })
					if !claimed {
						t.Fatalf("seed %d: %s asks for %s, nobody serves it", seed, o.ID, h)
					}
				}
			}
			if diff := cmp.Diff(len(asked), len(owner)); diff != "" {
				t.Fatalf("seed %d: units granted and served differ: %s", seed, diff)
			}
			for id := range truth {
				r.up.Delete(id)
			}
			<-time.After(time.Hour)
			synctest.Wait()
			if len(r.routes) != 0 || len(r.owners) != 0 {
				t.Fatalf("seed %d: left over: %v %v", seed, r.routes, r.owners)
			}
		})
	}
}

func BenchmarkSet(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprint("routes=", n), func(b *testing.B) {
			r := newRig(discovery.Options{})
			defer r.Close()
			for i := range n {
				r.up.Set(container("", fmt.Sprint(i), fmt.Sprint(i), fmt.Sprintf("h%d.test", i)))
			}
			o := container("", "x", "x", "x.test")
			b.ReportAllocs()
			for b.Loop() {
				o.State = discovery.Running
				r.up.Set(o)
				o.State = discovery.Stopped
				r.up.Set(o)
			}
		})
	}
}

// TestLastGoodIsKeptForTheWholeGrace: a group that comes and goes has its last good
// version for the grace time from when it went last, not first.
func TestLastGoodIsKeptForTheWholeGrace(t *testing.T) {
	inBubble(t, discovery.Options{Grace: time.Minute}, func(t *testing.T, r *rig) {
		good := container("", "web", "id", "a.test")
		bad := good
		bad.Routes, bad.Problems = nil, []discovery.Problem{{Reason: "wrong"}}
		r.up.Set(good)
		r.up.Delete("id")
		<-time.After(50 * time.Second)
		r.up.Set(good)
		r.up.Delete("id")
		<-time.After(50 * time.Second)
		r.up.Set(bad)
		want(t, r, "a.test", "/", "id:80")
		r.up.Delete("id")
		<-time.After(2 * time.Minute)
		r.up.Set(bad)
		want(t, r, "a.test", "/", "")
	})
}

func TestRenameKeepsWhatIsOwned(t *testing.T) {
	inBubble(t, discovery.Options{}, func(t *testing.T, r *rig) {
		o := container("", "before", "id", "a.test", "/", "/x")
		r.up.Set(o)
		want(t, r, "a.test", "/", "id:80")
		o.Name, o.Group.Service = "after", "after"
		r.up.Set(o)
		want(t, r, "a.test", "/", "id:80")
		want(t, r, "a.test", "/x", "id:80")
		if rec := r.owners["a.test"]; rec.Scope != "docker/after" || rec.Units["/"] != "docker/after" {
			t.Errorf("remembered %+v, want docker/after", rec)
		}
		bad := o
		bad.Routes, bad.Problems = nil, []discovery.Problem{{Reason: "wrong"}}
		r.up.Set(bad) // the last good version went along
		want(t, r, "a.test", "/", "id:80")
		r.up.Delete("id")
		want(t, r, "a.test", "/", "")
	})
}
