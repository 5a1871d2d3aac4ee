package docker

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/dentropy/dentropycloud/discovery"
)

// The labels of Docker Compose that say who a container belongs to.
const (
	labelProject = "com.docker.compose.project"
	labelService = "com.docker.compose.service"
	labelOneOff  = "com.docker.compose.oneoff"
)

// nativePrefix begins the labels of the native dialect; Config.LabelPrefix stands
// in its place.
const nativePrefix = "dentropy."

// Values of Config.Expose.
const (
	exposeLabelled = "labelled"
	exposeAll      = "all"
)

// reader turns containers into objects. It is pure: the same facts give the same
// object.
type reader struct {
	engine   string
	dialects []discovery.Dialect
	prefix   string // "acme." in place of nativePrefix, or ""
	all      bool   // containers without routing labels, too
	network  string // to use where no label names one
}

// concerns reports whether a container with these labels may ask for routes.
func (r *reader) concerns(labels map[string]string) bool {
	if strings.EqualFold(labels[labelOneOff], "true") {
		return false // a "compose run" is not a replica of the service
	}
	return r.all || r.dialect(r.translate(labels)) != nil
}

func (r *reader) dialect(labels map[string]string) discovery.Dialect {
	if len(labels) == 0 {
		return nil
	}
	for _, d := range r.dialects {
		if d.Claims(labels) {
			return d
		}
	}
	return nil
}

// translate gives labels with the configured prefix the native one. Labels that
// have the native prefix already are for another instance and left out.
func (r *reader) translate(labels map[string]string) map[string]string {
	if r.prefix == "" {
		return labels
	}
	out := make(map[string]string, len(labels))
	for k, v := range labels {
		if rest, ok := cutPrefixFold(k, r.prefix); ok {
			out[nativePrefix+rest] = v
		} else if _, ok := cutPrefixFold(k, nativePrefix); !ok {
			out[k] = v
		}
	}
	return out
}

// cutPrefixFold is strings.CutPrefix without regard to case, as labels are read.
func cutPrefixFold(s, prefix string) (rest string, ok bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// routes reads the labels, given the exposed ports.
func (r *reader) routes(f *facts, ports []int) (routes []discovery.Route, problems []discovery.Problem) {
	labels := r.translate(f.labels)
	d := r.dialect(labels)
	if d == nil {
		if r.all {
			return r.unasked(f, ports), nil
		}
		return nil, nil
	}
	defer func() {
		// Labels are anybody's text and dialects can be anybody's code: one
		// container must not take the others down.
		if x := recover(); x != nil {
			routes = nil
			problems = []discovery.Problem{{Reason: fmt.Sprintf("dialect %q cannot read the labels: %v", d.Name(), x), Hint: "report this as a bug"}}
		}
	}()
	routes, problems = d.Parse(discovery.Labelled{Name: displayName(f), Labels: labels, Ports: ports})
	if r.prefix != "" {
		for i, p := range problems {
			if rest, ok := strings.CutPrefix(p.Label, nativePrefix); ok {
				problems[i].Label = r.prefix + rest
			}
		}
	}
	return routes, problems
}

var notInName = regexp.MustCompile(`[^a-z0-9-]+`)

// unasked is the route of a container without routing labels, where the operator
// exposes all: a name below "localhost", which no other machine can ask for and no
// public certificate exists for.
func (r *reader) unasked(f *facts, ports []int) []discovery.Route {
	if len(ports) == 0 {
		return nil
	}
	g := r.group(f)
	host := ""
	for _, part := range []string{g.Service, g.Project} {
		part = strings.Trim(notInName.ReplaceAllString(strings.ToLower(part), "-"), "-")
		if len(part) > 63 {
			part = strings.Trim(part[:63], "-") // a label of a host name has no more
		}
		if part != "" {
			host += part + "."
		}
	}
	if host == "" {
		return nil
	}
	return []discovery.Route{{Dialect: "expose", Hosts: []string{host + "localhost"}, Port: ports[0]}}
}

// portsMatter says that the routes depend on which ports are exposed. Only the
// dialect knows, so it is asked with two different answers.
func (r *reader) portsMatter(f *facts) bool {
	r0, p0 := r.routes(f, nil)
	r1, p1 := r.routes(f, []int{1})
	if !reflect.DeepEqual(r0, r1) || !reflect.DeepEqual(p0, p1) {
		return true
	}
	for _, route := range r0 {
		if route.Port == 0 {
			return true
		}
	}
	return false
}

// object makes the report about one container. It keeps f, net, at and networks,
// which must not change any more. net holds the container whose
// network it uses (itself mostly), nil where that is unknown.
func (r *reader) object(f, net *facts, at place, networks map[string]networkInfo) discovery.Object {
	o := discovery.Object{ID: f.id, Name: displayName(f), Group: r.group(f), Created: f.created, Since: f.since}
	o.State, o.Detail = f.verdict()
	if !r.concerns(f.labels) || (r.all && f.id == at.id) {
		return o
	}
	o.Labels = r.routing(f.labels)
	o.Routes, o.Problems = r.routes(f, f.exposed)
	o.Routes = slices.Clone(o.Routes) // a dialect may keep its own
	o.Resolve = func(route discovery.Route) discovery.Endpoint {
		ep, _ := r.endpoint(f, net, route, at, networks)
		return ep
	}
	for i := range o.Routes {
		route := &o.Routes[i]
		var ep discovery.Endpoint
		if ep, route.Port = r.endpoint(f, net, *route, at, networks); f.running() {
			route.Endpoints = []discovery.Endpoint{ep}
		}
	}
	return o
}

// endpoint says how to reach a container for a route, and at which port.
func (r *reader) endpoint(f, net *facts, route discovery.Route, at place, networks map[string]networkInfo) (discovery.Endpoint, int) {
	q := ask{c: f, net: net, port: route.Port, want: route.Network, wantedBy: "by a label"}
	if q.want == "" && r.network != "" {
		q.want, q.wantedBy = r.network, "in the configuration"
	}
	return endpointFor(q, at, networks)
}

// routing picks the labels that any dialect reads.
func (r *reader) routing(labels map[string]string) map[string]string {
	var out map[string]string
	one := make(map[string]string, 1)
	for k, v := range labels {
		clear(one)
		one[k] = v
		if r.dialect(r.translate(one)) == nil {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[k] = v
	}
	return out
}

func (r *reader) group(f *facts) discovery.Group {
	g := discovery.Group{Engine: r.engine, Project: f.labels[labelProject], Service: f.labels[labelService]}
	if g.Service == "" {
		g.Service = displayName(f)
	}
	return g
}

// recreated is the name that Compose gives a container while it puts another in
// its place: the beginning of an id in front of the real name.
var recreated = regexp.MustCompile(`^[0-9a-f]{12}_(.+)$`)

// displayName is the container's name as its user knows it.
func displayName(f *facts) string {
	if f.labels[labelProject] != "" {
		if m := recreated.FindStringSubmatch(f.name); m != nil {
			return m[1]
		}
	}
	return f.name
}
