package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/rogpeppe/go-internal/txtar"
)

// snippetCanary counts how often a directive that is not on the list was run.
var snippetCanary atomic.Int64

func init() {
	httpcaddyfile.RegisterHandlerDirective("snippetcanary", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		snippetCanary.Add(1)
		return &caddyhttp.StaticResponse{Body: "canary"}, nil
	})
	httpcaddyfile.RegisterDirectiveOrder("snippetcanary", httpcaddyfile.Before, "respond")
}

// snippetForbidden is what no adapted snippet may hold, as a blind search in its
// JSON: it shares nothing with the rules that it controls.
var snippetForbidden = regexp.MustCompile(strings.Join([]string{
	`(?i:\{\s*(env|file|system)\.)`, `\{http\.request\.body`, `"dial":"[^"]*(unix|/|docker\.sock|169\.254\.|\{)`,
	`"handler":"(file_server|templates|invoke|acme_server|metrics|push|tracing|log_append|intercept|dentropy|snippetcanary)"`,
	`"(pem_files|root_ca_pem_files|client_certificate_file|client_certificate_key_file|client_certificate_automate|forward_proxy_url|network_proxy|local_address|resolve_root_symlink|verbose_logs|follow_redirects)":`,
	`"source":"(srv|multi)"`, `"file":\{`, `"(log_skip|access_logger_names|client_ip|trusted_proxy)":"`,
}, "|"))

// snippetKnownIDs is a second list of handlers, written by hand.
var snippetKnownIDs = regexp.MustCompile(`^(authentication|copy_response|copy_response_headers|encode|error|headers|map|request_body|reverse_proxy|rewrite|static_response|subroute|timeouts|vars)$`)

// noForbiddenWords fails the test if an adapted snippet holds what it must not.
func noForbiddenWords(t *testing.T, res *snippetResult) {
	t.Helper()
	b, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	var buf strings.Builder
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	if bad := snippetForbidden.FindString(buf.String()); bad != "" {
		t.Fatalf("an adapted snippet holds %s: %s", bad, buf.String())
	}
	checkHandlerIDs(t, v)
}

// checkHandlerIDs looks at every list that Caddy takes as handlers.
func checkHandlerIDs(t *testing.T, v any) {
	t.Helper()
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			checkHandlerIDs(t, e)
		}
	case map[string]any:
		if list, ok := v["handle"].([]any); ok {
			for _, h := range list {
				m, _ := h.(map[string]any)
				if id := fmt.Sprint(m["handler"]); !snippetKnownIDs.MatchString(id) {
					t.Fatalf("an adapted snippet holds the handler %q", id)
				}
			}
		}
		for _, e := range v {
			checkHandlerIDs(t, e)
		}
	}
}

// FuzzSnippet adapts anything: it must neither panic, nor run a directive that is
// not on the list, nor give anything that is not on the list, nor take long.
func FuzzSnippet(f *testing.F) {
	err := filepath.WalkDir(filepath.Join("testdata", "snippet"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".txtar" {
			return err
		}
		ar, err := txtar.ParseFile(path)
		if err != nil {
			return err
		}
		for _, file := range ar.Files {
			if file.Name != "golden.json" && file.Name != "answers" && file.Name != "error" {
				f.Add(string(file.Data))
			}
		}
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"snippetcanary", "handle {\nsnippetcanary\n}", "\"snippetcanary\"", "handle\\\n{\nsnippetcanary\n}", "respond <<A\nsnippetcanary\nA", "route {\n\n}\n{\n}", "\ufeffrespond"} {
		f.Add(s)
	}
	opts := snippetOptions{KeepUpstreamModule: "snippettest", AllowUpstream: func(addr string) error {
		if strings.HasSuffix(addr, ":9000") {
			return nil
		}
		return errors.New("no")
	}}
	if err := os.Setenv("SNIPPET_SECRET", "s3cr3t-of-the-proxy"); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body string) {
		ran := snippetCanary.Load()
		start := time.Now()
		res, err := adaptSnippet(body, opts)
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("adapting took %v", d)
		}
		if n := snippetCanary.Load() - ran; n > 0 {
			t.Fatalf("a directive that is not allowed ran")
		}
		if err != nil {
			if strings.Contains(err.Error(), "panicked") || strings.Contains(err.Error(), "s3cr3t") {
				t.Fatalf("adaptSnippet: %v", err)
			}
			return
		}
		noForbiddenWords(t, res)
		if b, _ := json.Marshal(res); strings.Contains(string(b), "s3cr3t") {
			t.Fatalf("the environment shows: %s", b)
		}
	})
}

// TestSnippetConcurrent adapts many snippets at once, for the race detector.
func TestSnippetConcurrent(t *testing.T) {
	cases := snippetCases(t, "ok")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, c := range cases {
				if _, err := adaptSnippet(c.snippet, c.opts()); err != nil {
					t.Errorf("%s: %v", c.name, err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkAdaptSnippet(b *testing.B) {
	for _, c := range snippetCases(b, "ok") {
		opts := c.opts()
		b.Run(strings.TrimSuffix(filepath.Base(c.name), ".txtar"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := adaptSnippet(c.snippet, opts); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestSnippetWorst adapts the largest snippets that are let through, or nearly,
// and holds what comes of them to the limits.
func TestSnippetWorst(t *testing.T) {
	for name, body := range map[string]string{
		"matcher copied":  "@a path " + strings.Repeat("/abcdefg* ", 200) + "\n" + strings.Repeat("respond @a x\n", 300),
		"many handles":    strings.Repeat("handle /a* {\nrespond x\n}\n", 220),
		"long text":       "respond `" + strings.Repeat("x", snippetMaxBytes-20) + "`",
		"long heredoc":    "respond <<X\n" + strings.Repeat("a\n", snippetMaxBytes/2-20) + "X\n",
		"many nots":       "@a " + strings.Repeat("not ", 1500) + "path /x\nrespond @a x",
		"deep":            strings.Repeat("route {\n", snippetMaxDepth) + "respond x\n" + strings.Repeat("}\n", snippetMaxDepth),
		"too deep":        strings.Repeat("route {\n", 500) + strings.Repeat("}\n", 500),
		"open braces":     "respond `" + strings.Repeat("{", snippetMaxBytes-20) + "`",
		"port ranges":     "reverse_proxy " + strings.Repeat("a:1-65535 ", 500),
		"headers":         "header {\n" + strings.Repeat("X-A b\n", 900) + "}",
		"same directives": strings.Repeat("header X-A b\n", 600),
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			res, err := adaptSnippet(body, snippetOptions{})
			b, _ := json.Marshal(res)
			t.Logf("%d bytes became %d in %v, %v", len(body), len(b), time.Since(start), err)
			if len(b) > 2*snippetMaxJSON {
				t.Errorf("became %d bytes", len(b))
			}
		})
	}
}
