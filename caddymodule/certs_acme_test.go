package caddymodule

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"github.com/libdns/rfc2136"
)

func init() {
	caddy.RegisterModule(rfc2136Test{})
}

// rfc2136Test is a DNS provider for the tests: dynamic updates with TSIG.
type rfc2136Test struct{ rfc2136.Provider }

func (rfc2136Test) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "dns.providers.rfc2136test", New: func() caddy.Module { return new(rfc2136Test) }}
}

// certTool finds a program that the tests need. Without it the test is skipped,
// except in CI, where everything is installed.
func certTool(t testing.TB, env, name string, more ...string) string {
	t.Helper()
	for _, path := range append([]string{os.Getenv(env), name}, more...) {
		if path == "" {
			continue
		}
		if path, err := exec.LookPath(path); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed: set %s to its path", name, env)
	}
	t.Skipf("%s is not installed: set %s to its path", name, env)
	return ""
}

// certRun starts a program that ends with the test; its output shows if the test
// fails.
func certRun(t testing.TB, env []string, name string, args ...string) {
	t.Helper()
	var out certOutput
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", filepath.Base(name), out.String())
		}
	})
}

type certOutput struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *certOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *certOutput) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// certListens waits until something accepts connections on a port.
func certListens(t testing.TB, port int) {
	t.Helper()
	certAwait(t, fmt.Sprintf("port %d is open", port), func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// pebble is a real ACME CA, with a DNS server that says 127.0.0.1 for every name
// unless another is given.
type pebble struct {
	directory string
	roots     string // PEM file that its own certificate is verified by
	dns       int    // port of challtestsrv's management, 0 if there is none
}

// newPebble starts a CA that validates on the ports of c.
func newPebble(t testing.TB, c *certCaddy, dnsServer string) pebble {
	t.Helper()
	bin := certTool(t, "DENTROPY_PEBBLE", "pebble")
	p := pebble{}
	if dnsServer == "" {
		dns := certFreePort(t)
		p.dns = certFreePort(t)
		certRun(t, nil, certTool(t, "DENTROPY_CHALLTESTSRV", "pebble-challtestsrv"),
			"-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "",
			"-dnsserver", fmt.Sprintf("127.0.0.1:%d", dns), "-management", fmt.Sprintf("127.0.0.1:%d", p.dns))
		certListens(t, p.dns)
		dnsServer = fmt.Sprintf("127.0.0.1:%d", dns)
	}
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	ca := &certCA{key: "pebble's own"}
	cert := ca.sign(&key.PublicKey, []string{"127.0.0.1"}, 24*time.Hour)
	p.roots = filepath.Join(dir, "root.pem")
	port, management := certFreePort(t), certFreePort(t)
	for name, content := range map[string][]byte{
		"cert.pem": cert,
		"key.pem":  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
		"root.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.root.Raw}),
		"config.json": fmt.Appendf(nil, `{"pebble":{"listenAddress":"127.0.0.1:%d","managementListenAddress":"127.0.0.1:%d",
"certificate":%q,"privateKey":%q,"httpPort":%d,"tlsPort":%d,"domainBlocklist":["blocked.example"],"retryAfter":{"authz":1,"order":1},
"keyAlgorithm":"ecdsa"}}`, port, management, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), c.http, c.https),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Its nonce rejections are left on; only the pause before validations is off.
	certRun(t, []string{"PEBBLE_VA_NOSLEEP=1"}, bin, "-config", filepath.Join(dir, "config.json"), "-dnsserver", dnsServer)
	certListens(t, port)
	p.directory = fmt.Sprintf("https://127.0.0.1:%d/dir", port)
	return p
}

// issuer gives the JSON of an issuer; challenges may be empty.
func (p pebble) issuer(challenges string) string {
	if challenges != "" {
		challenges = `,"challenges":` + challenges
	}
	// No email address: the terminal is not to be asked for one.
	return fmt.Sprintf(`{"module":"acme","ca":%q,"trusted_roots_pem_files":[%q]%s}`, p.directory, p.roots, challenges)
}

// unknown makes a name that does not exist.
func (p pebble) unknown(t testing.TB, host string, resolves bool) {
	t.Helper()
	call, body := "set-servfail", fmt.Sprintf(`{"host":"%s."}`, host)
	if resolves {
		call = "clear-servfail"
	}
	resp, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/%s", p.dns, call), "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", call, resp.Status)
	}
}

func TestCertACME(t *testing.T) {
	c := newCertCaddy(t, "")
	p := newPebble(t, c, "")
	c.issuers = fmt.Sprintf(`{"acme":%s,"http":%s,"alpn":%s,"internal":{"module":"internal"}}`,
		p.issuer(""), p.issuer(`{"tls-alpn":{"disabled":true}}`), p.issuer(`{"http":{"disabled":true}}`))
	w := c.load()
	for class, host := range map[string]string{"acme": "any.example.com", "http": "http.example.com", "alpn": "alpn.example.com"} {
		start := time.Now()
		w.Want(host, class)
		if _, err := c.handshake(host); err != nil { // the first visitor waits
			st, _ := w.StatusOf(host)
			t.Errorf("%s: %v; %+v", host, err, st)
			continue
		}
		st := w.is(host, "ready")
		if !strings.HasPrefix(st.Issuer, "Pebble Intermediate") {
			t.Errorf("%s was issued by %q", host, st.Issuer)
		}
		t.Logf("%s: first certificate after %v", class, time.Since(start).Round(time.Millisecond))
		certAwait(t, "the CA says when to renew", func() bool {
			info, ok := w.Renewal(t.Context(), host)
			return ok && !info.SuggestedWindow.Start.IsZero()
		})
	}
	// Nothing is asked for again because of a reload.
	before := w.is("http.example.com", "ready").Serial
	c.load()
	if got := w.is("http.example.com", "ready").Serial; got != before {
		t.Error("a reload made a new certificate")
	}
	// Another name with the same account, during a reload that fails.
	c.fail = true
	if err := caddy.Load(c.config(), true); err == nil {
		t.Fatal("the load did not fail")
	}
	w.Want("later.example.com", "acme")
	w.is("later.example.com", "ready")

	// Wildcards need DNS: no attempt is spent on them.
	w.Want("*.example.com", "acme")
	st := w.is("*.example.com", "failed")
	if !strings.Contains(st.LastError, "a wildcard certificate needs a DNS challenge") || st.Attempts != 0 || !st.NextTry.IsZero() {
		t.Errorf("status = %+v", st)
	}
	w.Want("below.example.com", "acme") // not covered by it
	w.is("below.example.com", "ready")
}

func TestCertACMEFailure(t *testing.T) {
	c := newCertCaddy(t, "")
	p := newPebble(t, c, "")
	c.issuers = fmt.Sprintf(`{"acme":%s}`, p.issuer(""))
	c.tuning = `"per_hour":-1,"backoff":"300ms",`
	w := c.load()
	p.unknown(t, "gone.example.com", false)
	w.Want("gone.example.com", "acme")
	w.Want("blocked.example", "acme")
	certAwait(t, "it is tried again", func() bool { st, _ := w.StatusOf("gone.example.com"); return st.Attempts > 1 && st.State == "failed" })
	st := w.is("gone.example.com", "failed")
	if st.LastError == "" || st.NextTry.IsZero() {
		t.Errorf("status = %+v", st)
	}
	t.Logf("%s | %s", st.LastError, st.Hint)
	st = w.is("blocked.example", "failed")
	if !strings.Contains(st.LastError, "rejectedIdentifier") || st.Hint == "" {
		t.Errorf("status = %+v", st)
	}
	if got := w.budget.spent["example.com"].Issued; len(got) != 0 {
		t.Errorf("failures are counted: %v", got)
	}
	p.unknown(t, "gone.example.com", true)
	w.is("gone.example.com", "ready")
	if st, _ := w.StatusOf("gone.example.com"); st.LastError != "" {
		t.Errorf("status = %+v", st)
	}
}

// knot is a real DNS server with one zone that takes updates signed with key.
func newKnot(t testing.TB, zone string) (address, key string) {
	t.Helper()
	bin := certTool(t, "DENTROPY_KNOTD", "knotd", "/usr/sbin/knotd")
	dir := t.TempDir()
	port := certFreePort(t)
	key = "c2VjcmV0IG9mIHRoZSB0ZXN0cyB0aGF0IGlzIGxvbmcgZW5vdWdo"
	files := map[string]string{
		"knot.conf": fmt.Sprintf(`server:
    listen: 127.0.0.1@%d
    rundir: %[2]s
database:
    storage: %[2]s
key:
  - id: dentropy
    algorithm: hmac-sha256
    secret: %[3]s
acl:
  - id: update
    address: 127.0.0.1
    key: dentropy
    action: [update, transfer]
zone:
  - domain: %[4]s
    storage: %[2]s
    file: zone
    acl: update
    journal-content: none
    zonefile-sync: -1
log:
  - target: stderr
    any: info
`, port, dir, key, zone),
		"zone": fmt.Sprintf(`$ORIGIN %s.
$TTL 1
@ SOA ns hostmaster 1 60 60 600 1
@ NS ns
ns A 127.0.0.1
* A 127.0.0.1
`, zone),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	certRun(t, nil, bin, "-c", filepath.Join(dir, "knot.conf"))
	certListens(t, port)
	return fmt.Sprintf("127.0.0.1:%d", port), key
}

func TestCertACMEDNS(t *testing.T) {
	c := newCertCaddy(t, "")
	server, key := newKnot(t, "dns.example")
	p := newPebble(t, c, server)
	dns := func(key string) string {
		return p.issuer(fmt.Sprintf(`{"dns":{"provider":{"name":"rfc2136test","key_name":"dentropy","key_alg":"hmac-sha256",
"key":%q,"server":%q},"resolvers":[%q],"propagation_timeout":"20s"}}`, key, server, server))
	}
	c.issuers = fmt.Sprintf(`{"dns":%s,"wrong":%s}`, dns(key), dns("d3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmc="))
	w := c.load()
	w.Want("*.dns.example", "dns")
	w.Want("a.dns.example", "dns")   // covered
	w.Want("dns.example", "dns")     // the same TXT name, at the same time
	w.Want("x.y.dns.example", "dns") // not covered
	for host, want := range map[string]string{
		"a.dns.example": "*.dns.example", "dns.example": "dns.example", "x.y.dns.example": "x.y.dns.example", "other.dns.example": "*.dns.example",
	} {
		cert, err := c.handshake(host)
		if err != nil {
			t.Errorf("%s: %v; %+v", host, err, w.Status())
			continue
		}
		if cert.DNSNames[0] != want {
			t.Errorf("%s was served %v, want %s", host, cert.DNSNames, want)
		}
	}
	if st := w.is("a.dns.example", "covered"); st.CoveredBy != "*.dns.example" || st.Attempts != 0 {
		t.Errorf("status = %+v", st)
	}
	w.Want("b.c.dns.example", "wrong")
	st := w.is("b.c.dns.example", "failed")
	if st.LastError == "" || st.NextTry.IsZero() || strings.Contains(st.LastError, key) {
		t.Errorf("status = %+v", st)
	}
	t.Logf("%s", st.LastError)
}

func TestFitACMEIssuer(t *testing.T) {
	tests := []struct {
		name        string
		challenges  *caddytls.ChallengesConfig
		http, https int
		want        [2]int
	}{
		{name: "standard ports", http: 80, https: 443},
		{name: "none known"},
		{name: "both", http: 8080, https: 8443, want: [2]int{8080, 8443}},
		{name: "one", http: 8080, https: 443, want: [2]int{8080, 0}},
		{
			name:       "kept",
			challenges: &caddytls.ChallengesConfig{HTTP: &caddytls.HTTPChallengeConfig{AlternatePort: 81}},
			http:       8080, https: 8443, want: [2]int{81, 8443},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
			defer cancel()
			iss := &caddytls.ACMEIssuer{Challenges: tt.challenges}
			if err := errors.Join(iss.Provision(ctx), fitACMEIssuer(ctx, iss, tt.http, tt.https)); err != nil {
				t.Fatal(err)
			}
			var got [2]int
			if c := iss.Challenges; c != nil {
				if c.HTTP != nil {
					got[0] = c.HTTP.AlternatePort
				}
				if c.TLSALPN != nil {
					got[1] = c.TLSALPN.AlternatePort
				}
			}
			if got != tt.want {
				t.Errorf("ports = %v, want %v", got, tt.want)
			}
		})
	}
}

// Interface guards
var _ certmagic.DNSProvider = (*rfc2136Test)(nil)
