package docker

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dentropy/dentropycloud/backup"
)

func TestParseDependsOn(t *testing.T) {
	tests := []struct {
		in   string
		want []serviceDependency
	}{
		{"", nil},
		{"db", []serviceDependency{{"db", condStarted}}},
		{"db:service_healthy:false,cache:service_started:true, init:service_completed_successfully:false", []serviceDependency{{"db", condHealthy}, {"cache", condStarted}, {"init", condCompleted}}},
		{":x,,a:future_condition", []serviceDependency{{"a", condStarted}}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, parseDependsOn(tt.in), cmp.AllowUnexported(serviceDependency{})); diff != "" {
			t.Errorf("parseDependsOn(%q) (-want +got):\n%s", tt.in, diff)
		}
	}
}

func TestLinkUp(t *testing.T) {
	// each container is "service", or "service-number"; labels and refs by name
	tests := []struct {
		name    string
		names   string
		depends map[string]string
		refs    map[string][]string
		want    string
		edges   map[string]string
		warn    string
	}{
		{name: "by name without dependencies", names: "c a b", want: "a b c"},
		{name: "replicas by number", names: "w-10 w-9 w-2", want: "w-2 w-9 w-10"},
		{name: "a chain", names: "a b c", depends: map[string]string{"a": "b", "b": "c:service_healthy:false"}, want: "c b a", edges: map[string]string{"a": "b:started", "b": "c:healthy"}},
		{name: "all replicas", names: "a db-1 db-2", depends: map[string]string{"a": "db"}, want: "db-1 db-2 a", edges: map[string]string{"a": "db-1:started db-2:started"}},
		{name: "a namespace", names: "app vpn", refs: map[string][]string{"app": {"vpn"}}, want: "vpn app", edges: map[string]string{"app": "vpn:started"}},
		{name: "the stronger condition", names: "app vpn", depends: map[string]string{"app": "vpn:service_healthy:true"}, refs: map[string][]string{"app": {"vpn"}}, want: "vpn app", edges: map[string]string{"app": "vpn:healthy"}},
		{name: "a circle", names: "a b", depends: map[string]string{"a": "b", "b": "a"}, want: "b a", edges: map[string]string{"a": "b:started"}, warn: "in a circle"},
		{name: "itself", names: "a", depends: map[string]string{"a": "a"}, want: "a"},
		{name: "another app's", names: "a", refs: map[string][]string{"a": {"elsewhere"}}, want: "a", warn: "not part of this app"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var list []backup.Container
			var labels []map[string]string
			var refs [][]string
			for name := range strings.FieldsSeq(tt.names) {
				service, _, _ := strings.Cut(name, "-")
				list = append(list, backup.Container{Name: name, Service: service})
				labels = append(labels, map[string]string{labelProject: "p", labelDependsOn: tt.depends[name]})
				refs = append(refs, tt.refs[name])
			}
			got, warnings := linkUp(list, labels, refs)
			var order []string
			for _, c := range got {
				order = append(order, c.Name)
				var edges []string
				for _, d := range c.DependsOn {
					edges = append(edges, d.Container+":"+d.Condition)
				}
				if e := strings.Join(edges, " "); e != tt.edges[c.Name] {
					t.Errorf("%s depends on %q, want %q", c.Name, e, tt.edges[c.Name])
				}
			}
			if o := strings.Join(order, " "); o != tt.want {
				t.Errorf("order %q, want %q", o, tt.want)
			}
			if w := strings.Join(warnings, "\n"); !strings.Contains(w, tt.warn) || tt.warn == "" && w != "" {
				t.Errorf("warnings %q, want %q", w, tt.warn)
			}
		})
	}
}
