package discovery

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// SourceState says whether a source can be asked.
type SourceState string

// The states of a source.
const (
	SourceConnected SourceState = "connected"
	SourceUnknown   SourceState = "unknown" // never answered yet, or lost: what it said last stays
)

// SourceView describes a source to people and machines.
type SourceView struct {
	Name  string      `json:"name"`
	State SourceState `json:"state"`
	// Error is why it cannot be asked.
	Error string `json:"error,omitempty"`
	// Since is when the state began.
	Since time.Time `json:"since"`
	// Objects with routes or problems, events and full lists received.
	Objects   int       `json:"objects"`
	Events    int64     `json:"events"`
	Lists     int64     `json:"lists"`
	LastEvent time.Time `json:"last_event,omitzero"`
}

// RouteView describes a wanted route, or an object whose labels are wrong.
type RouteView struct {
	Key    string `json:"key,omitempty"`
	Group  Group  `json:"group"`
	Source string `json:"source"`
	Object string `json:"object"`
	// State is serving, holding (no endpoint answers), refused (owned by somebody
	// else) or error (the labels are wrong and no good version is known).
	State     string         `json:"state"`
	Dialect   string         `json:"dialect,omitempty"`
	Hosts     []string       `json:"hosts"`
	Paths     []string       `json:"paths"`
	TLS       string         `json:"tls,omitempty"`
	Scheme    string         `json:"scheme,omitempty"`
	Granted   []Unit         `json:"granted"`
	Refused   []Refusal      `json:"refused"`
	Endpoints []EndpointView `json:"endpoints"`
	Problems  []Problem      `json:"problems"`
	// Stale: the source cannot be asked at the moment. LastGood: the labels are
	// wrong now, an earlier version goes on.
	Stale    bool `json:"stale"`
	LastGood bool `json:"last_good"`
}

// RefusedByClaims begins the reason of a refusal that no other owner is behind.
const RefusedByClaims = "the operator's claims"

// Refusal says why a unit was not granted.
type Refusal struct {
	Unit
	Reason string `json:"reason"`
}

// EndpointView describes one endpoint and why it was chosen, or is not used.
type EndpointView struct {
	Object  string `json:"object"`
	State   State  `json:"state"`
	Address string `json:"address,omitempty"`
	Ready   bool   `json:"ready"`
	// Reason is why this address; Detail why it does not serve.
	Reason     string            `json:"reason,omitempty"`
	Detail     string            `json:"detail,omitempty"`
	Candidates []Candidate       `json:"candidates"`
	Attempts   int               `json:"attempts,omitempty"`
	Probed     time.Time         `json:"probed,omitzero"`
	Labels     map[string]string `json:"-"`
}

// Sources describes all sources, sorted by name.
func (r *Registry) Sources() []SourceView {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]SourceView, 0, len(r.sources))
	for _, s := range r.sources {
		v := s.view
		v.Objects = len(s.objects)
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b SourceView) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Routes describes all wanted routes and all objects with wrong labels, sorted by
// host and path.
func (r *Registry) Routes() []RouteView {
	return r.views(func(*wanted) bool { return true }, func(RouteView) bool { return true })
}

// RoutesFor describes what has to do with host: the routes that ask for it or
// would serve it, and the objects whose labels mention it.
func (r *Registry) RoutesFor(host string) []RouteView {
	asks := func(hosts []string) bool {
		return slices.ContainsFunc(hosts, func(h string) bool { return h == host || wildcardCovers(h, host) })
	}
	mentions := func(text string) bool { return strings.Contains(strings.ToLower(text), host) }
	return r.views(func(w *wanted) bool {
		return asks(w.spec.Hosts) || slices.ContainsFunc(w.members, func(m *member) bool { return len(m.object.Problems) > 0 })
	}, func(v RouteView) bool {
		if asks(v.Hosts) || slices.ContainsFunc(v.Problems, func(p Problem) bool { return mentions(p.Value) }) {
			return true
		}
		return len(v.Problems) > 0 && slices.ContainsFunc(v.Endpoints, func(e EndpointView) bool {
			for _, l := range e.Labels {
				if mentions(l) {
					return true
				}
			}
			return false
		})
	})
}

// wildcardCovers reports whether the route host pattern serves host.
func wildcardCovers(pattern, host string) bool {
	if pattern == "*" {
		return true
	}
	_, rest, ok := strings.Cut(host, ".")
	return ok && strings.HasPrefix(pattern, "*.") && pattern[2:] == rest
}

