package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// ownAddresses are the ports that this program listens on.
type ownAddresses struct {
	any     map[int]bool // on every address
	special map[netip.AddrPort]bool
}

func newOwnAddresses(listeners []string) *ownAddresses {
	o := &ownAddresses{any: map[int]bool{}, special: map[netip.AddrPort]bool{}}
	o.add(listeners...)
	return o
}

// add takes listener addresses in Caddy's form; those without a TCP or UDP port
// are of no concern.
func (o *ownAddresses) add(listeners ...string) {
	for _, l := range listeners {
		na, err := caddy.ParseNetworkAddress(l)
		if err != nil || na.IsUnixNetwork() || na.StartPort == 0 {
			continue
		}
		addr, err := netip.ParseAddr(na.Host)
		for p := na.StartPort; p <= na.EndPort; p++ {
			if err != nil || addr.IsUnspecified() {
				o.any[int(p)] = true
			} else {
				o.special[netip.AddrPortFrom(addr.Unmap(), uint16(p))] = true
			}
		}
	}
}

// has reports whether addr is one of this program's own listeners.
func (o *ownAddresses) has(addr netip.AddrPort) bool {
	if o == nil {
		return false
	}
	ip := addr.Addr().Unmap().WithZone("")
	if o.special[netip.AddrPortFrom(ip, addr.Port())] {
		return true
	}
	return o.any[int(addr.Port())] && isLocal(ip)
}

// isLocal reports whether ip is an address of this machine.
func isLocal(ip netip.Addr) bool {
	if ip.IsLoopback() || ip.IsUnspecified() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return true // better to refuse one port too many than to serve our admin API
	}
	return slices.ContainsFunc(addrs, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr().Unmap() == ip
	})
}

// refuseAddress says why no route may lead to addr, whatever the operator allows.
func (s *State) refuseAddress(addr netip.AddrPort) error {
	ip := addr.Addr()
	switch {
	case ip.IsLinkLocalUnicast(), ip == awsMetadata6:
		return fmt.Errorf("%s is a link-local or metadata address, which no route may lead to", addr)
	case ip.IsMulticast(), ip.IsUnspecified():
		return fmt.Errorf("%s is not the address of one machine", addr)
	case s.own.Load().has(addr), adminAddresses().has(addr), caddyListensOn(addr):
		return fmt.Errorf("%s is a listener of this program itself", addr)
	}
	return nil
}

// awsMetadata6 is the IPv6 address of the AWS instance metadata service, the one
// metadata service that is not link-local.
var awsMetadata6 = netip.MustParseAddr("fd00:ec2::254")

// caddyListensOn reports whether Caddy itself has a listener at addr: above all the
// admin API, whose address no module is told.
func caddyListensOn(addr netip.AddrPort) bool {
	ip, port := addr.Addr().Unmap().WithZone(""), strconv.Itoa(int(addr.Port()))
	used := func(hosts ...string) bool {
		return slices.ContainsFunc(hosts, func(host string) bool {
			return slices.ContainsFunc([]string{"tcp", "tcp4", "tcp6"}, func(network string) bool {
				return caddy.ListenerUsage(network, net.JoinHostPort(host, port)) > 0
			})
		})
	}
	return used(ip.String()) || ip.IsLoopback() && used("localhost", "127.0.0.1", "::1") ||
		used("", "0.0.0.0", "::") && isLocal(ip)
}

// adminAddresses is where the admin API listens by default, whether it does so
// already or not.
func adminAddresses() *ownAddresses { return newOwnAddresses([]string{caddy.DefaultAdminListen}) }

// dial verifies an endpoint for the registry.
func (s *State) dial(ctx context.Context, address string) error {
	if ap, err := netip.ParseAddrPort(address); err == nil {
		if err := s.refuseAddress(ap); err != nil {
			return err
		}
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// upstreamRules are the operator's allow_upstreams.
type upstreamRules struct {
	prefixes []netip.Prefix
	hosts    []string // "host" or "host:port", lower case
}

func parseUpstreamRules(list []string) (upstreamRules, error) {
	var r upstreamRules
	for _, text := range list {
		if p, err := netip.ParsePrefix(text); err == nil {
			r.prefixes = append(r.prefixes, p.Masked())
		} else if a, err := netip.ParseAddr(text); err == nil {
			r.prefixes = append(r.prefixes, netip.PrefixFrom(a, a.BitLen()))
		} else if text == "" || strings.ContainsAny(text, "/ {}") {
			return r, fmt.Errorf("allow_upstreams: %q is neither a host, host:port nor a prefix", text)
		} else {
			r.hosts = append(r.hosts, strings.ToLower(text))
		}
	}
	return r, nil
}

// allowUpstream says why a snippet may not proxy to address (host:port).
func (a *App) allowUpstream(address string) error {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not host:port", address)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return fmt.Errorf("%q has no usable port", address)
	}
	host = strings.ToLower(host)
	ip, ipErr := netip.ParseAddr(host)
	if ipErr == nil {
		if err := a.state.refuseAddress(netip.AddrPortFrom(ip.WithZone(""), uint16(port))); err != nil {
			return err
		}
		if slices.ContainsFunc(a.upstreams.prefixes, func(p netip.Prefix) bool { return p.Contains(ip.Unmap()) }) {
			return nil
		}
	} else if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		if err := a.state.refuseAddress(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))); err != nil {
			return err
		}
	}
	if slices.Contains(a.upstreams.hosts, host) || slices.Contains(a.upstreams.hosts, net.JoinHostPort(host, portText)) {
		return nil
	}
	return errors.New(address + " is not the container's own address; the operator can allow it with allow_upstreams")
}
