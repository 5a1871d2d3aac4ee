package sourcetest

import (
	"fmt"
	"strconv"
	"time"
)

// The answers of the Engine API, as far as discovery could read them. What newer
// versions added or took away is omitempty and filled by version.

type networkWire struct {
	Name     string            `json:"Name"`
	ID       string            `json:"Id"`
	Scope    string            `json:"Scope"`
	Driver   string            `json:"Driver"`
	Internal bool              `json:"Internal"`
	Labels   map[string]string `json:"Labels"`
}

type portWire struct {
	IP          string `json:"IP,omitempty"`
	PrivatePort int    `json:"PrivatePort"`
	PublicPort  int    `json:"PublicPort,omitempty"`
	Type        string `json:"Type"`
}

type endpointWire struct {
	IPAMConfig          any               `json:"IPAMConfig"`
	Links               []string          `json:"Links"`
	Aliases             []string          `json:"Aliases"`
	DriverOpts          map[string]string `json:"DriverOpts"`
	NetworkID           string            `json:"NetworkID"`
	EndpointID          string            `json:"EndpointID"`
	Gateway             string            `json:"Gateway"`
	IPAddress           string            `json:"IPAddress"`
	IPPrefixLen         int               `json:"IPPrefixLen"`
	IPv6Gateway         string            `json:"IPv6Gateway"`
	GlobalIPv6Address   string            `json:"GlobalIPv6Address"`
	GlobalIPv6PrefixLen int               `json:"GlobalIPv6PrefixLen"`
	MacAddress          string            `json:"MacAddress"`
}

type healthWire struct {
	Status        string `json:"Status"`
	FailingStreak int    `json:"FailingStreak"`
}

type listWire struct {
	ID         string            `json:"Id"`
	Names      []string          `json:"Names"`
	Image      string            `json:"Image"`
	ImageID    string            `json:"ImageID"`
	Command    string            `json:"Command"`
	Created    int64             `json:"Created"`
	Ports      []portWire        `json:"Ports"`
	Labels     map[string]string `json:"Labels"`
	State      string            `json:"State"`
	Status     string            `json:"Status"`
	HostConfig struct {
		NetworkMode string `json:"NetworkMode"`
	} `json:"HostConfig"`
	Health          *healthWire `json:"Health,omitempty"`
	NetworkSettings struct {
		Networks map[string]endpointWire `json:"Networks"`
	} `json:"NetworkSettings"`
	Mounts []struct{} `json:"Mounts"`
}

type stateWire struct {
	Status     string      `json:"Status"`
	Running    bool        `json:"Running"`
	Paused     bool        `json:"Paused"`
	Restarting bool        `json:"Restarting"`
	OOMKilled  bool        `json:"OOMKilled"`
	Dead       bool        `json:"Dead"`
	Pid        int         `json:"Pid"`
	ExitCode   int         `json:"ExitCode"`
	Error      string      `json:"Error"`
	StartedAt  string      `json:"StartedAt"`
	FinishedAt string      `json:"FinishedAt"`
	Health     *healthWire `json:"Health,omitempty"`
}

type bindingWire struct {
	HostIP   string `json:"HostIp"`
	HostPort string `json:"HostPort"`
}

type inspectWire struct {
	ID         string    `json:"Id"`
	Created    string    `json:"Created"`
	Path       string    `json:"Path"`
	Args       []string  `json:"Args"`
	State      stateWire `json:"State"`
	Image      string    `json:"Image"`
	Name       string    `json:"Name"`
	HostConfig struct {
		NetworkMode   string `json:"NetworkMode"`
		RestartPolicy struct {
			Name              string `json:"Name"`
			MaximumRetryCount int    `json:"MaximumRetryCount"`
		} `json:"RestartPolicy"`
		PortBindings map[string][]bindingWire `json:"PortBindings"`
	} `json:"HostConfig"`
	Config struct {
		Hostname     string              `json:"Hostname"`
		Env          []string            `json:"Env"`
		ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
		Image        string              `json:"Image"`
		Labels       map[string]string   `json:"Labels"`
	} `json:"Config"`
	NetworkSettings struct {
		// The fields of the default bridge, gone with API 1.52.
		Bridge    *string `json:"Bridge,omitempty"`
		IPAddress *string `json:"IPAddress,omitempty"`
		Gateway   *string `json:"Gateway,omitempty"`

		SandboxID string                   `json:"SandboxID"`
		Ports     map[string][]bindingWire `json:"Ports"`
		Networks  map[string]endpointWire  `json:"Networks"`
	} `json:"NetworkSettings"`
}

func (e *Engine) endpointsLocked(c *ctr) map[string]endpointWire {
	out := map[string]endpointWire{}
	for _, a := range c.Networks {
		w := endpointWire{NetworkID: e.networks[a.Network].ID}
		if c.running() {
			w.EndpointID = hexID("endpoint " + c.ID + a.Network)
			w.IPAddress, w.GlobalIPv6Address = a.IP, a.IPv6
			if a.IP != "" {
				w.Gateway, w.IPPrefixLen = a.Gateway, 16
			}
			if a.IPv6 != "" {
				w.GlobalIPv6PrefixLen = 64
			}
		}
		out[a.Network] = w
	}
	return out
}

