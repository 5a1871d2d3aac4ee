package dentropycmd

import (
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// engineName is what may stand before the "=" of --docker.
var engineName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)

// parseEngines reads the Docker engines. Without any it follows the docker
// command: DOCKER_HOST with DOCKER_TLS_VERIFY and DOCKER_CERT_PATH, else the
// local socket.
func parseEngines(values []string, getenv func(string) string) ([]Engine, error) {
	if len(values) == 0 {
		e, err := engineFromEnv(getenv)
		return []Engine{e}, err
	}
	var out []Engine
	for _, v := range values {
		name, endpoint := "", v
		if before, after, ok := strings.Cut(v, "="); ok && engineName.MatchString(before) {
			name, endpoint = before, after
		}
		endpoint, err := parseEndpoint(endpoint)
		if err != nil {
			return nil, err
		}
		out = append(out, Engine{Name: name, Endpoint: endpoint})
	}
	return nameEngines(out)
}

func engineFromEnv(getenv func(string) string) (Engine, error) {
	host := getenv("DOCKER_HOST")
	if host == "" {
		return Engine{Endpoint: defaultEndpoint}, nil
	}
	endpoint, err := parseEndpoint(host)
	if err != nil {
		return Engine{}, fmt.Errorf("DOCKER_HOST: %w", err)
	}
	e := Engine{Endpoint: endpoint}
	if getenv("DOCKER_TLS_VERIFY") == "" || !strings.HasPrefix(endpoint, "tcp://") {
		return e, nil
	}
	dir := getenv("DOCKER_CERT_PATH")
	if dir == "" {
		dir = filepath.Join(getenv("HOME"), ".docker")
	}
	e.CA, e.Cert, e.Key = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	return e, nil
}

// parseEndpoint accepts what the docker command accepts for -H, and a bare path.
func parseEndpoint(s string) (string, error) {
	if strings.HasPrefix(s, "/") {
		return "unix://" + s, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return "", fmt.Errorf("%q is no Docker endpoint: give unix:///path, tcp://host:port or ssh://user@host", s)
	}
	if _, secret := u.User.Password(); secret {
		// It would show in process lists and in `dentropy sources`.
		return "", fmt.Errorf("a Docker endpoint on %s must not hold a password: use a key", u.Host)
	}
	switch {
	case u.Scheme == "unix" && u.Host == "" && strings.HasPrefix(u.Path, "/"):
	case (u.Scheme == "tcp" || u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.Port() != "":
	case u.Scheme == "ssh" && u.Hostname() != "":
	default:
		return "", fmt.Errorf("%q is no Docker endpoint: give unix:///path, tcp://host:port or ssh://user@host", s)
	}
	return s, nil
}

// nameEngines gives every engine but the first unnamed one a name, made from its
// host: names are part of what routes are owned by, so they must not depend on
// the order in which the engines are given.
func nameEngines(engines []Engine) ([]Engine, error) {
	var taken []string
	for _, e := range engines {
		if e.Name != "" && slices.Contains(taken, e.Name) {
			return nil, fmt.Errorf("two engines are called %q: give each its own name", e.Name)
		}
		if e.Name != "" {
			taken = append(taken, e.Name)
		}
	}
	local := false // the unnamed engine is there already
	for i := range engines {
		e := &engines[i]
		if e.Name != "" {
			continue
		}
		u, err := url.Parse(e.Endpoint)
		if err != nil {
			return nil, fmt.Errorf("endpoint %q: %w", e.Endpoint, err)
		}
		if u.Scheme == "unix" && !local || len(engines) == 1 {
			local = true
			continue
		}
		base := strings.ToLower(u.Hostname())
		if u.Scheme == "unix" {
			base = strings.TrimSuffix(filepath.Base(u.Path), ".sock")
		}
		base = strings.Trim(notInName.ReplaceAllString(base, "-"), "-._")
		if base == "" {
			base = "engine"
		}
		name := base
		for n := 2; slices.Contains(taken, name); n++ {
			name = base + "-" + strconv.Itoa(n)
		}
		e.Name = name
		taken = append(taken, name)
	}
	return engines, nil
}

var notInName = regexp.MustCompile(`[^a-z0-9._-]+`)
