package docker

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/dentropy/dentropycloud/backup"
)

// The native labels of routes, see docs/labels.md.
const (
	labelPrefix = "dentropy."
	labelEnable = labelPrefix + "enable"
)

var (
	// routeKeys are the keys that make a label one of a route.
	routeKeys = []string{"host", "port", "path", "strip_path", "scheme", "network", "tls", "access", "dns", "caddyfile", "hold"}
	// reservedNames never name a route.
	reservedNames = []string{"enable", "dns", "backup", "app", "hold", "access", "caddyfile", "project"}

	routeName   = regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}$`)
	traefikHost = regexp.MustCompile(`Host\(([^)]*)\)`)
	quotedName  = regexp.MustCompile("[`\"]([^`\"]+)[`\"]")
	// traefikPort and caddyPort say which port of the container another dialect means.
	traefikPort = regexp.MustCompile(`(?i)^traefik\.http\.services\.[^.]+\.loadbalancer\.server\.port$`)
	caddyPort   = regexp.MustCompile(`^\{\{\s*upstreams\s+(?:https?\s+)?([0-9]{1,5})\s*\}\}$`)
)

// route is one route that a container's labels ask for.
type route struct {
	container, service string
	name               string // "" for the default route
	hosts              []string
	native             bool
}

// key is how answers name the route.
func (r route) key() string {
	name := r.service
	if name == "" {
		name = r.container
	}
	if r.name != "" {
		name += "." + r.name
	}
	return name
}

// splitRoute reads a native label: the route's name, in lower case, and the key.
func splitRoute(label string) (name, key string, ok bool) {
	rest, ok := strings.CutPrefix(strings.ToLower(label), labelPrefix)
	if !ok {
		return "", "", false
	}
	name, key, named := strings.Cut(rest, ".")
	if !named {
		name, key = "", rest
	} else if slices.Contains(reservedNames, name) {
		return "", "", false
	}
	return name, key, slices.Contains(routeKeys, key)
}

// routesIn reads the routes that labels ask for: native ones, and for display what other
// dialects say about hosts.
func routesIn(c *backup.Container, labels map[string]string) []route {
	native := map[string]*route{}
	hasNative := false
	for _, l := range sortedKeys(labels) {
		name, key, ok := splitRoute(l)
		if !ok {
			continue
		}
		hasNative = true
		r := native[name]
		if r == nil {
			r = &route{container: c.Name, service: c.Service, name: name, native: true}
			native[name] = r
		}
		if key == "host" {
			r.hosts = append(r.hosts, splitHosts(labels[l])...)
		}
	}
	var out []route
	for _, name := range sortedKeys(native) {
		if len(native[name].hosts) > 0 {
			out = append(out, *native[name])
		}
	}
	if hasNative {
		return out
	}
	if hosts := foreignHosts(labels); len(hosts) > 0 {
		out = append(out, route{container: c.Name, service: c.Service, hosts: hosts})
	}
	return out
}

// foreignHosts are the hosts that labels of other dialects name.
func foreignHosts(labels map[string]string) []string {
	var out []string
	add := func(h string) {
		if h = strings.ToLower(strings.TrimSpace(h)); h != "" && !slices.Contains(out, h) {
			out = append(out, h)
		}
	}
	for _, l := range sortedKeys(labels) {
		v := labels[l]
		switch low := strings.ToLower(l); {
		case strings.HasPrefix(low, "traefik.http.routers.") && strings.HasSuffix(low, ".rule"):
			for _, call := range traefikHost.FindAllStringSubmatch(v, -1) {
				for _, q := range quotedName.FindAllStringSubmatch(call[1], -1) {
					add(q[1])
				}
			}
		case low == "caddy" || strings.HasPrefix(low, "caddy_") && !strings.Contains(low, "."):
			for _, h := range strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' }) {
				if _, rest, ok := strings.Cut(h, "://"); ok {
					h = rest
				}
				h, _, _ = strings.Cut(h, ":")
				if !strings.ContainsAny(h, "(){}/") {
					add(h)
				}
			}
		}
	}
	return out
}

