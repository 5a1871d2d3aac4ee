package docker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli/connhelper"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
)

// engine is what this package uses of the Docker client.
type engine interface {
	Events(ctx context.Context, opts events.ListOptions) (<-chan events.Message, <-chan error)
	ContainerList(ctx context.Context, opts container.ListOptions) ([]container.Summary, error)
	ContainerInspect(ctx context.Context, id string) (container.InspectResponse, error)
	NetworkList(ctx context.Context, opts network.ListOptions) ([]network.Summary, error)
	NetworkInspect(ctx context.Context, id string, opts network.InspectOptions) (network.Inspect, error)
}

// connection is a client that has been answered.
type connection struct {
	engine
	transport *http.Transport
}

func (c *connection) close() { c.transport.CloseIdleConnections() }

// endpoint is where an engine is, resolved once.
type endpoint struct {
	url     string // as the Docker client wants it, or ssh://
	tls     TLS
	fromEnv bool // DOCKER_CERT_PATH and DOCKER_TLS_VERIFY decide about TLS
}

// resolveEndpoint fills in what the configuration left open, as the Docker command
// line does.
func resolveEndpoint(cfg Config, getenv func(string) string) (endpoint, error) {
	ep := endpoint{url: cfg.Endpoint, tls: cfg.TLS}
	if ep.url == "" {
		ep.url = getenv(client.EnvOverrideHost)
		if strings.HasPrefix(ep.url, "tcp://") && ep.tls == (TLS{}) {
			ep.fromEnv = getenv(client.EnvOverrideCertPath) != ""
			if home := getenv("HOME"); !ep.fromEnv && getenv(client.EnvTLSVerify) != "" && home != "" {
				dir := filepath.Join(home, ".docker")
				ep.tls = TLS{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
			}
		}
	}
	if ep.url == "" {
		ep.url = client.DefaultDockerHost
	}
	if strings.HasPrefix(ep.url, "/") {
		ep.url = "unix://" + ep.url
	}
	scheme, rest, ok := strings.Cut(ep.url, "://")
	if !ok || rest == "" {
		return ep, fmt.Errorf("endpoint %q: want unix:///path, tcp://host:port or ssh://user@host", redact(ep.url))
	}
	switch scheme {
	case "unix":
		if ep.tls != (TLS{}) {
			return ep, fmt.Errorf("endpoint %q: TLS is for tcp:// endpoints; remove the tls options", ep.url)
		}
	case "tcp", "http", "https":
		u, err := url.Parse(ep.url)
		if err != nil || u.Hostname() == "" {
			return ep, fmt.Errorf("endpoint %q: want tcp://host:port", redact(ep.url))
		}
		if u.Port() == "" {
			return ep, fmt.Errorf("endpoint %q: the port is missing; Docker's are 2376 with TLS and 2375 without", redact(ep.url))
		}
	case "ssh":
		if ep.tls != (TLS{}) {
			return ep, fmt.Errorf("endpoint %q: TLS is for tcp:// endpoints; ssh is encrypted already", redact(ep.url))
		}
		if _, err := connhelper.GetConnectionHelper(ep.url); err != nil {
			return ep, fmt.Errorf("endpoint %q: %w", redact(ep.url), err)
		}
	default:
		return ep, fmt.Errorf("endpoint %q: scheme %q is not known; want unix, tcp or ssh", redact(ep.url), scheme)
	}
	if (ep.tls.Cert == "") != (ep.tls.Key == "") {
		return ep, errors.New("tls: a client certificate needs both cert and key")
	}
	return ep, nil
}

// redact takes a password out of a URL.
func redact(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.User == nil {
		return s
	}
	return u.Redacted()
}

// host is the name or address of the machine the engine runs on, "" for this one.
func (ep endpoint) host() string {
	if strings.HasPrefix(ep.url, "unix://") {
		return ""
	}
	u, err := url.Parse(ep.url)
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

// dial makes a client and pings the engine. version overrides the negotiation.
func (ep endpoint) dial(ctx context.Context, version string) (*connection, error) {
	var opts []client.Opt
	secure := false
	if strings.HasPrefix(ep.url, "ssh://") {
		helper, err := connhelper.GetConnectionHelper(ep.url)
		if err != nil {
			return nil, err
		}
		far, err := url.Parse(ep.url)
		if err != nil {
			return nil, err
		}
		transport := &http.Transport{
			DialContext:     helper.Dialer,
			MaxConnsPerHost: sshConns, MaxIdleConnsPerHost: sshConns, IdleConnTimeout: sshIdle,
		}
		opts = append(opts,
			client.WithHTTPClient(&http.Client{Transport: transport, CheckRedirect: client.CheckRedirect}),
			// The helper's own host is a placeholder that would turn up in errors.
			client.WithHost("http://"+far.Host), client.WithDialContext(helper.Dialer))
	} else {
		switch {
		case ep.fromEnv:
			opts = append(opts, client.WithTLSClientConfigFromEnv())
		case ep.tls != (TLS{}):
			opts = append(opts, client.WithTLSClientConfig(ep.tls.CA, ep.tls.Cert, ep.tls.Key))
		}
		opts = append(opts, client.WithHost(ep.url))
		secure = strings.HasPrefix(ep.url, "https://")
	}
	var base *http.Transport
	opts = append(opts, func(c *client.Client) error {
		hc := c.HTTPClient()
		t, ok := hc.Transport.(*http.Transport)
		if !ok {
			return fmt.Errorf("unexpected transport %T", hc.Transport)
		}
		base = t
		secure = secure || t.TLSClientConfig != nil
		hc.Transport = readOnly{t}
		return client.WithHTTPClient(hc)(c)
	})
	opts = append(opts, func(c *client.Client) error {
		if secure { // the client cannot see the TLS configuration behind the guard
			return client.WithScheme("https")(c)
		}
		return client.WithScheme("http")(c)
	}, client.WithVersion(version))
	cli, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, err
	}
	conn := &connection{engine: cli, transport: base}
	ping, err := cli.Ping(ctx)
	if err != nil {
		conn.close()
		return nil, hint(err)
	}
	if ping.APIVersion == "" {
		// A proxy took the header away; begin with the oldest that we know, the
		// engine says so where it wants more.
		ping = types.Ping{APIVersion: oldestAPI}
	}
	cli.NegotiateAPIVersionPing(ping)
	return conn, nil
}

// oldestAPI is the oldest API version that is supported: Docker 20.10's.
const oldestAPI = "1.41"

const (
	// sshConns is how many ssh connections there are at most, one of them for events.
	// Each is a process and a login, and sshd by default begins to turn logins away,
	// anybody's, once ten are under way (MaxStartups). What is asked for beyond that
	// waits for one that is free.
	sshConns = 6
	// sshIdle is how long one is kept that is of no use at the moment. It is longer
	// than idleCheck, so that a quiet engine does not cost a login each time.
	sshIdle = time.Minute
)

// readOnly lets through GET on the six paths of the package documentation and
// nothing else: what is not asked for needs no permission, and a bug cannot
// change anything.
type readOnly struct{ next http.RoundTripper }

var allowedPaths = regexp.MustCompile(`(^|/)(_ping|events|containers/json|containers/[^/]+/json|networks|networks/[^/]+)$`)

func (r readOnly) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodHead && strings.HasSuffix(req.URL.Path, "/_ping") {
		// The client pings with HEAD first, which a proxy may not allow.
		req = req.Clone(req.Context())
		req.Method = http.MethodGet
	}
	if req.Method != http.MethodGet || !allowedPaths.MatchString(req.URL.Path) {
		return nil, fmt.Errorf("%s %s is not among the calls this program makes", req.Method, req.URL.Path)
	}
	return r.next.RoundTrip(req)
}

