package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Limits of one snippet. A snippet is what a person writes into a label; these
// are several times what the longest sensible one needs, and small enough that
// adapting the worst snippet stays in the milliseconds.
const (
	snippetMaxBytes  = 16 << 10
	snippetMaxTokens = 2000
	snippetMaxDepth  = 12
	// A named matcher is copied to every directive that uses it.
	snippetMaxMatcherBytes = 128 << 10
	// The adapted JSON; what is above it came about by copying.
	snippetMaxJSON = 512 << 10
)

// snippetFile is what Caddy's own errors call the text of a snippet.
const snippetFile = "caddyfile"

// snippetSite is the address of the site block that a snippet is adapted in. It
// stands for the route's hosts, which the route table has matched already.
const snippetSite = "http://snippet.invalid"

// snippetOptions is what adaptSnippet needs to know about the route.
type snippetOptions struct {
	// Host names the route in errors. Default: not named.
	Host string
	// Scheme is how the container is spoken to: http, https or h2c. Default: http.
	Scheme string
	// AllowUpstream decides about an address (host:port, lower case) other than
	// the route's own containers; its error is shown to the author of the snippet.
	// Default: none is allowed.
	AllowUpstream func(addr string) error
	// KeepUpstreamModule is the name of the module in the namespace
	// http.reverse_proxy.upstreams that gives the route's own endpoints.
	// Default: dentropy.
	KeepUpstreamModule string
	// AllowHandlers are ids of plugin modules that snippets may use beside the
	// built-in list (http.handlers.rate_limit, http.matchers.geoip). A word without
	// a dot is the name of a directive that differs from its module's. Caddy's own
	// modules cannot be allowed this way. Default: none.
	AllowHandlers []string
}

// snippetResult is an adapted snippet: raw JSON that was held against the
// allow-list and not provisioned. Provisioning empties raw JSON, so the caller
// provisions a copy.
type snippetResult struct {
	// Routes handle a request of the route.
	Routes caddyhttp.RouteList
	// Errors handles what Routes return as an error; nil if the snippet says
	// nothing about errors.
	Errors *caddyhttp.HTTPErrorConfig
	// Upstreams are the addresses beside the container that the snippet dials, as
	// they were shown to AllowUpstream, sorted.
	Upstreams []string
	// EndsItself says that no proxy to the container was appended, since the snippet
	// answers every request itself or has a proxy to the container of its own.
	EndsItself bool
	// UsesContainer says that some request may reach the container.
	UsesContainer bool
}

// snippetError is why a snippet was refused. It concerns one place in it.
type snippetError struct {
	// Host is the route's host, if known.
	Host string
	// Line within the snippet, from 1; 0 if it concerns the whole.
	Line int
	// What is the directive, option, matcher or placeholder concerned.
	What string
	// Reason says why it is refused, Hint what to write instead.
	Reason, Hint string
}

