package dockerengine

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/docker/cli/cli/connhelper"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/client"
)

// OldestAPI is the oldest API version that is supported: Docker 20.10's.
const OldestAPI = "1.41"

const (
	// sshConns is how many ssh connections there are at most, one of them for events.
	// Each is a process and a login, and sshd by default begins to turn logins away,
	// anybody's, once ten are under way (MaxStartups). What is asked for beyond that
	// waits for one that is free.
	sshConns = 6
	// sshIdle is how long one is kept that is of no use at the moment. It is longer
	// than the pauses between the checks of an event stream, so that a quiet engine does
	// not cost a login each time.
	sshIdle = time.Minute
)

// DialOptions say how to connect.
type DialOptions struct {
	// Version overrides the negotiation.
	Version string
	// Wrap puts something in front of the transport. A client with it cannot attach to
	// containers: that takes the connection over. Default: nothing.
	Wrap func(http.RoundTripper) http.RoundTripper
	// Proxied says what a socket proxy must allow, for the hint where one refuses.
	Proxied string
}

// Conn is a client that has been answered.
type Conn struct {
	*client.Client
	transport *http.Transport
}

// Close lets go of connections that are not in use. Calls that are under way go on.
func (c *Conn) Close() error {
	c.transport.CloseIdleConnections()
	return nil
}

// Dial makes a client and pings the engine.
func (ep Endpoint) Dial(ctx context.Context, o DialOptions) (*Conn, error) {
	opts, err := ep.options()
	if err != nil {
		return nil, err
	}
	secure := strings.HasPrefix(ep.URL, "https://")
	var base *http.Transport
	opts = append(opts, func(c *client.Client) error {
		hc := c.HTTPClient()
		t, ok := hc.Transport.(*http.Transport)
		if !ok {
			return fmt.Errorf("unexpected transport %T", hc.Transport)
		}
		base = t
		secure = secure || t.TLSClientConfig != nil
		if o.Wrap != nil {
			hc.Transport = o.Wrap(t)
		}
		return client.WithHTTPClient(hc)(c)
	})
	opts = append(opts, func(c *client.Client) error {
		if secure { // the client cannot see the TLS configuration behind a wrapper
			return client.WithScheme("https")(c)
		}
		return client.WithScheme("http")(c)
	}, client.WithVersion(o.Version))
	cli, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, err
	}
	conn := &Conn{Client: cli, transport: base}
	ping, err := cli.Ping(ctx)
	if err != nil {
		_ = conn.Close()
		return nil, Hint(err, o.Proxied)
	}
	if ping.APIVersion == "" {
		// A proxy took the header away; begin with the oldest that we know, the
		// engine says so where it wants more.
		ping = types.Ping{APIVersion: OldestAPI}
	}
	cli.NegotiateAPIVersionPing(ping)
	return conn, nil
}

// options are those of the Docker client that lead to the endpoint.
func (ep Endpoint) options() ([]client.Opt, error) {
	if strings.HasPrefix(ep.URL, "ssh://") {
		helper, err := connhelper.GetConnectionHelper(ep.URL)
		if err != nil {
			return nil, err
		}
		far, err := url.Parse(ep.URL)
		if err != nil {
			return nil, err
		}
		transport := &http.Transport{
			DialContext:     helper.Dialer,
			MaxConnsPerHost: sshConns, MaxIdleConnsPerHost: sshConns, IdleConnTimeout: sshIdle,
		}
		return []client.Opt{
			client.WithHTTPClient(&http.Client{Transport: transport, CheckRedirect: client.CheckRedirect}),
			// The helper's own host is a placeholder that would turn up in errors.
			client.WithHost("http://" + far.Host), client.WithDialContext(helper.Dialer),
		}, nil
	}
	var opts []client.Opt
	switch {
	case ep.FromEnv:
		opts = append(opts, client.WithTLSClientConfigFromEnv())
	case ep.TLS != (TLS{}):
		opts = append(opts, client.WithTLSClientConfig(ep.TLS.CA, ep.TLS.Cert, ep.TLS.Key))
	}
	return append(opts, client.WithHost(ep.URL)), nil
}
