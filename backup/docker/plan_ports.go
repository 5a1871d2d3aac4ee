package docker

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-connections/nat"

	"github.com/dentropy/dentropycloud/backup"
)

// ports settles the published ports.
func (pl *planner) ports() error {
	for i := range pl.d.Containers {
		cp := &pl.d.Containers[i]
		host, err := pl.settings[cp.Was].typed()
		if err != nil {
			return err
		}
		if strings.HasPrefix(string(host.NetworkMode), "container:") || host.NetworkMode == "host" {
			continue // nothing is published
		}
		for _, port := range sortedPorts(host.PortBindings) {
			if err := pl.port(pl.container(cp.Was), cp, port, host.PortBindings[port]); err != nil {
				return err
			}
		}
	}
	return nil
}

func sortedPorts(m nat.PortMap) []nat.Port {
	ports := make([]nat.Port, 0, len(m))
	for p := range m {
		ports = append(ports, p)
	}
	slices.Sort(ports)
	return ports
}

func (pl *planner) container(name string) *backup.Container {
	for i := range pl.app.Containers {
		if pl.app.Containers[i].Name == name {
			return &pl.app.Containers[i]
		}
	}
	return nil
}

// port settles one port of a container, with all its bindings.
func (pl *planner) port(c *backup.Container, cp *containerPlan, port nat.Port, bindings []nat.PortBinding) error {
	var out []portBinding
	changed := false
	key := portKey(c, port)
	for _, b := range bindings {
		old := portBinding{IP: b.HostIP, Port: b.HostPort}
		binding, keep, err := pl.portAnswer(c, port, old)
		if err != nil {
			return err
		}
		if !keep {
			changed = true
			continue
		}
		changed = changed || binding != old
		first, last, ok := portRange(binding.Port)
		if !ok {
			return &backup.Problem{Message: fmt.Sprintf("the archive's settings make no sense: %s publishes port %q", c.Name, binding.Port), Object: c.Name}
		}
		if first == 0 { // the engine chooses
			out = append(out, binding)
			continue
		}
		if err := pl.countPorts(c, int(last)-int(first)+1); err != nil {
			return err
		}
		for n := int(first); n <= int(last); n++ { // 65535 has no successor of its own kind
			by, replaceable := pl.portTaken(binding.IP, uint16(n), port.Proto())
			if by == "" {
				continue
			}
			conflict := backup.Conflict{
				Kind: "port", Name: fmt.Sprintf("%d/%s", n, port.Proto()),
				Text:    fmt.Sprintf("port %d/%s of the host, for %s, is taken by %s", n, port.Proto(), c.Name, by),
				Choices: []string{"--port " + key + "=auto", "--port " + key + "=PORT", "--port " + key + "=none"},
				Hint:    "publish another port with --port " + key + "=PORT, or any free one with --port " + key + "=auto",
			}
			if replaceable && len(pl.old) == 0 && pl.ans.OnConflict != onReplace {
				conflict.Choices = append(conflict.Choices, "--on-conflict replace")
				conflict.Hint += "; or replace the app that is here with --on-conflict replace"
			}
			pl.conflict(conflict, "")
			break
		}
		for n := int(first); n <= int(last); n++ {
			slot := portSlot{uint16(n), port.Proto()}
			pl.bound[slot] = append(pl.bound[slot], binding.IP)
		}
		out = append(out, binding)
	}
	if changed {
		if cp.Ports == nil {
			cp.Ports = map[string][]portBinding{}
		}
		cp.Ports[string(port)] = out
	}
	return nil
}

// portSlot is a port of the host.
type portSlot struct {
	port  uint16
	proto string
}

// Bounds of what an archive may publish: as many ports as a host has, and so many bindings
// that each can be held against each.
const (
	mostPorts    = 65535
	mostBindings = 4096
)

// countPorts refuses archives that publish more than a host has.
func (pl *planner) countPorts(c *backup.Container, n int) error {
	pl.nports += n
	if pl.nbindings++; pl.nports > mostPorts || pl.nbindings > mostBindings {
		return &backup.Problem{Message: fmt.Sprintf("the archive's settings make no sense: with %s it publishes more ports than a host has", c.Name), Object: c.Name}
	}
	return nil
}

// portKey is how a port is named in answers.
func portKey(c *backup.Container, port nat.Port) string {
	name := c.Service
	if name == "" {
		name = c.Name
	}
	key := name + ":" + port.Port()
	if port.Proto() != "tcp" {
		key += "/" + port.Proto()
	}
	return key
}

