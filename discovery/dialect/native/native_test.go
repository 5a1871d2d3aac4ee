package native_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/dentropy/dentropycloud/discovery"
	"github.com/dentropy/dentropycloud/discovery/dialect/native"
)

var update = flag.Bool("update", false, "write what Parse gives into testdata")

// TestCorpus reads every case of testdata. A file holds pairs of sections, NAME
// with the labels and NAME.want with what they give. Labels stand one a line as
// key=value; a line that begins with a tab goes on with the value above; a line
// "ports 80 443" lists the exposed ports, and "prefix P S" asks for another dialect.
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("Glob = %v, %v, want files", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string][]byte{}
			out := &txtar.Archive{Comment: archive.Comment}
			for _, f := range archive.Files {
				want[f.Name] = f.Data
			}
			for _, f := range archive.Files {
				if strings.HasSuffix(f.Name, ".want") {
					continue
				}
				got := runCase(t, f.Data)
				out.Files = append(out.Files, f, txtar.File{Name: f.Name + ".want", Data: got})
				if *update {
					continue
				}
				if diff := cmp.Diff(string(want[f.Name+".want"]), string(got)); diff != "" {
					t.Errorf("%s: Parse gives (-want +got):\n%s", f.Name, diff)
				}
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(out), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func runCase(t *testing.T, data []byte) []byte {
	t.Helper()
	d := new(native.Dialect)
	in := discovery.Labelled{Labels: map[string]string{}}
	last := ""
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "ports"):
			for _, f := range strings.Fields(line)[1:] {
				p, err := strconv.Atoi(f)
				if err != nil {
					t.Fatal(err)
				}
				in.Ports = append(in.Ports, p)
			}
		case strings.HasPrefix(line, "prefix "):
			f := strings.Fields(line)
			var err error
			if d, err = native.New(f[1], f[2]); err != nil {
				t.Fatal(err)
			}
		case strings.HasPrefix(line, "\t"):
			in.Labels[last] += line[1:] + "\n"
		default:
			label, value, ok := strings.Cut(line, "=")
			if !ok {
				t.Fatalf("line %q is no label", line)
			}
			in.Labels[label] = value
			last = label
		}
	}
	var b bytes.Buffer
	if !d.Claims(in.Labels) {
		b.WriteString("not claimed\n")
	}
	routes, problems := d.Parse(in)
	for _, r := range routes {
		fmt.Fprintf(&b, "route %s\n", encode(t, r))
	}
	for _, p := range problems {
		fmt.Fprintf(&b, "problem of %q: %s\n", p.Route, p.Error())
	}
	return b.Bytes()
}

func encode(t testing.TB, v any) string {
	t.Helper()
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func TestNew(t *testing.T) {
	for _, tt := range []struct {
		name, prefix, separator, label string
		bad                            bool
	}{
		{name: "defaults", label: "dentropy.host"},
		{name: "annotations", prefix: "dentropy.cloud", separator: "/", label: "dentropy.cloud/host"},
		{name: "own word", prefix: "web", label: "web.host"},
		{name: "upper case", prefix: "Web", label: "WEB.host"},
		{name: "space", prefix: "my web", bad: true},
		{name: "final dot", prefix: "web.", bad: true},
		{name: "separator", separator: "-", bad: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := native.New(tt.prefix, tt.separator)
			if (err != nil) != tt.bad {
				t.Fatalf("New(%q, %q) gives error %v, want one: %t", tt.prefix, tt.separator, err, tt.bad)
			}
			if tt.bad {
				return
			}
			labels := map[string]string{tt.label: "a.example.com"}
			if !d.Claims(labels) {
				t.Errorf("Claims(%v) = false, want true", labels)
			}
			routes, problems := d.Parse(discovery.Labelled{Labels: labels, Ports: []int{80}})
			if len(routes) != 1 || len(problems) != 0 {
				t.Errorf("Parse(%v) = %v, %v, want one route", labels, routes, problems)
			}
		})
	}
}

