package docker

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dentropy/dentropycloud/discovery"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
)

// The states of the API.
const (
	stateCreated    = "created"
	stateRunning    = "running"
	statePaused     = "paused"
	stateRestarting = "restarting"
	stateExited     = "exited"
)

// The health of the API; "" where there is no health check.
const (
	healthStarting  = "starting"
	healthHealthy   = "healthy"
	healthUnhealthy = "unhealthy"
)

// facts is what is known of one container, whichever answer it came from.
type facts struct {
	id, name string
	labels   map[string]string
	created  time.Time
	mode     string       // network mode: "host", "none", "container:<ref>" or a network
	networks []attachment // by name
	// exposed are the TCP ports of image and command line, ascending. They never
	// change; exposedKnown is false where only a list has been seen that did not say.
	exposed      []int
	exposedKnown bool
	published    []publication

	state  string // one of the API
	health string
	exit   int
	exited bool      // exit is known
	detail string    // in place of what state implies
	since  time.Time // of the state; zero if unknown
	// started is when it was last started, by the engine's clock: what happened
	// before that is of no interest any more.
	started time.Time
	restart string // restart policy, "" if unknown
}

type attachment struct {
	name, id string
	ip4, ip6 netip.Addr
	gateway  netip.Addr
}

type publication struct {
	port   int
	hostIP netip.Addr
	public int
}

func (f *facts) running() bool { return f.state == stateRunning || f.state == statePaused }

// inspect asks for one container.
func inspect(ctx context.Context, eng engine, id string) (facts, error) {
	in, err := eng.ContainerInspect(ctx, id)
	if err != nil {
		return facts{}, err
	}
	if in.ContainerJSONBase == nil || in.ID == "" {
		return facts{}, fmt.Errorf("inspect container %.12s: the answer is not a container", id)
	}
	return fromInspect(in), nil
}

// fromSummary reads one entry of a list.
func fromSummary(s container.Summary) facts {
	f := facts{
		id: s.ID, labels: s.Labels, created: time.Unix(s.Created, 0).UTC(),
		mode: s.HostConfig.NetworkMode, state: s.State,
	}
	if len(s.Names) > 0 {
		// A linked container has "/other/alias" besides its own name.
		own := slices.MinFunc(s.Names, func(a, b string) int { return strings.Count(a, "/") - strings.Count(b, "/") })
		f.name = strings.TrimPrefix(own, "/")
	}
	if s.NetworkSettings != nil {
		f.networks = attachments(s.NetworkSettings.Networks)
	}
	for _, p := range s.Ports {
		if p.Type != "tcp" {
			continue
		}
		f.exposed = append(f.exposed, int(p.PrivatePort))
		if p.PublicPort != 0 {
			f.published = append(f.published, publication{int(p.PrivatePort), parseAddr(p.IP), int(p.PublicPort)})
		}
	}
	// A list shows ports only of containers that run and have a bridged network.
	f.exposedKnown = f.running() && len(s.Ports) > 0
	f.normalize()
	f.readStatus(s.Status)
	if f.state == stateCreated {
		f.since = f.created
	}
	return f
}

// readStatus reads the text of "docker ps", the only place where every API version
// tells health and exit code: "Up 3 minutes (healthy)", "Exited (1) 5 hours ago".
func (f *facts) readStatus(text string) {
	switch f.state {
	case stateRunning:
		switch {
		case strings.HasSuffix(text, "(healthy)"):
			f.health = healthHealthy
		case strings.HasSuffix(text, "(unhealthy)"):
			f.health = healthUnhealthy
		case strings.HasSuffix(text, "(health: starting)"):
			f.health = healthStarting
		}
	case stateExited, stateRestarting:
		_, rest, _ := strings.Cut(text, "(")
		digits, _, ok := strings.Cut(rest, ")")
		if code, err := strconv.Atoi(digits); ok && err == nil {
			f.exit, f.exited = code, true
		}
	}
}

