package dentropycmd

import (
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"time"
)

const (
	// gracePeriod bounds how long requests in flight keep a stopping program alive:
	// what `docker stop` and most people wait.
	gracePeriod = 10 * time.Second
	// holdQueue bounds the requests that wait for one starting container: each keeps
	// a connection and a goroutine.
	holdQueue = 1000
)

// Listener is one address with the sockets held for it, named as Caddy's
// configuration names them.
type Listener struct {
	// Bind is an IP address, "" for all.
	Bind string
	// HTTP and HTTPS are "fd/7", or "host:port" where Caddy shall open the socket.
	HTTP, HTTPS string
	// QUIC is "fdgram/9"; "" where HTTPS stands for both.
	QUIC string
}

type (
	obj  = map[string]any
	list = []any
)

// buildConfig makes Caddy's JSON configuration. file is what --config adapts to,
// or nil; it is changed. Nothing else is read or written.
func buildConfig(o Options, file obj, listeners []Listener) ([]byte, error) {
	cfg := file
	if cfg == nil {
		cfg = obj{}
	}
	admin := sub(cfg, "admin")
	if admin["disabled"] != true {
		admin["listen"] = o.Admin
	}
	if cfg["logging"] == nil {
		// What a person looks for is what happens to their containers, not that our
		// own verbs asked the admin API, nor that we made our redirects ourselves.
		cfg["logging"] = obj{"logs": obj{"default": obj{"exclude": list{"admin", "http.auto_https"}}}}
	}
	// What is saved automatically could never be resumed: the sockets are gone.
	sub(admin, "config")["persist"] = false
	if cfg["storage"] == nil {
		cfg["storage"] = obj{"module": "file_system", "root": o.DataDir}
	}

	apps := sub(cfg, "apps")
	http := sub(apps, "http")
	http["http_port"], http["https_port"] = o.HTTPPort, o.HTTPSPort
	setDefault(http, "grace_period", gracePeriod.String())
	st, err := mergeServers(o, sub(http, "servers"), listeners)
	if err != nil {
		return nil, err
	}
	buildTLS(o, sub(apps, "tls"), st)
	// A route may need these at run time, when it is too late to start an app.
	sub(apps, "events")
	setDefault(sub(apps, "pki", "certificate_authorities", "local"), "install_trust", false)
	buildApp(o, sub(apps, "dentropy"), listeners)

	out, err := json.MarshalIndent(cfg, "", "\t")
	if err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	return out, nil
}

// buildApp fills the configuration of the app "dentropy". What the file's own
// `dentropy` block says stays, unless a flag or the environment beats it.
func buildApp(o Options, app obj, listeners []Listener) {
	if app["sources"] == nil || o.given["docker"] != "" {
		sources := list{}
		for _, e := range o.Engines {
			s := obj{"source": "docker", "endpoint": e.Endpoint}
			if e.Name != "" {
				s["name"] = e.Name
			}
			if e.CA != "" {
				s["tls"] = obj{"ca": e.CA, "cert": e.Cert, "key": e.Key}
			}
			sources = append(sources, s)
		}
		app["sources"] = sources
	}
	setDefault(app, "dialects", list{obj{"dialect": "native"}})
	tls := sub(app, "tls")
	for _, f := range []struct{ setting, key, value string }{
		{"email", "email", o.Email},
		{"acme-ca", "ca", o.ACMECA},
		{"acme-ca-root", "ca_root", o.ACMECARoot},
	} {
		if f.value != "" && (tls[f.key] == nil || o.given[f.setting] != "") {
			tls[f.key] = f.value
		}
	}
	if app["hold"] == nil || o.given["hold"] != "" {
		app["hold"] = o.Hold.String()
	}
	setDefault(app, "hold_queue", holdQueue)
	own := list{}
	for _, l := range listeners {
		own = append(own,
			net.JoinHostPort(l.Bind, strconv.Itoa(o.HTTPPort)),
			net.JoinHostPort(l.Bind, strconv.Itoa(o.HTTPSPort)))
	}
	app["listeners"] = own
}

// buildTLS makes discovered names come from our certificate manager and nowhere
// else, while static names keep Caddy's ordinary care.
func buildTLS(o Options, tls obj, st static) {
	auto := sub(tls, "automation")
	policies, _ := auto["policies"].(list)
	covered := map[string]bool{}
	var catchAll obj
	for _, p := range policies {
		p, _ := p.(obj)
		if subjects, _ := p["subjects"].(list); len(subjects) > 0 {
			for _, s := range subjects {
				covered[fmt.Sprint(s)] = true
			}
		} else if catchAll == nil && p != nil {
			catchAll = p
		}
	}
	var front list
	for _, group := range splitNames(st.names, covered, catchAll == nil) {
		p := obj{}
		for k, v := range catchAll {
			p[k] = v
		}
		p["subjects"] = group.names
		if p["issuers"] == nil && group.public {
			if issuers := acmeIssuers(o); issuers != nil {
				p["issuers"] = issuers
			}
		}
		front = append(front, p)
	}
	if catchAll == nil {
		catchAll = obj{}
		policies = append(policies, catchAll)
	}
	managers, _ := catchAll["get_certificate"].(list)
	catchAll["get_certificate"] = append(list{obj{"via": "dentropy"}}, managers...)
	auto["policies"] = append(front, policies...)
	// Without a permission module, a policy with a manager issues for any name that
	// a client cares to send.
	setDefault(sub(auto, "on_demand"), "permission", obj{"module": "dentropy", "deny": true})
}

// zeroSSL is the second authority that Caddy asks when it knows an e-mail address.
const zeroSSL = "https://acme.zerossl.com/v2/DV90"

// acmeIssuers applies the flags to static names; nil means Caddy's own default.
func acmeIssuers(o Options) list {
	if o.Email == "" && o.ACMECA == "" && o.ACMECARoot == "" {
		return nil
	}
	acme := obj{"module": "acme"}
	if o.Email != "" {
		acme["email"] = o.Email
	}
	if o.ACMECA != "" {
		acme["ca"] = o.ACMECA
	}
	if o.ACMECARoot != "" {
		acme["trusted_roots_pem_files"] = list{o.ACMECARoot}
	}
	if o.Email != "" && o.ACMECA == "" {
		return list{acme, obj{"module": "acme", "ca": zeroSSL, "email": o.Email}}
	}
	return list{acme}
}

// sub gives the object below o at keys, made where it is missing.
func sub(o obj, keys ...string) obj {
	for _, k := range keys {
		next, ok := o[k].(obj)
		if !ok {
			next = obj{}
			o[k] = next
		}
		o = next
	}
	return o
}

func setDefault(o obj, key string, value any) {
	if o[key] == nil {
		o[key] = value
	}
}
