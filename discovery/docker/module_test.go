package docker_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/google/go-cmp/cmp"

	"github.com/dentropy/dentropycloud/discovery"
	"github.com/dentropy/dentropycloud/discovery/docker"
)

func TestUnmarshalCaddyfile(t *testing.T) {
	for _, tt := range []struct{ name, text, json, err string }{
		{name: "bare", text: "docker", json: `{}`},
		{name: "endpoint", text: "docker ssh://me@nas", json: `{"endpoint":"ssh://me@nas"}`},
		{
			name: "all",
			text: "docker tcp://nas:2376 {\n name nas\n tls_ca ca.pem\n tls_cert cert.pem\n tls_key key.pem\n network web\n expose all\n label_prefix acme\n}",
			json: `{"endpoint":"tcp://nas:2376","name":"nas","tls":{"ca":"ca.pem","cert":"cert.pem","key":"key.pem"},"network":"web","expose":"all","label_prefix":"acme"}`,
		},
		{name: "two endpoints", text: "docker a b", err: "wrong argument count"},
		{name: "no value", text: "docker {\n network\n}", err: "wrong argument count"},
		{name: "two values", text: "docker {\n network a b\n}", err: "wrong argument count"},
		{name: "twice", text: "docker {\n network a\n network b\n}", err: `duplicate option "network"`},
		{name: "unknown", text: "docker {\n netwrk a\n}", err: `unrecognized option "netwrk"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m docker.Module
			err := m.UnmarshalCaddyfile(caddyfile.NewTestDispenser(tt.text))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error = %v, want it to contain %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.json, string(got)); diff != "" {
				t.Errorf("JSON (-want +got):\n%s", diff)
			}
		})
	}
}

func TestModule(t *testing.T) {
	t.Setenv("DOCKER_HOST", "")
	for _, tt := range []struct{ name, config, source, err string }{
		{name: "empty", config: `{}`, source: "docker"},
		{name: "named, absent, and with files that do not exist", config: `{"name":"nas","endpoint":"tcp://nas.invalid:2376","tls":{"ca":"/nonexistent"}}`, source: "docker:nas"},
		{name: "bad endpoint", config: `{"endpoint":"nas"}`, err: "want unix:///path"},
		{name: "bad expose", config: `{"expose":"some"}`, err: `expose "some"`},
		{name: "bad prefix", config: `{"label_prefix":"a b"}`, err: "label_prefix"},
		{name: "unknown field", config: `{"endpont":"x"}`, err: "endpont"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
			defer cancel()
			got, err := ctx.LoadModuleByID("dentropy.sources.docker", []byte(tt.config))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error = %v, want it to contain %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			m := got.(*docker.Module)
			if m.SourceName() != tt.source {
				t.Errorf("SourceName() = %q, want %q", m.SourceName(), tt.source)
			}
			if src, err := m.NewSource(discovery.SourceOptions{Name: m.SourceName()}); err != nil || src == nil {
				t.Errorf("NewSource = %v, %v", src, err)
			}
		})
	}
}
