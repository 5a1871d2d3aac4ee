package native_test

import (
	"context"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/dentropy/dentropycloud/discovery"
	"github.com/dentropy/dentropycloud/discovery/dialect/native"
)

func TestModule(t *testing.T) {
	for _, tt := range []struct {
		name, config, label string
		bad                 bool
	}{
		{name: "default", config: `{}`, label: "dentropy.host"},
		{name: "prefix", config: `{"prefix": "web"}`, label: "web.host"},
		{name: "bad prefix", config: `{"prefix": "my web"}`, bad: true},
		{name: "unknown field", config: `{"prefx": "web"}`, bad: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
			defer cancel()
			m, err := ctx.LoadModuleByID("dentropy.dialects.native", []byte(tt.config))
			if (err != nil) != tt.bad {
				t.Fatalf("LoadModuleByID gives error %v, want one: %t", err, tt.bad)
			}
			if tt.bad {
				return
			}
			d := m.(discovery.Dialect)
			if got := d.Name(); got != "native" {
				t.Errorf("Name() = %q, want %q", got, "native")
			}
			if labels := map[string]string{tt.label: "a.example.com"}; !d.Claims(labels) {
				t.Errorf("Claims(%v) = false, want true", labels)
			}
		})
	}
}

func TestUnmarshalCaddyfile(t *testing.T) {
	for _, tt := range []struct {
		name, text, prefix, err string
	}{
		{name: "bare", text: "native"},
		{name: "prefix", text: "native {\n prefix web\n}", prefix: "web"},
		{name: "argument", text: "native web", err: "wrong argument count or unexpected line ending after 'web', at Testfile:1"},
		{name: "no prefix", text: "native {\n prefix\n}", err: "wrong argument count or unexpected line ending after 'prefix', at Testfile:2"},
		{name: "two prefixes", text: "native {\n prefix a b\n}", err: "wrong argument count or unexpected line ending after 'b', at Testfile:2"},
		{name: "twice", text: "native {\n prefix a\n prefix b\n}", err: `duplicate option "prefix", at Testfile:3`},
		{name: "unknown", text: "native {\n prefx a\n}", err: `unrecognized option "prefx", at Testfile:2`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m native.Module
			err := m.UnmarshalCaddyfile(caddyfile.NewTestDispenser(tt.text))
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != tt.err || m.Prefix != tt.prefix && tt.err == "" {
				t.Errorf("UnmarshalCaddyfile gives prefix %q, error %q, want %q, %q", m.Prefix, got, tt.prefix, tt.err)
			}
		})
	}
}
