package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// certGeneration is what one config brings to the certStore.
type certGeneration struct {
	// ID tells configs apart; the pointer to the app will do.
	ID any
	// Ctx is the context of the app.
	Ctx caddy.Context
	// Storage holds the certificates. Default: that of Ctx.
	Storage certmagic.Storage
	// Log takes what happens. Default: a child of Ctx's logger.
	Log *zap.Logger
	// Classes are the provisioned issuers by the name of their class, in order of
	// preference. An issuer must not be in two classes.
	Classes map[string][]certmagic.Issuer
	// Static says whether Caddy itself has a certificate for a host. It is asked
	// only once Active says true. Default: it has none.
	Static func(host string) bool
	// Active says whether the config is the one in force, with all its servers up.
	// Until then no issuer on the network is asked: its challenges would fail.
	// Default: it is.
	Active func() bool
	// OnEvent takes the events of certmagic, as Caddy's own tls app passes them to
	// the events app. Default: nobody is told.
	OnEvent func(ctx context.Context, event string, data map[string]any) error
	// Tuning holds times and limits.
	Tuning certTuning
}

// certTuning holds times and limits. A zero field means its default.
type certTuning struct {
	// Linger is how long a name is kept that nobody wants any more. Default: 10m.
	// Negative means not at all.
	Linger time.Duration
	// Wait is how long a handshake waits for a first certificate. Default: 15s.
	Wait time.Duration
	// Waiters is how many handshakes may wait. Default: 1000.
	Waiters int64
	// Backoff are the pauses after failures of issuers on the network, the last one
	// repeated. Default: 2m 10m 30m 1h 2h 4h 6h.
	Backoff []time.Duration
	// LocalBackoff is the same for issuers in this process. Default: 5s 30s 2m 10m
	// 30m.
	LocalBackoff []time.Duration
	// PerHour is how often issuers on the network are asked about one name within
	// an hour, whatever the reason. Default: 4, since Let's Encrypt refuses the name
	// for an hour after five failures. Negative means no limit.
	PerHour int
	// Timeout bounds one attempt. Default: 10m, for DNS records take minutes to
	// spread.
	Timeout time.Duration
	// Budget is how many new certificates are asked for per registered domain and
	// BudgetWindow. Default: 40 in 7 days, since Let's Encrypt gives 50. Negative
	// means no limit.
	Budget       int
	BudgetWindow time.Duration
}

// withDefaults fills the zero fields.
func (t certTuning) withDefaults() certTuning {
	setDefault(&t.Linger, 10*time.Minute)
	t.Linger = max(t.Linger, 0)
	setDefault(&t.Wait, 15*time.Second)
	setDefault(&t.Waiters, 1000)
	if len(t.Backoff) == 0 {
		t.Backoff = []time.Duration{2 * time.Minute, 10 * time.Minute, 30 * time.Minute,
			time.Hour, 2 * time.Hour, 4 * time.Hour, 6 * time.Hour}
	}
	if len(t.LocalBackoff) == 0 {
		t.LocalBackoff = []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute,
			10 * time.Minute, 30 * time.Minute}
	}
	setDefault(&t.PerHour, 4)
	setDefault(&t.Timeout, 10*time.Minute)
	setDefault(&t.Budget, 40)
	setDefault(&t.BudgetWindow, 7*24*time.Hour)
	return t
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// certGen is a generation that was adopted. It does not change any more.
type certGen struct {
	certGeneration
	classes map[string]*issuerClass

	active    atomic.Bool   // Active has said true
	forgotten chan struct{} // closed by forget
	once      sync.Once
}

func (g *certGen) forget() { g.once.Do(func() { close(g.forgotten) }) }

// issuerClass is a class of issuers, ready for use.
type issuerClass struct {
	name      string
	cfg       *certmagic.Config
	keys      string // of its issuers: where certificates are stored
	local     bool   // no issuer is on the network
	wildcards bool   // an issuer can get wildcards
}

// tuning gives the times and limits in force.
func (cs *certStore) tuning() certTuning {
	if g := cs.cur.Load(); g != nil {
		return g.Tuning
	}
	return certTuning{}.withDefaults()
}

