package docker

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/dentropy/dentropycloud/discovery"
	"github.com/dentropy/dentropycloud/internal/backoff"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// Config says which engine to watch and how. The zero value is the engine that the
// docker command uses.
type Config struct {
	// Endpoint is where the engine listens: "unix:///var/run/docker.sock",
	// "tcp://host:2376", "ssh://user@host". Default: the environment's DOCKER_HOST,
	// else the local socket.
	Endpoint string
	// TLS is for tcp endpoints. Default: the environment's DOCKER_CERT_PATH and
	// DOCKER_TLS_VERIFY where DOCKER_HOST is used, else no TLS.
	TLS TLS
	// Network is the network to reach containers by where no label names one.
	// Default: chosen for each container.
	Network string
	// Expose is "labelled" or "all"; the latter gives each container without
	// routing labels that exposes a port the name <service>.<project>.localhost.
	// Default: "labelled".
	Expose string
	// LabelPrefix stands for "dentropy" in native labels, so that several
	// instances can share one engine. Default: "dentropy".
	LabelPrefix string
}

// TLS names PEM files.
type TLS = dockerengine.TLS

// How long things may take, and how often they happen.
const (
	callTimeout = 10 * time.Second // one small answer; engines under load take seconds
	listTimeout = time.Minute      // 10,000 containers are some 20 MB
	// slowAfter is when an inspection that hangs stops counting against parallel:
	// engines answer for a container only when they can lock it.
	slowAfter = 2 * time.Second
	parallel  = 16 // inspections at a time
	// idleCheck is how long the event stream may be silent before it is checked.
	idleCheck = 30 * time.Second
	// resyncEvery is how often everything is listed again although no event was
	// known to be missed.
	resyncEvery = 10 * time.Minute
	// steadyAfter is how long a connection must have lasted to start over with
	// short waits.
	steadyAfter = 10 * time.Second
	maxBackoff  = 5 * time.Second
	minBackoff  = 100 * time.Millisecond
	// overlap is how far back the event stream begins: an engine answers before it
	// has subscribed us, and lists before that would miss what happens in between.
	overlap = 2 * time.Second
	// lagGrace is how far the stream may be behind a second one before it is
	// taken for dead.
	lagGrace = time.Second
)

// timing holds the constants above, for tests.
type timing struct {
	call, list, slow, idle, resync, steady, lag time.Duration
	minBackoff, maxBackoff                      time.Duration
}

// Source watches one Docker Engine. Make it with New.
type Source struct {
	ep       dockerengine.Endpoint
	read     reader
	log      *slog.Logger
	root     fs.FS  // this machine's files
	hostname string // and its name
	timing   timing
}

// New makes a source. It reads nothing but the environment and does not connect.
func New(cfg Config, opts discovery.SourceOptions) (*Source, error) {
	ep, err := dockerengine.Resolve(cfg.Endpoint, cfg.TLS, os.Getenv)
	if err != nil {
		return nil, err
	}
	if opts.Name == "" {
		opts.Name = "docker"
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	s := &Source{
		ep:   ep,
		read: reader{engine: opts.Name, dialects: opts.Dialects, network: cfg.Network},
		log:  opts.Log.With("endpoint", ep.String()),
		root: os.DirFS("/"),
		timing: timing{
			call: callTimeout, list: listTimeout, slow: slowAfter, idle: idleCheck, resync: resyncEvery,
			steady: steadyAfter, lag: lagGrace, minBackoff: minBackoff, maxBackoff: maxBackoff,
		},
	}
	switch cfg.Expose {
	case "", exposeLabelled:
	case exposeAll:
		s.read.all = true
	default:
		return nil, fmt.Errorf("expose %q: want %q or %q", cfg.Expose, exposeLabelled, exposeAll)
	}
	if p := strings.TrimSuffix(cfg.LabelPrefix, "."); p != "" && p+"." != nativePrefix {
		if strings.ContainsAny(p, " \t=") {
			return nil, fmt.Errorf("label_prefix %q: want the part of a label before a dot, such as \"acme\"", cfg.LabelPrefix)
		}
		s.read.prefix = p + "."
	}
	// Without a name of its own the machine has no short id either.
	s.hostname, _ = os.Hostname()
	return s, nil
}

// Watch implements discovery.Source.
func (s *Source) Watch(ctx context.Context, up discovery.Updater) {
	w := &watcher{Source: s, up: up, known: map[string]*record{}, sharers: map[string]map[string]bool{}}
	wait := backoff.Backoff{Min: s.timing.minBackoff, Max: s.timing.maxBackoff}
	version, said := "", ""
	for ctx.Err() == nil {
		begun := time.Now()
		listed, err := w.session(ctx, version)
		if ctx.Err() != nil {
			return
		}
		if v := dockerengine.WantedVersion(err); v != "" && version == "" {
			version = v // the engine knows best; try again at once
			continue
		}
		version = ""
		if listed || err.Error() != said {
			said = err.Error()
			up.Unknown(err)
		}
		if listed && time.Since(begun) >= s.timing.steady {
			wait.Reset()
		}
		if wait.Wait(ctx) != nil {
			return
		}
	}
}
