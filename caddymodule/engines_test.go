package caddymodule

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/discovery"
	"github.com/dentropy/dentropycloud/discovery/dialect/native"
	"github.com/dentropy/dentropycloud/discovery/sourcetest"
)

// labelled is a container whose program listens at address, on loopback.
func labelled(t *testing.T, name, address string, labels ...string) sourcetest.Container {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	c := sourcetest.Container{Name: name, Exposed: []int{n}, Networks: []sourcetest.Attachment{{Network: "bridge", IP: host}}, Labels: map[string]string{"dentropy.tls": "off"}}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		c.Labels[k] = v
	}
	return c
}

// TestSeveralEngines goes the whole way, from two engines' events to requests:
// each is followed, one that is lost keeps its routes, and comes back.
func TestSeveralEngines(t *testing.T) {
	one, two := sourcetest.NewEngine(t, sourcetest.EngineOptions{API: "1.41"}), sourcetest.NewEngine(t, sourcetest.EngineOptions{API: "1.52", MinAPI: "1.44"})
	one.Load(labelled(t, "a", backend(t, "a"), "dentropy.host=a.test"))
	w := newWorld(t, func(app map[string]any) {
		app["dialects"] = []any{map[string]any{"dialect": "native"}}
		app["sources"] = []any{
			map[string]any{"source": "docker", "endpoint": one.Endpoint()},
			map[string]any{"source": "docker", "endpoint": two.Endpoint(), "name": "nas"},
		}
	})
	served := func(host, by string) {
		t.Helper()
		eventually(t, host+" is served by "+by, func() bool {
			status, body, err := w.try("http://" + host + "/")
			return err == nil && status == 200 && body == by+" /"
		})
	}
	served("a.test", "a")
	two.Run(labelled(t, "b", backend(t, "b"), "dentropy.host=b.test"))
	served("b.test", "b")
	// the same name on another engine is another group: the first keeps the host
	two.Run(labelled(t, "a", backend(t, "thief"), "dentropy.host=a.test"))
	two.Down()
	s, _ := current()
	eventually(t, "the lost engine is unknown", func() bool {
		for _, src := range s.registry.Sources() {
			if src.Name == "docker:nas" {
				return src.State == discovery.SourceUnknown
			}
		}
		return false
	})
	served("b.test", "b")
	served("a.test", "a")
	one.Run(labelled(t, "c", backend(t, "c"), "dentropy.host=c.test"))
	served("c.test", "c")
	if err := two.Up(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is connected again", func() bool {
		for _, v := range s.registry.Routes() {
			if v.Stale {
				return false
			}
		}
		return true
	})
	two.Run(labelled(t, "d", backend(t, "d"), "dentropy.host=d.test"))
	served("d.test", "d")
	bad := slices.Concat(one.Forbidden(), two.Forbidden())
	// The platform of backups asks which version it is before it looks for what is left over.
	bad = slices.DeleteFunc(bad, func(call string) bool { return call == "HEAD /_ping" })
	if len(bad) > 0 {
		t.Errorf("calls other than GET: %q", bad)
	}
}

// TestSnippetLabelEndToEnd makes sure that a container's snippet runs, and that a
// bad one leaves the good version in force.
func TestSnippetLabelEndToEnd(t *testing.T) {
	engine := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
	w := newWorld(t, func(app map[string]any) {
		app["dialects"] = []any{map[string]any{"dialect": "native"}}
		app["sources"] = []any{map[string]any{"source": "docker", "endpoint": engine.Endpoint()}}
	})
	answers := func(path, want string) {
		t.Helper()
		eventually(t, path+" answers "+want, func() bool {
			_, body, err := w.try("http://s.test" + path)
			return err == nil && body == want
		})
	}
	// two versions on the same port, as two containers have it
	v1 := backend(t, "v1")
	v2 := backendAt(t, "v2", strings.Replace(v1, "127.0.0.1", "127.0.0.2", 1))
	first := engine.Run(labelled(t, "s", v1, "dentropy.host=s.test", "dentropy.caddyfile=respond /hello \"from the label\""))
	answers("/hello", "from the label")
	answers("/x", "v1 /x")
	engine.Destroy(first)
	engine.Run(labelled(t, "s", v2, "dentropy.host=s.test", "dentropy.caddyfile=file_server"))
	answers("/x", "v2 /x")
	answers("/hello", "from the label")
	s, _ := current()
	v := s.registry.RoutesFor("s.test")
	if len(v) != 1 || !v[0].LastGood || len(v[0].Problems) != 1 || !strings.Contains(v[0].Problems[0].Error(), "file_server") {
		t.Errorf("views = %+v, want the refused snippet named", v)
	}
}

// TestRandomLabelsHarmNobody feeds 10,000 containers with labels of random bytes,
// many of them after a victim's host, and looks at the victim.
func TestRandomLabelsHarmNobody(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	up.Set(object("victim", off("victim.test"), backend(t, "victim")))
	eventually(t, "the victim is served", func() bool { status, _ := w.get("http://victim.test/"); return status == 200 })
	s, _ := current()
	key := s.registry.RoutesFor("victim.test")[0].Key
	s.mu.Lock()
	before := s.routes[key]
	s.mu.Unlock()
	rnd := rand.New(rand.NewPCG(7, 7))
	dialect := new(native.Dialect)
	words := []string{"host", "port", "path", "tls", "access", "caddyfile", "hold", "scheme", "enable", "strip_path", "x", "victim", "", ".", "caddyfile."}
	values := []string{"victim.test", "*.test", "*", "victim.test/", "VICTIM.test.", "/", "80", "off", "true", "}\nvictim.test {\n respond 1", "reverse_proxy 127.0.0.1:2019", "{env.HOME}"}
	text := func(pool []string) string {
		if rnd.IntN(2) == 0 {
			return pool[rnd.IntN(len(pool))]
		}
		b := make([]byte, rnd.IntN(20))
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		return string(b)
	}
	for i := range 10_000 {
		labels := map[string]string{}
		for range rnd.IntN(6) {
			labels["dentropy."+text(words)] = text(values)
			labels["dentropy."+text(words)+"."+text(words)] = text(values)
		}
		labels["dentropy.host"] = values[rnd.IntN(5)]
		o := discovery.Object{ID: fmt.Sprint("r", i%100), Name: fmt.Sprint("r", i%100), State: discovery.Running, Labels: labels,
			Group: discovery.Group{Engine: "memory", Project: []string{"", "p"}[rnd.IntN(2)], Service: fmt.Sprint("r", i%100)}}
		o.Routes, o.Problems = dialect.Parse(discovery.Labelled{Name: o.Name, Labels: labels, Ports: []int{80}})
		up.Set(o)
		if i%500 == 0 {
			if status, body := w.get("http://victim.test/"); status != 200 || body != "victim /" {
				t.Fatalf("after %d containers: %d %q", i, status, body)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.routes[key] != before || len(before.units) != 1 {
		t.Errorf("the victim's route was changed: units %v", before.units)
	}
}
