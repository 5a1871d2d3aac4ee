package caddymodule

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
)

// certState is how far a name has got.
type certState uint8

const (
	certWaiting   certState = iota // for a worker, or for a config to start
	certObtaining                  // an issuer is being asked
	certReady
	certFailed    // tried again at nextTry, if that is set
	certBudget    // no new certificates for its domain until nextTry
	certCovered   // needs none of its own
	certLingering // nobody wants it any more; only shown
	certStates    // how many there are
)

func (s certState) String() string {
	return [certStates]string{"waiting", "obtaining", "ready", "failed", "budget", "covered", "lingering"}[s]
}

// certPhase is what is being done about a name.
type certPhase uint8

const (
	phaseIdle certPhase = iota
	phaseLoadQueued
	phaseLoading
	phaseIssueQueued
	phaseIssuing
)

// issueMode is what to ask the issuers for.
type issueMode uint8

const (
	issueNew     issueMode = iota
	issueRenewal           // the stored certificate has expired
	issueRepair            // what is stored is of no use
)

// issueJob is what a worker takes along: it works without the lock, and the
// config may change under it.
type issueJob struct {
	n     *certName
	gen   *certGen
	class *issuerClass
	mode  issueMode
}

// reviewLocked decides what a name needs now, after anything that bears on that
// has changed.
func (cs *certStore) reviewLocked(n *certName) {
	gen := cs.cur.Load()
	switch {
	case n.gone || cs.stopped || gen == nil:
		return
	case n.phase == phaseLoading || n.phase == phaseIssuing:
		n.again = true // whoever works on it calls again
		return
	}
	class := gen.classes[*n.class.Load()]
	if class == nil {
		cs.parkLocked(n, certFailed, fmt.Sprintf("no issuer %q is configured; there are: %s",
			*n.class.Load(), strings.Join(gen.classNames(), ", ")), time.Time{})
		return
	}
	if n.state == certReady && n.keys == class.keys {
		return
	}
	if by := cs.coverLocked(n, gen, class); by != "" && n.state != certReady {
		if n.state == certCovered && n.covered == by {
			return
		}
		cs.parkLocked(n, certCovered, "", time.Time{})
		n.covered = by
		return
	}
	if isWildcard(n.host) && !class.wildcards {
		cs.parkLocked(n, certFailed, fmt.Sprintf("a wildcard certificate needs a DNS challenge, and issuer %q has none: "+
			"give it one, or use tls=internal", class.name), time.Time{})
		return
	}
	switch {
	case n.phase != phaseIdle: // queued already
	case len(n.wants) == 0: // nothing new for a name that may be gone for good
	case n.nextTry.After(time.Now()):
		cs.armLocked(n)
	default:
		cs.enqueueLoadLocked(n)
	}
}

// coverLocked gives the wildcard that makes a certificate for n needless, "" if
// there is none. A wildcard that nobody has been able to get covers nothing.
func (cs *certStore) coverLocked(n *certName, gen *certGen, class *issuerClass) string {
	if n.covered == coveredByCaddy && n.state == certCovered {
		return coveredByCaddy // until issue finds out otherwise
	}
	wild := wildcardOf(n.host)
	if wild == "" {
		return ""
	}
	w := cs.name(wild)
	if w == nil {
		return ""
	}
	// Who asks for the internal CA does not get a public certificate, nor the
	// other way round; one public CA is as good as another.
	wclass := gen.classes[*w.class.Load()]
	if wclass == nil || wclass != class && (wclass.local || class.local) {
		return ""
	}
	switch w.state {
	case certReady:
		return wild
	case certWaiting, certObtaining:
		if len(w.wants) > 0 && w.failures == 0 && wclass.wildcards {
			return wild
		}
	}
	return ""
}

// coveredByCaddy stands for a certificate of Caddy's own tls app.
const coveredByCaddy = "caddy"

// reviewUnderLocked looks again at the names that a wildcard would cover.
func (cs *certStore) reviewUnderLocked(wildcard string) {
	for n := range cs.under[certParent(wildcard)] {
		if n.state == certFailed || n.state == certBudget {
			if w := cs.name(wildcard); w == nil || w.state != certReady {
				continue // no better than before
			}
		}
		cs.reviewLocked(n)
	}
}

