package caddymodule

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/backuptest"
)

func init() {
	caddy.RegisterModule(memoryPlatform{})
	caddy.RegisterModule(memoryStore{})
}

// memoryPlatform is a platform that a test has made, found by its name.
type memoryPlatform struct {
	Name string `json:"name"`
}

var memoryPlatforms, memoryStores sync.Map // name -> *backuptest.Platform, *backuptest.Store

func (memoryPlatform) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "dentropy.platforms.memory", New: func() caddy.Module { return new(memoryPlatform) }}
}
func (m *memoryPlatform) UnmarshalCaddyfile(d *caddyfile.Dispenser) error { return noOptions(d) }
func (m *memoryPlatform) PlatformName() string                            { return m.Name }
func (m *memoryPlatform) NewPlatform(backup.PlatformOptions) (backup.Platform, error) {
	if p, ok := memoryPlatforms.Load(m.Name); ok {
		return p.(*backuptest.Platform), nil
	}
	p := backuptest.NewPlatform(m.Name, nil)
	p.Step = func(string) error { return errors.New("there is no engine") }
	return p, nil
}

// memoryStore is a store that a test has made.
type memoryStore struct {
	Name string `json:"name"`
}

func (memoryStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "dentropy.stores.memory", New: func() caddy.Module { return new(memoryStore) }}
}
func (m *memoryStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error { return noOptions(d) }
func (m *memoryStore) NewStore() (backup.Store, error) {
	s, _ := memoryStores.LoadOrStore(m.Name, new(backuptest.Store))
	return s.(*backuptest.Store), nil
}

// backupWorld is a world with an app "shop" on an engine of the same name as the
// source, and a store in memory.
type backupWorld struct {
	*world
	engine   *backuptest.Engine
	platform *backuptest.Platform
	store    *backuptest.Store
	api      *httptest.Server
}

func newBackupWorld(t *testing.T) *backupWorld {
	t.Helper()
	name := "memory:" + t.Name()
	b := &backupWorld{engine: backuptest.NewEngine(filepath.Join(t.TempDir(), "engine.json")), store: new(backuptest.Store)}
	err := b.engine.Add(backuptest.App{Name: "shop", Containers: []backuptest.Container{
		{Name: "db", Running: true, Volumes: []string{"data"}, Env: map[string]string{"PASSWORD": "hunter2hunter2"}},
		{Name: "web", Running: true},
	}}, map[string]backuptest.Files{"data": {"rows": strings.Repeat("a row\n", 3000)}})
	if err != nil {
		t.Fatal(err)
	}
	b.platform = backuptest.NewPlatform(name, b.engine)
	memoryPlatforms.Store(name, b.platform)
	memoryStores.Store(name, b.store)
	b.world = newWorld(t, func(app map[string]any) {
		app["backup"] = map[string]any{"stores": map[string]any{"local": map[string]any{"store": "memory", "name": name}}}
	})
	b.api = adminServer(t)
	return b
}

// form is an archive with answers.
type form struct {
	answers string
	archive []byte
}

func (f form) encode(t testing.TB) (body io.Reader, kind string) {
	t.Helper()
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	if err := w.WriteField("answers", f.answers); err != nil {
		t.Fatal(err)
	}
	p, err := w.CreateFormFile("archive", "archive")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write(f.archive); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &buf, w.FormDataContentType()
}

// call asks the API, and reads a JSON answer.
func (b *backupWorld) call(method, path string, body any, into any) int {
	b.t.Helper()
	var rd io.Reader
	kind := ""
	switch body := body.(type) {
	case nil:
	case []byte:
		rd, kind = bytes.NewReader(body), "application/x-tar"
	case form:
		rd, kind = body.encode(b.t)
	default:
		raw, err := json.Marshal(body)
		if err != nil {
			b.t.Fatal(err)
		}
		rd, kind = bytes.NewReader(raw), "application/json"
	}
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.api.URL+"/dentropy/"+path, rd)
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("hunter2")) {
		b.t.Errorf("%s %s shows a secret", method, path)
	}
	if into != nil {
		if err := json.Unmarshal(raw, into); err != nil {
			b.t.Fatalf("%s %s: %v: %s", method, path, err, raw)
		}
	}
	if resp.StatusCode >= 400 {
		b.t.Logf("%s %s: %d %s", method, path, resp.StatusCode, raw)
	}
	return resp.StatusCode
}

// job follows a job to its end.
func (b *backupWorld) job(id string) backup.JobView {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), "GET", b.api.URL+"/dentropy/jobs/"+id+"/events", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var v backup.JobView
	for scan := bufio.NewScanner(resp.Body); scan.Scan(); {
		if data, ok := strings.CutPrefix(scan.Text(), "data: "); ok {
			v = backup.JobView{}
			if err := json.Unmarshal([]byte(data), &v); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	if v.State == "" || v.State == "running" {
		b.t.Errorf("the events of job %s end while it is %q", id, v.State)
	}
	return v
}

func (b *backupWorld) running() {
	b.t.Helper()
	if got, err := b.engine.Running("shop"); err != nil || !slices.Equal(got, []string{"db", "web"}) {
		b.t.Errorf("running = %v, %v, want db and web", got, err)
	}
}

type failure struct{ Error, Hint, Object string }
