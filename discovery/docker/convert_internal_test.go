package docker

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/dentropy/dentropycloud/discovery"
	"github.com/dentropy/dentropycloud/discovery/sourcetest"
)

var update = flag.Bool("update", false, "write what comes out into testdata")

func testReader() *reader {
	return &reader{engine: "docker", dialects: []discovery.Dialect{sourcetest.Labels{}}}
}

// TestConvert reads answers of engines, as they come (shortened), and shows what
// becomes of them. A file holds list.json or inspect.json or both, a line of options
// in its comment, and the outcome.
func TestConvert(t *testing.T) {
	files, err := filepath.Glob("testdata/convert/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			r := testReader()
			for line := range strings.Lines(string(archive.Comment)) {
				switch f := strings.Fields(line); {
				case len(f) == 2 && f[0] == "expose":
					r.all = f[1] == exposeAll
				case len(f) == 2 && f[0] == "label_prefix":
					r.prefix = f[1] + "."
					r.dialects = []discovery.Dialect{nativeLike{}}
				}
			}
			out := &txtar.Archive{Comment: archive.Comment}
			want := map[string]string{}
			for _, f := range archive.Files {
				switch f.Name {
				case "list.json", "inspect.json":
					out.Files = append(out.Files, f)
				default:
					want[f.Name] = string(f.Data)
				}
			}
			got := map[string]string{}
			for _, f := range out.Files {
				name := strings.TrimSuffix(f.Name, ".json") + ".want"
				got[name] = show(r, decode(t, f))
			}
			if *update {
				for _, name := range slices.Sorted(maps.Keys(got)) {
					out.Files = append(out.Files, txtar.File{Name: name, Data: []byte(got[name])})
				}
				if err := os.WriteFile(file, txtar.Format(out), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("objects (-want +got):\n%s\n(go test -run TestConvert -update writes them)", diff)
			}
		})
	}
}

func decode(t *testing.T, f txtar.File) []facts {
	t.Helper()
	if f.Name == "inspect.json" {
		var in container.InspectResponse
		if err := json.Unmarshal(f.Data, &in); err != nil {
			t.Fatal(err)
		}
		return []facts{fromInspect(in)}
	}
	var list []container.Summary
	if err := json.Unmarshal(f.Data, &list); err != nil {
		t.Fatal(err)
	}
	out := make([]facts, 0, len(list))
	for _, s := range list {
		out = append(out, fromSummary(s))
	}
	return out
}

// show writes what is reported of containers that are watched from the engine's
// host.
func show(r *reader, all []facts) string {
	byName := map[string]*facts{}
	for i := range all {
		byName[all[i].name], byName[all[i].id] = &all[i], &all[i]
	}
	var b strings.Builder
	for i := range all {
		f := &all[i]
		if !r.concerns(f.labels) {
			fmt.Fprintf(&b, "%s: none of our business\n", f.name)
			continue
		}
		net := f
		if ref, ok := strings.CutPrefix(f.mode, "container:"); ok {
			net = byName[ref]
		}
		o := r.object(f, net, place{}, nil)
		fmt.Fprintf(&b, "%s (%s): %s", o.Name, o.Group, o.State)
		if o.Detail != "" {
			fmt.Fprintf(&b, ", %s", o.Detail)
		}
		fmt.Fprintf(&b, "\n\tcreated %s, since %s\n", at(o.Created), at(o.Since))
		if !f.exposedKnown && r.portsMatter(f) {
			b.WriteString("\tmust be inspected for its ports\n")
		}
		for _, k := range slices.Sorted(maps.Keys(o.Labels)) {
			fmt.Fprintf(&b, "\tlabel %s=%s\n", k, o.Labels[k])
		}
		for _, route := range o.Routes {
			fmt.Fprintf(&b, "\troute %q: %s, port %d\n", route.Name, strings.Join(route.Hosts, " "), route.Port)
			for _, ep := range route.Endpoints {
				for _, c := range ep.Candidates {
					fmt.Fprintf(&b, "\t\t%s: %s\n", c.Address, c.Reason)
				}
				if ep.Problem != "" {
					fmt.Fprintf(&b, "\t\tproblem: %s\n", ep.Problem)
				}
			}
		}
		for _, p := range o.Problems {
			fmt.Fprintf(&b, "\tproblem of route %q: %s\n", p.Route, p.Error())
		}
	}
	return b.String()
}

func at(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return t.Format(time.RFC3339Nano)
}

// nativeLike reads "dentropy.host" and "dentropy.port", and calls everything else a
// mistake.
type nativeLike struct{ sourcetest.Labels }

func (nativeLike) Claims(labels map[string]string) bool {
	for k := range labels {
		if strings.HasPrefix(k, nativePrefix) {
			return true
		}
	}
	return false
}

func (nativeLike) Parse(in discovery.Labelled) (routes []discovery.Route, problems []discovery.Problem) {
	for _, k := range slices.Sorted(maps.Keys(in.Labels)) {
		switch {
		case k == "dentropy.host":
			routes = append(routes, discovery.Route{Hosts: []string{in.Labels[k]}, Port: 80})
		case strings.HasPrefix(k, nativePrefix):
			problems = append(problems, discovery.Problem{Route: "x", Label: k, Value: in.Labels[k], Reason: "unknown key"})
		}
	}
	return routes, problems
}

