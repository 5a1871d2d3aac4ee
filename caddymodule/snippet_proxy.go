package caddymodule

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// snippetPolicies are the load balancing policies that snippets may use.
var snippetPolicies = map[string]snippetFields{
	"client_ip_hash": {}, "first": {}, "ip_hash": {}, "least_conn": {}, "random": {}, "round_robin": {}, "uri_hash": {},
	"cookie":               {"name": anyText, "secret": anyText, "max_age": durationOf("max_age", 0, snippetMaxDuration), "fallback": lbPolicy},
	"header":               {"field": anyText, "fallback": lbPolicy},
	"query":                {"key": anyText, "fallback": lbPolicy},
	"random_choose":        {"choose": numberOf("random_choose", 2, 100)},
	"weighted_round_robin": {"weights": listOf(numberOf("weighted_round_robin", 0, 1000))},
}

const snippetMaxDuration = 365 * 24 * time.Hour

// snippetPolicyRules is snippetPolicies, which holds references to itself.
var snippetPolicyRules map[string]snippetFields

func init() { snippetPolicyRules = snippetPolicies }

// lbPolicy checks a load balancing policy.
func lbPolicy(w *snippetWalk, name string, v any) error {
	return moduleOf("policy", "lb_policy", func(id string) snippetRule {
		fields, ok := snippetPolicyRules[id]
		if !ok {
			return nil
		}
		return fieldsOf(fields)
	})(w, name, v)
}

// Times a proxy may wait or remember, and how often it may check.
const (
	snippetMaxWait      = 5 * time.Minute
	snippetMinInterval  = time.Second
	snippetMinRetryWait = 10 * time.Millisecond
)

// reverseProxy checks a reverse_proxy handler. Those without an upstream are made
// to mean the container later (see finishSnippet).
func reverseProxy(w *snippetWalk, name string, v any) error {
	size := func(word string) snippetRule { return numberOf(word, 0, snippetMaxBuffer) }
	err := fieldsOf(snippetFields{
		"upstreams":          listOf(fieldsOf(snippetFields{"dial": upstreamAddress})),
		"dynamic_upstreams":  moduleOf("source", "dynamic", dynamicSource),
		"transport":          moduleOf("protocol", "transport", transportRule),
		"load_balancing":     loadBalancing(),
		"health_checks":      fieldsOf(snippetFields{"active": activeChecks(), "passive": passiveChecks()}),
		"flush_interval":     durationOf("flush_interval", -1, time.Hour),
		"trusted_proxies":    listOf(anyText),
		"headers":            asWord("header", headersRule()),
		"request_buffers":    size("request_buffers"),
		"response_buffers":   size("response_buffers"),
		"stream_buffer_size": size("stream_buffer_size"),
		"stream_timeout":     durationOf("stream_timeout", time.Second, snippetMaxDuration),
		"stream_close_delay": durationOf("stream_close_delay", 0, time.Hour),
		"proxy_status_name":  anyText,
		"rewrite":            rewriteFields,
		"handle_response":    listOf(fieldsOf(snippetFields{"match": responseMatcher, "status_code": anyText, "routes": checkRoutes})),
	})(w, name, v)
	if err != nil {
		return err
	}
	m, _ := v.(map[string]any)
	return w.healthAddresses(m)
}

func loadBalancing() snippetRule {
	return fieldsOf(snippetFields{
		"selection_policy": lbPolicy,
		"retries":          numberOf("lb_retries", 0, 100),
		"try_duration":     durationOf("lb_try_duration", 0, snippetMaxWait),
		"try_interval":     durationOf("lb_try_interval", snippetMinRetryWait, snippetMaxWait),
		"retry_match":      checkMatcherSets,
	})
}

func activeChecks() snippetRule {
	return fieldsOf(snippetFields{
		"uri": anyText, "headers": mapOf(listOf(anyText)), "method": anyText, "body": anyText, "expect_body": asWord("health_body", fixedRegexp),
		"upstream": anyText, "port": numberOf("health_port", 0, 65535), // both in healthAddresses
		"interval": durationOf("health_interval", snippetMinInterval, snippetMaxDuration), "timeout": durationOf("health_timeout", time.Millisecond, snippetMaxWait),
		"passes": numberOf("health_passes", 0, 1000), "fails": numberOf("health_fails", 0, 1000), "expect_status": numberOf("health_status", 0, 999),
	})
}

func passiveChecks() snippetRule {
	return fieldsOf(snippetFields{
		// Caddy keeps a goroutine per failure for so long.
		"fail_duration": durationOf("fail_duration", 0, snippetMaxWait),
		"max_fails":     numberOf("max_fails", 0, 10000), "unhealthy_request_count": numberOf("unhealthy_request_count", 0, 1000000),
		"unhealthy_status": listOf(numberOf("unhealthy_status", 1, 999)), "unhealthy_latency": durationOf("unhealthy_latency", 0, snippetMaxDuration),
	})
}

