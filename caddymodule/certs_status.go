package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// CertStatus tells where the certificate of a host stands.
type CertStatus struct {
	Host string `json:"host"`
	// Class is the issuer class that is in force.
	Class string `json:"class,omitempty"`
	// State is waiting, obtaining, ready, failed, budget (no new certificates for
	// the domain until NextTry), covered (see CoveredBy), lingering (not wanted any
	// more, soon forgotten) or gone.
	State string `json:"state"`
	// Since is when that state began.
	Since time.Time `json:"since,omitzero"`
	// CoveredBy is the wildcard whose certificate is used, or "caddy" for one of
	// Caddy's own.
	CoveredBy string `json:"covered_by,omitempty"`

	// NotBefore, NotAfter, Serial and Issuer are those of the certificate served.
	NotBefore time.Time `json:"not_before,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero"`
	Serial    string    `json:"serial,omitempty"`
	Issuer    string    `json:"issuer,omitempty"`
	// RenewAfter is when it is renewed, unless the CA wishes it at another time.
	RenewAfter time.Time `json:"renew_after,omitzero"`

	// LastError is what went wrong last, Hint what to do about it.
	LastError string `json:"last_error,omitempty"`
	Hint      string `json:"hint,omitempty"`
	// Attempts is how often issuers were asked since the host was wanted.
	Attempts int `json:"attempts,omitempty"`
	// NextTry is when they are asked again.
	NextTry time.Time `json:"next_try,omitzero"`
}

// certGone is the state of a host that was forgotten.
const certGone = "gone"

// Status tells about all hosts, sorted.
func (cs *certStore) Status() []CertStatus {
	all := []CertStatus{}
	cs.names.Range(func(host, _ any) bool {
		if st, ok := cs.StatusOf(host.(string)); ok {
			all = append(all, st)
		}
		return true
	})
	slices.SortFunc(all, func(a, b CertStatus) int { return strings.Compare(a.Host, b.Host) })
	return all
}

// StatusOf tells about one host; false if it is not known.
func (cs *certStore) StatusOf(host string) (CertStatus, bool) {
	n := cs.name(host)
	if n == nil {
		return CertStatus{Host: host, State: certGone}, false
	}
	cs.mu.Lock()
	st := CertStatus{
		Host: host, Class: *n.class.Load(), State: n.shown.String(), Since: n.since, CoveredBy: n.covered,
		LastError: n.lastErr, Hint: n.hint, Attempts: n.attempts, NextTry: n.nextTry,
	}
	cs.mu.Unlock()
	subject := host
	if isWildcard(st.CoveredBy) {
		subject = st.CoveredBy
	}
	if c, ok := cs.newest(subject); ok {
		st.NotBefore, st.NotAfter = c.Leaf.NotBefore, c.Leaf.NotAfter
		st.Serial = fmt.Sprintf("%x", c.Leaf.SerialNumber)
		st.Issuer = c.Leaf.Issuer.CommonName
		life := st.NotAfter.Sub(st.NotBefore)
		st.RenewAfter = st.NotAfter.Add(-time.Duration(float64(life) * certmagic.DefaultRenewalWindowRatio))
	}
	return st, true
}

// newest gives the cached certificate for exactly this subject.
func (cs *certStore) newest(subject string) (newest certmagic.Certificate, ok bool) {
	for _, c := range cs.exact(subject) {
		if c.Leaf != nil && (!ok || c.Leaf.NotBefore.After(newest.Leaf.NotBefore)) {
			newest, ok = c, true
		}
	}
	return newest, ok
}

// Counts gives the number of hosts in each state.
func (cs *certStore) Counts() map[string]int {
	counts := make(map[string]int, certStates)
	for s := range certStates {
		counts[s.String()] = int(cs.shown[s].Load())
	}
	return counts
}

// Renewal gives what the CA said about when to renew the certificate of a host
// (RFC 9773), from storage; false if it has said nothing.
func (cs *certStore) Renewal(ctx context.Context, host string) (acme.RenewalInfo, bool) {
	n, gen := cs.name(host), cs.cur.Load()
	if n == nil || gen == nil {
		return acme.RenewalInfo{}, false
	}
	class := gen.classes[*n.class.Load()]
	if class == nil {
		return acme.RenewalInfo{}, false
	}
	for _, iss := range class.cfg.Issuers {
		raw, err := gen.Storage.Load(ctx, certmagic.StorageKeys.SiteMeta(iss.IssuerKey(), host))
		if err != nil {
			continue
		}
		var meta certmagic.CertificateResource
		var cert acme.Certificate
		if json.Unmarshal(raw, &meta) != nil || json.Unmarshal(meta.IssuerData, &cert) != nil || cert.RenewalInfo == nil {
			continue
		}
		return *cert.RenewalInfo, true
	}
	return acme.RenewalInfo{}, false
}

// setStateLocked changes how far a name has got.
func (cs *certStore) setStateLocked(n *certName, s certState) {
	if n.gone {
		return
	}
	was := n.state
	n.state = s
	cs.showLocked(n)
	if was != s && isWildcard(n.host) {
		cs.reviewUnderLocked(n.host)
	}
}

// showLocked brings what is told about a name up to date.
func (cs *certStore) showLocked(n *certName) {
	if n.gone {
		return
	}
	shown := n.state
	if len(n.wants) == 0 {
		shown = certLingering
	}
	if shown != n.shown {
		cs.shown[n.shown].Add(-1)
		cs.shown[shown].Add(1)
		n.shown, n.since = shown, time.Now()
	}
	cs.news.add(n.host)
}

// certNews collects the hosts whose status has changed, so that those who are
// told need not keep up, and are called without a lock.
type certNews struct {
	wake chan struct{} // holds one: there is something new

	mu    sync.Mutex // guards the rest; comes after certStore.mu
	hosts []string
	known map[string]struct{}
}

func (w *certNews) add(host string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.known[host]; ok {
		return
	}
	if w.known == nil {
		w.known = make(map[string]struct{})
	}
	w.known[host] = struct{}{}
	w.hosts = append(w.hosts, host)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *certNews) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	hosts := w.hosts
	w.hosts, w.known = nil, nil
	return hosts
}

// keepHouse calls onChange, one host after the other, and takes out of the cache
// what should not be there, until the store stops.
func (cs *certStore) keepHouse() {
	for {
		select {
		case <-cs.ctx.Done():
			return
		case host := <-cs.orphans:
			if cs.name(host) == nil {
				cs.uncache(host)
			}
		case <-cs.news.wake:
			cs.tellNews()
		}
	}
}

func (cs *certStore) tellNews() {
	for _, host := range cs.news.take() {
		if cs.onChange != nil {
			st, _ := cs.StatusOf(host)
			cs.onChange(host, st)
		}
	}
}
