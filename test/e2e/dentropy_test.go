package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// nextPort hands out ports; the network namespace is ours alone.
var nextPort atomic.Int32

func init() { nextPort.Store(20000) }

func freePort() int { return int(nextPort.Add(1)) }

// dentropy is one `dentropy up`, which may be ended and started again.
type dentropy struct {
	t           *testing.T
	data        string
	http, https int
	docker      string
	args        []string
	enter       []string // a prefix that runs it in another network namespace

	cmd  *exec.Cmd
	done chan struct{} // closed once cmd has ended
	out  *logBuffer
}

// up starts dentropy and waits until it serves. args come after the usual flags and
// beat them.
func up(t *testing.T, args ...string) *dentropy {
	t.Helper()
	d := prepare(t)
	d.args = args
	d.start()
	return d
}

// prepare gives a dentropy with ports and a data folder of its own, not started yet.
func prepare(t *testing.T) *dentropy {
	t.Helper()
	// t.TempDir names the test, and a unix socket's path must be short.
	data, err := os.MkdirTemp("", "e2e")
	if err != nil {
		t.Fatal(err)
	}
	d := &dentropy{t: t, data: data, http: freePort(), https: freePort(), docker: os.Getenv("DOCKER_TEST_HOST"), out: new(logBuffer)}
	t.Cleanup(func() {
		d.end(syscall.SIGTERM)
		os.RemoveAll(data)
		if strings.Contains(d.out.String(), "DATA RACE") {
			t.Error("the race detector has found something, see the log")
		}
		if t.Failed() {
			t.Logf("log of dentropy:\n%s", d.out)
		}
	})
	return d
}

// start runs the program and waits until its admin API and its listeners answer.
func (d *dentropy) start() {
	d.t.Helper()
	args := append([]string{
		"up", "--bind", "127.0.0.1", "--http-port", strconv.Itoa(d.http), "--https-port", strconv.Itoa(d.https),
		"--data-dir", d.data, "--docker", d.docker,
	}, d.args...)
	args = append(append(slices.Clone(d.enter), config.bin), args...)
	d.cmd = exec.Command(args[0], args[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.out
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		cmd.Wait()
		close(done)
	}(d.cmd, d.done)
	eventually(d.t, "dentropy up", func() error {
		select {
		case <-d.done:
			d.t.Fatalf("dentropy has ended: %s\n%s", d.cmd.ProcessState, d.out)
		default:
		}
		if _, err := d.admin(http.MethodGet, "/dentropy/sources"); err != nil {
			return err
		}
		if len(d.enter) > 0 {
			return nil // its port cannot be reached from here
		}
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(d.https)))
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// end sends a signal and waits for the end.
func (d *dentropy) end(sig syscall.Signal) {
	if d.cmd == nil {
		return
	}
	d.cmd.Process.Signal(sig)
	select {
	case <-d.done:
	case <-time.After(30 * time.Second):
		d.cmd.Process.Kill()
		<-d.done
		d.t.Errorf("dentropy did not end within 30 s of %v", sig)
	}
}

// run runs a verb against this dentropy.
func (d *dentropy) run(verb ...string) (string, error) {
	out, err := exec.Command(config.bin, append(verb, "--data-dir", d.data)...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("dentropy %s: %w\n%s", strings.Join(verb, " "), err, out)
	}
	return string(out), nil
}

// admin asks the admin API.
func (d *dentropy) admin(method, path string) ([]byte, error) {
	return d.adminSend(method, path, "", nil)
}

func (d *dentropy) adminSend(method, path, kind string, body []byte) ([]byte, error) {
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(d.data, "admin.sock"))
		},
	}}
	req, err := http.NewRequest(method, "http://dentropy"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	return answer, nil
}

// route is what /dentropy/routes says of a route.
type route struct {
	Object    string
	State     string
	Hosts     []string
	Endpoints []struct {
		Address, Reason, Detail string
		Ready                   bool
	}
	Problems []struct{ Label, Reason, Hint string }
	Refused  []struct{ Host, Reason string }
	Stale    bool
	LastGood bool `json:"last_good"`
}

