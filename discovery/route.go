package discovery

import (
	"net/netip"
	"time"
)

// Route is what an object asks for: hosts and paths, and how requests for them
// are handled. A dialect fills everything but Endpoints; the source adds those.
// The zero value of each field means its default.
type Route struct {
	// Name tells the routes of one object apart; "" is the default route.
	Name string `json:"name,omitempty"`
	// Dialect is the name of the dialect that made the route.
	Dialect string `json:"dialect,omitempty"`
	// Hosts are lower-case ASCII host names (IDNs as xn--), without port or final
	// dot. "*.example.com" stands for one further label, "*" for any host.
	Hosts []string `json:"hosts"`
	// Paths are prefixes by segment: "/api" covers "/api" and "/api/x", not
	// "/apix". Case-sensitive. Empty means "/".
	Paths []string `json:"paths,omitempty"`
	// Match narrows the route further. Default: no condition.
	Match Match `json:"match,omitzero"`
	// Priority orders routes of the same host and path, higher first. Default:
	// 0, then the more specific match wins.
	Priority int `json:"priority,omitempty"`
	// StripPath takes the matched prefix off before the request is passed on.
	StripPath bool `json:"strip_path,omitempty"`
	// Scheme is how the backend is spoken to: http, https or h2c. Default: http.
	Scheme string `json:"scheme,omitempty"`
	// Port is the container port asked for; 0 means that the dialect left the
	// choice to the source.
	Port int `json:"port,omitempty"`
	// Network is the network to reach the backend by. Default: one that we share.
	Network string `json:"network,omitempty"`
	// TLS is auto, internal, off or an issuer's name. Default: auto.
	TLS string `json:"tls,omitempty"`
	// Access says who may use the route. Default: everybody.
	Access Access `json:"access,omitzero"`
	// DNS is public, private, both or none. Default: the operator's zones decide.
	DNS string `json:"dns,omitempty"`
	// Caddyfile holds the directives of a site block, untrusted.
	Caddyfile string `json:"caddyfile,omitempty"`
	// Middleware is applied in order, before the backend.
	Middleware []Middleware `json:"middleware,omitempty"`
	// Hold is how long a request waits for a backend that is starting. Negative
	// means not at all. Default: 0, the operator's setting.
	Hold time.Duration `json:"hold,omitempty"`
	// SplitHost lets objects of different projects share one host by path, as
	// label-only Traefik stacks do, when every one of them sets it.
	SplitHost bool `json:"split_host,omitempty"`

	// Endpoints are the addresses of this object for the route.
	Endpoints []Endpoint `json:"-"`
}

// Match holds the conditions of a route beside host and path. All must hold; an
// empty field is no condition.
type Match struct {
	// Methods are HTTP methods, upper case; one of them must be the request's.
	Methods []string `json:"methods,omitempty"`
	// Headers must all be present with one of the values.
	Headers []KeyMatch `json:"headers,omitempty"`
	// Query parameters must all be present with one of the values.
	Query []KeyMatch `json:"query,omitempty"`
	// ClientIP is a list of prefixes; the client's address must be in one.
	ClientIP []netip.Prefix `json:"client_ip,omitempty"`
	// Exact makes Paths match the whole path instead of a prefix.
	Exact bool `json:"exact,omitempty"`
	// HostRegexp and PathRegexp are RE2 expressions.
	HostRegexp string `json:"host_regexp,omitempty"`
	PathRegexp string `json:"path_regexp,omitempty"`
}

// KeyMatch is a condition on a header or a query parameter.
type KeyMatch struct {
	Key string `json:"key"`
	// Values are alternatives; empty means that presence is enough.
	Values []string `json:"values,omitempty"`
	// Regexp makes the values RE2 expressions.
	Regexp bool `json:"regexp,omitempty"`
}

// Middleware is one step between request and backend, named as the dialect's
// documentation names it, with its options as text.
type Middleware struct {
	Kind    string            `json:"kind"`
	Options map[string]string `json:"options,omitempty"`
}

// Access says which clients may use a route. The zero value lets everybody in.
type Access struct {
	// Private admits loopback, private, link-local and unique local addresses.
	Private bool `json:"private,omitempty"`
	// Prefixes admits these as well.
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
}

// Public reports whether everybody is let in.
func (a Access) Public() bool { return !a.Private && len(a.Prefixes) == 0 }

// Allows reports whether a client at addr may use the route. An invalid address
// is let in only where everybody is.
func (a Access) Allows(addr netip.Addr) bool {
	if a.Public() {
		return true
	}
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() {
		return false
	}
	if a.Private && (addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast()) {
		return true
	}
	for _, p := range a.Prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// Endpoint is where one object may serve one route.
type Endpoint struct {
	// Candidates are host:port addresses in order of preference; the first that
	// answers a TCP connect is used.
	Candidates []Candidate `json:"candidates,omitempty"`
	// Verified says that the source itself knows the endpoint to be ready (a
	// Kubernetes EndpointSlice): it is not probed.
	Verified bool `json:"verified,omitempty"`
	// Problem says, where there is no candidate, why and what to do.
	Problem string `json:"problem,omitempty"`
}

// Candidate is one address and the reason for it.
type Candidate struct {
	Address string `json:"address"`
	// Reason completes the sentence "chosen because …": "network \"web\" is shared
	// with this container".
	Reason string `json:"reason"`
}

// Problem is a label, or a combination of labels, that could not be used. It
// concerns one route of one object only.
type Problem struct {
	// Route is the name of the route concerned ("" is the default route).
	Route string `json:"route"`
	// Label is the full key, Value what it holds.
	Label string `json:"label,omitempty"`
	Value string `json:"value,omitempty"`
	// Reason says what is wrong; Hint what to write instead ("" if unknown).
	Reason string `json:"reason"`
	Hint   string `json:"hint,omitempty"`
}

// Error gives the problem as one line.
func (p Problem) Error() string {
	s := p.Reason
	if p.Label != "" {
		s = "label " + printable(p.Label) + "=" + quoteShort(p.Value) + ": " + s
	}
	if p.Hint != "" {
		s += " (" + p.Hint + ")"
	}
	return s
}
