package dentropycmd

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
)

// static is what the servers of --config say about names.
type static struct {
	// names need certificates, sorted.
	names []string
	// redirects are the names to lead from http to https, with the port.
	redirects map[string]int
	// anyRedirect is set where a static site serves every name by https.
	anyRedirect bool
}

// merger rebuilds the servers of the file on our sockets.
type merger struct {
	o         Options
	listeners []Listener
	static    static
	// claimed says which listeners a server of the file uses already, by scheme.
	claimedHTTP, claimedHTTPS map[string]bool
	// plain are the servers that speak http on our port.
	plain []obj
}

// mergeServers puts our handler into every server on our ports, gives them our
// sockets, and adds servers for the addresses that the file does not mention.
//
// The order within a server: static sites of exact names, then containers, then
// static wildcards and catch-alls. So no label can take a name from the operator's
// file, and a catch-all in the file does not hide the containers.
func mergeServers(o Options, servers obj, listeners []Listener) (static, error) {
	m := &merger{o: o, listeners: listeners, static: static{redirects: map[string]int{}},
		claimedHTTP: map[string]bool{}, claimedHTTPS: map[string]bool{}}
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		srv, ok := servers[name].(obj)
		if !ok {
			return m.static, fmt.Errorf("server %q in %s is no object", name, o.Config)
		}
		if err := m.server(servers, name, srv); err != nil {
			return m.static, err
		}
	}
	var https, http list
	for _, l := range listeners {
		if !m.claimedHTTPS[l.Bind] {
			https = append(https, m.address(l.Bind, o.HTTPSPort))
		}
		if !m.claimedHTTP[l.Bind] {
			http = append(http, m.address(l.Bind, o.HTTPPort))
		}
	}
	if len(https) > 0 {
		srv := obj{"listen": https, "protocols": list{"h1", "h2", "h3"}}
		servers[freeName(servers, "https")] = srv
		if err := m.secure(srv); err != nil {
			return m.static, err
		}
	}
	if len(http) > 0 {
		srv := obj{"listen": http, "protocols": list{"h1"}}
		servers[freeName(servers, "http")] = srv
		if err := m.insecure(srv); err != nil {
			return m.static, err
		}
	}
	for _, srv := range m.plain {
		m.redirect(srv)
	}
	slices.Sort(m.static.names)
	m.static.names = slices.Compact(m.static.names)
	return m.static, nil
}

// server takes over one server of the file.
func (m *merger) server(servers obj, name string, srv obj) error {
	listen, _ := srv["listen"].(list)
	var http, others list
	https := false
	for _, l := range listen {
		switch a, err := caddy.ParseNetworkAddress(fmt.Sprint(l)); {
		case err != nil:
			return fmt.Errorf("server %q in %s: listener %v: %w", name, m.o.Config, l, err)
		case m.on(a, m.o.HTTPPort):
			http = append(http, l)
		default:
			others = append(others, l)
			https = https || m.on(a, m.o.HTTPSPort)
		}
	}
	if len(http) > 0 && len(others) > 0 {
		// Caddy tells http from https by the port, which it will not see: one server
		// must not be both. The parallel list of protocols would not fit any more.
		twin, err := clone(srv)
		if err != nil {
			return err
		}
		delete(twin, "listen_protocols")
		delete(srv, "listen_protocols")
		delete(twin, "tls_connection_policies")
		twin["listen"], srv["listen"] = http, others
		twinName := freeName(servers, name+"_http")
		servers[twinName] = twin
		if err := m.insecure(twin); err != nil {
			return err
		}
	} else if len(http) > 0 {
		return m.insecure(srv)
	}
	if https {
		return m.secure(srv)
	}
	m.remember(srv)
	return nil
}

func (m *merger) on(a caddy.NetworkAddress, port int) bool {
	return !a.IsUnixNetwork() && !a.IsFdNetwork() && int(a.StartPort) <= port && port <= int(a.EndPort)
}

func (m *merger) address(bind string, port int) string {
	return caddy.JoinNetworkAddress("", bind, strconv.Itoa(port))
}

// secure makes srv serve https on our sockets.
func (m *merger) secure(srv obj) error {
	m.remember(srv)
	if err := m.takeSockets(srv, m.o.HTTPSPort, m.claimedHTTPS); err != nil {
		return err
	}
	policies, _ := srv["tls_connection_policies"].(list)
	if !slices.ContainsFunc(policies, matchesAll) {
		srv["tls_connection_policies"] = append(policies, obj{})
	}
	sub(srv, "automatic_https")["disable_redirects"] = true
	routes, _ := srv["routes"].(list)
	exact, wild, catchAll := splitRoutes(routes)
	srv["routes"] = slices.Concat(exact, list{handle(obj{"handler": "dentropy"})}, wild, catchAll, end(catchAll))
	return nil
}

func matchesAll(policy any) bool {
	p, _ := policy.(obj)
	return p["match"] == nil
}

// insecure makes srv serve http on our sockets; redirects are added at the end,
// when all names are known.
func (m *merger) insecure(srv obj) error {
	if err := m.takeSockets(srv, m.o.HTTPPort, m.claimedHTTP); err != nil {
		return err
	}
	delete(srv, "tls_connection_policies")
	// Caddy would take a server on port 0 for one that wants certificates.
	srv["automatic_https"] = obj{"disable": true}
	m.plain = append(m.plain, srv)
	return nil
}