// Error gives the whole as one line.
func (e *snippetError) Error() string {
	s := "caddyfile "
	if e.Host != "" {
		s = e.Host + ": " + s
	}
	if e.Line == 0 {
		s = strings.TrimSuffix(s, " ") + ": "
	}
	s += e.text()
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// text is the place and the reason, without host and hint.
func (e *snippetError) text() string {
	var s string
	if e.Line > 0 {
		s = "line " + strconv.Itoa(e.Line) + ": "
	}
	if e.What != "" {
		s += e.What + ": "
	}
	return s + e.Reason
}

// adaptSnippet turns the directives of one untrusted site block into routes. It
// reads no file, no environment and no network, whatever body holds, and takes a
// bounded time. What is not on the allow-list is refused with a *snippetError.
//
// The body is refused in three steps, each sufficient against what the next
// would do with it: the tokens (nothing is read at adapt time, only listed
// directives run), then Caddy's own adapter on exactly one site block that is
// made from these tokens, then the adapted JSON as a whole (every module, field,
// number, address and placeholder must be on the list).
func adaptSnippet(body string, opts snippetOptions) (res *snippetResult, err error) {
	defer func() {
		if r := recover(); r != nil {
			// A plugin's directive may panic on odd input. Its stack says whose fault
			// it is; it holds no part of the snippet.
			res, err = nil, &snippetError{Reason: fmt.Sprintf("a directive panicked: %v", r), Hint: "report it with this trace: " + firstForeignFrame(debug.Stack())}
		}
		if se, ok := errors.AsType[*snippetError](err); ok {
			se.Host = opts.Host
		}
	}()
	if opts.KeepUpstreamModule == "" {
		opts.KeepUpstreamModule = "dentropy"
	}
	src, err := readSnippet(body, opts)
	if err != nil {
		return nil, err
	}
	routes, errRoutes, err := setupSnippet(src)
	if err != nil {
		return nil, err
	}
	w := &snippetWalk{src: src, opts: opts, growth: 1}
	tree, errTree, err := w.walk(routes, errRoutes)
	if err != nil {
		return nil, err
	}
	return finishSnippet(tree, errTree, w, opts)
}

// setupSnippet lets Caddy adapt the snippet as the only site block of a config
// and takes the routes out of the one server that comes of it.
func setupSnippet(src *snippetSource) (routes, errRoutes json.RawMessage, err error) {
	block := caddyfile.ServerBlock{
		HasBraces: true,
		Keys:      []caddyfile.Token{{File: snippetFile, Text: snippetSite}},
		Segments:  src.segments(),
	}
	cfg, warnings, err := httpcaddyfile.ServerType{}.Setup([]caddyfile.ServerBlock{block}, nil)
	if err != nil {
		return nil, nil, caddySnippetError(err, src)
	}
	for _, warning := range warnings {
		// Caddy warns where it could not encode a value, which then is missing.
		return nil, nil, &snippetError{Line: warning.Line, What: warning.Directive, Reason: warning.Message}
	}
	return splitSnippetConfig(cfg)
}

// splitSnippetConfig gives the main and the error routes of an adapted config,
// and refuses a config that holds anything else.
func splitSnippetConfig(cfg *caddy.Config) (routes, errRoutes json.RawMessage, err error) {
	beyond := func(what string) error {
		return &snippetError{What: what, Reason: "a snippet may only handle requests of its own route", Hint: "put server-wide settings into the operator's Caddyfile"}
	}
	if cfg.Logging != nil || cfg.Admin != nil || len(cfg.StorageRaw) > 0 {
		return nil, nil, beyond("global settings")
	}
	for name := range cfg.AppsRaw {
		if name != "http" {
			return nil, nil, beyond("app " + strconv.Quote(name))
		}
	}
	var app map[string]json.RawMessage
	if err := json.Unmarshal(cfg.AppsRaw["http"], &app); err != nil {
		return nil, nil, fmt.Errorf("read adapted snippet: %w", err)
	}
	var servers map[string]map[string]json.RawMessage
	for key, raw := range app {
		if key != "servers" {
			return nil, nil, beyond("http app setting " + strconv.Quote(key))
		}
		if err := json.Unmarshal(raw, &servers); err != nil {
			return nil, nil, fmt.Errorf("read adapted snippet: %w", err)
		}
	}
	if len(servers) != 1 {
		return nil, nil, beyond("second site")
	}
	for _, server := range servers {
		for key, raw := range server {
			switch key {
			case "listen":
			case "routes":
				routes = raw
			case "errors":
				errRoutes = raw
			default:
				return nil, nil, beyond("server setting " + strconv.Quote(key))
			}
		}
	}
	return routes, errRoutes, nil
}

// caddyPlace finds where Caddy's adapter says an error is.
var caddyPlace = regexp.MustCompile(`(,? at )?\b` + snippetFile + `:(\d+)( - Error during parsing)?(: )?( import chain: \['[^']*'\])?`)

// lexerPlace is where its lexer says so, and matcherWord a matcher in a message
// without a place.
var (
	lexerPlace  = regexp.MustCompile(`line #(\d+)`)
	matcherWord = regexp.MustCompile(`@\S+`)
)

// caddyParsing is the prefix that Caddy puts on an error at every level of nesting.
var caddyParsing = regexp.MustCompile(`parsing caddyfile tokens for '([^']*)': `)

// caddySnippetError makes a snippetError of an error of Caddy's adapter.
func caddySnippetError(err error, src *snippetSource) *snippetError {
	msg := err.Error()
	se := &snippetError{}
	if m := caddyPlace.FindStringSubmatch(msg); m != nil {
		se.Line, _ = strconv.Atoi(m[2])
	} else if m := lexerPlace.FindStringSubmatch(msg); m != nil {
		se.Line, _ = strconv.Atoi(m[1])
	} else if m := matcherWord.FindString(msg); m != "" {
		se.Line = src.lineOf(m)
	}
	if all := caddyParsing.FindAllStringSubmatch(msg, -1); len(all) > 0 {
		se.What = all[len(all)-1][1]
	}
	msg = caddyParsing.ReplaceAllString(caddyPlace.ReplaceAllString(msg, ""), "")
	se.Reason = strings.Join(strings.Fields(msg), " ")
	if strings.HasPrefix(se.Reason, "wrong argument count") {
		se.Hint = "a first argument that begins with / or @ is a matcher; put * before it if it is not meant as one"
	}
	return se
}

// firstForeignFrame gives the function that panicked.
func firstForeignFrame(stack []byte) string {
	_, after, _ := strings.Cut(string(stack), "panic(")
	lines := strings.Split(after, "\n")
	if len(lines) < 3 {
		return "unknown"
	}
	name, _, _ := strings.Cut(lines[2], "(")
	return name
}

// checkSnippetText refuses a text before anything is made of it.
func checkSnippetText(body string) error {
	switch {
	case len(body) > snippetMaxBytes:
		return &snippetError{
			Reason: fmt.Sprintf("is %d bytes long, the most is %d", len(body), snippetMaxBytes),
			Hint:   "move large texts, such as pages, into a container",
		}
	case !utf8.ValidString(body) || strings.ContainsRune(body, 0):
		return &snippetError{Reason: "is not valid UTF-8 text", Hint: "write it in UTF-8, without NUL bytes"}
	}
	if i := strings.Index(body, "{$"); i >= 0 {
		// Caddy puts our environment into the text before it is even split into
		// words, comments included.
		name := body[i:min(i+40, len(body))]
		if end := strings.IndexAny(name, "}\n"); end >= 0 {
			name = strings.TrimRight(name[:end+1], "\n")
		}
		return &snippetError{
			Line: 1 + strings.Count(body[:i], "\n"), What: "placeholder " + strconv.Quote(name),
			Reason: "would read the environment of the proxy", Hint: "write the value itself; compose files can fill in ${NAME} before the label is set",
		}
	}
	return nil
}

// sortedSet gives the members of s, sorted.
func sortedSet(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}
