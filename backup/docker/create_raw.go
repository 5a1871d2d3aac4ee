package docker

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"

	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// ask makes one call of the engine's API with a body as it is, which the typed client
// would cut down to the fields that it knows.
func (p *Platform) ask(ctx context.Context, c *dockerengine.Conn, method, at string, query url.Values, body []byte, answer any) error {
	host, err := client.ParseHostURL(c.DaemonHost())
	if err != nil {
		return err
	}
	u := url.URL{Scheme: "http", Host: host.Host, Path: path.Join(host.Path, "/v"+c.ClientVersion(), at), RawQuery: query.Encode()}
	if host.Scheme == "unix" || host.Scheme == "npipe" || u.Host == "" {
		u.Host, u.Path = client.DummyHost, path.Join("/v"+c.ClientVersion(), at)
	}
	if p.ep.FromEnv || p.ep.TLS != (dockerengine.TLS{}) || strings.HasPrefix(p.ep.URL, "https://") {
		u.Scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.HTTPClient().Do(req)
	switch {
	case ctx.Err() != nil:
		if err == nil {
			_ = resp.Body.Close()
		}
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("%w: %w", errdefs.ErrUnavailable, err)
	}
	defer func() { _ = resp.Body.Close() }()
	const most = 1 << 20
	raw, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if resp.StatusCode >= http.StatusBadRequest {
		var m struct {
			Message string `json:"message"`
		}
		_ = json.Unmarshal(raw, &m) // a proxy in between may answer in its own words
		return statusError(resp.StatusCode, cmp.Or(m.Message, http.StatusText(resp.StatusCode)))
	}
	if err != nil || answer == nil {
		return err
	}
	return json.Unmarshal(raw, answer)
}

// statusError is an engine's refusal, of the kind that its status says.
func statusError(status int, message string) error {
	err := errors.New(message)
	switch status {
	case http.StatusNotFound:
		return fmt.Errorf("%w: %w", errdefs.ErrNotFound, err)
	case http.StatusConflict:
		return fmt.Errorf("%w: %w", errdefs.ErrConflict, err)
	case http.StatusForbidden, http.StatusUnauthorized, http.StatusMethodNotAllowed:
		return fmt.Errorf("%w: %w", errdefs.ErrPermissionDenied, err)
	case http.StatusServiceUnavailable:
		return fmt.Errorf("%w: %w", errdefs.ErrUnavailable, err)
	}
	return err
}
