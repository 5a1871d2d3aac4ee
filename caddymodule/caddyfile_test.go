package caddymodule

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/google/go-cmp/cmp"
)

func adapt(t *testing.T, text string) (map[string]any, error) {
	t.Helper()
	b, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return nil, err
	}
	var v map[string]any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v, nil
}

func TestGlobalOption(t *testing.T) {
	v, err := adapt(t, `{
	dentropy {
		memory
		dialects none
		claims {
			*.Shop.test shop.test by project:shop
			nas.test by engine:docker:nas
		}
		tls {
			email me@example.com
			ca https://acme.test/dir
			issuer mine internal {
				lifetime 24h
			}
			local_names *.home
			linger 5m
			budget 10
		}
		hold 3s {
			queue 50
		}
		drain 1m
		owner_grace 2m
		allow_upstreams 10.0.0.0/8 nas.lan:8080
		allow_handlers http.handlers.rate_limit
		backup {
			dir /state
			store local /srv/backups
			store mem memory
			platform memory
			recipient age1one age1two
			recipient age1three
			transit_volume transit
			helper /usr/lib/helper
			health_timeout 3m
		}
	}
}`)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"sources":  []any{map[string]any{"source": "memory", "name": ""}},
		"dialects": []any{map[string]any{"dialect": "none"}},
		"claims": []any{
			map[string]any{"domains": []any{"*.shop.test", "shop.test"}, "project": "shop"},
			map[string]any{"domains": []any{"nas.test"}, "engine": "docker:nas"},
		},
		"tls": map[string]any{
			"email": "me@example.com", "ca": "https://acme.test/dir", "local_names": []any{"*.home"}, "linger": 3e11, "budget": 10.0,
			"issuers": map[string]any{"mine": map[string]any{"module": "internal", "lifetime": 8.64e13}},
		},
		"hold": 3e9, "hold_queue": 50.0, "drain": 6e10, "owner_grace": 1.2e11,
		"allow_upstreams": []any{"10.0.0.0/8", "nas.lan:8080"},
		"allow_handlers":  []any{"http.handlers.rate_limit"},
		"backup": map[string]any{
			"dir": "/state", "recipients": []any{"age1one", "age1two", "age1three"}, "transit_volume": "transit", "helper": "/usr/lib/helper", "health_timeout": 1.8e11,
			"stores": map[string]any{
				"local": map[string]any{"store": "local", "dir": "/srv/backups"},
				"mem":   map[string]any{"store": "memory", "name": ""},
			},
			"platforms": []any{map[string]any{"platform": "memory", "name": ""}},
		},
	}
	if diff := cmp.Diff(want, v["apps"].(map[string]any)["dentropy"]); diff != "" {
		t.Errorf("adapted config (-want +got):\n%s", diff)
	}
}

func TestGlobalOptionErrors(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"unknown", "dentropy {\n dokcer\n}", `unrecognized option "dokcer"`},
		{"twice", "dentropy {\n}\ndentropy {\n}", "stands twice"},
		{"dialect", "dentropy {\n dialects klingon\n}", `dialect "klingon" is not known`},
		{"claim without by", "dentropy {\n claims {\n a.test\n }\n}", "a claim is written"},
		{"claim by nobody", "dentropy {\n claims {\n a.test by chance:x\n }\n}", "unrecognized kind of claim"},
		{"bad hold", "dentropy {\n hold soon\n}", `bad duration "soon"`},
		{"bad queue", "dentropy {\n hold 1s {\n queue 0\n }\n}", "not a number above 0"},
		{"reserved issuer", "dentropy {\n tls {\n issuer auto internal\n }\n}", "cannot be called"},
		{"backup twice", "dentropy {\n backup off\n backup {\n }\n}", "backup stands twice"},
		{"backup on", "dentropy {\n backup on\n}", `unrecognized argument "on"`},
		{"backup option", "dentropy {\n backup {\n storre x /y\n }\n}", `unrecognized option "storre"`},
		{"store name", "dentropy {\n backup {\n store ../x /y\n }\n}", "cannot be called"},
		{"store twice", "dentropy {\n backup {\n store a /y\n store a /z\n }\n}", "stands twice"},
		{"store without a place", "dentropy {\n backup {\n store a\n }\n}", "wrong argument count"},
		{"platform", "dentropy {\n backup {\n platform moon\n }\n}", `platform "moon" is not known`},
		{"issuer twice", "dentropy {\n tls {\n issuer a internal\n issuer a internal\n }\n}", "stands twice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := adapt(t, "{\n"+tt.text+"\n}")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Adapt = %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// TestExample makes sure that the example can be adapted, and shows every option.
func TestExample(t *testing.T) {
	b, err := os.ReadFile("../Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := adapt(t, string(b)); err != nil {
		t.Errorf("as it is shipped: %v", err)
	}
	for _, option := range []string{"docker", "dialects", "claims", "email", "ca ", "ca_root", "issuer", "local_names", "linger", "budget", "hold", "queue", "drain", "owner_grace", "allow_upstreams", "allow_handlers",
		"backup", "dir ", "store", "recipient", "transit_volume", "health_timeout", "helper", "platform"} {
		if !strings.Contains(string(b), option) {
			t.Errorf("the option %s is not shown", option)
		}
	}
}
