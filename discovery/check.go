package discovery

import (
	"fmt"
	"slices"
	"time"
)

// refused is a route that Check has refused.
type refused struct {
	Route
	key     string // wantedKey of it
	problem Problem
}

type lastGood struct {
	route *Route
	users int // objects of the group that are known
	// release runs out when it is forgotten; nil before it was first without users.
	release *time.Timer
}

type checkedRoute struct {
	*Route
	endpoint Endpoint
	stale    bool
}

// checkedLocked gives the routes that o shall have: those it asks for if they can
// be served, and the last good version of those whose labels are wrong.
func (r *Registry) checkedLocked(o *object) []checkedRoute {
	out := make([]checkedRoute, 0, len(o.Routes))
	problems := slices.Clone(o.Problems)
	o.own = len(problems)
	var no []refused
	units := 0
	for _, route := range o.Routes {
		key := wantedKey(o.Group, route)
		p := tooMany(route, &units)
		if p == nil {
			p = r.checkLocked(o, route, key)
		}
		if p != nil {
			p.Route = route.Name
			problems = append(problems, *p)
			no = append(no, refused{route, key, *p})
			continue
		}
		c := checkedRoute{Route: &route}
		if len(route.Endpoints) > 0 {
			c.endpoint = route.Endpoints[0]
		}
		c.Endpoints = nil
		out = append(out, c)
	}
	o.Problems, o.refused = problems, no
	for _, p := range problems {
		if slices.ContainsFunc(out, func(c checkedRoute) bool { return c.Name == p.Route }) {
			continue
		}
		good := r.good[goodKey(o.Group, p.Route)]
		if good == nil || o.Resolve == nil {
			continue
		}
		out = append(out, checkedRoute{Route: good.route, endpoint: o.Resolve(*good.route), stale: true})
	}
	return out
}

// checkLocked asks whether route can be served, unless that is known: asking may
// mean to set it up on trial, and most events change no route.
func (r *Registry) checkLocked(o *object, route Route, key string) *Problem {
	if m := o.member(route.Name); m != nil && !m.stale && m.wanted != nil && m.wanted.key == key {
		return nil
	}
	for _, x := range o.refused {
		if x.Name == route.Name && x.key == key {
			return &x.problem
		}
	}
	return r.opts.Check(route)
}

// maxUnits bounds how many units one object may ask for: the hosts of each route
// times its paths. Each is worth some work at every event of its object, with the
// lock held, and a label is soon written.
const maxUnits = 1000

// tooMany counts the units of route in, and refuses it if there are too many.
func tooMany(route Route, sum *int) *Problem {
	n := len(route.Hosts) * max(1, len(route.Paths))
	if *sum+n > maxUnits {
		return &Problem{
			Reason: fmt.Sprintf("asks for %d hosts times paths, and one container may have %d in all", n, maxUnits),
			Hint:   "use a wildcard host or a shorter path",
		}
	}
	*sum += n
	return nil
}

func goodKey(g Group, route string) string { return g.String() + "\x00" + route }

// rememberLocked keeps the good version of a route, for as long as an object of
// its group is known and the owner's grace time beyond.
func (r *Registry) rememberLocked(g Group, route *Route, users int) {
	key := goodKey(g, route.Name)
	l := r.good[key]
	if l == nil {
		l = &lastGood{}
		r.good[key] = l
	}
	l.route = route
	l.users += users
}

func (r *Registry) releaseGoodLocked(g Group, name string) {
	key := goodKey(g, name)
	l := r.good[key]
	if l == nil {
		return
	}
	if l.users--; l.users > 0 {
		return
	}
	if l.release != nil {
		l.release.Stop() // one that comes and goes has the whole time each time, and one timer
	}
	l.release = time.AfterFunc(r.opts.Grace, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if now := r.good[key]; now == l && l.users <= 0 {
			delete(r.good, key)
		}
	})
}