// bridged says that ports show: not with host mode, and not while stopped.
func (c *ctr) bridged() bool { return c.running() && len(c.Networks) > 0 && c.NetworkMode != "host" }

func (e *Engine) listEntryLocked(c *ctr, health bool) []byte {
	i := 0
	if health {
		i = 1
	}
	if c.list[i] != nil {
		return c.list[i]
	}
	w := listWire{
		ID: c.ID, Names: []string{"/" + c.Name}, Image: c.Image, ImageID: "sha256:" + hexID("image "+c.Image),
		Command: "/serve", Created: c.Created.Unix(), Ports: []portWire{}, Labels: c.Labels,
		State: c.state, Status: c.status(), Mounts: []struct{}{},
	}
	if w.Labels == nil {
		w.Labels = map[string]string{}
	}
	w.HostConfig.NetworkMode = c.NetworkMode
	w.NetworkSettings.Networks = e.endpointsLocked(c)
	if c.bridged() {
		for _, p := range c.Exposed {
			published := false
			for _, pub := range c.Published {
				if pub.Port == p {
					published = true
					w.Ports = append(w.Ports, portWire{IP: pub.HostIP, PrivatePort: p, PublicPort: pub.Public, Type: "tcp"})
				}
			}
			if !published {
				w.Ports = append(w.Ports, portWire{PrivatePort: p, Type: "tcp"})
			}
		}
	}
	if health {
		w.Health = &healthWire{Status: "none"}
		if c.HasHealth {
			w.Health.Status = c.Health
		}
	}
	c.list[i] = mustJSON(w)
	return c.list[i]
}

// status is the text of docker ps.
func (c *ctr) status() string {
	switch c.state {
	case "created":
		return "Created"
	case "running":
		s := "Up " + ago(c.started)
		switch {
		case !c.HasHealth:
			return s
		case c.Health == "starting":
			return s + " (health: starting)"
		default:
			return s + " (" + c.Health + ")"
		}
	case "paused":
		return "Up " + ago(c.started) + " (Paused)"
	case "restarting":
		return fmt.Sprintf("Restarting (%d) %s ago", c.exit, ago(c.finished))
	default:
		return fmt.Sprintf("Exited (%d) %s ago", c.exit, ago(c.finished))
	}
}

func ago(t time.Time) string {
	d := time.Since(t)
	if d < time.Second {
		return "Less than a second"
	}
	return fmt.Sprintf("%d seconds", int(d.Seconds()))
}

func (e *Engine) inspectLocked(c *ctr, legacy bool) []byte {
	i := 0
	if !legacy {
		i = 1
	}
	if c.inspect[i] != nil {
		return c.inspect[i]
	}
	const never = "0001-01-01T00:00:00Z"
	stamp := func(t time.Time) string {
		if t.IsZero() {
			return never
		}
		return t.UTC().Format(time.RFC3339Nano)
	}
	w := inspectWire{
		ID: c.ID, Created: stamp(c.Created), Path: "/serve", Args: []string{}, Name: "/" + c.Name,
		Image: "sha256:" + hexID("image "+c.Image),
		State: stateWire{
			Status: c.state, Running: c.running() || c.state == "restarting", Paused: c.state == "paused",
			Restarting: c.state == "restarting", ExitCode: c.exit, StartedAt: stamp(c.started), FinishedAt: stamp(c.finished),
		},
	}
	if c.running() {
		w.State.Pid, w.State.ExitCode = 4711, 0
	}
	if c.HasHealth {
		w.State.Health = &healthWire{Status: c.Health}
	}
	w.HostConfig.NetworkMode = c.NetworkMode
	w.HostConfig.RestartPolicy.Name = c.Restart
	w.HostConfig.PortBindings = map[string][]bindingWire{}
	w.Config.Hostname, w.Config.Env, w.Config.Image, w.Config.Labels = c.Hostname, c.Env, c.Image, c.Labels
	w.NetworkSettings.Ports = map[string][]bindingWire{}
	w.Config.ExposedPorts = map[string]struct{}{}
	for _, p := range c.Exposed {
		key := strconv.Itoa(p) + "/tcp"
		w.Config.ExposedPorts[key] = struct{}{}
		var bound []bindingWire
		for _, pub := range c.Published {
			if pub.Port == p {
				bound = append(bound, bindingWire{HostIP: pub.HostIP, HostPort: strconv.Itoa(pub.Public)})
			}
		}
		if bound != nil {
			w.HostConfig.PortBindings[key] = bound
		}
		if c.bridged() {
			w.NetworkSettings.Ports[key] = bound
		}
	}
	w.NetworkSettings.Networks = e.endpointsLocked(c)
	if legacy {
		bridge := w.NetworkSettings.Networks["bridge"]
		w.NetworkSettings.Bridge, w.NetworkSettings.IPAddress, w.NetworkSettings.Gateway = new(string), &bridge.IPAddress, &bridge.Gateway
	}
	c.inspect[i] = mustJSON(w)
	return c.inspect[i]
}
