package native

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxShort is how much of a value a message shows, and how long a hint may be.
const maxShort = 120

// maxShown is how much of a value a problem keeps.
const maxShown = 4 << 10

// otherWords are what the keys are called in the labels of other programs.
var otherWords = map[string]string{
	"domain": "host", "domains": "host", "hostname": "host", "hostnames": "host", "fqdn": "host", "url": "host",
	"rule": "host", "virtual_host": "host", "server_name": "host",
	"virtual_port": "port", "target_port": "port", "upstream": "port", "upstreams": "port", "reverse_proxy": "port",
	"prefix": "path", "path_prefix": "path", "pathprefix": "path", "location": "path", "virtual_path": "path",
	"strip": "strip_path", "strip_prefix": "strip_path", "stripprefix": "strip_path", "handle_path": "strip_path",
	"proto": "scheme", "protocol": "scheme", "virtual_proto": "scheme",
	"ingress_network": "network", "ssl": "tls", "https": "tls", "cert": "tls", "issuer": "tls",
	"certresolver": "tls", "certificate": "tls",
	"allow": "access", "whitelist": "access", "allowlist": "access", "ipallowlist": "access", "ipwhitelist": "access",
	"visibility": "access", "sourcerange": "access",
	"middlewares": "caddyfile", "middleware": "caddyfile", "directives": "caddyfile", "config": "caddyfile", "snippet": "caddyfile",
	"wait": "hold", "timeout": "hold",
	"project": "app", "stack": "app", "group": "app",
}

// unknown says what is wrong with a key that no route has, and which key of a
// route was most likely meant ("" if none).
func (d *Dialect) unknown(route, key string) (f fault, meant string) {
	if route != "" && slices.Contains([]string{"enable", "app", "backup"}, key) {
		return fault{key + " is for the whole container, not for one route", "write " + d.labelOf("", key)}, ""
	}
	f.reason = "unknown key"
	if last := key[strings.LastIndexByte(key, '/')+1:]; last != key && slices.Contains(routeKeys, last) {
		// The spelling of a Kubernetes annotation.
		f.hint = "write " + d.labelOf(route, last)
		return f, last
	}
	if meant := nearestKey(key, route == ""); meant != "" {
		f.hint = "write " + d.labelOf(route, meant)
		return f, meant
	}
	if route != "" {
		if first := nearestKey(route, true); first == "backup" && printable(key) {
			f.hint = "write " + d.labelOf(first, key)
			return f, ""
		} else if first != "" && routeName(key) {
			f.hint = "write " + d.labelOf(key, first)
			return f, ""
		}
	}
	f.hint = "the keys are " + strings.Join(routeKeys, ", ")
	if route == "" && routeName(key) {
		f.hint += "; for a route named " + key + " write " + d.labelOf(key, "host")
	}
	return f, ""
}

// badShape says what is wrong with a label whose words are not where they should
// be, and which key was most likely meant for the same route.
func (d *Dialect) badShape(e entry) (f fault, meant string) {
	first, more, _ := strings.Cut(e.key, ".")
	switch e.shape {
	case shapeEmpty:
		f.reason = "there is nothing between two dots"
		if key := nearestKey(strings.TrimLeft(more, "."), true); key != "" {
			f.hint, meant = "write "+d.labelOf("", key), key
		}
	case shapeReserved:
		f.reason = fmt.Sprintf("%q is reserved and cannot be the name of a route", first)
		key := more
		if !slices.Contains(routeKeys, key) {
			key = nearest(more, routeKeys)
		}
		switch isKey := slices.Contains(routeKeys, first); {
		case key != "" && key != first:
			f.hint = "name the route otherwise: write " + d.labelOf("my-"+first, key)
		case isKey && routeName(more) && 'a' <= more[0] && otherWords[more] == "":
			f.hint = fmt.Sprintf("for a route named %s write %s", more, d.labelOf(more, first))
		case isKey || first == "enable":
			f.hint = "write " + d.labelOf("", first)
		}
	default:
		f.reason = "too many words"
		f.hint = "write " + d.labelOf("", "<key>") + " or " + d.labelOf("<name>", "<key>")
		parts := strings.Split(more, ".")
		name, last := parts[len(parts)-2], parts[len(parts)-1]
		for i, p := range parts[:len(parts)-2] { // traefik.http.services.<name>.loadbalancer.server.port
			if p == "routers" || p == "services" {
				name = parts[i+1]
			}
		}
		if key := nearestKey(last, false); key != "" && routeName(name) {
			f.hint = "write " + d.labelOf(name, key)
		}
	}
	return f, meant
}