// Count gives the number of wanted routes by state.
func (r *Registry) Count() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]int{"serving": 0, "holding": 0, "refused": 0}
	for _, w := range r.wanted {
		out[w.state()]++
	}
	return out
}

// state is serving, holding or refused.
func (w *wanted) state() string {
	for _, granted := range w.granted {
		if !granted {
			continue
		}
		if w.rank() > 0 {
			return "serving"
		}
		return "holding"
	}
	return "refused"
}

// views describes the wanted routes that may matter and the broken objects, as far as
// they are to be kept. It holds up all events: mayMatter is asked before the work is
// done.
func (r *Registry) views(mayMatter func(*wanted) bool, keep func(RouteView) bool) []RouteView {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []RouteView{}
	add := func(v RouteView) {
		if keep(v) {
			out = append(out, v)
		}
	}
	for _, w := range r.wanted {
		if mayMatter(w) {
			add(r.viewLocked(w))
		}
	}
	for _, s := range r.sources {
		for _, o := range s.objects {
			if v, ok := brokenView(s, o); ok {
				add(v)
			}
		}
	}
	slices.SortFunc(out, func(a, b RouteView) int {
		return cmp.Or(slices.Compare(a.Hosts, b.Hosts), slices.Compare(a.Paths, b.Paths), cmp.Compare(a.Group.String(), b.Group.String()), cmp.Compare(a.Object, b.Object))
	})
	return out
}

func (r *Registry) viewLocked(w *wanted) RouteView {
	first := w.members[0]
	v := RouteView{
		Key: w.key, Group: first.object.Group, Source: first.object.source.name, Object: first.object.Name,
		Dialect: w.spec.Dialect, Hosts: w.spec.Hosts, Paths: w.spec.Paths, TLS: w.spec.TLS, Scheme: w.spec.Scheme,
		Granted: []Unit{}, Refused: []Refusal{}, Endpoints: []EndpointView{}, Problems: []Problem{},
	}
	if len(v.Paths) == 0 {
		v.Paths = []string{"/"}
	}
	for i, u := range w.units {
		if w.granted[i] {
			v.Granted = append(v.Granted, u)
		} else {
			v.Refused = append(v.Refused, Refusal{u, r.refusalLocked(w, u)})
		}
	}
	v.State = w.state()
	for _, m := range w.members {
		e := m.view()
		if !r.servesLocked(m) {
			e.Ready, e.Detail = false, fmt.Sprintf("the operator's claims do not let %s use the host", m.object.Group)
		}
		v.Endpoints = append(v.Endpoints, e)
		v.Stale = v.Stale || m.object.source.view.State == SourceUnknown
		v.LastGood = v.LastGood || m.stale
		for _, p := range m.object.Problems {
			if p.Route == m.route.Name {
				v.Problems = append(v.Problems, p)
			}
		}
	}
	return v
}

func (m *member) view() EndpointView {
	e := EndpointView{
		Object: m.object.Name, State: m.object.State, Address: m.probe.address, Ready: m.probe.address != "",
		Reason: m.probe.reason, Detail: m.detail(), Candidates: m.endpoint.Candidates, Attempts: m.probe.tried,
		Probed: m.probe.at, Labels: m.object.Labels,
	}
	if e.Candidates == nil {
		e.Candidates = []Candidate{}
	}
	if !e.Ready && len(e.Candidates) > 0 {
		e.Address, e.Reason = e.Candidates[0].Address, e.Candidates[0].Reason
	}
	return e
}

// brokenView describes the problems of o that no route of its shows.
func brokenView(s *sourceState, o *object) (RouteView, bool) {
	if len(o.Problems) == 0 {
		return RouteView{}, false
	}
	v := RouteView{
		Group: o.Group, Source: s.name, Object: o.Name, State: "error",
		Hosts: []string{}, Paths: []string{}, Granted: []Unit{}, Refused: []Refusal{}, Problems: []Problem{},
		Endpoints: []EndpointView{{Object: o.Name, State: o.State, Detail: o.Detail, Candidates: []Candidate{}, Labels: o.Labels}},
		Stale:     s.view.State == SourceUnknown,
	}
	for _, p := range o.Problems {
		if o.member(p.Route) == nil {
			v.Problems = append(v.Problems, p)
		}
	}
	return v, len(v.Problems) > 0
}