// adopt makes the issuers of a config those in force. Names that have a
// certificate keep it; the others are tried again, within the limits.
func (cs *certStore) adopt(gen certGeneration) {
	g := &certGen{certGeneration: gen, forgotten: make(chan struct{}), classes: make(map[string]*issuerClass)}
	g.Tuning = gen.Tuning.withDefaults()
	if g.Log == nil {
		g.Log = gen.Ctx.Logger().Named("certs")
	}
	if g.Storage == nil {
		g.Storage = gen.Ctx.Storage()
	}
	for name, issuers := range gen.Classes {
		g.classes[name] = cs.newClass(g, name, issuers)
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.stopped {
		return
	}
	cs.gens = append(slices.DeleteFunc(cs.gens, g.same), g)
	if g.Active == nil {
		g.active.Store(true)
	} else {
		cs.wg.Go(func() { cs.awaitActive(g) })
	}
	cs.changeLocked()
}

func (g *certGen) same(o *certGen) bool {
	if o.ID != g.ID {
		return false
	}
	o.forget()
	return true
}

// forget takes back what adopt did for the config with this ID. If it was in
// force, the one before it is again.
func (cs *certStore) forget(id any) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.gens = slices.DeleteFunc(cs.gens, func(g *certGen) bool {
		if g.ID != id {
			return false
		}
		g.forget()
		return true
	})
	if !cs.stopped {
		cs.changeLocked()
	}
}

// changeLocked puts the newest generation in force and looks at every name
// again.
func (cs *certStore) changeLocked() {
	var g *certGen
	if len(cs.gens) > 0 {
		g = cs.gens[len(cs.gens)-1]
	}
	if g == cs.cur.Load() {
		return
	}
	cs.cur.Store(g)
	cs.acme.pause(g == nil || !g.active.Load())
	if g == nil {
		return // the end: nothing more is begun, what is cached is still served
	}
	cs.budget.limit(g.Tuning)
	cs.eachLocked(func(n *certName) {
		if n.state == certFailed || n.state == certBudget {
			n.nextTry = time.Time{} // workIssue holds it back where asking is not allowed yet
		}
		if n.covered == coveredByCaddy {
			n.covered = "" // the new config may not have the certificate
		}
		cs.reviewLocked(n)
	})
}

func (cs *certStore) eachLocked(f func(*certName)) {
	cs.names.Range(func(_, v any) bool { f(v.(*certName)); return true })
}

// certActivePoll is how often a new config is asked whether it is in force: a
// start takes milliseconds, and asking is one lock.
const certActivePoll = 10 * time.Millisecond

