package native

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/dentropy/dentropycloud/discovery"
)

func init() {
	caddy.RegisterModule(new(Module))
}

// Module makes the dialect available to a Caddy configuration as
// dentropy.dialects.native.
type Module struct {
	// What labels begin with, followed by a dot. Default: dentropy.
	Prefix string `json:"prefix,omitempty"`

	Dialect `json:"-"`
}

// CaddyModule returns the Caddy module information.
func (*Module) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "dentropy.dialects.native",
		New: func() caddy.Module { return new(Module) },
	}
}

// Provision implements caddy.Provisioner.
func (m *Module) Provision(caddy.Context) error {
	d, err := New(m.Prefix, ".")
	if err != nil {
		return err
	}
	m.Dialect = *d
	return nil
}

// UnmarshalCaddyfile sets up the dialect from Caddyfile tokens. Syntax:
//
//	native {
//		prefix <prefix>
//	}
func (m *Module) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the dialect's name
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch option := d.Val(); option {
		case "prefix":
			if m.Prefix != "" {
				return d.Errf("duplicate option %q", option)
			}
			if !d.NextArg() {
				return d.ArgErr()
			}
			m.Prefix = d.Val()
			if d.NextArg() {
				return d.ArgErr()
			}
		default:
			return d.Errf("unrecognized option %q", option)
		}
	}
	return nil
}

// Interface guards
var (
	_ discovery.Dialect     = (*Module)(nil)
	_ caddy.Provisioner     = (*Module)(nil)
	_ caddyfile.Unmarshaler = (*Module)(nil)
)
