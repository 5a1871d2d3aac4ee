package discovery

import (
	"cmp"
	"context"
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

func (r *Registry) deleteLocked(o *object) {
	for _, m := range o.members {
		r.leaveLocked(m)
	}
	delete(o.source.objects, o.ID)
}
