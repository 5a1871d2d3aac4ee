package local_test

import (
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/dentropy/dentropycloud/backup/local"
)

func TestModule(t *testing.T) {
	tests := []struct {
		name, text, want string
		fails            bool
	}{
		{name: "folder", text: "local /srv/backups", want: "/srv/backups"},
		{name: "no folder", text: "local", fails: true},
		{name: "two folders", text: "local /a /b", fails: true},
		{name: "an option", text: "local /a {\n x\n}", fails: true},
		{name: "relative", text: "local backups", fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var m local.Module
			err := m.UnmarshalCaddyfile(caddyfile.NewTestDispenser(tt.text))
			if err == nil {
				err = m.Validate()
			}
			if (err != nil) != tt.fails {
				t.Fatalf("%q: %v, want an error: %v", tt.text, err, tt.fails)
			}
			if tt.fails {
				return
			}
			s, err := m.NewStore()
			if err != nil || s.String() != tt.want {
				t.Errorf("NewStore = %v, %v, want %s", s, err, tt.want)
			}
		})
	}
}
