package dentropycmd

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/mail"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// What `dentropy up` does when it is told nothing.
const (
	defaultHTTPPort  = 80
	defaultHTTPSPort = 443
	// defaultHold is how long a request waits for a container that is starting:
	// long enough for most programs, short enough for a person in front of a
	// browser.
	defaultHold     = 10 * time.Second
	defaultEndpoint = "unix:///var/run/docker.sock"
	// systemDataDir is where root keeps its data.
	systemDataDir = "/var/lib/dentropy"
)

// setting is one thing that `dentropy up` can be told: by a flag, or by the
// environment variable of the same name.
type setting struct {
	name, kind, usage string
	// list settings may be given several times, or as a list with commas.
	list bool
}

// env is the name of the environment variable.
func (s setting) env() string {
	return "DENTROPY_" + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// upSettings in the order of the help text.
var upSettings = []setting{
	{name: "http-port", kind: "port", usage: "port for http (default 80)"},
	{name: "https-port", kind: "port", usage: "port for https, TCP and UDP (default 443)"},
	{name: "bind", kind: "address", list: true, usage: "IP address to listen on; may be repeated (default: all, IPv4 and IPv6)"},
	{name: "email", kind: "address", usage: "e-mail address for the certificate authority"},
	{name: "acme-ca", kind: "url", usage: "directory URL of the certificate authority (default: Let's Encrypt)"},
	{name: "acme-ca-root", kind: "file", usage: "PEM file with the root that the certificate authority's own https uses"},
	{name: "admin", kind: "address", usage: "admin API address: a unix socket or a loopback address (default: admin.sock in the data folder)"},
	{name: "data-dir", kind: "folder", usage: "folder for certificates, keys and state (default: $XDG_DATA_HOME/dentropy; for root " + systemDataDir + ")"},
	{name: "docker", kind: "[name=]endpoint", list: true, usage: "Docker engine to watch; may be repeated (default: $DOCKER_HOST, else " + defaultEndpoint + ")"},
	{name: "hold", kind: "duration", usage: "how long a request waits for a container that is starting (default 10s)"},
	{name: "config", kind: "file", usage: "Caddyfile with static sites and global options, served beside the containers"},
}

// Options is what `dentropy up` was told, complete and checked.
type Options struct {
	HTTPPort, HTTPSPort int
	// Bind holds IP addresses. Empty: all addresses of both families.
	Bind []string
	// Email, ACMECA and ACMECARoot concern the certificate authority.
	Email, ACMECA, ACMECARoot string
	// Admin is the admin API's address in Caddy's form.
	Admin string
	// DataDir is absolute.
	DataDir string
	// Engines are the Docker engines to watch.
	Engines []Engine
	Hold    time.Duration
	// Config is a Caddyfile (or Caddy JSON), "" for none.
	Config string

	// given says which settings were chosen, and how: "--bind", "DENTROPY_BIND".
	given map[string]string
}

// Engine is one Docker engine.
type Engine struct {
	// Name is unique among the engines; the first may be without.
	Name string
	// Endpoint is a URL: unix, tcp, ssh.
	Endpoint string
	// CA, Cert and Key are files for TLS, from DOCKER_CERT_PATH.
	CA, Cert, Key string
}

// origin names a setting the way the user gave it, for messages.
func (o Options) origin(name string) string {
	if how := o.given[name]; how != "" {
		return how
	}
	return "--" + name
}

// textVar is a flag whose kind shows in the help text. Values are checked later,
// together with those from the environment.
type textVar struct {
	kind   string
	values []string
}

// Set adds a value.
func (v *textVar) Set(s string) error { v.values = append(v.values, s); return nil }

// String gives the values as the environment would hold them.
func (v *textVar) String() string { return strings.Join(v.values, ",") }

// Type gives the word that stands for the value in the help text.
func (v *textVar) Type() string { return v.kind }

func addFlags(fs *pflag.FlagSet, settings []setting) {
	for _, s := range settings {
		short := ""
		if s.name == "config" {
			short = "c" // as everywhere in Caddy
		}
		fs.VarP(&textVar{kind: s.kind}, s.name, short, s.usage+" ["+s.env()+"]")
	}
}

// lookup gives the values of a setting: flag beats environment.
func lookup(fs *pflag.FlagSet, s setting, getenv func(string) string) (values []string, how string) {
	if f := fs.Lookup(s.name); f != nil && f.Changed {
		values, how = f.Value.(*textVar).values, "--"+s.name
	} else if v := getenv(s.env()); v != "" {
		values, how = []string{v}, s.env()
	} else {
		return nil, ""
	}
	if !s.list {
		return values[len(values)-1:], how
	}
	var all []string
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); part != "" {
				all = append(all, part)
			}
		}
	}
	return all, how
}

