package local

import (
	"errors"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/dentropy/dentropycloud/backup"
)

func init() { caddy.RegisterModule(Module{}) }

// Module keeps archives in a folder of this machine: a disk, or a network file system
// that is mounted.
type Module struct {
	// Dir is the folder, absolute. It is made where it is missing, private to its owner.
	// Required.
	Dir string `json:"dir"`
}

// CaddyModule returns the Caddy module information.
func (Module) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "dentropy.stores.local", New: func() caddy.Module { return new(Module) }}
}

// Validate checks the configuration without touching the folder.
func (m *Module) Validate() error {
	if !filepath.IsAbs(m.Dir) {
		return errors.New("the folder of a local store must be an absolute path")
	}
	return nil
}

// NewStore makes the store.
func (m *Module) NewStore() (backup.Store, error) {
	s, err := New(m.Dir)
	if err != nil {
		return nil, err // not a nil *Store in an interface
	}
	return s, nil
}

// UnmarshalCaddyfile sets up the store from Caddyfile tokens. Syntax:
//
//	local <folder>
func (m *Module) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name of the directive
	if !d.Args(&m.Dir) || d.NextArg() {
		return d.ArgErr()
	}
	if d.NextBlock(0) {
		return d.Errf("unrecognized option %q", d.Val())
	}
	return nil
}

// Interface guards
var (
	_ caddy.Validator       = (*Module)(nil)
	_ caddyfile.Unmarshaler = (*Module)(nil)
)
