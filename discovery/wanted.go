package discovery

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"
)

// Wanted is one route to be served: what a project asks for, the units that it
// was granted, and the addresses of all its replicas. It is never changed once
// passed on.
type Wanted struct {
	Key string
	// Spec is the same pointer as before as long as nothing but units or endpoints
	// changed.
	Spec *Route
	// Units are those granted, sorted. They may be fewer than asked for.
	Units []Unit
	// Ready are the addresses that answer, sorted.
	Ready []string
	// State, Detail, Object and Since tell of the object that is nearest to
	// serving, for the page that is shown while there is no ready address.
	State  State
	Detail string
	Object string
	Since  time.Time
}

// Unit is the smallest thing that is owned.
type Unit struct {
	Host string `json:"host"`
	Path string `json:"path"`
	// Match is the matcher in canonical form; "" for none.
	Match string `json:"match,omitempty"`
}

type wanted struct {
	key     string
	scope   string
	spec    *Route
	members []*member // sorted by object name, then id
	units   []Unit    // asked for, sorted
	granted []bool    // which of units it has
	first   int64     // order of arrival
	passed  *Wanted
}

// joinLocked makes m part of the wanted route for what it asks for now.
func (r *Registry) joinLocked(m *member, route *Route) {
	key := wantedKey(m.object.Group, *route)
	m.route = route
	if m.wanted != nil && m.wanted.key == key {
		return
	}
	old := m.wanted
	w := r.wanted[key]
	if w == nil {
		r.arrival++
		w = &wanted{key: key, scope: m.object.Group.Scope().String(), spec: route, units: unitsOf(*route), first: r.arrival}
		w.granted = make([]bool, len(w.units))
		r.wanted[key] = w
	}
	m.wanted = w
	at, _ := slices.BinarySearchFunc(w.members, m, compareMembers)
	w.members = slices.Insert(w.members, at, m)
	r.claimLocked(w)
	if old != nil {
		r.partLocked(old, m)
	}
}

func (r *Registry) leaveLocked(m *member) {
	r.stopProbeLocked(m)
	r.releaseGoodLocked(m.object.Group, m.route.Name)
	if m.wanted != nil {
		r.partLocked(m.wanted, m)
		m.wanted = nil
	}
}

func (r *Registry) partLocked(w *wanted, m *member) {
	w.members = slices.DeleteFunc(w.members, func(x *member) bool { return x == m })
	r.touched[w.key] = w
	if len(w.members) == 0 {
		delete(r.wanted, w.key)
	}
	r.claimLocked(w)
}

// wantedKey is the same for routes that ask for the same handling of the same
// requests within one scope: they share a wanted route.
func wantedKey(g Group, route Route) string {
	route.Name, route.Port, route.Network, route.Endpoints = "", 0, "", nil
	b, err := json.Marshal(route)
	if err != nil { // cannot happen: plain data
		panic(err)
	}
	return g.Scope().String() + "#" + hash(b)
}

func compareMembers(a, b *member) int {
	return cmp.Or(cmp.Compare(a.object.Name, b.object.Name), cmp.Compare(a.object.ID, b.object.ID), cmp.Compare(a.route.Name, b.route.Name))
}

// snapshotLocked gives w as it is to be passed on.
func (r *Registry) snapshotLocked(w *wanted) *Wanted {
	out := &Wanted{Key: w.key, Spec: w.spec}
	for i, u := range w.units {
		if w.granted[i] {
			out.Units = append(out.Units, u)
		}
	}
	best := -1
	for _, m := range w.members {
		if !r.servesLocked(m) {
			continue
		}
		if m.probe.address != "" {
			out.Ready = append(out.Ready, m.probe.address)
		}
		if n := nearness(m); n > best {
			best = n
			out.State, out.Detail, out.Object, out.Since = m.object.State, m.detail(), m.object.Name, m.object.Since
		}
	}
	slices.Sort(out.Ready)
	out.Ready = slices.Compact(out.Ready)
	return out
}

// nearness orders members by how soon they may serve.
func nearness(m *member) int {
	if m.probe.address != "" {
		return 10
	}
	return slices.Index([]State{Stopped, Created, Paused, Unhealthy, Restarting, Starting, Running}, m.object.State)
}

// detail says why m does not serve.
func (m *member) detail() string {
	switch {
	case m.probe.address != "":
		return ""
	case m.endpoint.Problem != "":
		return m.endpoint.Problem
	case m.object.State == Running && m.probe.err != nil:
		return m.probe.err.Error()
	}
	return m.object.Detail
}