// fromInspect reads the answer about one container.
func fromInspect(in container.InspectResponse) facts {
	f := facts{id: in.ID, name: strings.TrimPrefix(in.Name, "/"), exposedKnown: true}
	// To the second, as in a list: age must not depend on which call was made.
	f.created = parseTime(in.Created).Truncate(time.Second)
	if in.Config != nil {
		f.labels = in.Config.Labels
		for p := range in.Config.ExposedPorts {
			if p.Proto() == "tcp" {
				f.exposed = append(f.exposed, p.Int())
			}
		}
	}
	if in.HostConfig != nil {
		f.mode = string(in.HostConfig.NetworkMode)
		f.restart = string(in.HostConfig.RestartPolicy.Name)
	}
	if n := in.NetworkSettings; n != nil {
		f.networks = attachments(n.Networks)
		for p, bindings := range n.Ports {
			if p.Proto() != "tcp" {
				continue
			}
			f.exposed = append(f.exposed, p.Int())
			for _, b := range bindings {
				if public, err := strconv.Atoi(b.HostPort); err == nil && public > 0 {
					f.published = append(f.published, publication{p.Int(), parseAddr(b.HostIP), public})
				}
			}
		}
	}
	if s := in.State; s != nil {
		f.state, f.started = s.Status, parseTime(s.StartedAt)
		if s.Health != nil && s.Health.Status != "none" {
			f.health = s.Health.Status
		}
		switch f.state {
		case stateRunning, statePaused:
			f.since = f.started
		case stateCreated:
			f.since = f.created
		default:
			f.since, f.exit, f.exited = parseTime(s.FinishedAt), s.ExitCode, true
			if s.OOMKilled {
				f.detail = "killed, out of memory"
			} else if s.Error != "" && f.state == stateExited {
				f.detail = s.Error
			}
		}
	}
	f.normalize()
	return f
}

// normalize puts everything into one order and drops what is there twice, so that
// equal containers are equal here.
func (f *facts) normalize() {
	slices.Sort(f.exposed)
	f.exposed = slices.Compact(f.exposed)
	slices.SortFunc(f.published, func(a, b publication) int {
		return cmp.Or(a.port-b.port, a.hostIP.Compare(b.hostIP), a.public-b.public)
	})
	f.published = slices.Compact(f.published)
}

func attachments(in map[string]*network.EndpointSettings) []attachment {
	out := make([]attachment, 0, len(in))
	for name, e := range in {
		if e == nil {
			continue
		}
		out = append(out, attachment{
			name: name, id: e.NetworkID, ip4: parseAddr(e.IPAddress), ip6: parseAddr(e.GlobalIPv6Address), gateway: parseAddr(e.Gateway),
		})
	}
	slices.SortFunc(out, func(a, b attachment) int { return strings.Compare(a.name, b.name) })
	return out
}

// parseAddr gives the zero Addr for what is no address.
func parseAddr(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap()
}

// parseTime gives the zero Time for what is none, as Docker's year 1 is.
func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() <= 1 {
		return time.Time{}
	}
	return t.UTC()
}

// verdict maps state and health to what the rest of the program knows.
func (f *facts) verdict() (discovery.State, string) {
	switch f.state {
	case stateCreated:
		return discovery.Created, "created, never started"
	case stateRunning:
		switch f.health {
		case healthStarting:
			return discovery.Starting, "its health check has not passed yet"
		case healthUnhealthy:
			return discovery.Unhealthy, "its health check fails"
		case healthHealthy:
			return discovery.Running, "healthy"
		}
		return discovery.Running, ""
	case statePaused:
		return discovery.Paused, "paused"
	case stateRestarting:
		return discovery.Restarting, f.ending() + ", is being restarted"
	case stateExited:
		return discovery.Stopped, f.ending()
	case "":
		return discovery.Stopped, "unknown"
	}
	return discovery.Stopped, f.state // "dead", "removing", what newer engines invent
}

func (f *facts) ending() string {
	switch {
	case f.detail != "":
		return f.detail
	case f.exited:
		return fmt.Sprintf("exited with code %d", f.exit)
	}
	return "exited"
}
