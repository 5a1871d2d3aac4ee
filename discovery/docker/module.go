package docker

import (
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/dentropy/dentropycloud/discovery"
)

func init() { caddy.RegisterModule(Module{}) }

// Module watches a Docker Engine for containers with routing labels. It only reads,
// and works behind a read-only socket proxy.
type Module struct {
	// Endpoint of the engine: `unix:///path`, `tcp://host:port` or
	// `ssh://user@host`. Default: the `DOCKER_HOST` environment variable, else the
	// local socket.
	Endpoint string `json:"endpoint,omitempty"`
	// Name tells several engines apart; claims and the API show it as
	// `docker:<name>`. Default: none, shown as `docker`; only one engine may go
	// without.
	Name string `json:"name,omitempty"`
	// TLS is for `tcp` endpoints. Default: `DOCKER_CERT_PATH` and
	// `DOCKER_TLS_VERIFY` where `DOCKER_HOST` is used, else none.
	TLS *TLS `json:"tls,omitempty"`
	// Network to reach containers by where no label names one. Default: chosen for
	// each container.
	Network string `json:"network,omitempty"`
	// Expose is `labelled`, or `all`: then each container without routing labels
	// that exposes a TCP port is served at `<service>.<project>.localhost`.
	// Default: `labelled`.
	Expose string `json:"expose,omitempty"`
	// LabelPrefix stands for `dentropy` in native labels, so that several
	// instances can share one engine. Default: `dentropy`.
	LabelPrefix string `json:"label_prefix,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Module) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "dentropy.sources.docker",
		New: func() caddy.Module { return new(Module) },
	}
}

// Validate checks the configuration without connecting to anything.
func (m *Module) Validate() error {
	_, err := m.NewSource(discovery.SourceOptions{Name: m.SourceName()})
	return err
}

// SourceName is the name of the source among others: "docker" or "docker:<name>".
func (m *Module) SourceName() string {
	if m.Name == "" {
		return "docker"
	}
	return "docker:" + m.Name
}

// NewSource makes the source. It does not connect.
func (m *Module) NewSource(opts discovery.SourceOptions) (discovery.Source, error) {
	if opts.Name == "" {
		opts.Name = m.SourceName()
	}
	cfg := Config{Endpoint: m.Endpoint, Network: m.Network, Expose: m.Expose, LabelPrefix: m.LabelPrefix}
	if m.TLS != nil {
		cfg.TLS = *m.TLS
	}
	src, err := New(cfg, opts)
	if err != nil {
		return nil, err // not a nil *Source in an interface
	}
	return src, nil
}

// UnmarshalCaddyfile sets up the source from Caddyfile tokens. Syntax:
//
//	docker [<endpoint>] {
//		name         <name>
//		tls_ca       <file>
//		tls_cert     <file>
//		tls_key      <file>
//		network      <network>
//		expose       labelled|all
//		label_prefix <prefix>
//	}
func (m *Module) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name of the directive
	if d.NextArg() {
		m.Endpoint = d.Val()
		if d.NextArg() {
			return d.ArgErr()
		}
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		var field *string
		switch option {
		case "name":
			field = &m.Name
		case "network":
			field = &m.Network
		case "expose":
			field = &m.Expose
		case "label_prefix":
			field = &m.LabelPrefix
		case "tls_ca", "tls_cert", "tls_key":
			if m.TLS == nil {
				m.TLS = new(TLS)
			}
			field = map[string]*string{"tls_ca": &m.TLS.CA, "tls_cert": &m.TLS.Cert, "tls_key": &m.TLS.Key}[option]
		default:
			return d.Errf("unrecognized option %q", option)
		}
		if *field != "" {
			return d.Errf("duplicate option %q", option)
		}
		if !d.NextArg() || strings.TrimSpace(d.Val()) == "" {
			return d.ArgErr()
		}
		*field = d.Val()
		if d.NextArg() {
			return d.ArgErr()
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Validator       = (*Module)(nil)
	_ caddyfile.Unmarshaler = (*Module)(nil)
	_ discovery.Source      = (*Source)(nil)
)
