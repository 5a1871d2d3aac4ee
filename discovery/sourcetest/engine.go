package sourcetest

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// The calls that an Engine counts, as given to Engine.Calls and Engine.Break.
const (
	PathPing     = "/_ping"
	PathVersion  = "/version"
	PathInfo     = "/info"
	PathEvents   = "/events"
	PathList     = "/containers/json"
	PathInspect  = "/containers/{id}/json"
	PathNetworks = "/networks"
	PathNetwork  = "/networks/{id}"
)

// EngineOptions says what kind of engine to play. The zero value is a Docker
// Engine 28.
type EngineOptions struct {
	// API is the newest version of the API that is spoken. Default: "1.51".
	API string
	// MinAPI is the oldest one that is accepted. Default: "1.24"; Docker 29 has
	// "1.44".
	MinAPI string
	// HideAPI leaves the version out of the headers, as some socket proxies do.
	HideAPI bool
	// TCP makes the engine listen on a port of 127.0.0.1 instead of a unix socket.
	TCP bool
}

// Fault is what goes wrong with a call. Delay comes first, then Stall or Status.
type Fault struct {
	// Delay is waited before anything else happens.
	Delay time.Duration
	// Stall never answers: the call hangs until its client leaves or the engine
	// goes down.
	Stall bool
	// Status and Message are the error to answer with. Default: 0, the real answer.
	Status  int
	Message string
	// Times is how many calls are concerned. Default: 0, all until Heal.
	Times int
}

// Engine is a scripted Docker Engine. Its methods may be called from any
// goroutine. A verb that names an unknown container panics: the test is wrong.
type Engine struct {
	opts EngineOptions
	dir  string // of the unix socket, "" for TCP

	mu         sync.Mutex // guards all below
	endpoint   string
	addr       string
	server     *http.Server // nil while down
	serving    sync.WaitGroup
	containers map[string]*ctr
	order      []string // ids, oldest first
	networks   map[string]Network
	serial     int
	calls      map[string]int
	inspects   map[string]int // by container id
	forbidden  []string       // calls that are not GET
	faults     map[string]*Fault
	hub        hub
}

// NewEngine starts an engine that ends with the test.
func NewEngine(tb testing.TB, opts EngineOptions) *Engine {
	tb.Helper()
	e, err := StartEngine(opts)
	if err != nil {
		tb.Fatalf("start scripted engine: %v", err)
	}
	tb.Cleanup(e.Close)
	return e
}

// StartEngine starts an engine; Close ends it.
func StartEngine(opts EngineOptions) (*Engine, error) {
	if opts.API == "" {
		opts.API = "1.51"
	}
	if opts.MinAPI == "" {
		opts.MinAPI = "1.24"
	}
	e := &Engine{
		opts:       opts,
		containers: map[string]*ctr{},
		networks:   map[string]Network{},
		calls:      map[string]int{},
		inspects:   map[string]int{},
		faults:     map[string]*Fault{},
	}
	for _, n := range []Network{{Name: "bridge", Driver: "bridge"}, {Name: "host", Driver: "host"}, {Name: "none", Driver: "null"}} {
		e.networks[n.Name] = n.filled()
	}
	if !opts.TCP {
		// Not in the test's own folder: a socket's path is at most 108 bytes.
		dir, err := os.MkdirTemp("", "engine")
		if err != nil {
			return nil, err
		}
		e.dir = dir
		e.addr = filepath.Join(dir, "docker.sock")
	} else {
		e.addr = "127.0.0.1:0"
	}
	if err := e.listen(); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

func (e *Engine) listen() error {
	network := "unix"
	if e.opts.TCP {
		network = "tcp"
	}
	ln, err := (&net.ListenConfig{}).Listen(context.Background(), network, e.addr)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.opts.TCP {
		e.addr = ln.Addr().String() // the same port after Down and Up
		e.endpoint = "tcp://" + e.addr
	} else {
		e.endpoint = "unix://" + e.addr
	}
	srv := &http.Server{Handler: http.HandlerFunc(e.serve), ReadHeaderTimeout: time.Minute}
	e.server = srv
	e.serving.Go(func() {
		_ = srv.Serve(ln) // always ends with ErrServerClosed or a closed listener
	})
	return nil
}

// Endpoint is the address to reach the engine at: "unix:///…" or "tcp://…". It
// stays the same for the engine's life.
func (e *Engine) Endpoint() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.endpoint
}

