package caddymodule

import (
	"maps"
	"slices"
)

// The tables of this file say what a snippet may hold. What is in none of them
// is refused. docs/snippets.md is generated from them (see TestSnippetDocs).

// snippetRefusal says why something well known is refused and what to use.
type snippetRefusal struct {
	why     string
	instead string
}

func (r snippetRefusal) at(line int, what string) error {
	return &snippetError{Line: line, What: what, Reason: r.why, Hint: r.instead}
}

// How the block of a directive is read.
type blockKind int

const (
	blockOfOptions    blockKind = iota // checked in the adapted JSON alone
	blockOfDirectives                  // holds directives
	blockOfProxy                       // holds the options of reverse_proxy
)

// snippetDirective is a directive that snippets may use.
type snippetDirective struct {
	// about is what it is for, in a few words.
	about string
	block blockKind
	// options beside those of reverse_proxy.
	options []string
	// only is the block that it works in; "" is anywhere.
	only string
}

var snippetDirectives = map[string]snippetDirective{
	"abort":                 {about: "cuts the connection"},
	"basic_auth":            {about: "asks for a password (bcrypt up to cost 14, argon2id up to 64 MiB)"},
	"copy_response":         {about: "passes the container's answer on", only: "handle_response"},
	"copy_response_headers": {about: "passes headers of the container's answer on", only: "handle_response"},
	"encode":                {about: "compresses with zstd or gzip"},
	"error":                 {about: "hands an error to handle_errors"},
	"forward_auth":          {about: "asks an auth server first; without an address it asks the container", block: blockOfProxy, options: []string{"uri", "copy_headers"}},
	"handle":                {about: "first match wins", block: blockOfDirectives},
	"handle_errors":         {about: "answers errors", block: blockOfDirectives},
	"handle_path":           {about: "handle and strip the prefix", block: blockOfDirectives},
	"header":                {about: "changes response headers"},
	"map":                   {about: "sets placeholders by a table; its values may use request placeholders only"},
	"method":                {about: "changes the method"},
	"redir":                 {about: "redirects"},
	"request_body":          {about: "limits or sets the request body"},
	"request_header":        {about: "changes request headers"},
	"respond":               {about: "answers with a text"},
	"reverse_proxy":         {about: "without an address: the container itself", block: blockOfProxy},
	"rewrite":               {about: "changes path and query"},
	"route":                 {about: "keeps the written order", block: blockOfDirectives},
	"timeouts":              {about: "limits how long a client may stall"},
	"uri":                   {about: "changes parts of path and query"},
	"vars":                  {about: "sets variables; names are plain words and not Caddy's own"},
}

var snippetRefusedDirectives = map[string]snippetRefusal{
	"acme_server": {"would make this route a certificate authority", "ask the operator to run it in the Caddyfile"},
	"basicauth":   {"is the old name", "use basic_auth"},
	"bind":        {"listeners belong to the operator", "remove it; the route is served where the proxy listens"},
	"dentropy":    {"would route the request once more", "remove it"},
	"file_server": {"would serve files of the proxy's machine", "serve the files from a container"},
	"fs":          {"file systems belong to the operator", "serve the files from a container"},
	"import":      {"would read files of the proxy's machine", "write the directives out"},
	"intercept":   {"keeps whole responses in memory, however large", "use handle_response or replace_status within reverse_proxy"},
	"invoke":      {"named routes belong to the operator's Caddyfile", "write the directives out"},
	"log":         {"log files and outputs belong to the operator", "read the access log that the operator keeps"},
	"log_append":  {"the access log belongs to the operator", "send a response header, or log in the container"},
	"log_level":   {"the access log belongs to the operator", "ask the operator"},
	"log_name":    {"would write into the access log of other sites", "ask the operator"},
	"log_skip":    {"would hide requests from the operator's access log", "ask the operator"},
	"metrics":     {"would show the metrics of every site", "let the operator serve /metrics"},
	"php_fastcgi": {"looks for scripts on the proxy's own disk", `use reverse_proxy with "transport fastcgi { root /path/in/the/container; split .php }"`},
	"push":        {"browsers no longer take HTTP/2 push", `use header Link "</style.css>; rel=preload"`},
	"root":        {"names a folder of the proxy's machine", "serve the files from a container"},
	"skip_log":    {"would hide requests from the operator's access log", "ask the operator"},
	"templates":   {"can read files and the environment of the proxy", "render the page in a container"},
	"tls":         {"certificates are not a matter of the snippet", "use the label dentropy.tls"},
	"tracing":     {"exporters belong to the operator", "ask the operator"},
	"try_files":   {"looks at the proxy's own disk", "use rewrite, or let the container decide"},
}

