package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/dentropy/dentropycloud/discovery"
	"go.uber.org/zap/exp/zapslog"
)

// State is what survives a config reload: the registry with all that the sources
// said, the table, the certificates, the running sources. It is a
// discovery.Sink.
type State struct {
	registry *discovery.Registry
	table    discovery.Table[*liveRoute]
	certs    *certStore
	journal  *journal
	meters   *meters
	ledger   *ledger
	backups  *backups
	log      *slog.Logger

	// newest is the generation that was started last; requests are served by it.
	newest atomic.Pointer[App]
	// static are the hosts that the Caddyfile serves itself; ".example.com" stands
	// for all names one label below, which a wildcard site takes before us.
	static atomic.Pointer[map[string]bool]
	// own are this program's own listeners, which no route may lead to.
	own atomic.Pointer[ownAddresses]

	mu          sync.Mutex // guards all below
	routes      map[string]*liveRoute
	generations []*App        // started, oldest first
	ready       chan struct{} // closed once a generation serves
	sources     map[string]*runningSource

	ended chan struct{} // closed by Destruct

	holding atomic.Int64 // requests that wait for an upstream, of all routes

	// provisioning makes sure that one chain is provisioned at a time: modules
	// write to globals when they are (facts: reverse_proxy's metrics).
	provisioning sync.Mutex
}

func newState() *State {
	log := slog.New(lateLog{})
	s := &State{
		journal: newJournal(),
		log:     log,
		routes:  map[string]*liveRoute{},
		ready:   make(chan struct{}),
		ended:   make(chan struct{}),
		sources: map[string]*runningSource{},
	}
	s.meters = newMeters(s)
	s.ledger = newLedger(log)
	s.backups = newBackups(s)
	s.certs = newCertStore(caddy.Log().Named("dentropy.certs"))
	s.certs.onChange = func(host string, st CertStatus) {
		s.journal.add(Event{Kind: "certificate", Host: host, Text: st.State, Error: st.LastError})
	}
	s.registry = discovery.NewRegistry(discovery.Options{
		Sink:     s,
		Reserved: s.reserved,
		Check:    s.check,
		Dial:     s.dial,
		Owned:    s.ledger.set,
		SourceChanged: func(v discovery.SourceView) {
			s.journal.add(Event{Kind: "source", Object: v.Name, Text: string(v.State), Error: v.Error})
		},
		Log: log,
	})
	return s
}

// Destruct ends everything; the pool calls it when no config uses the state.
func (s *State) Destruct() error {
	close(s.ended)
	s.backups.stop() // first: restoring may need what is still watched
	s.reconcileSources()
	s.registry.Close()
	s.certs.stop()
	s.ledger.close()
	return nil
}

// lateLog writes to whatever Caddy's default logger is at the time, since the
// state outlives loggers.
type lateLog struct{ attrs []slog.Attr }

func (lateLog) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (l lateLog) WithGroup(string) slog.Handler              { return l }
func (l lateLog) WithAttrs(a []slog.Attr) slog.Handler {
	return lateLog{append(slices.Clip(l.attrs), a...)}
}
func (l lateLog) Handle(ctx context.Context, r slog.Record) error {
	r.AddAttrs(l.attrs...)
	// what we log as an error is the user's or the network's: no stack
	h := zapslog.NewHandler(caddy.Log().Core(), zapslog.WithName("dentropy"), zapslog.AddStacktraceAt(slog.LevelError+1))
	return h.Handle(ctx, r)
}

// reserved reports whether the Caddyfile serves host itself: by name, or by a
// wildcard site that comes before our handler, so that a route would be in vain.
func (s *State) reserved(host string) (string, bool) {
	m := s.static.Load()
	if m == nil {
		return "", false
	}
	i := strings.IndexByte(host, '.')
	if (*m)[host] || i > 0 && (*m)[host[i:]] {
		return "the Caddyfile", true
	}
	return "", false
}

// check refuses what this program cannot serve. It runs with the registry's lock
// held and takes no lock that Apply holds while it provisions.
func (s *State) check(route discovery.Route) *discovery.Problem {
	app := s.newest.Load()
	if app == nil {
		return nil
	}
	if len(route.Middleware) > 0 {
		return &discovery.Problem{Reason: "middleware " + route.Middleware[0].Kind + " is not known here"}
	}
	if _, err := route.Match.Compile(clientAddr); err != nil {
		return &discovery.Problem{Reason: err.Error()}
	}
	for _, host := range route.Hosts {
		if _, problem := certClass(host, route.TLS, app.classNames(), app.TLS.LocalNames); problem != "" {
			return &discovery.Problem{Label: labelOf(route, "tls"), Value: route.TLS, Reason: problem}
		}
	}
	if route.Caddyfile == "" {
		return nil
	}
	// try it out, so that a snippet that cannot be provisioned leaves the last
	// good version of the route alone
	chain, err := s.buildChain(app, &route)
	if err != nil {
		return snippetProblem(route, err)
	}
	chain.release()
	return nil
}

