package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The read-only proxy of docs/security.md lets through what discovery needs, and
// nothing that changes or reveals more.
func TestReadOnlySocketProxy(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "```caddyfile\n")
	text, _, _ := strings.Cut(rest, "```")
	if !ok || !strings.Contains(text, ":2375") || !strings.Contains(text, "/var/run/docker.sock") {
		t.Fatalf("docs/security.md has no such Caddyfile: %q", text)
	}
	port := freePort()
	text = strings.ReplaceAll(text, ":2375", fmt.Sprintf("127.0.0.1:%d", port))
	text = strings.ReplaceAll(text, "/var/run/docker.sock", strings.TrimPrefix(os.Getenv("DOCKER_TEST_HOST"), "unix://"))
	file := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(file, []byte("{\n\tadmin off\n}\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	background(t, config.bin, "run", "--config", file)
	ask := func(method, path string) (int, error) {
		req, err := http.NewRequest(method, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), nil)
		if err != nil {
			return 0, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	eventually(t, "the proxy answers", func() error {
		status, err := ask(http.MethodGet, "/_ping")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("status %d", status)
		}
		return err
	})
	for _, tt := range []struct{ method, path string }{
		{http.MethodPost, "/v1.41/containers/create"},
		{http.MethodPost, "/v1.41/containers/x/json"},
		{http.MethodDelete, "/v1.41/containers/x"},
		{http.MethodGet, "/v1.41/containers/x/logs"},
		{http.MethodGet, "/v1.41/containers/x/archive"},
		{http.MethodGet, "/v1.41/info"},
		{http.MethodGet, "/v1.41/secrets"},
		{http.MethodGet, "/v1.41/containers/../info"},
		{http.MethodGet, "/v1.41/containers/%2e%2e%2finfo%2fjson/json/../../../secrets"},
	} {
		if status, err := ask(tt.method, tt.path); err != nil || status != http.StatusForbidden {
			t.Errorf("%s %s: %d, %v; want 403", tt.method, tt.path, status, err)
		}
	}

	e, d := newEngine(t), prepare(t)
	d.docker = fmt.Sprintf("tcp://127.0.0.1:%d", port)
	d.start()
	e.run(site("app", "app.localhost"))
	eventually(t, "app answers", d.servedBy("app.localhost", "/", "app"))
	e.stop("app")
	d.waitState("app", "holding")
}
