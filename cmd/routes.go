package dentropycmd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// redirect puts our handler, the redirects of static sites and the final 404 into
// a server that speaks http on our port.
func (m *merger) redirect(srv obj) {
	routes, _ := srv["routes"].(list)
	exact, wild, catchAll := splitRoutes(routes)
	byPort := map[int][2]list{} // exact names, wildcards
	for _, name := range slices.Sorted(maps.Keys(m.static.redirects)) {
		port := m.static.redirects[name]
		names := byPort[port]
		which := 0
		if inexact(name) {
			which = 1
		}
		names[which] = append(names[which], name)
		byPort[port] = names
	}
	for _, port := range slices.Sorted(maps.Keys(byPort)) {
		if names := byPort[port][0]; len(names) > 0 {
			exact = append(exact, redirectTo(port, names))
		}
	}
	for _, port := range slices.Sorted(maps.Keys(byPort)) {
		if names := byPort[port][1]; len(names) > 0 {
			wild = append(wild, redirectTo(port, names))
		}
	}
	last := end(catchAll)
	if m.static.anyRedirect {
		last = list{redirectTo(m.o.HTTPSPort, nil)}
	}
	ours := handle(obj{"handler": "dentropy", "redirect": true, "https_port": m.o.HTTPSPort})
	srv["routes"] = slices.Concat(exact, list{ours}, wild, catchAll, last)
}

// redirectTo leads the names (nil: all) to https. The method stays the same and
// the connection ends, since the next request goes elsewhere.
func redirectTo(port int, names list) obj {
	to := "https://{http.request.host}"
	if port != defaultHTTPSPort {
		to += ":" + strconv.Itoa(port)
	}
	r := handle(obj{
		"handler": "static_response", "status_code": 308, "close": true,
		"headers": obj{"Location": list{to + "{http.request.uri}"}},
	})
	if len(names) > 0 {
		r["match"] = list{obj{"host": names}}
	}
	r["terminal"] = true
	return r
}

// end is what follows the last route: without it Caddy answers 200 with nothing. A
// catch-all of the file's own decides for itself.
func end(catchAll list) list {
	if len(catchAll) > 0 {
		return nil
	}
	return list{handle(obj{"handler": "static_response", "status_code": 404})}
}

func handle(h obj) obj { return obj{"handle": list{h}} }

// splitRoutes parts the routes for exact names from those for wildcards, and both
// from what begins with the first route for any host: that may be a middleware, and
// nothing is moved across it. A Caddyfile's catch-all is last in any case.
func splitRoutes(routes list) (exact, wild, any list) {
	for i, r := range routes {
		switch {
		case !allHosted(r):
			return exact, wild, routes[i:]
		case slices.ContainsFunc(hosts(r), inexact):
			wild = append(wild, r)
		default:
			exact = append(exact, r)
		}
	}
	return exact, wild, nil
}

func inexact(name string) bool { return strings.ContainsAny(name, "*{") }

// hosts gives all names that a route's matchers mention.
func hosts(route any) []string {
	var out []string
	r, _ := route.(obj)
	sets, _ := r["match"].(list)
	for _, set := range sets {
		set, _ := set.(obj)
		out = append(out, texts(set["host"])...)
	}
	return out
}

// allHosted reports whether a route is for named hosts in every case.
func allHosted(route any) bool {
	r, _ := route.(obj)
	sets, _ := r["match"].(list)
	return len(sets) > 0 && !slices.ContainsFunc(sets, func(set any) bool {
		s, _ := set.(obj)
		return len(texts(s["host"])) == 0
	})
}

func texts(v any) []string {
	l, _ := v.(list)
	var out []string
	for _, e := range l {
		out = append(out, fmt.Sprint(e))
	}
	return out
}

func number(v any) int {
	n, ok := v.(json.Number)
	if !ok {
		return 0
	}
	i, err := n.Int64()
	if err != nil {
		return 0
	}
	return int(i)
}

// decode keeps numbers as they are written.
func decode(raw []byte) (obj, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var o obj
	if err := d.Decode(&o); err != nil {
		return nil, fmt.Errorf("decode configuration: %w", err)
	}
	return o, nil
}

// freeName gives name, with a number where servers has it already.
func freeName(servers obj, name string) string {
	free := name
	for n := 2; servers[free] != nil; n++ {
		free = name + strconv.Itoa(n)
	}
	return free
}
