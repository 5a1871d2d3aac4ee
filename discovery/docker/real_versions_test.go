package docker_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/discovery"
	"github.com/dentropy/dentropycloud/discovery/docker"
	"github.com/dentropy/dentropycloud/discovery/sourcetest"
)

// dialEngine connects to the engine at DOCKER_TEST_HOST.
func dialEngine(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(os.Getenv("DOCKER_TEST_HOST"), "unix://"))
}

// TestRealOldest makes sure that the engine is as strict as the run wants it, or the
// other tests would prove less than they seem to.
func TestRealOldest(t *testing.T) {
	e := newRealEngine(t)
	got, err := e.cli.ServerVersion(t.Context())
	e.must(err)
	t.Logf("engine %s, API %s to %s", got.Version, got.MinAPIVersion, got.APIVersion)
	if want := os.Getenv("DOCKER_MIN_API_VERSION"); want != "" && got.MinAPIVersion != want {
		t.Errorf("the engine's oldest API version is %s, want %s", got.MinAPIVersion, want)
	}
}

// TestRealVersionHidden puts a proxy before the engine that takes away the header by
// which versions are negotiated: all that is left are the engine's own words.
func TestRealVersionHidden(t *testing.T) {
	e := newRealEngine(t)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dialEngine(ctx) }}
	defer transport.CloseIdleConnections()
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "engine" },
		ModifyResponse: func(r *http.Response) error {
			r.Header.Del("Api-Version")
			return nil
		},
		Transport:     transport,
		FlushInterval: -1, // events must not wait for each other
	})
	defer proxy.Close()
	src, err := docker.New(docker.Config{Endpoint: strings.Replace(proxy.URL, "http://", "tcp://", 1)},
		discovery.SourceOptions{Name: "docker:hidden", Dialects: []discovery.Dialect{sourcetest.Labels{}}})
	e.must(err)
	rec, stop := sourcetest.Watch(t, src.Quick())
	rec.Wait(t, "the first list", func() bool { return rec.Count("replace") == 1 })
	id := e.create("one", map[string]string{"test.host": "one.example.com"}, nil)
	e.start(id)
	(&bench{t: t, rec: rec}).waitAddress(e.tag+"one", e.ip(id, "bridge"))
	if got := rec.Count("unknown"); got != 0 {
		t.Errorf("unknown %d times, want never", got)
	}
	stop()
}
