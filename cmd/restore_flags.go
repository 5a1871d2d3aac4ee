package dentropycmd

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/dentropy/dentropycloud/backup"
)

// answerFlags are the answers of a restore as flags. They are read again for the
// choices that a conflict offers, which are written as flags too.
type answerFlags struct {
	as, engine, projectDir                          string
	volumes, networks, ports, routes, rename, allow []string
	onConflict, verify                              string
	noStart, noProbe                                bool
}

func (f *answerFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.as, "as", "", "new `name` of the app: its containers, volumes and networks follow")
	fs.StringVar(&f.engine, "engine", "", "`name` of the engine to run on, as in --docker NAME=…")
	fs.StringVar(&f.projectDir, "project-dir", "", "where the compose files go on the engine's host: a `folder`, or none")
	many := func(p *[]string, name, usage string) { fs.StringArrayVar(p, name, nil, usage+"; may be repeated") }
	many(&f.volumes, "volume", "`volume=where` its data goes")
	many(&f.networks, "network", "`network=what` takes its place")
	many(&f.ports, "port", "`container:port=where` it is published")
	many(&f.routes, "route", "`container=where` it is served")
	many(&f.rename, "rename", "`old=new` name of a container")
	fs.StringVar(&f.onConflict, "on-conflict", "", "`what` to do where a name is taken: refuse (default), replace or rename")
	fs.StringSliceVar(&f.allow, "allow", nil, "`risks` to accept, by the words of the review: privileged,host-path,…; all for all")
	fs.BoolVar(&f.noStart, "no-start", false, "make everything and start nothing")
	fs.BoolVar(&f.noProbe, "no-probe", false, "do not ask the restored site before the restore counts as done")
	fs.StringVar(&f.verify, "verify", "", "`how` much is checked: full (what was written is read again, default) or stream (what came in)")
}

// answers adds what the flags say to what a file said: a flag wins.
func (f *answerFlags) answers(a backup.Answers) (backup.Answers, error) {
	set := func(to *string, v string) {
		if v != "" {
			*to = v
		}
	}
	set(&a.Name, f.as)
	set(&a.ProjectDir, f.projectDir)
	set(&a.OnConflict, f.onConflict)
	set(&a.Verify, f.verify)
	if f.engine != "" {
		a.Platform = platformName(f.engine)
	}
	a.NoStart = a.NoStart || f.noStart
	a.NoProbe = a.NoProbe || f.noProbe
	for _, kind := range f.allow {
		if kind = strings.TrimSpace(kind); kind != "" && !slices.Contains(a.Allow, kind) {
			a.Allow = append(slices.Clone(a.Allow), kind)
		}
	}
	var err error
	if a.Volumes, err = addAnswers(a.Volumes, "--volume", f.volumes, cutVolume, parseVolumeAnswer); err != nil {
		return a, err
	}
	if a.Networks, err = addAnswers(a.Networks, "--network", f.networks, cutFirst, parseNetworkAnswer); err != nil {
		return a, err
	}
	if a.Ports, err = addAnswers(a.Ports, "--port", f.ports, cutFirst, parsePortAnswer); err != nil {
		return a, err
	}
	if a.Routes, err = addAnswers(a.Routes, "--route", f.routes, cutFirst, parseRouteAnswer); err != nil {
		return a, err
	}
	if a.Containers, err = addAnswers(a.Containers, "--rename", f.rename, cutFirst, parseNewName); err != nil {
		return a, err
	}
	return a, checkAnswers(a)
}

// platformName lets an engine be named as --docker names it.
func platformName(engine string) string {
	if engine == "docker" || engine == "self" || strings.Contains(engine, ":") {
		return engine
	}
	return "docker:" + engine
}

// addAnswer adds one answer to a copy of a map.
func addAnswer[V any](to map[string]V, name, value string, parse func(string) (V, error)) (map[string]V, error) {
	v, err := parse(value)
	if err != nil {
		return to, err
	}
	out := maps.Clone(to)
	if out == nil {
		out = map[string]V{}
	}
	out[name] = v
	return out, nil
}

// addAnswers adds NAME=VALUE to a copy of a map. A name may be given once.
func addAnswers[V any](to map[string]V, flag string, values []string,
	split func(string) (name, value string, ok bool), parse func(string) (V, error),
) (map[string]V, error) {
	if len(values) == 0 {
		return to, nil
	}
	given := map[string]bool{}
	for _, text := range values {
		name, value, ok := split(text)
		if !ok || name == "" || value == "" {
			return nil, fmt.Errorf("%s %q: give NAME=VALUE", flag, text)
		}
		if given[name] {
			return nil, fmt.Errorf("%s: %q is given twice", flag, name)
		}
		given[name] = true
		var err error
		if to, err = addAnswer(to, name, value, parse); err != nil {
			return nil, fmt.Errorf("%s %q: %w", flag, text, err)
		}
	}
	return to, nil
}

func cutFirst(s string) (name, value string, ok bool) { return strings.Cut(s, "=") }

// cutVolume cuts at the first "=" that a volume's answer follows: the name may be a
// path with one in it.
func cutVolume(s string) (name, value string, ok bool) {
	for i := range len(s) {
		if s[i] != '=' {
			continue
		}
		if _, err := parseVolumeAnswer(s[i+1:]); err == nil {
			return s[:i], s[i+1:], true
		}
	}
	return strings.Cut(s, "=")
}

const volumeGrammar = "give name:NEW, path:/srv/x, nfs:SERVER:/export, driver:D,opt=v, existing or empty"

