package caddymodule

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// snippetWalk holds the adapted JSON of a snippet against the rules, and notes
// what the caller needs to know about it.
type snippetWalk struct {
	src  *snippetSource
	opts snippetOptions
	// depth of the rules at work.
	depth int
	// growth is by how much a request may grow, at most, on its way through.
	growth int
	// upstreams that were allowed.
	upstreams []string
	// proxies are the reverse_proxy handlers, those of handle_errors apart.
	proxies, errProxies []map[string]any
	inErrors            bool
}

// A snippetRule checks one value of the adapted JSON. Name is the word of the
// Caddyfile that it comes from.
type snippetRule func(w *snippetWalk, name string, v any) error

// snippetMaxWalk bounds how deep the adapted JSON may be: every block makes about
// six levels.
const snippetMaxWalk = 12 * snippetMaxDepth

// walk checks the routes and error routes and gives them as plain values, without
// the site that they were adapted in.
func (w *snippetWalk) walk(routes, errRoutes json.RawMessage) (tree, errTree []any, err error) {
	if len(routes)+len(errRoutes) > snippetMaxJSON {
		return nil, nil, &snippetError{Reason: fmt.Sprintf("would become %d bytes of configuration, the most is %d", len(routes)+len(errRoutes), snippetMaxJSON), Hint: "shorten it"}
	}
	if tree, err = w.siteRoutes(routes); err != nil {
		return nil, nil, err
	}
	if len(errRoutes) == 0 {
		return tree, nil, nil
	}
	var errs map[string]json.RawMessage
	if err := json.Unmarshal(errRoutes, &errs); err != nil {
		return nil, nil, fmt.Errorf("read adapted error routes: %w", err)
	}
	for key := range errs {
		if key != "routes" {
			return nil, nil, w.unknown("handle_errors", key)
		}
	}
	w.inErrors = true
	errTree, err = w.siteRoutes(errs["routes"])
	return tree, errTree, err
}

// siteRoutes unwraps and checks the routes of the one site.
func (w *snippetWalk) siteRoutes(raw json.RawMessage) ([]any, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var sites []any
	if err := dec.Decode(&sites); err != nil {
		return nil, fmt.Errorf("read adapted routes: %w", err)
	}
	routes, err := unwrapSite(sites)
	if err != nil {
		return nil, err
	}
	if err := w.texts(routes); err != nil {
		return nil, err
	}
	return routes, checkRoutes(w, "", routes)
}

// unwrapSite takes the routes out of {match host, handle [subroute], terminal},
// which is what Caddy makes of a site block.
func unwrapSite(sites []any) ([]any, error) {
	odd := &snippetError{Reason: "did not become exactly one site", Hint: "write only the directives of one site block"}
	if len(sites) != 1 {
		return nil, odd
	}
	site, _ := sites[0].(map[string]any)
	if site == nil || site["match"] == nil || site["terminal"] != true {
		return nil, odd
	}
	if site["handle"] == nil {
		return nil, nil // no directive at all
	}
	handle, _ := site["handle"].([]any)
	if len(handle) != 1 {
		return nil, odd
	}
	sub, _ := handle[0].(map[string]any)
	if sub == nil || sub["handler"] != "subroute" || sub["errors"] != nil {
		return nil, odd
	}
	routes, _ := sub["routes"].([]any)
	return routes, nil
}

// texts checks every text of v, keys included, whatever it is for.
func (w *snippetWalk) texts(v any) error {
	switch v := v.(type) {
	case string:
		if bad := checkPlaceholders(v, w.src.mapped, false); bad != nil {
			bad.Line = w.src.lineOf(v)
			return bad
		}
	case []any:
		for _, e := range v {
			if err := w.texts(e); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if err := w.texts(key); err != nil {
				return err
			}
			if err := w.texts(v[key]); err != nil {
				return err
			}
		}
	}
	return nil
}

// refuse makes the error for a value; its line is that of the first word found.
func (w *snippetWalk) refuse(what, reason, hint string, words ...string) error {
	return &snippetError{Line: w.src.lineOf(words...), What: what, Reason: reason, Hint: hint}
}

func (w *snippetWalk) unknown(name, key string) error {
	return w.refuse(name+" setting "+strconv.Quote(key), "is not one that snippets may use", "remove it", key, name)
}

func (w *snippetWalk) wrongType(name string) error {
	return w.refuse(name, "is not of the expected kind", "see Caddy's documentation of "+name, name)
}

// Rules for single values.

func anyText(w *snippetWalk, name string, v any) error {
	switch v.(type) {
	case string, json.Number:
		return nil
	}
	return w.wrongType(name)
}