func (r route) String() string {
	b, _ := json.Marshal(r)
	return string(b)
}

// routes lists the routes whose object is called name.
func (d *dentropy) routes(name string) ([]route, error) {
	raw, err := d.admin(http.MethodGet, "/dentropy/routes")
	if err != nil {
		return nil, err
	}
	var all struct{ Routes []route }
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, err
	}
	var out []route
	for _, r := range all.Routes {
		if r.Object == name {
			out = append(out, r)
		}
	}
	return out, nil
}

// waitState waits until the one route of an object is in a state, and returns it.
func (d *dentropy) waitState(object, state string) route {
	d.t.Helper()
	var found route
	eventually(d.t, object+" is "+state, func() error {
		rs, err := d.routes(object)
		if err != nil {
			return err
		}
		if len(rs) != 1 || rs[0].State != state {
			return fmt.Errorf("its routes are %v", rs)
		}
		found = rs[0]
		return nil
	})
	return found
}

// roots gives the internal CA that dentropy has made.
func (d *dentropy) roots() (*x509.CertPool, error) {
	pem, err := os.ReadFile(filepath.Join(d.data, "pki", "authorities", "local", "root.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in root.crt")
	}
	return pool, nil
}

func (d *dentropy) tlsConfig(host string) (*tls.Config, error) {
	pool, err := d.roots()
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: pool, ServerName: host}, nil
}

// client trusts the internal CA and connects to this dentropy whatever the host is
// called. It opens a connection per request unless keep.
func (d *dentropy) client(keep bool) (*http.Client, error) {
	pool, err := d.roots()
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Timeout:       30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: pool},
			ForceAttemptHTTP2: true,
			DisableKeepAlives: !keep,
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				_, port, err := net.SplitHostPort(address)
				if err != nil {
					return nil, err
				}
				return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
			},
		},
	}, nil
}

// url is the https address of a host on this dentropy.
func (d *dentropy) url(host, path string) string {
	return fmt.Sprintf("https://%s:%d%s", host, d.https, path)
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	proto  string
	body   string
	cert   *x509.Certificate
	// Of a container's server:
	Name, Path, Host string
	Headers          http.Header
}

// get asks a host over HTTPS, on a connection of its own.
func (d *dentropy) get(host, path string) (answer, error) {
	c, err := d.client(false)
	if err != nil {
		return answer{}, err
	}
	return fetch(c, d.url(host, path))
}

func fetch(c *http.Client, url string) (answer, error) {
	resp, err := c.Get(url)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: resp.StatusCode, header: resp.Header, proto: resp.Proto, body: string(body)}
	if resp.TLS != nil && len(resp.TLS.PeerCertificates) > 0 {
		a.cert = resp.TLS.PeerCertificates[0]
	}
	if a.status == http.StatusOK && strings.HasPrefix(a.header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(body, &a); err != nil {
			return a, err
		}
	}
	return a, nil
}

// servedBy is a check for eventually: the host is answered by the named server.
func (d *dentropy) servedBy(host, path, name string) func() error {
	return func() error {
		a, err := d.get(host, path)
		if err != nil {
			return err
		}
		if a.status != http.StatusOK || a.Name != name {
			return fmt.Errorf("answer is %d from %q: %.200s", a.status, a.Name, a.body)
		}
		return nil
	}
}

// status is a check for eventually: the host is answered with a status.
func (d *dentropy) status(host, path string, want int) func() error {
	return func() error {
		a, err := d.get(host, path)
		if err != nil {
			return err
		}
		if a.status != want {
			return fmt.Errorf("status is %d, want %d: %.200s", a.status, want, a.body)
		}
		return nil
	}
}

// configLoads tells configurations apart: it changes with every load.
func (d *dentropy) configLoads() string {
	d.t.Helper()
	raw, err := d.admin(http.MethodGet, "/metrics")
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "caddy_config_last_reload_success_timestamp_seconds") {
			return line
		}
	}
	d.t.Fatal("no caddy_config_last_reload_success_timestamp_seconds in /metrics")
	return ""
}

// logBuffer keeps what a process says.
type logBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
