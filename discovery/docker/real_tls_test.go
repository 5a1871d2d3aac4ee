package docker_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dentropy/dentropycloud/discovery"
	"github.com/dentropy/dentropycloud/discovery/docker"
	"github.com/dentropy/dentropycloud/discovery/sourcetest"
)

// tlsFolder makes a folder as DOCKER_CERT_PATH wants it. One certificate is all three:
// authority, server on loopback, and client.
func tlsFolder(t *testing.T) (string, tls.Certificate) {
	t.Helper()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, text := range map[string][]byte{"ca.pem": cert, "cert.pem": cert, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// newTLSFront puts TLS that wants a certificate from its clients before the engine at
// DOCKER_TEST_HOST.
func newTLSFront(t *testing.T, cert tls.Certificate) *front {
	t.Helper()
	own, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(own)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, MinVersion: tls.VersionTLS12,
	})
	if err != nil {
		t.Fatal(err)
	}
	return newFront(t, l, dialEngine)
}

func TestRealTLS(t *testing.T) {
	e := newRealEngine(t)
	dir, cert := tlsFolder(t)
	tests := []struct {
		name string
		cfg  func(t *testing.T, f *front) docker.Config
	}{
		{"configured", func(_ *testing.T, f *front) docker.Config {
			return docker.Config{Endpoint: f.endpoint(), TLS: docker.TLS{
				CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"),
			}}
		}},
		{"environment", func(t *testing.T, f *front) docker.Config {
			t.Setenv("DOCKER_HOST", f.endpoint())
			t.Setenv("DOCKER_CERT_PATH", dir)
			t.Setenv("DOCKER_TLS_VERIFY", "1")
			return docker.Config{}
		}},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newTLSFront(t, cert)
			src, err := docker.New(test.cfg(t, f), discovery.SourceOptions{Name: "docker:tls", Dialects: []discovery.Dialect{sourcetest.Labels{}}})
			e.must(err)
			rec, stop := sourcetest.Watch(t, src.Quick())
			rec.Wait(t, "the first list", func() bool { return rec.Count("replace") == 1 })
			name := func(s string) string { return s + string(rune('a'+i)) }
			run := func(s string) string {
				id := e.create(name(s), map[string]string{"test.host": name(s) + ".example.com"}, nil)
				e.start(id)
				return id
			}
			one := run("one")
			(&bench{t: t, rec: rec}).waitAddress(e.tag+name("one"), e.ip(one, "bridge")) // loopback is this machine
			f.cut()
			rec.Wait(t, "the engine to be unknown", func() bool { return rec.Stale() != nil })
			run("two")
			f.open()
			rec.WaitState(t, e.tag+name("two"), discovery.Running)
			rec.Wait(t, "the engine to be known again", func() bool { return rec.Stale() == nil })
			stop()
		})
	}
}

func TestRealTLSTrouble(t *testing.T) {
	newRealEngine(t) // or there is nothing to keep strangers from
	dir, cert := tlsFolder(t)
	other, _ := tlsFolder(t)
	files := func(ca, client string) docker.TLS {
		out := docker.TLS{CA: filepath.Join(ca, "ca.pem")}
		if client != "" {
			out.Cert, out.Key = filepath.Join(client, "cert.pem"), filepath.Join(client, "key.pem")
		}
		return out
	}
	tests := []struct {
		name string
		tls  docker.TLS
		want string
	}{
		{"no client certificate", files(dir, ""), "certificate required"},
		{"a stranger's certificate", files(dir, other), "tls: "},
		{"another authority", files(other, dir), "x509: "},
		{"no file", files("/nonexistent", dir), "/nonexistent/ca.pem"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newTLSFront(t, cert)
			src, err := docker.New(docker.Config{Endpoint: f.endpoint(), TLS: test.tls},
				discovery.SourceOptions{Name: "docker:tls", Dialects: []discovery.Dialect{sourcetest.Labels{}}})
			if err != nil {
				t.Fatal(err)
			}
			rec, stop := sourcetest.Watch(t, src.Quick())
			rec.Wait(t, "the trouble", func() bool { return rec.Stale() != nil })
			stop()
			if got := rec.Stale().Error(); !strings.Contains(got, test.want) {
				t.Errorf("says %q, want it to contain %q", got, test.want)
			}
			if rec.Count("replace") != 0 {
				t.Error("there was a list")
			}
		})
	}
}