// routeName reports whether a word may name a route.
func routeName(s string) bool {
	return validName(s) && !slices.Contains(reserved, s) && !slices.Contains(routeKeys, s)
}

// repairName makes a name for a route of any text, or gives "". What comes before a
// slash is the beginning of an annotation.
func repairName(s string) string {
	s = s[strings.LastIndexByte(s, '/')+1:]
	s = strings.Map(func(r rune) rune {
		if r < 0x80 && isAlnum(byte(r)) || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, s)
	s = strings.Trim(s, "-_")
	if !routeName(s) {
		return ""
	}
	return s
}

// routeKeys are the keys of a route, objectKeys those of a whole object.
var (
	routeKeys = func() (names []string) {
		for _, k := range keys {
			if k.read != nil {
				names = append(names, k.name)
			}
		}
		return names
	}()
	objectKeys = []string{"enable", "app", "backup"}
)

// nearestKey gives the key that a word most likely stands for: the one that it is,
// another program's word for it, or the nearest spelling.
func nearestKey(word string, object bool) string {
	word = strings.Trim(word, " \t\r\n")
	if slices.Contains(routeKeys, word) {
		return word
	}
	if w, ok := otherWords[word]; ok && (object || !slices.Contains(objectKeys, w)) {
		return w
	}
	if object {
		return nearest(word, routeKeys, objectKeys)
	}
	return nearest(word, routeKeys)
}

// nearest gives the word that is at most two slips away from s, the first of the
// nearest ones, or "". A word of up to three letters may differ by one slip only:
// with two, almost anything is near.
func nearest(s string, lists ...[]string) string {
	best, at := "", maxSlips+1
	for _, words := range lists {
		for _, w := range words {
			if n := slips(s, w); n < at && 2*n <= len(w) {
				best, at = w, n
			}
		}
	}
	return best
}

const (
	// maxSlips is how far a spelling may be off to be recognised.
	maxSlips = 2
	// maxWord is longer than any word of ours.
	maxWord = 32
)

// slips counts the letters to insert, delete, replace or swap with the next one to
// make b of a (the optimal string alignment distance); more than maxSlips is not
// counted exactly.
func slips(a, b string) int {
	if len(a) > maxWord || len(b) > maxWord || len(a)-len(b) > maxSlips || len(b)-len(a) > maxSlips {
		return maxSlips + 1
	}
	var rows [3][maxWord + 1]int
	before, last, row := &rows[0], &rows[1], &rows[2]
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			n := min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				n = min(n, before[j-2]+1)
			}
			row[j] = n
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

var (
	secretWord = regexp.MustCompile(`token|secret|passw|credential|api_?key|auth`)
	userInfo   = regexp.MustCompile(`//[^/@]*@`)
)

// labelText gives a label for the middle of a message.
func labelText(label string) string {
	if !printable(label) || len(label) > maxShort {
		return short(label)
	}
	return label
}

// printable reports whether s can stand in a message without quotes.
func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// hidden stands for a value that is not shown.
const hidden = "…"

// shown gives a value as a message may show it: labels get into logs, and a
// snippet, a key that we do not know or a URL may hold a password.
func shown(key, value string) string {
	word := key[strings.LastIndexByte(key, '.')+1:]
	if strings.Contains(key, "caddyfile") || slips(strings.ToLower(word), "caddyfile") <= maxSlips || secretWord.MatchString(key) {
		return hidden
	}
	return cutText(withoutUser(value), maxShown)
}

func withoutUser(s string) string {
	if !strings.Contains(s, "@") {
		return s
	}
	return userInfo.ReplaceAllString(s, "//"+hidden+"@")
}

// short quotes a part of a value for a message.
func short(s string) string {
	return strconv.Quote(cutText(withoutUser(s), maxShort))
}

// cutText cuts s to most bytes, between letters.
func cutText(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + hidden
}
