package docker

import (
	"net/netip"
	"slices"
	"strings"
)

// facts are what is on an engine, as far as a plan depends on it.
type facts struct {
	platform string
	os, arch string // as Go names them; "" where the engine does not say
	api      string
	root     string // where the engine keeps its own
	free     int64  // bytes; 0 where it is not known
	// default runtime and all runtimes
	runtimes []string

	containers []contFact
	volumes    map[string]volFact
	networks   []netFact
	// imageIDs are ids and digests of images; imageRefs are tags, with the id of each.
	imageIDs  map[string]bool
	imageRefs map[string]string
	// unpullable says why an image, by its id, cannot be pulled; one that can is there with
	// "".
	unpullable map[string]string
	// paths are paths of the host that the app uses; one that is not here is not known.
	paths map[string]pathFact
	// lan are the prefixes that the host reaches other machines by.
	lan []netip.Prefix
	// busy says who else uses a port of the host, "" for nobody. May be nil.
	busy func(ip string, port uint16, proto string) string
	// hostCgroups says that containers see the host's cgroups unless told otherwise: the
	// engine's default with the first version of cgroups.
	hostCgroups bool
}

// contFact is a container on the engine.
type contFact struct {
	id, name string
	app      string // "" for what is no app
	dir      string // of its compose project
	running  bool
	self     bool
	// autoRemove ones are gone when they stop.
	autoRemove bool
	volumes    []string // names of volumes
	paths      []string // host paths
	ports      []portFact
	networks   []string
	// hosts are the names that its routes ask for, where it runs; native ones are those of
	// our own labels.
	hosts, native []string
}

type portFact struct {
	ip    string
	port  uint16
	proto string
}

type volFact struct {
	driver  string
	options map[string]string
	project string // of compose
}

type netFact struct {
	id, name, driver string
	project          string
	subnets          []netip.Prefix
	options          map[string]string
	internal         bool
	ipv6             bool
}

// pathFact is what is known of a path of the host.
type pathFact struct {
	exists bool
	dir    bool
	empty  bool
}

// of gives the containers of an app.
func (f *facts) of(app string) []contFact {
	var out []contFact
	for _, c := range f.containers {
		if c.app == app {
			out = append(out, c)
		}
	}
	return out
}

// named gives the container of a name.
func (f *facts) named(name string) *contFact {
	i := slices.IndexFunc(f.containers, func(c contFact) bool { return c.name == name })
	if i < 0 {
		return nil
	}
	return &f.containers[i]
}

// withID gives the container whose id begins so.
func (f *facts) withID(start string) *contFact {
	i := slices.IndexFunc(f.containers, func(c contFact) bool { return len(start) >= shortIDLen && strings.HasPrefix(c.id, start) })
	if i < 0 {
		return nil
	}
	return &f.containers[i]
}

// network gives the network of a name.
func (f *facts) network(name string) *netFact {
	i := slices.IndexFunc(f.networks, func(n netFact) bool { return n.name == name })
	if i < 0 {
		return nil
	}
	return &f.networks[i]
}

// usersOf are the apps, or the names of containers of none, that use a volume or a
// path.
func (f *facts) usersOf(uses func(contFact) bool) []string {
	var out []string
	for _, c := range f.containers {
		if !uses(c) {
			continue
		}
		who := c.app
		if who == "" {
			who = c.name
		}
		if !slices.Contains(out, who) {
			out = append(out, who)
		}
	}
	slices.Sort(out)
	return out
}

func (f *facts) volumeUsers(name string) []string {
	return f.usersOf(func(c contFact) bool { return slices.Contains(c.volumes, name) })
}

func (f *facts) pathUsers(path string) []string {
	return f.usersOf(func(c contFact) bool {
		return slices.ContainsFunc(c.paths, func(p string) bool { return within(p, path) || within(path, p) })
	})
}
