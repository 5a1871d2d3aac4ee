package native

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dentropy/dentropycloud/discovery"
)

// key is one row of the table in docs/labels.md, which a test holds against this.
type key struct {
	name string
	// values and def are what the documentation says.
	values, def string
	// verbatim keeps the value as it is: it may be long and end in white space.
	verbatim bool
	// read puts the value into the route. nil: the key is not one of a route.
	read func(*discovery.Route, string) *fault
}

// fault is why a label cannot be used. The reason completes "label x=y: …", the
// hint is a sentence in the imperative ("write …"), or empty.
type fault struct{ reason, hint string }

// reserved first words never name a route, so that a later version may give them a
// meaning of their own.
var reserved = []string{"enable", "dns", "backup", "app", "hold", "access", "caddyfile", "project"}

var (
	schemes    = []string{"http", "https", "h2c"}
	tlsModes   = []string{"auto", "internal", "off"}
	dnsWishes  = []string{"public", "private", "both", "none"}
	trueWords  = []string{"true", "yes", "on", "1"}
	falseWords = []string{"false", "no", "off", "0"}
)

// keys is the whole vocabulary, in the order of the documentation.
var keys = []key{
	{name: "host", values: "host names, comma-separated; `*.example.com` and `*` allowed", def: "required", read: readHosts},
	{name: "port", values: "container port, 1 to 65535", def: "the only exposed one", read: readPort},
	{name: "path", values: "path prefixes, comma-separated", def: "`/`", read: readPaths},
	{name: "strip_path", values: "`true` `false`", def: "`false`", read: readStripPath},
	{name: "scheme", values: words(schemes), def: "`http`", read: readScheme},
	{name: "network", values: "name of a network", def: "one that we share", read: readNetwork},
	{name: "tls", values: words(tlsModes) + " or an issuer's name", def: "`auto`", read: readTLS},
	{name: "access", values: "`public`, or a list of `private`, addresses and prefixes", def: "`public`", read: readAccess},
	{name: "dns", values: words(dnsWishes), def: "the operator's zones decide", read: readDNS},
	{name: "caddyfile", values: "directives, at most 64 KiB", def: "none", verbatim: true, read: readCaddyfile},
	{name: "hold", values: "duration, at most 1h; a bare number is seconds; `0` for none", def: "the operator's setting, `10s`", read: readHold},
	{name: "enable", values: "`true` `false`", def: "`true`"},
	{name: "app", values: "name of an application", def: "compose project"},
	{name: "backup.*", values: "see the pages on backup", def: "none"},
}

// keyByName finds a key without a walk.
var keyByName = func() map[string]*key {
	m := make(map[string]*key, len(keys))
	for i := range keys {
		m[keys[i].name] = &keys[i]
	}
	return m
}()

func lookup(name string) *key { return keyByName[name] }

func words(list []string) string { return "`" + strings.Join(list, "` `") + "`" }

// readValue checks what is common to all values and hands the rest to the key.
func (k *key) readValue(r *discovery.Route, value string) *fault {
	if k.verbatim {
		if f := checkSize(value); f != nil {
			return f
		}
		return k.read(r, value)
	}
	value, f := plainValue(value)
	if f != nil {
		return f
	}
	return k.read(r, value)
}

// plainValue gives a value without the white space around it. An empty one is
// refused, since it comes from a variable that is not set, and the default may be
// the opposite of what was meant: dentropy.access=${WHO} must not mean everybody.
func plainValue(value string) (string, *fault) {
	if f := checkSize(value); f != nil {
		return "", f
	}
	value = strings.TrimSpace(value)
	if value == "" {
		return "", &fault{"the value is empty", "write a value or remove the label"}
	}
	if n := len(value); n >= 2 && value[0] == value[n-1] && strings.IndexByte("\"'`", value[0]) >= 0 {
		f := &fault{reason: "the quotes are part of the value; in a YAML list they go around the whole label=value"}
		if inner := strings.TrimSpace(value[1 : n-1]); inner != "" && len(inner) <= maxShort && printable(inner) && withoutUser(inner) == inner {
			f.hint = "write " + inner
		}
		return "", f
	}
	return value, nil
}

func checkSize(value string) *fault {
	if len(value) > maxValue {
		return &fault{reason: fmt.Sprintf("the value has %d bytes, more than %d", len(value), maxValue)}
	}
	return nil
}

