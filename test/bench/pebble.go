package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// pebble is Let's Encrypt's test server for ACME, its refusals of nonces left on,
// with a DNS server that answers 127.0.0.1 for every name.
type pebble struct {
	directory, root string
	manage          string
	client          *http.Client
	ended           []*exec.Cmd
}

// tool finds a program by its environment variable (scripts/test-tools), or in
// PATH.
func tool(env, name string) (string, error) {
	if path := os.Getenv(env); path != "" {
		return path, nil
	}
	return exec.LookPath(name)
}

// startPebble starts one that validates at the given ports.
func (b *bench) startPebble(httpPort, tlsPort int) (*pebble, error) {
	dir, err := os.MkdirTemp(b.dir, "pebble")
	if err != nil {
		return nil, err
	}
	pool, err := selfSigned(dir)
	if err != nil {
		return nil, err
	}
	var ports [3]int
	for i := range ports {
		if ports[i], err = freePort(); err != nil {
			return nil, err
		}
	}
	at := func(i int) string { return fmt.Sprint("127.0.0.1:", ports[i]) }
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": at(0), "managementListenAddress": at(1), "httpPort": httpPort, "tlsPort": tlsPort,
		"certificate": filepath.Join(dir, "cert.pem"), "privateKey": filepath.Join(dir, "key.pem"),
		"profiles": map[string]any{"default": map[string]any{"description": "default", "validityPeriod": 7776000}},
	}})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "pebble.json"), config, 0o600); err != nil {
		return nil, err
	}
	p := &pebble{
		directory: "https://" + at(0) + "/dir", root: filepath.Join(dir, "cert.pem"), manage: "https://" + at(1),
		client: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}},
	}
	dns, err := tool("DENTROPY_CHALLTESTSRV", "pebble-challtestsrv")
	if err != nil {
		return nil, err
	}
	acme, err := tool("DENTROPY_PEBBLE", "pebble")
	if err != nil {
		return nil, err
	}
	for _, args := range [][]string{
		{dns, "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dnsserver", at(2), "-management", "", "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", ""},
		{acme, "-config", filepath.Join(dir, "pebble.json"), "-dnsserver", at(2)},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
		if err := cmd.Start(); err != nil {
			p.stop()
			return nil, err
		}
		p.ended = append(p.ended, cmd)
	}
	return p, until(20*time.Second, "pebble answers", func() bool {
		resp, err := p.client.Get(p.directory)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil
	})
}

func (p *pebble) stop() {
	for _, cmd := range p.ended {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// roots are what its certificates are verified with.
func (p *pebble) roots() (*x509.CertPool, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, p.manage+"/roots/0", nil)
	if err != nil {
		return nil, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, errors.New("pebble gave no root certificate")
	}
	return pool, nil
}

// selfSigned writes cert.pem and key.pem for 127.0.0.1.
func selfSigned(dir string) (*x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return pool, errors.Join(
		os.WriteFile(filepath.Join(dir, "cert.pem"), certPEM, 0o600),
		os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600),
	)
}
