package docker

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/discovery/sourcetest"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

func TestReadOnly(t *testing.T) {
	var got []string
	guard := readOnly{roundTripper(func(r *http.Request) (*http.Response, error) {
		got = append(got, r.Method+" "+r.URL.Path)
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
	})}
	calls := []struct {
		method, path string
		ok           bool
	}{
		{"GET", "/_ping", true},
		{"HEAD", "/_ping", true}, // becomes GET
		{"GET", "/v1.44/events", true},
		{"GET", "/v1.44/containers/json", true},
		{"GET", "/prefix/v1.44/containers/abc/json", true},
		{"GET", "/v1.44/networks", true},
		{"GET", "/v1.44/networks/abc", true},
		{"HEAD", "/v1.44/containers/json", false},
		{"POST", "/v1.44/containers/abc/stop", false},
		{"POST", "/v1.44/containers/json", false},
		{"DELETE", "/v1.44/containers/abc", false},
		{"GET", "/v1.44/containers/abc/archive", false},
		{"GET", "/v1.44/containers/abc/logs", false},
		{"GET", "/v1.44/secrets", false},
		{"GET", "/v1.44/info", false},
	}
	for _, c := range calls {
		got = nil
		req := httptest.NewRequest(c.method, c.path, http.NoBody)
		resp, err := guard.RoundTrip(req)
		if resp != nil {
			_ = resp.Body.Close()
		}
		if (err == nil) != c.ok {
			t.Errorf("%s %s: error %v, want allowed %v", c.method, c.path, err, c.ok)
		}
		if c.ok && (len(got) != 1 || !strings.HasPrefix(got[0], "GET ")) {
			t.Errorf("%s %s became %q, want one GET", c.method, c.path, got)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestHint(t *testing.T) {
	tests := []struct{ err, want string }{
		{"permission denied while trying to connect to the Docker daemon socket", "group that owns the socket"},
		{"Error response from daemon: 403 Forbidden", "must allow GET on"},
		{"Cannot connect to the Docker daemon at unix:///x", "start Docker"},
		{"exit status 255: stderr=me@nas: Permission denied (publickey).", "without a passphrase"},
		{"exit status 255: stderr=Host key verification failed.", "connect once by hand"},
		{`exec: "ssh": executable file not found in $PATH`, "OpenSSH client"},
	}
	for _, tt := range tests {
		in := errors.New(tt.err)
		got := hint(in)
		if !errors.Is(got, in) || !strings.Contains(got.Error(), tt.want) {
			t.Errorf("hint(%q) = %q, want it to contain %q", tt.err, got, tt.want)
		}
	}
	for _, plain := range []error{fs.ErrClosed, errors.New(`Get "http://x/v1.51/events?since=1764030403.403": EOF`)} {
		if got := hint(plain); got.Error() != plain.Error() {
			t.Errorf("hint of what has no remedy = %v, want it as it is", got)
		}
	}
}

// pair makes a certificate authority, or with parent a certificate of it, and
// writes it to dir.
func pair(t *testing.T, dir, name string, parent *tls.Certificate) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA: parent == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	signer, signKey := template, any(key)
	if parent != nil {
		signer, signKey = parent.Leaf, parent.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, &key.PublicKey, signKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + "-key.pem": {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ca := pair(t, dir, "ca", nil)
	server := pair(t, dir, "server", ca)
	pair(t, dir, "cert", ca)
	pair(t, dir, "stranger", nil)
	roots := x509.NewCertPool()
	roots.AddCert(ca.Leaf)

	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{TCP: true})
	e.Load(sourcetest.Container{Name: "one"})
	behind, err := url.Parse(strings.Replace(e.Endpoint(), "tcp://", "http://", 1))
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(behind))
	front.TLS = &tls.Config{Certificates: []tls.Certificate{*server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots, MinVersion: tls.VersionTLS12}
	front.StartTLS()
	defer front.Close()
	at := strings.Replace(front.URL, "https://", "tcp://", 1)

	good := TLS{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "cert-key.pem")}
	wrongCA, noClient, missing := good, TLS{CA: good.CA}, good
	wrongCA.CA = filepath.Join(dir, "stranger.pem")
	missing.CA = filepath.Join(dir, "nowhere.pem")
	for name, tt := range map[string]struct {
		tls TLS
		ok  bool
	}{"good": {good, true}, "wrong authority": {wrongCA, false}, "no client certificate": {noClient, false}, "missing file": {missing, false}} {
		t.Run(name, func(t *testing.T) {
			ep, err := dockerengine.Resolve(at, tt.tls, func(string) string { return "" })
			if err != nil {
				t.Fatal(err) // files are read when connecting, so that they may appear later
			}
			conn, err := dial(t.Context(), ep, "")
			if !tt.ok {
				if err == nil {
					t.Error("connected, want an error")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer conn.close()
			if list, err := conn.ContainerList(t.Context(), container.ListOptions{All: true}); err != nil || len(list) != 1 {
				t.Errorf("list = %d containers, %v; want 1", len(list), err)
			}
		})
	}
}