// awaitActive lets issuers on the network be asked once the config is in force.
func (cs *certStore) awaitActive(g *certGen) {
	tick := time.NewTicker(certActivePoll)
	defer tick.Stop()
	for !g.Active() {
		select {
		case <-g.forgotten:
			return
		case <-cs.ctx.Done():
			return
		case <-tick.C:
		}
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	g.active.Store(true)
	if cs.cur.Load() == g && !cs.stopped {
		cs.acme.pause(false)
	}
}

// newClass makes the certmagic config of a class.
func (cs *certStore) newClass(g *certGen, name string, issuers []certmagic.Issuer) *issuerClass {
	c := &issuerClass{name: name, local: true}
	cfg := certmagic.Config{Storage: g.Storage, Logger: g.Log, OnEvent: cs.onEvent(g)}
	for _, iss := range issuers {
		_, internal := iss.(*caddytls.InternalIssuer)
		if l, ok := iss.(interface{ LocalIssuer() bool }); ok {
			internal = l.LocalIssuer()
		}
		c.local = c.local && internal
		acme := acmeIssuer(iss)
		c.wildcards = c.wildcards || acme == nil || acme.Challenges != nil && acme.Challenges.DNS != nil
		cfg.Issuers = append(cfg.Issuers, wrapIssuer(iss, cs.budget, g.Storage, !internal))
	}
	c.cfg = certmagic.New(cs.cache, cfg)
	keys := make([]string, len(issuers))
	for i, iss := range issuers {
		if s, ok := iss.(caddytls.ConfigSetter); ok {
			s.SetConfig(c.cfg) // an ACME issuer has no key before this
		}
		keys[i] = iss.IssuerKey()
	}
	c.keys = strings.Join(keys, "\n")
	return c
}

// acmeIssuer gives the ACME issuer that an issuer is or holds, or nil.
func acmeIssuer(iss certmagic.Issuer) *caddytls.ACMEIssuer {
	if a, ok := iss.(interface{ GetACMEIssuer() *caddytls.ACMEIssuer }); ok {
		return a.GetACMEIssuer()
	}
	return nil
}

// classNames lists the classes, for messages.
func (g *certGen) classNames() []string { return slices.Sorted(maps.Keys(g.classes)) }

// onEvent keeps what renewals say, which certmagic does by itself, and passes
// every event on.
func (cs *certStore) onEvent(g *certGen) func(context.Context, string, map[string]any) error {
	return func(ctx context.Context, event string, data map[string]any) error {
		host, _ := data["identifier"].(string)
		renewal, _ := data["renewal"].(bool)
		if renewal && host != "" && (event == "cert_failed" || event == "cert_obtained") {
			err, _ := data["error"].(error)
			cs.renewed(host, err)
		}
		// Before the config is in force its events app may still be starting.
		if g.OnEvent == nil || !g.active.Load() {
			return nil
		}
		return g.OnEvent(ctx, event, data)
	}
}

// renewed notes how the renewal of a name went.
func (cs *certStore) renewed(host string, err error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	n := cs.name(host)
	if n == nil || n.state != certReady {
		return
	}
	n.lastErr, n.hint = "", ""
	if err != nil {
		n.lastErr, n.hint = issueErrorText(err)
		n.lastErr = "renew: " + n.lastErr
	}
	cs.news.add(host)
}

// certConfigActive tells whether the config of ctx is the one that Caddy runs.
func certConfigActive(ctx caddy.Context) func() bool {
	return func() bool {
		active := caddy.ActiveContext()
		return active.Context != nil && certConfigKey(active) == certConfigKey(ctx)
	}
}

// certConfigKey identifies the config that a context belongs to: contexts that
// only add values share the channel.
func certConfigKey(ctx caddy.Context) <-chan struct{} { return ctx.Done() }

// certEvents passes the events of certmagic to the events app of ctx's config,
// as Caddy's tls app does. It is called while the config is provisioned.
func certEvents(ctx caddy.Context) (func(context.Context, string, map[string]any) error, error) {
	app, err := ctx.AppIfConfigured("events")
	if err != nil {
		if errors.Is(err, caddy.ErrNotConfigured) {
			return nil, nil
		}
		return nil, fmt.Errorf("load the events app: %w", err)
	}
	events, ok := app.(*caddyevents.App)
	if !ok {
		return nil, fmt.Errorf("the events app is a %T", app)
	}
	// Caddy's own app would refuse to tell anybody once ctx has ended, yet an
	// order that began before a reload ends after it.
	return func(_ context.Context, event string, data map[string]any) error {
		if ctx.Err() != nil {
			return nil
		}
		return events.Emit(ctx, event, data).Aborted
	}, nil
}

// fitACMEIssuer tells an ACME issuer that is not in the http or tls app which
// ports the challenges reach us on, as the http app does for those in it. It is
// called once, after the issuer was provisioned with ctx. Zero means the
// standard port; what the issuer's own config says is kept.
func fitACMEIssuer(ctx caddy.Context, iss *caddytls.ACMEIssuer, httpPort, httpsPort int) error {
	needHTTP := httpPort > 0 && httpPort != certmagic.HTTPChallengePort
	needTLS := httpsPort > 0 && httpsPort != certmagic.TLSALPNChallengePort
	if !needHTTP && !needTLS {
		return nil
	}
	if iss.Challenges == nil {
		iss.Challenges = new(caddytls.ChallengesConfig)
	}
	c := iss.Challenges
	if needHTTP {
		if c.HTTP == nil {
			c.HTTP = new(caddytls.HTTPChallengeConfig)
		}
		setDefault(&c.HTTP.AlternatePort, httpPort)
	}
	if needTLS {
		if c.TLSALPN == nil {
			c.TLSALPN = new(caddytls.TLSALPNChallengeConfig)
		}
		setDefault(&c.TLSALPN.AlternatePort, httpsPort)
	}
	// Only Provision hands the ports on to certmagic; it may be called twice.
	if err := iss.Provision(ctx); err != nil {
		return fmt.Errorf("provision the ACME issuer again for ports %d and %d: %w", httpPort, httpsPort, err)
	}
	return nil
}