// labelOf names the label that a part of a route came from.
func labelOf(route discovery.Route, key string) string {
	if route.Name != "" {
		key = route.Name + "." + key
	}
	return "dentropy." + key
}

// snippetProblem shows what is wrong with a snippet, and not the snippet itself:
// it may hold password hashes.
func snippetProblem(route discovery.Route, err error) *discovery.Problem {
	p := &discovery.Problem{Label: labelOf(route, "caddyfile"), Value: "…", Reason: err.Error()}
	var refused *snippetError
	if errors.As(err, &refused) {
		p.Hint = refused.Hint
		p.Reason = refused.text()
	}
	return p
}

// Apply brings table and certificates up to date: see discovery.Sink. What a route
// gets is entered before others lose it: a host that goes from one to another is
// never without a route, nor with that of a wildcard.
func (s *State) Apply(changes []discovery.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range changes {
		if c.Route != nil {
			s.applyLocked(c)
		}
	}
	for _, c := range changes {
		switch lr := s.routes[c.Key]; {
		case lr == nil:
		case c.Route == nil:
			s.removeLocked(lr)
		default:
			s.keepUnitsLocked(lr, c.Route.Units)
		}
	}
}

func (s *State) applyLocked(c discovery.Change) {
	lr := s.routes[c.Key]
	if lr == nil {
		lr = newLiveRoute(s, c.Route)
		s.routes[c.Key] = lr
		if app := s.newest.Load(); app != nil {
			s.provisionLocked(app, lr)
		}
		s.journal.add(Event{Kind: "route", Host: lr.firstHost(), Object: c.Route.Object, Text: "added"})
	}
	before := len(lr.wanted.Ready)
	lr.setUpstreams(c.Route)
	s.tellUpstreams(lr, c.Route, before)
	for _, u := range c.Route.Units {
		if !hasUnit(lr.units, u) {
			s.table.Insert(u.Host, lr.rule(u.Path))
		}
	}
	if !c.Seen.IsZero() && len(c.Route.Ready) > 0 {
		s.meters.latency.Observe(time.Since(c.Seen).Seconds())
	}
}

// tellUpstreams notes that a route can be served again, or cannot.
func (s *State) tellUpstreams(lr *liveRoute, w *discovery.Wanted, before int) {
	e := Event{Kind: "upstream", Host: lr.firstHost(), Object: w.Object}
	switch now := len(w.Ready); {
	case now > 0 && now != before:
		e.Text = fmt.Sprintf("%d ready", now)
	case now == 0 && before > 0:
		e.Text, e.Error = "none ready", string(w.State)
	default:
		return
	}
	s.journal.add(e)
}

func (s *State) removeLocked(lr *liveRoute) {
	delete(s.routes, lr.key)
	s.keepUnitsLocked(lr, nil)
	lr.end()
	s.journal.add(Event{Kind: "route", Host: lr.firstHost(), Text: "removed"})
}

// keepUnitsLocked takes lr out of the table for all units but these, which it has
// been entered for.
func (s *State) keepUnitsLocked(lr *liveRoute, units []discovery.Unit) {
	if slices.Equal(lr.units, units) {
		return
	}
	for _, u := range lr.units {
		if !hasUnit(units, u) {
			s.table.Remove(u.Host, u.Path, lr.spec.Match.Exact, lr.key)
		}
	}
	lr.units = units
	s.wantCertsLocked(lr)
}

// hasUnit reports whether a sorted list holds u.
func hasUnit(units []discovery.Unit, u discovery.Unit) bool {
	_, ok := slices.BinarySearchFunc(units, u, discovery.Unit.Compare)
	return ok
}

// wantCertsLocked keeps the certificate store in step with the hosts that lr has.
func (s *State) wantCertsLocked(lr *liveRoute) {
	app := s.newest.Load()
	if app == nil {
		return
	}
	now := map[string]string{}
	for _, u := range lr.units {
		if class, problem := certClass(u.Host, lr.spec.TLS, app.classNames(), app.TLS.LocalNames); problem == "" && class != "" {
			now[u.Host] = class
		}
	}
	for host, class := range now {
		if lr.certs[host] != class {
			s.certs.Want(host, class)
		}
	}
	for host, class := range lr.certs {
		if now[host] != class {
			s.certs.Drop(host, class)
		}
	}
	lr.certs = now
}

