package sourcetest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Container is what an engine is told to hold. Name is required.
type Container struct {
	// ID is 64 hexadecimal digits. Default: made from the name, different for each
	// container.
	ID     string
	Name   string // without slash
	Image  string // Default: "scratch"
	Labels map[string]string
	Env    []string
	// Exposed and Published are TCP ports; a published one is exposed too.
	Exposed   []int
	Published []Publication
	// Networks it is attached to. Default: "bridge" with an address of its own,
	// unless NetworkMode says otherwise.
	Networks []Attachment
	// NetworkMode is "host", "none", "container:<id>". Default: the first network.
	NetworkMode string
	// Restart is the restart policy: "", "no", "always", "unless-stopped",
	// "on-failure".
	Restart string
	// HasHealth says that the image has a HEALTHCHECK; Health is "starting",
	// "healthy" or "unhealthy" while it runs. Default: "starting".
	HasHealth bool
	Health    string
	// Hostname is what the container sees itself. Default: the first 12 digits of
	// its id.
	Hostname string
	// Created is when it was made. Default: now.
	Created time.Time
	// Stopped, for Load, makes it one that has exited with ExitCode.
	Stopped  bool
	ExitCode int
}

// Publication is a container port on an address of the host.
type Publication struct {
	Port   int
	HostIP string // Default: "0.0.0.0"
	Public int
}

// Attachment joins a container and a network. The addresses are visible while the
// container runs.
type Attachment struct {
	Network string
	IP      string // Default: one of 172.17.0.0/16, unless IPv6 is given
	IPv6    string
	Gateway string
}

// Network is one network of an engine.
type Network struct {
	ID       string // Default: made from the name
	Name     string
	Driver   string // Default: "bridge"
	Internal bool
	Labels   map[string]string
}

func (n Network) filled() Network {
	if n.ID == "" {
		n.ID = hexID("network " + n.Name)
	}
	if n.Driver == "" {
		n.Driver = "bridge"
	}
	return n
}

func hexID(seed string) string {
	sum := sha256.Sum256([]byte(seed))
	return hex.EncodeToString(sum[:])
}

// ctr is a container with its state.
type ctr struct {
	Container
	state    string // as in the API
	started  time.Time
	finished time.Time
	exit     int
	// Answers made once and used until the container changes: with 10,000
	// containers a list must be cheap.
	list    [2][]byte // without and with the health of API 1.52
	inspect [2][]byte // with and without the legacy fields
}

func (c *ctr) changed() { c.list, c.inspect = [2][]byte{}, [2][]byte{} }

func (c *ctr) running() bool {
	return c.state == "running" || c.state == "paused"
}

func (e *Engine) addLocked(in Container) *ctr {
	e.serial++
	c := &ctr{Container: in, state: "created"}
	if c.ID == "" {
		c.ID = hexID(fmt.Sprintf("container %s %d", c.Name, e.serial))
	}
	if c.Image == "" {
		c.Image = "scratch"
	}
	if c.Hostname == "" {
		c.Hostname = c.ID[:12]
	}
	if c.Created.IsZero() {
		c.Created = time.Now()
	}
	if c.Health == "" {
		c.Health = "starting"
	}
	c.Labels, c.Env = maps.Clone(c.Labels), slices.Clone(c.Env)
	c.Exposed, c.Published, c.Networks = slices.Clone(c.Exposed), slices.Clone(c.Published), slices.Clone(c.Networks)
	for i, p := range c.Published {
		if p.HostIP == "" {
			c.Published[i].HostIP = "0.0.0.0"
		}
		if !slices.Contains(c.Exposed, p.Port) {
			c.Exposed = append(c.Exposed, p.Port)
		}
	}
	switch {
	case c.NetworkMode == "host" || c.NetworkMode == "none":
		c.Networks = []Attachment{{Network: c.NetworkMode}}
	case strings.HasPrefix(c.NetworkMode, "container:"):
		c.Networks = nil
	case len(c.Networks) == 0:
		c.Networks = []Attachment{{Network: "bridge"}}
	}
	for i, a := range c.Networks {
		c.Networks[i] = e.attachLocked(a)
	}
	if c.NetworkMode == "" {
		c.NetworkMode = c.Networks[0].Network
	}
	e.containers[c.ID] = c
	e.order = append(e.order, c.ID)
	return c
}

