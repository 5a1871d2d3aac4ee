package backup

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// visitor is what Redact looks at first: places that are known to hold secrets, and texts
// that look like one.
func (r *redactor) visitor() visitor {
	return visitor{text: r.text, raw: r.raw, args: r.args}
}

// raw redacts settings in an engine's own words.
func (r *redactor) raw(raw json.RawMessage) json.RawMessage {
	return mapJSON(raw, func(t jsonText) string {
		last := ""
		if len(t.Path) > 0 {
			last = t.Path[len(t.Path)-1]
		}
		switch {
		case t.Element && strings.EqualFold(last, "Env"):
			return r.env(t.Text)
		case slices.ContainsFunc(t.Path, secretName):
			return r.whole(t.Text)
		case slices.Contains(t.Path, "DriverConfig") && slices.Contains(t.Path, "Options"):
			return r.option(last, t.Text)
		case t.Element:
			return r.arg(t.Before, t.Text)
		}
		return r.free(t.Text)
	})
}

// text redacts a value of an app's own fields.
func (r *redactor) text(p place, s string) string {
	switch {
	case p.kind == inVolumeOptions:
		return r.option(p.key, s)
	case p.kind == inLabels && secretName(p.key):
		return r.whole(s)
	}
	return r.free(s)
}

// args redacts a command line.
func (r *redactor) args(args []string) []string {
	out := slices.Clone(args)
	before := ""
	for i, a := range args {
		out[i] = r.arg(before, a)
		before = a
	}
	return out
}

// arg redacts an argument; before is the one before it.
func (r *redactor) arg(before, s string) string {
	if flagRE.MatchString(before) && secretName(before) && !strings.HasPrefix(s, "-") {
		return r.whole(s)
	}
	return r.free(s)
}

// env redacts a variable. All values are hidden: which of them are secrets is for the
// program to know that reads them.
func (r *redactor) env(s string) string {
	name, value, ok := strings.Cut(s, "=")
	if !ok || value == "" {
		return escape(s)
	}
	if secretName(name) && !harmless(value) {
		r.strong[value] = true
	}
	for _, sp := range secretSpans(value) {
		r.strong[value[sp.from:sp.to]] = true
	}
	return escape(name) + "=" + r.ref(value)
}

// whole hides all of a text that is a secret by its name.
func (r *redactor) whole(s string) string {
	if harmless(s) {
		return escape(s)
	}
	return r.sure(s)
}

// harmless reports texts that are no secrets, whatever their name says.
func harmless(s string) bool {
	return s == "" || s == "true" || s == "false" || variableRE.MatchString(s)
}

// option redacts an option of a volume's driver. type and device say what is mounted, o
// holds mount options; of the options of other drivers nobody knows which are secret.
func (r *redactor) option(key, s string) string {
	switch strings.ToLower(key) {
	case "type", "device", "mountpoint":
		return r.free(s)
	case "o":
		parts := strings.Split(s, ",")
		for i, p := range parts {
			parts[i] = r.mountOption(p)
		}
		return strings.Join(parts, ",")
	}
	if secretName(key) {
		return r.whole(s)
	}
	if harmless(s) {
		return escape(s)
	}
	return r.ref(s)
}

func (r *redactor) mountOption(s string) string {
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return r.free(s)
	}
	switch n := strings.ToLower(strings.TrimSpace(name)); {
	case value == "":
		return escape(s)
	case secretName(n):
		return escape(name) + "=" + r.sure(value)
	case n == "user", n == "username", n == "domain":
		return escape(name) + "=" + r.ref(value)
	}
	return r.free(s)
}

// free hides what looks like a secret within a text.
func (r *redactor) free(s string) string {
	spans := secretSpans(s)
	if len(spans) == 0 {
		return escape(s)
	}
	var b strings.Builder
	at := 0
	for _, sp := range spans {
		b.WriteString(escape(s[at:sp.from]))
		b.WriteString(r.sure(s[sp.from:sp.to]))
		at = sp.to
	}
	b.WriteString(escape(s[at:]))
	return b.String()
}

// secretWords are parts of names that secrets have.
var secretWords = []string{
	"pass", "pwd", "secret", "token", "cred", "auth", "apikey", "private", "salt", "cookie", "webhook", "dsn", "jwt",
}

// secretName reports whether what has this name is likely a secret: a variable, a label, a
// flag, a key of JSON.
func secretName(name string) bool {
	n := strings.ToLower(name)
	if strings.HasSuffix(n, "key") || strings.HasSuffix(n, "keys") || strings.Contains(n, "key_") || strings.Contains(n, "key-") || strings.Contains(n, "_key") {
		return true
	}
	// "author" is on every image (OCI annotations), "passthrough" on disks and devices.
	for _, w := range []string{"authors", "author", "passthrough", "passive", "bypass"} {
		n = strings.ReplaceAll(n, w, "")
	}
	return slices.ContainsFunc(secretWords, func(w string) bool { return strings.Contains(n, w) })
}

