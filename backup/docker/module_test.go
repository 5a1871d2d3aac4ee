package docker_test

import (
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/docker"
)

func TestModule(t *testing.T) {
	tests := []struct {
		name, text, want string // want: name and endpoint of the platform
		fails            bool
	}{
		{name: "all", text: "docker tcp://nas:2376 {\n name nas\n tls_ca /ca.pem\n tls_cert /c.pem\n tls_key /k.pem\n guard_socket /run/docker.sock\n}", want: "docker:nas tcp://nas:2376"},
		{name: "socket", text: "docker unix:///run/x.sock", want: "docker unix:///run/x.sock"},
		{name: "unknown option", text: "docker {\n nam nas\n}", fails: true},
		{name: "twice", text: "docker {\n name a\n name b\n}", fails: true},
		{name: "empty", text: "docker {\n name\n}", fails: true},
		{name: "two endpoints", text: "docker unix:///a unix:///b", fails: true},
		{name: "no endpoint", text: "docker http://x", fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var m docker.Module
			var p backup.Platform
			err := m.UnmarshalCaddyfile(caddyfile.NewTestDispenser(tt.text))
			if err == nil {
				p, err = m.NewPlatform(backup.PlatformOptions{Name: m.PlatformName()})
			}
			if (err != nil) != tt.fails {
				t.Fatalf("%q: %v, want an error: %v", tt.text, err, tt.fails)
			}
			if tt.fails {
				return
			}
			if got := p.Name() + " " + p.(*docker.Platform).Endpoint(); got != tt.want {
				t.Errorf("platform = %q, want %q", got, tt.want)
			}
		})
	}
}
