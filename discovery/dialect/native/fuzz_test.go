package native_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/dentropy/dentropycloud/discovery"
	"github.com/dentropy/dentropycloud/discovery/dialect/native"
)

// FuzzParse reads labels of any bytes, one a line, and holds what comes out against
// the contract of discovery.Route.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"host=a.example.com",
		"host=*.Bücher.example,[::1],https://x/\nport=80\npath=/a%20b,/c/\nstrip_path=yes",
		"a.host=x\na.tls=internal\na.access=private,10.0.0.0/8,::1\nA.Host=y",
		"a.host=x\na.hold=1m30s\na.dns=both\na.scheme=h2c\na.network=n",
		"enable=true\nweb=1\n..=\nbackup.x=1\ndns.host=x",
		"host=Host(`a`) || Host(`b`)\nhots=x\nprot=1\nhttp.routers.web.rule=x",
		"host=\"x\"\ncaddyfile=respond ok\nhold=-1\naccess=1.2.3.4/255.0.0.0",
	} {
		f.Add(seed, 1)
	}
	f.Fuzz(func(t *testing.T, text string, ports int) {
		labels := labelsOf(text)
		in := discovery.Labelled{Labels: labels}
		for i := range ports % 4 {
			in.Ports = append(in.Ports, 80+i)
		}
		d := new(native.Dialect)
		routes, problems := d.Parse(in)
		checkParsed(t, routes, problems)
		if (len(routes) > 0 || len(problems) > 0) && !d.Claims(labels) {
			t.Errorf("Claims(%q) = false, but Parse gives %v, %v", labels, routes, problems)
		}
		again, problemsAgain := d.Parse(discovery.Labelled{Labels: maps.Clone(labels), Ports: in.Ports})
		if diff := cmp.Diff(encode(t, routes)+encode(t, problems), encode(t, again)+encode(t, problemsAgain)); diff != "" {
			t.Errorf("Parse(%q) gives something else the second time:\n%s", labels, diff)
		}
	})
}

// FuzzIsolation adds one label to others: it may change its own route only.
func FuzzIsolation(f *testing.F) {
	f.Add("host=a\nweb.host=b\napi.host=c", "web.host", "d")
	f.Add("host=a\nweb.host=b", "web.prot", "1")
	f.Add("enable=true\nweb.host=b", "host", "https://x")
	f.Add("host=a\nweb.host=b", "backup.schedule", "daily")
	f.Add("host=a\nweb.host=b", "web.host.x", "daily")
	f.Add("host=a\nweb.host=b", "dns.host", "c")
	f.Add("host=a", "\x80.", "0")
	f.Fuzz(func(t *testing.T, text, key, value string) {
		checkIsolated(t, labelsOf(text), "dentropy."+key, value)
	})
}

// TestIsolation is FuzzIsolation with labels that mean something.
func TestIsolation(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	pick := func(list ...string) string { return list[rnd.IntN(len(list))] }
	label := func() string {
		key := pick("host", "Host", "port", "path", "strip_path", "scheme", "network", "tls", "access", "dns",
			"caddyfile", "hold", "hots", "web", "enable", "app", "backup", "", "project")
		name := pick("", "", "web", "api", "Web", "x_1", "dns", "backup", "app", "my app", "host", "a.b", "enable")
		if name != "" {
			key = name + "." + key
		}
		return "dentropy." + key
	}
	value := func() string {
		return pick("a.example.com", "b.example.com,*.c.example.com", "https://x/", "80", "/api", "true", "false",
			"http", "internal", "private", "10.0.0.0/8", "both", "10s", "0", "", `"x"`, "respond ok")
	}
	for range 2000 {
		labels := map[string]string{}
		for range rnd.IntN(12) {
			labels[label()] = value()
		}
		checkIsolated(t, labels, label(), value())
		if t.Failed() {
			t.Fatalf("with the labels %q", labels)
		}
	}
}

// checkIsolated holds Parse against its promise: adding or changing one label of a
// route leaves the bytes of all others as they were.
func checkIsolated(t *testing.T, labels map[string]string, label, value string) {
	t.Helper()
	if len(labels) > 90 {
		t.Skip("near the limit on routes")
	}
	owner, whole := ownerOf(label)
	if whole {
		return
	}
	d := new(native.Dialect)
	parse := func(labels map[string]string) string {
		routes, problems := d.Parse(discovery.Labelled{Labels: labels, Ports: []int{80}})
		checkParsed(t, routes, problems)
		routes = slices.DeleteFunc(routes, func(r discovery.Route) bool { return owner != nil && r.Name == *owner })
		problems = slices.DeleteFunc(problems, func(p discovery.Problem) bool {
			// What is wrong with dentropy.enable is told to every route there is.
			return owner != nil && p.Route == *owner || strings.EqualFold(p.Label, "dentropy.enable")
		})
		return strings.ReplaceAll(encode(t, routes)+"\n"+encode(t, problems), "null", "[]")
	}
	before := parse(labels)
	changed := maps.Clone(labels)
	changed[label] = value
	if diff := cmp.Diff(before, parse(changed)); diff != "" {
		t.Errorf("%s=%q changes another route (-before +after):\n%s", label, value, diff)
	}
}

