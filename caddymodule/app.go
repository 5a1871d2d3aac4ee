package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"github.com/dentropy/dentropycloud/discovery"
)

func init() { caddy.RegisterModule(App{}) }

// App serves what the sources discover. One value is made for each config load,
// a generation; what it serves lives in a state that outlives it.
type App struct {
	// SourcesRaw are what is watched. Default: none.
	SourcesRaw []json.RawMessage `json:"sources,omitempty" caddy:"namespace=dentropy.sources inline_key=source"`
	// DialectsRaw are the languages of labels, in order of preference. Default:
	// native.
	DialectsRaw []json.RawMessage `json:"dialects,omitempty" caddy:"namespace=dentropy.dialects inline_key=dialect"`
	// Claims restrict who may use a domain. Default: no restriction.
	Claims []discovery.Claim `json:"claims,omitempty"`
	// TLS configures the certificates of discovered routes.
	TLS TLS `json:"tls,omitzero"`
	// Hold is how long a request waits for a container that is starting or
	// restarting; 0 turns waiting off. Default: 10s.
	Hold *caddy.Duration `json:"hold,omitempty"`
	// HoldQueue is how many requests of one route may wait. Default: 1000.
	HoldQueue int `json:"hold_queue,omitempty"`
	// Drain is how long requests of a removed route may go on. Default: 0, for ever.
	Drain caddy.Duration `json:"drain,omitempty"`
	// OwnerGrace is how long a host stays with an owner that is gone. Default: 1m.
	OwnerGrace caddy.Duration `json:"owner_grace,omitempty"`
	// AllowUpstreams are addresses (host, host:port or prefix) beside the
	// containers' own that snippets may proxy to. Default: none.
	AllowUpstreams []string `json:"allow_upstreams,omitempty"`
	// AllowHandlers are module IDs of further HTTP handlers that snippets may use.
	// Default: none.
	AllowHandlers []string `json:"allow_handlers,omitempty"`
	// Listeners are addresses that this program listens on without Caddy knowing
	// their ports (sockets that were handed over). No route may lead to them.
	Listeners []string `json:"listeners,omitempty"`
	// Backup configures backups and restores. Default: the engines that are watched, and
	// a folder in the data folder.
	Backup *Backup `json:"backup,omitempty"`

	ctx       caddy.Context
	state     *State
	plain     map[string]*chain // by scheme; "" is http
	issuers   map[string][]certmagic.Issuer
	classes   []string
	sources   []*configuredSource
	upstreams upstreamRules
}

// TLS configures the certificates of discovered routes.
type TLS struct {
	// Email is given to the CA. Default: none.
	Email string `json:"email,omitempty"`
	// CA is the directory URL of the ACME server. Default: Let's Encrypt.
	CA string `json:"ca,omitempty"`
	// CARoot is a PEM file with the root that the ACME server's own certificate is
	// verified against. Default: the system's roots.
	CARoot string `json:"ca_root,omitempty"`
	// IssuersRaw are issuers by name, for the label tls=<name>. "acme" and
	// "internal" replace the built-in ones.
	IssuersRaw caddy.ModuleMap `json:"issuers,omitempty" caddy:"namespace=tls.issuance inline_key=module"`
	// LocalNames are further host patterns that get the internal CA.
	LocalNames []string `json:"local_names,omitempty"`
	// Linger is how long a certificate is kept up after its last route is gone.
	// Default: 10m.
	Linger caddy.Duration `json:"linger,omitempty"`
	// Budget is how many new certificates are asked for per registered domain and
	// week. Default: 40, below Let's Encrypt's 50.
	Budget int `json:"budget,omitempty"`
}

// sourceModule is what a module of the namespace dentropy.sources gives.
type sourceModule interface {
	SourceName() string
	NewSource(discovery.SourceOptions) (discovery.Source, error)
}

