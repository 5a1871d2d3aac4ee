package dockerengine

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/connhelper"
	"github.com/docker/docker/client"
)

// TLS names PEM files.
type TLS struct {
	// CA verifies the engine. Default: the system's authorities.
	CA string `json:"ca,omitempty"`
	// Cert and Key are the client's certificate, where the engine wants one.
	Cert string `json:"cert,omitempty"`
	Key  string `json:"key,omitempty"`
}

// Endpoint is where an engine is. Make it with Resolve.
type Endpoint struct {
	// URL as the Docker client wants it, or ssh://. It may hold a password: show String.
	URL string
	TLS TLS
	// FromEnv says that DOCKER_CERT_PATH and DOCKER_TLS_VERIFY decide about TLS.
	FromEnv bool
}

// Resolve fills in what the configuration left open, as the Docker command line does.
// Without an at the environment's DOCKER_HOST is used, else the local socket.
func Resolve(at string, tls TLS, getenv func(string) string) (Endpoint, error) {
	ep := Endpoint{URL: at, TLS: tls}
	if ep.URL == "" {
		ep.URL = getenv(client.EnvOverrideHost)
		if strings.HasPrefix(ep.URL, "tcp://") && ep.TLS == (TLS{}) {
			ep.FromEnv = getenv(client.EnvOverrideCertPath) != ""
			if home := getenv("HOME"); !ep.FromEnv && getenv(client.EnvTLSVerify) != "" && home != "" {
				dir := filepath.Join(home, ".docker")
				ep.TLS = TLS{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
			}
		}
	}
	if ep.URL == "" {
		ep.URL = client.DefaultDockerHost
	}
	if strings.HasPrefix(ep.URL, "/") {
		ep.URL = "unix://" + ep.URL
	}
	scheme, rest, ok := strings.Cut(ep.URL, "://")
	if !ok || rest == "" {
		return ep, fmt.Errorf("endpoint %q: want unix:///path, tcp://host:port or ssh://user@host", redact(ep.URL))
	}
	switch scheme {
	case "unix":
		if ep.TLS != (TLS{}) {
			return ep, fmt.Errorf("endpoint %q: TLS is for tcp:// endpoints; remove the tls options", ep.URL)
		}
	case "tcp", "http", "https":
		u, err := url.Parse(ep.URL)
		if err != nil || u.Hostname() == "" {
			return ep, fmt.Errorf("endpoint %q: want tcp://host:port", redact(ep.URL))
		}
		if u.Port() == "" {
			return ep, fmt.Errorf("endpoint %q: the port is missing; Docker's are 2376 with TLS and 2375 without", redact(ep.URL))
		}
	case "ssh":
		if ep.TLS != (TLS{}) {
			return ep, fmt.Errorf("endpoint %q: TLS is for tcp:// endpoints; ssh is encrypted already", redact(ep.URL))
		}
		if _, err := connhelper.GetConnectionHelper(ep.URL); err != nil {
			return ep, fmt.Errorf("endpoint %q: %w", redact(ep.URL), err)
		}
	default:
		return ep, fmt.Errorf("endpoint %q: scheme %q is not known; want unix, tcp or ssh", redact(ep.URL), scheme)
	}
	if (ep.TLS.Cert == "") != (ep.TLS.Key == "") {
		return ep, errors.New("tls: a client certificate needs both cert and key")
	}
	return ep, nil
}

// String is the URL without a password.
func (ep Endpoint) String() string { return redact(ep.URL) }

// redact takes a password out of a URL.
func redact(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.User == nil {
		return s
	}
	return u.Redacted()
}

// Socket is the path of the engine's Unix socket on this machine, "" where it is not
// reached by one.
func (ep Endpoint) Socket() string {
	path, ok := strings.CutPrefix(ep.URL, "unix://")
	if !ok {
		return ""
	}
	return path
}

// Host is the name or address of the machine the engine runs on, "" for this one.
func (ep Endpoint) Host() string {
	if strings.HasPrefix(ep.URL, "unix://") {
		return ""
	}
	u, err := url.Parse(ep.URL)
	if err != nil {
		return ""
	}
	h := u.Hostname()
	if h == "localhost" {
		return ""
	}
	addr, err := netip.ParseAddr(h)
	if err != nil {
		return h
	}
	if addr.IsLoopback() || isOwn(addr) {
		return ""
	}
	return h
}

// isOwn reports whether addr is one of this machine's.
func isOwn(addr netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false // then it is taken for another machine's, which is the safer guess
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().WithZone("") == addr.WithZone("") {
			return true
		}
	}
	return false
}
