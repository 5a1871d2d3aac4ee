package caddymodule

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// finishSnippet makes bare proxies mean the container, adds the proxy that
// follows, and encodes the routes. It changes nothing but proxies without an
// address, so what was checked stays checked.
func finishSnippet(tree, errTree []any, w *snippetWalk, opts snippetOptions) (*snippetResult, error) {
	if err := checkScheme(opts.Scheme); err != nil {
		return nil, err
	}
	res := &snippetResult{Upstreams: sortedSet(w.upstreams)}
	for _, h := range slices.Concat(w.proxies, w.errProxies) {
		switch {
		case isBareProxy(h):
			containerProxy(h, opts)
			res.UsesContainer = true
		case isFastCGI(h):
			return nil, w.refuse("transport fastcgi", "could run scripts on another machine", "use it with reverse_proxy without an address", "fastcgi")
		}
	}
	// A proxy that hands the request on after all, like forward_auth, does not answer.
	answers := slices.ContainsFunc(w.proxies, func(h map[string]any) bool { return isContainerProxy(h, opts) && handlerEnds(h) })
	res.EndsItself = answers || routesEnd(tree)
	if !res.EndsItself {
		proxy := map[string]any{"handler": "reverse_proxy"}
		containerProxy(proxy, opts)
		tree = append(tree, map[string]any{"handle": []any{proxy}})
		res.UsesContainer = true
	}
	var err error
	if res.Routes, err = encodeRoutes(tree); err != nil {
		return nil, err
	}
	if len(errTree) > 0 {
		routes, err := encodeRoutes(errTree)
		if err != nil {
			return nil, err
		}
		res.Errors = &caddyhttp.HTTPErrorConfig{Routes: routes}
	}
	return res, nil
}

func encodeRoutes(tree []any) (caddyhttp.RouteList, error) {
	b, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("encode snippet: %w", err)
	}
	var routes caddyhttp.RouteList
	if err := json.Unmarshal(b, &routes); err != nil {
		return nil, fmt.Errorf("encode snippet: %w", err)
	}
	return routes, nil
}

// routesEnd reports whether every request that enters the routes is answered by
// them. It says so only where it is sure.
func routesEnd(routes []any) bool {
	// Of the routes of one group only the first that matches runs. A group answers
	// everything if all its routes answer, up to one that matches everything.
	groups := make(map[string]bool)
	for _, r := range routes {
		route, _ := r.(map[string]any)
		handlers, _ := route["handle"].([]any)
		ends := handlersEnd(handlers)
		if group, _ := route["group"].(string); group != "" {
			before, seen := groups[group]
			groups[group] = ends && (before || !seen)
			ends = groups[group]
		}
		if ends && route["match"] == nil {
			return true
		}
	}
	return false
}

func handlersEnd(handlers []any) bool {
	for _, h := range handlers {
		m, _ := h.(map[string]any)
		if handlerEnds(m) {
			return true
		}
	}
	return false
}

// handlerEnds reports whether a handler answers every request.
func handlerEnds(h map[string]any) bool {
	switch h["handler"] {
	case "error", "copy_response":
		return true
	case "static_response":
		code := fmt.Sprint(h["status_code"])
		// 103 is a hint that goes ahead of the answer.
		return h["abort"] == true || !strings.Contains(code, "{") && code != "103"
	case "subroute":
		routes, _ := h["routes"].([]any)
		return routesEnd(routes)
	case "reverse_proxy":
		responses, _ := h["handle_response"].([]any)
		for _, r := range responses {
			resp, _ := r.(map[string]any)
			routes, _ := resp["routes"].([]any)
			if len(routes) > 0 && !routesEnd(routes) {
				return false
			}
		}
		return true
	}
	return false
}
