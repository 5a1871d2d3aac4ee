package caddymodule

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
)

// certStore holds the certificates of run-time routes. It owns a certmagic
// cache of its own, because Caddy's can neither be told at run time to forget a
// name nor keep one across a reload, and it decides itself when a CA is asked.
//
// A name that is wanted goes through
//
//	wanted → covered by a wildcard, or by Caddy itself: nothing to do
//	       → in storage: cached, ready
//	       → a worker asks the issuers of its class: ready
//	                                               | failed, tried again later
//	                                               | no budget left, waits for it
//
// and, when nobody wants it any more, lingers before it is forgotten.
//
// It lives as long as any config does. Configs come and go by adopt and forget;
// the last one that is still there says which issuers a class has.
//
// Locks: mu comes after every lock of the callers and before those of the pools.
// No method of the cache is called with mu held: its lock may be held during
// storage I/O, and certmagic calls configFor with that lock held.
type certStore struct {
	cache *certmagic.Cache
	zap   *zap.Logger

	ctx    context.Context // ends with the store
	cancel context.CancelFunc
	wg     sync.WaitGroup // every goroutine of the store

	loads *certPool // reads storage
	local *certPool // asks issuers that live in this process
	acme  *certPool // asks issuers on the network

	budget  *issuanceBudget
	orphans chan string // hosts that were found in the cache though nobody knows them

	// onChange is told of every change, host by host, and may take its time. It is
	// set before the store is used.
	onChange func(host string, status CertStatus)

	names sync.Map                 // host → *certName; read without mu, written with it
	cur   atomic.Pointer[certGen]  // the generation in force
	waits atomic.Int64             // handshakes that wait for an issuance
	shown [certStates]atomic.Int64 // how many names are in each state
	news  certNews                 // hosts whose status has changed

	mu      sync.Mutex                        // guards the rest, and the fields of every certName
	gens    []*certGen                        // adopted and not yet forgotten, oldest first
	under   map[string]map[*certName]struct{} // parent domain → its names, for wildcards
	stopped bool
}

// certName is one name that is wanted, or was until a moment ago.
type certName struct {
	host  string
	class atomic.Pointer[string] // the first class wanted; read by configFor without mu

	ctx    context.Context // ends when the name is forgotten
	cancel context.CancelFunc

	// The rest is guarded by certStore.mu.

	wants  []certWant  // in order of arrival
	linger *time.Timer // runs while wants is empty
	gone   bool        // forgotten; whoever still works on it throws the result away

	state  certState
	shown  certState // the state that certStore.shown counts it under
	since  time.Time // when shown became what it is
	phase  certPhase
	ticket uint64      // the queue entry with this number is the valid one
	again  bool        // something changed while it was worked on: look at it again
	flight *certFlight // not nil while work is queued or under way
	mode   issueMode

	keys     string // of the class when it became ready
	covered  string // what covers it, when state is certCovered
	lastErr  string
	hint     string
	attempts int // since it was wanted
	failures int // in a row
	nextTry  time.Time
	timer    *time.Timer
}

// certWant counts who wants a name with one class.
type certWant struct {
	class string
	n     int
}

// certFlight is the work on one name from the moment it is queued until it is
// ready or has failed.
type certFlight struct{ done chan struct{} }

// The sizes of the pools. Reading a certificate is short and mostly waiting;
// signing one here is processor time; a CA is asked for few at a time, and few
// of those may be names that failed before, so that new names find a worker.
const (
	certLoadWorkers  = 16
	certLocalWorkers = 4
	certACMEWorkers  = 8
	certACMERetries  = 4
)

// certStopTime bounds how long stop waits for work that does not heed its
// context (a DNS provider plugin, say).
const certStopTime = 10 * time.Second

