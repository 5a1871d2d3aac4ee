package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/backoff"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

const (
	// callTimeout is for one small answer: engines under load take seconds.
	callTimeout = 30 * time.Second
	// freshFor is how long a connection counts as good after the engine has answered a
	// ping on it.
	freshFor = 5 * time.Second
	// retryMax is the longest wait between two attempts to reach an engine.
	retryMax = 2 * time.Second
	// patience is how long an engine that has gone away is waited for: a daemon that is
	// restarted, with many containers, takes tens of seconds.
	patience = 2 * time.Minute
)

// proxied is what a socket proxy in front of the engine would have to allow.
const proxied = "GET, POST and DELETE on /containers, /exec, /images, /volumes, /networks, /distribution and /info; behind a read-only one there are no backups"

// volumeName is what an engine takes as the name of a volume, a container or a network.
var volumeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// connection is the client of an engine, made when it is first needed, and again
// where the engine wants another version of the API than the one before it.
type connection struct {
	mu   sync.Mutex // guards all below; never held over a call
	conn *dockerengine.Conn
	good time.Time // when the engine last answered a ping
	// dialing is what goes on where somebody asks the engine whether it is there; nil where
	// nobody does.
	dialing *dialing
}

// dialing is one attempt to reach an engine, for all that want to. The fields are set when
// done is closed.
type dialing struct {
	done     chan struct{}
	conn     *dockerengine.Conn
	err      error
	deserted bool // it ended since who made it did not wait
}

func (c *connection) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		_ = c.conn.Close() // calls that are under way keep theirs
		c.conn = nil
	}
}

// api gives a client of an engine that has just answered. Where the engine hangs, all wait
// for one attempt, each as long as it likes.
func (p *Platform) api(ctx context.Context) (*dockerengine.Conn, error) {
	c := &p.conn
	for {
		c.mu.Lock()
		if c.conn != nil && time.Since(c.good) < freshFor {
			defer c.mu.Unlock()
			return c.conn, nil
		}
		d := c.dialing
		if d == nil {
			d = &dialing{done: make(chan struct{})}
			c.dialing = d
			old := c.conn
			c.mu.Unlock()
			p.connect(ctx, d, old)
			return d.conn, d.err
		}
		c.mu.Unlock()
		select {
		case <-d.done:
			if !d.deserted {
				return d.conn, d.err
			}
		case <-ctx.Done():
			return nil, p.notConnected(ctx.Err())
		}
	}
}

// connect makes an attempt for all.
func (p *Platform) connect(ctx context.Context, d *dialing, old *dockerengine.Conn) {
	c := &p.conn
	defer close(d.done)
	defer func() { // also where it panics: others wait
		c.mu.Lock()
		defer c.mu.Unlock()
		c.dialing = nil
		d.deserted = d.conn == nil && (d.err == nil || ctx.Err() != nil)
		if d.err == nil && d.conn != nil {
			c.conn, c.good = d.conn, time.Now()
		} else if c.conn == old {
			c.conn = nil
		}
	}()
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if old != nil {
		if ping, err := old.Ping(limited); err == nil && (ping.APIVersion == "" || !older(ping.APIVersion, old.ClientVersion())) {
			d.conn = old
			return
		}
		_ = old.Close()
	}
	d.conn, d.err = p.dial(limited)
}

// dial connects to the engine.
func (p *Platform) dial(ctx context.Context) (*dockerengine.Conn, error) {
	conn, err := p.ep.Dial(ctx, dockerengine.DialOptions{Proxied: proxied})
	if v := dockerengine.WantedVersion(err); v != "" {
		conn, err = p.ep.Dial(ctx, dockerengine.DialOptions{Version: v, Proxied: proxied})
	}
	if err != nil {
		return nil, p.notConnected(err)
	}
	// Behind a proxy that hides the version only a call tells whether it is the right one.
	if _, err := conn.ContainerList(ctx, container.ListOptions{Limit: 1}); dockerengine.WantedVersion(err) != "" {
		_ = conn.Close()
		if conn, err = p.ep.Dial(ctx, dockerengine.DialOptions{Version: dockerengine.WantedVersion(err), Proxied: proxied}); err != nil {
			return nil, p.notConnected(err)
		}
	}
	return conn, nil
}

