package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// certificate measures the first HTTPS answer of a new name: from the internal
// CA, with a certificate that is stored already, and from an ACME server.
func certificate(b *bench) (table, error) {
	t := table{
		head: []string{"certificate", "event → first 200 over HTTPS, p50", "p99"},
		note: fmt.Sprintf("%d names each (%d from Pebble, which refuses 5 %% of nonces and asks its clients to poll an order after a second or more). Every try is a handshake of its own.", certRounds, acmeRounds),
	}
	if err := b.internalCertificates(&t); err != nil {
		return t, err
	}
	return t, b.acmeCertificates(&t)
}

const (
	certRounds = 100
	acmeRounds = 20
)

func (b *bench) internalCertificates(t *table) error {
	h, err := b.home(10)
	if h != nil {
		defer func() { h.end() }()
	}
	if err != nil {
		return err
	}
	pem, err := os.ReadFile(filepath.Join(h.data, "pki/authorities/local/root.crt"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	ids := make([]string, certRounds)
	fresh, err := h.httpsTimes(certRounds, roots, func(i int) {
		ids[i] = h.engine.Run(container(fmt.Sprint("tls", i), h.port, "dentropy.tls=internal"))
	})
	if err != nil {
		return err
	}
	t.add("new, from the internal CA", fresh[certRounds/2], fresh[certRounds-1])
	h.stop()
	for _, id := range ids {
		h.engine.Destroy(id)
	}
	again, err := b.upIn(h.data, h.engine.Endpoint())
	if err != nil {
		return err
	}
	h.process = again
	h.end = func() { again.stop(); h.engine.Close() }
	if err := h.serving(10); err != nil {
		return err
	}
	stored, err := h.httpsTimes(certRounds, roots, func(i int) {
		h.engine.Run(container(fmt.Sprint("tls", i), h.port, "dentropy.tls=internal"))
	})
	if err != nil {
		return err
	}
	t.add("stored", stored[certRounds/2], stored[certRounds-1])
	return nil
}

func (b *bench) acmeCertificates(t *table) error {
	http, err := freePort()
	if err != nil {
		return err
	}
	https, err := freePort()
	if err != nil {
		return err
	}
	p, err := b.startPebble(http, https)
	if p != nil {
		defer p.stop()
	}
	if err != nil {
		return err
	}
	h, err := b.home(10, "--acme-ca", p.directory, "--acme-ca-root", p.root, "--http-port", fmt.Sprint(http), "--https-port", fmt.Sprint(https))
	if h != nil {
		defer h.end()
	}
	if err != nil {
		return err
	}
	roots, err := p.roots()
	if err != nil {
		return err
	}
	took, err := h.httpsTimes(acmeRounds, roots, func(i int) {
		h.engine.Run(container(fmt.Sprint("tls", i), h.port, "dentropy.tls=acme"))
	})
	if err != nil {
		return err
	}
	t.add("new, from Pebble", took[acmeRounds/2], took[acmeRounds-1])
	return nil
}

// httpsTimes gives the sorted times from begin(i) to the first 200 of site i.
func (h *home) httpsTimes(n int, roots *x509.CertPool, begin func(i int)) ([]time.Duration, error) {
	took := make([]time.Duration, n)
	for i := range took {
		name := host(fmt.Sprint("tls", i))
		at := time.Now()
		begin(i)
		if err := until(time.Minute, name+" answers", func() bool {
			conn, err := tls.Dial("tcp", h.https, &tls.Config{ServerName: name, RootCAs: roots, MinVersion: tls.VersionTLS12})
			if err != nil {
				return false
			}
			c := newClient(conn)
			defer c.close()
			status, err := c.get(name)
			return err == nil && status == 200
		}); err != nil {
			return nil, err
		}
		took[i] = time.Since(at)
	}
	slices.Sort(took)
	return took, nil
}
