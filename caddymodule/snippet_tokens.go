package caddymodule

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

// snippetSource is a snippet as tokens and lines.
type snippetSource struct {
	tokens []caddyfile.Token
	lines  []snippetLine
	// mapped are the placeholders that map directives of the snippet define,
	// without braces.
	mapped []string
}

// snippetLine is one line of tokens and the block that it opens.
type snippetLine struct {
	words    []caddyfile.Token
	block    []snippetLine
	hasBlock bool
	start    int // first token
	end      int // one past the last, a closing brace included
}

func (l snippetLine) name() string { return l.words[0].Text }
func (l snippetLine) num() int     { return l.words[0].Line }

// args are the words after the name and a request matcher.
func (l snippetLine) args() []caddyfile.Token {
	args := l.words[1:]
	if len(args) > 0 && (args[0].Text == "*" || strings.HasPrefix(args[0].Text, "@") || strings.HasPrefix(args[0].Text, "/")) {
		args = args[1:]
	}
	return args
}

// readSnippet splits a snippet into lines, and refuses what must not reach
// Caddy's adapter: anything that is read, run or copied while adapting.
func readSnippet(body string, opts snippetOptions) (*snippetSource, error) {
	if err := checkSnippetText(body); err != nil {
		return nil, err
	}
	src := &snippetSource{}
	if strings.TrimSpace(body) == "" {
		return src, nil
	}
	var err error
	src.tokens, err = caddyfile.Tokenize([]byte(body), snippetFile)
	if err != nil {
		return nil, caddySnippetError(err, src)
	}
	if len(src.tokens) > snippetMaxTokens {
		return nil, &snippetError{Reason: fmt.Sprintf("has %d words, the most is %d", len(src.tokens), snippetMaxTokens), Hint: "split the work between routes"}
	}
	p := &lineParser{tokens: src.tokens}
	if src.lines, err = p.lines(0); err != nil {
		return nil, err
	}
	src.mapped = mappedNames(src.lines)
	c := &snippetChecker{opts: opts}
	if err := c.site(src.lines, ""); err != nil {
		return nil, err
	}
	for _, t := range src.tokens {
		if isBrace(t) {
			continue
		}
		if bad := checkPlaceholders(t.Text, src.mapped, true); bad != nil {
			bad.Line = t.Line
			return nil, bad
		}
	}
	return src, c.checkMatcherCopies(src)
}

// segments gives the lines as Caddy's adapter takes them. The adapter changes
// the tokens, so it gets its own.
func (s *snippetSource) segments() []caddyfile.Segment {
	var segs []caddyfile.Segment
	for _, l := range s.lines {
		segs = append(segs, slices.Clone(s.tokens[l.start:l.end]))
	}
	return segs
}

// lineOf finds the line of the first token that is one of words, or else holds
// one; 0 if there is none. Of a word of several ("uri replace") the last counts.
func (s *snippetSource) lineOf(words ...string) int {
	full := caddyfile.Segment(slices.Clone(s.tokens))
	httpcaddyfile.NewShorthandReplacer().ApplyToSegment(&full)
	find := func(same func(text, word string) bool) int {
		for _, word := range words {
			last := word[strings.LastIndex(word, " ")+1:]
			for i, t := range s.tokens {
				for _, w := range []string{word, last} {
					if w != "" && (same(t.Text, w) || same(full[i].Text, w)) {
						return t.Line
					}
				}
			}
		}
		return 0
	}
	if line := find(func(text, word string) bool { return text == word }); line > 0 {
		return line
	}
	return find(strings.Contains)
}

func isOpenBrace(t caddyfile.Token) bool  { return t.Text == "{" && !t.Quoted() }
func isCloseBrace(t caddyfile.Token) bool { return t.Text == "}" && !t.Quoted() }
func isBrace(t caddyfile.Token) bool      { return isOpenBrace(t) || isCloseBrace(t) }

// lineParser makes lines of tokens. It is stricter than Caddy, so that both
// agree on the structure of whatever it lets through: braces only at the end of
// the line that opens the block, and alone on the line that closes it.
type lineParser struct {
	tokens []caddyfile.Token
	i      int
}

func (p *lineParser) more() bool { return p.i < len(p.tokens) }

// sameLine reports whether the token at p.i is on the line of the one before.
func (p *lineParser) sameLine() bool {
	if !p.more() {
		return false
	}
	prev := p.tokens[p.i-1]
	return prev.Line+prev.NumLineBreaks() >= p.tokens[p.i].Line
}

func (p *lineParser) bad(what, reason, hint string) error {
	line := p.tokens[min(p.i, len(p.tokens)-1)].Line
	return &snippetError{Line: line, What: what, Reason: reason, Hint: hint}
}

func (p *lineParser) lines(depth int) ([]snippetLine, error) {
	if depth > snippetMaxDepth {
		return nil, p.bad("", fmt.Sprintf("blocks are nested more than %d deep", snippetMaxDepth), "use fewer blocks within blocks")
	}
	var lines []snippetLine
	for p.more() {
		if isCloseBrace(p.tokens[p.i]) {
			if depth > 0 {
				return lines, nil
			}
			return nil, p.bad(`"}"`, "closes the site block, which the snippet must not leave", "remove it, or add the { that it belongs to")
		}
		l, err := p.line(depth)
		if err != nil {
			return nil, err
		}
		lines = append(lines, l)
	}
	if depth > 0 {
		return nil, p.bad("", "the text ends within a block", "add the missing }")
	}
	return lines, nil
}

func (p *lineParser) line(depth int) (snippetLine, error) {
	if isOpenBrace(p.tokens[p.i]) {
		return snippetLine{}, p.bad(`"{"`, "a line begins with a brace", "put { at the end of the line that it belongs to; global options are not for snippets")
	}
	l := snippetLine{start: p.i, words: p.tokens[p.i : p.i+1 : p.i+1]}
	for p.i++; p.sameLine(); p.i++ {
		t := p.tokens[p.i]
		if isCloseBrace(t) {
			return l, p.bad(`"}"`, "a closing brace must stand alone on its line", "start a new line before it")
		}
		if !isOpenBrace(t) {
			l.words = p.tokens[l.start : p.i+1 : p.i+1]
			continue
		}
		p.i++
		if p.sameLine() {
			return l, p.bad(`"{"`, "an opening brace must be the last word of its line", "start a new line after it")
		}
		var err error
		l.hasBlock = true
		if l.block, err = p.lines(depth + 1); err != nil {
			return l, err
		}
		p.i++
		if p.sameLine() {
			return l, p.bad(strconv.Quote(p.tokens[p.i].Text), "a closing brace must stand alone on its line", "start a new line after it")
		}
		break
	}
	l.end = p.i
	return l, nil
}

// mappedNames collects the placeholders that map directives define.
func mappedNames(lines []snippetLine) []string {
	var names []string
	for _, l := range lines {
		if l.name() == "map" {
			for _, t := range l.words[1:] {
				if name, ok := mapDestination(t.Text); ok {
					names = append(names, name)
				}
			}
		}
		names = append(names, mappedNames(l.block)...)
	}
	return names
}