// snippetMatcherNames are the matchers that snippets may use; "not" comes with
// any of them.
var snippetMatcherNames = []string{
	"client_ip", "header", "header_regexp", "host", "method", "not", "path", "path_regexp",
	"protocol", "query", "remote_ip", "vars", "vars_regexp",
}

var snippetRefusedMatchers = map[string]snippetRefusal{
	"expression":  {"CEL can read any placeholder by a name made at run time, and files", "write the condition with path, header, query, vars and not"},
	"file":        {"looks at the proxy's own disk", "use path or path_regexp"},
	"tls":         {"looks into the handshake, which the operator's settings shape", "use protocol https"},
	"url_pattern": {"its patterns can take unbounded time", "use path or path_regexp"},
}

// snippetProxyOptions are the options of reverse_proxy that snippets may use.
var snippetProxyOptions = []string{
	"to", "dynamic",
	"lb_policy", "lb_retries", "lb_try_duration", "lb_try_interval", "lb_retry_match",
	"health_uri", "health_port", "health_upstream", "health_interval", "health_passes", "health_fails", "health_timeout", "health_status", "health_body",
	"health_method", "health_request_body", "health_headers",
	"fail_duration", "max_fails", "unhealthy_status", "unhealthy_latency", "unhealthy_request_count",
	"flush_interval", "request_buffers", "response_buffers", "stream_buffer_size", "stream_timeout", "stream_close_delay",
	"proxy_status_name", "trusted_proxies", "header_up", "header_down", "method", "rewrite", "transport",
	"replace_status", "handle_response",
}

var snippetRefusedProxyOptions = map[string]snippetRefusal{
	"health_follow_redirects": {"a redirect could lead health checks to any address", "let health_uri answer itself"},
	"health_path":             {"is the old name", "use health_uri"},
	"verbose_logs":            {"logs belong to the operator", "remove it"},
}

// snippetDynamic are the upstream sources that snippets may use.
var snippetDynamic = map[string]bool{"a": true}

var snippetRefusedDynamic = map[string]snippetRefusal{
	"multi": {"its sources could name any address", "list the addresses, or write none for the container"},
	"srv":   {"the DNS answer could name any address and port", "list the addresses, or write none for the container"},
}

// snippetTransportOptions are the options of each transport.
var snippetTransportOptions = map[string][]string{
	"http": {
		"read_buffer", "write_buffer", "read_timeout", "write_timeout", "max_response_header", "proxy_protocol",
		"dial_timeout", "dial_fallback_delay", "response_header_timeout", "expect_continue_timeout",
		"tls", "tls_insecure_skip_verify", "tls_timeout", "tls_server_name", "tls_renegotiation", "tls_except_ports", "tls_curves", "tls_trust_pool",
		"keepalive", "keepalive_interval", "keepalive_idle_conns", "keepalive_idle_conns_per_host", "max_conns_per_host",
		"versions", "compression",
	},
	"fastcgi": {"root", "split", "env", "dial_timeout", "read_timeout", "write_timeout"},
}

var snippetRefusedTransportOptions = map[string]snippetRefusal{
	"capture_stderr":       {"logs belong to the operator", "log in the container"},
	"forward_proxy_url":    {"would send the requests to another address", "write that address as the upstream"},
	"local_address":        {"addresses of the proxy's machine belong to the operator", "remove it"},
	"network_proxy":        {"would send the requests to another address", "write that address as the upstream"},
	"resolve_root_symlink": {"looks at the proxy's own disk", "write the real path within the container as root"},
	"resolvers":            {"the DNS answers could name any address", "remove it"},
	"tls_client_auth":      {"keys of the proxy belong to the operator", "protect the container by its network"},
	"tls_trusted_ca_certs": {"would read files of the proxy's machine", "use tls_trust_pool inline"},
}