// transportRule gives the rule for a transport.
func transportRule(id string) snippetRule {
	times := func(fields snippetFields) snippetFields {
		for _, word := range []string{"dial_timeout", "read_timeout", "write_timeout"} {
			fields[word] = durationOf(word, 0, snippetMaxDuration)
		}
		return fields
	}
	switch id {
	case "http":
		return fieldsOf(times(snippetFields{
			"tls": transportTLS(), "compression": anyBool, "max_conns_per_host": numberOf("max_conns_per_host", 0, 1000000),
			"keep_alive": fieldsOf(snippetFields{
				"enabled": anyBool, "probe_interval": durationOf("keepalive_interval", snippetMinInterval, snippetMaxDuration), "max_idle_conns": numberOf("keepalive_idle_conns", 0, 10000),
				"max_idle_conns_per_host": numberOf("keepalive_idle_conns_per_host", 0, 10000), "idle_timeout": durationOf("keepalive", 0, snippetMaxDuration),
			}),
			"proxy_protocol":           oneOf("v1", "v2"),
			"dial_fallback_delay":      durationOf("dial_fallback_delay", -snippetMaxDuration, snippetMaxDuration),
			"response_header_timeout":  durationOf("response_header_timeout", 0, snippetMaxDuration),
			"expect_continue_timeout":  durationOf("expect_continue_timeout", 0, snippetMaxDuration),
			"max_response_header_size": numberOf("max_response_header", 0, snippetMaxBuffer), "write_buffer_size": numberOf("write_buffer", 0, snippetMaxBuffer),
			"read_buffer_size": numberOf("read_buffer", 0, snippetMaxBuffer), "versions": asWord("versions", listOf(oneOf("1.1", "2", "h2c"))),
		}))
	case "fastcgi":
		fields := fieldsOf(times(snippetFields{"root": anyText, "split_path": listOf(anyText), "env": mapOf(growingText)}))
		return func(w *snippetWalk, name string, v any) error {
			m, _ := v.(map[string]any)
			if root, _ := m["root"].(string); !strings.HasPrefix(root, "/") {
				return w.refuse("transport fastcgi", "does not say where the scripts are", "add root with a full path within the container", "fastcgi")
			}
			return fields(w, name, v)
		}
	}
	return nil
}

func transportTLS() snippetRule {
	return fieldsOf(snippetFields{
		"ca": moduleOf("provider", "tls_trust_pool", func(id string) snippetRule {
			if id != "inline" {
				return nil
			}
			return fieldsOf(snippetFields{"trusted_ca_certs": listOf(anyText)})
		}),
		"insecure_skip_verify": anyBool, "handshake_timeout": durationOf("tls_timeout", 0, snippetMaxWait), "server_name": anyText,
		"renegotiation": oneOf("never", "once", "freely"), "except_ports": listOf(anyText), "curves": listOf(anyText),
	})
}

// dynamicSource gives the rule for a source of upstreams other than ours.
func dynamicSource(id string) snippetRule {
	if id != "a" {
		return nil
	}
	fields := fieldsOf(snippetFields{
		"name": anyText, "port": anyText, "refresh": durationOf("refresh", snippetMinInterval, snippetMaxDuration), "dial_timeout": durationOf("dial_timeout", 0, snippetMaxWait),
		"dial_fallback_delay": durationOf("dial_fallback_delay", -snippetMaxDuration, snippetMaxDuration), "versions": fieldsOf(snippetFields{"ipv4": anyBool, "ipv6": anyBool}),
	})
	return func(w *snippetWalk, name string, v any) error {
		if err := fields(w, name, v); err != nil {
			return err
		}
		m, _ := v.(map[string]any)
		host, _ := m["name"].(string)
		port, _ := m["port"].(string)
		return w.upstream(net.JoinHostPort(host, port), host)
	}
}

// upstreamAddress checks the address of an upstream.
func upstreamAddress(w *snippetWalk, _ string, v any) error {
	s, _ := v.(string)
	return w.upstream(s, s)
}

// healthAddresses checks where health checks go, if not to the upstreams.
func (w *snippetWalk) healthAddresses(proxy map[string]any) error {
	checks, _ := proxy["health_checks"].(map[string]any)
	active, _ := checks["active"].(map[string]any)
	if addr, ok := active["upstream"].(string); ok {
		if err := w.upstream(addr, "health_upstream", addr); err != nil {
			return err
		}
	}
	port := portNumber(active["port"])
	if port == 0 {
		return nil
	}
	ups, _ := proxy["upstreams"].([]any)
	for _, u := range ups {
		m, _ := u.(map[string]any)
		dial, _ := m["dial"].(string)
		host, _, err := net.SplitHostPort(dial)
		if err != nil {
			continue // was refused as an upstream
		}
		if err := w.upstream(net.JoinHostPort(host, strconv.Itoa(port)), "health_port"); err != nil {
			return err
		}
	}
	return nil
}

