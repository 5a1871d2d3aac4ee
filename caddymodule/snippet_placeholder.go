package caddymodule

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// snippetMaxPlaceholders bounds what one text can grow to when it is filled in.
const snippetMaxPlaceholders = 32

// placeholderWord is what a placeholder's name looks like. A text in braces that
// looks otherwise ({"a": 1}, p{color:red}, \d{2,3}) stands for itself, since
// Caddy knows no placeholder of such a name.
var placeholderWord = regexp.MustCompile(`^[%?]?[A-Za-z_][A-Za-z0-9_?.-]*$`)

// knownNamespaces are the first words of the names that Caddy resolves.
var knownNamespaces = []string{"env", "file", "http", "system", "time", "tls"}

// placeholderMaxName is where a name is cut off; all that is allowed is shorter.
const placeholderMaxName = 200

// eachPlaceholder calls f with every text between an opening brace and the next
// closing one, or the end, or so many bytes. It ignores that a brace may be
// escaped or open within another: however Caddy reads s, it resolves none but
// these names, or longer ones that begin with them.
func eachPlaceholder(s string, f func(name string, closed bool) *snippetError) *snippetError {
	for i := 0; i < len(s); i++ {
		if s[i] != '{' {
			continue
		}
		rest := s[i+1:]
		name, _, closed := strings.Cut(rest[:min(len(rest), placeholderMaxName)], "}")
		if err := f(name, closed); err != nil {
			return err
		}
	}
	return nil
}

// checkPlaceholders refuses a text with a placeholder that is not on the list.
// Mapped are those that the snippet defines itself. Short says that s is as the
// author wrote it, with Caddy's short names.
func checkPlaceholders(s string, mapped []string, short bool) *snippetError {
	n := 0
	return eachPlaceholder(s, func(name string, closed bool) *snippetError {
		lower := strings.ToLower(strings.TrimSpace(name))
		allowed := placeholderAllowed(name, mapped, short)
		if closed && allowed {
			if n++; n > snippetMaxPlaceholders {
				return &snippetError{What: quoteText(s), Reason: "holds more than " + strconv.Itoa(snippetMaxPlaceholders) + " placeholders", Hint: "use fewer"}
			}
			return nil
		}
		what := "placeholder " + quoteText("{"+name+"}")
		for _, prefix := range keysOf(snippetRefusedPlaceholders) {
			if strings.HasPrefix(lower, prefix) {
				r := snippetRefusedPlaceholders[prefix]
				return &snippetError{What: what, Reason: r.why, Hint: r.instead}
			}
		}
		if !closed {
			return nil
		}
		first, _, dotted := strings.Cut(lower, ".")
		if !placeholderWord.MatchString(name) && (!dotted || !slices.Contains(knownNamespaces, first)) {
			return nil // a text in braces
		}
		hint := "if it is text, put a space after the brace"
		if near := nearestWord(name, slices.Concat(snippetPlaceholders, snippetShorthands, mapped)); near != "" {
			hint = "did you mean {" + near + "}? " + hint
		}
		return &snippetError{What: what, Reason: "is not a placeholder that snippets may use", Hint: hint}
	})
}

// placeholderAllowed reports whether a placeholder is on the list.
func placeholderAllowed(name string, mapped []string, short bool) bool {
	if strings.ContainsAny(name, "{\\") {
		return false // another begins within it, or it does not end here
	}
	for _, vars := range []string{"http.vars.", "vars."} {
		// Under other names than plain words the program keeps things of its own.
		if v, ok := strings.CutPrefix(name, vars); ok && !varsWord.MatchString(v) {
			return false
		}
	}
	if slices.Contains(mapped, name) || slices.Contains(snippetPlaceholders, name) || hasFamily(name, snippetPlaceholderFamilies) {
		return true
	}
	return short && (slices.Contains(snippetShorthands, name) || hasFamily(name, snippetShorthandFamilies))
}

func hasFamily(name string, families []string) bool {
	return slices.ContainsFunc(families, func(f string) bool { return len(name) > len(f) && strings.HasPrefix(name, f) })
}

// mapDestinationWord is a placeholder that a map directive may define: a plain
// word, so that it can hide none of Caddy's.
var mapDestinationWord = regexp.MustCompile(`^\{([A-Za-z_][A-Za-z0-9_]*)\}$`)

func mapDestination(s string) (string, bool) {
	m := mapDestinationWord.FindStringSubmatch(s)
	if m == nil || slices.Contains(snippetShorthands, m[1]) {
		return "", false
	}
	return m[1], true
}

// grownPlaceholders counts the placeholders of s that may be as long as a whole
// request, and that other directives may have lengthened.
func grownPlaceholders(s string) int {
	n := 0
	_ = eachPlaceholder(s, func(name string, closed bool) *snippetError {
		if closed && !shortPlaceholder(name) && placeholderWord.MatchString(name) {
			n++
		}
		return nil
	})
	return n
}

// shortPlaceholder reports whether a placeholder's value is short whatever the
// client sends.
func shortPlaceholder(name string) bool {
	switch name {
	case "http.request.host", "http.request.scheme", "http.request.method", "http.request.proto", "http.request.remote.host", "http.request.remote.port",
		"http.request.remote", "http.request.uuid", "http.vars.client_ip", "http.error.status_code", "http.reverse_proxy.status_code",
		"http.reverse_proxy.upstream.hostport":
		return true
	}
	return strings.HasPrefix(name, "time.") || strings.HasPrefix(name, "http.request.host.labels.")
}

// quoteText quotes a part of a snippet for an error message.
func quoteText(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return strconv.Quote(s)
}