var rangeText = regexp.MustCompile(`(?:Minimum|Maximum) supported API version is (\d+\.\d+)`)

// wantedVersion returns the API version that the engine asks for in err, or "".
func wantedVersion(err error) string {
	if err == nil {
		return ""
	}
	if m := rangeText.FindStringSubmatch(err.Error()); m != nil {
		return m[1]
	}
	return ""
}

// hint adds what the user can do to errors that have a known remedy.
func hint(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	switch {
	case errors.Is(err, fs.ErrPermission), os.IsPermission(err), strings.Contains(text, "permission denied"):
		return fmt.Errorf("%w (add this user to the group that owns the socket, usually \"docker\", or run as root)", err)
	case errdefs.IsPermissionDenied(err), strings.Contains(text, "Forbidden"):
		return fmt.Errorf("%w (a socket proxy in front of Docker must allow GET on /_ping, /events, /containers and /networks)", err)
	case strings.Contains(text, "Cannot connect to the Docker daemon"), strings.Contains(text, "no such file"):
		return fmt.Errorf("%w (install or start Docker, or name its endpoint)", err)
	case strings.Contains(text, "Permission denied (publickey"): // what follows is ssh's
		return fmt.Errorf("%w (give that user a key that the ssh command of this one can use without a passphrase or with an agent)", err)
	case strings.Contains(text, "Host key verification failed"):
		return fmt.Errorf("%w (connect once by hand with the ssh command, as this user, so that it knows the machine's key)", err)
	case errors.Is(err, exec.ErrNotFound), strings.Contains(text, exec.ErrNotFound.Error()):
		return fmt.Errorf("%w (install the OpenSSH client, or use a tcp:// endpoint with TLS)", err)
	}
	return err
}
