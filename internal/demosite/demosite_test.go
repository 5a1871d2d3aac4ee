package demosite_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/internal/demosite"
)

func get(t *testing.T, url, accept string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("X-Script", "<script>alert(1)</script>")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestPage(t *testing.T) {
	srv := httptest.NewServer(demosite.Handler("shop"))
	t.Cleanup(srv.Close)
	resp := get(t, srv.URL+"/some/path", "text/html,*/*")
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<h1>shop</h1>", "/some/path", "X-Script", "&lt;script&gt;alert(1)"} {
		if !strings.Contains(string(body), want) {
			t.Errorf("page lacks %q:\n%s", want, body)
		}
	}
}

func TestJSON(t *testing.T) {
	srv := httptest.NewServer(demosite.Handler(""))
	t.Cleanup(srv.Close)
	var got struct {
		Name, Host, Path, Hostname string
		Headers                    []struct{ Name string }
	}
	if err := json.NewDecoder(get(t, srv.URL+"/x", "*/*").Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Name != got.Hostname || got.Path != "/x" || got.Host != strings.TrimPrefix(srv.URL, "http://") || len(got.Headers) == 0 {
		t.Errorf("answer = %+v", got)
	}
}

func TestTicks(t *testing.T) {
	srv := httptest.NewServer(demosite.Handler("shop"))
	t.Cleanup(srv.Close)
	resp := get(t, srv.URL+"/ticks", "text/event-stream")
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil || line != "data: 0\n" {
		t.Errorf("first event = %q, %v", line, err)
	}
}

func TestServeEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- demosite.Serve(ctx, "127.0.0.1:0", "shop") }()
	cancel()
	if err := <-done; err != nil && ctx.Err() == nil {
		t.Errorf("Serve = %v", err)
	}
}

func TestServeAddressTaken(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(srv.Close)
	if err := demosite.Serve(t.Context(), srv.Listener.Addr().String(), ""); err == nil {
		t.Error("Serve on a taken address = nil, want an error")
	}
}
