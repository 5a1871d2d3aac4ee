package caddymodule

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// certCA is a certificate authority in memory, and an issuer of certmagic's.
type certCA struct {
	key      string        // of its place in storage
	local    bool          // it counts as one in this process
	lifetime time.Duration // Default: 90 days

	once   sync.Once
	signer *ecdsa.PrivateKey
	root   *x509.Certificate

	mu     sync.Mutex // guards the rest
	before func(ctx context.Context, host string) error
	asked  []string    // hosts, in order
	times  []time.Time // the same
}

func (ca *certCA) IssuerKey() string { return ca.key }
func (ca *certCA) LocalIssuer() bool { return ca.local }

// PreCheck implements certmagic.PreChecker: interactive would stop at the
// terminal and ask for an email address.
func (ca *certCA) PreCheck(_ context.Context, _ []string, interactive bool) error {
	if interactive {
		return errors.New("asked to be interactive")
	}
	return nil
}

func (ca *certCA) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	host := csrName(csr)
	ca.mu.Lock()
	ca.asked = append(ca.asked, host)
	ca.times = append(ca.times, time.Now())
	before := ca.before
	ca.mu.Unlock()
	if before != nil {
		if err := before(ctx, host); err != nil {
			return nil, err
		}
	}
	life := ca.lifetime
	if life == 0 {
		life = 90 * 24 * time.Hour
	}
	return &certmagic.IssuedCertificate{Certificate: ca.sign(csr.PublicKey, csr.DNSNames, life)}, nil
}

// sign makes a certificate in PEM, valid from now on.
func (ca *certCA) sign(key any, names []string, life time.Duration) []byte {
	ca.once.Do(func() {
		ca.signer, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		tmpl := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: ca.key}, IsCA: true, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour),
		}
		der, _ := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &ca.signer.PublicKey, ca.signer)
		ca.root, _ = x509.ParseCertificate(der)
	})
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	tmpl := &x509.Certificate{SerialNumber: serial, NotBefore: time.Now(), NotAfter: time.Now().Add(life)}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.root, key, ca.signer)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// fail makes every request fail with err, or succeed if it is nil.
func (ca *certCA) fail(err error) {
	ca.do(func(context.Context, string) error { return err })
}

func (ca *certCA) do(f func(ctx context.Context, host string) error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.before = f
}

// count says how often the CA was asked, for host if that is not "".
func (ca *certCA) count(host string) int {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if host == "" {
		return len(ca.asked)
	}
	return len(slices.DeleteFunc(slices.Clone(ca.asked), func(h string) bool { return h != host }))
}

// store puts a certificate for host into storage as this CA would have.
func (ca *certCA) store(t testing.TB, storage certmagic.Storage, host string, life time.Duration) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certStoreFiles(t, storage, ca.key, host, ca.sign(&key.PublicKey, []string{host}, life),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

func certStoreFiles(t testing.TB, storage certmagic.Storage, issuer, host string, cert, key []byte) {
	t.Helper()
	for k, v := range map[string][]byte{
		certmagic.StorageKeys.SiteCert(issuer, host):       cert,
		certmagic.StorageKeys.SitePrivateKey(issuer, host): key,
		certmagic.StorageKeys.SiteMeta(issuer, host):       []byte(`{"sans":["` + host + `"]}`),
	} {
		if err := storage.Store(t.Context(), k, v); err != nil {
			t.Fatal(err)
		}
	}
}

// certWorld is a store with two classes: "acme" and "internal".
type certWorld struct {
	*certStore
	t        testing.TB
	storage  *memStorage
	acme     *certCA
	internal *certCA
}

// newCertWorld makes a store with a config. In a synctest bubble it must be
// stopped before the end: stop does so.
func newCertWorld(t testing.TB, tuning certTuning) *certWorld {
	w := &certWorld{
		certStore: newCertStore(nil), t: t,
		storage:  newMemStorage(),
		acme:     &certCA{key: "ca.example"},
		internal: &certCA{key: "local", local: true},
	}
	t.Cleanup(w.stop)
	w.adopt(w.generation(1, tuning))
	return w
}

func (w *certWorld) generation(id any, tuning certTuning) certGeneration {
	return certGeneration{
		ID: id, Storage: w.storage, Log: zap.NewNop(), Tuning: tuning,
		Classes: map[string][]certmagic.Issuer{"acme": {w.acme}, "internal": {w.internal}},
	}
}

// is waits until host is in this state.
func (w *certWorld) is(host, state string) CertStatus {
	w.t.Helper()
	var st CertStatus
	certAwaitf(w.t, func() bool { st, _ = w.StatusOf(host); return st.State == state },
		func() string { return "state of " + host + " is " + state + "; it is " + st.State + " " + st.LastError })
	return st
}

func certAwait(t testing.TB, what string, f func() bool) {
	t.Helper()
	certAwaitf(t, f, func() string { return what })
}

// certAwaitf waits until f holds.
func certAwaitf(t testing.TB, f func() bool, what func() string) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(20 * time.Second)
	defer late.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("waited in vain until %s", what())
		}
	}
}

// now gives the state of host after all that can happen without time passing;
// for synctest bubbles.
func (w *certWorld) now(host string) CertStatus {
	w.t.Helper()
	synctest.Wait()
	st, _ := w.StatusOf(host)
	return st
}

// hello is what a browser sends.
func certHello(host string) *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{
		ServerName:        host,
		CipherSuites:      []uint16{tls.TLS_AES_128_GCM_SHA256},
		SupportedVersions: []uint16{tls.VersionTLS13},
		SignatureSchemes:  []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
		SupportedCurves:   []tls.CurveID{tls.CurveP256},
	}
}

// served gives the names of the certificate that a visitor of host gets.
func (w *certWorld) served(host string) []string {
	w.t.Helper()
	c, err := w.Get(w.t.Context(), certHello(host))
	if err != nil {
		w.t.Fatalf("Get(%q): %v", host, err)
	}
	if c == nil {
		return nil
	}
	return c.Leaf.DNSNames
}

// by gives who issued the certificate that a visitor of host gets.
func (w *certWorld) by(host string) string {
	w.t.Helper()
	c, err := w.Get(w.t.Context(), certHello(host))
	if err != nil || c == nil {
		w.t.Fatalf("Get(%q) = %v, %v", host, c, err)
	}
	return c.Leaf.Issuer.CommonName
}