// parkLocked ends the work on a name for now; next is when it goes on, zero for
// never by itself.
func (cs *certStore) parkLocked(n *certName, state certState, why string, next time.Time) {
	if n.gone || cs.stopped {
		cs.landLocked(n)
		return
	}
	n.phase = phaseIdle
	n.ticket++
	n.lastErr, n.hint, n.covered = why, "", ""
	n.nextTry = next
	stopTimer(&n.timer)
	cs.setStateLocked(n, state)
	cs.landLocked(n)
	if !next.IsZero() {
		cs.armLocked(n)
	}
}

// armLocked makes sure that the name is looked at again at nextTry.
func (cs *certStore) armLocked(n *certName) {
	stopTimer(&n.timer)
	n.timer = time.AfterFunc(time.Until(n.nextTry), func() {
		cs.mu.Lock()
		defer cs.mu.Unlock()
		if n.phase == phaseIdle {
			cs.reviewLocked(n)
		}
	})
}

// landLocked lets those go who wait for the name.
func (cs *certStore) landLocked(n *certName) {
	if n.flight != nil {
		close(n.flight.done)
		n.flight = nil
	}
}

// enqueueLoadLocked has the name looked up in storage, and issued if it is not
// there.
func (cs *certStore) enqueueLoadLocked(n *certName) {
	n.phase = phaseLoadQueued
	n.ticket++
	if n.flight == nil {
		n.flight = &certFlight{done: make(chan struct{})}
	}
	stopTimer(&n.timer)
	if n.state != certReady && n.failures == 0 {
		cs.setStateLocked(n, certWaiting)
	}
	cs.loads.push(certTicket{n, n.ticket}, n.failures > 0)
}

// enqueueIssueLocked has the issuers of the class asked.
func (cs *certStore) enqueueIssueLocked(n *certName, class *issuerClass, mode issueMode) {
	n.phase, n.mode = phaseIssueQueued, mode
	n.ticket++
	cs.poolOf(class).push(certTicket{n, n.ticket}, n.failures > 0)
}

func (cs *certStore) poolOf(class *issuerClass) *certPool {
	if class.local {
		return cs.local
	}
	return cs.acme
}

// claim takes a queued name to work on; false if it is not queued any more.
func (cs *certStore) claim(t certTicket, from, to certPhase) (issueJob, bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if t.n.ticket != t.ticket || t.n.phase != from {
		return issueJob{}, false
	}
	return cs.claimLocked(t.n, to)
}

func (cs *certStore) claimLocked(n *certName, to certPhase) (issueJob, bool) {
	gen := cs.cur.Load()
	if n.gone || cs.stopped || gen == nil || gen.classes[*n.class.Load()] == nil {
		n.phase = phaseIdle
		n.ticket++
		cs.landLocked(n)
		return issueJob{}, false
	}
	if len(n.wants) == 0 && n.state != certReady {
		cs.parkLocked(n, certWaiting, "", time.Time{})
		return issueJob{}, false
	}
	n.phase = to
	n.ticket++ // entries that are still queued are void
	return issueJob{n: n, gen: gen, class: gen.classes[*n.class.Load()], mode: n.mode}, true
}

// workLoad is what a worker of the loads pool does.
func (cs *certStore) workLoad(t certTicket) {
	if j, ok := cs.claim(t, phaseLoadQueued, phaseLoading); ok {
		cs.load(j)
	}
}

