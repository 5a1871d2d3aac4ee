package caddymodule

import (
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
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

func init() {
	caddy.RegisterModule(certTestApp{})
	caddy.RegisterModule(certTestIssuer{})
}

// certTestApp brings issuers to the store, as the dentropy app does.
type certTestApp struct {
	Issuers   map[string]json.RawMessage `json:"issuers" caddy:"namespace=tls.issuance inline_key=module"`
	HTTP      int                        `json:"http"`
	HTTPS     int                        `json:"https"`
	Fail      bool                       `json:"fail"`
	PerHour   int                        `json:"per_hour"`
	Backoff   caddy.Duration             `json:"backoff"`
	gen       certGeneration
	state     *State
	permitted bool
}

// certTestNow is the app that was started last.
var certTestNow atomic.Pointer[certTestApp]

func (certTestApp) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "certtest", New: func() caddy.Module { return new(certTestApp) }}
}

func (a *certTestApp) Provision(ctx caddy.Context) (err error) {
	if a.state, err = loadState(); err != nil {
		return err
	}
	tlsApp, err := ctx.App("tls")
	if err != nil {
		return err
	}
	a.gen = certGeneration{ID: a, Ctx: ctx, Classes: map[string][]certmagic.Issuer{},
		Static: tlsApp.(*caddytls.TLS).HasCertificateForSubject, Active: certConfigActive(ctx),
		Tuning: certTuning{PerHour: a.PerHour, Wait: 30 * time.Second}}
	if a.Backoff > 0 {
		a.gen.Tuning.Backoff = []time.Duration{time.Duration(a.Backoff)}
	}
	if a.gen.OnEvent, err = certEvents(ctx); err != nil {
		return err
	}
	mods, err := ctx.LoadModule(a, "Issuers")
	if err != nil {
		return err
	}
	for name, mod := range mods.(map[string]any) {
		iss := mod.(certmagic.Issuer)
		if acme := acmeIssuer(iss); acme != nil {
			if err := fitACMEIssuer(ctx, acme, a.HTTP, a.HTTPS); err != nil {
				return err
			}
		}
		a.gen.Classes[name] = []certmagic.Issuer{iss}
	}
	a.permitted = permissionProvisioned(ctx)
	permitStatic(ctx, func(host string) bool { return host == "static.lan" })
	return nil
}

func (a *certTestApp) Start() error {
	a.state.certs.adopt(a.gen)
	certTestNow.Store(a)
	if a.Fail {
		return errors.New("told to fail")
	}
	return nil
}

func (a *certTestApp) Stop() error { return nil }

func (a *certTestApp) Cleanup() error {
	if a.state == nil {
		return nil
	}
	a.state.certs.forget(a)
	return releaseState()
}

// certTestIssuer is the internal CA that counts, and waits while it is told to.
type certTestIssuer struct{ caddytls.InternalIssuer }

var (
	certTestIssued atomic.Int64
	certTestHold   atomic.Pointer[chan struct{}]
)

func (certTestIssuer) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tls.issuance.certtest", New: func() caddy.Module { return new(certTestIssuer) }}
}

func (i *certTestIssuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	certTestIssued.Add(1)
	if hold := certTestHold.Load(); hold != nil {
		<-*hold
	}
	return i.InternalIssuer.Issue(ctx, csr)
}

// certCaddy is a Caddy on loopback ports.
type certCaddy struct {
	t           testing.TB
	dir         string
	http, https int
	issuers     string // JSON
	tuning      string // JSON, with a comma behind
	permission  string // JSON of on_demand
	extra       string // further apps, with a comma before
	fail        bool
}

func newCertCaddy(t testing.TB, issuers string) *certCaddy {
	c := &certCaddy{t: t, dir: t.TempDir(), http: certFreePort(t), https: certFreePort(t), issuers: issuers,
		permission: `"on_demand":{"permission":{"module":"dentropy"}},`}
	if tt, ok := t.(*testing.T); ok {
		tt.Setenv("HOME", c.dir)
		tt.Setenv("XDG_DATA_HOME", filepath.Join(c.dir, "data"))
		tt.Setenv("XDG_CONFIG_HOME", filepath.Join(c.dir, "config"))
	}
	t.Cleanup(func() { _ = caddy.Stop() })
	return c
}

func certFreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func (c *certCaddy) config() []byte {
	level := "FATAL"
	if testing.Verbose() && os.Getenv("CERT_TEST_LOG") != "" {
		level = "DEBUG"
	}
	return fmt.Appendf(nil, `{"admin":{"disabled":true,"config":{"persist":false}},
"logging":{"logs":{"default":{"level":%q}}},
"storage":{"module":"file_system","root":%q},
"apps":{"events":{},"pki":{"certificate_authorities":{"local":{"install_trust":false}}},
"certtest":{%s"issuers":%s,"http":%d,"https":%d,"fail":%t},
"tls":{"disable_storage_clean":true,"automation":{%s"policies":[{"get_certificate":[{"via":"dentropy"}],"issuers":[{"module":"certtest"}]}]}},
"http":{"http_port":%d,"https_port":%d,"servers":{
 "https":{"listen":["127.0.0.1:%d"],"tls_connection_policies":[{}],"automatic_https":{"disable_redirects":true},
  "routes":[{"handle":[{"handler":"static_response","body":"hello"}]}]},
 "http":{"listen":["127.0.0.1:%d"],"automatic_https":{"disable":true},"routes":[{"handle":[{"handler":"static_response","status_code":404}]}]}}}%s}}`,
		level, filepath.Join(c.dir, "storage"), c.tuning, c.issuers, c.http, c.https, c.fail, c.permission,
		c.http, c.https, c.https, c.http, c.extra)
}

// load loads the config and gives the world that goes with it.
func (c *certCaddy) load() *certWorld {
	c.t.Helper()
	if err := caddy.Load(c.config(), true); err != nil {
		c.t.Fatal(err)
	}
	return c.world()
}

func (c *certCaddy) world() *certWorld {
	return &certWorld{certStore: certTestNow.Load().state.certs, t: c.t}
}

// handshake gives the certificate that a client gets who asks for host.
func (c *certCaddy) handshake(host string) (*x509.Certificate, error) {
	d := tls.Dialer{
		NetDialer: &net.Dialer{Timeout: 40 * time.Second},
		Config:    &tls.Config{InsecureSkipVerify: true, ServerName: host},
	}
	conn, err := d.DialContext(c.t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", c.https))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

func TestCertThroughCaddy(t *testing.T) {
	c := newCertCaddy(t, `{"internal":{"module":"internal"}}`)
	w := c.load()
	if !certTestNow.Load().permitted {
		t.Error("permissionProvisioned is false")
	}
	certTestIssued.Store(0)
	w.Want("nas.lan", "internal")
	w.Want("*.apps.lan", "internal")
	w.Want("127.0.0.1", "internal")
	for _, host := range []string{"nas.lan", "x.apps.lan"} { // without waiting: the handshake waits
		if _, err := c.handshake(host); err != nil {
			t.Errorf("handshake for %s: %v", host, err)
		}
	}
	w.is("127.0.0.1", "ready")
	if cert, err := c.handshake(""); err != nil || len(cert.IPAddresses) != 1 {
		t.Errorf("handshake without a name: %v, %v", cert, err)
	}
	for _, host := range []string{"evil.lan", "x.y.apps.lan", "apps.lan"} {
		if _, err := c.handshake(host); err == nil {
			t.Errorf("handshake for %s went well", host)
		}
	}
	if got := certTestIssued.Load(); got != 0 {
		t.Errorf("the issuer of the catch-all policy was asked %d times", got)
	}
	if _, err := c.handshake("static.lan"); err != nil {
		t.Errorf("handshake for a static site that fell to the policy: %v", err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "nas.lan"},
	}}).Get(fmt.Sprintf("https://127.0.0.1:%d/", c.https))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, _ := io.ReadAll(resp.Body); string(body) != "hello" {
		t.Errorf("got %q", body)
	}
}

func TestCertWithoutPermission(t *testing.T) {
	c := newCertCaddy(t, `{"internal":{"module":"internal"}}`)
	c.permission = ""
	c.load()
	if certTestNow.Load().permitted {
		t.Error("permissionProvisioned is true in a config without it")
	}
	c.permission = `"on_demand":{"permission":{"module":"dentropy","deny":true}},`
	c.load()
	if !certTestNow.Load().permitted {
		t.Error("permissionProvisioned is false in a config with it")
	}
	c.permission = ""
	c.load()
	if certTestNow.Load().permitted {
		t.Error("permissionProvisioned remembers the config before")
	}
}

// Reloads, of which every other fails after some apps were started, and
// handshakes and changes all the while.
func TestCertCaddyReloads(t *testing.T) {
	c := newCertCaddy(t, `{"internal":{"module":"internal"},"counted":{"module":"certtest"}}`)
	w := c.load()
	certTestIssued.Store(0)
	hosts := []string{"a.lan", "b.lan", "c.lan"}
	for _, h := range hosts {
		w.Want(h, "counted")
	}
	serials := map[string]string{}
	for _, h := range hosts {
		serials[h] = w.is(h, "ready").Serial
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			host := fmt.Sprintf("n%d.lan", i%20)
			w.Want(host, "internal")
			_, _ = w.StatusOf(host)
			w.Drop(host, "internal")
		}
	})
	for i := range 10 {
		c.fail = i%2 == 1
		if err := caddy.Load(c.config(), true); (err != nil) != c.fail {
			t.Fatalf("load %d: %v", i, err)
		}
		if got := c.world().certStore; got != w.certStore {
			t.Fatal("the store did not survive")
		}
		for _, h := range hosts {
			// A connection may fall to the closing listener of the config before.
			certAwait(t, "a handshake goes well", func() bool {
				cert, err := c.handshake(h)
				return err == nil && fmt.Sprintf("%x", cert.SerialNumber) == serials[h]
			})
		}
		w.Want(fmt.Sprintf("new%d.lan", i), "internal") // still works after a failed load
		w.is(fmt.Sprintf("new%d.lan", i), "ready")
	}
	close(done)
	wg.Wait()
	if got := certTestIssued.Load(); got != int64(len(hosts)) {
		t.Errorf("issued %d certificates, want %d", got, len(hosts))
	}
}

