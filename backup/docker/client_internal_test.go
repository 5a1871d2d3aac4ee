package docker

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// fake is an engine that does what a real one cannot be made to do. What it is not told
// to answer fails the test.
type fake struct {
	t      *testing.T
	socket string
	mu     sync.Mutex // guards all below
	api    string
	answer map[string]http.HandlerFunc // by method and path without version
	calls  []string
	srv    *httptest.Server
}

func newFake(t *testing.T) (*fake, *Platform) {
	t.Helper()
	f := &fake{t: t, socket: filepath.Join(t.TempDir(), "s"), api: "1.47", answer: map[string]http.HandlerFunc{}}
	f.start()
	t.Cleanup(f.stop)
	p, err := New(Options{Endpoint: "unix://" + f.socket})
	if err != nil {
		t.Fatal(err)
	}
	f.on("GET /containers/json", `[]`)
	return f, p
}

func (f *fake) start() {
	f.t.Helper()
	l, err := (&net.ListenConfig{}).Listen(f.t.Context(), "unix", f.socket)
	if err != nil {
		f.t.Fatal(err)
	}
	f.srv = httptest.NewUnstartedServer(f)
	_ = f.srv.Listener.Close()
	f.srv.Listener = l
	f.srv.Start()
}

func (f *fake) stop() {
	f.srv.CloseClientConnections()
	f.srv.Close()
}