// parseOptions reads flags and environment. It touches no file but the CA root,
// whose content is checked.
func parseOptions(fs *pflag.FlagSet, getenv func(string) string) (Options, error) {
	o := Options{
		HTTPPort: defaultHTTPPort, HTTPSPort: defaultHTTPSPort, Hold: defaultHold,
		given: map[string]string{},
	}
	values := map[string][]string{}
	for _, s := range upSettings {
		if v, how := lookup(fs, s, getenv); how != "" {
			values[s.name], o.given[s.name] = v, how
		}
	}
	one := func(name string) string {
		if len(values[name]) == 0 {
			return ""
		}
		return values[name][0]
	}
	var err error
	for _, p := range []struct {
		name string
		to   *int
	}{{"http-port", &o.HTTPPort}, {"https-port", &o.HTTPSPort}} {
		if s := one(p.name); s != "" {
			if *p.to, err = strconv.Atoi(s); err != nil || *p.to < 1 || *p.to > 65535 {
				return o, fmt.Errorf("%s %q: give a port number from 1 to 65535", o.origin(p.name), s)
			}
		}
	}
	if o.Bind, err = parseBind(values["bind"]); err != nil {
		return o, fmt.Errorf("%s: %w", o.origin("bind"), err)
	}
	o.Email, o.ACMECA = one("email"), one("acme-ca")
	if err := o.checkCA(one("acme-ca-root")); err != nil {
		return o, err
	}
	if s := one("hold"); s != "" {
		if o.Hold, err = time.ParseDuration(s); err != nil || o.Hold < 0 {
			return o, fmt.Errorf("%s %q: give a duration such as 10s or 500ms, or 0s not to wait", o.origin("hold"), s)
		}
	}
	if o.DataDir, err = dataDir(one("data-dir"), getenv, os.Geteuid() == 0); err != nil {
		return o, err
	}
	if s := one("config"); s != "" {
		if o.Config, err = filepath.Abs(s); err != nil {
			return o, fmt.Errorf("%s %q: %w", o.origin("config"), s, err)
		}
	}
	o.Admin = defaultAdmin(o.DataDir)
	if s := one("admin"); s != "" {
		if o.Admin, err = parseAdmin(s); err != nil {
			return o, fmt.Errorf("%s %q: %w", o.origin("admin"), s, err)
		}
	}
	if o.Engines, err = parseEngines(values["docker"], getenv); err != nil {
		return o, fmt.Errorf("%s: %w", o.origin("docker"), err)
	}
	return o, o.checkPorts()
}

// checkPorts is apart from the parsing because a --config file may set ports too.
func (o Options) checkPorts() error {
	if o.HTTPPort == o.HTTPSPort {
		return fmt.Errorf("port %d cannot serve both http and https: change --http-port or --https-port", o.HTTPPort)
	}
	return nil
}

func (o *Options) checkCA(root string) error {
	if o.Email != "" {
		if a, err := mail.ParseAddress(o.Email); err != nil || a.Name != "" {
			return fmt.Errorf("%s %q: this is no e-mail address", o.origin("email"), o.Email)
		}
	}
	if o.ACMECA != "" {
		u, err := url.Parse(o.ACMECA)
		if err != nil || u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("%s %q: give the https URL of an ACME directory", o.origin("acme-ca"), o.ACMECA)
		}
	}
	if root == "" {
		return nil
	}
	pem, err := os.ReadFile(root)
	if err != nil {
		return fmt.Errorf("%s: %w", o.origin("acme-ca-root"), err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s %s: there is no PEM certificate in it", o.origin("acme-ca-root"), root)
	}
	if o.ACMECARoot, err = filepath.Abs(root); err != nil {
		return fmt.Errorf("%s: %w", o.origin("acme-ca-root"), err)
	}
	return nil
}

// parseBind reads IP addresses. 0.0.0.0 stands for all of IPv4 and :: for all of
// IPv6, so that giving both is the same as giving none.
func parseBind(values []string) ([]string, error) {
	var out []string
	for _, v := range values {
		if v == "localhost" {
			out = append(out, "127.0.0.1")
			continue
		}
		a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(v, "["), "]"))
		if err != nil {
			return nil, fmt.Errorf("%q is no IP address (a port has a setting of its own)", v)
		}
		out = append(out, a.Unmap().String())
	}
	slices.Sort(out)
	out = slices.Compact(out)
	for _, all := range []string{"0.0.0.0", "::"} {
		if !slices.Contains(out, all) {
			continue
		}
		for _, b := range out {
			if b != all && strings.Contains(b, ":") == strings.Contains(all, ":") {
				return nil, fmt.Errorf("%s covers %s already: give one of them", all, b)
			}
		}
	}
	if slices.Equal(out, []string{"0.0.0.0", "::"}) {
		return nil, nil
	}
	return out, nil
}

// dataDir finds the data folder and makes its path absolute.
func dataDir(given string, getenv func(string) string, root bool) (string, error) {
	dir := given
	switch xdg, home := getenv("XDG_DATA_HOME"), getenv("HOME"); {
	case dir != "":
	case xdg != "":
		dir = filepath.Join(xdg, "dentropy")
	case root:
		dir = systemDataDir
	case home != "":
		dir = filepath.Join(home, ".local", "share", "dentropy")
	default:
		return "", errors.New("there is no home folder to keep data in: use --data-dir")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("data folder %q: %w", dir, err)
	}
	return abs, nil
}