// crashing panics over every label.
type crashing struct{ sourcetest.Labels }

func (crashing) Parse(discovery.Labelled) ([]discovery.Route, []discovery.Problem) { panic("boom") }

func TestDialectThatPanics(t *testing.T) {
	r := &reader{engine: "docker", dialects: []discovery.Dialect{crashing{}}}
	f := facts{id: "1", name: "one", state: stateRunning, labels: map[string]string{"test.host": "a.example.com"}}
	o := r.object(&f, &f, place{}, nil)
	if len(o.Routes) != 0 || len(o.Problems) != 1 || !strings.Contains(o.Problems[0].Reason, "boom") {
		t.Errorf("routes %v, problems %v; want one problem that names the panic", o.Routes, o.Problems)
	}
}

func TestPortsMatter(t *testing.T) {
	for _, tt := range []struct {
		labels map[string]string
		want   bool
	}{
		{map[string]string{"test.host": "a.example.com"}, true},
		{map[string]string{"test.host": "a.example.com", "test.port": "80"}, false},
		{map[string]string{"test.host": "a.example.com", "test.port": "80", "test.x.host": "b.example.com"}, true},
		{map[string]string{"test.port": "80"}, false}, // wrong whatever the ports are
	} {
		if got := testReader().portsMatter(&facts{labels: tt.labels}); got != tt.want {
			t.Errorf("portsMatter(%v) = %v, want %v", tt.labels, got, tt.want)
		}
	}
}

func TestResolve(t *testing.T) {
	f := facts{
		name: "one", state: stateRunning, exposed: []int{80}, exposedKnown: true, networks: []attachment{on("web", "10.1.0.2")},
		labels: map[string]string{"test.port": "x", "test.host": "a.example.com"},
	}
	o := testReader().object(&f, &f, place{}, nil)
	if len(o.Problems) != 1 || len(o.Routes) != 0 || o.Resolve == nil {
		t.Fatalf("object %+v, want one problem, no route and a Resolve", o)
	}
	ep := o.Resolve(discovery.Route{Hosts: []string{"a.example.com"}, Port: 8080})
	if len(ep.Candidates) != 1 || ep.Candidates[0].Address != "10.1.0.2:8080" {
		t.Errorf("Resolve = %+v, want 10.1.0.2:8080", ep)
	}
}

// FuzzConvert holds against anything that calls itself an engine's answer, or a
// label: no panic, the same outcome each time, and nothing outside of what labels
// may do.
func FuzzConvert(f *testing.F) {
	files, err := filepath.Glob("testdata/convert/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, in := range archive.Files {
			if in.Name == "inspect.json" || in.Name == "list.json" {
				f.Add(in.Data, "test.host", "a.example.com")
			}
		}
	}
	f.Add([]byte(`{}`), "test..host", ",,")
	f.Add([]byte(`[{"NetworkSettings":{"Networks":{"a":null}},"Names":[""]}]`), "com.docker.compose.project", "\x00")
	f.Fuzz(func(t *testing.T, data []byte, key, value string) {
		var all []facts
		var list []container.Summary
		if json.Unmarshal(data, &list) == nil {
			for _, s := range list {
				all = append(all, fromSummary(s))
			}
		}
		var in container.InspectResponse
		if json.Unmarshal(data, &in) == nil && in.ContainerJSONBase != nil {
			all = append(all, fromInspect(in))
		}
		for i := range all {
			c := &all[i]
			c.labels = maps.Clone(c.labels)
			if c.labels == nil {
				c.labels = map[string]string{}
			}
			c.labels[key] = value
			for _, r := range []*reader{testReader(), {engine: "docker", all: true, prefix: "acme.", dialects: []discovery.Dialect{nativeLike{}}}} {
				r.portsMatter(c)
				o, again := r.object(c, c, place{}, nil), r.object(c, c, place{}, nil)
				o.Resolve, again.Resolve = nil, nil
				if diff := cmp.Diff(o, again); diff != "" {
					t.Fatalf("two outcomes of one container:\n%s", diff)
				}
				for _, route := range o.Routes {
					for _, ep := range route.Endpoints {
						if len(ep.Candidates) == 0 && ep.Problem == "" {
							t.Errorf("neither an address nor a problem for %+v", route)
						}
					}
				}
			}
		}
	})
}

func BenchmarkConvert(b *testing.B) {
	archive, err := txtar.ParseFile("testdata/convert/docker-20.10.txtar")
	if err != nil {
		b.Fatal(err)
	}
	var list []container.Summary
	var in container.InspectResponse
	for _, f := range archive.Files {
		switch f.Name {
		case "list.json":
			err = json.Unmarshal(f.Data, &list)
		case "inspect.json":
			err = json.Unmarshal(f.Data, &in)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	r := testReader()
	b.Run("list", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f := fromSummary(list[0])
			r.object(&f, &f, place{}, nil)
		}
	})
	b.Run("inspect", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f := fromInspect(in)
			r.object(&f, &f, place{}, nil)
		}
	})
}
