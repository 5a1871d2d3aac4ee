package caddymodule

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// snippetDocs is the page that the tables are written into.
var snippetDocs = filepath.Join("..", "docs", "snippets.md")

const (
	docsBegin = "<!-- from here to the end: made from the tables of the code; do not edit -->\n"
)

// TestSnippetDocs holds the page against the tables.
func TestSnippetDocs(t *testing.T) {
	page, err := os.ReadFile(snippetDocs)
	if err != nil {
		t.Fatal(err)
	}
	before, old, ok := strings.Cut(string(page), docsBegin)
	if !ok {
		t.Fatalf("%s has no line %q", snippetDocs, docsBegin)
	}
	got := snippetTables()
	if *updateSnippets {
		if err := os.WriteFile(snippetDocs, []byte(before+docsBegin+got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(old, got); diff != "" {
		t.Errorf("%s is not what the code does; run this test with -update-snippets (-page +code):\n%s", snippetDocs, diff)
	}
}

// TestSnippetDocsExamples adapts every example of the page.
func TestSnippetDocsExamples(t *testing.T) {
	page, err := os.ReadFile(snippetDocs)
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(page), "```")
	n := 0
	for i := 1; i < len(blocks); i += 2 {
		body, ok := strings.CutPrefix(blocks[i], "caddyfile\n")
		if !ok {
			continue
		}
		n++
		if _, err := adaptSnippet(body, snippetOptions{AllowUpstream: func(string) error { return nil }}); err != nil {
			t.Errorf("example %d: %v\n%s", n, err, body)
		}
	}
	if n == 0 {
		t.Error("the page has no examples")
	}
}

// snippetTables writes the tables of snippet_allow.go as Markdown.
func snippetTables() string {
	var b strings.Builder
	code := func(words []string) string {
		return "`" + strings.Join(slices.Sorted(slices.Values(words)), "` `") + "`"
	}
	refused := func(title, kind string, tables ...map[string]snippetRefusal) {
		fmt.Fprintf(&b, "\n### %s\n\n| %s | why | use instead |\n|---|---|---|\n", title, kind)
		for _, table := range tables {
			for _, name := range keysOf(table) {
				fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, table[name].why, table[name].instead)
			}
		}
	}
	b.WriteString("\n## Allowed\n\n| directive | what for |\n|---|---|\n")
	for _, name := range keysOf(snippetDirectives) {
		d := snippetDirectives[name]
		if d.only != "" {
			d.about += "; only within " + d.only
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", name, d.about)
	}
	fmt.Fprintf(&b, "\nMatchers: %s\n", code(snippetMatcherNames))
	fmt.Fprintf(&b, "\nOptions of `reverse_proxy`: %s\n", code(snippetProxyOptions))
	fmt.Fprintf(&b, "\n`lb_policy`: %s\n", code(keysOf(snippetPolicies)))
	fmt.Fprintf(&b, "\n`dynamic`: %s\n", code(keysOf(snippetDynamic)))
	for _, name := range keysOf(snippetTransportOptions) {
		fmt.Fprintf(&b, "\n`transport %s`: %s\n", name, code(snippetTransportOptions[name]))
	}
	fmt.Fprintf(&b, "\nPlaceholders, short: %s, and all that begin with %s\n", code(snippetShorthands), code(snippetShorthandFamilies))
	fmt.Fprintf(&b, "\nPlaceholders, in full: %s, and all that begin with %s, and those that a `map` of the snippet defines\n",
		code(snippetPlaceholders), code(snippetPlaceholderFamilies))
	b.WriteString("\n## Refused\n")
	refused("Directives", "directive", snippetRefusedDirectives)
	refused("Matchers", "matcher", snippetRefusedMatchers)
	refused("Options of reverse_proxy", "option", snippetRefusedProxyOptions, snippetRefusedTransportOptions)
	refused("Sources of upstreams (`dynamic`)", "source", snippetRefusedDynamic)
	refused("Sources of certificates (`tls_trust_pool`)", "source", snippetRefusedTrustPools)
	refused("Placeholders that begin with", "placeholder", snippetRefusedPlaceholders)
	fmt.Fprintf(&b, "\nVariables that `vars` may not set: %s, and any that begins with `dentropy`\n", code(snippetReservedVars))
	b.WriteString("\n## Limits\n\n| what | most |\n|---|---|\n")
	for _, l := range [][2]any{
		{"bytes of a snippet", snippetMaxBytes}, {"words of a snippet", snippetMaxTokens}, {"blocks within blocks", snippetMaxDepth},
		{"placeholders in one text", snippetMaxPlaceholders}, {"instructions of one regular expression", snippetMaxRegexp},
		{"times that a request may be lengthened", snippetMaxGrowth}, {"bytes of a buffer", snippetMaxBuffer},
		{"cost of a bcrypt hash", snippetMaxBcrypt}, {"KiB of an argon2id hash", snippetMaxArgonMemory}, {"passes of an argon2id hash", snippetMaxArgonTime},
		{"waiting for an upstream", snippetMaxWait},
	} {
		fmt.Fprintf(&b, "| %v | %v |\n", l[0], l[1])
	}
	return b.String()
}
