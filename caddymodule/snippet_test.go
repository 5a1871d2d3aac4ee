package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var updateSnippets = flag.Bool("update-snippets", false, "rewrite the golden parts of testdata/snippet and docs/snippets.md")

// snippetContainer is where the upstream source of the tests leads to.
var snippetContainer struct {
	mu   sync.Mutex
	addr string
}

// snippetTestUpstreams stands in for the source that gives a route's endpoints.
type snippetTestUpstreams struct{}

func init() { caddy.RegisterModule(snippetTestUpstreams{}) }

func (snippetTestUpstreams) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.reverse_proxy.upstreams.snippettest", New: func() caddy.Module { return new(snippetTestUpstreams) }}
}

func (snippetTestUpstreams) GetUpstreams(*http.Request) ([]*reverseproxy.Upstream, error) {
	snippetContainer.mu.Lock()
	defer snippetContainer.mu.Unlock()
	return []*reverseproxy.Upstream{{Dial: snippetContainer.addr}}, nil
}

// startSnippetContainer runs a container that tells what it was asked.
func startSnippetContainer(t testing.TB, useTLS bool) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-From", "container")
		switch r.URL.Path {
		case "/deny":
			w.WriteHeader(http.StatusForbidden)
		case "/html":
			w.Header().Set("Content-Type", "text/html")
		}
		fmt.Fprintf(w, "container: %s %s", r.Method, r.URL.RequestURI())
		for _, key := range []string{"X-Test", "X-User", "X-Forwarded-Uri"} {
			if v := r.Header.Get(key); v != "" {
				fmt.Fprintf(w, " %s=%s", key, v)
			}
		}
		if len(body) > 0 {
			fmt.Fprintf(w, " body=%s", body)
		}
	})
	srv := httptest.NewUnstartedServer(h)
	if useTLS {
		srv.StartTLS()
	} else {
		srv.Config.Protocols = new(http.Protocols)
		srv.Config.Protocols.SetHTTP1(true)
		srv.Config.Protocols.SetUnencryptedHTTP2(true)
		srv.Start()
	}
	t.Cleanup(srv.Close)
	snippetContainer.mu.Lock()
	defer snippetContainer.mu.Unlock()
	snippetContainer.addr = srv.Listener.Addr().String()
}

// snippetCase is one case of testdata/snippet.
type snippetCase struct {
	name    string
	snippet string
	options struct {
		Scheme        string   `json:"scheme"`
		Upstreams     []string `json:"upstreams"`
		AllowHandlers []string `json:"allow_handlers"`
	}
	ar *txtar.Archive
}

func (c *snippetCase) opts() snippetOptions {
	return snippetOptions{
		Host: "a.example.com", Scheme: c.options.Scheme, KeepUpstreamModule: "snippettest", AllowHandlers: c.options.AllowHandlers,
		AllowUpstream: func(addr string) error {
			if slices.Contains(c.options.Upstreams, addr) {
				return nil
			}
			return errors.New("is not among the operator's allow_upstreams")
		},
	}
}

func (c *snippetCase) part(name string) string {
	for _, f := range c.ar.Files {
		if f.Name == name {
			return string(f.Data)
		}
	}
	return ""
}

func (c *snippetCase) setPart(name, data string) {
	for i := range c.ar.Files {
		if c.ar.Files[i].Name == name {
			c.ar.Files[i].Data = []byte(data)
			return
		}
	}
	c.ar.Files = append(c.ar.Files, txtar.File{Name: name, Data: []byte(data)})
}

// snippetCases reads the cases of a folder of testdata/snippet.
func snippetCases(t testing.TB, folder string) []*snippetCase {
	files, err := filepath.Glob(filepath.Join("testdata", "snippet", folder, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases in %s: %v", folder, err)
	}
	var cases []*snippetCase
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c := &snippetCase{name: file, ar: ar}
		c.snippet = c.part("snippet")
		if o := c.part("options"); o != "" {
			if err := json.Unmarshal([]byte(o), &c.options); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
		}
		cases = append(cases, c)
	}
	return cases
}