func twice(other string) *fault {
	return &fault{reason: "it is also written " + labelText(other) + ", and upper and lower case mean the same", hint: "keep one of the two"}
}

func readBool(value string) (bool, *fault) {
	switch v := strings.ToLower(value); {
	case slices.Contains(trueWords, v):
		return true, nil
	case slices.Contains(falseWords, v):
		return false, nil
	}
	f := &fault{reason: "it is neither true nor false"}
	if w := nearest(strings.ToLower(value), trueWords, falseWords); len(w) > 1 {
		f.hint = "write " + w
	}
	return false, f
}

// oneOf gives value in lower case if it is one of the words, otherwise a fault with
// the nearest one. meant maps what people write in other programs.
func oneOf(value string, list []string, meant map[string]string) (string, *fault) {
	v := strings.ToLower(value)
	if slices.Contains(list, v) {
		return v, nil
	}
	f := &fault{reason: "it is none of " + strings.Join(list, ", ")}
	w, ok := meant[v]
	if !ok {
		w = nearest(v, list)
	}
	if w != "" {
		f.hint = "write " + w
	}
	return "", f
}

func readPort(r *discovery.Route, value string) *fault {
	if p, ok := portNumber(value); ok {
		r.Port = p
		return nil
	}
	f := &fault{reason: "it is not a port from 1 to 65535"}
	// What is written for ports elsewhere: 8080:80, :80, 80/tcp.
	last := value[strings.LastIndexByte(value, ':')+1:]
	last, _, _ = strings.Cut(last, "/")
	if p, ok := portNumber(strings.TrimSpace(last)); ok {
		f = &fault{"write only the port inside the container", fmt.Sprintf("write %d", p)}
	}
	return f
}

func portNumber(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return int(n), err == nil && n > 0 && s[0] != '+'
}

func readStripPath(r *discovery.Route, value string) *fault {
	on, f := readBool(value)
	if f != nil {
		return f
	}
	r.StripPath = on
	return nil
}

func readScheme(r *discovery.Route, value string) *fault {
	v, f := oneOf(value, schemes, map[string]string{
		"grpc": "h2c", "h2": "https", "http2": "h2c", "grpcs": "https", "tls": "https", "ssl": "https",
		"http://": "http", "https://": "https", "h2c://": "h2c",
	})
	if f != nil {
		return f
	}
	if v != "http" { // the default is the zero value
		r.Scheme = v
	}
	return nil
}

func readNetwork(r *discovery.Route, value string) *fault {
	for i := range len(value) {
		if c := lowerByte(value[i]); !isAlnum(c) && (i == 0 || strings.IndexByte("_.-", c) < 0) {
			return &fault{reason: "it is not the name of a network: these have letters, digits, _, . and -",
				hint: "write one name as `docker network ls` shows it"}
		}
	}
	r.Network = value
	return nil
}

func readTLS(r *discovery.Route, value string) *fault {
	v := strings.ToLower(value)
	switch {
	case v == "auto":
		return nil
	case slices.Contains(tlsModes, v):
		r.TLS = v
		return nil
	case slices.Contains(trueWords, v): // traefik.….tls=true
		return &fault{"it is neither auto, internal, off nor an issuer's name", "write auto"}
	case slices.Contains(falseWords, v) || v == "none":
		return &fault{"it is neither auto, internal, off nor an issuer's name", "write off"}
	case !validName(v):
		f := &fault{reason: "it is neither auto, internal, off nor an issuer's name (letters, digits, - and _)"}
		if w := nearest(v, tlsModes); w != "" {
			f.hint = "write " + w
		}
		return f
	}
	r.TLS = value // an issuer is named as the operator named it
	return nil
}

func readDNS(r *discovery.Route, value string) *fault {
	v, f := oneOf(value, dnsWishes, map[string]string{
		"false": "none", "off": "none", "no": "none", "0": "none", "all": "both", "internal": "private",
		"local": "private", "lan": "private", "external": "public", "wan": "public",
	})
	if f != nil {
		return f
	}
	r.DNS = v
	return nil
}

func readCaddyfile(r *discovery.Route, value string) *fault {
	switch {
	case strings.TrimSpace(value) == "":
		return &fault{"there are no directives in it", "write directives or remove the label"}
	case !utf8.ValidString(value) || strings.IndexByte(value, 0) >= 0:
		return &fault{reason: "it is not text in UTF-8"}
	}
	r.Caddyfile = value
	return nil
}

// maxHold is longer than any client waits; above it a unit is wrong.
const maxHold = time.Hour

