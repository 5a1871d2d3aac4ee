package native

import (
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/dentropy/dentropycloud/discovery"
)

// Limits of DNS (RFC 1035, 2.3.4), in the ASCII form.
const (
	maxHostLen  = 253
	maxLabelLen = 63
	// maxUnicodeLen bounds the work for a name before it is known whether its ASCII
	// form fits: at most 59 letters of 4 bytes in each of 4 labels.
	maxUnicodeLen = 1024
)

func readHosts(r *discovery.Route, value string) *fault {
	if ruleLike.MatchString(value) {
		f := &fault{reason: "this is a rule of Traefik; write only host names here, and paths with the key path"}
		if hosts := hostsOfRule(value); hosts != "" {
			f.hint = "write " + hosts
		}
		return f
	}
	hosts, f := readList(value, maxHosts, "hosts", parseHost, repairHost)
	if f != nil {
		return f
	}
	r.Hosts = hosts
	return nil
}

func readPaths(r *discovery.Route, value string) *fault {
	paths, f := readList(value, maxPaths, "paths", parsePath, repairPath)
	if f != nil {
		return f
	}
	if !slices.Equal(paths, []string{"/"}) { // the default is the zero value
		r.Paths = paths
	}
	return nil
}

// readList reads a comma-separated list, sorted and without duplicates. The fault
// is that of the first bad item; its hint is the whole list put right where every
// item can be.
func readList(value string, most int, what string, parse func(string) (string, string), repair func(string) string) ([]string, *fault) {
	items := list(value)
	switch {
	case len(items) == 0:
		return nil, &fault{reason: "the list is empty", hint: "write a value or remove the label"}
	case len(items) > most:
		return nil, &fault{reason: fmt.Sprintf("a list of %d %s, more than %d", len(items), what, most)}
	}
	out := make([]string, len(items))
	for i, item := range items {
		good, reason := parse(item)
		if reason == "" {
			out[i] = good
			continue
		}
		f := &fault{reason: reason}
		if len(items) > 1 {
			f.reason = short(item) + ": " + reason
		}
		if w := repairAll(items, parse, repair); w != "" {
			f.hint = "write " + w
		}
		return nil, f
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func repairAll(items []string, parse func(string) (string, string), repair func(string) string) string {
	fixed := make([]string, 0, len(items))
	for _, item := range items {
		_, reason := parse(item)
		if reason == "" {
			fixed = append(fixed, item)
			continue
		}
		w := repair(item)
		if w == "" {
			return ""
		}
		for one := range strings.SplitSeq(w, ",") {
			if _, reason := parse(one); reason != "" {
				return ""
			}
		}
		fixed = append(fixed, w)
	}
	w := strings.Join(fixed, ",")
	if len(w) > maxShort {
		return ""
	}
	return w
}

// parseHost gives a host in the form that Route.Hosts wants, or why it cannot be
// one.
func parseHost(s string) (host, reason string) {
	if s == "*" {
		return s, ""
	}
	name := strings.TrimSuffix(s, ".")
	if a, err := netip.ParseAddr(unbracket(name)); err == nil {
		switch a = a.Unmap(); {
		case a.Zone() != "":
			return "", "an address with a zone cannot be in a URL"
		case a.IsUnspecified():
			return "", "no request is for the unspecified address"
		}
		return a.String(), ""
	}
	if reason := misreadHost(s); reason != "" {
		return "", reason
	}
	bare, wild := strings.CutPrefix(name, "*.")
	if strings.Contains(bare, "*") {
		return "", "a wildcard can only be the whole first part of a name, as in *.example.com"
	}
	bare, reason = asciiName(bare)
	if reason != "" {
		return "", reason
	}
	if wild {
		bare = "*." + bare
	}
	if len(bare) > maxHostLen {
		return "", fmt.Sprintf("a name of %d bytes, more than %d", len(bare), maxHostLen)
	}
	return bare, ""
}

// misreadHost recognises what people write for a host that is something else.
func misreadHost(s string) string {
	switch {
	case strings.Contains(s, "://"):
		return "this is a URL; write only the host name"
	case strings.ContainsFunc(s, unicode.IsSpace):
		return "white space in a name; separate names with commas"
	case strings.ContainsAny(s, "/?#"):
		return "a path does not belong here; write only the host name"
	case strings.Contains(s, "@"):
		return "a user name does not belong here; write only the host name"
	case strings.Contains(s, ":"):
		return "a port does not belong here; write only the host name"
	}
	return ""
}

// asciiName checks a domain name and gives its lower-case ASCII form.
func asciiName(s string) (name, reason string) {
	if len(s) > maxUnicodeLen {
		return "", fmt.Sprintf("a name of %d bytes, more than %d", len(s), maxHostLen)
	}
	if !utf8.ValidString(s) {
		return "", "not text in UTF-8"
	}
	s = lowerASCII(s)
	if !isASCII(s) || strings.Contains(s, "xn--") {
		ascii, err := idna.Lookup.ToASCII(s)
		if err != nil {
			return "", "not a valid international name"
		}
		s = ascii
	}
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		switch {
		case label == "":
			return "", "a dot without a name beside it"
		case len(label) > maxLabelLen:
			return "", fmt.Sprintf("a part of %d bytes, more than %d", len(label), maxLabelLen)
		case label[0] == '-' || label[len(label)-1] == '-':
			return "", "a part of a name cannot begin or end with -"
		case strings.Contains(label, "_"):
			return "", "_ cannot be in a host name; no CA would certify it"
		}
		for i := range len(label) {
			if c := label[i]; !isAlnum(c) && c != '-' {
				return "", fmt.Sprintf("%q cannot be in a host name", c)
			}
		}
		last = label
	}
	if strings.Trim(last, "0123456789") == "" {
		return "", "a name that ends in a number would be an IP address, and this is none"
	}
	return s, ""
}

// repairHost makes the most likely host of what was written, or gives "". The
// result may be a list.
func repairHost(s string) string {
	s = strings.Trim(s, "\"'`")
	if fields := strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || r == ';' || r == '|' }); len(fields) > 1 {
		return repairAll(fields, parseHost, repairHost)
	}
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	if i := strings.IndexAny(s, "/?#"); i >= 0 {
		s = s[:i]
	}
	s = s[strings.LastIndexByte(s, '@')+1:]
	if i := strings.LastIndexByte(s, ':'); i >= 0 && (strings.IndexByte(s, ':') == i || strings.HasPrefix(s, "[")) && !strings.HasSuffix(s, "]") {
		s = s[:i]
	}
	if a, err := netip.ParseAddr(unbracket(s)); err == nil && a.IsUnspecified() {
		return "*"
	}
	if strings.HasPrefix(s, ".") { // .example.com: all below it, in other programs
		s = "*" + s
	}
	s = strings.ReplaceAll(strings.TrimRight(s, ".;"), "_", "-")
	if first, rest, ok := strings.Cut(s, "."); ok && strings.Contains(first, "*") {
		for strings.HasPrefix(rest, "*.") {
			rest = rest[2:]
		}
		s = "*." + rest
	}
	parts := strings.Split(s, ".")
	for i, p := range parts {
		parts[i] = strings.Trim(p, "-")
	}
	parts = slices.DeleteFunc(parts, func(p string) bool { return p == "" })
	good, reason := parseHost(strings.Join(parts, "."))
	if reason != "" || good == "*" {
		return "" // nobody should serve all hosts by a slip
	}
	return good
}

