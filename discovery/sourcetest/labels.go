package sourcetest

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/dentropy/dentropycloud/discovery"
)

// Labels is a small dialect. "test.host=a.example,b.example" asks for the default
// route, "test.<name>.host" for a further one; "port" and "network" go the same
// way. Without a port the only exposed one is taken, and anything else is a
// problem. It has the manners that Dialect asks for and no others.
type Labels struct{}

const labelsPrefix = "test."

// Name implements discovery.Dialect.
func (Labels) Name() string { return "test" }

// Claims implements discovery.Dialect.
func (Labels) Claims(labels map[string]string) bool {
	for k := range labels {
		if strings.HasPrefix(k, labelsPrefix) {
			return true
		}
	}
	return false
}

// Parse implements discovery.Dialect.
func (Labels) Parse(in discovery.Labelled) (routes []discovery.Route, problems []discovery.Problem) {
	named := map[string]map[string]string{}
	for k, v := range in.Labels {
		rest, ok := strings.CutPrefix(k, labelsPrefix)
		if !ok {
			continue
		}
		name, key := "", rest
		if i := strings.LastIndexByte(rest, '.'); i >= 0 {
			name, key = rest[:i], rest[i+1:]
		}
		if named[name] == nil {
			named[name] = map[string]string{}
		}
		named[name][key] = v
	}
	names := make([]string, 0, len(named))
	for name := range named {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		r, p := readRoute(name, named[name], in.Ports)
		if p != nil {
			problems = append(problems, *p)
			continue
		}
		routes = append(routes, r)
	}
	return routes, problems
}

func readRoute(name string, keys map[string]string, ports []int) (discovery.Route, *discovery.Problem) {
	bad := func(reason string) (discovery.Route, *discovery.Problem) {
		return discovery.Route{}, &discovery.Problem{Route: name, Reason: reason}
	}
	r := discovery.Route{Name: name, Dialect: "test", Network: keys["network"]}
	if keys["host"] == "" {
		return bad("no host")
	}
	r.Hosts = strings.Split(keys["host"], ",")
	switch text := keys["port"]; {
	case text != "":
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 65535 {
			return bad(fmt.Sprintf("port %q is not a port", text))
		}
		r.Port = n
	case len(ports) == 1:
		r.Port = ports[0]
	default:
		return bad(fmt.Sprintf("no port; exposed are %v", ports))
	}
	return r, nil
}