// on says what to answer: a text, or a status.
func (f *fake) on(call string, answer any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch a := answer.(type) {
	case http.HandlerFunc:
		f.answer[call] = a
	case int:
		f.answer[call] = func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(a)
			if a >= http.StatusBadRequest {
				fmt.Fprint(w, `{"message":"no"}`)
			}
		}
	default:
		f.answer[call] = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, a)
		}
	}
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	api := f.api
	at := r.URL.Path
	if rest, ok := strings.CutPrefix(at, "/v"); ok {
		version, more, _ := strings.Cut(rest, "/")
		at = "/" + more
		if older(api, version) {
			f.mu.Unlock()
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"message":"client version %s is too new. Maximum supported API version is %s"}`, version, api)
			return
		}
	}
	call := r.Method + " " + at
	f.calls = append(f.calls, call)
	do := f.answer[call]
	f.mu.Unlock()
	if at == "/_ping" {
		w.Header().Set("Api-Version", api)
		return
	}
	if do == nil {
		f.t.Errorf("unexpected call %s", call)
		w.WriteHeader(http.StatusTeapot)
		return
	}
	do(w, r)
}

func list(ctx context.Context, c *dockerengine.Conn) error {
	_, err := c.ContainerList(ctx, container.ListOptions{})
	return err
}

func TestReplacedEngine(t *testing.T) {
	f, p := newFake(t)
	if err := p.call(t.Context(), "list", list); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.api = "1.41" // somebody went back to an older one
	f.mu.Unlock()
	p.stale()
	if err := p.call(t.Context(), "list", list); err != nil {
		t.Errorf("with an older engine: %v", err)
	}
	if c, err := p.api(t.Context()); err != nil || c.ClientVersion() != "1.41" {
		t.Errorf("version %s, %v; want 1.41", c.ClientVersion(), err)
	}
}

func TestEngineAway(t *testing.T) {
	f, p := newFake(t)
	if err := p.call(t.Context(), "list", list); err != nil {
		t.Fatal(err)
	}
	f.stop()
	p.stale()
	if err := p.call(t.Context(), "list", list); err == nil || !gone(err) || !strings.Contains(err.Error(), f.socket) {
		t.Errorf("error %v, want that the engine is not there", err)
	}
	done := make(chan error, 1)
	go func() { done <- p.insist(t.Context(), "list", list) }()
	select {
	case err := <-done:
		t.Fatalf("it gave up at once: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	f.start()
	if err := <-done; err != nil {
		t.Errorf("when the engine was back: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f.stop()
	cancel()
	if err := p.insist(ctx, "list", list); err == nil {
		t.Error("no error of an engine that is away, when cancelled")
	}
	f.start()
}

// An engine that hangs: all wait for one attempt, and each as long as it likes.
func TestHungEngine(t *testing.T) {
	f, p := newFake(t)
	asked := make(chan struct{}, 10)
	f.on("GET /containers/json", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	patient, leave := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { first <- p.call(patient, "list", list) }()
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if err := p.call(ctx, "list", list); err == nil || time.Since(begun) > callTimeout/2 {
		t.Errorf("a call of 50 ms took %v: %v", time.Since(begun), err)
	}
	if n := len(asked); n != 0 {
		t.Errorf("the engine was asked %d times more, want one attempt for all", n)
	}
	// Who waits goes on by itself where the one that asked has left.
	second := make(chan error, 1)
	go func() { second <- p.call(t.Context(), "list", list) }()
	f.on("GET /containers/json", `[]`)
	leave()
	if err := <-first; err == nil {
		t.Error("no error of a call that was cancelled")
	}
	if err := <-second; err != nil {
		t.Errorf("a call that waited for another's attempt: %v", err)
	}
}

// An engine behind a proxy that only lets through what reads.
func TestForbidden(t *testing.T) {
	f, p := newFake(t)
	f.on("POST /containers/x/start", http.StatusForbidden)
	err := p.call(t.Context(), "start", func(ctx context.Context, c *dockerengine.Conn) error {
		return c.ContainerStart(ctx, "x", container.StartOptions{})
	})
	if err == nil || !strings.Contains(err.Error(), "socket proxy") || gone(err) {
		t.Errorf("error %v, want what the proxy must allow", err)
	}
}

const (
	running = `{"Id":"x","Name":"/x","Config":{},"State":{"Status":"running","Running":true,"StartedAt":"2026-01-02T03:04:05Z"}}`
	exited  = `{"Id":"x","Name":"/x","Config":{},"State":{"Status":"exited","ExitCode":0,"StartedAt":"2026-01-02T03:04:05Z","FinishedAt":"2026-01-02T03:05:05Z"}}`
)

// The answer to a stop is lost: what counts is how the container is.
func TestStopLost(t *testing.T) {
	f, p := newFake(t)
	f.on("GET /containers/x/json", running)
	f.on("POST /containers/x/stop", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("t") {
			t.Errorf("stop with %s: the container's own timeout and signal count", r.URL.RawQuery)
		}
		f.on("GET /containers/x/json", exited)
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	}))
	st, err := p.stopContainer(t.Context(), "x")
	if err != nil || st == nil || st.Status != "exited" {
		t.Errorf("state %+v, %v; want exited", st, err)
	}
}

// An engine says that it has stopped a container, and it runs.
func TestStopInVain(t *testing.T) {
	f, p := newFake(t)
	f.on("GET /containers/x/json", running)
	f.on("POST /containers/x/stop", http.StatusNoContent)
	if st, err := p.stopContainer(t.Context(), "x"); err == nil {
		t.Errorf("state %+v, want an error", st)
	}
	stops := 0
	for _, c := range f.calls {
		if c == "POST /containers/x/stop" {
			stops++
		}
	}
	if stops != stopAttempts {
		t.Errorf("%d stops, want %d", stops, stopAttempts)
	}
}

// A start that the engine refuses at first, and one that it refuses for good.
func TestStartRefused(t *testing.T) {
	f, p := newFake(t)
	f.on("GET /containers/x/json", exited)
	n := 0
	f.on("POST /containers/x/start", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n++; n == 1 {
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, `{"message":"port is already allocated"}`)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	if err := p.startContainer(t.Context(), "x", "x", t.Logf); err != nil || n != 2 {
		t.Errorf("after %d starts: %v", n, err)
	}
	f.on("POST /containers/x/start", http.StatusNotFound)
	if err := p.startContainer(t.Context(), "x", "x", t.Logf); err == nil {
		t.Error("no error of a container that is gone")
	}
}