// What is too large to stand in a text file.
func TestLimits(t *testing.T) {
	hosts := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("h%d.example.com", i))
		}
		return strings.Join(list, ",")
	}
	paths := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("/p%d", i))
		}
		return strings.Join(list, ",")
	}
	prefixes := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("10.%d.%d.0/24", i/256, i%256))
		}
		return strings.Join(list, ",")
	}
	for _, tt := range []struct {
		name, label, value, reason string
	}{
		{name: "100 hosts", label: "host", value: hosts(100)},
		{name: "101 hosts", label: "host", value: hosts(101), reason: "a list of 101 hosts, more than 100"},
		{name: "100 paths", label: "path", value: paths(100)},
		{name: "101 paths", label: "path", value: paths(101), reason: "a list of 101 paths, more than 100"},
		{name: "1000 prefixes", label: "access", value: prefixes(1000)},
		{name: "1001 prefixes", label: "access", value: prefixes(1001), reason: "a list of 1001, more than 1000"},
		{name: "snippet of 64 KiB", label: "caddyfile", value: strings.Repeat("#", 64<<10)},
		{name: "larger snippet", label: "caddyfile", value: strings.Repeat("#", 64<<10+1), reason: "the value has 65537 bytes, more than 65536"},
		{name: "larger value", label: "network", value: strings.Repeat(" ", 64<<10+1), reason: "the value has 65537 bytes, more than 65536"},
		{name: "longest part", label: "host", value: strings.Repeat("a", 63) + ".example.com"},
		{name: "longer part", label: "host", value: strings.Repeat("a", 64) + ".example.com", reason: "a part of 64 bytes, more than 63"},
		{name: "longest name", label: "host", value: strings.Repeat("a.", 126) + "a"},
		{name: "longer name", label: "host", value: strings.Repeat("a.", 126) + "aa", reason: "a name of 254 bytes, more than 253"},
		{name: "wildcard that is longer", label: "host", value: "*." + strings.Repeat("a.", 125) + "aa", reason: "a name of 254 bytes, more than 253"},
		{name: "much longer name", label: "host", value: strings.Repeat("ä", 10_000), reason: "a name of 20000 bytes, more than 253"},
		{name: "longest route name", label: strings.Repeat("n", 63) + ".host", value: "a.example.com"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			labels := map[string]string{"dentropy.host": "a.example.com", "dentropy.other.host": "b.example.com"}
			labels["dentropy."+tt.label] = tt.value
			routes, problems := new(native.Dialect).Parse(discovery.Labelled{Labels: labels, Ports: []int{80}})
			if !slices.ContainsFunc(routes, func(r discovery.Route) bool { return r.Name == "other" }) {
				t.Errorf("Parse = %v, want the route %q in it", routes, "other")
			}
			reason := ""
			if len(problems) > 0 {
				reason = problems[0].Reason
				if got := len(problems[0].Value); got > 8<<10 {
					t.Errorf("the problem keeps %d bytes of the value", got)
				}
			}
			if reason != tt.reason || len(problems) > 1 {
				t.Errorf("Parse gives problems %v, want the reason %q", problems, tt.reason)
			}
		})
	}
}

func TestTooManyRoutes(t *testing.T) {
	labels := map[string]string{"dentropy.host": "a.example.com"}
	for i := range 101 {
		labels[fmt.Sprintf("dentropy.r%03d.host", i)] = fmt.Sprintf("r%d.example.com", i)
	}
	routes, problems := new(native.Dialect).Parse(discovery.Labelled{Labels: labels, Ports: []int{80}})
	if len(routes) != 100 || routes[0].Name != "" || routes[99].Name != "r098" {
		t.Errorf("Parse gives %d routes, want the first 100 by name", len(routes))
	}
	// Each is named, so that what served before goes on serving.
	var names []string
	for _, p := range problems {
		names = append(names, p.Route)
	}
	if want := []string{"r099", "r100"}; !slices.Equal(names, want) {
		t.Errorf("Parse gives problems of %q, want of %q", names, want)
	}
}

// A long list of exposed ports is not written out.
func TestManyPorts(t *testing.T) {
	var ports []int
	for p := range 1000 {
		ports = append(ports, 10_000+p)
	}
	in := discovery.Labelled{Labels: map[string]string{"dentropy.host": "a.example.com"}, Ports: ports}
	_, problems := new(native.Dialect).Parse(in)
	if len(problems) != 1 || !strings.HasSuffix(problems[0].Reason, "10019 and 980 more") {
		t.Errorf("Parse gives %v, want 20 ports and the number of the rest", problems)
	}
}

// Bytes that text cannot hold.
func TestNotText(t *testing.T) {
	for _, tt := range []struct{ name, label, value string }{
		{"snippet with a zero byte", "dentropy.caddyfile", "respond a\x00b"},
		{"snippet that is not UTF-8", "dentropy.caddyfile", "respond \xff"},
		{"path that is not UTF-8", "dentropy.path", "/\xff"},
		{"path with an escaped line feed", "dentropy.path", "/a%0ab"},
		{"path with an escaped byte", "dentropy.path", "/%ff"},
		{"host that is not UTF-8", "dentropy.host", "\xff.example.com"},
		{"host with a zero byte", "dentropy.host", "a\x00.example.com"},
		{"key with a zero byte", "dentropy.ho\x00st", "a.example.com"},
		{"name with a line feed", "dentropy.a\nb.host", "a.example.com"},
		{"key in another script", "dentropy.хост", "a.example.com"},
		{"letter that folds into an ASCII one", "dentropy.networ\u212a", "web"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			labels := map[string]string{"dentropy.host": "a.example.com", "dentropy.port": "80", tt.label: tt.value}
			_, problems := new(native.Dialect).Parse(discovery.Labelled{Labels: labels})
			if len(problems) != 1 || problems[0].Label != tt.label {
				t.Errorf("Parse(%q) gives problems %v, want one with label %q", labels, problems, tt.label)
			}
		})
	}
}

