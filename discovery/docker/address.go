package docker

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/dentropy/dentropycloud/discovery"
)

// networkInfo is what is known of a network beyond its name.
type networkInfo struct {
	driver   string
	internal bool
}

// ask is a question for an address.
type ask struct {
	c    *facts // the container that shall serve
	net  *facts // whose network it uses: itself, another container, or nil if unknown
	port int    // 0 means the only exposed one
	// want is the network that is asked for; wantedBy says by whom ("by a label").
	want, wantedBy string
}

// endpointFor decides how to reach a container, and at which port: it comes back
// where only one was possible. One that does not run has no address, and its state
// says enough.
func endpointFor(q ask, at place, networks map[string]networkInfo) (discovery.Endpoint, int) {
	if q.port == 0 && len(q.c.exposed) == 1 {
		q.port = q.c.exposed[0]
	}
	switch {
	case !q.c.running():
		return discovery.Endpoint{}, q.port
	case q.port == 0 && len(q.c.exposed) == 0:
		return discovery.Endpoint{Problem: "the image exposes no TCP port: name the port with a label"}, 0
	case q.port == 0:
		return discovery.Endpoint{Problem: fmt.Sprintf("several TCP ports are exposed (%s): name one with a label", joinPorts(q.c.exposed))}, 0
	}
	a := answer{ask: q, at: at, networks: networks}
	if problem := a.find(); problem != "" && len(a.found) == 0 {
		return discovery.Endpoint{Problem: problem}, q.port
	}
	return discovery.Endpoint{Candidates: a.found}, q.port
}

func joinPorts(ports []int) string {
	text := make([]string, len(ports))
	for i, p := range ports {
		text[i] = strconv.Itoa(p)
	}
	return strings.Join(text, ", ")
}

// answer collects candidates.
type answer struct {
	ask
	at       place
	networks map[string]networkInfo
	found    []discovery.Candidate
}

func (a *answer) add(host string, port int, format string, args ...any) {
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	if slices.ContainsFunc(a.found, func(c discovery.Candidate) bool { return c.Address == addr }) {
		return
	}
	a.found = append(a.found, discovery.Candidate{Address: addr, Reason: fmt.Sprintf(format, args...)})
}

// find collects candidates in order of preference; the problem it returns counts
// only where there is none.
func (a *answer) find() (problem string) {
	switch {
	case a.c.mode == "none" && !slices.ContainsFunc(a.c.networks, func(n attachment) bool { return n.name != "none" && n.addr().IsValid() }):
		// the mode stays what it was made with, whatever it is attached to later
		return fmt.Sprintf("network_mode is none: attach it to a network with \"docker network disconnect none %[1]s && docker network connect <network> %[1]s\"", a.c.name)
	case a.c.mode == "host":
		return a.hostMode()
	case a.net == nil:
		return fmt.Sprintf("it uses the network of container %s, which does not exist: recreate this container", shorten(strings.TrimPrefix(a.c.mode, "container:")))
	case a.net.mode == "host": // the network of a container in host mode
		return a.hostMode()
	case a.net != a.c && !a.net.running():
		return fmt.Sprintf("it uses the network of container %q, which does not run: start that, then this one", a.net.name)
	}
	via := ""
	if a.net != a.c {
		via = fmt.Sprintf(" (it uses the network of container %q)", a.net.name)
	}
	missed := a.wanted(via)
	a.own(via, missed)
	return cmp.Or(a.publishedPorts(via), a.why(missed))
}

// hostMode: the container's ports are the host's.
func (a *answer) hostMode() string {
	switch {
	case a.at.remote != "":
		a.add(a.at.remote, a.port, "it uses the network of the engine's host")
	case a.at.inside:
		for _, g := range a.at.gateways {
			a.add(g.String(), a.port, "it uses the host's network, and this is the host seen from our container")
		}
		return "it uses the host's network, which our container cannot reach: attach our container to a bridge network"
	default:
		a.add("127.0.0.1", a.port, "it uses the host's network")
	}
	return ""
}

// wanted tries the network that was asked for. It returns a remark where that
// network cannot be used.
func (a *answer) wanted(via string) (missed string) {
	if a.want == "" {
		return ""
	}
	// Compose puts the project in front of the names of a file's networks.
	prefixed := a.c.labels[labelProject] + "_" + a.want
	for _, match := range []func(attachment) bool{
		func(n attachment) bool { return n.name == a.want || n.id == a.want },
		func(n attachment) bool { return n.name == prefixed },
	} {
		i := slices.IndexFunc(a.net.networks, match)
		if i < 0 {
			continue
		}
		n := a.net.networks[i]
		ip := n.addr()
		if !ip.IsValid() {
			return fmt.Sprintf("the container has no address on network %q, named %s", n.name, a.wantedBy)
		}
		a.add(ip.String(), a.port, "network %q is named %s%s", n.name, a.wantedBy, via)
		return ""
	}
	return fmt.Sprintf("the container is not on network %q, named %s", a.want, a.wantedBy)
}

