package discovery

import (
	"net/http"
	"strings"
)

// RequestHost gives the host of a request as the table knows it: lower case,
// without port, brackets or final dot. It does not allocate for the usual host.
func RequestHost(r *http.Request) string {
	h := r.Host
	if strings.HasPrefix(h, "[") { // [::1]:8443
		if i := strings.IndexByte(h, ']'); i > 0 {
			return strings.ToLower(h[1:i])
		}
	}
	if i := strings.LastIndexByte(h, ':'); i >= 0 && strings.IndexByte(h, ':') == i {
		h = h[:i] // one colon: a port; several: a bare IPv6 address
	}
	return strings.ToLower(strings.TrimSuffix(h, "."))
}

// HostMatches reports whether host is covered by pattern: itself, "*.domain" for
// any depth below domain, or "*".
func HostMatches(pattern, host string) bool {
	if pattern == "*" || pattern == host {
		return true
	}
	rest, ok := strings.CutPrefix(pattern, "*")
	return ok && strings.HasPrefix(rest, ".") && len(host) > len(rest) && strings.HasSuffix(host, rest)
}