// notConnected says in words why an engine cannot be reached. What the client says of a
// socket that may not be used names its path four times.
func (p *Platform) notConnected(err error) error {
	if p.ep.Socket() != "" && (errors.Is(err, fs.ErrPermission) || strings.Contains(err.Error(), "permission denied")) {
		return &backup.Problem{
			Message: fmt.Sprintf("docker engine at %s: this user may not use its socket", p.ep),
			Hint:    "add this user to the group that owns the socket, usually \"docker\", or run as root", Err: err,
		}
	}
	return fmt.Errorf("docker engine at %s: connect: %w", p.ep, err)
}

// older reports whether version a of the API is older than b.
func older(a, b string) bool {
	var a1, a2, b1, b2 int
	if _, err := fmt.Sscanf(a, "%d.%d", &a1, &a2); err != nil {
		return false
	}
	if _, err := fmt.Sscanf(b, "%d.%d", &b1, &b2); err != nil {
		return false
	}
	return a1 < b1 || a1 == b1 && a2 < b2
}

// stale makes the next call look whether the engine is still there.
func (p *Platform) stale() {
	p.conn.mu.Lock()
	p.conn.good = time.Time{}
	p.conn.mu.Unlock()
}

// call makes one call with a time limit, and names it in the error.
func (p *Platform) call(ctx context.Context, what string, do func(context.Context, *dockerengine.Conn) error) error {
	conn, err := p.api(ctx)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeoutCause(ctx, callTimeout, errSlow)
	defer cancel()
	if err = do(limited, conn); err == nil {
		return nil
	}
	if gone(err) {
		p.stale()
	}
	if errors.Is(context.Cause(limited), errSlow) {
		err = fmt.Errorf("no answer within %v (is the engine overloaded?): %w", callTimeout, errSlow)
	}
	return p.failed(what, err)
}

var errSlow = errors.New("the engine is slow")

// failed names what was being done where the engine refused.
func (p *Platform) failed(what string, err error) error {
	if errdefs.IsPermissionDenied(err) {
		err = dockerengine.Hint(err, proxied)
	}
	return fmt.Errorf("docker engine at %s: %s: %w", p.ep, what, withoutSecrets(err))
}

// What an engine says of a mount that fails holds the mount's options.
var (
	mountData   = regexp.MustCompile(`(?s)\bdata: .*: `)
	secretValue = regexp.MustCompile(`(?i)((?:pass|secret|token|key|cred|auth)[a-z0-9_-]*=)[^,\s'"]+`)
)

// cleaned is an error with another text.
type cleaned struct {
	err  error
	text string
}

func (e *cleaned) Error() string { return e.text }

func (e *cleaned) Unwrap() error { return e.err }

// withoutSecrets takes the options of mounts out of what an engine says: a password is one.
func withoutSecrets(err error) error {
	text := mountData.ReplaceAllString(err.Error(), "data: …: ")
	if text = secretValue.ReplaceAllString(text, "${1}…"); text == err.Error() {
		return err
	}
	return &cleaned{err, text}
}

// insist makes a call that may be made twice, again and again while the engine is
// away, as long as patience lasts or ctx. An engine that answers with an error is not
// away.
func (p *Platform) insist(ctx context.Context, what string, do func(context.Context, *dockerengine.Conn) error) error {
	begun := time.Now()
	wait := backoff.Backoff{Max: retryMax}
	for {
		err := p.call(ctx, what, do)
		if err == nil || !gone(err) || ctx.Err() != nil || time.Since(begun) > patience {
			return err
		}
		if wait.Wait(ctx) != nil {
			return err
		}
	}
}

// gone reports whether err says that the engine was not there, or went away in the
// middle of the call, so that it is not known what the call did.
func gone(err error) bool {
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, fs.ErrPermission):
		return false
	case errors.Is(err, errSlow), errors.Is(err, context.DeadlineExceeded), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return true
	}
	// Unavailable is what an engine says while it shuts down.
	return client.IsErrConnectionFailed(err) || errdefs.IsUnavailable(err)
}
