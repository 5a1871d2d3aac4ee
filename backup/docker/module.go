package docker

import (
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

func init() { caddy.RegisterModule(Module{}) }

// Module backs up and restores the apps of a Docker Engine. It needs an endpoint that
// lets it make containers: behind a read-only socket proxy it says so, and nothing more.
type Module struct {
	// Endpoint of the engine: `unix:///path`, `tcp://host:port` or `ssh://user@host`.
	// Default: the `DOCKER_HOST` environment variable, else the local socket.
	Endpoint string `json:"endpoint,omitempty"`
	// Name tells several engines apart; the API shows it as `docker:<name>`. Default:
	// none, shown as `docker`.
	Name string `json:"name,omitempty"`
	// TLS is for `tcp` endpoints. Default: `DOCKER_CERT_PATH` and `DOCKER_TLS_VERIFY`
	// where `DOCKER_HOST` is used, else none.
	TLS *dockerengine.TLS `json:"tls,omitempty"`
	// GuardSocket is the engine's socket on the engine's own host. Default: that of the
	// endpoint, else `/var/run/docker.sock`.
	GuardSocket string `json:"guard_socket,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Module) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "dentropy.platforms.docker", New: func() caddy.Module { return new(Module) }}
}

// PlatformName is the name of the platform among others: "docker" or "docker:<name>".
func (m *Module) PlatformName() string {
	if m.Name == "" {
		return "docker"
	}
	return "docker:" + m.Name
}

// NewPlatform makes the platform. It does not connect.
func (m *Module) NewPlatform(opts backup.PlatformOptions) (backup.Platform, error) {
	o := Options{
		Name: opts.Name, Endpoint: m.Endpoint, HelperBinary: opts.Helper, HelperArgs: opts.HelperArgs,
		TransitVolume: opts.TransitVolume, GuardSocket: m.GuardSocket, Log: opts.Log,
	}
	if o.Name == "" {
		o.Name = m.PlatformName()
	}
	if m.TLS != nil {
		o.TLS = *m.TLS
	}
	p, err := New(o)
	if err != nil {
		return nil, err // not a nil *Platform in an interface
	}
	return p, nil
}

// UnmarshalCaddyfile sets up the platform from Caddyfile tokens. Syntax:
//
//	docker [<endpoint>] {
//		name         <name>
//		tls_ca       <file>
//		tls_cert     <file>
//		tls_key      <file>
//		guard_socket <file>
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
		case "guard_socket":
			field = &m.GuardSocket
		case "tls_ca", "tls_cert", "tls_key":
			if m.TLS == nil {
				m.TLS = new(dockerengine.TLS)
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
var _ caddyfile.Unmarshaler = (*Module)(nil)