func (e *Engine) attachLocked(a Attachment) Attachment {
	if _, ok := e.networks[a.Network]; !ok {
		e.networks[a.Network] = Network{Name: a.Network}.filled()
	}
	if a.IP == "" && a.IPv6 == "" && a.Network != "host" && a.Network != "none" {
		e.serial++
		a.IP = fmt.Sprintf("172.17.%d.%d", e.serial>>8&255, e.serial&255)
	}
	if a.Gateway == "" && a.IP != "" {
		a.Gateway = a.IP[:strings.LastIndexByte(a.IP, '.')] + ".1"
	}
	return a
}

// Load adds containers that are already there: running unless Stopped, without
// events. It returns their ids.
func (e *Engine) Load(cs ...Container) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	ids := make([]string, 0, len(cs))
	for _, in := range cs {
		c := e.addLocked(in)
		c.state, c.started = "running", c.Created
		if c.Stopped {
			c.state, c.finished, c.exit = "exited", c.Created, c.ExitCode
		}
		ids = append(ids, c.ID)
	}
	return ids
}

// Create makes a container, not started, and returns its id.
func (e *Engine) Create(c Container) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.addLocked(c)
	e.hub.publish(n.event("create"))
	return n.ID
}

// Run creates and starts a container, and returns its id.
func (e *Engine) Run(c Container) string {
	id := e.Create(c)
	e.Start(id)
	return id
}

func (e *Engine) change(id string, f func(c *ctr) []event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.mustLocked(id)
	evs := f(c)
	c.changed()
	e.hub.publish(evs...)
}

func (c *ctr) event(action string, extra ...string) event {
	attrs := maps.Clone(c.Labels)
	if attrs == nil {
		attrs = map[string]string{}
	}
	attrs["image"], attrs["name"] = c.Image, c.Name
	for i := 0; i+1 < len(extra); i += 2 {
		attrs[extra[i]] = extra[i+1]
	}
	return event{kind: "container", action: action, id: c.ID, attrs: attrs}
}

func (e *Engine) netEvent(action, network, container string) event {
	n := e.networks[network]
	attrs := map[string]string{"name": n.Name, "type": n.Driver}
	if container != "" {
		attrs["container"] = container
	}
	return event{kind: "network", action: action, id: n.ID, attrs: attrs}
}

func (e *Engine) start(c *ctr) []event {
	evs := e.nets(c, "connect")
	for i := range evs {
		evs[i].at = time.Now() // Docker attaches, then starts
	}
	c.state, c.started = "running", time.Now()
	if c.HasHealth {
		c.Health = "starting"
	}
	return append(evs, c.event("start"))
}

func (e *Engine) nets(c *ctr, action string) []event {
	var evs []event
	for _, a := range c.Networks {
		if a.Network != "host" && a.Network != "none" {
			evs = append(evs, e.netEvent(action, a.Network, c.ID))
		}
	}
	return evs
}

func (e *Engine) die(c *ctr, code int) []event {
	c.state, c.finished, c.exit = "exited", time.Now(), code
	return append([]event{c.event("die", "exitCode", strconv.Itoa(code))}, e.nets(c, "disconnect")...)
}

// Start starts a container.
func (e *Engine) Start(id string) { e.change(id, e.start) }

// Die lets a container end by itself.
func (e *Engine) Die(id string, code int) {
	e.change(id, func(c *ctr) []event { return e.die(c, code) })
}

