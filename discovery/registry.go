package discovery

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

// Registry merges what all sources report, settles who owns what, has the
// endpoints verified, and passes on what changed. Make one with NewRegistry; its
// methods may be called from any goroutine.
//
//	report of an object:
//	    compare with what is known of it; for each of its routes that changed
//	        leave the wanted route it was part of, join the one it asks for now
//	        elect the owner of each unit concerned
//	    for each endpoint that changed: probe it, and swap when it answers
//	    pass on the wanted routes that were touched, and no others
type Registry struct {
	opts Options

	mu      sync.Mutex // guards all below, and the order of calls to the sink
	sources map[string]*sourceState
	wanted  map[string]*wanted
	hosts   map[string]*hostState
	good    map[string]*lastGood // by group and route name
	touched map[string]*wanted   // collected during one report
	arrival int64                // counts wanted routes, to order them
	closed  bool

	probes   context.Context
	endProbe context.CancelFunc
	probing  sync.WaitGroup
	// dials bounds the probes under way; deadDials those whose last attempt ended
	// without an answer, which hold their place for the whole probeTimeout.
	dials, deadDials chan struct{}
}

// Options configures a Registry. The zero value of each field means its default.
type Options struct {
	// Sink takes the changes. Required.
	Sink Sink
	// Grace is how long a host stays with an owner that is gone. Default: 1m.
	Grace time.Duration
	// Claims restrict who may use a domain. Default: no restriction.
	Claims []Claim
	// Reserved reports who else serves a host ("the Caddyfile"), so that no object
	// may have it. Default: nobody.
	Reserved func(host string) (by string, ok bool)
	// Check refuses a route that the consumer could not serve, with a problem that
	// is shown to the user. It must be quick. Default: every route is fine.
	Check func(Route) *Problem
	// Dial verifies an endpoint. Default: a TCP connect.
	Dial func(ctx context.Context, address string) error
	// Owned is called, with the lock held, whenever the ownership of a host
	// changes, so that it can be remembered; nil means that nobody owns it any
	// more. It must not block. Default: nothing is remembered.
	Owned func(host string, rec *OwnerRecord)
	// SourceChanged is called, with the lock held, when a source can be asked again
	// or no longer. It must not block. Default: nobody is told.
	SourceChanged func(SourceView)
	// Log takes problems and what changes. Default: nothing is logged.
	Log *slog.Logger
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Sink takes the changes of a Registry.
type Sink interface {
	// Apply brings the consumer up to date. Calls come one at a time and in order,
	// with the registry's lock held: it must be quick and must not call back.
	Apply(changes []Change)
}

// Change is one wanted route that is new, different or gone.
type Change struct {
	Key string
	// Route is the route as it is wanted now; nil if it is gone.
	Route *Wanted
	// Seen is when the source learned of the event that led here; zero if that
	// was not measured.
	Seen time.Time
}

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

type sourceState struct {
	name    string
	objects map[string]*object
	view    SourceView
	gone    bool
}

// object is what is known of an Object. Its Routes are not kept: the members have
// them.
type object struct {
	Object
	source  *sourceState
	members []*member // one for each route name, few
	own     int       // how many of Problems are the labels' own: the others are of refused
	refused []refused
}

// refused is a route that Check has refused.
type refused struct {
	Route
	key     string // wantedKey of it
	problem Problem
}

func (o *object) member(name string) *member {
	for _, m := range o.members {
		if m.route.Name == name {
			return m
		}
	}
	return nil
}

// member is one route of one object.
type member struct {
	object   *object
	route    *Route // never changed, shared with lastGood and wanted where it is the same
	wanted   *wanted
	endpoint Endpoint
	stale    bool // an earlier version of the route goes on, its labels are wrong now
	probe    probe
	seen     time.Time // of the event whose effect has not been passed on yet
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

type lastGood struct {
	route *Route
	users int // objects of the group that are known
}

const defaultGrace = time.Minute

// dialsAtOnce bounds the probes under way, so that a start with 10,000
// containers does not open 10,000 sockets at once.
const dialsAtOnce = 256

// deadDialsAtOnce bounds those among addresses that swallow packets: a container
// that has just started must not queue behind a network that is down.
const deadDialsAtOnce = 128

// NewRegistry gives an empty registry. Close it when done.
func NewRegistry(opts Options) *Registry {
	if opts.Grace == 0 {
		opts.Grace = defaultGrace
	}
	if opts.Dial == nil {
		var d net.Dialer
		opts.Dial = func(ctx context.Context, address string) error {
			c, err := d.DialContext(ctx, "tcp", address)
			if err != nil {
				return err
			}
			return c.Close()
		}
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Reserved == nil {
		opts.Reserved = func(string) (string, bool) { return "", false }
	}
	if opts.Check == nil {
		opts.Check = func(Route) *Problem { return nil }
	}
	if opts.SourceChanged == nil {
		opts.SourceChanged = func(SourceView) {}
	}
	if opts.Owned == nil {
		opts.Owned = func(string, *OwnerRecord) {}
	}
	r := &Registry{
		opts:    opts,
		sources: map[string]*sourceState{},
		wanted:  map[string]*wanted{},
		hosts:   map[string]*hostState{},
		good:    map[string]*lastGood{},
		touched: map[string]*wanted{},
		dials:   make(chan struct{}, dialsAtOnce),

		deadDials: make(chan struct{}, deadDialsAtOnce),
	}
	r.probes, r.endProbe = context.WithCancel(context.Background())
	return r
}

// Close stops all probes and timers and waits for them. The sink is not called
// any more.
func (r *Registry) Close() {
	r.mu.Lock()
	r.closed = true
	for _, h := range r.hosts {
		h.stopTimer()
	}
	r.mu.Unlock()
	r.endProbe()
	r.probing.Wait()
}

// Source gives the updater of the source called name, adding the source if need
// be. A source that is asked for again keeps what it has reported.
func (r *Registry) Source(name string) Updater {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sources[name]
	if s == nil {
		s = &sourceState{name: name, objects: map[string]*object{}}
		s.view = SourceView{Name: name, State: SourceUnknown, Since: r.opts.Now()}
		r.sources[name] = s
	}
	return &updater{r, s}
}

// Forget removes a source and all that it has reported.
func (r *Registry) Forget(name string) {
	r.update(func() {
		s := r.sources[name]
		if s == nil {
			return
		}
		for _, o := range s.objects {
			r.deleteLocked(o)
		}
		s.gone = true
		delete(r.sources, name)
	})
}

// Reelect settles all ownership anew, after the claims or what is reserved have
// changed. Only what comes out differently is passed on.
func (r *Registry) Reelect(claims []Claim, grace time.Duration) {
	r.update(func() {
		r.opts.Claims = claims
		if r.opts.Grace = grace; grace == 0 {
			r.opts.Grace = defaultGrace
		}
		for host := range r.hosts {
			r.electLocked(host)
		}
		maps.Copy(r.touched, r.wanted) // the claims say whose endpoints a route has
	})
}

// Recheck asks Options.Check again about all routes that it has refused, after
// what it goes by has changed.
func (r *Registry) Recheck() {
	r.update(func() {
		for _, s := range r.sources {
			for _, o := range s.objects {
				if len(o.refused) == 0 {
					continue
				}
				now := o.Object
				now.Problems, now.Routes, now.Seen = now.Problems[:o.own:o.own], nil, time.Time{}
				for _, x := range o.refused {
					now.Routes = append(now.Routes, x.Route)
				}
				o.refused = nil // or the answer would be taken from here
				for _, m := range o.members {
					if !m.stale {
						route := *m.route
						route.Endpoints = []Endpoint{m.endpoint}
						now.Routes = append(now.Routes, route)
					}
				}
				r.setLocked(s, now)
			}
		}
	})
}

type updater struct {
	r *Registry
	s *sourceState
}

func (u *updater) Set(o Object) {
	u.r.update(func() {
		if u.s.gone {
			return
		}
		u.s.view.Events++
		u.s.view.LastEvent = u.r.opts.Now()
		u.r.setLocked(u.s, o)
	})
}

func (u *updater) Delete(id string) {
	u.r.update(func() {
		u.s.view.Events++
		u.s.view.LastEvent = u.r.opts.Now()
		if o := u.s.objects[id]; o != nil {
			u.r.deleteLocked(o)
		}
	})
}

func (u *updater) Replace(objects []Object) {
	u.r.update(func() {
		if u.s.gone {
			return
		}
		if u.s.view.State != SourceConnected {
			u.r.opts.Log.Info("source connected", "source", u.s.name, "objects", len(objects))
			u.s.view.State, u.s.view.Error, u.s.view.Since = SourceConnected, "", u.r.opts.Now()
			u.r.opts.SourceChanged(u.s.view)
		}
		u.s.view.Lists++
		keep := make(map[string]bool, len(objects))
		for _, o := range objects {
			keep[o.ID] = true
		}
		for id, o := range u.s.objects {
			if !keep[id] {
				u.r.deleteLocked(o)
			}
		}
		// the older first, ties by name, so that the older gets a contested host
		slices.SortStableFunc(objects, func(a, b Object) int {
			return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
		})
		for _, o := range objects {
			u.r.setLocked(u.s, o)
		}
		u.r.adoptOwnersLocked()
	})
}

func (u *updater) Unknown(err error) {
	u.r.mu.Lock()
	defer u.r.mu.Unlock()
	v := &u.s.view
	news := v.State == SourceConnected || v.Error == ""
	v.State, v.Error = SourceUnknown, err.Error()
	if news {
		u.r.opts.Log.Warn("source cannot be asked, keeping what it last said", "source", u.s.name, "error", err)
		v.Since = u.r.opts.Now()
		u.r.opts.SourceChanged(*v)
	}
}

// update runs f with the lock held and passes on what it touched.
func (r *Registry) update(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	f()
	r.flushLocked()
}

func (r *Registry) flushLocked() {
	if len(r.touched) == 0 {
		return
	}
	changes := make([]Change, 0, len(r.touched))
	for key, w := range r.touched {
		delete(r.touched, key)
		c := Change{Key: key}
		for _, m := range w.members {
			if len(m.probe.address) > 0 && !m.seen.IsZero() {
				c.Seen, m.seen = m.seen, time.Time{}
			}
		}
		if len(w.members) > 0 {
			c.Route = r.snapshotLocked(w)
		}
		if w.passed == nil && c.Route == nil || sameWanted(w.passed, c.Route) {
			continue
		}
		w.passed = c.Route
		changes = append(changes, c)
	}
	// what goes first, so that what comes finds the units free
	slices.SortFunc(changes, func(a, b Change) int {
		gone := func(c Change) int {
			if c.Route == nil {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(gone(a), gone(b)), cmp.Compare(a.Key, b.Key))
	})
	if len(changes) > 0 {
		r.opts.Sink.Apply(changes)
	}
}

func sameWanted(a, b *Wanted) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Spec == b.Spec && a.State == b.State && a.Detail == b.Detail && a.Object == b.Object &&
		slices.Equal(a.Units, b.Units) && slices.Equal(a.Ready, b.Ready)
}

// setLocked brings one object up to date.
func (r *Registry) setLocked(s *sourceState, now Object) {
	o := s.objects[now.ID]
	if o == nil {
		if len(now.Routes) == 0 && len(now.Problems) == 0 {
			return
		}
		o = &object{source: s}
		s.objects[now.ID] = o
	} else if len(now.Routes) == 0 && len(now.Problems) == 0 {
		r.deleteLocked(o)
		return
	}
	before := o.Object
	o.Object = now
	routes := r.checkedLocked(o)
	if !slices.Equal(before.Problems, o.Problems) {
		for _, p := range o.Problems {
			r.opts.Log.Warn("label left out", "source", s.name, "object", now.Name, "route", p.Route, "label", p.Label, "error", p.Error())
		}
	}
	o.Routes = nil
	wasRunning := before.State == Running
	if before.ID != "" && before.Group != now.Group {
		r.regroupLocked(o, before.Group)
	}
	o.members = slices.DeleteFunc(o.members, func(m *member) bool {
		gone := !slices.ContainsFunc(routes, func(c checkedRoute) bool { return c.Name == m.route.Name })
		if gone {
			r.leaveLocked(m)
		}
		return gone
	})
	for _, c := range routes {
		m := o.member(c.Name)
		if m == nil {
			m = &member{object: o, route: c.Route}
			o.members = append(o.members, m)
			r.rememberLocked(o.Group, c.Route, +1)
		} else if !c.stale {
			r.rememberLocked(o.Group, c.Route, 0)
		}
		m.seen, m.stale = now.Seen, c.stale
		r.joinLocked(m, c.Route)
		r.endpointLocked(m, c.endpoint, wasRunning)
		r.touched[m.wanted.key] = m.wanted
	}
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
	time.AfterFunc(r.opts.Grace, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if now := r.good[key]; now == l && l.users <= 0 {
			delete(r.good, key)
		}
	})
}

func (r *Registry) deleteLocked(o *object) {
	for _, m := range o.members {
		r.leaveLocked(m)
	}
	delete(o.source.objects, o.ID)
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