// configuredSource is a source of one config.
type configuredSource struct {
	name   string
	config string // tells whether a later config means the same source
	source discovery.Source
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "dentropy", New: func() caddy.Module { return new(App) }}
}

// Provision prepares all that does not need other apps to be started.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx = ctx
	state, err := loadState()
	if err != nil {
		return err
	}
	a.state = state
	state.meters.register(ctx.GetMetricsRegistry())
	// modules that are provisioned at run time may ask for these: an app that is
	// first needed then would never be started
	for _, name := range []string{"events", "tls", "pki"} {
		if _, err := ctx.App(name); err != nil {
			return err
		}
	}
	if a.upstreams, err = parseUpstreamRules(a.AllowUpstreams); err != nil {
		return err
	}
	if err := a.provisionIssuers(); err != nil {
		return err
	}
	dialects, config, err := a.provisionDialects()
	if err != nil {
		return err
	}
	if err := a.provisionBackup(); err != nil { // needs the sources as they are written
		return fmt.Errorf("backup: %w", err)
	}
	if err := a.provisionSources(dialects, config); err != nil {
		return err
	}
	a.plain = map[string]*chain{}
	for _, scheme := range plainSchemes {
		if a.plain[scheme], err = newPlainProxy(ctx, scheme); err != nil {
			return err
		}
	}
	a.plain[""] = a.plain["http"]
	return nil
}

// plainIs reports whether c is what serves plain routes of scheme.
func (a *App) plainIs(scheme string, c *chain) bool { return a != nil && a.plain[scheme] == c }

func (a *App) provisionDialects() (dialects []discovery.Dialect, config string, err error) {
	if len(a.DialectsRaw) == 0 {
		a.DialectsRaw = []json.RawMessage{json.RawMessage(`{"dialect":"native"}`)}
	}
	for _, raw := range a.DialectsRaw {
		config += string(raw)
	}
	mods, err := a.ctx.LoadModule(a, "DialectsRaw")
	if err != nil {
		return nil, "", fmt.Errorf("load dialects: %w", err)
	}
	for _, mod := range mods.([]any) {
		d, ok := mod.(discovery.Dialect)
		if !ok {
			return nil, "", fmt.Errorf("%T is not a dialect", mod)
		}
		dialects = append(dialects, d)
	}
	return dialects, config, nil
}

func (a *App) provisionSources(dialects []discovery.Dialect, config string) error {
	raws := make([]string, len(a.SourcesRaw))
	for i, raw := range a.SourcesRaw {
		raws[i] = config + string(raw)
	}
	if len(raws) == 0 {
		return nil
	}
	mods, err := a.ctx.LoadModule(a, "SourcesRaw")
	if err != nil {
		return fmt.Errorf("load sources: %w", err)
	}
	for i, mod := range mods.([]any) {
		m, ok := mod.(sourceModule)
		if !ok {
			return fmt.Errorf("%T is not a source", mod)
		}
		name := m.SourceName()
		if slices.ContainsFunc(a.sources, func(s *configuredSource) bool { return s.name == name }) {
			return fmt.Errorf("two sources are called %q: give each a name of its own", name)
		}
		src, err := m.NewSource(discovery.SourceOptions{Name: name, Dialects: dialects, Log: slog.New(lateLog{}).With("source", name)})
		if err != nil {
			return fmt.Errorf("source %s: %w", name, err)
		}
		a.sources = append(a.sources, &configuredSource{name: name, config: raws[i], source: src})
	}
	return nil
}

