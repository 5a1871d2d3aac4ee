package caddymodule

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dentropy/dentropycloud/discovery"
)

// Why is the chain from a host name to the container that serves it, or to the
// place where it breaks.
type Why struct {
	Host  string    `json:"host"`
	Steps []WhyStep `json:"steps"`
}

// WhyStep is one link of the chain.
type WhyStep struct {
	Title string `json:"title"`
	// State is ok, wait (it may still come right by itself), bad, or info.
	State string `json:"state"`
	Text  string `json:"text"`
	// Hint is what to do.
	Hint string         `json:"hint,omitempty"`
	Data map[string]any `json:"data,omitempty"`
}

func (y *Why) add(title, state, hint, format string, args ...any) {
	y.Steps = append(y.Steps, WhyStep{Title: title, State: state, Hint: hint, Text: fmt.Sprintf(format, args...)})
}

// why walks the chain: labels, route, address, certificate, last probe.
func (s *State) why(host string) Why {
	y := Why{Host: host, Steps: []WhyStep{}}
	by, static := s.reserved(host)
	if static {
		y.add("Config", "info", "to let a container have it, take the site out of the Caddyfile", "%s is served by %s itself", host, by)
	}
	for _, src := range s.registry.Sources() {
		if src.State != discovery.SourceConnected {
			y.add("Source", "wait", "check that it runs and that this program may use its socket",
				"%s cannot be asked since %s: %s; what it said last stays in force", src.Name, src.Since.UTC().Format(time.RFC3339), cmp.Or(src.Error, "it has not answered yet"))
		}
	}
	views := s.views(s.registry.RoutesFor(host))
	if len(views) == 0 {
		if !static { // else nobody else needs to ask for it
			s.whyNobody(&y, host)
		}
		return y
	}
	var granted []discovery.RouteView
	for _, v := range views {
		s.whyLabels(&y, v)
		s.whyRoute(&y, v, host)
		s.whyAddress(&y, v)
		if len(v.Granted) > 0 {
			granted = append(granted, v)
		}
	}
	if len(granted) > 0 {
		s.whyCertificate(&y, host, granted)
		s.whyRequests(&y, granted)
	}
	return y
}

func (s *State) whyNobody(y *Why, host string) {
	hosts := map[string]bool{}
	for _, v := range s.registry.Routes() {
		for _, h := range v.Hosts {
			hosts[h] = true
		}
	}
	hint := "give the container the label dentropy.host=" + host
	if near := nearest(host, slices.Sorted(maps.Keys(hosts))); near != "" {
		hint = "did you mean " + near + "? Otherwise " + hint
	}
	y.add("Labels", "bad", hint, "no container or object asks for %s (%d hosts are known)", host, len(hosts))
}

func (s *State) whyLabels(y *Why, v discovery.RouteView) {
	labels := map[string]any{}
	for _, e := range v.Endpoints {
		for k, val := range e.Labels {
			// a snippet may hold password hashes, and its key may be misspelt
			if strings.Contains(k, "caddyfile") || len(val) > 100 || strings.ContainsAny(val, "\n{$") {
				val = fmt.Sprintf("(%d bytes)", len(val))
			}
			labels[k] = val
		}
	}
	who := v.Object
	if v.Group.Project != "" {
		who += " (" + v.Group.Project + "/" + v.Group.Service + ")"
	}
	y.add("Labels", "ok", "", "%s of %s asks for %s", who, v.Source, cmp.Or(strings.Join(v.Hosts, ", "), "a route, with labels that cannot be used"))
	step := &y.Steps[len(y.Steps)-1]
	step.Data = labels
	if len(v.Hosts) == 0 {
		step.State = "bad"
	}
	for _, p := range v.Problems {
		hint := p.Hint
		p.Hint = "" // said once
		y.add("Labels", "bad", hint, "%s", p.Error())
	}
	if v.LastGood {
		y.add("Labels", "info", "correct the label and start the container anew", "the last good version of the route goes on serving")
	}
}

func (s *State) whyRoute(y *Why, v discovery.RouteView, host string) {
	for _, u := range v.Granted {
		y.add("Route", "ok", "", "%s%s belongs to %s", u.Host, u.Path, v.Group)
	}
	for _, u := range v.Refused {
		// within one project alone does another path help
		hint := "remove the label from one of the two, or use another host; another path is enough within one compose project"
		if _, ok := s.reserved(u.Host); ok {
			hint = "remove the label, or take the site out of the Caddyfile"
		} else if strings.HasPrefix(u.Reason, discovery.RefusedByClaims) {
			hint = "use another host, or let the operator's claims name the container"
		}
		y.add("Route", "bad", hint, "%s", u.Reason)
	}
	if len(v.Granted) == 0 {
		return
	}
	if r := slices.IndexFunc(v.Hosts, func(h string) bool { return h == host }); r < 0 {
		y.add("Route", "info", "", "%s is covered by %s", host, strings.Join(v.Hosts, ", "))
	}
}

