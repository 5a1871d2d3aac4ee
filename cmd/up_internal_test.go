package dentropycmd

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/quic-go/quic-go/http3"

	"github.com/dentropy/dentropycloud/internal/upinstance"
)

// up is a `dentropy up` in this process, on 127.0.0.1. Caddy is one per process, so
// these tests do not run in parallel.
type up struct {
	t           *testing.T
	http, https int
	dir, file   string
	in          *instance
}

const staticFile = `{
	skip_install_trust
	log {
		output discard
	}
}
static.test {
	tls internal
	respond "static, {http.request.proto}, {http.request.scheme}, {http.request.local.port}"
}
http://plain.test {
	respond "plain"
}
proxy.test {
	tls internal
	reverse_proxy BACKEND
}
`

func startTestUp(t *testing.T, file string, flags ...string) *up {
	t.Helper()
	dir := shortDir(t)
	var err error
	u := &up{t: t, http: freePort(t), https: freePort(t), dir: dir, file: filepath.Join(dir, "Caddyfile")}
	u.write(file)
	args := []string{"--data-dir", dir, "--bind", "127.0.0.1", "--config", u.file,
		"--http-port", fmt.Sprint(u.http), "--https-port", fmt.Sprint(u.https)}
	o, err := options(strings.Join(append(args, flags...), " "), "")
	if err != nil {
		t.Fatal(err)
	}
	if u.in, err = startUp(context.Background(), o, io.Discard); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.in.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return u
}

func (u *up) write(file string) {
	u.t.Helper()
	if err := os.WriteFile(u.file, []byte(file), 0o600); err != nil {
		u.t.Fatal(err)
	}
}

// client dials the port of u whatever the host; certificates are not looked at,
// since another authority signs for each.
func (u *up) client() *http.Client {
	return &http.Client{
		Timeout:       pollMost,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				_, port, err := net.SplitHostPort(addr)
				if err != nil {
					return nil, err
				}
				return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+port)
			},
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
			ForceAttemptHTTP2: true,
		},
	}
}

func (u *up) url(host string) string { return fmt.Sprintf("https://%s:%d/", host, u.https) }

// get asks once, by a connection of its own.
func (u *up) get(url string) (*http.Response, string, error) {
	c := u.client()
	defer c.CloseIdleConnections()
	resp, err := c.Get(url)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

// ready waits for the certificate of a static site.
func (u *up) ready(host string) {
	u.t.Helper()
	if err := poll(func() bool { _, _, err := u.get(u.url(host)); return err == nil }); err != nil {
		u.t.Fatalf("%s is not served: %v", host, err)
	}
}

func TestUpServes(t *testing.T) {
	var mu sync.Mutex
	seen := http.Header{}
	backend := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = r.Header.Clone()
	}), ReadHeaderTimeout: time.Second}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = backend.Serve(ln) }()
	defer func() { _ = backend.Close() }()

	u := startTestUp(t, strings.Replace(staticFile, "BACKEND", ln.Addr().String(), 1))
	u.ready("static.test")
	u.ready("proxy.test")
	altSvc := fmt.Sprintf(`h3=":%d"; ma=2592000`, u.https)
	tests := []struct {
		name, url string
		status    int
		body      string
		header    map[string]string
	}{
		{"container", u.url("app.test"), 200, "container, HTTP/2.0", map[string]string{"Alt-Svc": altSvc}},
		{"static site", u.url("static.test"), 200, fmt.Sprintf("static, HTTP/2.0, https, %d", u.https), map[string]string{"Alt-Svc": altSvc}},
		{"nobody's name", u.url("nobody.test"), 404, "", nil},
		{"container by http", fmt.Sprintf("http://app.test:%d/x?y=z", u.http), 308, "*",
			map[string]string{"Location": fmt.Sprintf("https://app.test:%d/x?y=z", u.https)}},
		{"static site by http", fmt.Sprintf("http://static.test:%d/x?y=z", u.http), 308, "",
			map[string]string{"Location": fmt.Sprintf("https://static.test:%d/x?y=z", u.https), "Alt-Svc": ""}},
		{"static http site", fmt.Sprintf("http://plain.test:%d/", u.http), 200, "plain", nil},
		{"nobody's name by http", fmt.Sprintf("http://nobody.test:%d/", u.http), 404, "", nil},
		{"acme path of nobody", fmt.Sprintf("http://nobody.test:%d/.well-known/acme-challenge/x", u.http), 404, "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, body, err := u.get(tt.url)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.status || tt.body != "*" && body != tt.body {
				t.Errorf("GET %s = %d %q, want %d %q", tt.url, resp.StatusCode, body, tt.status, tt.body)
			}
			for k, want := range tt.header {
				if got := resp.Header.Get(k); got != want {
					t.Errorf("GET %s: %s = %q, want %q", tt.url, k, got, want)
				}
			}
		})
	}
	t.Run("forwarded headers", func(t *testing.T) {
		if _, _, err := u.get(u.url("proxy.test")); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		want := map[string]string{"X-Forwarded-Proto": "https", "X-Forwarded-For": "127.0.0.1",
			"X-Forwarded-Host": fmt.Sprintf("proxy.test:%d", u.https)}
		for k, v := range want {
			if got := seen.Get(k); got != v {
				t.Errorf("%s = %q, want %q", k, got, v)
			}
		}
	})
	t.Run("http1", func(t *testing.T) {
		c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", u.https),
			&tls.Config{InsecureSkipVerify: true, ServerName: "app.test", NextProtos: []string{"http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if got := c.ConnectionState().NegotiatedProtocol; got != "http/1.1" {
			t.Errorf("ALPN = %q, want http/1.1", got)
		}
	})
}

