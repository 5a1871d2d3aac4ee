package dentropycmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/pflag"
)

// maxAnswer bounds what is read of an answer: ten thousand routes are a few MB.
const maxAnswer = 256 << 20

// addressFlags are what the verbs know to find a running one.
func addressFlags(fs *pflag.FlagSet) {
	fs.String("address", "", "admin address of the running one: a unix socket or host:port [DENTROPY_ADMIN]")
	fs.String("data-dir", "", "data folder of the running one, where its socket is [DENTROPY_DATA_DIR]")
}

// client speaks to the admin API of a running dentropy, or Caddy with our modules.
type client struct {
	addr caddy.NetworkAddress
	// tried lists where it was looked for, for the message when nobody answers.
	tried []string
	http  *http.Client
}

// newClient finds the admin API. It asks nobody yet.
func newClient(flags *pflag.FlagSet, getenv func(string) string) (*client, error) {
	addr, tried, err := findAdmin(flags, getenv)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(addr, "/") {
		addr = "unix/" + addr
	}
	a, err := caddy.ParseNetworkAddress(addr)
	if err != nil || a.PortRangeSize() > 1 || a.IsFdNetwork() {
		return nil, fmt.Errorf("admin address %q: give unix//path/to/socket or host:port", addr)
	}
	if a.IsUnixNetwork() {
		a.Host, _, _ = strings.Cut(a.Host, "|")
	}
	c := &client{addr: a, tried: tried}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, a.Network, a.JoinHostPort(0))
		},
	}}
	return c, nil
}

// findAdmin gives the admin address: flag, environment, the socket in the data
// folder (and in the system's), Caddy's default.
func findAdmin(flags *pflag.FlagSet, getenv func(string) string) (addr string, tried []string, err error) {
	if a, _ := flags.GetString("address"); a != "" {
		return a, []string{a}, nil
	}
	if a := getenv("DENTROPY_ADMIN"); a != "" {
		return a, []string{a + " (DENTROPY_ADMIN)"}, nil
	}
	given, _ := flags.GetString("data-dir")
	if given == "" {
		given = getenv("DENTROPY_DATA_DIR")
	}
	var dirs []string
	dir, dirErr := dataDir(given, getenv, os.Geteuid() == 0)
	if dirErr == nil {
		dirs = append(dirs, dir)
	}
	if given == "" && dir != systemDataDir {
		dirs = append(dirs, systemDataDir)
	}
	for _, dir := range dirs {
		socket := filepath.Join(dir, adminSocket)
		_, err := os.Stat(socket)
		switch {
		case err == nil:
			return "unix/" + socket, []string{socket}, nil
		case errors.Is(err, fs.ErrPermission):
			return "", nil, fmt.Errorf("the data folder %s belongs to another user: run this as that user, or with sudo", dir)
		}
		tried = append(tried, socket)
	}
	if given != "" {
		return "", nil, &noSocketError{dir}
	}
	return caddy.DefaultAdminListen, append(tried, caddy.DefaultAdminListen), nil
}

// errNoSocket says that no dentropy runs on the data folder that was given.
var errNoSocket = errors.New("no socket")

type noSocketError struct{ dir string }

func (e *noSocketError) Error() string {
	return fmt.Sprintf("nothing runs on data folder %s: there is no %s in it", e.dir, adminSocket)
}

func (e *noSocketError) Is(target error) bool { return target == errNoSocket }

// apiError is an answer of the API that says what went wrong.
type apiError struct {
	Status  int    `json:"-"`
	Message string `json:"error"`
	Hint    string `json:"hint"`
	Object  any    `json:"object"`
	// Plan is that of a restore that is not ready.
	Plan json.RawMessage `json:"plan"`
}

func (e *apiError) Error() string {
	s := e.Message
	if s == "" {
		s = fmt.Sprintf("the admin API answered %d %s", e.Status, http.StatusText(e.Status))
	}
	if e.Hint != "" {
		s += ": " + e.Hint
	}
	return s
}

// do sends a request. The caller closes the body of the answer, which is a good
// one: everything from 400 up becomes an error.
func (c *client) do(ctx context.Context, method, uri string) (*http.Response, error) {
	return c.send(ctx, method, uri, "", nil)
}

// send is do with a body.
func (c *client) send(ctx context.Context, method, uri, contentType string, body io.Reader) (*http.Response, error) {
	header := http.Header{}
	if contentType != "" {
		header.Set("Content-Type", contentType)
	}
	return c.request(ctx, method, uri, header, body)
}

// ranged asks for a part of something.
func (c *client) ranged(ctx context.Context, uri, bytes string) (*http.Response, error) {
	return c.request(ctx, http.MethodGet, uri, http.Header{"Range": {bytes}}, nil)
}

func (c *client) request(ctx context.Context, method, uri string, header http.Header, body io.Reader) (*http.Response, error) {
	host := c.addr.JoinHostPort(0)
	local := c.addr.IsUnixNetwork()
	if local {
		host = "127.0.0.1" // what Caddy lets pass on a unix socket
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+host+uri, body)
	if err != nil {
		return nil, fmt.Errorf("admin address: %w", err)
	}
	maps.Copy(req.Header, header)
	if !local {
		req.Header.Set("Origin", "http://"+host)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode < http.StatusBadRequest {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	const most = 16 << 20 // with the plan of a restore that may not be done
	answer, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	e := &apiError{Status: resp.StatusCode}
	if json.Unmarshal(answer, e) != nil && resp.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("what answers on %s has no Dentropy modules: give the address of one that has, with --address",
			showAdmin(c.addr.String()))
	}
	return nil, e
}

func (c *client) unreachable(err error) error {
	if errors.Is(err, context.Canceled) {
		return context.Canceled
	}
	at := strings.Join(c.tried, ", ")
	switch {
	case errors.Is(err, fs.ErrPermission):
		return &permissionError{at}
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no running dentropy found (looked at %s): start it with `%s up`, or say where it is with --address or --data-dir", at, verbPrefix())
	}
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	return fmt.Errorf("ask %s: %w", at, err)
}

// permissionError says that the admin API belongs to somebody else.
type permissionError struct{ at string }

func (e *permissionError) Error() string {
	return e.at + " may not be used by this user: run this as the user that runs dentropy, or with sudo"
}

func (e *permissionError) Is(target error) bool { return target == fs.ErrPermission }

// get reads an answer whole.
func (c *client) get(ctx context.Context, uri string) ([]byte, error) {
	resp, err := c.do(ctx, http.MethodGet, uri)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return body, nil
}

// printJSON gives the answer on, indented: people look at it too.
func printJSON(w io.Writer, raw []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		return fmt.Errorf("the answer is no JSON: %w", err)
	}
	if !bytes.HasSuffix(b.Bytes(), []byte("\n")) {
		b.WriteByte('\n')
	}
	_, err := b.WriteTo(w)
	return err
}
