package native

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/dentropy/dentropycloud/discovery"
)

// DefaultPrefix is the first word of our labels.
const DefaultPrefix = "dentropy"

// Limits on what one object may ask for. They are far above any honest use and
// keep what one container can cost us small.
const (
	maxRoutes = 100
	maxHosts  = 100 // per route
	maxPaths  = 100 // per route
	maxValue  = 64 << 10
	// maxPrefixes is larger: lists of a provider's or a country's networks are long.
	maxPrefixes = 1000
	// maxName is what a DNS label may hold, so that a route's name fits into one.
	maxName = 63
)

// Dialect reads native labels. The zero value reads those that begin with
// "dentropy."; New makes one for another beginning. It is safe for concurrent use.
type Dialect struct {
	head string // prefix and separator, lower case; empty: DefaultPrefix and a dot
}

// New gives a dialect whose labels begin with prefix and separator: "dentropy" and
// "." for labels, "dentropy.cloud" and "/" for Kubernetes annotations. An empty
// prefix stands for DefaultPrefix, an empty separator for ".".
func New(prefix, separator string) (*Dialect, error) {
	prefix, separator = cmp.Or(lowerASCII(prefix), DefaultPrefix), cmp.Or(separator, ".")
	if separator != "." && separator != "/" {
		return nil, fmt.Errorf("label separator %q: it must be %q or %q", separator, ".", "/")
	}
	for word := range strings.SplitSeq(prefix, ".") {
		if !validName(word) {
			return nil, fmt.Errorf("label prefix %q: write words of letters, digits, - and _ with dots between them, such as %q", prefix, DefaultPrefix)
		}
	}
	return &Dialect{head: prefix + separator}, nil
}

// Name implements discovery.Dialect.
func (*Dialect) Name() string { return "native" }

// Claims implements discovery.Dialect. Labels that only other parts read
// (dentropy.app, dentropy.backup.*) claim nothing: a container may carry them
// beside the routing labels of another dialect.
func (d *Dialect) Claims(labels map[string]string) bool {
	for label := range labels {
		if rest, ok := d.cut(label); ok {
			if e := place(lowerASCII(rest)); e.scope != scopeElsewhere {
				return true
			}
		}
	}
	return false
}

// Parse implements discovery.Dialect.
func (d *Dialect) Parse(in discovery.Labelled) ([]discovery.Route, []discovery.Problem) {
	var buf [16]entry // the usual object has fewer: no allocation
	entries := d.entries(in.Labels, buf[:0])
	if len(entries) == 0 {
		return nil, nil
	}

	// Labels for the whole object come first in the order.
	n := 0
	for n < len(entries) && entries[n].scope == scopeObject {
		n++
	}
	enable := readEnable(entries[:n])
	if enable.off {
		return nil, nil
	}
	entries = entries[n:]
	if len(entries) == 0 {
		return nil, []discovery.Problem{d.nothingEnabled(enable)}
	}

	var (
		routes   []discovery.Route
		problems []discovery.Problem
	)
	for count := 1; len(entries) > 0; count++ {
		n := 1
		for n < len(entries) && entries[n].route == entries[0].route {
			n++
		}
		r := reader{d: d, ports: in.Ports, route: discovery.Route{Name: entries[0].route, Dialect: d.Name()}}
		if count > maxRoutes {
			r.report(entries[0].label, entries[0].value, fault{reason: fmt.Sprintf("too many routes: only the first %d by name are read", maxRoutes)})
		} else {
			r.read(entries[:n])
		}
		if enable.fault != nil {
			r.report(enable.label, enable.value, *enable.fault)
		}
		if len(r.problems) == 0 {
			routes = append(routes, r.route)
		}
		problems = append(problems, r.problems...)
		entries = entries[n:]
	}
	return routes, problems
}

// entry is one label, split into where it belongs and its key.
type entry struct {
	label, value string
	scope        scope
	route        string
	// key is in lower case. Where the label's shape is wrong it is all that follows
	// the prefix, and shape tells what is wrong.
	key   string
	shape shape
}

// scope is what a label is for.
type scope int

