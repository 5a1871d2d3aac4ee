package discovery

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Source watches something that holds objects.
type Source interface {
	// Watch reports what the source holds to up until ctx is done, and returns
	// only then. It never gives up: a source that is absent, slow or restarted is
	// reported with Unknown and tried again with a jittered backoff of at most 5 s.
	// After every (re)connect it lists everything and calls Replace once; from
	// then on it calls Set and Delete for single objects.
	Watch(ctx context.Context, up Updater)
}

// Updater takes the reports of one source. The Registry hands one out for each
// source. Its methods may be called from any goroutine, are applied in the order
// of the calls, and return quickly.
type Updater interface {
	// Set adds or replaces one object. An object that asks for no route and has no
	// problem is as good as deleted.
	Set(Object)
	// Delete removes an object that is gone for good. Unknown ids are ignored.
	Delete(id string)
	// Replace makes objects the whole truth about the source: what is missing is
	// deleted, what is unchanged stays untouched.
	Replace(objects []Object)
	// Unknown says that the source cannot be asked at the moment, and why. All
	// that was reported stays in force, marked stale, until the next Replace.
	Unknown(err error)
}

// Object is one thing of a source: a container, an Ingress.
type Object struct {
	// ID is unique within the source and stays the same for the object's life.
	ID string
	// Name is what the user calls it: the container's name without slash.
	Name string
	// Group is who asks.
	Group Group
	// Created orders objects by age.
	Created time.Time
	// State says whether it can serve; Detail is the same in the words of the
	// source ("exited with code 1"), Since when it began (zero if unknown).
	State  State
	Detail string
	Since  time.Time
	// Labels are the routing labels that were seen, for explanation.
	Labels map[string]string
	// Routes it asks for. A route name that is also named by a problem is not in
	// here: the last good version of that route goes on.
	Routes []Route
	// Problems with its labels.
	Problems []Problem
	// Resolve gives the endpoint of this object for any route. It is pure and is
	// asked for a route that lives on from an earlier version of the object after
	// its labels went wrong. nil means that there is none.
	Resolve func(Route) Endpoint
	// Seen is when the source learned of the event behind this report; the time
	// from here to a served route is measured. Zero: not measured.
	Seen time.Time
}

// Group is who asks for a route. Ownership and merging go by it.
type Group struct {
	// Engine is the source's name: "docker", "docker:nas", "kubernetes".
	Engine string `json:"engine"`
	// Project is the compose project or the namespace; "" for a lone container.
	Project string `json:"project,omitempty"`
	// Service is the compose service, kind/name, or the container's name.
	Service string `json:"service"`
}

// String gives the group as engine/project/service.
func (g Group) String() string {
	if g.Project == "" {
		return g.Engine + "/" + g.Service
	}
	return g.Engine + "/" + g.Project + "/" + g.Service
}

// Scope is the part of a group within which routes are shared and hosts are
// owned: the project (with "*" for its services), or the lone container.
func (g Group) Scope() Group {
	if g.Project != "" {
		g.Service = "*"
	}
	return g
}

// State says whether an object can serve.
type State string

// The states of an object. Only Running ones get traffic.
const (
	Created    State = "created"    // exists, never started
	Starting   State = "starting"   // runs, but its health check has not passed yet
	Running    State = "running"    // runs, and is healthy where it has a health check
	Unhealthy  State = "unhealthy"  // runs, and its health check fails
	Paused     State = "paused"     // frozen
	Restarting State = "restarting" // between two runs
	Stopped    State = "stopped"    // has ended
)

// printable gives a label's key as it is where it can be printed: keys are
// foreign text, and may hold line feeds.
func printable(key string) string {
	if strings.ContainsFunc(key, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return quoteShort(key)
	}
	return key
}

func quoteShort(s string) string {
	const most = 120 // enough to recognise a value, short enough for one line of a log
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strconv.Quote(s)
}

// SourceOptions is what every source is made with.
type SourceOptions struct {
	// Name is unique among the sources of a program: "docker", "docker:nas". It is
	// also the engine of the groups that the source reports.
	Name string
	// Dialects in order of preference; the first that claims an object reads it.
	Dialects []Dialect
	// Log takes what changes: connected, lost. Default: nothing is logged.
	Log *slog.Logger
}