func readHold(r *discovery.Route, value string) *fault {
	v := strings.ToLower(value)
	d, err := time.ParseDuration(v)
	if err != nil && strings.Trim(v, "-0123456789.") == "" {
		d, err = time.ParseDuration(v + "s")
	}
	switch {
	case err != nil:
		f := &fault{reason: "it is not a duration such as 10s or 1m30s"}
		if w := repairDuration(v); w != "" {
			f.hint = "write " + w
		}
		return f
	case d < 0:
		return &fault{"a duration below zero", "write 0 for no waiting"}
	case d > maxHold:
		return &fault{"longer than 1h; no client waits that long", "write 1h or less"}
	case d == 0:
		r.Hold = -1 // none at all; zero would be the operator's setting
	default:
		r.Hold = d
	}
	return nil
}

// repairDuration makes a Go duration of "10 sec" and "2 minutes", or gives "".
func repairDuration(s string) string {
	if slices.Contains(falseWords, s) || s == "none" {
		return "0"
	}
	s = strings.Join(strings.Fields(s), "")
	if d, err := time.ParseDuration(s); err == nil && 0 <= d && d <= maxHold {
		return s
	}
	number := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyz")
	unit := s[len(number):]
	if unit == "" || number == "" {
		return ""
	}
	short := unit[:1]
	if strings.HasPrefix(unit, "ms") || strings.HasPrefix(unit, "milli") {
		short = "ms"
	}
	if d, err := time.ParseDuration(number + short); err != nil || d < 0 || d > maxHold {
		return ""
	}
	return number + short
}

func readAccess(r *discovery.Route, value string) *fault {
	items := list(value)
	if len(items) == 0 {
		return &fault{"the list is empty", "write public, private or prefixes such as 192.168.1.0/24"}
	}
	if len(items) > maxPrefixes {
		return &fault{reason: fmt.Sprintf("a list of %d, more than %d", len(items), maxPrefixes)}
	}
	var a discovery.Access
	for _, item := range items {
		switch v := strings.ToLower(item); v {
		case "private":
			a.Private = true
		case "public":
			if len(items) > 1 {
				return &fault{"public lets everybody in, so the rest of the list would have no effect", "write public, or remove it from the list"}
			}
		default:
			p, f := parsePrefix(v)
			if f != nil {
				if len(items) > 1 {
					f.reason = short(item) + ": " + f.reason
				}
				return f
			}
			a.Prefixes = append(a.Prefixes, p)
		}
	}
	slices.SortFunc(a.Prefixes, netip.Prefix.Compare)
	a.Prefixes = slices.Compact(a.Prefixes)
	r.Access = a
	return nil
}

// parsePrefix reads an address or a prefix. Bits beyond the prefix are dropped, and
// IPv4 in IPv6 becomes IPv4, since that is how clients are compared.
func parsePrefix(s string) (netip.Prefix, *fault) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		if a := p.Addr(); a.Is4In6() {
			const mapped = 96 // bits before the IPv4 address
			if p.Bits() < mapped {
				return netip.Prefix{}, &fault{reason: "a prefix across IPv4 and IPv6"}
			}
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-mapped)
		}
		return p.Masked(), nil
	}
	f := &fault{reason: "it is neither public, private, an address nor a prefix"}
	if w := repairPrefix(s); w != "" {
		f.hint = "write " + w
	}
	return netip.Prefix{}, f
}

func repairPrefix(s string) string {
	switch s {
	case "internal", "local", "lan", "localhost":
		return "private"
	case "all", "any", "everybody", "*":
		return "public"
	}
	// 192.168.1.0/255.255.255.0
	if addr, mask, ok := strings.Cut(s, "/"); ok {
		a, err := netip.ParseAddr(addr)
		m, err2 := netip.ParseAddr(mask)
		if err == nil && err2 == nil && a.Is4() && m.Is4() {
			b := m.As4()
			bits := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
			for n := range 33 {
				if bits == uint32(uint64(0xffffffff)<<(32-n)) {
					return netip.PrefixFrom(a, n).Masked().String()
				}
			}
		}
	}
	return nearest(s, []string{"public", "private"})
}

// list splits at commas. Empty items are dropped: they come from variables that
// are not set, and leaving one out never lets more in.
func list(value string) []string {
	items := make([]string, 0, strings.Count(value, ",")+1)
	for item := range strings.SplitSeq(value, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}