const (
	scopeObject    scope = iota // the whole object: enable
	scopeRoute                  // one route
	scopeElsewhere              // another part of the program
)

// shape is what may be wrong with a label before its key is looked at.
type shape int

const (
	shapeGood     shape = iota
	shapeEmpty          // dentropy..host: a word is missing
	shapeReserved       // dentropy.dns.host: the first word cannot be a route
	shapeDeep           // dentropy.http.routers.web: too many words
)

// entries gives the labels of this dialect that have an effect here, those for the
// object first, then by route and key.
func (d *Dialect) entries(labels map[string]string, to []entry) []entry {
	for label, value := range labels {
		rest, ok := d.cut(label)
		if !ok {
			continue
		}
		e := place(lowerASCII(rest))
		if e.scope == scopeElsewhere {
			continue
		}
		e.label, e.value = label, value
		to = append(to, e)
	}
	slices.SortFunc(to, func(a, b entry) int {
		if c := cmp.Compare(a.scope, b.scope); c != 0 {
			return c
		}
		if c := strings.Compare(a.route, b.route); c != 0 {
			return c
		}
		if c := strings.Compare(a.key, b.key); c != 0 {
			return c
		}
		return strings.Compare(a.label, b.label)
	})
	return to
}

// place says where a label belongs, given what follows the prefix in lower case.
//
// What begins with a reserved word and is nothing we know counts for the default
// route: somebody who writes dentropy.access.allow believes that it protects that
// route, so serving the route as if the label were not there would be wrong.
func place(rest string) entry {
	first, more, nested := strings.Cut(rest, ".")
	switch {
	case first == "backup":
		return entry{scope: scopeElsewhere}
	case !nested && first == "app":
		return entry{scope: scopeElsewhere}
	case !nested && first == "enable":
		return entry{scope: scopeObject, key: first}
	case !nested:
		return entry{scope: scopeRoute, key: first}
	case first == "":
		return entry{scope: scopeRoute, key: rest, shape: shapeEmpty}
	case slices.Contains(reserved, first):
		return entry{scope: scopeRoute, key: rest, shape: shapeReserved}
	case strings.Contains(more, "."):
		return entry{scope: scopeRoute, route: first, key: rest, shape: shapeDeep}
	default:
		return entry{scope: scopeRoute, route: first, key: more}
	}
}

// enabling is what dentropy.enable says.
type enabling struct {
	label, value string
	off          bool
	fault        *fault
}

func readEnable(entries []entry) enabling {
	if len(entries) == 0 {
		return enabling{}
	}
	e := enabling{label: entries[0].label, value: entries[0].value}
	if len(entries) > 1 {
		e.label, e.value = entries[1].label, entries[1].value
		e.fault = twice(entries[0].label)
		return e
	}
	value, f := plainValue(e.value)
	if f != nil {
		e.fault = f
		return e
	}
	on, f := readBool(value)
	e.off, e.fault = f == nil && !on, f
	return e
}

// nothingEnabled is the problem of an object that has no label for any route but
// dentropy.enable.
func (d *Dialect) nothingEnabled(e enabling) discovery.Problem {
	f := e.fault
	if f == nil {
		f = &fault{
			reason: "there is nothing to serve: no host is set",
			hint:   "set " + d.labelOf("", "host") + " to the host name",
		}
	}
	return discovery.Problem{Label: e.label, Value: shown("enable", e.value), Reason: f.reason, Hint: f.hint}
}

// reader reads the labels of one route.
type reader struct {
	d        *Dialect
	ports    []int
	route    discovery.Route
	problems []discovery.Problem
}

func (r *reader) report(label, value string, f fault) {
	r.problems = append(r.problems, discovery.Problem{
		Route: r.route.Name, Label: label, Value: value, Reason: f.reason, Hint: f.hint,
	})
}