// Down makes the engine disappear: connections are cut, new ones refused.
// Containers stay as they are; verbs still work and their events are forgotten,
// as with an engine that is restarted.
func (e *Engine) Down() {
	e.mu.Lock()
	srv := e.server
	e.server = nil
	e.mu.Unlock()
	if srv != nil {
		_ = srv.Close() // cuts everything, which is the point
	}
	e.serving.Wait()
	e.hub.forget()
}

// Up makes the engine appear again after Down.
func (e *Engine) Up() error {
	e.mu.Lock()
	up := e.server != nil
	e.mu.Unlock()
	if up {
		return nil
	}
	e.hub.forget()
	return e.listen()
}

// Close ends the engine for good.
func (e *Engine) Close() {
	e.Down()
	if e.dir != "" {
		_ = os.RemoveAll(e.dir) // a temporary folder
	}
}

// Break lets calls of path (one of the Path constants) fail as f says, until Heal.
func (e *Engine) Break(path string, f Fault) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults[path] = &f
}

// BreakContainer lets the inspection of one container fail as f says, until
// HealContainer.
func (e *Engine) BreakContainer(id string, f Fault) { e.Break(PathInspect+id, f) }

// HealContainer ends what BreakContainer began.
func (e *Engine) HealContainer(id string) { e.Heal(PathInspect + id) }

// Heal ends what Break began with the paths, or everywhere when none is given.
func (e *Engine) Heal(paths ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(paths) == 0 {
		clear(e.faults)
	}
	for _, p := range paths {
		delete(e.faults, p)
	}
}

// Calls returns how often path (one of the Path constants) was asked for, failed
// calls included.
func (e *Engine) Calls(path string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.calls[path]
}

// AllCalls returns the number of calls of each path that was asked for. Paths that
// the engine does not know are counted as they are.
func (e *Engine) AllCalls() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.calls)
}

// Inspects returns how often one container was inspected.
func (e *Engine) Inspects(id string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.inspects[id]
}

// Forbidden returns the calls that were not GET, as "POST /path".
func (e *Engine) Forbidden() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.forbidden)
}

// ResetCalls sets all counters to zero.
func (e *Engine) ResetCalls() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.calls)
	clear(e.inspects)
	e.forbidden = nil
}

// Subscribers is the number of live event streams.
func (e *Engine) Subscribers() int { return e.hub.subscribers() }

// CutEvents ends all event streams, as a proxy does that has waited long enough.
func (e *Engine) CutEvents() { e.hub.cut() }

// DropEvents lets event streams live but delivers nothing through them while on, as
// dockerd does to slow readers. What happens is still replayed by since=.
func (e *Engine) DropEvents(on bool) { e.hub.set(func(h *hub) { h.drop = on }) }

// RepeatEvents delivers each event n times. n = 1 is normal.
func (e *Engine) RepeatEvents(n int) { e.hub.set(func(h *hub) { h.repeat = n }) }

// Lost is the number of events that were dropped because a client read too slowly.
func (e *Engine) Lost() int {
	e.hub.mu.Lock()
	defer e.hub.mu.Unlock()
	return e.hub.lost
}

// fault returns what shall go wrong with this call, and counts it.
func (e *Engine) fault(path, id string) Fault {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls[path]++
	keys := []string{path}
	if path == PathInspect {
		e.inspects[id]++
		keys = append(keys, path+id)
	}
	for _, k := range keys {
		f := e.faults[k]
		if f == nil {
			continue
		}
		hit := *f
		if f.Times == 1 {
			delete(e.faults, k)
		} else if f.Times > 1 {
			f.Times--
		}
		return hit
	}
	return Fault{}
}

// mustLocked returns a container by its id.
func (e *Engine) mustLocked(id string) *ctr {
	c := e.containers[id]
	if c == nil {
		panic(fmt.Sprintf("sourcetest: no container %q", id))
	}
	return c
}