// newCertStore makes an empty store; log is used while there is no config.
func newCertStore(log *zap.Logger) *certStore {
	if log == nil {
		log = zap.NewNop()
	}
	cs := &certStore{
		zap:     log,
		budget:  newIssuanceBudget(),
		orphans: make(chan string, 64), // more are found again at the next maintenance
		under:   make(map[string]map[*certName]struct{}),
	}
	cs.ctx, cs.cancel = context.WithCancel(context.Background())
	cs.cache = certmagic.NewCache(certmagic.CacheOptions{GetConfigForCert: cs.configFor, Logger: log})
	cs.loads = newCertPool(&cs.wg, certLoadWorkers, certLoadWorkers, cs.workLoad)
	cs.local = newCertPool(&cs.wg, certLocalWorkers, certLocalWorkers, cs.workIssue)
	cs.acme = newCertPool(&cs.wg, certACMEWorkers, certACMERetries, cs.workIssue)
	cs.acme.pause(true) // until there is a config
	cs.news.wake = make(chan struct{}, 1)
	cs.wg.Go(cs.keepHouse)
	return cs
}

// stop ends all work and waits for it. The store is of no use afterwards.
func (cs *certStore) stop() {
	cs.mu.Lock()
	if cs.stopped {
		cs.mu.Unlock()
		return
	}
	cs.stopped = true
	cs.names.Range(func(_, v any) bool {
		n := v.(*certName)
		stopTimer(&n.timer)
		stopTimer(&n.linger)
		cs.landLocked(n)
		return true
	})
	for _, g := range cs.gens {
		g.forget()
	}
	cs.mu.Unlock()
	cs.cancel()
	cs.loads.stop()
	cs.local.stop()
	cs.acme.stop()

	ended := make(chan struct{})
	go func() { cs.wg.Wait(); close(ended) }()
	late := time.NewTimer(certStopTime)
	defer late.Stop()
	select {
	case <-ended:
	case <-late.C:
		cs.log().Warn("certificate work does not end; leaving it behind")
	}
	cs.cache.Stop()
}

// log gives the logger of the config in force.
func (cs *certStore) log() *slog.Logger {
	z := cs.zap
	if g := cs.cur.Load(); g != nil {
		z = g.Log
	}
	return slog.New(zapslog.NewHandler(z.Core(), zapslog.WithName(z.Name())))
}

// name gives the entry of a host, or nil.
func (cs *certStore) name(host string) *certName {
	if v, ok := cs.names.Load(host); ok {
		return v.(*certName)
	}
	return nil
}

// configFor tells certmagic how a cached certificate is renewed. It is called
// with the cache locked, while RemoveManaged waits for that lock: it must not
// take one of ours.
func (cs *certStore) configFor(cert certmagic.Certificate) (*certmagic.Config, error) {
	if len(cert.Names) == 0 {
		return nil, fmt.Errorf("certificate without names")
	}
	n, gen := cs.name(cert.Names[0]), cs.cur.Load()
	if n == nil {
		// A renewal that ended after the name was forgotten has put it back.
		select {
		case cs.orphans <- cert.Names[0]:
		default: // next time
		}
		return nil, fmt.Errorf("%s is no longer wanted", cert.Names[0])
	}
	if gen == nil {
		return nil, fmt.Errorf("%s: there is no config", cert.Names[0])
	}
	class := gen.classes[*n.class.Load()]
	if class == nil {
		return nil, fmt.Errorf("%s: no issuer %q is configured", cert.Names[0], *n.class.Load())
	}
	return class.cfg, nil
}

// Want asks for a certificate for host, from the issuers of class. Every call
// is undone by one call of Drop with the same arguments. Where a host is wanted
// with several classes, the first stays in force until it is dropped. Want never
// blocks on I/O.
func (cs *certStore) Want(host, class string) {
	if host == "" || host == "*" || class == "" {
		return
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.stopped {
		return
	}
	n := cs.name(host)
	isNew := n == nil
	if isNew {
		n = cs.newNameLocked(host, class)
	}
	stopTimer(&n.linger)
	i := 0
	for i < len(n.wants) && n.wants[i].class != class {
		i++
	}
	if i == len(n.wants) {
		n.wants = append(n.wants, certWant{class: class})
	}
	n.wants[i].n++
	cs.chooseClassLocked(n)
	cs.showLocked(n)
	cs.reviewLocked(n)
	if isNew && isWildcard(host) {
		cs.reviewUnderLocked(host)
	}
}

// Drop undoes one Want. A host that nobody wants any more lingers: it is served
// and renewed for a while, so that a container that is made anew finds its
// certificate, and is then forgotten.
func (cs *certStore) Drop(host, class string) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	n := cs.name(host)
	if n == nil || cs.stopped {
		return
	}
	for i := range n.wants {
		if n.wants[i].class != class {
			continue
		}
		if n.wants[i].n--; n.wants[i].n == 0 {
			n.wants = append(n.wants[:i:i], n.wants[i+1:]...)
		}
		break
	}
	if len(n.wants) > 0 {
		cs.chooseClassLocked(n)
		cs.reviewLocked(n)
		return
	}
	if n.linger == nil {
		n.linger = time.AfterFunc(cs.tuning().Linger, func() { cs.expire(n) })
	}
	cs.showLocked(n)
}