// foreignPort is the container's port that labels of other dialects name, "" for none
// or several.
func foreignPort(labels map[string]string) string {
	port := ""
	for _, l := range sortedKeys(labels) {
		p := ""
		switch {
		case traefikPort.MatchString(l):
			p = strings.TrimSpace(labels[l])
		case strings.HasPrefix(l, "caddy") && strings.Contains(l, "reverse_proxy"):
			if m := caddyPort.FindStringSubmatch(strings.TrimSpace(labels[l])); m != nil {
				p = m[1]
			}
		}
		if p == "" {
			continue
		}
		if port != "" && port != p {
			return ""
		}
		port = p
	}
	return port
}

func splitHosts(s string) []string {
	var out []string
	for h := range strings.SplitSeq(s, ",") {
		if h = strings.ToLower(strings.TrimSpace(h)); h != "" {
			out = append(out, h)
		}
	}
	return out
}

// routes takes the answers about routes, and lists the hosts that will be asked for.
func (pl *planner) routes() error {
	for i := range pl.d.Containers {
		cp := &pl.d.Containers[i]
		c := pl.container(cp.Was)
		labels, err := pl.settings[cp.Was].labels()
		if err != nil {
			return err
		}
		for _, key := range sortedKeys(pl.ans.Routes) {
			name, ok := pl.routeOf(key, c)
			if !ok {
				continue
			}
			pl.use("routes", key)
			if err := pl.routeAnswer(c, cp, labels, name, pl.ans.Routes[key]); err != nil {
				return err
			}
		}
		if !cp.Start {
			continue
		}
		if isOff(cp.changed(labels)) {
			continue
		}
		for _, r := range routesIn(c, cp.changed(labels)) {
			for _, h := range r.hosts {
				if !strings.Contains(h, "*") && !slices.Contains(pl.p.Hosts, h) {
					pl.p.Hosts = append(pl.p.Hosts, h)
				}
				pl.takenHost(c, r, h)
			}
		}
	}
	slices.Sort(pl.p.Hosts)
	return nil
}

// hostsIn are the hosts of a container's routes; native are those of our own labels.
func hostsIn(c *backup.Container, labels map[string]string) (hosts, native []string) {
	if isOff(labels) {
		return nil, nil
	}
	for _, r := range routesIn(c, labels) {
		hosts = append(hosts, r.hosts...)
		if r.native {
			native = append(native, r.hosts...)
		}
	}
	return hosts, native
}

// takenHost looks whether another app has a host already. A host has one owner, whatever
// the paths: the restored route would be refused, or the probe answered by the other.
func (pl *planner) takenHost(c *backup.Container, r route, host string) {
	i := slices.IndexFunc(pl.f.containers, func(have contFact) bool {
		return have.app != pl.d.App && !pl.isOld(have.id) && slices.Contains(have.hosts, host)
	})
	key := "host\x00" + r.key() + "\x00" + host
	if i < 0 || pl.taken[key] {
		return
	}
	pl.taken[key] = true // once for all replicas
	have := &pl.f.containers[i]
	whose := have.name
	if have.app != "" && have.app != have.name {
		whose += " of " + have.app
	}
	if !r.native || !slices.Contains(have.native, host) || pl.ans.NoStart {
		pl.warn("%s, for %s, is asked for by the container %s as well", host, r.key(), whose)
		return
	}
	conflict := backup.Conflict{
		Kind: "host", Name: host,
		Text:    fmt.Sprintf("the host %s, for %s, is served by the container %s already", host, r.key(), whose),
		Choices: []string{"--route " + r.key() + "=HOST", "--route " + r.key() + "=none"},
		Hint:    fmt.Sprintf("give it another host with --route %s=HOST, or none with --route %s=none; or stop %s first", r.key(), r.key(), have.name),
	}
	resolution := ""
	for key, a := range pl.ans.Routes {
		// Claims may let several share a host: whoever says so is believed.
		if name, ok := pl.routeOf(key, c); ok && name == r.name && slices.Contains(splitHosts(a.Host), host) {
			resolution = "both ask for it, as answered"
		}
	}
	pl.conflict(conflict, resolution)
}

