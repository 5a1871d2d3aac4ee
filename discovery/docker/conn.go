package docker

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/network"

	"github.com/dentropy/dentropycloud/internal/dockerengine"
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
	conn *dockerengine.Conn
}

func (c *connection) close() { _ = c.conn.Close() }

// dial makes a client and pings the engine. version overrides the negotiation.
func dial(ctx context.Context, ep dockerengine.Endpoint, version string) (*connection, error) {
	conn, err := ep.Dial(ctx, dockerengine.DialOptions{
		Version: version,
		Wrap:    func(next http.RoundTripper) http.RoundTripper { return readOnly{next} },
		Proxied: proxied,
	})
	if err != nil {
		return nil, err
	}
	return &connection{engine: conn, conn: conn}, nil
}

// proxied is what a socket proxy must allow.
const proxied = "GET on /_ping, /events, /containers and /networks"

// hint adds what the user can do to errors that have a known remedy.
func hint(err error) error { return dockerengine.Hint(err, proxied) }

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
