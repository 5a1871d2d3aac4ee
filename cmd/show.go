package dentropycmd

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

func showRoutes(p *printer, a routesAnswer) error {
	if len(a.Routes) == 0 {
		p.printf("No routes. A container gets one with --label dentropy.host=NAME; `%s sources` says whether Docker answers.\n", verbPrefix())
		return nil
	}
	head := []string{"ROUTE", "STATE", "BY", "BACKENDS", "TLS"}
	since := slices.ContainsFunc(a.Routes, func(r routeAnswer) bool { return !r.Since.IsZero() })
	if since {
		head = append(head, "SINCE")
	}
	var rows [][]string
	var colours []colour
	for _, r := range a.Routes {
		row := []string{routeName(r), dash(routeState(r)), dash(owner(r)), backends(r), tlsOf(r)}
		if since {
			row = append(row, p.ago(r.Since))
		}
		rows = append(rows, row)
		colours = append(colours, stateColour(r.State, r.Stale || r.LastGood))
	}
	p.table(head, rows, colours)
	first := true
	for _, r := range a.Routes {
		for _, line := range troubles(r) {
			if first {
				p.printf("\n")
				first = false
			}
			p.printf("%s %s: %s\n", p.paint(yellow, "!"), routeName(r), clean(line))
		}
	}
	return nil
}

// routeState is the state with what limits it.
func routeState(r routeAnswer) string {
	var limits []string
	if r.Stale {
		limits = append(limits, "stale")
	}
	if r.LastGood {
		limits = append(limits, "last good labels")
	}
	if len(limits) == 0 {
		return r.State
	}
	return r.State + " (" + strings.Join(limits, ", ") + ")"
}

// routeName is what a user types into a browser: hosts and paths.
func routeName(r routeAnswer) string {
	hosts := strings.Join(r.Hosts, ",")
	if hosts == "" { // its labels could not be read
		hosts = owner(r)
	}
	if paths := strings.Join(r.Paths, ","); paths != "" && paths != "/" {
		hosts += paths
	}
	return dash(hosts)
}

func owner(r routeAnswer) string {
	var parts []string
	for _, s := range []string{r.Group.Engine, r.Group.Project, r.Group.Service} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if len(parts) == 0 {
		return strings.TrimPrefix(r.Source+"/"+r.Object, "/")
	}
	return strings.Join(parts, "/")
}

// tlsOf is how the route is encrypted; the answer leaves out what is usual.
func tlsOf(r routeAnswer) string {
	if r.TLS == "" && len(r.Hosts) > 0 {
		return "auto"
	}
	return dash(r.TLS)
}

// backends names the addresses in use, or counts them where there are many.
func backends(r routeAnswer) string {
	const most = 2
	var ready []string
	for _, e := range r.Endpoints {
		if e.Ready {
			ready = append(ready, clean(e.Address))
		}
	}
	switch {
	case len(r.Endpoints) == 0:
		return "-"
	case len(ready) == 0:
		return fmt.Sprintf("0 of %d ready", len(r.Endpoints))
	case len(ready) <= most && len(ready) == len(r.Endpoints):
		return strings.Join(ready, " ")
	default:
		return fmt.Sprintf("%d of %d ready", len(ready), len(r.Endpoints))
	}
}

// troubles says what is wrong with a route, one line each.
func troubles(r routeAnswer) []string {
	var out []string
	for _, pr := range r.Problems {
		s := pr.Reason
		if pr.Label != "" {
			s = fmt.Sprintf("label %s=%q: %s", pr.Label, pr.Value, s)
		}
		if pr.Hint != "" {
			s += " (" + pr.Hint + ")"
		}
		out = append(out, s)
	}
	for _, f := range r.Refused {
		what := f.Host + f.Path
		if strings.TrimSuffix(what, "/") == routeName(r) {
			what = "it"
		}
		out = append(out, what+" is refused: "+f.Reason)
	}
	if r.State == "error" || r.State == "refused" {
		return out // no route, so nothing is asked of its containers
	}
	for _, e := range r.Endpoints {
		if e.Ready {
			continue
		}
		what := e.State
		if e.Detail != "" && e.Detail != e.State {
			what = strings.TrimPrefix(what+", "+e.Detail, ", ")
		}
		if e.Address == "" && e.Reason != "" {
			what = strings.TrimPrefix(what+", "+e.Reason, ", ")
		}
		who := strings.TrimSpace(e.Object + " " + e.Address)
		if what == "" {
			what = "not ready"
		}
		out = append(out, who+" is "+what)
	}
	return out
}

