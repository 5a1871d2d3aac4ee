package docker

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
)

// What an engine makes although nobody waits for its answer any more is removed: it would
// keep volumes from being removed.
func TestRealCreateCancelled(t *testing.T) {
	b := newBed(t)
	at := strings.TrimPrefix(os.Getenv("DOCKER_TEST_HOST"), "unix://")
	engine := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", at)
	}}}
	var cancel context.CancelFunc
	made := 0
	// It makes the container, and the answer does not come.
	socket := between(t, at, func(r *http.Request) bool {
		if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/containers/create") {
			return false
		}
		req, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), r.Method, "http://docker"+r.URL.RequestURI(), r.Body)
		if err == nil {
			req.Header = r.Header
			var resp *http.Response
			if resp, err = engine.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				err = resp.Body.Close()
				if resp.StatusCode == http.StatusCreated {
					made++
				}
			}
		}
		if err != nil {
			t.Error(err)
		}
		cancel()
		<-r.Context().Done() // the client has hung up
		return true
	})
	p, err := New(Options{Endpoint: "unix://" + socket, HelperBinary: b.p.opts.HelperBinary, HelperArgs: b.p.opts.HelperArgs, TransitVolume: b.p.opts.TransitVolume, GuardSocket: at})
	b.must(err)
	defer func() { b.must(p.Close()) }()
	b.must(p.ensureTransit(t.Context()))
	for what, do := range map[string]func(ctx context.Context, op string) error{
		"helper": func(ctx context.Context, op string) error {
			return p.runHelper(ctx, helperTask{op: op, name: "list", input: map[string]string{"dir": transitDir}, mounts: []helperMount{p.transitMount(false)}})
		},
		"guard": func(ctx context.Context, op string) error {
			_, err := p.startGuard(ctx, guardSpec{Op: op})
			return err
		},
	} {
		op, before := b.journal().op, made
		var ctx context.Context
		ctx, cancel = context.WithCancel(t.Context())
		if err := do(ctx, op); !errors.Is(err, context.Canceled) {
			t.Errorf("%s = %v, want it cancelled", what, err)
		}
		if made != before+1 {
			t.Fatal("none was made: the test shows nothing")
		}
		for _, c := range b.ours(op) {
			t.Errorf("%s: %s is left", what, containerName(c))
		}
		cancel()
	}
}