func (r *reader) read(entries []entry) {
	if name := r.route.Name; name != "" && !validName(name) {
		f := fault{reason: fmt.Sprintf("%s cannot be the name of a route: use letters, digits, - and _, at most %d", short(name), maxName)}
		if fixed := repairName(name); fixed != "" && lookup(entries[0].key) != nil {
			f.hint = "write " + r.d.labelOf(fixed, entries[0].key)
		}
		r.report(entries[0].label, shown(entries[0].key, entries[0].value), f)
		return
	}

	// One mistake, one problem: a key that was meant is not missing, and nothing is
	// missing from a route that has no known key, since the name may be the slip.
	var host, port, known bool
	for i, e := range entries {
		meant := e.key
		switch k := lookup(e.key); {
		case e.shape != shapeGood:
			f, key := r.d.badShape(e)
			meant = key
			r.report(e.label, shown(e.key, e.value), f)
		case i > 0 && entries[i-1].key == e.key:
			r.report(e.label, shown(e.key, e.value), *twice(entries[i-1].label))
		case k == nil || k.read == nil:
			f, key := r.d.unknown(e.route, e.key)
			meant = key
			r.report(e.label, shown(e.key, e.value), f)
		default:
			known = true
			if f := k.readValue(&r.route, e.value); f != nil {
				r.report(e.label, shown(e.key, e.value), *f)
			}
		}
		host = host || meant == "host"
		port = port || meant == "port"
	}
	if !known {
		return
	}
	if !host {
		r.noHost(entries[0].label)
	}
	if !port {
		r.choosePort()
	}
}

// noHost reports that the host is missing; label is one that the route does have.
func (r *reader) noHost(label string) {
	f := fault{
		reason: "no host is set",
		hint:   "set " + r.d.labelOf(r.route.Name, "host") + " to the host name",
	}
	if r.route.Name == "" {
		// Somebody with named routes only may think that this label is for all of
		// them, and with dentropy.access that would be a dangerous mistake.
		f.reason = labelText(label) + " is for the default route, which has no host"
		rest, _ := r.d.cut(label)
		if known := lookup(lowerASCII(rest)); known != nil {
			f.hint += ", or write " + r.d.labelOf("<name>", known.name) + " for a named route"
		}
	}
	r.report("", "", f)
}

// choosePort fills the port in where nobody wrote one.
func (r *reader) choosePort() {
	label := r.d.labelOf(r.route.Name, "port")
	switch len(r.ports) {
	case 1:
		r.route.Port = r.ports[0]
	case 0:
		r.report("", "", fault{
			reason: "no port is set and none is exposed",
			hint:   "set " + label + " to the port that the container listens on",
		})
	default:
		// Enough to choose from; an image may expose a range of thousands.
		const most = 20
		list := make([]string, 0, most)
		for _, p := range r.ports[:min(most, len(r.ports))] {
			list = append(list, fmt.Sprint(p))
		}
		reason := fmt.Sprintf("no port is set and several are exposed: %s", strings.Join(list, ", "))
		if more := len(r.ports) - most; more > 0 {
			reason += fmt.Sprintf(" and %d more", more)
		}
		r.report("", "", fault{reason: reason, hint: "set " + label + " to one of them"})
	}
}

// cut gives what follows the prefix of a label.
func (d *Dialect) cut(label string) (rest string, ok bool) {
	head := d.headOrDefault()
	if len(label) < len(head) || !equalASCII(label[:len(head)], head) {
		return "", false
	}
	return label[len(head):], true
}

func (d *Dialect) headOrDefault() string { return cmp.Or(d.head, DefaultPrefix+".") }

// labelOf gives the label of a key of a route.
func (d *Dialect) labelOf(route, key string) string {
	if route == "" {
		return d.headOrDefault() + key
	}
	return d.headOrDefault() + route + "." + key
}

// validName reports whether a lower-case word may name a route.
func validName(s string) bool {
	if s == "" || len(s) > maxName || !isAlnum(s[0]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

func isAlnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// lowerASCII folds ASCII letters only: a label may hold any bytes, and Unicode has
// letters that fold into ASCII ones.
func lowerASCII(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				b[i] = lowerByte(b[i])
			}
			return string(b)
		}
	}
	return s
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// equalASCII reports whether s is lower, which is as long, apart from the case of
// ASCII letters.
func equalASCII(s, lower string) bool {
	for i := range len(s) {
		if lowerByte(s[i]) != lower[i] {
			return false
		}
	}
	return true
}
