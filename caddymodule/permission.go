package caddymodule

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
)

func init() {
	caddy.RegisterModule(Permission{})
}

// Permission keeps Caddy from issuing certificates for whatever name a client
// asks for. It goes with the certificate manager "dentropy": an automation policy
// that has a manager issues on demand, and does so for every name unless a
// permission module forbids it. Certificates of run-time routes do not pass here.
type Permission struct {
	// Deny refuses every name, except those of static sites that the dentropy app
	// knows of. Default: true. With false, the names of run-time routes may be
	// issued for on demand as well.
	Deny *bool `json:"deny,omitempty"`

	state *State
	rec   *permissionRecord
	key   any
}

// permissionRecord is what is known about the permission of one config.
type permissionRecord struct {
	static atomic.Pointer[func(host string) bool]
}

// Destruct implements caddy.Destructor.
func (*permissionRecord) Destruct() error { return nil }

// permissions holds a record for each config that has a permission module.
var permissions = caddy.NewUsagePool()

// CaddyModule returns the Caddy module information.
func (Permission) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tls.permission.dentropy",
		New: func() caddy.Module { return new(Permission) },
	}
}

// Provision sets up the permission and notes that its config has one.
func (p *Permission) Provision(ctx caddy.Context) error {
	state, err := loadState()
	if err != nil {
		return err
	}
	p.state = state
	key := certConfigKey(ctx)
	rec, _, err := permissions.LoadOrNew(key, func() (caddy.Destructor, error) { return new(permissionRecord), nil })
	if err != nil {
		return err
	}
	p.rec, p.key = rec.(*permissionRecord), key
	return nil
}

// CertificateAllowed implements caddytls.OnDemandPermission.
func (p *Permission) CertificateAllowed(_ context.Context, name string) error {
	if static := p.rec.static.Load(); static != nil && (*static)(name) {
		return nil
	}
	if p.Deny != nil && !*p.Deny && p.state.certs.name(name) != nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, caddytls.ErrPermissionDenied)
}

// Cleanup undoes Provision.
func (p *Permission) Cleanup() error {
	if p.rec != nil {
		if _, err := permissions.Delete(p.key); err != nil {
			return err
		}
	}
	if p.state == nil {
		return nil
	}
	return releaseState()
}

// UnmarshalCaddyfile sets up the permission from Caddyfile tokens. Syntax:
//
//	permission dentropy
func (p *Permission) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return noOptions(d)
}

// permissionProvisioned reports whether the config of ctx has our permission
// module. It is asked once the tls app is provisioned.
func permissionProvisioned(ctx caddy.Context) bool {
	refs, ok := permissions.References(certConfigKey(ctx))
	return ok && refs > 0
}

// permitStatic tells the permission of ctx's config which names belong to static
// sites. It does nothing if there is none.
func permitStatic(ctx caddy.Context, static func(host string) bool) {
	permissions.Range(func(key, rec any) bool {
		if key == any(certConfigKey(ctx)) {
			rec.(*permissionRecord).static.Store(&static)
			return false
		}
		return true
	})
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Permission)(nil)
	_ caddy.CleanerUpper          = (*Permission)(nil)
	_ caddytls.OnDemandPermission = (*Permission)(nil)
	_ caddyfile.Unmarshaler       = (*Permission)(nil)
)
