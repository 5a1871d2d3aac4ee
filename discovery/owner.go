package discovery

import (
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Claim restricts the domains it lists: only those that a claim for the domain
// names may use hosts of it, and they may share one host by path.
type Claim struct {
	// Domains are host names or "*.example.com" (any depth below).
	Domains []string `json:"domains"`
	// Engine, Project or Service is who may; empty fields do not count.
	Engine  string `json:"engine,omitempty"`
	Project string `json:"project,omitempty"`
	Service string `json:"service,omitempty"`
}

// covers reports whether the claim is about host.
func (c Claim) covers(host string) bool {
	return slices.ContainsFunc(c.Domains, func(d string) bool { return HostMatches(d, host) })
}

// below reports whether a route for the wildcard host would serve hosts that the
// claim is about.
func (c Claim) below(host string) bool {
	return strings.HasPrefix(host, "*") && slices.ContainsFunc(c.Domains, func(d string) bool {
		return host == "*" || wildcardCovers(host, d)
	})
}

// grants reports whether the claim is for g.
func (c Claim) grants(g Group) bool {
	return (c.Engine == "" || c.Engine == g.Engine) &&
		(c.Project == "" || c.Project == g.Project) &&
		(c.Service == "" || c.Service == g.Service)
}

// OwnerRecord is what is remembered of a host, so that it stays with its owner
// across restarts of the owner and of the program.
type OwnerRecord struct {
	// Scope is the owner: engine and project, or engine and lone container.
	Scope string `json:"scope"`
	// Units tells which group has which path (and matcher) of the host.
	// It must not be changed.
	Units map[string]string `json:"units,omitempty"`
	// Since is when the scope became owner.
	Since time.Time `json:"since"`
}

// hostState is the ownership of one host.
type hostState struct {
	record   OwnerRecord
	claims   []*wanted // that ask for a unit of this host, in order of arrival
	released time.Time // when the owner's last claim went; zero while it has one
	loaded   bool      // from a record; the owner's source has not told everything yet
	// away tells since when the group that has a unit does not ask for it.
	away  map[string]time.Time
	timer *time.Timer // elects again when a grace time is over
	due   time.Time   // when timer fires
}

func (h *hostState) stopTimer() {
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
}

// LoadOwners takes what Owned had been told in an earlier life. Call it before
// the first report. A host whose owner does not show up within the grace time
// after its source has answered is free again.
func (r *Registry) LoadOwners(records map[string]OwnerRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for host, rec := range records {
		if r.hosts[host] == nil && rec.Scope != "" {
			r.hosts[host] = &hostState{record: rec, loaded: true}
		}
	}
}

// adoptOwnersLocked starts the grace time of remembered owners that did not show up
// in the first full report of their source.
func (r *Registry) adoptOwnersLocked() {
	for host, h := range r.hosts {
		if !h.loaded {
			continue
		}
		if s := r.sources[h.record.engine()]; s != nil && s.view.State == SourceConnected {
			h.loaded = false
			r.electLocked(host)
		}
	}
}

// SettleOwners starts the grace time of remembered owners of engines other than
// those named: nobody would ever tell that they are gone.
func (r *Registry) SettleOwners(engines []string) {
	r.update(func() {
		for host, h := range r.hosts {
			if h.loaded && !slices.Contains(engines, h.record.engine()) {
				h.loaded = false
				r.electLocked(host)
			}
		}
	})
}

// engine is the name of the owner's source.
func (o OwnerRecord) engine() string {
	engine, _, _ := strings.Cut(o.Scope, "/")
	return engine
}

// regroupLocked lets what an object owns follow it when its group gets another
// name, as that of a lone container does when the container is renamed.
func (r *Registry) regroupLocked(o *object, before Group) {
	from, to := before.Scope().String(), o.Group.Scope().String()
	for _, m := range o.members {
		r.rememberLocked(o.Group, m.route, +1)
		r.releaseGoodLocked(before, m.route.Name)
		for _, u := range m.wanted.units {
			h := r.hosts[u.Host]
			if h.record.Scope != from || slices.ContainsFunc(h.claims, func(w *wanted) bool { return w != m.wanted && w.scope == from }) {
				continue
			}
			h.record.Scope = to
			units := maps.Clone(h.record.Units)
			for id, group := range units {
				if group == before.String() {
					units[id] = o.Group.String()
				}
			}
			h.record.Units = units
			rec := h.record
			r.opts.Owned(u.Host, &rec)
		}
	}
}

// claimLocked enters or takes back the claims of w, and elects.
func (r *Registry) claimLocked(w *wanted) {
	var last string
	for _, u := range w.units { // sorted by host
		if u.Host == last {
			continue
		}
		last = u.Host
		h := r.hosts[u.Host]
		if h == nil {
			h = &hostState{}
			r.hosts[u.Host] = h
		}
		at := slices.Index(h.claims, w)
		switch {
		case len(w.members) > 0 && at < 0:
			h.claims = append(h.claims, w)
		case len(w.members) == 0 && at >= 0:
			h.claims = slices.Delete(h.claims, at, at+1)
		}
		r.electLocked(u.Host)
	}
}

// electLocked settles who has which unit of host.
func (r *Registry) electLocked(host string) {
	h := r.hosts[host]
	before := h.record // its map is never changed, only replaced
	h.stopTimer()
	r.electScopeLocked(host, h)
	_, reserved := r.opts.Reserved(host)
	units := unitsOfClaims(host, h.claims)
	for _, u := range units {
		var winner *wanted
		if !reserved {
			winner = r.electUnitLocked(h, u)
		}
		for _, w := range h.claims {
			i, ok := slices.BinarySearchFunc(w.units, u, Unit.Compare)
			if !ok {
				continue
			}
			if now := w == winner; now != w.granted[i] {
				w.granted[i] = now
				r.touched[w.key] = w
			}
		}
	}
	r.forgetUnitsLocked(host, h, units)
	if h.record.Scope == "" && len(h.claims) == 0 {
		h.stopTimer()
		delete(r.hosts, host)
	}
	if h.record.Scope == before.Scope && maps.Equal(h.record.Units, before.Units) {
		return
	}
	if h.record.Scope == "" {
		r.opts.Owned(host, nil)
		return
	}
	rec := h.record
	r.opts.Owned(host, &rec)
}

// forgetUnitsLocked lets go of units that nobody has asked for in the grace time.
func (r *Registry) forgetUnitsLocked(host string, h *hostState, units []Unit) {
	known := 0
	for _, u := range units {
		if h.record.Units[u.id()] != "" {
			known++
		}
	}
	if known == len(h.record.Units) && len(h.away) == 0 {
		return // mostly: each unit has somebody who asks for it
	}
	asked := make(map[string]bool, len(units))
	for _, u := range units {
		asked[u.id()] = true
	}
	for id := range h.away {
		if h.record.Units[id] == "" {
			delete(h.away, id)
		}
	}
	var left map[string]string
	for id := range h.record.Units {
		if asked[id] || r.awaitLocked(host, h, id) {
			continue
		}
		if left == nil {
			left = maps.Clone(h.record.Units)
		}
		delete(left, id)
		delete(h.away, id)
	}
	if left != nil {
		h.record.Units = left
	}
}

// awaitLocked reports whether a unit is kept for the group that had it and does not
// ask for it at the moment.
func (r *Registry) awaitLocked(host string, h *hostState, id string) bool {
	if h.loaded {
		return true // its source has not spoken yet
	}
	since, ok := h.away[id]
	if !ok {
		since = r.opts.Now()
		if h.away == nil {
			h.away = map[string]time.Time{}
		}
		h.away[id] = since
	}
	if r.opts.Now().Sub(since) >= r.opts.Grace {
		return false
	}
	r.armLocked(host, h, since)
	return true
}

// electScopeLocked settles which scope owns the host: the one that does, as long
// as it claims the host and for the grace time after; then the first that came.
func (r *Registry) electScopeLocked(host string, h *hostState) {
	now := r.opts.Now()
	if h.record.Scope != "" {
		if r.ownerClaimsLocked(h) {
			h.released = time.Time{}
			return
		}
		if h.loaded {
			return // its source has not spoken yet
		}
		if h.released.IsZero() {
			h.released = now
		}
		if now.Sub(h.released) < r.opts.Grace {
			r.armLocked(host, h, h.released)
			return
		}
	}
	h.record, h.released, h.away = OwnerRecord{}, time.Time{}, nil
	for _, w := range h.claims {
		if r.mayClaimLocked(host, w) {
			h.record = OwnerRecord{Scope: w.scope, Since: now.UTC().Truncate(time.Second)}
			return
		}
	}
}

func (r *Registry) ownerClaimsLocked(h *hostState) bool {
	return slices.ContainsFunc(h.claims, func(w *wanted) bool { return w.scope == h.record.Scope })
}

// armLocked elects again when the grace time of who is gone since then is over.
func (r *Registry) armLocked(host string, h *hostState, since time.Time) {
	due := since.Add(r.opts.Grace)
	if r.closed || h.timer != nil && !due.Before(h.due) {
		return
	}
	h.stopTimer()
	h.due = due
	h.timer = time.AfterFunc(max(0, due.Sub(r.opts.Now())), func() {
		r.update(func() {
			if r.hosts[host] == h {
				r.electLocked(host)
			}
		})
	})
}

// mayClaimLocked holds w against the operator's claims for host.
func (r *Registry) mayClaimLocked(host string, w *wanted) bool {
	return len(r.opts.Claims) == 0 ||
		slices.ContainsFunc(w.members, func(m *member) bool { return r.mayHaveLocked(host, m.object.Group) })
}

// mayHaveLocked holds one group against the operator's claims for host. Who may not
// have the hosts below a wildcard may not have the wildcard, which would serve them
// while their owners are away, unless a claim gives it the wildcard itself.
func (r *Registry) mayHaveLocked(host string, g Group) bool {
	about, below := false, false
	for _, c := range r.opts.Claims {
		switch {
		case c.covers(host):
			if c.grants(g) {
				return true
			}
			about = true
		case c.below(host) && !c.grants(g):
			below = true
		}
	}
	return !about && !below
}

// servesLocked reports whether m may serve what its route was granted: it may share
// the route of a group that claims let have a host, and not be let itself.
func (r *Registry) servesLocked(m *member) bool {
	if len(r.opts.Claims) == 0 {
		return true
	}
	last := ""
	for i, u := range m.wanted.units { // sorted by host
		if !m.wanted.granted[i] || u.Host == last {
			continue
		}
		if last = u.Host; !r.mayHaveLocked(u.Host, m.object.Group) {
			return false
		}
	}
	return true
}

// invitedLocked reports whether the operator lets w have paths of a host that
// another scope owns.
func (r *Registry) invitedLocked(host string, w *wanted) bool {
	return r.mayClaimLocked(host, w) && slices.ContainsFunc(r.opts.Claims, func(c Claim) bool { return c.covers(host) })
}

// electUnitLocked gives the claim that has u: one of the group that had it first. A
// group of the same scope may take over what that one has left, others after the
// grace time.
func (r *Registry) electUnitLocked(h *hostState, u Unit) *wanted {
	id := u.id()
	owner := h.record.Units[id]
	var claims []*wanted
	present := false // the owner asks for it, whether it may have it or not
	split := !slices.ContainsFunc(h.claims, func(w *wanted) bool { return !w.spec.SplitHost })
	for _, w := range h.claims {
		if _, asks := slices.BinarySearchFunc(w.units, u, Unit.Compare); !asks {
			continue
		}
		present = present || w.hasGroup(owner)
		if !r.mayClaimLocked(u.Host, w) {
			continue
		}
		if w.scope == h.record.Scope || split || r.invitedLocked(u.Host, w) {
			claims = append(claims, w)
		}
	}
	mine := slices.DeleteFunc(slices.Clone(claims), func(w *wanted) bool { return !w.hasGroup(owner) })
	if len(mine) == 0 {
		if owner != "" && !present {
			next := slices.IndexFunc(claims, func(w *wanted) bool { return inScope(owner, w.scope) })
			if (h.loaded || next < 0) && r.awaitLocked(u.Host, h, id) {
				return nil
			}
			claims = claims[max(next, 0):]
		}
		if len(claims) == 0 {
			if owner != "" { // asked for by some who may not have it
				h.record.Units = maps.Clone(h.record.Units)
				delete(h.record.Units, id)
				delete(h.away, id)
			}
			return nil
		}
		mine = claims[:1]
		units := make(map[string]string, len(h.record.Units)+1)
		maps.Copy(units, h.record.Units)
		units[id] = mine[0].members[0].object.Group.String()
		h.record.Units = units
	}
	delete(h.away, id)
	// several of the owner itself: versions of one service. The one that can serve
	// wins, then the newer.
	return slices.MaxFunc(mine, func(a, b *wanted) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), a.newest().Compare(b.newest()), cmp.Compare(a.first, b.first))
	})
}