var (
	flagRE = regexp.MustCompile(`^--?[A-Za-z][A-Za-z0-9_.-]*$`)
	// variableRE is a reference to a variable, whose value is elsewhere.
	variableRE = regexp.MustCompile(`^\$(\{[A-Za-z_][A-Za-z0-9_]*\}|\(?[A-Za-z_][A-Za-z0-9_]*\)?)$`)
)

// secretPattern finds secrets in text. The secret is group 1, or group 2 or 3 for what is
// quoted; where name is set, the group before the secret must be a secret's name.
type secretPattern struct {
	re   *regexp.Regexp
	name bool
}

// value is a word, or what stands in quotes.
const value = `(?:"([^"]*)"|'([^']*)'|([^\s"'&;,{}]+))`

var secretPatterns = []secretPattern{
	// scheme://user:password@host, scheme://token@host
	{re: regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://[^/\s:@"']*:([^\s@"']+)@`)},
	{re: regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://([^/\s:@"']{8,})@`)},
	// password=x, --password=x, ?token=x, "password": "x"
	{re: regexp.MustCompile(`([A-Za-z0-9_.-]+)["']?\s*[=:]\s*` + value), name: true},
	// --password x
	{re: regexp.MustCompile(`(?:^|\s)--?([A-Za-z][A-Za-z0-9_.-]*)\s+` + value), name: true},
	// Authorization: Bearer x
	{re: regexp.MustCompile(`(?i)\b(?:bearer|basic|token)\s+([A-Za-z0-9._~+/=:-]{6,})`)},
	// Hashes of crypt(3) and htpasswd; compose doubles the dollar signs.
	{re: regexp.MustCompile(`(\${1,2}(?:2[abxy]?|apr1|1|5|6|7|y|gy|argon2[a-z]*|scrypt|pbkdf2[a-z0-9-]*)\${1,2}[^\s,"']+)`)},
	{re: regexp.MustCompile(`(\{S?SHA[0-9]*\}[A-Za-z0-9+/=]+)`)},
	// mysql -px, curl -u user:x, redis-cli -a x
	{re: regexp.MustCompile(`\b(?:mysql|mariadb)[a-z-]*\s(?:[^|;&]*?\s)?-p` + value)},
	{re: regexp.MustCompile(`(?:^|\s)(?:-u|--user)[ =]?["']?[^\s:"'/]+:([^\s"']+)`)},
	{re: regexp.MustCompile(`\bredis-cli\s(?:[^|;&]*?\s)?-a\s+` + value)},
	{re: regexp.MustCompile(`(-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|$))`)},
	// Tokens that say by their form what they are.
	{re: regexp.MustCompile(`\b((?:gh[pousr]|github_pat|glpat|xox[abeprs]|sk|rk)[-_][A-Za-z0-9_-]{16,}|AKIA[A-Z0-9]{16}|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*|AGE-SECRET-KEY-1[A-Z0-9]+)`)},
}

// span is a part of a text.
type span struct{ from, to int }

// secretSpans are the parts of a text that look like secrets, in order, apart from each
// other.
func secretSpans(s string) []span {
	var spans []span
	for _, p := range secretPatterns {
		at := 0
		for at <= len(s) {
			m := p.re.FindStringSubmatchIndex(s[at:])
			if m == nil {
				break
			}
			sp, ok := p.secret(s[at:], m)
			if ok {
				spans = append(spans, span{at + sp.from, at + sp.to})
			}
			// A name that is none may hide one that is: "a=b password=c" after "x:".
			next := m[1]
			if !ok && p.name {
				next = m[3]
			}
			at += max(next, 1)
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return a.from - b.from })
	var out []span
	for _, sp := range spans {
		if n := len(out); n > 0 && sp.from <= out[n-1].to {
			out[n-1].to = max(out[n-1].to, sp.to)
			continue
		}
		out = append(out, sp)
	}
	return out
}

// secret is the part of a match that is the secret.
func (p secretPattern) secret(s string, m []int) (span, bool) {
	first := 1
	if p.name {
		if !secretName(s[m[2]:m[3]]) {
			return span{}, false
		}
		first = 2
	}
	for g := first; g < len(m)/2; g++ {
		from, to := m[2*g], m[2*g+1]
		if from >= 0 && to > from && !harmless(s[from:to]) {
			return span{from, to}, true
		}
	}
	return span{}, false
}