// compare holds got against a part of the case, or writes it there.
func (c *snippetCase) compare(t *testing.T, part, got string) {
	t.Helper()
	if *updateSnippets {
		c.setPart(part, got)
		if err := os.WriteFile(c.name, txtar.Format(c.ar), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(c.part(part), got); diff != "" {
		t.Errorf("%s of %s (-want +got):\n%s", part, c.name, diff)
	}
}

// TestSnippetAccepted adapts each accepted snippet, compares the JSON, provisions
// it for real and serves requests with it.
func TestSnippetAccepted(t *testing.T) {
	parent := snippetParent(t)
	for _, c := range snippetCases(t, "ok") {
		t.Run(filepath.Base(c.name), func(t *testing.T) {
			res, err := adaptSnippet(c.snippet, c.opts())
			if err != nil {
				t.Fatalf("adaptSnippet: %v", err)
			}
			noForbiddenWords(t, res)
			got, err := json.MarshalIndent(res, "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			c.compare(t, "golden.json", string(got)+"\n")
			startSnippetContainer(t, c.options.Scheme == "https")
			serve := provisionSnippet(t, parent, res)
			var answers strings.Builder
			for line := range strings.Lines(c.part("requests")) {
				answers.WriteString(askSnippet(t, serve, strings.TrimSpace(line)))
			}
			c.compare(t, "answers", answers.String())
			sameAsParse(t, c.snippet)
		})
	}
}

// sameAsParse checks that our lines are the segments that Caddy's parser makes.
func sameAsParse(t *testing.T, snippet string) {
	t.Helper()
	blocks, err := caddyfile.Parse(snippetFile, []byte(snippetSite+" {\n"+snippet+"\n}\n"))
	if err != nil || len(blocks) != 1 {
		t.Fatalf("Parse gives %d blocks, %v", len(blocks), err)
	}
	src, err := readSnippet(snippet, snippetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	texts := func(segs []caddyfile.Segment) (all [][]string) {
		for _, seg := range segs {
			var words []string
			for _, t := range seg {
				words = append(words, t.Text)
			}
			all = append(all, words)
		}
		return all
	}
	if diff := cmp.Diff(texts(blocks[0].Segments), texts(src.segments())); diff != "" {
		t.Errorf("segments differ from Caddy's (-caddy +ours):\n%s", diff)
	}
}

func snippetParent(t testing.TB) caddy.Context {
	ctx, err := caddy.ProvisionContext(&caddy.Config{
		Logging: &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: caddy.BaseLog{Level: "PANIC"}}}},
		AppsRaw: caddy.ModuleMap{"events": json.RawMessage(`{}`), "tls": json.RawMessage(`{"disable_storage_clean":true}`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return ctx
}

// provisionSnippet provisions a copy of the routes, as the program does.
func provisionSnippet(t testing.TB, parent caddy.Context, res *snippetResult) http.HandlerFunc {
	ctx, cancel := caddy.NewContext(parent)
	t.Cleanup(cancel)
	clone := func(routes caddyhttp.RouteList) (out caddyhttp.RouteList) {
		b, err := json.Marshal(routes)
		if err == nil {
			err = json.Unmarshal(b, &out)
		}
		if err == nil {
			err = out.Provision(ctx)
		}
		if err != nil {
			t.Fatalf("provision: %v", err)
		}
		return out
	}
	end := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("X-From", "nobody")
		return nil
	})
	chain := clone(res.Routes).Compile(end)
	var errChain caddyhttp.Handler
	if res.Errors != nil {
		errChain = clone(res.Errors.Routes).Compile(end)
	}
	server := &caddyhttp.Server{}
	return func(w http.ResponseWriter, r *http.Request) {
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, server)
		err := chain.ServeHTTP(w, r)
		if err != nil && errChain != nil {
			r = (*caddyhttp.HTTPErrorConfig)(nil).WithError(r, err)
			err = errChain.ServeHTTP(w, r)
		}
		if he, ok := errors.AsType[caddyhttp.HandlerError](err); ok {
			w.WriteHeader(he.StatusCode)
		}
	}
}

// askSnippet sends a request given as "METHOD URI [Header=value]... [body=text]"
// and writes the answer down.
func askSnippet(t *testing.T, serve http.HandlerFunc, line string) string {
	if line == "" {
		return ""
	}
	words := strings.Fields(line)
	req := httptest.NewRequest(words[0], words[1], nil)
	req.Host = "a.example.com"
	req.RemoteAddr = "192.0.2.7:1234"
	for _, w := range words[2:] {
		key, value, _ := strings.Cut(w, "=")
		value, err := url.QueryUnescape(value)
		if err != nil {
			t.Fatal(err)
		}
		switch key {
		case "body":
			req.Body, req.ContentLength = io.NopCloser(strings.NewReader(value)), int64(len(value))
		case "user":
			name, password, _ := strings.Cut(value, ":")
			req.SetBasicAuth(name, password)
		default:
			req.Header.Set(key, value)
		}
	}
	rec := httptest.NewRecorder()
	aborted := func() (aborted bool) {
		defer func() {
			if r := recover(); r == http.ErrAbortHandler { //nolint:errorlint // compared as net/http does
				aborted = true
			} else if r != nil {
				panic(r)
			}
		}()
		serve(rec, req)
		return false
	}()
	if aborted {
		return line + "\n\taborted\n"
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s\n\t%d", line, rec.Code)
	for _, key := range slices.Sorted(mapKeys(rec.Header())) {
		if strings.HasPrefix(key, "X-") || slices.Contains([]string{"Location", "Content-Encoding", "Www-Authenticate", "Cache-Control"}, key) {
			fmt.Fprintf(&out, " %s=%s", key, strings.Join(rec.Header()[key], "|"))
		}
	}
	out.WriteString("\n")
	if rec.Header().Get("Content-Encoding") == "" {
		for l := range strings.Lines(rec.Body.String()) {
			out.WriteString("\t" + strings.TrimRight(l, "\n") + "\n")
		}
	}
	return out.String()
}

func mapKeys(h http.Header) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range h {
			if !yield(k) {
				return
			}
		}
	}
}

// TestSnippetRefused holds the exact error of each refused snippet.
func TestSnippetRefused(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "snippet", "refused", "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var out []txtar.File
		for i := 0; i+1 < len(ar.Files); i += 2 {
			snippet, want := ar.Files[i], &ar.Files[i+1]
			if want.Name != "error" {
				t.Fatalf("%s: %s has no error after it", file, snippet.Name)
			}
			t.Run(filepath.Base(file)+"/"+snippet.Name, func(t *testing.T) {
				c := &snippetCase{}
				c.options.Upstreams = []string{"auth.example.net:80", "10.0.0.9:9000"}
				res, err := adaptSnippet(string(snippet.Data), c.opts())
				if err == nil {
					b, _ := json.Marshal(res)
					t.Fatalf("was accepted: %s", b)
				}
				if *updateSnippets {
					want.Data = []byte(err.Error() + "\n")
				}
				if got := err.Error() + "\n"; got != string(want.Data) {
					t.Errorf("error\n got %s\nwant %s", got, want.Data)
				}
				if _, ok := errors.AsType[*snippetError](err); !ok {
					t.Errorf("error is a %T, want *snippetError", err)
				}
			})
			out = append(out, snippet, *want)
		}
		if *updateSnippets {
			ar.Files = out
			if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}