// inScope reports whether the group with that name belongs to scope.
func inScope(group, scope string) bool {
	project, all := strings.CutSuffix(scope, "*")
	return group == scope || all && strings.HasPrefix(group, project)
}

func (w *wanted) hasGroup(g string) bool {
	return slices.ContainsFunc(w.members, func(m *member) bool { return m.object.Group.String() == g })
}

// rank is 1 if w has an address that answers.
func (w *wanted) rank() int {
	if slices.ContainsFunc(w.members, func(m *member) bool { return m.probe.address != "" }) {
		return 1
	}
	return 0
}

func (w *wanted) newest() (t time.Time) {
	for _, m := range w.members {
		if m.object.Created.After(t) {
			t = m.object.Created
		}
	}
	return t
}

// refusalLocked says why w does not have u.
func (r *Registry) refusalLocked(w *wanted, u Unit) string {
	if by, ok := r.opts.Reserved(u.Host); ok {
		return fmt.Sprintf("%s is served by %s", u.Host, by)
	}
	if !r.mayClaimLocked(u.Host, w) {
		return fmt.Sprintf(RefusedByClaims+" do not let %s use %s", w.scope, u.Host)
	}
	h := r.hosts[u.Host]
	if h == nil {
		return ""
	}
	owner := h.record.Units[u.id()]
	if since, ok := h.away[u.id()]; ok && h.released.IsZero() {
		return fmt.Sprintf("%s%s belongs to %s; that is gone, the path is free in %s", u.Host, u.Path, owner, (r.opts.Grace - r.opts.Now().Sub(since)).Round(time.Second))
	}
	if h.record.Scope != w.scope {
		s := fmt.Sprintf("%s belongs to %s since %s", u.Host, h.record.Scope, h.record.Since.Format(time.RFC3339))
		if !h.released.IsZero() {
			s += fmt.Sprintf("; that is gone, the host is free in %s", (r.opts.Grace - r.opts.Now().Sub(h.released)).Round(time.Second))
		} else if h.loaded {
			s += "; it is remembered from before and its source has not answered yet"
		}
		return s
	}
	return fmt.Sprintf("%s%s belongs to %s of the same project, with other settings", u.Host, u.Path, owner)
}