// takeOver makes app the generation that serves: it provisions the chains of
// those routes that have one of their own, then swaps all at once.
func (s *State) takeOver(app *App) {
	s.mu.Lock()
	chains := make([]*liveRoute, 0, 16)
	for _, lr := range s.routes {
		if lr.spec.Caddyfile != "" {
			chains = append(chains, lr)
		}
	}
	s.mu.Unlock()
	for _, lr := range chains { // one lock hold each, so that events go on
		s.mu.Lock()
		if s.routes[lr.key] == lr {
			s.provisionLocked(app, lr)
		}
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generations = append(s.generations, app)
	s.serveLocked(app)
	select {
	case <-s.ready:
	default:
		close(s.ready)
	}
}

// serveLocked lets app serve; nil if there is none any more.
func (s *State) serveLocked(app *App) {
	if app != nil {
		for _, lr := range s.routes {
			if lr.spec.Caddyfile != "" && lr.chains[app] == nil {
				s.provisionLocked(app, lr) // came while the others were provisioned
			}
			switch c := lr.chains[app]; {
			case c != nil:
				s.useLocked(lr, c)
			case lr.refused == app:
				s.useLocked(lr, nil) // what this config forbids does not go on
			}
		}
	}
	s.newest.Store(app)
	if app == nil {
		return
	}
	for _, lr := range s.routes {
		s.wantCertsLocked(lr)
	}
}

// retire takes app's role away, and gives it back to the generation before if
// app had it.
func (s *State) retire(app *App) {
	s.mu.Lock()
	defer s.mu.Unlock()
	had := slices.Contains(s.generations, app)
	s.generations = slices.DeleteFunc(s.generations, func(a *App) bool { return a == app })
	if had && s.newest.Load() == app {
		var back *App
		if n := len(s.generations); n > 0 {
			back = s.generations[n-1]
		}
		s.serveLocked(back)
	}
	for _, lr := range s.routes {
		c := lr.chains[app]
		delete(lr.chains, app)
		if c == nil {
			continue
		}
		// a route that could not be provisioned in the newer config goes on with
		// the chain that it has
		if lr.chain.Load() != c {
			c.retire(time.Duration(app.Drain))
		}
	}
}

// provisionLocked builds the chain of lr for app. A failure leaves what serves.
func (s *State) provisionLocked(app *App, lr *liveRoute) {
	if lr.spec.Caddyfile == "" {
		return
	}
	c, err := s.buildChain(app, lr.spec)
	if err != nil {
		var refused *snippetError
		if errors.As(err, &refused) {
			lr.refused = app
		}
		lr.failed.Store(&err)
		s.log.Error("route cannot be provisioned", "host", lr.firstHost(), "error", err)
		return
	}
	lr.failed.Store(nil)
	old := lr.chain.Load()
	lr.chains[app] = c
	if s.newest.Load() == app || old == nil {
		s.useLocked(lr, c)
	}
}

// useLocked lets c answer the requests of lr from now on. The chain before it
// ends here if no generation has it any more: that of an old config, which went
// on because the next could not provision the route.
func (s *State) useLocked(lr *liveRoute, c *chain) {
	old := lr.chain.Swap(c)
	if old == nil || old == c {
		return
	}
	for _, kept := range lr.chains {
		if kept == old {
			return
		}
	}
	drain := time.Duration(0)
	if app := s.newest.Load(); app != nil {
		drain = time.Duration(app.Drain)
	}
	old.retire(drain)
}

// runningSource is a source that is being watched.
type runningSource struct {
	config string // what it was made from: another config makes another source
	cancel context.CancelFunc
	done   chan struct{}
}

// reconcileSources runs the sources of all started generations, and no others:
// both of an old and of a new config, until it is clear which one stays.
func (s *State) reconcileSources() {
	s.mu.Lock()
	want := map[string]*configuredSource{}
	for _, app := range s.generations {
		for _, src := range app.sources {
			want[src.name] = src // the newer config wins
		}
	}
	var ended []*runningSource
	var forget []string
	for name, running := range s.sources {
		src := want[name]
		if src != nil && src.config == running.config {
			continue
		}
		running.cancel()
		ended = append(ended, running)
		delete(s.sources, name)
		if src == nil {
			forget = append(forget, name)
		}
	}
	s.mu.Unlock()
	for _, r := range ended {
		<-r.done
	}
	for _, name := range forget {
		s.registry.Forget(name)
	}
	names := slices.Sorted(maps.Keys(want))
	s.mu.Lock()
	for _, name := range names {
		if s.sources[name] == nil {
			s.startLocked(want[name])
		}
	}
	s.mu.Unlock()
	s.registry.SettleOwners(names)
}

// startLocked watches src until it is cancelled. The registry hands out its
// updater in the new goroutine, since state.mu is held here.
func (s *State) startLocked(src *configuredSource) {
	ctx, cancel := context.WithCancel(context.Background())
	running := &runningSource{config: src.config, cancel: cancel, done: make(chan struct{})}
	s.sources[src.name] = running
	go func() {
		defer close(running.done)
		src.source.Watch(ctx, s.backups.rest.watching(src.name, s.registry.Source(src.name)))
	}()
}
