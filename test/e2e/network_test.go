package e2e

import (
	"archive/tar"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/network"
)

func TestNetworkConnectAndDisconnect(t *testing.T) {
	e, d := newEngine(t), up(t)
	e.network("first")
	e.network("second")
	s := site("app", "app.localhost")
	s.network = "first"
	e.run(s)
	eventually(t, "app answers", d.servedBy("app.localhost", "/", "app"))
	before := d.waitState("app", "serving").Endpoints[0].Address

	e.must("disconnect", e.c.NetworkDisconnect(t.Context(), "first", "app", true))
	d.waitState("app", "holding")
	e.must("connect", e.c.NetworkConnect(t.Context(), "second", "app", &network.EndpointSettings{}))
	eventually(t, "app answers again", d.servedBy("app.localhost", "/", "app"))
	after := d.waitState("app", "serving").Endpoints[0]
	if after.Address == before || after.Reason == "" {
		t.Errorf("endpoint is %+v, was %s: want the address on the second network, and why", after, before)
	}
	e.remove("app") // before its networks
}

func TestNetworkModes(t *testing.T) {
	e, d := newEngine(t), up(t)

	t.Run("host", func(t *testing.T) {
		port := freePort()
		s := site("onhost", "onhost.localhost", "dentropy.port="+strconv.Itoa(port))
		s.network = "host"
		s.args = []string{"-port", strconv.Itoa(port)}
		e.run(s)
		eventually(t, "it answers", d.servedBy("onhost.localhost", "/", "onhost"))
	})
	t.Run("container", func(t *testing.T) {
		e.run(spec{name: "vpn"})
		s := site("behind", "behind.localhost", "dentropy.port=9000")
		s.network = "container:vpn"
		s.args = []string{"-port", "9000"}
		e.run(s)
		eventually(t, "it answers", d.servedBy("behind.localhost", "/", "behind"))
		// The one whose network it is gets another address.
		e.restart("vpn")
		e.restart("behind")
		eventually(t, "it answers again", d.servedBy("behind.localhost", "/", "behind"))
	})
	t.Run("none", func(t *testing.T) {
		s := site("cutoff", "cutoff.localhost", "dentropy.hold=500ms")
		s.network = "none"
		e.run(s)
		d.waitState("cutoff", "holding")
		out, _ := d.run("why", "cutoff.localhost") // its exit status says that something is bad
		if !strings.Contains(out, "network_mode is none") || !strings.Contains(out, "docker network connect") {
			t.Errorf("dentropy why does not name the network mode and what to do:\n%s", out)
		}
	})
	t.Run("published", func(t *testing.T) {
		s := site("published", "published.localhost")
		s.publish = true
		e.run(s)
		eventually(t, "it answers", d.servedBy("published.localhost", "/", "published"))
	})
}

// In a container of its own, dentropy finds itself and uses the network that it shares
// with a site, not another one of the site's.
func TestInContainer(t *testing.T) {
	e := newEngine(t)
	if err := importImage("e2e-dentropy:1", "dentropy", config.static); err != nil {
		t.Fatal(err)
	}
	e.network("hidden")
	e.network("shared")
	s := site("app", "app.localhost")
	s.network = "hidden"
	e.create(s)
	e.must("connect", e.c.NetworkConnect(t.Context(), "shared", "app", nil))
	e.start("app")
	e.run(spec{
		name: "proxy", image: "e2e-dentropy:1", network: "shared",
		args:  []string{"up", "--data-dir", "/data", "--docker", "unix:///engine.sock"},
		binds: []string{strings.TrimPrefix(os.Getenv("DOCKER_TEST_HOST"), "unix://") + ":/engine.sock"},
	})

	get := func() error {
		pem, err := e.file("proxy", "/data/pki/authorities/local/root.crt")
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		address := net.JoinHostPort(e.ip("proxy"), "443")
		a, err := fetch(&http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{RootCAs: pool},
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", address)
			},
		}}, "https://app.localhost/")
		if err != nil {
			return err
		}
		if a.Name != "app" {
			return fmt.Errorf("%d: %s", a.status, a.body)
		}
		return nil
	}
	eventually(t, "the site answers through the proxy's container", get)
	e.remove("proxy")
	e.remove("app")
}

// file reads a file of a container.
func (e *engine) file(container, path string) ([]byte, error) {
	archive, _, err := e.c.CopyFromContainer(e.t.Context(), container, path)
	if err != nil {
		return nil, err
	}
	defer archive.Close()
	r := tar.NewReader(archive)
	if _, err := r.Next(); err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}
