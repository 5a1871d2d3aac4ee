package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// pebble is Let's Encrypt's test server for ACME, with a DNS server that answers
// 127.0.0.1 for every name. It refuses some nonces, as it does by default.
type pebble struct {
	directory string // URL
	root      string // PEM file with the CA of the directory's own certificate
	manage    string // URL of its management API
	client    *http.Client
}

func startPebble(t *testing.T, httpPort, tlsPort int) *pebble {
	t.Helper()
	dir := t.TempDir()
	pool := writeCertificate(t, dir)
	dns, acme, manage := freePort(), freePort(), freePort()
	cfg, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": fmt.Sprintf("127.0.0.1:%d", acme), "managementListenAddress": fmt.Sprintf("127.0.0.1:%d", manage),
		"certificate": filepath.Join(dir, "cert.pem"), "privateKey": filepath.Join(dir, "key.pem"),
		"httpPort": httpPort, "tlsPort": tlsPort,
		"profiles": map[string]any{"default": map[string]any{"description": "default", "validityPeriod": 7776000}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "pebble.json")
	if err := os.WriteFile(file, cfg, 0o600); err != nil {
		t.Fatal(err)
	}
	resolver := fmt.Sprintf("127.0.0.1:%d", dns)
	background(t, tool(t, "DENTROPY_CHALLTESTSRV"), "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dnsserver", resolver,
		"-management", "", "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "")
	background(t, tool(t, "DENTROPY_PEBBLE"), "-config", file, "-dnsserver", resolver)
	p := &pebble{
		directory: fmt.Sprintf("https://127.0.0.1:%d/dir", acme),
		root:      filepath.Join(dir, "cert.pem"),
		manage:    fmt.Sprintf("https://127.0.0.1:%d", manage),
		client:    &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}},
	}
	t.Cleanup(p.client.CloseIdleConnections)
	eventually(t, "pebble answers", func() error {
		resp, err := p.client.Get(p.directory)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	return p
}

// roots are what pebble's certificates are checked with.
func (p *pebble) roots(t *testing.T) *x509.CertPool {
	t.Helper()
	resp, err := p.client.Get(p.manage + "/roots/0")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		t.Fatalf("no root in %s", text)
	}
	return pool
}

// writeCertificate makes a self-signed certificate for 127.0.0.1 in cert.pem, key.pem.
func writeCertificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "pebble"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		NotBefore:   time.Now().Add(-time.Hour),
		NotAfter:    time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, text := range map[string][]byte{
		"cert.pem": cert,
		"key.pem":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return pool
}

// background runs a program until the end of the test.
func background(t *testing.T, program string, args ...string) {
	t.Helper()
	out := new(logBuffer)
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("output of %s:\n%s", filepath.Base(program), out)
		}
	})
}

// A public name gets its certificate from the certificate authority, before the
// container is started and without a request; reloads and restarts order none.
func TestACME(t *testing.T) {
	e, d := newEngine(t), prepare(t)
	p := startPebble(t, d.http, d.https)
	d.args = []string{"--acme-ca", p.directory, "--acme-ca-root", p.root, "--email", "admin@example.com"}
	d.start()

	began := time.Now()
	e.create(site("shop", "shop.example.com")) // not started
	var cert *x509.Certificate
	eventuallyWithin(t, time.Minute, "a certificate that pebble has signed", func() error {
		var err error
		cert, err = d.certificate("shop.example.com", p.roots(t))
		return err
	})
	t.Logf("from docker create to the certificate: %v", time.Since(began))
	e.start("shop")
	get := func() error {
		a, err := fetch(d.trusting(p.roots(t)), d.url("shop.example.com", "/"))
		if err == nil && a.Name != "shop" {
			err = fmt.Errorf("%d: %s", a.status, a.body)
		}
		return err
	}
	eventually(t, "the site answers", get)
	out, err := d.run("certs")
	if err != nil {
		t.Error(err)
	}
	t.Logf("dentropy certs:\n%s", out)

	same := func(when string) {
		t.Helper()
		now, err := d.certificate("shop.example.com", p.roots(t))
		if err != nil || now.SerialNumber.Cmp(cert.SerialNumber) != 0 {
			t.Errorf("%s it is another certificate (%v)", when, err)
		}
	}
	for range 3 {
		if _, err := d.run("reload"); err != nil {
			t.Fatal(err)
		}
	}
	same("after reloads")
	e.remove("shop")
	e.run(site("shop", "shop.example.com"))
	eventually(t, "the site answers", get)
	same("after the container was made anew")
}

// certificate does a handshake and gives the certificate, if roots vouch for it.
func (d *dentropy) certificate(host string, roots *x509.CertPool) (*x509.Certificate, error) {
	dialer := &tls.Dialer{Config: &tls.Config{ServerName: host, RootCAs: roots}}
	ctx, cancel := context.WithTimeout(d.t.Context(), 5*time.Second)
	defer cancel()
	c, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(d.https)))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// trusting gives a client that trusts roots and connects to this dentropy.
func (d *dentropy) trusting(roots *x509.CertPool) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(d.https)))
		},
	}}
}