// load takes the certificate of a name from storage.
func (cs *certStore) load(j issueJob) {
	cert, err := j.class.cfg.CacheManagedCertificate(j.n.ctx, j.n.host)
	mode := issueNew
	switch {
	case err == nil && !cert.Expired():
		cs.settleReady(j, cert)
		return
	case err == nil:
		// The cache would have certmagic renew it too, with pauses of its own.
		cs.keepOnly(j.n.host, "")
		mode = issueRenewal
	case errors.Is(err, fs.ErrNotExist):
	case cs.unusable(j):
		cs.log().Warn("stored certificate is of no use; asking for a new one", "host", j.n.host, "error", err)
		mode = issueRepair
	default:
		cs.settleFailed(j, fmt.Errorf("load from storage: %w", err))
		return
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	n := j.n
	n.phase = phaseIdle
	if n.again || n.gone || cs.stopped {
		n.again = false
		if n.gone || cs.stopped {
			cs.landLocked(n)
			return
		}
		cs.reviewLocked(n)
		return
	}
	cs.enqueueIssueLocked(n, j.class, mode)
}

// unusable tells a stored certificate that does not fit its key, or is no
// certificate at all, from storage that cannot be read at the moment.
func (cs *certStore) unusable(j issueJob) bool {
	for _, iss := range j.class.cfg.Issuers {
		cert, err := j.gen.Storage.Load(j.n.ctx, certmagic.StorageKeys.SiteCert(iss.IssuerKey(), j.n.host))
		if err != nil {
			continue
		}
		key, err := j.gen.Storage.Load(j.n.ctx, certmagic.StorageKeys.SitePrivateKey(iss.IssuerKey(), j.n.host))
		if err != nil {
			continue
		}
		if _, err := tls.X509KeyPair(cert, key); err != nil {
			return true
		}
	}
	return false
}

// workIssue is what a worker of the other pools does.
func (cs *certStore) workIssue(t certTicket) {
	j, ok := cs.claim(t, phaseIssueQueued, phaseIssuing)
	if !ok {
		return
	}
	// Caddy's maps of names may be read once its start is over.
	if j.gen.active.Load() && j.gen.Static != nil && j.gen.Static(j.n.host) {
		cs.settleCovered(j)
		return
	}
	if !j.class.local {
		if until, why := cs.heldBack(j); until.After(time.Now()) {
			cs.settleHeld(j, until, why)
			return
		}
	}
	cs.beginAttempt(j)
	cert, err := cs.attempt(j)
	if err != nil {
		cs.settleFailed(j, err)
		return
	}
	cs.settleReady(j, cert)
}

// heldBack says until when no issuer on the network may be asked about a name.
func (cs *certStore) heldBack(j issueJob) (time.Time, error) {
	if until, why := cs.budget.paused(j.class.name, j.n.host); until.After(time.Now()) {
		return until, why
	}
	if err := cs.budget.check(j.n.ctx, j.gen.Storage, j.n.host, j.mode == issueRenewal); err != nil {
		return budgetUntil(err), err // zero for storage that cannot be read: that shows in the attempt itself
	}
	return time.Time{}, nil
}

// budgetUntil gives when the budget allows to go on, zero if err is about
// something else.
func budgetUntil(err error) time.Time {
	var spent *budgetError
	if errors.As(err, &spent) {
		return spent.Until
	}
	var hour *hourError
	if errors.As(err, &hour) {
		return hour.Until
	}
	return time.Time{}
}

// beginAttempt counts an attempt.
func (cs *certStore) beginAttempt(j issueJob) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	j.n.attempts++
	if j.n.state != certReady {
		cs.setStateLocked(j.n, certObtaining)
	}
	cs.news.add(j.n.host)
}

// attempt asks the issuers once. A panic of a plugin is an error like another.
func (cs *certStore) attempt(j issueJob) (cert certmagic.Certificate, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("issuer panicked: %v", p)
		}
	}()
	ctx, cancel := context.WithTimeout(j.n.ctx, j.gen.Tuning.Timeout)
	defer cancel()
	a := &issueAttempt{renewal: j.mode == issueRenewal}
	ctx = context.WithValue(ctx, issueAttemptKey{}, a)
	if failures := j.n.failed(cs); failures > 0 {
		// certmagic asks the CA's test endpoint first, if it has one
		ctx = context.WithValue(ctx, certmagic.AttemptsCtxKey, &failures)
	}
	cfg := j.class.cfg
	if j.mode == issueNew {
		err = cfg.ObtainCertSync(ctx, j.n.host)
	} else {
		err = cfg.RenewCertSync(ctx, j.n.host, j.mode == issueRepair)
	}
	if err != nil {
		return cert, a.result(err)
	}
	if cert, err = cfg.CacheManagedCertificate(ctx, j.n.host); err != nil {
		return cert, fmt.Errorf("load the new certificate: %w", err)
	}
	return cert, nil
}

// failed gives the number of failures in a row.
func (n *certName) failed(cs *certStore) int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return n.failures
}

// demand hurries a name that a visitor waits for, and gives the work to wait
// for, nil if there is none.
func (cs *certStore) demand(n *certName) *certFlight {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if n.gone || cs.stopped {
		return nil
	}
	if n.phase == phaseIdle && n.state == certReady {
		cs.enqueueLoadLocked(n) // ready, yet asked for: it is not in the cache, or has expired
	}
	switch n.phase {
	case phaseLoadQueued: // do not wait for the queue, it is long after a start
		flight := n.flight
		if j, ok := cs.claimLocked(n, phaseLoading); ok {
			cs.wg.Go(func() { cs.load(j) })
		}
		return flight
	case phaseIssueQueued:
		if gen := cs.cur.Load(); gen != nil {
			if class := gen.classes[*n.class.Load()]; class != nil {
				cs.poolOf(class).first(certTicket{n, n.ticket})
			}
		}
	}
	return n.flight
}
