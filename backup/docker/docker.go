package docker

import (
	"errors"
	"log/slog"
	"os"
	"sync"

	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// Options say which engine, and how to work on it.
type Options struct {
	// Name is the platform's. Default: "docker".
	Name string
	// Endpoint is where the engine listens: "unix:///var/run/docker.sock",
	// "tcp://host:2376", "ssh://user@host". Default: the environment's DOCKER_HOST, else
	// the local socket.
	Endpoint string
	// TLS is for tcp endpoints.
	TLS dockerengine.TLS
	// HelperBinary is the file of a static program that has the helper's verbs, for the
	// engine's architecture. Default: the environment's DENTROPY_HELPER, else this
	// program's own.
	HelperBinary string
	// HelperArgs lead to the helper's verbs in that program. Default: "helper".
	HelperArgs []string
	// TransitVolume is where frozen data waits. Default: "dentropy-transit".
	TransitVolume string
	// GuardSocket is the engine's socket on the engine's own host, for the guard.
	// Default: the endpoint's path where it is a socket, else "/var/run/docker.sock".
	GuardSocket string
	// Log takes what happens. Default: nothing is logged.
	Log *slog.Logger
}

// Format is the shape of this platform's settings: App.Format.
const Format = "docker"

// defaultTransit is the volume in which frozen data waits.
const defaultTransit = "dentropy-transit"

// The labels of what this package makes on an engine.
const (
	// labelJob is the operation that it belongs to.
	labelJob = "dentropy.backup.job"
	// labelRole says what it is for: one of the roles.
	labelRole = "dentropy.backup.role"
	// labelHelper marks the helper's images.
	labelHelper = "dentropy.backup.helper"

	roleHelper  = "helper"
	roleGuard   = "guard"
	roleTransit = "transit"
)

// Platform is one Docker Engine. Make it with New.
type Platform struct {
	opts Options
	ep   dockerengine.Endpoint
	log  *slog.Logger

	conn connection

	imageMu sync.Mutex // guards the next
	program program    // what was found out about the helper's program
}

// New makes a platform. It reads nothing but the environment and does not connect.
func New(o Options) (*Platform, error) {
	ep, err := dockerengine.Resolve(o.Endpoint, o.TLS, os.Getenv)
	if err != nil {
		return nil, err
	}
	if o.Name == "" {
		o.Name = "docker"
	}
	if o.HelperBinary == "" {
		o.HelperBinary = os.Getenv("DENTROPY_HELPER")
	}
	if o.HelperBinary == "" {
		o.HelperBinary = "/proc/self/exe"
	}
	if len(o.HelperArgs) == 0 {
		o.HelperArgs = []string{"helper"}
	}
	if o.TransitVolume == "" {
		o.TransitVolume = defaultTransit
	}
	if !volumeName.MatchString(o.TransitVolume) {
		return nil, errors.New("transit volume: want the name of a volume: letters, digits, dot, dash, underscore")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Platform{opts: o, ep: ep, log: o.Log.With("platform", o.Name, "endpoint", ep.String())}, nil
}

// Name implements backup.Platform.
func (p *Platform) Name() string { return p.opts.Name }

// Format is the format of the apps that this platform captures and restores.
func (p *Platform) Format() string { return Format }

// Endpoint names the engine for people, without secrets.
func (p *Platform) Endpoint() string { return p.ep.String() }

// Close lets go of idle connections.
func (p *Platform) Close() error {
	p.conn.drop()
	return nil
}