// A wrong label says what it says without what may be secret in it.
func TestSecretsAreNotShown(t *testing.T) {
	const secret = "hunter2"
	for label, value := range map[string]string{
		"dentropy.caddyfile":      "header X " + secret + "\x00",
		"dentropy.dns.token":      secret,
		"dentropy.web.password":   secret,
		"dentropy.basicauth":      secret,
		"dentropy.host":           "https://me:" + secret + "@a.example.com,b_",
		"dentropy.web.caddyfile.": secret,
		"dentropy.caddyfil":       secret,
		"dentropy.web.Cadyfile":   secret,
		"dentropy.path":           "//me:" + secret + "@a",
	} {
		_, problems := new(native.Dialect).Parse(discovery.Labelled{Labels: map[string]string{label: value}, Ports: []int{80}})
		if len(problems) == 0 {
			t.Errorf("Parse(%s=%s) gives no problem", label, value)
		}
		for _, p := range problems {
			if text := fmt.Sprintf("%+v %s", p, p.Error()); strings.Contains(text, secret) {
				t.Errorf("the problem of %s shows the secret: %s", label, text)
			}
		}
	}
}

// Two ways to write a default, or an order, are the same route.
func TestDefaultsAreEqual(t *testing.T) {
	short := map[string]string{"dentropy.host": "b.example.com,a.example.com"}
	long := map[string]string{
		"dentropy.host": " A.example.com., b.EXAMPLE.com,a.example.com", "dentropy.port": "80", "dentropy.path": "/",
		"dentropy.strip_path": "false", "dentropy.scheme": "http", "dentropy.tls": "auto", "dentropy.access": "public",
		"dentropy.enable": "true",
	}
	d := new(native.Dialect)
	want, _ := d.Parse(discovery.Labelled{Labels: short, Ports: []int{80}})
	got, problems := d.Parse(discovery.Labelled{Labels: long, Ports: []int{80}})
	if diff := cmp.Diff(encode(t, want), encode(t, got)); diff != "" || len(problems) > 0 {
		t.Errorf("Parse(%v) gives %v (-want +got):\n%s", long, problems, diff)
	}
}

func TestParseLeavesLabelsAlone(t *testing.T) {
	labels := map[string]string{"dentropy.Host": "A.example.com", "dentropy.path": "/b/,/a", "other": "x"}
	before := maps.Clone(labels)
	new(native.Dialect).Parse(discovery.Labelled{Labels: labels, Ports: []int{80}})
	if diff := cmp.Diff(before, labels); diff != "" {
		t.Errorf("Parse changed the labels (-before +after):\n%s", diff)
	}
}

func BenchmarkParse(b *testing.B) {
	in := discovery.Labelled{
		Name: "whoami",
		Labels: map[string]string{
			"dentropy.host":              "app.example.com, www.example.com",
			"dentropy.port":              "8080",
			"dentropy.path":              "/api",
			"dentropy.access":            "private,203.0.113.0/24",
			"dentropy.hold":              "30s",
			"com.docker.compose.project": "demo",
			"com.docker.compose.service": "whoami",
		},
		Ports: []int{80, 8080},
	}
	d := new(native.Dialect)
	b.ReportAllocs()
	for b.Loop() {
		if routes, problems := d.Parse(in); len(routes) != 1 || len(problems) != 0 {
			b.Fatal(routes, problems)
		}
	}
}

func BenchmarkClaimsNothing(b *testing.B) {
	labels := map[string]string{}
	for i := range 20 {
		labels[fmt.Sprintf("org.opencontainers.image.label%d", i)] = "x"
	}
	d := new(native.Dialect)
	b.ReportAllocs()
	for b.Loop() {
		if d.Claims(labels) {
			b.Fatal("claimed")
		}
	}
}

// An object with ten thousand labels of random bytes is read, and its one good
// route with it.
func TestRandomBytes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	random := func(most int) string {
		b := make([]byte, rnd.IntN(most))
		for i := range b {
			b[i] = byte(rnd.UintN(256))
		}
		return string(b)
	}
	labels := map[string]string{}
	for range 10_000 {
		labels["dentropy."+random(20)] = random(200)
	}
	labels["dentropy..host"] = "x" // the default route has a problem for sure
	d := new(native.Dialect)
	routes, problems := d.Parse(discovery.Labelled{Labels: labels, Ports: []int{80}})
	checkParsed(t, routes, problems)
	if len(routes) != 0 || len(problems) < 100 {
		t.Errorf("Parse gives %d routes and %d problems, want many problems only", len(routes), len(problems))
	}

	// The first by name is within the limit on routes.
	labels["dentropy.0.host"] = "a.example.com"
	routes, _ = d.Parse(discovery.Labelled{Labels: labels, Ports: []int{80}})
	if want := []string{"a.example.com"}; len(routes) != 1 || !slices.Equal(routes[0].Hosts, want) {
		t.Errorf("Parse = %v, want one route with hosts %v", routes, want)
	}
}