// unitsOf gives what a route asks for, sorted.
func unitsOf(route Route) []Unit {
	paths := route.Paths
	if len(paths) == 0 {
		paths = []string{"/"}
	}
	match := ""
	if !route.Match.IsZero() || route.Priority != 0 {
		b, err := json.Marshal(struct {
			Match    Match
			Priority int
		}{route.Match, route.Priority})
		if err != nil { // cannot happen: plain data
			panic(err)
		}
		match = "#" + hash(b)
	}
	units := make([]Unit, 0, len(route.Hosts)*len(paths))
	for _, host := range route.Hosts {
		for _, p := range paths {
			units = append(units, Unit{Host: host, Path: cleanPrefix(p), Match: match})
		}
	}
	slices.SortFunc(units, Unit.Compare)
	return slices.Compact(units)
}

// unitsOfClaims gives the units of host that claims ask for.
func unitsOfClaims(host string, claims []*wanted) []Unit {
	var units []Unit
	for _, w := range claims {
		at, _ := slices.BinarySearchFunc(w.units, Unit{Host: host}, Unit.Compare)
		for _, u := range w.units[at:] {
			if u.Host != host {
				break
			}
			units = append(units, u)
		}
	}
	if len(claims) < 2 {
		return units
	}
	slices.SortFunc(units, Unit.Compare)
	return slices.Compact(units)
}

// id tells the units of one host apart.
func (u Unit) id() string { return u.Path + u.Match }

// Compare orders units by host, path and match.
func (u Unit) Compare(v Unit) int {
	return cmp.Or(cmp.Compare(u.Host, v.Host), cmp.Compare(u.Path, v.Path), cmp.Compare(u.Match, v.Match))
}

// hash is short, and long enough that nobody finds a second text for it.
func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16]))
}