// portAnswer takes the answer about a binding; keep is false where it is not to be
// published.
func (pl *planner) portAnswer(c *backup.Container, port nat.Port, b portBinding) (_ portBinding, keep bool, err error) {
	var keys []string
	for _, name := range []string{c.Name, c.Service} {
		if name != "" {
			keys = append(keys, name+":"+port.Port()+"/"+port.Proto())
			if port.Proto() == "tcp" {
				keys = append(keys, name+":"+port.Port())
			}
		}
	}
	if b.Port != "" {
		keys = append(keys, b.Port+"/"+port.Proto())
		if port.Proto() == "tcp" {
			keys = append(keys, b.Port)
		}
	}
	answer := ""
	for _, k := range keys {
		if a, ok := pl.ans.Ports[k]; ok {
			pl.use("ports", k)
			if answer == "" {
				answer = a
			}
		}
	}
	switch answer {
	case "":
		return b, true, nil
	case "none":
		return b, false, nil
	case "auto":
		want, _, _ := portRange(b.Port)
		b.Port = strconv.Itoa(int(pl.freePort(b.IP, want, port)))
		return b, true, nil
	}
	ip, p := b.IP, answer
	if i := strings.LastIndexByte(answer, ':'); i >= 0 {
		ip, p = strings.Trim(answer[:i], "[]"), answer[i+1:]
		if _, err := netip.ParseAddr(ip); err != nil && ip != "" {
			return b, false, &backup.Problem{Message: fmt.Sprintf("port %q: %q is no IP address", answer, ip), Hint: "give PORT, IP:PORT, auto or none", Object: portKey(c, port)}
		}
	}
	if n, last, ok := portRange(p); !ok || n == 0 || n != last {
		return b, false, &backup.Problem{Message: fmt.Sprintf("port %q is no port", answer), Hint: "give PORT, IP:PORT, auto or none", Object: portKey(c, port)}
	}
	return portBinding{IP: ip, Port: p}, true, nil
}

// portRange reads "8080" or "8000-8010"; "" and "0" are 0.
func portRange(s string) (first, last uint16, ok bool) {
	if s == "" {
		return 0, 0, true
	}
	a, b, isRange := strings.Cut(s, "-")
	n, err := strconv.ParseUint(a, 10, 16)
	if err != nil {
		return 0, 0, false
	}
	if !isRange {
		return uint16(n), uint16(n), true
	}
	m, err := strconv.ParseUint(b, 10, 16)
	if err != nil || m < n {
		return 0, 0, false
	}
	return uint16(n), uint16(m), true
}

const (
	// firstFree is where a free port is looked for if the one before was a system's.
	firstFree = 8000
	lastPort  = 65535
)

// freePort finds a free port, near to the one that was wished for.
func (pl *planner) freePort(ip string, want uint16, port nat.Port) uint16 {
	n := int(want)
	if n < 1024 {
		n += firstFree
	}
	for range lastPort {
		p := uint16(n)
		if by, _ := pl.portTaken(ip, p, port.Proto()); by == "" {
			return p
		}
		if n++; n > lastPort {
			n = firstFree
		}
	}
	return 0 // the engine chooses
}

// portTaken says who has a port, "" for nobody. replaceable is the app that is here under
// the name of the one that is restored.
func (pl *planner) portTaken(ip string, port uint16, proto string) (by string, replaceable bool) {
	for _, c := range pl.f.containers {
		if pl.isOld(c.id) {
			continue
		}
		for _, p := range c.ports {
			if p.port == port && p.proto == proto && sameAddress(p.ip, ip) {
				by = "the container " + c.name
				if c.app != "" && c.app != c.name {
					by += " of " + c.app
				}
				return by, c.app == pl.d.App
			}
		}
	}
	if slices.ContainsFunc(pl.bound[portSlot{port, proto}], func(a string) bool { return sameAddress(a, ip) }) {
		return "another container of the archive", false
	}
	if pl.f.busy != nil && !pl.oldHas(ip, port, proto) {
		return pl.f.busy(ip, port, proto), false
	}
	return "", false
}

// oldHas reports whether the set that is set aside has a port, so that it will be free.
func (pl *planner) oldHas(ip string, port uint16, proto string) bool {
	return slices.ContainsFunc(pl.old, func(c contFact) bool {
		return slices.ContainsFunc(c.ports, func(p portFact) bool {
			return p.port == port && p.proto == proto && sameAddress(p.ip, ip)
		})
	})
}

// sameAddress reports whether two listeners would meet.
func sameAddress(a, b string) bool {
	x, err1 := netip.ParseAddr(a)
	y, err2 := netip.ParseAddr(b)
	switch {
	case err1 != nil || err2 != nil:
		return true // all addresses
	case x.Is4() != y.Is4():
		// [::] takes IPv4 as well, unless told otherwise.
		return x.Is6() && x.IsUnspecified() || y.Is6() && y.IsUnspecified()
	case x.IsUnspecified() || y.IsUnspecified():
		return true
	}
	return x == y
}