// newNameLocked adds an entry for host.
func (cs *certStore) newNameLocked(host, class string) *certName {
	n := &certName{host: host}
	n.class.Store(&class)
	n.ctx, n.cancel = context.WithCancel(cs.ctx)
	n.since = time.Now()
	cs.names.Store(host, n)
	cs.shown[n.shown].Add(1)
	if parent := certParent(host); parent != "" && !isWildcard(host) {
		if cs.under[parent] == nil {
			cs.under[parent] = make(map[*certName]struct{})
		}
		cs.under[parent][n] = struct{}{}
	}
	return n
}

// chooseClassLocked puts the first class that is still wanted in force.
func (cs *certStore) chooseClassLocked(n *certName) {
	if first := n.wants[0].class; *n.class.Load() != first {
		n.class.Store(&first)
		n.failures, n.lastErr, n.hint = 0, "", ""
		n.nextTry = time.Time{}
		stopTimer(&n.timer)
		if isWildcard(n.host) {
			cs.reviewUnderLocked(n.host)
		}
	}
}

// expire forgets a name that has lingered long enough.
func (cs *certStore) expire(n *certName) {
	cs.mu.Lock()
	if len(n.wants) > 0 || n.gone || cs.stopped {
		cs.mu.Unlock()
		return
	}
	n.gone = true
	n.cancel()
	stopTimer(&n.timer)
	stopTimer(&n.linger)
	cs.landLocked(n)
	cs.names.Delete(n.host)
	cs.shown[n.shown].Add(-1)
	if parent := certParent(n.host); parent != "" {
		delete(cs.under[parent], n)
		if len(cs.under[parent]) == 0 {
			delete(cs.under, parent)
		}
	}
	cs.news.add(n.host)
	if isWildcard(n.host) {
		cs.reviewUnderLocked(n.host)
	}
	cs.mu.Unlock()
	cs.uncache(n.host)
}

// uncache takes the certificates of a forgotten host out of the cache. It may
// be wanted again meanwhile, and its new entry may count on what is taken away
// here: then it is loaded anew.
func (cs *certStore) uncache(host string) {
	cs.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: host}})
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if n := cs.name(host); n != nil && n.state == certReady && n.phase == phaseIdle {
		cs.enqueueLoadLocked(n)
	}
}

// keepOnly takes all certificates of exactly this host but one out of the cache.
func (cs *certStore) keepOnly(host, hash string) {
	var rest []string
	for _, c := range cs.exact(host) {
		if c.Hash() != hash {
			rest = append(rest, c.Hash())
		}
	}
	if len(rest) > 0 {
		cs.cache.Remove(rest)
	}
}

// exact gives the cached certificates made for exactly this subject.
func (cs *certStore) exact(host string) []certmagic.Certificate {
	var certs []certmagic.Certificate
	for _, c := range cs.cache.AllMatchingCertificates(host) {
		// A query for a wildcard finds the exact matches twice.
		if len(c.Names) > 0 && c.Names[0] == host && (len(certs) == 0 || certs[len(certs)-1].Hash() != c.Hash()) {
			certs = append(certs, c)
		}
	}
	return certs
}

func stopTimer(t **time.Timer) {
	if *t != nil {
		(*t).Stop()
		*t = nil
	}
}

func isWildcard(host string) bool { return strings.HasPrefix(host, "*.") }

// certParent gives the domain that a host is directly under, "" if it has none.
func certParent(host string) string {
	if certmagic.SubjectIsIP(host) {
		return ""
	}
	_, parent, _ := strings.Cut(host, ".")
	return parent
}

// wildcardOf gives the wildcard that would cover a host, "" if none can.
func wildcardOf(host string) string {
	if parent := certParent(host); parent != "" && !isWildcard(host) {
		return "*." + parent
	}
	return ""
}