func (n attachment) addr() netip.Addr {
	if n.ip4.IsValid() {
		return n.ip4
	}
	return n.ip6
}

// own tries the container's own addresses, as far as they can be reached from
// where we are.
func (a *answer) own(via, missed string) {
	remark := ""
	if missed != "" {
		remark = "; " + missed
	}
	for _, n := range a.ordered() {
		ip := n.addr()
		if !ip.IsValid() {
			continue
		}
		switch {
		case a.at.inside:
			if _, shared := a.at.networks[n.id]; shared {
				a.add(ip.String(), a.port, "network %q is shared with our container%s%s", n.name, via, remark)
			}
		case a.at.remote == "" && a.onHost(n):
			a.add(ip.String(), a.port, "its address on network %q can be reached from the host%s%s", n.name, via, remark)
		}
	}
}

// onHost says whether a network's addresses are expected to be reachable from the
// host itself; macvlan, ipvlan and overlay ones are not.
func (a *answer) onHost(n attachment) bool {
	info, known := a.networks[n.id]
	return !known || info.driver == "bridge" || info.driver == "" || info.driver == "default" || info.driver == "nat"
}

// ordered gives the networks in a fixed order: open ones before internal ones, then
// by name.
func (a *answer) ordered() []attachment {
	out := slices.Clone(a.net.networks)
	slices.SortStableFunc(out, func(x, y attachment) int {
		xi, yi := a.networks[x.id].internal, a.networks[y.id].internal
		switch {
		case xi == yi:
			return strings.Compare(x.name, y.name)
		case xi:
			return 1
		}
		return -1
	})
	return out
}

// publishedPorts tries ports of the host. It returns a remark where the port is
// published, but not for us.
func (a *answer) publishedPorts(via string) (problem string) {
	for _, p := range a.net.published {
		if p.port != a.port {
			continue
		}
		loopback := p.hostIP.IsLoopback()
		anywhere := !p.hostIP.IsValid() || p.hostIP.IsUnspecified()
		reason := fmt.Sprintf("port %d is published as %d on the host%s", a.port, p.public, via)
		switch {
		case loopback && (a.at.inside || a.at.remote != ""):
			problem = fmt.Sprintf("port %d is published on %s only, which cannot be reached from here: publish it on an address of the host, or share a network", a.port, p.hostIP)
		case !anywhere:
			a.add(p.hostIP.String(), p.public, "%s", reason)
		case a.at.remote != "":
			a.add(a.at.remote, p.public, "%s", reason)
		case a.at.inside:
			for _, g := range a.at.gateways {
				if g.Is4() == (p.hostIP.Is4() || !p.hostIP.IsValid()) {
					a.add(g.String(), p.public, "%s", reason)
				}
			}
		case p.hostIP.Is6():
			if !a.hasPublished4(p) {
				a.add("::1", p.public, "%s", reason)
			}
		default:
			a.add("127.0.0.1", p.public, "%s", reason)
		}
	}
	return problem
}

// hasPublished4 says that the same port is published on 0.0.0.0 as well, as Docker
// does by default: one candidate is enough.
func (a *answer) hasPublished4(p publication) bool {
	return slices.ContainsFunc(a.net.published, func(o publication) bool {
		return o.port == p.port && o.public == p.public && o.hostIP == netip.IPv4Unspecified()
	})
}

// why explains that there is no candidate.
func (a *answer) why(missed string) string {
	var names []string
	for _, n := range a.net.networks {
		names = append(names, n.name)
	}
	slices.Sort(names)
	on := strings.Join(names, ", ")
	if on == "" {
		on = "none"
	}
	var text string
	switch {
	case a.at.remote != "":
		text = fmt.Sprintf("the engine is on another machine and port %d is not published: publish it (\"ports:\" in compose, -p on the command line)", a.port)
	case a.at.inside:
		text = fmt.Sprintf("no network is shared with our container (it is on: %s): run \"docker network connect <one of them> %s\", or publish port %d", on, a.at.name, a.port)
	default:
		text = fmt.Sprintf("it has no address that can be reached from the host (it is on: %s): attach it to a bridge network, or publish port %d", on, a.port)
	}
	if missed != "" {
		text = missed + "; " + text
	}
	return text
}

// shorten makes an id readable.
func shorten(ref string) string {
	if len(ref) == 64 {
		return ref[:12]
	}
	return ref
}
