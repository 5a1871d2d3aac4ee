package discovery

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
)

// IsZero reports whether m is no condition at all. Exact counts as none: it is
// part of the path.
func (m Match) IsZero() bool {
	return len(m.Methods) == 0 && len(m.Headers) == 0 && len(m.Query) == 0 &&
		len(m.ClientIP) == 0 && m.HostRegexp == "" && m.PathRegexp == "" && !m.Exact
}

// Conditions is how many conditions m has, to order rules by.
func (m Match) Conditions() int {
	n := len(m.Headers) + len(m.Query)
	for _, b := range []bool{len(m.Methods) > 0, len(m.ClientIP) > 0, m.HostRegexp != "", m.PathRegexp != ""} {
		if b {
			n++
		}
	}
	return n
}

// Compile turns m into a function of a request; nil stands for no condition.
// client gives the client's address as the server trusts it. The error names the
// expression that does not compile.
func (m Match) Compile(client func(*http.Request) netip.Addr) (func(*http.Request) bool, error) {
	var all []func(*http.Request) bool
	if len(m.Methods) > 0 {
		methods := slices.Clone(m.Methods)
		all = append(all, func(r *http.Request) bool { return slices.Contains(methods, r.Method) })
	}
	for _, k := range m.Headers {
		one, err := k.compile()
		if err != nil {
			return nil, fmt.Errorf("header %q: %w", k.Key, err)
		}
		key := http.CanonicalHeaderKey(k.Key)
		if key == "Host" { // net/http keeps it apart
			all = append(all, func(r *http.Request) bool { return one([]string{r.Host}) })
			continue
		}
		all = append(all, func(r *http.Request) bool { return one(r.Header[key]) })
	}
	if len(m.Query) > 0 {
		ones := make([]func([]string) bool, len(m.Query))
		for i, k := range m.Query {
			one, err := k.compile()
			if err != nil {
				return nil, fmt.Errorf("query parameter %q: %w", k.Key, err)
			}
			ones[i] = one
		}
		keys := slices.Clone(m.Query)
		all = append(all, func(r *http.Request) bool {
			q, err := url.ParseQuery(r.URL.RawQuery)
			if err != nil {
				return false
			}
			for i, k := range keys {
				if !ones[i](q[k.Key]) {
					return false
				}
			}
			return true
		})
	}
	if len(m.ClientIP) > 0 {
		prefixes := slices.Clone(m.ClientIP)
		all = append(all, func(r *http.Request) bool {
			addr := client(r).Unmap().WithZone("")
			return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
		})
	}
	for _, e := range []struct {
		what, expr string
		of         func(*http.Request) string
	}{
		{"host", m.HostRegexp, func(r *http.Request) string { return RequestHost(r) }},
		{"path", m.PathRegexp, func(r *http.Request) string { return r.URL.Path }},
	} {
		if e.expr == "" {
			continue
		}
		re, err := regexp.Compile(e.expr)
		if err != nil {
			return nil, fmt.Errorf("%s expression %q: %w", e.what, e.expr, err)
		}
		all = append(all, func(r *http.Request) bool { return re.MatchString(e.of(r)) })
	}
	switch len(all) {
	case 0:
		return nil, nil
	case 1:
		return all[0], nil
	}
	return func(r *http.Request) bool {
		for _, f := range all {
			if !f(r) {
				return false
			}
		}
		return true
	}, nil
}

func (k KeyMatch) compile() (func([]string) bool, error) {
	if len(k.Values) == 0 {
		return func(got []string) bool { return len(got) > 0 }, nil
	}
	if !k.Regexp {
		want := slices.Clone(k.Values)
		return func(got []string) bool {
			return slices.ContainsFunc(got, func(g string) bool { return slices.Contains(want, g) })
		}, nil
	}
	res := make([]*regexp.Regexp, len(k.Values))
	for i, v := range k.Values {
		re, err := regexp.Compile(v)
		if err != nil {
			return nil, fmt.Errorf("expression %q: %w", v, err)
		}
		res[i] = re
	}
	return func(got []string) bool {
		return slices.ContainsFunc(got, func(g string) bool {
			return slices.ContainsFunc(res, func(re *regexp.Regexp) bool { return re.MatchString(g) })
		})
	}, nil
}
