package caddymodule

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// snippetTestPlugin is a plugin with whatever settings the Caddyfile gives, which
// may hold handlers of their own.
type snippetTestPlugin struct {
	Settings json.RawMessage `json:"settings,omitempty"`
}

func init() {
	caddy.RegisterModule(snippetTestPlugin{})
	parse := func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		h.Next()
		p := new(snippetTestPlugin)
		if h.NextArg() {
			if h.Val() == "panic" {
				panic("odd input")
			}
			p.Settings = json.RawMessage(h.Val())
		}
		return p, nil
	}
	for _, name := range []string{"snippetplugin", "snippet_other_word"} {
		httpcaddyfile.RegisterHandlerDirective(name, parse)
		httpcaddyfile.RegisterDirectiveOrder(name, httpcaddyfile.Before, "respond")
	}
}

func (snippetTestPlugin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.snippetplugin", New: func() caddy.Module { return new(snippetTestPlugin) }}
}

func (snippetTestPlugin) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return next.ServeHTTP(w, r)
}

func TestSnippetPlugin(t *testing.T) {
	for _, tc := range []struct {
		name, snippet string
		allow         []string
		want          string // part of the error; "" if accepted
	}{
		{"not allowed", "snippetplugin", nil, "the operator can allow it: allow_handlers http.handlers.snippetplugin"},
		{"allowed", "snippetplugin", []string{"http.handlers.snippetplugin"}, ""},
		{"other word, not allowed", "snippet_other_word", []string{"http.handlers.snippetplugin"}, "is not a directive that snippets may use"},
		{"other word", "snippet_other_word", []string{"http.handlers.snippetplugin", "snippet_other_word"}, ""},
		{"word without module", "snippet_other_word", []string{"snippet_other_word"}, `handler "snippetplugin": is not one`},
		{"placeholder", "snippetplugin `{\"a\":[{\"b\":\"{env.HOME}\"}]}`", []string{"http.handlers.snippetplugin"}, "would read the environment"},
		{"handler within", "snippetplugin `{\"x\":[{\"handler\":\"file_server\"}]}`", []string{"http.handlers.snippetplugin"}, `handler "file_server"`},
		{"socket within", "snippetplugin `{\"x\":{\"handler\":\"reverse_proxy\",\"upstreams\":[{\"dial\":\"unix//x\"}]}}`", []string{"http.handlers.snippetplugin"}, "not a plain host:port"},
		{"matcher within", "snippetplugin `{\"match\":[{\"file\":{}}]}`", []string{"http.handlers.snippetplugin"}, `matcher "file"`},
		{"settings", "snippetplugin `{\"rate\":5,\"match\":[\"x\"]}`", []string{"http.handlers.snippetplugin"}, ""},
		{"panic", "snippetplugin panic", []string{"http.handlers.snippetplugin"}, "a directive panicked: odd input"},
		{"own modules stay refused", "file_server", []string{"http.handlers.file_server", "file_server"}, "would serve files"},
		{"own matchers stay refused", "@a file x\nrespond @a y", []string{"http.matchers.file"}, "looks at the proxy's own disk"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := adaptSnippet(tc.snippet, snippetOptions{AllowHandlers: tc.allow})
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("adaptSnippet: %v", err)
			case tc.want != "" && err == nil:
				t.Errorf("was accepted, want an error with %q", tc.want)
			case tc.want != "" && !strings.Contains(err.Error(), tc.want):
				t.Errorf("error %q, want one with %q", err, tc.want)
			}
		})
	}
}

// TestSnippetSchemes checks what a container proxy looks like, and the defaults.
func TestSnippetSchemes(t *testing.T) {
	for scheme, want := range map[string]string{
		"":      `[{"handle":[{"dynamic_upstreams":{"source":"dentropy"},"handler":"reverse_proxy"}]}]`,
		"http":  `[{"handle":[{"dynamic_upstreams":{"source":"dentropy"},"handler":"reverse_proxy"}]}]`,
		"https": `[{"handle":[{"dynamic_upstreams":{"source":"dentropy"},"handler":"reverse_proxy","headers":{"request":{"set":{"Host":["{http.request.hostport}"]}}},"transport":{"protocol":"http","tls":{"insecure_skip_verify":true}}}]}]`,
		"h2c":   `[{"handle":[{"dynamic_upstreams":{"source":"dentropy"},"handler":"reverse_proxy","transport":{"protocol":"http","versions":["h2c","2"]}}]}]`,
	} {
		res, err := adaptSnippet("", snippetOptions{Scheme: scheme})
		if err != nil {
			t.Fatalf("adaptSnippet with scheme %q: %v", scheme, err)
		}
		if got, _ := json.Marshal(res.Routes); string(got) != want {
			t.Errorf("scheme %q gives %s, want %s", scheme, got, want)
		}
	}
	if _, err := adaptSnippet("", snippetOptions{Scheme: "ftp"}); err == nil {
		t.Error("scheme ftp was accepted")
	}
}

// TestSnippetEnds checks where a proxy to the container follows.
func TestSnippetEnds(t *testing.T) {
	for snippet, want := range map[string]bool{
		"respond x":                         true,
		"respond x 103":                     false,
		"respond x {header.X-Code}":         false,
		"respond /a x":                      false,
		"abort":                             true,
		"abort /a":                          false,
		"redir https://x.example.com":       true,
		"error 404":                         true,
		"header X-A b":                      false,
		"reverse_proxy":                     true,
		"reverse_proxy /api/*":              true, // written out, so nothing beyond it
		"forward_auth {\nuri /auth\n}":      false,
		"handle /a {\nrespond x\n}":         false,
		"handle {\nrespond x\n}":            true,
		"handle {\nheader X-A b\n}":         false,
		"route {\nrespond /a x\n}":          false,
		"route {\nrespond x\n}":             true,
		"handle_errors {\nrespond x\n}":     false,
		"handle_errors {\nreverse_proxy\n}": false,
		"handle /a {\nrespond x\n}\nhandle {\nrespond y\n}":                         true,
		"handle /a {\nheader X-A b\n}\nhandle {\nrespond y\n}":                      false,
		"handle_path /a/* {\nreverse_proxy\n}\nhandle {\nrespond 404\n}":            true,
		"@a not path /x\nrespond @a y":                                              false,
		"reverse_proxy {\nhandle_response {\nheader X-A b\n}\n}":                    false,
		"reverse_proxy {\nhandle_response {\nrespond x\n}\n}":                       true,
		"reverse_proxy {\n@e status 5xx\nreplace_status @e 200\n}":                  true,
		"reverse_proxy {\n@e status 5xx\nhandle_response @e {\ncopy_response\n}\n}": true,
	} {
		res, err := adaptSnippet(snippet, snippetOptions{})
		if err != nil {
			t.Errorf("adaptSnippet(%q): %v", snippet, err)
			continue
		}
		if res.EndsItself != want {
			t.Errorf("EndsItself of %q is %v, want %v", snippet, res.EndsItself, want)
		}
	}
}