// anyScalar is a text, a number, true, false or nothing.
func anyScalar(w *snippetWalk, name string, v any) error {
	switch v.(type) {
	case nil, bool, string, json.Number:
		return nil
	}
	return w.wrongType(name)
}

func anyBool(w *snippetWalk, name string, v any) error {
	if _, ok := v.(bool); !ok {
		return w.wrongType(name)
	}
	return nil
}

// oneOf allows some words.
func oneOf(words ...string) snippetRule {
	return func(w *snippetWalk, name string, v any) error {
		if s, ok := v.(string); ok && slices.Contains(words, s) {
			return nil
		}
		text := fmt.Sprint(v)
		return w.refuse(name+" "+quoteText(text), "is not one that snippets may use", "use one of "+strings.Join(words, ", "), text, name)
	}
}

// numberOf allows whole numbers of a range.
func numberOf(word string, low, high int64) snippetRule {
	return func(w *snippetWalk, _ string, v any) error {
		n, ok := v.(json.Number)
		if !ok {
			return w.wrongType(word)
		}
		i, err := n.Int64()
		if err != nil || i < low || i > high {
			text := n.String()
			if text == "-1" && high == snippetMaxBuffer {
				text = "unlimited" // what Caddy makes -1 of
			}
			return w.refuse(word, text+" is out of range", fmt.Sprintf("use %d to %d", low, high), word)
		}
		return nil
	}
}

// durationOf allows durations of a range, and zero, which is the default.
func durationOf(word string, low, high time.Duration) snippetRule {
	return func(w *snippetWalk, _ string, v any) error {
		n, ok := v.(json.Number)
		if !ok {
			return w.wrongType(word)
		}
		i, err := n.Int64()
		d := time.Duration(i)
		if err != nil || d != 0 && (d < low || d > high) {
			return w.refuse(word, d.String()+" is out of range", fmt.Sprintf("use %v to %v", low, high), word)
		}
		return nil
	}
}

// asWord gives a value the word that it has in the Caddyfile.
func asWord(word string, r snippetRule) snippetRule {
	return func(w *snippetWalk, _ string, v any) error { return r(w, word, v) }
}

// Rules for what holds others.

func listOf(r snippetRule) snippetRule {
	return func(w *snippetWalk, name string, v any) error {
		if v == nil {
			return nil
		}
		list, ok := v.([]any)
		if !ok {
			return w.wrongType(name)
		}
		for _, e := range list {
			if err := w.apply(r, name, e); err != nil {
				return err
			}
		}
		return nil
	}
}

// mapOf checks the values of an object whose keys the author chose.
func mapOf(r snippetRule) snippetRule {
	return func(w *snippetWalk, name string, v any) error {
		if v == nil {
			return nil
		}
		m, ok := v.(map[string]any)
		if !ok {
			return w.wrongType(name)
		}
		for _, key := range slices.Sorted(maps.Keys(m)) {
			if err := w.apply(r, name, m[key]); err != nil {
				return err
			}
		}
		return nil
	}
}

type snippetFields map[string]snippetRule

// fieldsOf checks an object whose keys are Caddy's. An unknown one is refused: a
// later Caddy may do anything with it.
func fieldsOf(fields snippetFields) snippetRule {
	return func(w *snippetWalk, name string, v any) error {
		if v == nil {
			return nil
		}
		m, ok := v.(map[string]any)
		if !ok {
			return w.wrongType(name)
		}
		for _, key := range slices.Sorted(maps.Keys(m)) {
			rule, ok := fields[key]
			if !ok {
				return w.unknown(name, key)
			}
			word := name
			if word == "" {
				word = key
			}
			if err := w.apply(rule, word, m[key]); err != nil {
				return err
			}
		}
		return nil
	}
}

// moduleOf checks an object that names its module under key.
func moduleOf(key, kind string, modules func(name string) snippetRule) snippetRule {
	return func(w *snippetWalk, name string, v any) error {
		m, ok := v.(map[string]any)
		if !ok {
			return w.wrongType(name)
		}
		id, _ := m[key].(string)
		rule := modules(id)
		if rule == nil {
			return w.refuse(kind+" "+quoteText(id), "is not one that snippets may use", "remove it", id, name)
		}
		rest := maps.Clone(m)
		delete(rest, key)
		return w.apply(rule, id, rest)
	}
}

// apply runs a rule one level deeper.
func (w *snippetWalk) apply(r snippetRule, name string, v any) error {
	w.depth++
	defer func() { w.depth-- }()
	if w.depth > snippetMaxWalk {
		return w.refuse(name, "is nested too deep", "use fewer blocks within blocks", name)
	}
	return r(w, name, v)
}