// certmagic lets one goroutine look for the certificate of a name and all others
// wait for it. The manager is called by that one: it would wait for itself if it
// asked a certmagic.Config, for two minutes.
func TestCertDeadlockSingleFlight(t *testing.T) {
	c := newCertCaddy(t, `{"slow":{"module":"certtest"}}`)
	w := c.load()
	hold := make(chan struct{})
	certTestHold.Store(&hold)
	defer certTestHold.Store(nil)
	w.Want("slow.lan", "slow")
	w.is("slow.lan", "obtaining")
	errs := make(chan error)
	for range 10 {
		go func() {
			_, err := c.handshake("slow.lan")
			errs <- err
		}()
	}
	certAwait(t, "a handshake waits", func() bool { return w.waits.Load() > 0 })
	start := time.Now()
	close(hold)
	for range 10 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("it took %v", d)
	}
}

// GetConfigForCert is called with the cache locked, and taking a name out of the
// cache takes that lock: neither may need a lock that the other side holds.
func TestCertDeadlockCacheLock(t *testing.T) {
	w := newCertWorld(t, certTuning{Linger: -1, Budget: -1})
	w.acme.lifetime = 10 * time.Minute // always due for renewal
	w.internal.lifetime = 10 * time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				host := fmt.Sprintf("h%d.example.com", (i+g)%7)
				class := []string{"acme", "internal"}[i%2]
				w.Want(host, class)
				if i%3 == 0 {
					_, _ = w.Get(ctx, certHello(host))
				}
				w.Drop(host, class)
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			_ = w.cache.RenewManagedCertificates(ctx)
		}
	})
	wg.Go(func() {
		for i := 2; ctx.Err() == nil; i++ {
			w.adopt(w.generation(i, certTuning{Linger: -1, Budget: -1}))
			w.forget(i - 1)
			_ = w.Status()
		}
	})
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(60 * time.Second):
		t.Fatal("deadlock")
	}
	certAwait(t, "all names are forgotten", func() bool { return len(w.Status()) == 0 })
	w.mu.Lock()
	if n := len(w.under); n != 0 {
		t.Errorf("%d domains are left in the index", n)
	}
	w.mu.Unlock()
	certAwait(t, "the cache is empty", func() bool {
		// A renewal may put a certificate back after its name was forgotten.
		_ = w.cache.RenewManagedCertificates(t.Context())
		for i := range 7 {
			if len(w.exact(fmt.Sprintf("h%d.example.com", i))) > 0 {
				return false
			}
		}
		return true
	})
}

// certmagic v0.25.6 locks its cache and then waits for that lock in
// CacheUnmanagedCertificatePEMBytesAsReplacement. We replace certificates too,
// and must do it without that method.
func TestCertDeadlockReplacement(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(f, "_test.go") && strings.Contains(string(src), "AsReplacement(") {
			t.Errorf("%s uses a method of certmagic that never returns", f)
		}
	}
	w := newCertWorld(t, certTuning{})
	w.Want("a.example.com", "acme")
	w.is("a.example.com", "ready")
	w.Want("a.example.com", "internal")
	w.Drop("a.example.com", "acme")
	certAwait(t, "the certificate is replaced", func() bool { return w.by("a.example.com") == "local" })
}

// A store that is stopped leaves no goroutine and no certificate behind; the
// other end of it is that a second one works on the same storage.
func TestCertFileStorage(t *testing.T) {
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	for range 2 {
		ca := &certCA{key: "ca.example"}
		cs := newCertStore(nil)
		cs.adopt(certGeneration{ID: 1, Storage: storage, Log: zap.NewNop(), Classes: map[string][]certmagic.Issuer{"acme": {ca}}})
		cs.Want("a.example.com", "acme")
		w := &certWorld{certStore: cs, t: t}
		w.is("a.example.com", "ready")
		cs.stop()
	}
	keys, err := storage.List(t.Context(), "dentropy/issuance", true)
	if err != nil || !slices.Equal(keys, []string{"dentropy/issuance/example.com.json"}) {
		t.Errorf("List = %v, %v", keys, err)
	}
}