var (
	ruleLike   = regexp.MustCompile(`(?i)\bhost(?:sni|header)?(?:regexp)?\(`)
	ruleHost   = regexp.MustCompile(`(?i)\bhost(?:sni)?\(([^)]*)\)`)
	rulePath   = regexp.MustCompile("(?i)\\bpath(?:prefix|regexp)?\\(|`")
	ruleQuoted = regexp.MustCompile("[`\"']([^`\"']*)[`\"']")
)

// hostsOfRule gives the hosts that a Traefik rule names, or "".
func hostsOfRule(rule string) string {
	var hosts []string
	for _, call := range ruleHost.FindAllStringSubmatch(rule, maxHosts) {
		for _, arg := range ruleQuoted.FindAllStringSubmatch(call[1], maxHosts) {
			host, reason := parseHost(strings.TrimSpace(arg[1]))
			if reason != "" {
				return ""
			}
			hosts = append(hosts, host)
		}
	}
	w := strings.Join(hosts, ",")
	if len(w) > maxShort {
		return ""
	}
	return w
}

// parsePath gives a path prefix in the form that Route.Paths wants, or why it
// cannot be one. Escapes are decoded once, since the path of a request is compared
// in its decoded form; a decoded slash could not be told from a real one.
func parsePath(s string) (prefix, reason string) {
	switch {
	case strings.Contains(s, "://"):
		return "", "this is a URL; write only the path"
	case rulePath.MatchString(s):
		return "", "this is a rule of Traefik; write only the path"
	case !strings.HasPrefix(s, "/"):
		return "", "a path begins with /"
	case strings.ContainsAny(s, "?#"):
		return "", "a path has no ? or #; queries are not matched"
	case strings.Contains(s, "*"):
		return "", "a path covers all that is below it; no * is needed"
	case strings.ContainsFunc(s, unicode.IsSpace):
		return "", "white space in a path; separate paths with commas, and write a space as %20"
	}
	decoded, err := url.PathUnescape(s)
	switch {
	case err != nil:
		return "", "% must be followed by two hexadecimal digits; write a real % as %25"
	case strings.Count(decoded, "/") != strings.Count(s, "/"):
		return "", "an escaped slash (%2F) cannot be matched"
	case !utf8.ValidString(decoded) || strings.ContainsFunc(decoded, unicode.IsControl):
		return "", "a path is text in UTF-8 without control characters"
	case strings.ContainsAny(decoded, `\`):
		return "", `\ cannot be in a path; parts are separated by /`
	case strings.ContainsAny(decoded, "{}"):
		return "", "a path is plain text; { and } cannot be in it"
	case strings.Contains(decoded, "//"):
		return "", "an empty part (//) cannot be matched"
	}
	for part := range strings.SplitSeq(decoded, "/") {
		if part == "." || part == ".." {
			return "", "a path cannot hold . or .. as a part"
		}
	}
	if decoded != "/" {
		decoded = strings.TrimSuffix(decoded, "/")
	}
	return decoded, ""
}

// repairPath makes the most likely path of what was written, or gives "". The
// result may be a list.
func repairPath(s string) string {
	if withoutUser(s) != s {
		return "" // a hint would show the password
	}
	if rulePath.MatchString(s) {
		var paths []string
		for _, arg := range ruleQuoted.FindAllStringSubmatch(s, maxPaths) {
			paths = append(paths, arg[1])
		}
		return strings.Join(paths, ",")
	}
	if fields := strings.Fields(s); len(fields) > 1 {
		for _, f := range fields {
			if !strings.HasPrefix(f, "/") {
				return strings.Join(fields, "%20")
			}
		}
		return strings.Join(fields, ",")
	}
	if _, rest, ok := strings.Cut(s, "://"); ok {
		_, rest, _ = strings.Cut(rest, "/")
		s = "/" + rest
	}
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		s = s[:i]
	}
	s = strings.ReplaceAll(s, `\`, "/")
	if i := strings.IndexByte(s, '*'); i == len(s)-1 {
		s = strings.TrimSuffix(s, "*")
	}
	s = path.Clean("/" + s)
	if _, err := url.PathUnescape(s); err != nil {
		s = strings.ReplaceAll(s, "%", "%25")
	}
	return s
}

// unbracket takes the brackets off that an IPv6 address has in a URL.
func unbracket(s string) string {
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		return s[1 : len(s)-1]
	}
	return s
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