func (s *State) whyAddress(y *Why, v discovery.RouteView) {
	if v.State == "error" || v.State == "refused" {
		return
	}
	for _, e := range v.Endpoints {
		switch {
		case e.Ready:
			y.add("Address", "ok", "", "%s answers at %s: %s", e.Object, e.Address, e.Reason)
			y.add("Probe", "ok", "", "%s answered a TCP connect at %s", e.Address, e.Probed.UTC().Format(time.RFC3339))
		case len(e.Candidates) == 0:
			state := stateOf(e.State)
			if e.State == discovery.Running {
				state = "bad" // waiting does not give it an address
			}
			y.add("Address", state, "", "%s is %s: %s", e.Object, e.State, cmp.Or(e.Detail, "it has no address"))
		default:
			hint := ""
			if e.State == discovery.Unhealthy {
				hint = "look at what its health check says, with: docker inspect " + e.Object
			}
			y.add("Address", stateOf(e.State), hint, "%s is %s, it would be reached at %s: %s", e.Object, e.State, e.Address, e.Reason)
			if e.State == discovery.Running {
				y.add("Probe", "bad", "check that the program in the container listens on all addresses (0.0.0.0) and on that port",
					"tried %d times: %s", e.Attempts, e.Detail)
			}
		}
	}
}

// stateOf says whether a container in that state may come right by itself.
func stateOf(s discovery.State) string {
	switch s {
	case discovery.Starting, discovery.Restarting, discovery.Running:
		return "wait"
	}
	return "bad"
}

func (s *State) whyCertificate(y *Why, host string, views []discovery.RouteView) {
	if !slices.ContainsFunc(views, func(v discovery.RouteView) bool { return v.TLS != "off" }) {
		y.add("Certificate", "info", "", "TLS is off for this route")
		return
	}
	st, ok := s.certs.StatusOf(host)
	if !ok {
		if i := strings.IndexByte(host, '.'); i > 0 {
			st, ok = s.certs.StatusOf("*" + host[i:])
		}
	}
	if !ok {
		hint := ""
		if slices.ContainsFunc(views, func(v discovery.RouteView) bool { return slices.Contains(v.Hosts, "*") }) {
			hint = "* says no name that a certificate could be for: write the names into dentropy.host, or set dentropy.tls=off for plain http"
		}
		y.add("Certificate", "bad", hint, "no certificate is managed for %s", host)
		return
	}
	switch {
	case st.LastError != "":
		text := st.LastError
		if !st.NextTry.IsZero() {
			text += "; next try at " + st.NextTry.UTC().Format(time.RFC3339)
		}
		hint := st.Hint
		if hint == "" && st.Attempts > 0 && st.Class != classInternal {
			hint = "check that the name points here and that ports 80 and 443 are reachable from the internet"
		}
		y.add("Certificate", "bad", hint, "%s by %s: %s", st.State, st.Class, text)
	case st.CoveredBy != "":
		y.add("Certificate", "ok", "", "covered by the certificate of %s", st.CoveredBy)
	case !st.NotAfter.IsZero():
		y.add("Certificate", "ok", "", "%s by %s, valid until %s", st.State, st.Class, st.NotAfter.UTC().Format(time.RFC3339))
	default:
		y.add("Certificate", "wait", "", "%s by %s", st.State, st.Class)
	}
}

func (s *State) whyRequests(y *Why, views []discovery.RouteView) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range views {
		if lr := s.routes[v.Key]; lr != nil {
			where := ""
			if len(views) > 1 && len(v.Granted) > 0 {
				where = v.Granted[0].Host + v.Granted[0].Path + ": "
			}
			y.add("Requests", "info", "", "%s%d so far, %d waiting now", where, lr.requests.Load(), lr.held.Load())
		}
	}
}

// nearest gives the candidate that differs from word in at most two places.
func nearest(word string, candidates []string) string {
	best, at := "", 3
	for _, c := range candidates {
		if d := editDistance(word, c, at); d < at {
			best, at = c, d
		}
	}
	return best
}
