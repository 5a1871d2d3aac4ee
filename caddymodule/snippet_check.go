package caddymodule

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// snippetMaxNots bounds nots within nots, each of which Caddy encodes once more.
const snippetMaxNots = 8

// snippetChecker holds the lines of a snippet against the tables of
// snippet_allow.go, before Caddy sees them.
type snippetChecker struct {
	opts snippetOptions
	// matcherBytes is the length of each named matcher's definition.
	matcherBytes map[string]int
	// nots is how many nots the matcher at hand is within.
	nots int
}

// site checks lines that are directives: those of the site block or of a block
// of directives. In says what block ("" is the site).
func (c *snippetChecker) site(lines []snippetLine, in string) error {
	for _, l := range lines {
		var err error
		if strings.HasPrefix(l.name(), "@") {
			err = c.namedMatcher(l)
		} else {
			err = c.directive(l, in)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *snippetChecker) directive(l snippetLine, in string) error {
	name := l.name()
	what := "directive " + strconv.Quote(name)
	if r, ok := snippetRefusedDirectives[name]; ok {
		return r.at(l.num(), what)
	}
	d, ok := snippetDirectives[name]
	if !ok {
		return c.unknownDirective(l, what)
	}
	if d.only != "" && d.only != in {
		return &snippetError{Line: l.num(), What: what, Reason: "works only within " + d.only, Hint: "move it into a " + d.only + " block"}
	}
	switch name {
	case "encode":
		if err := c.encode(l); err != nil {
			return err
		}
	case "vars":
		if args := l.args(); len(args) > 0 && args[0].Text == "handler" {
			return reservedVar(args[0])
		}
		for _, v := range l.block {
			if v.name() == "handler" {
				return reservedVar(v.words[0])
			}
		}
	}
	switch d.block {
	case blockOfDirectives:
		return c.site(l.block, name)
	case blockOfProxy:
		return c.proxy(l, d)
	}
	return nil
}

// reservedVar refuses a variable that Caddy would silently drop.
func reservedVar(t caddyfile.Token) error {
	return &snippetError{Line: t.Line, What: "variable " + strconv.Quote(t.Text), Reason: "belongs to the proxy itself", Hint: "use another name"}
}

// encode checks the names of encodings, which are modules.
func (c *snippetChecker) encode(l snippetLine) error {
	names := []string{"gzip", "zstd"}
	br := map[string]snippetRefusal{"br": {"is not built into the proxy", "use zstd gzip"}}
	for _, t := range l.args() {
		if err := choice(l, "encode", t.Text, names, br); err != nil {
			return err
		}
	}
	for _, o := range l.block {
		if err := choice(o, "encode", o.name(), slices.Concat(names, []string{"minimum_length", "match"}), br); err != nil {
			return err
		}
	}
	return nil
}

// unknownDirective allows a directive whose module the operator has allowed, and
// says what to do about any other.
func (c *snippetChecker) unknownDirective(l snippetLine, what string) error {
	name := l.name()
	if slices.Contains(c.opts.AllowHandlers, name) || slices.Contains(c.opts.AllowHandlers, "http.handlers."+name) {
		return nil
	}
	se := &snippetError{Line: l.num(), What: what}
	if strings.HasPrefix(name, "(") || strings.HasPrefix(name, "&(") {
		se.Reason, se.Hint = "defines directives for other sites", "write the directives where they are used"
		return se
	}
	if _, err := caddy.GetModule("http.handlers." + name); err == nil {
		se.Reason = "comes from a plugin that snippets may not use"
		se.Hint = "the operator can allow it: allow_handlers http.handlers." + name
		return se
	}
	se.Reason = "is not a directive that snippets may use"
	names := slices.Concat(keysOf(snippetDirectives), keysOf(snippetRefusedDirectives))
	if near := nearestWord(name, names); near != "" {
		se.Hint = "did you mean " + strconv.Quote(near) + "?"
	} else {
		se.Hint = "if a plugin provides it, the operator can allow it: allow_handlers with the id of its module and the word " + strconv.Quote(name)
	}
	return se
}

// namedMatcher checks a line that defines a named matcher.
func (c *snippetChecker) namedMatcher(l snippetLine) error {
	if c.matcherBytes == nil {
		c.matcherBytes = make(map[string]int)
	}
	c.matcherBytes[l.name()] = max(c.matcherBytes[l.name()], lineBytes(l))
	return c.matcherSet(l.words[1:], l.block)
}

// matcherSet checks one matcher that stands on a line, or those of a block.
func (c *snippetChecker) matcherSet(words []caddyfile.Token, block []snippetLine) error {
	if len(words) > 0 {
		return c.matcher(words, block)
	}
	for _, l := range block {
		if err := c.matcher(l.words, l.block); err != nil {
			return err
		}
	}
	return nil
}

func (c *snippetChecker) matcher(words []caddyfile.Token, block []snippetLine) error {
	t := words[0]
	name := t.Text
	if t.Quoted() {
		name = "expression" // what Caddy makes of a quoted matcher
	}
	what := "matcher " + strconv.Quote(name)
	if r, ok := snippetRefusedMatchers[name]; ok {
		return r.at(t.Line, what)
	}
	if name == "not" {
		if c.nots++; c.nots > snippetMaxNots {
			return &snippetError{Line: t.Line, What: what, Reason: "is nested too deep", Hint: "two nots cancel each other out"}
		}
		defer func() { c.nots-- }()
		return c.matcherSet(words[1:], block)
	}
	if slices.Contains(snippetMatcherNames, name) || slices.Contains(c.opts.AllowHandlers, "http.matchers."+name) {
		return nil
	}
	se := &snippetError{Line: t.Line, What: what, Reason: "is not a matcher that snippets may use"}
	if _, err := caddy.GetModule("http.matchers." + name); err == nil {
		se.Hint = "the operator can allow it: allow_handlers http.matchers." + name
	} else if near := nearestWord(name, snippetMatcherNames); near != "" {
		se.Hint = "did you mean " + strconv.Quote(near) + "?"
	} else {
		se.Hint = "use one of " + strings.Join(snippetMatcherNames, ", ")
	}
	return se
}

// proxy checks a reverse_proxy or forward_auth directive.
func (c *snippetChecker) proxy(l snippetLine, d snippetDirective) error {
	if err := checkUpstreamWords(l.args()); err != nil {
		return err
	}
	for _, o := range l.block {
		if strings.HasPrefix(o.name(), "@") {
			continue // a response matcher: status and header only
		}
		if err := c.option(o, l.name()+" option", snippetProxyOptions, d.options, snippetRefusedProxyOptions); err != nil {
			return err
		}
		if err := c.proxyOption(o); err != nil {
			return err
		}
	}
	return nil
}

// proxyOption checks what stands behind the name of an option of reverse_proxy.
func (c *snippetChecker) proxyOption(o snippetLine) error {
	kind := ""
	if len(o.words) > 1 {
		kind = o.words[1].Text
	}
	switch o.name() {
	case "to":
		return checkUpstreamWords(o.words[1:])
	case "handle_response":
		return c.site(o.block, "handle_response")
	case "lb_retry_match":
		return c.matcherSet(o.words[1:], o.block)
	case "dynamic":
		return choice(o, "dynamic", kind, keysOf(snippetDynamic), snippetRefusedDynamic)
	case "lb_policy":
		return choice(o, "lb_policy", kind, keysOf(snippetPolicies), nil)
	case "transport":
		options, ok := snippetTransportOptions[kind]
		if !ok {
			return choice(o, "transport", kind, keysOf(snippetTransportOptions), nil)
		}
		for _, t := range o.block {
			if err := c.option(t, "transport option", options, nil, snippetRefusedTransportOptions); err != nil {
				return err
			}
			if t.name() == "tls_trust_pool" && len(t.words) > 1 {
				if err := choice(t, "tls_trust_pool", t.words[1].Text, []string{"inline"}, snippetRefusedTrustPools); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// option holds the name of an option against the allowed and the refused ones.
func (c *snippetChecker) option(o snippetLine, kind string, allowed, more []string, refused map[string]snippetRefusal) error {
	name := o.name()
	what := kind + " " + strconv.Quote(name)
	if r, ok := refused[name]; ok {
		return r.at(o.num(), what)
	}
	all := slices.Concat(allowed, more)
	if slices.Contains(all, name) {
		return nil
	}
	se := &snippetError{Line: o.num(), What: what, Reason: "is not an option that snippets may use"}
	if near := nearestWord(name, all); near != "" {
		se.Hint = "did you mean " + strconv.Quote(near) + "?"
	} else {
		se.Hint = "remove it"
	}
	return se
}

// choice checks a word that names a module.
func choice(o snippetLine, option, word string, allowed []string, refused map[string]snippetRefusal) error {
	if slices.Contains(allowed, word) {
		return nil
	}
	what := option + " " + strconv.Quote(word)
	if r, ok := refused[word]; ok {
		return r.at(o.num(), what)
	}
	slices.Sort(allowed)
	return &snippetError{Line: o.num(), What: what, Reason: "is not one that snippets may use", Hint: "use one of " + strings.Join(allowed, ", ")}
}

// checkUpstreamWords refuses upstreams that Caddy would multiply or look up.
// Which addresses are allowed is decided on the adapted JSON.
func checkUpstreamWords(words []caddyfile.Token) error {
	for _, t := range words {
		what := "upstream " + strconv.Quote(t.Text)
		if strings.ContainsAny(t.Text, "{}") {
			return &snippetError{Line: t.Line, What: what, Reason: "placeholders could make it any address", Hint: "write the address itself, or none for the container"}
		}
		if _, port, ok := strings.Cut(t.Text[strings.LastIndex(t.Text, ":")+1:], "-"); ok && strings.Contains(t.Text, ":") && isDigits(port) {
			return &snippetError{Line: t.Line, What: what, Reason: "is a range of ports", Hint: "list the addresses one by one"}
		}
	}
	return nil
}

// checkMatcherCopies bounds what Caddy makes of named matchers, which it copies
// to every directive that uses them.
func (c *snippetChecker) checkMatcherCopies(src *snippetSource) error {
	total := 0
	for _, t := range src.tokens {
		total += c.matcherBytes[t.Text]
	}
	if total > snippetMaxMatcherBytes {
		return &snippetError{Reason: fmt.Sprintf("its named matchers would be copied to %d bytes, the most is %d", total, snippetMaxMatcherBytes),
			Hint: "put the directives that share a matcher into one handle block"}
	}
	return nil
}

func lineBytes(l snippetLine) int {
	n := 0
	for _, t := range l.words {
		n += len(t.Text) + 4 // quotes, comma, brackets
	}
	for _, b := range l.block {
		n += lineBytes(b)
	}
	return n
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// nearestWord gives the word that name was most likely meant to be, "" if none
// is near.
func nearestWord(name string, words []string) string {
	best, bestDist := "", 1+max(1, len(name)/3)
	slices.Sort(words)
	for _, w := range words {
		if d := editDistance(name, w, bestDist); d < bestDist {
			best, bestDist = w, d
		}
	}
	return best
}

// editDistance counts the letters to insert, delete or replace to get from a to
// b. From limit upwards it only says that much.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(diagonal+cost, row[j]+1, row[j+1]+1)
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return min(row[len(b)], limit)
}