// provisionIssuers makes the issuer classes: the two built-in ones, and those of
// the config.
func (a *App) provisionIssuers() error {
	if a.TLS.IssuersRaw == nil {
		a.TLS.IssuersRaw = caddy.ModuleMap{}
	}
	if a.TLS.IssuersRaw["internal"] == nil {
		a.TLS.IssuersRaw["internal"] = json.RawMessage(`{"module":"internal"}`)
	}
	if a.TLS.IssuersRaw["acme"] == nil {
		acme := map[string]any{"module": "acme"}
		for key, value := range map[string]string{"email": a.TLS.Email, "ca": a.TLS.CA} {
			if value != "" {
				acme[key] = value
			}
		}
		if a.TLS.CARoot != "" {
			acme["trusted_roots_pem_files"] = []string{a.TLS.CARoot}
		}
		raw, err := json.Marshal(acme)
		if err != nil {
			return err
		}
		a.TLS.IssuersRaw["acme"] = raw
	}
	a.issuers = map[string][]certmagic.Issuer{}
	for _, name := range slices.Sorted(maps.Keys(a.TLS.IssuersRaw)) {
		issuer, err := a.loadIssuer(a.TLS.IssuersRaw[name])
		if err != nil {
			return fmt.Errorf("issuer %q: %w", name, err)
		}
		a.issuers[name] = []certmagic.Issuer{issuer}
	}
	a.classes = slices.Sorted(maps.Keys(a.issuers))
	return nil
}

func (a *App) loadIssuer(raw json.RawMessage) (certmagic.Issuer, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	var module string
	if err := json.Unmarshal(fields["module"], &module); err != nil {
		return nil, errors.New(`"module" is missing: name an issuer such as "acme" or "internal"`)
	}
	delete(fields, "module")
	rest, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	mod, err := a.ctx.LoadModuleByID("tls.issuance."+module, rest)
	if err != nil {
		return nil, err
	}
	issuer, ok := mod.(certmagic.Issuer)
	if !ok {
		return nil, fmt.Errorf("%T is not an issuer", mod)
	}
	return issuer, nil
}

// classNames are the names of the issuer classes, sorted.
func (a *App) classNames() []string { return a.classes }

// snippet adapts the Caddyfile text of a route under this config's rules.
func (a *App) snippet(spec *discovery.Route) (*snippetResult, error) {
	return adaptSnippet(spec.Caddyfile, snippetOptions{
		Host:          spec.Hosts[0],
		Scheme:        spec.Scheme,
		AllowUpstream: a.allowUpstream,
		AllowHandlers: a.AllowHandlers,
	})
}

// Start lets this generation serve. Between Provision and Start nothing may be
// provisioned in its context, since Caddy still writes to it.
func (a *App) Start() error {
	if err := a.checkOpenIssuance(); err != nil {
		return err
	}
	certs, err := a.certGeneration()
	if err != nil {
		return err
	}
	a.settle()
	a.state.backups.adopt(a)
	if err := a.state.ledger.open(a.ctx.Storage(), a.state.registry); err != nil {
		// the hosts go to the oldest container instead of the remembered owner
		a.ctx.Slogger().Error("remembered owners of hosts cannot be read", "error", err)
	}
	a.state.takeOver(a)
	a.state.certs.adopt(certs)
	a.state.registry.Reelect(a.Claims, time.Duration(a.OwnerGrace))
	a.state.registry.Recheck()
	a.state.reconcileSources()
	a.state.journal.add(Event{Kind: "config", Text: "loaded"})
	return nil
}

// checkOpenIssuance refuses a config in which our certificate manager stands in
// an automation policy without our permission module: Caddy would then ask its
// CA for a certificate for any name that any client sends.
func (a *App) checkOpenIssuance() error {
	mod, err := a.ctx.AppIfConfigured("tls")
	if err != nil {
		return nil // no TLS, no policy
	}
	tls := mod.(*caddytls.TLS)
	if tls.Automation == nil || permissionProvisioned(a.ctx) {
		return nil
	}
	for _, policy := range tls.Automation.Policies {
		for _, m := range policy.Managers {
			if _, ours := m.(*CertManager); ours {
				return errors.New("get_certificate dentropy without its permission module would let anybody order certificates for any name: add the global option on_demand_tls { permission dentropy }")
			}
		}
	}
	return nil
}

// Stop does nothing: apps stop in random order, so that servers of this config
// may still take requests. What there is to end ends in Cleanup.
func (a *App) Stop() error { return nil }

