package caddymodule

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
)

// What one request may cost. A snippet must not be able to take the program,
// which serves everybody, down.
const (
	// snippetMaxRegexp is the size of one regular expression in instructions:
	// matching takes at most so many steps per byte.
	snippetMaxRegexp = 2000
	// snippetMaxGrowth bounds by how much directives that copy parts of a request
	// into others may lengthen it together.
	snippetMaxGrowth = 64
	// snippetMaxBuffer bounds what is kept in memory per request.
	snippetMaxBuffer = 1 << 20
	// A bcrypt check of cost 14, which is what "caddy hash-password" makes, takes
	// about a second; each further step doubles that.
	snippetMaxBcrypt = 14
	// Memory (KiB), passes and threads of an argon2id check.
	snippetMaxArgonMemory  = 64 << 10
	snippetMaxArgonTime    = 4
	snippetMaxArgonThreads = 4
	snippetMaxArgonKey     = 64
)

// regexpText allows a regular expression of a bounded size. Go's are matched in
// linear time, so size is all that matters.
func regexpText(w *snippetWalk, name string, v any) error {
	s, ok := v.(string)
	if !ok {
		return w.wrongType(name)
	}
	re, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		return w.refuse(name+" "+quoteText(s), err.Error(), "see https://golang.org/s/re2syntax", s, name)
	}
	if regexpSize(re) > snippetMaxRegexp {
		return w.refuse(name+" "+quoteText(s), "is too large a regular expression", "use smaller repetition counts", s, name)
	}
	return nil
}

// fixedRegexp is a regular expression that no request can change.
func fixedRegexp(w *snippetWalk, name string, v any) error {
	if s, ok := v.(string); ok && allPlaceholders(s) > 0 {
		return w.refuse(name+" "+quoteText(s), "a request could make it any regular expression", "write it without placeholders", s, name)
	}
	return regexpText(w, name, v)
}

// regexpSize estimates the compiled size without compiling.
func regexpSize(re *syntax.Regexp) int {
	n := 1
	for _, sub := range re.Sub {
		n += regexpSize(sub)
	}
	switch re.Op {
	case syntax.OpLiteral:
		n += len(re.Rune)
	case syntax.OpRepeat:
		times := max(re.Min, re.Max, 1)
		if n > snippetMaxRegexp { // do not overflow
			return n
		}
		n *= times
	}
	return n
}

// allPlaceholders counts the placeholders of s.
func allPlaceholders(s string) int {
	n := 0
	_ = eachPlaceholder(s, func(name string, closed bool) *snippetError {
		if closed && placeholderWord.MatchString(name) {
			n++
		}
		return nil
	})
	return n
}

// growingText allows a text that is stored in the request or its headers: each
// copy of another part of the request lengthens it.
func growingText(w *snippetWalk, name string, v any) error {
	if err := anyScalar(w, name, v); err != nil {
		return err
	}
	s, _ := v.(string)
	return w.grow(name, grownPlaceholders(s), s)
}

// grow notes that a directive may lengthen the request by a factor. If Caddy ran
// twenty directives that each write {uri}{uri}, one request would take all memory.
func (w *snippetWalk) grow(name string, factor int, text string) error {
	if factor > 1 {
		w.growth *= min(factor, snippetMaxGrowth+1)
	}
	if w.growth > snippetMaxGrowth {
		return w.refuse(name+" "+quoteText(text), fmt.Sprintf("together with the directives before it, could lengthen a request more than %d times", snippetMaxGrowth),
			"use fewer placeholders, or anchor regular expressions with ^", text, name)
	}
	return nil
}

// replacement checks a search and replace in a part of the request.
func (w *snippetWalk) replacement(name, find, findRegexp, replace string) error {
	if grownPlaceholders(replace) > 0 {
		return w.refuse(name+" "+quoteText(replace), "could multiply the length of a request by itself", "replace by a fixed text, {host} or {scheme}", replace, name)
	}
	longest := len(replace) + 64*allPlaceholders(replace) // of a short placeholder
	switch {
	case findRegexp != "" && anchored(findRegexp):
		return w.grow(name, max(1, strings.Count(replace, "$")), replace) // matches once
	case findRegexp != "":
		return w.grow(name, 1+longest+strings.Count(replace, "$"), replace)
	}
	return w.grow(name, (longest+len(find)-1)/max(1, len(find)), replace)
}

// anchored reports whether an expression can match only once, at the beginning.
func anchored(expr string) bool {
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return false
	}
	for re.Op == syntax.OpConcat || re.Op == syntax.OpCapture {
		re = re.Sub[0]
	}
	return re.Op == syntax.OpBeginText
}

// bcryptHash is strict, since the library reads the cost at a fixed place,
// whatever stands around it.
var bcryptHash = regexp.MustCompile(`^\$2[abxy]?\$[0-9]{2}\$[./A-Za-z0-9]{53}$`)

// passwordHash checks what it costs to verify a password against a hash. The hash
// is not shown in errors.
func passwordHash(w *snippetWalk, name string, v any) error {
	s, ok := v.(string)
	if !ok {
		return w.wrongType(name)
	}
	bad := func(reason string) error {
		return w.refuse("basic_auth", reason, `make a hash with "dentropy hash-password"`, s)
	}
	hash := s
	if !strings.HasPrefix(hash, "$") { // Caddy takes these base64-encoded
		b, err := base64.StdEncoding.DecodeString(hash)
		if err != nil {
			return bad("the password is not a hash")
		}
		hash = string(b)
	}
	parts := strings.Split(hash, "$")
	switch {
	case bcryptHash.MatchString(hash):
		if cost, err := strconv.Atoi(parts[2]); err != nil || cost < 4 || cost > snippetMaxBcrypt {
			return bad(fmt.Sprintf("the cost of the bcrypt hash is not between 4 and %d", snippetMaxBcrypt))
		}
		return nil
	case len(parts) == 6 && parts[1] == "argon2id":
		return argonHash(parts, bad)
	}
	return bad("the hash is neither bcrypt nor argon2id")
}

// argonHash checks $argon2id$v=19$m=47104,t=1,p=1$salt$key.
func argonHash(parts []string, bad func(string) error) error {
	limits := []struct {
		prefix string
		high   uint64
	}{{"m=", snippetMaxArgonMemory}, {"t=", snippetMaxArgonTime}, {"p=", snippetMaxArgonThreads}}
	params := strings.Split(parts[3], ",")
	if len(params) != len(limits) {
		return bad("the argon2id hash lacks m, t and p")
	}
	for i, l := range limits {
		n, err := strconv.ParseUint(strings.TrimPrefix(params[i], l.prefix), 10, 32)
		if err != nil || n < 1 || n > l.high {
			return bad(fmt.Sprintf("%s of the argon2id hash is not between 1 and %d", l.prefix[:1], l.high))
		}
	}
	key, err := base64.RawStdEncoding.Strict().DecodeString(parts[5])
	if err != nil || len(key) < 16 || len(key) > snippetMaxArgonKey {
		return bad(fmt.Sprintf("the key of the argon2id hash is not 16 to %d bytes long", snippetMaxArgonKey))
	}
	return nil
}