// ownerOf says which route a label is for, told apart from the code: nil is none.
func ownerOf(label string) (route *string, whole bool) {
	words := strings.Split(label, ".")[1:]
	for i, w := range words {
		b := []byte(w) // not strings.ToLower: it would change bytes that are no text
		for j, c := range b {
			if 'A' <= c && c <= 'Z' {
				b[j] = c + 'a' - 'A'
			}
		}
		words[i] = string(b)
	}
	first := words[0]
	defaultRoute := ""
	switch {
	case first == "backup", first == "app" && len(words) == 1:
		return nil, false
	case first == "enable" && len(words) == 1:
		return nil, true
	case len(words) == 1:
		return &defaultRoute, false
	}
	switch first {
	case "", "enable", "dns", "app", "hold", "access", "caddyfile", "project":
		return &defaultRoute, false
	}
	return &first, false
}

func labelsOf(text string) map[string]string {
	labels := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		key, value, _ := strings.Cut(line, "=")
		labels["dentropy."+key] = value
	}
	return labels
}

var (
	hostName = regexp.MustCompile(`^(\*|(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*)$`)
	issuer   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)
	network  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
)

// checkParsed holds routes and problems against what discovery.Route promises.
func checkParsed(t *testing.T, routes []discovery.Route, problems []discovery.Problem) {
	t.Helper()
	for i, r := range routes {
		if i > 0 && routes[i-1].Name >= r.Name {
			t.Errorf("route %q comes after %q", r.Name, routes[i-1].Name)
		}
		if err := checkRoute(r); err != nil {
			t.Errorf("route %q: %v: %s", r.Name, err, encode(t, r))
		}
		if slices.ContainsFunc(problems, func(p discovery.Problem) bool { return p.Route == r.Name }) {
			t.Errorf("route %q has a problem and is not left out: %v", r.Name, problems)
		}
	}
	for i, p := range problems {
		if i > 0 && problems[i-1].Route > p.Route {
			t.Errorf("problem of %q comes after that of %q", p.Route, problems[i-1].Route)
		}
		if p.Reason == "" {
			t.Errorf("problem without reason: %+v", p)
		}
		if strings.ContainsFunc(p.Reason+p.Hint, unicode.IsControl) {
			t.Errorf("problem with control characters: %q, %q", p.Reason, p.Hint)
		}
		if len(p.Reason)+len(p.Hint) > 2000 {
			t.Errorf("problem with a text of %d bytes", len(p.Reason)+len(p.Hint))
		}
	}
}

func checkRoute(r discovery.Route) error {
	if r.Dialect != "native" {
		return fmt.Errorf("dialect %q", r.Dialect)
	}
	if len(r.Hosts) == 0 || len(r.Hosts) > 100 || !sortedUnique(r.Hosts) {
		return fmt.Errorf("hosts %q", r.Hosts)
	}
	for _, h := range r.Hosts {
		addr, err := netip.ParseAddr(h)
		if isAddr := err == nil && addr.String() == h; !isAddr && !hostName.MatchString(h) || len(h) > 253 {
			return fmt.Errorf("host %q", h)
		}
	}
	if len(r.Paths) > 100 || !sortedUnique(r.Paths) {
		return fmt.Errorf("paths %q", r.Paths)
	}
	for _, p := range r.Paths {
		if !strings.HasPrefix(p, "/") || strings.ContainsFunc(p, unicode.IsControl) || strings.ContainsAny(p, "{}") {
			return fmt.Errorf("path %q", p)
		}
		for part := range strings.SplitSeq(p[1:], "/") {
			if p != "/" && part == "" || part == "." || part == ".." {
				return fmt.Errorf("path %q with part %q", p, part)
			}
		}
	}
	switch {
	case r.Port < 1 || r.Port > 65535:
		return fmt.Errorf("port %d", r.Port)
	case !slices.Contains([]string{"", "https", "h2c"}, r.Scheme):
		return fmt.Errorf("scheme %q", r.Scheme)
	case !slices.Contains([]string{"", "public", "private", "both", "none"}, r.DNS):
		return fmt.Errorf("dns %q", r.DNS)
	case r.TLS == "auto" || r.TLS != "" && !issuer.MatchString(r.TLS):
		return fmt.Errorf("tls %q", r.TLS)
	case r.Network != "" && !network.MatchString(r.Network):
		return fmt.Errorf("network %q", r.Network)
	case r.Hold < -1 || r.Hold > time.Hour:
		return fmt.Errorf("hold %v", r.Hold)
	case len(r.Caddyfile) > 64<<10:
		return fmt.Errorf("snippet of %d bytes", len(r.Caddyfile))
	}
	for _, p := range r.Access.Prefixes {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return fmt.Errorf("prefix %v", p)
		}
	}
	return nil
}

func sortedUnique(list []string) bool {
	for i := 1; i < len(list); i++ {
		if list[i-1] >= list[i] {
			return false
		}
	}
	return true
}

// Hosts and paths that were read are read again as the same.
func FuzzHost(f *testing.F) {
	for _, s := range []string{"a.example.com", "*.x", "*", "::1", "Bücher.de", "xn--bcher-kva.de", "1.2.3.4.", "例え。jp", "a\u00adb.c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		d := new(native.Dialect)
		routes, _ := d.Parse(discovery.Labelled{Labels: map[string]string{"dentropy.host": host}, Ports: []int{80}})
		if len(routes) == 0 {
			return
		}
		again := map[string]string{"dentropy.host": strings.Join(routes[0].Hosts, ",")}
		got, problems := d.Parse(discovery.Labelled{Labels: again, Ports: []int{80}})
		if len(got) != 1 || !slices.Equal(got[0].Hosts, routes[0].Hosts) {
			t.Errorf("host %q is read as %q, and that as %v, %v", host, routes[0].Hosts, got, problems)
		}
	})
}