// Cleanup ends this generation, whether it was started or not. What its requests
// in flight need stays until they are over.
func (a *App) Cleanup() error {
	if a.state == nil {
		return nil
	}
	s := a.state
	s.retire(a)
	s.certs.forget(a)
	for scheme, c := range a.plain {
		if scheme != "" && c != nil {
			c.retire(time.Duration(a.Drain))
		}
	}
	if back := s.newest.Load(); back != nil {
		back.settle()
		s.ledger.follow(back.ctx.Storage())
		s.registry.Reelect(back.Claims, time.Duration(back.OwnerGrace))
		s.registry.Recheck()
		s.reconcileSources()
		s.backups.adopt(back)
	}
	return releaseState()
}

// settle tells the state what the same config serves besides.
func (a *App) settle() {
	static, own := a.surroundings()
	a.state.static.Store(&static)
	a.state.own.Store(own)
	permitStatic(a.ctx, func(host string) bool { return static[host] })
}

// surroundings tells what the same config serves besides: the hosts of its own
// sites, and the addresses it listens on.
func (a *App) surroundings() (static map[string]bool, own *ownAddresses) {
	static = map[string]bool{}
	own = newOwnAddresses(a.Listeners)
	mod, err := a.ctx.AppIfConfigured("http")
	if err != nil {
		return static, own
	}
	for _, srv := range mod.(*caddyhttp.App).Servers {
		own.add(srv.Listen...)
		ahead := true // of our handler
		for _, route := range srv.Routes {
			ahead = ahead && !handles(route)
			for _, host := range hostsOf(route) {
				static[host] = true
				if suffix, ok := strings.CutPrefix(host, "*."); ok && ahead {
					static["."+suffix] = true // see reserved
				}
			}
		}
	}
	return static, own
}

// hostsOf gives the hosts that a route of the config is for, in lower case.
func hostsOf(route caddyhttp.Route) (hosts []string) {
	for _, set := range route.MatcherSets {
		for _, m := range set {
			if match, ok := m.(*caddyhttp.MatchHost); ok {
				for _, h := range *match {
					hosts = append(hosts, strings.ToLower(h))
				}
			}
		}
	}
	return hosts
}

// handles reports whether a route leads to our handler.
func handles(route caddyhttp.Route) bool {
	return slices.ContainsFunc(route.Handlers, func(h caddyhttp.MiddlewareHandler) bool {
		switch h := h.(type) {
		case *Handler:
			return true
		case *caddyhttp.Subroute:
			return slices.ContainsFunc(h.Routes, handles)
		}
		return false
	})
}

// certGeneration is this config as the certificate store sees it.
func (a *App) certGeneration() (certGeneration, error) {
	gen := certGeneration{
		ID: a, Ctx: a.ctx, Classes: a.issuers, Active: certConfigActive(a.ctx),
		Tuning: certTuning{Linger: time.Duration(a.TLS.Linger), Budget: a.TLS.Budget},
	}
	events, err := certEvents(a.ctx)
	if err != nil {
		return gen, err
	}
	gen.OnEvent = events
	if mod, err := a.ctx.AppIfConfigured("tls"); err == nil {
		gen.Static = mod.(*caddytls.TLS).HasCertificateForSubject
	}
	mod, err := a.ctx.AppIfConfigured("http")
	if err != nil {
		return gen, nil // nobody serves challenges but certmagic itself
	}
	http := mod.(*caddyhttp.App)
	for name, issuers := range a.issuers {
		acme := acmeIssuer(issuers[0])
		if acme == nil {
			continue
		}
		if err := fitACMEIssuer(a.ctx, acme, http.HTTPPort, http.HTTPSPort); err != nil {
			return gen, fmt.Errorf("issuer %q: %w", name, err)
		}
	}
	return gen, nil
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
	_ discovery.Sink     = (*State)(nil)
)