// upstream checks an address that the snippet wants dialled; words are where to
// look for its line.
func (w *snippetWalk) upstream(dial string, words ...string) error {
	what := "upstream " + quoteText(dial)
	words = append(words, strings.TrimSuffix(dial, ":80"), strings.TrimSuffix(dial, ":443"), "reverse_proxy")
	no := func(reason, hint string) error { return w.refuse(what, reason, hint, words...) }
	const container = "write reverse_proxy without an address for the container"
	switch {
	case strings.ContainsAny(dial, "{}"):
		return no("placeholders could make it any address", container)
	case strings.Contains(dial, "/"):
		return no("is not a plain host:port; sockets and files of the proxy's machine are not for snippets", container)
	}
	host, port, err := net.SplitHostPort(dial)
	if err != nil || portNumber(port) == 0 {
		return no("is not host:port with a port from 1 to 65535", container)
	}
	if host == "" {
		return no("without a host is the proxy's own machine", container)
	}
	addr, ipErr := netip.ParseAddr(host)
	switch {
	case ipErr == nil && addr.Zone() != "":
		return no("is bound to an interface of the proxy's machine", container)
	case ipErr == nil:
		addr = addr.Unmap()
		host = addr.String()
		if reason := foreverRefused(addr); reason != "" {
			return no(reason, container)
		}
	case !hostWord(host):
		return no("is not a host name", container)
	}
	clean := net.JoinHostPort(strings.ToLower(host), strconv.Itoa(portNumber(port)))
	if w.opts.AllowUpstream == nil {
		return no("is not the container of this route", "the operator can allow it: allow_upstreams "+clean+"; "+container)
	}
	if err := w.opts.AllowUpstream(clean); err != nil {
		return no(err.Error(), container)
	}
	w.upstreams = append(w.upstreams, clean)
	return nil
}

// foreverRefused says why an address is never an upstream, "" if it may be one.
func foreverRefused(addr netip.Addr) string {
	switch {
	case addr.IsLinkLocalUnicast(), addr == netip.MustParseAddr("fd00:ec2::254"):
		return "is a link-local address, where clouds keep credentials"
	case addr.IsUnspecified():
		return "is the proxy's own machine"
	case addr.IsMulticast():
		return "is a multicast address"
	}
	return ""
}

// hostWord reports whether host is a DNS name. A last label of digits only would
// be read as an IPv4 address by some resolvers (2130706433, 127.1, 0x7f.1).
func hostWord(host string) bool {
	if len(host) > 253 {
		return false
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	for _, label := range labels {
		if label == "" || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	last := strings.ToLower(labels[len(labels)-1])
	_, err := strconv.ParseUint(last, 0, 64)
	return err != nil && !isDigits(last)
}

// containerProxy makes a proxy that has no upstream mean the route's container.
func containerProxy(proxy map[string]any, opts snippetOptions) {
	proxy["dynamic_upstreams"] = map[string]any{"source": opts.KeepUpstreamModule}
	if proxy["transport"] != nil {
		return
	}
	switch opts.Scheme {
	case "https":
		// Containers have certificates of their own making.
		proxy["transport"] = map[string]any{"protocol": "http", "tls": map[string]any{"insecure_skip_verify": true}}
		keepHost(proxy)
	case "h2c":
		proxy["transport"] = map[string]any{"protocol": "http", "versions": []any{"h2c", "2"}}
	}
}

// keepHost lets the container see the host that was asked for, which Caddy would
// replace by the container's address because of TLS. What the snippet says itself
// about the header stands.
func keepHost(proxy map[string]any) {
	at := proxy
	for _, key := range []string{"headers", "request", "set"} {
		next, ok := at[key].(map[string]any)
		if !ok {
			next = map[string]any{}
			at[key] = next
		}
		at = next
	}
	if _, ok := at["Host"]; !ok {
		at["Host"] = []any{"{http.request.hostport}"}
	}
}

// isBareProxy reports whether a reverse_proxy handler is one without an address.
func isBareProxy(h map[string]any) bool {
	ups, _ := h["upstreams"].([]any)
	return len(ups) == 0 && h["dynamic_upstreams"] == nil
}

// isContainerProxy reports whether containerProxy made h what it is.
func isContainerProxy(h map[string]any, opts snippetOptions) bool {
	src, _ := h["dynamic_upstreams"].(map[string]any)
	return src["source"] == opts.KeepUpstreamModule
}

// isFastCGI reports whether a proxy speaks FastCGI.
func isFastCGI(h map[string]any) bool {
	t, _ := h["transport"].(map[string]any)
	return t["protocol"] == "fastcgi"
}

// checkScheme refuses a scheme that no route has.
func checkScheme(scheme string) error {
	if !slices.Contains([]string{"", "http", "https", "h2c"}, scheme) {
		return fmt.Errorf("adapt snippet: unknown scheme %q", scheme)
	}
	return nil
}