// Stop stops a container, as docker stop does.
func (e *Engine) Stop(id string) {
	e.change(id, func(c *ctr) []event {
		evs := append([]event{c.event("kill", "signal", "15")}, e.die(c, 0)...)
		return append(evs, c.event("stop"))
	})
}

// Kill kills a container, as docker kill does.
func (e *Engine) Kill(id string) {
	e.change(id, func(c *ctr) []event {
		return append([]event{c.event("kill", "signal", "9")}, e.die(c, 137)...)
	})
}

// Restart stops and starts a container, as docker restart does.
func (e *Engine) Restart(id string) {
	e.change(id, func(c *ctr) []event {
		evs := append([]event{c.event("kill", "signal", "15")}, e.die(c, 0)...)
		evs = append(evs, c.event("stop"))
		return append(append(evs, e.start(c)...), c.event("restart"))
	})
}

// Pause freezes a container.
func (e *Engine) Pause(id string) {
	e.change(id, func(c *ctr) []event { c.state = "paused"; return []event{c.event("pause")} })
}

// Unpause thaws a container.
func (e *Engine) Unpause(id string) {
	e.change(id, func(c *ctr) []event { c.state = "running"; return []event{c.event("unpause")} })
}

// Destroy removes a container; a running one dies first.
func (e *Engine) Destroy(id string) {
	e.change(id, func(c *ctr) []event {
		var evs []event
		if c.running() {
			evs = append([]event{c.event("kill", "signal", "9")}, e.die(c, 137)...)
		}
		delete(e.containers, id)
		if i := slices.Index(e.order, id); i >= 0 {
			e.order = slices.Delete(e.order, i, i+1)
		}
		return append(evs, c.event("destroy"))
	})
}

// Rename gives a container another name.
func (e *Engine) Rename(id, name string) {
	e.change(id, func(c *ctr) []event {
		old := c.Name
		c.Name = name
		return []event{c.event("rename", "oldName", "/"+old)}
	})
}

// Update changes a container's restart policy, as docker update does.
func (e *Engine) Update(id, restart string) {
	e.change(id, func(c *ctr) []event { c.Restart = restart; return []event{c.event("update")} })
}

// Health sets the health of a container: "starting", "healthy" or "unhealthy".
func (e *Engine) Health(id, status string) {
	e.change(id, func(c *ctr) []event {
		c.HasHealth, c.Health = true, status
		return []event{c.event("health_status: " + status)}
	})
}

// Exec makes the three events that every run of a health check makes.
func (e *Engine) Exec(id string) {
	e.change(id, func(c *ctr) []event {
		return []event{c.event("exec_create: /health"), c.event("exec_start: /health"), c.event("exec_die", "exitCode", "0")}
	})
}

// Connect attaches a container to a network.
func (e *Engine) Connect(id string, a Attachment) {
	e.change(id, func(c *ctr) []event {
		c.Networks = append(c.Networks, e.attachLocked(a))
		return []event{e.netEvent("connect", a.Network, id)}
	})
}

// Disconnect takes a container off a network.
func (e *Engine) Disconnect(id, network string) {
	e.change(id, func(c *ctr) []event {
		c.Networks = slices.DeleteFunc(c.Networks, func(a Attachment) bool { return a.Network == network })
		return []event{e.netEvent("disconnect", network, id)}
	})
}

// SetIP changes an address without an event: it shows at the next start, or when
// a source asks.
func (e *Engine) SetIP(id, network, ip string) {
	e.change(id, func(c *ctr) []event {
		for i := range c.Networks {
			if c.Networks[i].Network == network {
				c.Networks[i].IP = ip
			}
		}
		return nil
	})
}

// AddNetwork makes a network (with its event), or replaces what an attachment made
// by default.
func (e *Engine) AddNetwork(n Network) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	n = n.filled()
	e.networks[n.Name] = n
	e.hub.publish(e.netEvent("create", n.Name, ""))
	return n.ID
}