// h3Client speaks HTTP/3 with u.
func (u *up) h3Client() *http3.Transport {
	return &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: fakeHost}}
}

func (u *up) getH3(tr *http3.Transport) (string, error) {
	req, err := http.NewRequest(http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d/", u.https), nil)
	if err != nil {
		return "", err
	}
	req.Host = fakeHost
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func TestHTTP3AcrossReloads(t *testing.T) {
	u := startTestUp(t, staticFile)
	const reloads = 5
	kept := u.h3Client()
	defer func() { _ = kept.Close() }()
	for i := range reloads {
		for name, tr := range map[string]*http3.Transport{"kept": kept, "new": u.h3Client()} {
			got, err := u.getH3(tr)
			if want := "container, HTTP/3.0"; err != nil || got != want {
				t.Errorf("reload %d, %s connection: got %q, %v, want %q", i, name, got, err, want)
			}
			if name == "new" {
				_ = tr.Close()
			}
		}
		if err := upinstance.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		// The connection that was open is told to go away; the client then opens
		// another, which is the client's affair and must not fail.
		if _, err := u.getH3(kept); err != nil {
			_ = kept.Close()
			kept = u.h3Client()
		}
	}
}

func TestReloadUnderLoadLosesNothing(t *testing.T) {
	u := startTestUp(t, staticFile)
	u.ready("static.test")
	const (
		clients = 4
		reloads = 20
		// between two reloads, so that each meets a queue of waiting connections
		requests = 10
	)
	var good, bad atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range clients {
		url := u.url([]string{"static.test", "app.test"}[i%2])
		wg.Go(func() {
			for ctx.Err() == nil {
				resp, body, err := u.get(url)
				if err != nil || resp.StatusCode != http.StatusOK {
					bad.Add(1)
					t.Errorf("GET %s: %v %q", url, err, body)
				} else {
					good.Add(1)
				}
			}
		})
	}
	before := fakeLoads.Load()
	for range reloads {
		from := good.Load() + bad.Load()
		if err := poll(func() bool { return good.Load()+bad.Load() >= from+requests }); err != nil {
			t.Fatal(err)
		}
		if err := upinstance.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	wg.Wait()
	if got := fakeLoads.Load() - before; got != reloads {
		t.Errorf("%d configurations loaded, want %d", got, reloads)
	}
	t.Logf("%d reloads: %d requests well, %d lost", reloads, good.Load(), bad.Load())
}

func TestReloadReadsTheFileAgain(t *testing.T) {
	u := startTestUp(t, staticFile)
	u.ready("static.test")
	u.write(strings.Replace(staticFile, "static, ", "changed, ", 1))
	if err := upinstance.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, body, err := u.get(u.url("static.test")); err != nil || !strings.HasPrefix(body, "changed, ") {
		t.Errorf("after the reload: %q, %v, want the new text", body, err)
	}
	for _, tt := range []struct{ name, file, want string }{
		{"broken", "static.test {\n\tnonsense\n}\n", "unrecognized directive"},
		{"port", "{\n\thttps_port 1\n\thttp_port 2\n}\n", ""}, // flags win
		{"refused by a module", "static.test {\n\ttls /nowhere.pem /nowhere.key\n}\n", "nowhere"},
		{"absent", "", "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u.write(tt.file)
			if tt.file == "" {
				if err := os.Remove(u.file); err != nil {
					t.Fatal(err)
				}
			}
			err := upinstance.Reload(t.Context())
			if tt.want == "" {
				if err != nil {
					t.Errorf("Reload() = %v, want nil", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Reload() = %v, want an error with %q", err, tt.want)
			}
			if _, body, err := u.get(u.url("app.test")); err != nil || !strings.HasPrefix(body, "container") {
				t.Errorf("after a reload that failed: %q, %v, want the container", body, err)
			}
			if c, err := net.Dial("unix", filepath.Join(u.dir, adminSocket)); err != nil {
				t.Errorf("after a reload that failed the admin API is gone: %v", err)
			} else {
				_ = c.Close()
			}
		})
	}
}

func TestReloadCannotMoveSockets(t *testing.T) {
	s := &sockets{httpPort: 80, httpsPort: 443, bind: []string{""}}
	for _, tt := range []struct{ args, want string }{
		{"", ""},
		{"--http-port 81", "http port"},
		{"--https-port 444", "https port"},
		{"--bind 127.0.0.1", "addresses"},
	} {
		o, err := options("--data-dir /d "+tt.args, "")
		if err != nil {
			t.Fatal(err)
		}
		err = s.same(o)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("same(%q) = %v, want an error with %q", tt.args, err, tt.want)
		}
	}
}

func TestStopLetsGoOfThePorts(t *testing.T) {
	dir := shortDir(t)
	port, secure := freePort(t), freePort(t)
	o, err := options(fmt.Sprintf("--data-dir %s --bind 127.0.0.1 --http-port %d --https-port %d", dir, port, secure), "")
	if err != nil {
		t.Fatal(err)
	}
	in, err := startUp(t.Context(), o, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := startUp(t.Context(), o, io.Discard); err == nil || !strings.Contains(err.Error(), "another `dentropy up` (process") {
		t.Errorf("second start = %v, want that another one is running", err)
	}
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	if err := poll(func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	}); err != nil {
		t.Errorf("the http port still accepts connections: %v", err)
	}
	if upinstance.Active() {
		t.Error("the instance is registered after stop")
	}
	if caddy.ActiveContext().Context != nil && len(caddy.ActiveContext().Modules()) > 0 {
		t.Error("Caddy still runs a configuration")
	}
}
