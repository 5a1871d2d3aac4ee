package caddymodule

import (
	"net/netip"
	"testing"
)

func TestAddressesThatNoRouteMayLeadTo(t *testing.T) {
	s := newState()
	defer func() { _ = s.Destruct() }()
	own := newOwnAddresses([]string{":443", "127.0.0.1:8080", "unix//run/x.sock", "fd/3", "udp/:443"})
	s.own.Store(own)
	rules, err := parseUpstreamRules([]string{"10.0.0.0/8", "nas.lan", "db.lan:5432", "192.0.2.7", "169.254.0.0/16", "127.0.0.0/8"})
	if err != nil {
		t.Fatal(err)
	}
	app := &App{state: s, upstreams: rules}
	tests := []struct {
		address string
		ok      bool
	}{
		{"10.1.2.3:80", true},
		{"11.1.2.3:80", false},
		{"nas.lan:1", true},
		{"NAS.lan:1", true},
		{"db.lan:5432", true},
		{"db.lan:22", false},
		{"192.0.2.7:80", true},
		{"169.254.169.254:80", false},          // whatever the operator writes
		{"[fe80::1]:80", false},                // link-local
		{"[fd00:ec2::254]:80", false},          // metadata
		{"[::ffff:169.254.169.254]:80", false}, // the same in disguise
		{"127.0.0.1:8080", false},              // our own listener
		{"127.0.0.1:443", false},               // listens on all addresses
		{"127.0.0.1:2019", false},              // Caddy's admin API
		{"127.0.0.1:9000", true},
		{"localhost:2019", false},
		{"0.0.0.0:80", false},
		{"nas.lan", false},
		{"nas.lan:0", false},
		{"nas.lan:http", false},
	}
	for _, tt := range tests {
		t.Run(tt.address, func(t *testing.T) {
			if err := app.allowUpstream(tt.address); (err == nil) != tt.ok {
				t.Errorf("allowUpstream(%q) = %v, want allowed = %v", tt.address, err, tt.ok)
			}
		})
	}
	if err := s.dial(t.Context(), "127.0.0.1:8080"); err == nil {
		t.Error("an endpoint that is our own listener was verified")
	}
	if !own.has(netip.MustParseAddrPort("[::ffff:127.0.0.1]:8080")) {
		t.Error("an IPv4 address in IPv6 form is not recognised")
	}
	if _, err := parseUpstreamRules([]string{"http://x/"}); err == nil {
		t.Error("a URL was taken as an upstream rule")
	}
}