// remember notes the names that srv serves by https, and takes the redirects upon
// us: Caddy would open another socket on our port for them.
func (m *merger) remember(srv obj) {
	auto, _ := srv["automatic_https"].(obj)
	if auto["disable"] == true {
		return
	}
	var names []string
	routes, _ := srv["routes"].(list)
	for _, r := range routes {
		names = append(names, hosts(r)...)
	}
	if len(names) == 0 && srv["tls_connection_policies"] == nil {
		return // plain http on a port of its own, or ours with no site
	}
	skip, noCert := texts(auto["skip"]), texts(auto["skip_certificates"])
	names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(skip, n) })
	for _, n := range names {
		if auto["disable_certificates"] != true && !slices.Contains(noCert, n) && !strings.Contains(n, "{") {
			m.static.names = append(m.static.names, n)
		}
	}
	if auto["disable_redirects"] == true {
		return
	}
	port := serverPort(srv, m.o.HTTPSPort)
	for _, n := range names {
		// The https port proper beats another one for the same name.
		if old, ok := m.static.redirects[n]; !ok || old != m.o.HTTPSPort {
			m.static.redirects[n] = port
		}
	}
	m.static.anyRedirect = m.static.anyRedirect || len(names) == 0
	sub(srv, "automatic_https")["disable_redirects"] = true
}

func serverPort(srv obj, https int) int {
	listen, _ := srv["listen"].(list)
	for _, l := range listen {
		if a, err := caddy.ParseNetworkAddress(fmt.Sprint(l)); err == nil && a.StartPort != 0 {
			return int(a.StartPort)
		}
	}
	return https
}

// takeSockets replaces the addresses of srv on port by our sockets, with the
// protocols that each can carry.
func (m *merger) takeSockets(srv obj, port int, claimed map[string]bool) error {
	listen, _ := srv["listen"].(list)
	perListener, _ := srv["listen_protocols"].(list)
	var outListen, outProtocols, quic, quicProtocols list
	for i, l := range listen {
		a, err := caddy.ParseNetworkAddress(fmt.Sprint(l))
		if err != nil {
			return fmt.Errorf("listener %v in %s: %w", l, m.o.Config, err)
		}
		var given any
		if i < len(perListener) {
			given = perListener[i]
		}
		if !m.on(a, port) {
			outListen, outProtocols = append(outListen, l), append(outProtocols, given)
			continue
		}
		held, err := m.socket(a, port)
		if err != nil {
			return err
		}
		claimed[held.Bind] = true
		protocols := texts(given)
		if len(protocols) == 0 {
			protocols = texts(srv["protocols"])
		}
		if len(protocols) == 0 {
			protocols = []string{"h1", "h2", "h3"}
		}
		stream, h3 := carried(protocols, port == m.o.HTTPSPort)
		addr := held.HTTP
		if port == m.o.HTTPSPort {
			addr = held.HTTPS
		}
		if h3 && held.QUIC != "" {
			quic, quicProtocols = append(quic, held.QUIC), append(quicProtocols, list{"h3"})
		} else if h3 {
			stream = append(stream, "h3")
		}
		if len(stream) > 0 {
			outListen, outProtocols = append(outListen, addr), append(outProtocols, stream)
		}
	}
	// HTTP/3 comes first: each request by TCP reads what its start sets, and requests
	// may wait in the queue of a socket that is older than the configuration.
	srv["listen"], srv["listen_protocols"] = append(quic, outListen...), append(quicProtocols, outProtocols...)
	return nil
}

// socket finds the sockets held for an address of the file.
func (m *merger) socket(a caddy.NetworkAddress, port int) (Listener, error) {
	for _, l := range m.listeners {
		if l.Bind == a.Host && a.PortRangeSize() == 1 && a.Network == "tcp" {
			return l, nil
		}
	}
	where := a.Host
	if where == "" {
		where = "all addresses"
	}
	ours := strings.Join(m.o.Bind, ", ")
	if ours == "" {
		ours = "all addresses"
	}
	return Listener{}, fmt.Errorf("a site in %s listens on %s, port %d, where dentropy listens on %s: "+
		"give both the same with --bind, or with default_bind in the file", m.o.Config, where, port, ours)
}

// carried tells the protocols that a TCP socket of ours can carry from HTTP/3.
func carried(protocols []string, secure bool) (stream list, h3 bool) {
	for _, p := range protocols {
		switch {
		case p == "h3":
			h3 = secure
		case p == "h2" && !secure: // needs TLS
		default:
			stream = append(stream, p)
		}
	}
	return stream, h3
}

// nameGroup is a set of names that share a policy.
type nameGroup struct {
	names  list
	public bool
}

// splitNames groups the names that have no policy yet. Where nobody chose an
// issuer, names that no public authority can certify stand apart, so that Caddy
// gives those its internal one.
func splitNames(names []string, covered map[string]bool, split bool) []nameGroup {
	var internal, public nameGroup
	public.public = true
	for _, n := range names {
		switch {
		case covered[n] || !certmagic.SubjectQualifiesForCert(n):
		case split && !certmagic.SubjectQualifiesForPublicCert(n):
			internal.names = append(internal.names, n)
		default:
			public.names = append(public.names, n)
		}
	}
	return slices.DeleteFunc([]nameGroup{internal, public}, func(g nameGroup) bool { return len(g.names) == 0 })
}

// clone copies a server: two servers must not share an object that is changed.
func clone(o obj) (obj, error) {
	raw, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("encode server: %w", err)
	}
	return decode(raw)
}