// isOff reports whether labels turn all routes off.
func isOff(labels map[string]string) bool {
	for k, v := range labels {
		if strings.EqualFold(k, labelEnable) {
			switch strings.ToLower(strings.TrimSpace(v)) {
			case "false", "no", "off", "0":
				return true
			}
		}
	}
	return false
}

// routeOf reports whether an answer's key is about a container, and which route it means.
func (pl *planner) routeOf(key string, c *backup.Container) (name string, ok bool) {
	for _, who := range []string{c.Name, c.Service} {
		if who == "" {
			continue
		}
		if key == who {
			return "", true
		}
		if rest, found := strings.CutPrefix(key, who+"."); found && routeName.MatchString(rest) {
			// a container's name may hold dots: a longer match is another container
			if pl.container(key) == nil {
				return strings.ToLower(rest), true
			}
		}
	}
	return "", false
}

// routeAnswer changes the labels of one route.
func (pl *planner) routeAnswer(c *backup.Container, cp *containerPlan, labels map[string]string, name string, a backup.RouteAnswer) error {
	if slices.Contains(reservedNames, name) {
		return &backup.Problem{Message: fmt.Sprintf("%q cannot be the name of a route", name), Hint: "choose another word", Object: name}
	}
	prefix := labelPrefix
	if name != "" {
		prefix += name + "."
	}
	native := false // it has native labels of any route
	for l := range labels {
		_, _, ok := splitRoute(l)
		native = native || ok
	}
	if a.None {
		if !native && name == "" {
			cp.put(labels, labelEnable, "false")
			return nil
		}
		for _, l := range sortedKeys(labels) {
			if n, _, ok := splitRoute(l); ok && n == name {
				cp.drop(l)
			}
		}
		if !native || !pl.leftNative(cp, labels) {
			cp.put(labels, labelEnable, "false") // labels of other dialects would count again
		}
		return nil
	}
	for _, v := range []struct{ key, value string }{{"host", a.Host}, {"path", a.Path}, {"tls", a.TLS}, {"port", a.Port}} {
		if v.value != "" {
			cp.put(labels, prefix+v.key, v.value)
		}
	}
	if native {
		return nil
	}
	// Native labels win over all others: they must say all that those said.
	hosts := foreignHosts(labels)
	if a.Host == "" && len(hosts) > 0 {
		cp.put(labels, prefix+"host", strings.Join(hosts, ","))
	}
	if port := foreignPort(labels); a.Port == "" && port != "" {
		cp.put(labels, prefix+"port", port)
	}
	if len(hosts) > 0 {
		pl.warn("%s had routing labels of another proxy: beside host, path, tls and port they do not count any more", c.Name)
	}
	return nil
}

// leftNative reports whether native labels with a host are left.
func (pl *planner) leftNative(cp *containerPlan, labels map[string]string) bool {
	for l := range cp.changed(labels) {
		if _, _, ok := splitRoute(l); ok {
			return true
		}
	}
	return false
}

// changed gives a container's labels as they will be.
func (cp *containerPlan) changed(labels map[string]string) map[string]string {
	out := make(map[string]string, len(labels)+len(cp.Set))
	for k, v := range labels {
		if !slices.ContainsFunc(cp.Unset, func(u string) bool { return strings.EqualFold(u, k) }) {
			out[k] = v
		}
	}
	for k, v := range cp.Set {
		out[k] = v
	}
	return out
}

// put sets a label, and takes away those that are the same in another case.
func (cp *containerPlan) put(labels map[string]string, key, value string) {
	for l := range labels {
		if l != key && strings.EqualFold(l, key) {
			cp.drop(l)
		}
	}
	cp.Set[key] = value
}

func (cp *containerPlan) drop(label string) {
	delete(cp.Set, label)
	if !slices.Contains(cp.Unset, label) {
		cp.Unset = append(cp.Unset, label)
		slices.Sort(cp.Unset)
	}
}