var snippetRefusedTrustPools = map[string]snippetRefusal{
	"file":             {"would read files of the proxy's machine", "use tls_trust_pool inline { trust_der <base64> }"},
	"http":             {"would fetch certificates from another address", "use tls_trust_pool inline { trust_der <base64> }"},
	"pki_intermediate": {"authorities of the proxy belong to the operator", "use tls_trust_pool inline { trust_der <base64> }"},
	"pki_root":         {"authorities of the proxy belong to the operator", "use tls_trust_pool inline { trust_der <base64> }"},
	"storage":          {"would read the proxy's storage", "use tls_trust_pool inline { trust_der <base64> }"},
}

// snippetReservedVars are variables that Caddy itself keeps for a request.
var snippetReservedVars = []string{
	"access_logger_names", "client_ip", "extended_connect_websocket_body", "fs", "handler", "log_level", "log_skip", "root", "skip_log", "span_id",
	"start_time", "trace_id", "trusted_proxy", "unhandled", "uuid",
}

// snippetPlaceholders are the placeholders that snippets may use, as Caddy names
// them in full.
var snippetPlaceholders = []string{
	"http.auth.user.id",
	"http.error", "http.error.id", "http.error.message", "http.error.status_code", "http.error.status_text",
	"http.request.duration", "http.request.duration_ms",
	"http.request.host", "http.request.hostport", "http.request.port", "http.request.method",
	"http.request.orig_method", "http.request.orig_uri", "http.request.orig_uri.path", "http.request.orig_uri.path.dir", "http.request.orig_uri.path.file",
	"http.request.orig_uri.path.file_escaped", "http.request.orig_uri.prefixed_query", "http.request.orig_uri.query",
	"http.request.proto", "http.request.proto_name", "http.request.remote", "http.request.remote.host", "http.request.remote.port",
	"http.request.scheme", "http.request.uri", "http.request.uri.path", "http.request.uri.path.dir", "http.request.uri.path.file",
	"http.request.uri.path.file.base", "http.request.uri.path.file.ext", "http.request.uri.path_escaped", "http.request.uri.prefixed_query",
	"http.request.uri.query", "http.request.uri.query_escaped", "http.request.uri_escaped", "http.request.uuid",
	"time.now", "time.now.common_log", "time.now.http", "time.now.rfc3339", "time.now.unix", "time.now.unix_ms", "time.now.year",
}

// snippetPlaceholderFamilies are beginnings of placeholders that snippets may use.
var snippetPlaceholderFamilies = []string{
	"http.auth.user.", "http.regexp.", "http.request.cookie.", "http.request.header.", "http.request.host.labels.", "http.request.orig_uri.path.",
	"http.request.remote.host/", "http.request.tls.", "http.request.uri.path.", "http.request.uri.query.", "http.response.header.",
	"http.reverse_proxy.", "http.vars.",
}

// snippetShorthands are Caddy's short names for the above.
var snippetShorthands = []string{
	"%path", "%query", "%uri", "?query", "client_ip", "dir", "file", "file.base", "file.ext", "host", "hostport", "method", "orig_?query", "orig_dir", "orig_file",
	"orig_method", "orig_path", "orig_query", "orig_uri", "path", "port", "query", "remote", "remote_host", "remote_port", "scheme", "tls_cipher",
	"tls_client_certificate_der_base64", "tls_client_certificate_pem", "tls_client_fingerprint", "tls_client_issuer", "tls_client_serial",
	"tls_client_subject", "tls_version", "upstream_hostport", "uri", "uuid",
}

// snippetShorthandFamilies are Caddy's short beginnings for the above.
var snippetShorthandFamilies = []string{"cookie.", "err.", "header.", "labels.", "path.", "query.", "re.", "rp.", "vars."}

// snippetRefusedPlaceholders are beginnings that are refused for a reason worth
// telling.
var snippetRefusedPlaceholders = map[string]snippetRefusal{
	"env.":               {"would read the environment of the proxy", "write the value itself, or let the container add it"},
	"file.":              {"would read files of the proxy's machine", "write the value itself"},
	"http.request.body":  {"keeps whole request bodies in memory, however large", "let the container read the body"},
	"http.request.local": {"tells the addresses of the proxy's machine", "use {host} or {port}"},
	"system.":            {"tells about the proxy's machine", "write the value itself"},
	"http.matchers.file": {"looks at the proxy's own disk", "use {path}"},
	"file_match.":        {"looks at the proxy's own disk", "use {path}"},
}

// keysOf gives the keys of m, sorted.
func keysOf[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
