package caddymodule

import (
	"encoding/json"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// snippetHandlers are the rules for the handlers that snippets may use.
var snippetHandlers map[string]snippetRule

// snippetMatchers are the rules for the matchers that snippets may use.
var snippetMatchers map[string]snippetRule

var (
	responseMatcher = fieldsOf(snippetFields{
		"status_code": listOf(numberOf("status", 1, 999)),
		"headers":     mapOf(listOf(anyText)),
	})
	headerValues   = mapOf(listOf(growingText))
	headerReplaces = mapOf(listOf(headerReplace))
	rewriteQuery   = fieldsOf(snippetFields{
		"rename":  listOf(fieldsOf(snippetFields{"key": anyText, "val": growingText})),
		"set":     listOf(fieldsOf(snippetFields{"key": anyText, "val": growingText})),
		"add":     listOf(fieldsOf(snippetFields{"key": anyText, "val": growingText})),
		"replace": listOf(searchReplace("key", anyText, "search", anyText, "search_regexp", regexpText)),
		"delete":  listOf(anyText),
	})
	rewriteFields = fieldsOf(snippetFields{
		"method": anyText, "uri": growingText, "strip_path_prefix": anyText, "strip_path_suffix": anyText,
		"uri_substring": asWord("uri replace", listOf(searchReplace("find", anyText, "limit", anyScalar))),
		"path_regexp":   asWord("uri path_regexp", listOf(searchReplace("find", regexpText))),
		"query":         asWord("uri query", rewriteQuery),
	})
	namedRegexp = fieldsOf(snippetFields{"name": anyText, "pattern": regexpText})
)

// The rules refer to each other, hence init.
func init() {
	snippetHandlers = map[string]snippetRule{
		"authentication":        fieldsOf(snippetFields{"providers": fieldsOf(snippetFields{"http_basic": basicAuth})}),
		"copy_response":         fieldsOf(snippetFields{"status_code": anyText}),
		"copy_response_headers": fieldsOf(snippetFields{"include": listOf(anyText), "exclude": listOf(anyText)}),
		"encode": fieldsOf(snippetFields{
			"encodings": fieldsOf(snippetFields{
				"gzip": fieldsOf(snippetFields{"level": numberOf("gzip", 0, 9)}),
				"zstd": fieldsOf(snippetFields{"level": asWord("zstd", oneOf("fastest", "default", "better")), "checksum": anyBool}),
			}),
			"prefer": listOf(oneOf("gzip", "zstd")), "minimum_length": numberOf("minimum_length", 0, math.MaxInt32), "match": responseMatcher,
		}),
		"error":           fieldsOf(snippetFields{"error": anyText, "status_code": anyText}),
		"headers":         asWord("header", headersRule()),
		"map":             mapHandler,
		"request_body":    fieldsOf(snippetFields{"max_size": numberOf("max_size", 0, math.MaxInt64), "set": growingText}),
		"reverse_proxy":   reverseProxy,
		"rewrite":         rewriteFields,
		"static_response": fieldsOf(snippetFields{"status_code": anyText, "headers": mapOf(listOf(anyText)), "body": anyText, "close": anyBool, "abort": anyBool}),
		"subroute":        fieldsOf(snippetFields{"routes": checkRoutes}),
		"timeouts": fieldsOf(snippetFields{
			"read_timeout": durationOf("read_timeout", time.Second, time.Hour), "read_min_rate": numberOf("read_timeout", 0, math.MaxInt32),
			"write_timeout": durationOf("write_timeout", time.Second, time.Hour), "write_min_rate": numberOf("write_timeout", 0, math.MaxInt32),
			"max_write_chunk": numberOf("max_write_chunk", 0, snippetMaxBuffer),
		}),
		"vars": varsHandler,
	}
	ipRanges := fieldsOf(snippetFields{"ranges": listOf(anyText)})
	snippetMatchers = map[string]snippetRule{
		"client_ip": ipRanges, "remote_ip": ipRanges,
		"expression": errorStatusExpression,
		"header":     mapOf(listOf(anyText)), "query": mapOf(listOf(anyText)),
		"header_regexp": mapOf(namedRegexp), "path_regexp": namedRegexp,
		"vars": varsMatcher(listOf(anyText)), "vars_regexp": varsMatcher(namedRegexp),
		"host": listOf(anyText), "method": listOf(anyText), "path": listOf(anyText),
		"not": checkMatcherSets, "protocol": anyText,
	}
}

// checkRoutes checks a list of routes.
func checkRoutes(w *snippetWalk, name string, v any) error {
	return listOf(fieldsOf(snippetFields{
		"group": anyText, "terminal": anyBool, "match": checkMatcherSets, "handle": listOf(checkHandler),
	}))(w, name, v)
}

// checkHandler checks one handler, or lets a plugin's pass that the operator has
// allowed.
func checkHandler(w *snippetWalk, name string, v any) error {
	if m, _ := v.(map[string]any); m["handler"] == "reverse_proxy" {
		if w.inErrors {
			w.errProxies = append(w.errProxies, m)
		} else {
			w.proxies = append(w.proxies, m)
		}
	}
	return moduleOf("handler", "handler", func(id string) snippetRule {
		if rule := snippetHandlers[id]; rule != nil {
			return rule
		}
		if w.allowed("http.handlers." + id) {
			return pluginValue
		}
		return nil
	})(w, name, v)
}

// checkMatcherSets checks a list of sets of matchers by name.
func checkMatcherSets(w *snippetWalk, name string, v any) error {
	return listOf(func(w *snippetWalk, name string, v any) error {
		set, ok := v.(map[string]any)
		if !ok {
			return w.wrongType(name)
		}
		for _, id := range slices.Sorted(maps.Keys(set)) {
			rule := snippetMatchers[id]
			if rule == nil && w.allowed("http.matchers."+id) {
				rule = pluginValue
			}
			if rule == nil {
				return w.refuse("matcher "+quoteText(id), "is not one that snippets may use", "remove it", id)
			}
			if err := w.apply(rule, id, set[id]); err != nil {
				return err
			}
		}
		return nil
	})(w, name, v)
}

// allowed reports whether the operator has allowed a plugin's module. What Caddy
// brings itself is decided here alone.
func (w *snippetWalk) allowed(id string) bool {
	return slices.Contains(w.opts.AllowHandlers, id) && !slices.Contains(caddyOwnModules, id)
}

// caddyOwnModules cannot be allowed by the operator: they are refused for reasons
// that hold for every operator.
var caddyOwnModules = []string{
	"http.handlers.acme_server", "http.handlers.file_server", "http.handlers.intercept", "http.handlers.invoke", "http.handlers.log_append",
	"http.handlers.metrics", "http.handlers.push", "http.handlers.templates", "http.handlers.tracing", "http.handlers.dentropy",
	"http.matchers.file", "http.matchers.tls", "http.matchers.url_pattern",
}

// pluginValue lets a plugin's settings pass, apart from handlers within them.
func pluginValue(w *snippetWalk, name string, v any) error {
	switch v := v.(type) {
	case []any:
		return listOf(pluginValue)(w, name, v)
	case map[string]any:
		if _, ok := v["handler"].(string); ok {
			return checkHandler(w, name, v)
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			rule := pluginValue
			if key == "match" {
				rule = pluginMatch
			}
			if err := w.apply(rule, name, v[key]); err != nil {
				return err
			}
		}
	}
	return nil
}

// pluginMatch checks what a plugin calls match as matcher sets if it has that
// shape.
func pluginMatch(w *snippetWalk, name string, v any) error {
	if list, ok := v.([]any); ok && len(list) > 0 {
		if _, ok := list[0].(map[string]any); ok {
			return checkMatcherSets(w, name, v)
		}
	}
	return pluginValue(w, name, v)
}

// errorStatusExpression allows the one expression that Caddy itself makes: that of
// "handle_errors 404 5xx".
func errorStatusExpression(w *snippetWalk, name string, v any) error {
	s, _ := v.(string)
	if m, ok := v.(map[string]any); ok && len(m) <= 2 {
		s, _ = m["expr"].(string)
	}
	if errorStatus.MatchString(s) {
		return nil
	}
	r := snippetRefusedMatchers["expression"]
	return w.refuse(`matcher "expression"`, r.why, r.instead, s, "expression")
}

const (
	errorStatusRange = `\{http\.error\.status_code\} >= [0-9]00 && \{http\.error\.status_code\} <= [0-9]99`
	errorStatusList  = `\{http\.error\.status_code\} in \[[0-9]{3}(, [0-9]{3})*\]`
)

var errorStatus = regexp.MustCompile(`^(` + errorStatusRange + `( \|\| ` + errorStatusRange + `)*( \|\| ` + errorStatusList + `)?|` + errorStatusList + `)$`)

// headersRule is the rule for the headers handler, which reverse_proxy shares.
func headersRule() snippetRule {
	ops := snippetFields{"add": headerValues, "set": headerValues, "delete": listOf(anyText), "replace": headerReplaces}
	resp := maps.Clone(ops)
	resp["require"] = responseMatcher
	resp["deferred"] = anyBool
	return fieldsOf(snippetFields{"request": fieldsOf(ops), "response": fieldsOf(resp)})
}

// headerReplace checks one search and replace in a header. Its expression is
// compiled per request where it holds placeholders.
func headerReplace(w *snippetWalk, name string, v any) error {
	return searchReplace("search", anyText, "search_regexp", fixedRegexp)(w, name, v)
}

// searchReplace checks an object with these fields and "replace".
func searchReplace(fields ...any) snippetRule {
	all := snippetFields{"replace": anyText}
	for i := 0; i < len(fields); i += 2 {
		switch r := fields[i+1].(type) {
		case snippetRule:
			all[fields[i].(string)] = r
		case func(*snippetWalk, string, any) error:
			all[fields[i].(string)] = r
		}
	}
	_, findIsText := all["limit"] // of uri replace; that of uri path_regexp is an expression
	return func(w *snippetWalk, name string, v any) error {
		if err := fieldsOf(all)(w, name, v); err != nil {
			return err
		}
		m, _ := v.(map[string]any)
		text := func(key string) string { s, _ := m[key].(string); return s }
		find, expr := text("search"), text("search_regexp")
		if findIsText {
			find = text("find")
		} else if expr == "" {
			expr = text("find")
		}
		return w.replacement(name, find, expr, text("replace"))
	}
}

// basicAuth checks passwords of basic_auth.
func basicAuth(w *snippetWalk, name string, v any) error {
	return fieldsOf(snippetFields{
		"hash": moduleOf("algorithm", "hash", func(id string) snippetRule {
			return map[string]snippetRule{"bcrypt": fieldsOf(nil), "argon2id": fieldsOf(nil)}[id]
		}),
		"accounts":   listOf(fieldsOf(snippetFields{"username": anyText, "password": passwordHash})),
		"realm":      anyText,
		"hash_cache": fieldsOf(nil),
	})(w, name, v)
}

// varsWord is a variable that a snippet may set. Caddy keeps its own under names
// with dots, and under those of snippetReservedVars.
var varsWord = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

// varsMatcher checks a matcher by variable or placeholder.
func varsMatcher(r snippetRule) snippetRule {
	return func(w *snippetWalk, name string, v any) error {
		m, _ := v.(map[string]any)
		for _, key := range slices.Sorted(maps.Keys(m)) {
			if !varsWord.MatchString(key) && !strings.HasPrefix(key, "{") {
				return w.refuse("variable "+quoteText(key), "is not a plain word", "use letters, digits, - and _, or a placeholder", key)
			}
		}
		return mapOf(r)(w, name, v)
	}
}

func varsHandler(w *snippetWalk, name string, v any) error {
	m, ok := v.(map[string]any)
	if !ok {
		return w.wrongType(name)
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		what := "variable " + quoteText(key)
		switch {
		case !varsWord.MatchString(key):
			return w.refuse(what, "is not a plain word", "use letters, digits, - and _", key)
		case slices.Contains(snippetReservedVars, key) || strings.HasPrefix(key, "dentropy"):
			return w.refuse(what, "belongs to the proxy itself", "use another name", key)
		}
		if err := w.apply(growingText, name, m[key]); err != nil {
			return err
		}
	}
	return nil
}

// mapHandler checks a map. A value that refers to a placeholder of a map, its own
// or another's, could refer to itself, and Caddy would follow it until the stack
// of the whole program is used up.
func mapHandler(w *snippetWalk, name string, v any) error {
	err := fieldsOf(snippetFields{
		"source": anyText, "destinations": listOf(mapDestinationText), "defaults": listOf(anyText),
		"mappings": listOf(fieldsOf(snippetFields{"input": anyText, "input_regexp": regexpText, "outputs": listOf(anyScalar)})),
	})(w, name, v)
	if err != nil {
		return err
	}
	m, _ := v.(map[string]any)
	for _, part := range []any{m["source"], m["defaults"], m["mappings"]} {
		if err := w.noMapped(part); err != nil {
			return err
		}
	}
	return nil
}

func mapDestinationText(w *snippetWalk, name string, v any) error {
	s, _ := v.(string)
	if _, ok := mapDestination(s); !ok {
		return w.refuse("map destination "+quoteText(s), "is not a plain word in braces", "name it like {my_value}", s, "map")
	}
	return nil
}

// noMapped refuses placeholders that maps define.
func (w *snippetWalk) noMapped(v any) error {
	switch v := v.(type) {
	case string:
		if bad := checkPlaceholders(v, nil, false); bad != nil {
			return w.refuse("map value "+quoteText(v), "uses a placeholder that a map defines, which could refer to itself", "use request placeholders in map values", v)
		}
	case []any:
		for _, e := range v {
			if err := w.noMapped(e); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if err := w.noMapped(v[key]); err != nil {
				return err
			}
		}
	}
	return nil
}

// portNumber reads a port from 1 to 65535; 0 if it is none.
func portNumber(v any) int {
	s, ok := v.(string)
	if n, isNumber := v.(json.Number); isNumber {
		s, ok = n.String(), true
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if !ok || err != nil {
		return 0
	}
	return int(n)
}
