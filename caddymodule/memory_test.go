package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/dentropy/dentropycloud/discovery"
)

func init() {
	caddy.RegisterModule(memorySource{})
	caddy.RegisterModule(plainDialect{})
}

// memorySource is a source that a test feeds: it hands its updater to whoever
// asks for it.
type memorySource struct {
	Name string `json:"name"`
}

func (memorySource) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "dentropy.sources.memory", New: func() caddy.Module { return new(memorySource) }}
}
func (m *memorySource) UnmarshalCaddyfile(d *caddyfile.Dispenser) error { d.Next(); return nil }
func (m *memorySource) SourceName() string                              { return m.Name }
func (m *memorySource) NewSource(o discovery.SourceOptions) (discovery.Source, error) {
	return memoryWatch{o.Name}, nil
}

type memoryWatch struct{ name string }

var memoryUpdaters sync.Map // name -> discovery.Updater

func (m memoryWatch) Watch(ctx context.Context, up discovery.Updater) {
	memoryUpdaters.Store(m.name, up)
	<-ctx.Done()
}

// plainDialect claims nothing: objects of these tests bring their routes along.
type plainDialect struct{}

func (plainDialect) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "dentropy.dialects.none", New: func() caddy.Module { return new(plainDialect) }}
}
func (plainDialect) Name() string                  { return "none" }
func (plainDialect) Claims(map[string]string) bool { return false }
func (plainDialect) Parse(discovery.Labelled) ([]discovery.Route, []discovery.Problem) {
	return nil, nil
}

// world is a running Caddy with our modules and one memory source.
type world struct {
	t           testing.TB
	http, https int
	name        string
	config      map[string]any
	client      *http.Client
}

func freePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		// below the range from which the system gives ports to outgoing
		// connections, or one of those takes it before we do
		port := 20_000 + rand.IntN(12_000)
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
		return port
	}
	t.Fatal("no free port")
	return 0
}

// newWorld starts one; change may alter the config of our app before.
func newWorld(t testing.TB, change func(app map[string]any)) *world {
	t.Helper()
	w := &world{t: t, http: freePort(t), https: freePort(t), name: "memory:" + t.Name()}
	app := map[string]any{
		"sources":  []any{map[string]any{"source": "memory", "name": w.name}},
		"dialects": []any{map[string]any{"dialect": "none"}},
	}
	if change != nil {
		change(app)
	}
	w.config = map[string]any{
		"admin":   map[string]any{"disabled": true},
		"storage": map[string]any{"module": "file_system", "root": t.TempDir()},
		"logging": map[string]any{"logs": map[string]any{"default": map[string]any{"level": "ERROR"}}},
		"apps": map[string]any{
			"pki": map[string]any{"certificate_authorities": map[string]any{"local": map[string]any{"install_trust": false}}},
			"http": map[string]any{
				"http_port": w.http, "https_port": w.https,
				"servers": map[string]any{
					"https": map[string]any{
						"listen":                  []string{fmt.Sprintf("127.0.0.1:%d", w.https)},
						"routes":                  []any{map[string]any{"handle": []any{map[string]any{"handler": "dentropy"}}}},
						"tls_connection_policies": []any{map[string]any{}},
						"automatic_https":         map[string]any{"disable_redirects": true},
					},
					"http": map[string]any{
						"listen": []string{fmt.Sprintf("127.0.0.1:%d", w.http)},
						"routes": []any{
							map[string]any{"handle": []any{map[string]any{"handler": "dentropy", "redirect": true, "https_port": w.https}}},
							map[string]any{"handle": []any{map[string]any{"handler": "static_response", "status_code": 404}}},
						},
						"automatic_https": map[string]any{"disable": true},
					},
				},
			},
			"tls": map[string]any{"automation": map[string]any{
				"policies":  []any{map[string]any{"get_certificate": []any{map[string]any{"via": "dentropy"}}}},
				"on_demand": map[string]any{"permission": map[string]any{"module": "dentropy", "deny": true}},
			}},
			"dentropy": app,
		},
	}
	w.load()
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	w.client = &http.Client{
		Transport:     &http.Transport{DialContext: w.dial, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       30 * time.Second,
	}
	return w
}

// dial leads every host to this program.
func (w *world) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	port := w.http
	if strings.HasSuffix(addr, ":443") {
		port = w.https
	}
	var d net.Dialer
	return d.DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", port))
}

func (w *world) load() {
	w.t.Helper()
	b, err := json.Marshal(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := caddy.Load(b, true); err != nil {
		w.t.Fatal(err)
	}
}

// up is the updater of the memory source.
func (w *world) up() discovery.Updater {
	var up discovery.Updater
	eventually(w.t, "the source is watched", func() bool {
		v, ok := memoryUpdaters.Load(w.name)
		if ok {
			up = v.(discovery.Updater)
		}
		return ok
	})
	return up
}

// eventually polls for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("timed out: %s", what)
		case <-tick.C:
		}
	}
}

// object is a running container with one route to address.
func object(id string, route discovery.Route, address string) discovery.Object {
	o := discovery.Object{
		ID: id, Name: id, Group: discovery.Group{Engine: "memory", Service: id},
		State: discovery.Running, Created: time.Unix(1_700_000_000, 0),
	}
	if address == "" {
		o.State = discovery.Stopped
	} else {
		route.Endpoints = []discovery.Endpoint{{Candidates: []discovery.Candidate{{Address: address, Reason: "test"}}}}
	}
	o.Routes = []discovery.Route{route}
	return o
}

// backend answers with its name and the path it saw.
func backend(t testing.TB, name string) (address string) { return backendAt(t, name, "127.0.0.1:0") }

func backendAt(t testing.TB, name, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Backend", name)
		_, _ = fmt.Fprintf(w, "%s %s", name, r.URL.RequestURI())
	}))
	_ = srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	return l.Addr().String()
}

// get asks over plain HTTP and gives status and body.
func (w *world) get(url string) (int, string) {
	w.t.Helper()
	status, body, err := w.try(url)
	if err != nil {
		w.t.Fatal(err)
	}
	return status, body
}

func (w *world) try(url string) (int, string, error) {
	resp, err := w.client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

var errWrong = errors.New("wrong answer")

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