// stateColour makes what needs attention stand out; what is well stays plain.
func stateColour(state string, old bool) colour {
	switch state {
	case "refused", "error", "failed":
		return red
	case "serving", "connected", "ready", "covered", "lingering":
		if !old {
			return plain
		}
	}
	return yellow
}

func showWhy(p *printer, a whyAnswer) error {
	p.printf("%s\n", dash(a.Host))
	for _, s := range a.Steps {
		mark, c := "•", faint
		switch s.State {
		case "ok":
			mark, c = "✓", green
		case "wait":
			mark, c = "…", yellow
		case "bad":
			mark, c = "✗", red
		}
		p.printf("  %s %s", p.paint(c, mark), clean(s.Title))
		if s.Text != "" {
			p.printf(": %s", clean(s.Text))
		}
		p.printf("\n")
		for _, key := range slices.Sorted(maps.Keys(s.Data)) {
			p.printf("      %s\n", p.paint(faint, clean(fmt.Sprintf("%s=%v", key, s.Data[key]))))
		}
		if s.Hint != "" {
			p.printf("      → %s\n", clean(s.Hint))
		}
	}
	return verdict(a)
}

func showCerts(p *printer, a certificatesAnswer) error {
	if len(a.Certificates) == 0 {
		p.printf("No certificates: no discovered route asks for one.\n")
		return nil
	}
	var rows [][]string
	var colours []colour
	var notes []string
	for _, c := range a.Certificates {
		expires := "-"
		if !c.NotAfter.IsZero() {
			expires = c.NotAfter.Local().Format("2006-01-02 15:04") + " (" + p.in(c.NotAfter) + ")"
		}
		state := c.State
		if c.CoveredBy != "" {
			state = strings.TrimSpace(state + " by " + c.CoveredBy)
		}
		rows = append(rows, []string{dash(c.Host), dash(state), dash(c.Class), expires, dash(c.Issuer)})
		colours = append(colours, stateColour(c.State, false))
		if c.LastError != "" {
			note := fmt.Sprintf("%s: %s", c.Host, c.LastError)
			if !c.NextTry.IsZero() {
				note += fmt.Sprintf("; next try %s, at %s", p.in(c.NextTry), c.NextTry.Local().Format("15:04:05"))
			}
			if c.Attempts > 0 {
				note += fmt.Sprintf(" (%d so far)", c.Attempts)
			}
			if c.Hint != "" {
				note += "; " + c.Hint
			}
			notes = append(notes, note)
		}
	}
	p.table([]string{"HOST", "STATE", "CLASS", "EXPIRES", "ISSUER"}, rows, colours)
	for i, n := range notes {
		if i == 0 {
			p.printf("\n")
		}
		p.printf("%s %s\n", p.paint(yellow, "!"), clean(n))
	}
	return nil
}

func showSources(p *printer, a sourcesAnswer) error {
	if len(a.Sources) == 0 {
		p.printf("Nothing is watched.\n")
		return nil
	}
	var rows [][]string
	var colours []colour
	for _, s := range a.Sources {
		rows = append(rows, []string{dash(s.Name), dash(s.State), p.ago(s.Since),
			fmt.Sprint(s.Objects), fmt.Sprint(s.Events), p.ago(s.LastEvent)})
		colours = append(colours, stateColour(s.State, false))
	}
	p.table([]string{"SOURCE", "STATE", "SINCE", "OBJECTS", "EVENTS", "LAST EVENT"}, rows, colours)
	first := true
	for _, s := range a.Sources {
		if s.Error == "" {
			continue
		}
		if first {
			p.printf("\n")
			first = false
		}
		p.printf("%s %s: %s\n", p.paint(yellow, "!"), dash(s.Name), clean(s.Error))
	}
	return nil
}
