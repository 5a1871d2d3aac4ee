package caddymodule

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"
)

func init() {
	caddy.RegisterModule(CertManager{})
}

// CertManager serves the certificates of run-time routes. An automation policy
// that has it needs the permission module "dentropy" as well, or it would issue
// for any name that a client asks for: the dentropy app refuses such a config.
type CertManager struct {
	state *State
}

// CaddyModule returns the Caddy module information.
func (CertManager) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tls.get_certificate.dentropy",
		New: func() caddy.Module { return new(CertManager) },
	}
}

// Provision sets up the manager. The tls app may be provisioned before ours.
func (m *CertManager) Provision(caddy.Context) (err error) {
	m.state, err = loadState()
	return err
}

// GetCertificate implements certmagic.Manager.
func (m *CertManager) GetCertificate(ctx context.Context, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return m.state.certs.Get(ctx, hello)
}

// Cleanup gives the state back.
func (m *CertManager) Cleanup() error {
	if m.state == nil {
		return nil
	}
	return releaseState()
}

// UnmarshalCaddyfile sets up the manager from Caddyfile tokens. Syntax:
//
//	get_certificate dentropy
func (m *CertManager) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return noOptions(d)
}

// Get gives the certificate for a handshake, nil if there is none. A name whose
// certificate is on the way is waited for, so that the first visitor of a site
// that has just been made gets the site. Get must never ask a certmagic.Config:
// it is called while one waits for the same name, and would wait for itself.
func (cs *certStore) Get(ctx context.Context, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	host := helloName(hello)
	if host == "" {
		return nil, nil
	}
	cert, fresh := cs.pick(hello, host)
	if fresh {
		return cert, nil
	}
	if cs.await(ctx, host) {
		if now, _ := cs.pick(hello, host); now != nil {
			return now, nil
		}
	}
	return cert, nil // expired, or none
}

// helloName gives the name that the client wants, or the address that it came
// to if it does not say.
func helloName(hello *tls.ClientHelloInfo) string {
	if hello.ServerName != "" {
		return strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	}
	if hello.Conn == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(hello.Conn.LocalAddr().String())
	if err != nil {
		return ""
	}
	host, _, _ = strings.Cut(host, "%") // the zone of an IPv6 address
	return host
}

// pick chooses a certificate from the cache: one for the name itself before a
// wildcard, one that is valid before one that has expired.
func (cs *certStore) pick(hello *tls.ClientHelloInfo, host string) (cert *tls.Certificate, fresh bool) {
	all := cs.cache.AllMatchingCertificates(host)
	if len(all) == 0 {
		return nil, false
	}
	wild := wildcardOf(host)
	var exact, wide []certmagic.Certificate
	for _, c := range all {
		switch {
		case len(c.Names) == 0 || cs.name(c.Names[0]) == nil: // see configFor
		case c.Names[0] == host:
			exact = append(exact, c)
		case c.Names[0] == wild: // not "*.*.example.com", which no client accepts
			wide = append(wide, c)
		}
	}
	for _, choices := range [][]certmagic.Certificate{exact, wide} {
		c, err := certmagic.DefaultCertificateSelector(hello, choices)
		if err != nil {
			continue
		}
		if !c.Expired() {
			return &c.Certificate, true
		}
		if cert == nil {
			cert = &c.Certificate
		}
	}
	return cert, false
}

// await waits for the certificate of a host that is on the way; false if none
// is.
func (cs *certStore) await(ctx context.Context, host string) bool {
	var flight *certFlight
	for _, name := range []string{host, wildcardOf(host)} {
		if n := cs.name(name); n != nil {
			if flight = cs.demand(n); flight != nil {
				break
			}
		}
	}
	if flight == nil {
		return false
	}
	tuning := cs.tuning()
	defer cs.waits.Add(-1)
	if cs.waits.Add(1) > tuning.Waiters {
		return false
	}
	late := time.NewTimer(tuning.Wait)
	defer late.Stop()
	select {
	case <-flight.done:
	case <-late.C:
	case <-ctx.Done():
	}
	return true
}

// Interface guards
var (
	_ caddy.Provisioner     = (*CertManager)(nil)
	_ caddy.CleanerUpper    = (*CertManager)(nil)
	_ certmagic.Manager     = (*CertManager)(nil)
	_ caddyfile.Unmarshaler = (*CertManager)(nil)
)