// parseVolumeAnswer reads what stands behind --volume NAME=.
func parseVolumeAnswer(s string) (backup.VolumeAnswer, error) {
	var a backup.VolumeAnswer
	kind, rest, more := strings.Cut(s, ":")
	switch {
	case kind == "existing":
		a.Existing, a.Name = true, rest
		if strings.HasPrefix(rest, "/") {
			a.Name, a.Path = "", rest
		}
		return a, nil
	case s == "empty":
		a.Empty = true
		return a, nil
	case !more || rest == "":
		return a, errors.New(volumeGrammar)
	case kind == "name":
		if strings.ContainsAny(rest, "/=,: ") {
			return a, fmt.Errorf("%q is no name of a volume", rest)
		}
		a.Name = rest
		return a, nil
	case kind == "path":
		if !strings.HasPrefix(rest, "/") {
			return a, errors.New("give an absolute path on the engine's host")
		}
		a.Path = rest
		return a, nil
	case kind == "nfs":
		return nfsAnswer(rest)
	case kind == "driver":
		return driverAnswer(rest)
	}
	return a, errors.New(volumeGrammar)
}

// nfsAnswer is SERVER:/export[,mount options], as the driver "local" wants it.
func nfsAnswer(s string) (backup.VolumeAnswer, error) {
	where, options, _ := strings.Cut(s, ",")
	i := strings.Index(where, ":/")
	if i <= 0 {
		return backup.VolumeAnswer{}, errors.New("give nfs:SERVER:/export")
	}
	server, export := where[:i], where[i+1:]
	server = strings.TrimSuffix(strings.TrimPrefix(server, "["), "]")
	o := "addr=" + server
	if options == "" {
		options = "rw"
	}
	return backup.VolumeAnswer{Driver: "local", Options: map[string]string{
		"type": "nfs", "o": o + "," + options, "device": ":" + export,
	}}, nil
}

func driverAnswer(s string) (backup.VolumeAnswer, error) {
	parts := strings.Split(s, ",")
	a := backup.VolumeAnswer{Driver: parts[0]}
	if a.Driver == "" {
		return a, errors.New("the name of a driver is missing")
	}
	last := ""
	for _, p := range parts[1:] {
		k, v, ok := strings.Cut(p, "=")
		// o=addr=10.0.0.1,rw,nfsvers=4: this value holds commas itself
		if ok && k != "" && (last != "o" || slices.Contains([]string{"type", "device", "o"}, k)) {
			if a.Options == nil {
				a.Options = map[string]string{}
			}
			a.Options[k], last = v, k
			continue
		}
		if last == "" {
			return a, errors.New("give the driver's options as opt=value")
		}
		a.Options[last] += "," + p
	}
	return a, nil
}

// parseNetworkAnswer reads what stands behind --network NAME=.
func parseNetworkAnswer(s string) (backup.NetworkAnswer, error) {
	var a backup.NetworkAnswer
	for part := range strings.SplitSeq(s, ",") {
		prefix, isSubnet := strings.CutPrefix(part, "subnet:")
		switch {
		case part == "":
			return a, errors.New("give NEW, subnet:10.9.0.0/24, auto or existing")
		case part == "auto" || prefix == "auto" && isSubnet:
			a.Subnet = "auto"
		case part == "existing":
			a.Existing = true
		case isSubnet:
			p, err := netip.ParsePrefix(prefix)
			if err != nil || p != p.Masked() {
				return a, fmt.Errorf("%q is no subnet: give one such as 10.9.0.0/24", prefix)
			}
			a.Subnet = prefix
		case a.Name != "" || strings.ContainsAny(part, "/:= "):
			return a, fmt.Errorf("%q is no name of a network", part)
		default:
			a.Name = part
		}
	}
	return a, nil
}

// parsePortAnswer reads what stands behind --port NAME=.
func parsePortAnswer(s string) (string, error) {
	if s == "auto" || s == "none" {
		return s, nil
	}
	port := s
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		if _, err := netip.ParseAddr(strings.Trim(s[:i], "[]")); err != nil {
			return "", fmt.Errorf("%q is no IP address", s[:i])
		}
		port = s[i+1:]
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", errors.New("give a port, IP:PORT, auto or none")
	}
	return s, nil
}

// parseRouteAnswer reads what stands behind --route NAME=.
func parseRouteAnswer(s string) (backup.RouteAnswer, error) {
	var a backup.RouteAnswer
	if s == "none" {
		a.None = true
		return a, nil
	}
	var hosts []string
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		k, v, option := strings.Cut(part, "=")
		switch {
		case part == "" || option && v == "":
			return a, errors.New("give HOST[/PATH][,tls=…][,port=…] or none")
		case option && k == "tls":
			a.TLS = v
		case option && k == "port":
			if n, err := strconv.ParseUint(v, 10, 16); err != nil || n == 0 {
				return a, fmt.Errorf("port %q: give a port of the container", v)
			}
			a.Port = v
		case option && k == "path" && strings.HasPrefix(v, "/"):
			a.Path = v
		case option:
			return a, fmt.Errorf("%q is not known: there are tls=, port= and path=", k)
		case strings.Contains(part, "://"):
			return a, fmt.Errorf("%q is a URL: give the host name alone", part)
		default:
			host, path, hasPath := strings.Cut(part, "/")
			if hasPath && path != "" {
				if a.Path != "" && a.Path != "/"+path {
					return a, errors.New("give one path")
				}
				a.Path = "/" + path
			}
			if host != "" {
				hosts = append(hosts, host)
			}
		}
	}
	for _, h := range hosts {
		if strings.ContainsAny(h, ": \t") {
			return a, fmt.Errorf("%q is no host name (a port is given as port=)", h)
		}
	}
	a.Host = strings.Join(hosts, ",")
	return a, nil
}

func parseNewName(s string) (string, error) {
	if strings.ContainsAny(s, "/=,: ") {
		return "", fmt.Errorf("%q is no name of a container", s)
	}
	return s, nil
}
