package caddymodule

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/caddyserver/certmagic"
)

// settleReady ends the work on a name that has its certificate.
func (cs *certStore) settleReady(j issueJob, cert certmagic.Certificate) {
	n := j.n
	cs.keepOnly(n.host, cert.Hash()) // an expired one, or one of another class
	cs.mu.Lock()
	defer cs.mu.Unlock()
	n.phase = phaseIdle
	if n.gone {
		cs.landLocked(n)
		if !cs.stopped && cs.name(n.host) == nil {
			cs.wg.Go(func() { cs.uncache(n.host) }) // not with the lock held
		}
		return
	}
	n.failures, n.keys = 0, j.class.keys
	cs.parkLocked(n, certReady, "", time.Time{})
	cs.lookAgainLocked(n)
}

// settleCovered ends the work on a name that Caddy has a certificate for.
func (cs *certStore) settleCovered(j issueJob) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.parkLocked(j.n, certCovered, "", time.Time{})
	j.n.covered = coveredByCaddy
	cs.lookAgainLocked(j.n)
}

// settleHeld ends the work on a name that no issuer may be asked about yet.
func (cs *certStore) settleHeld(j issueJob, until time.Time, why error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.holdLocked(j.n, until, why)
	cs.lookAgainLocked(j.n)
}

// holdLocked parks a name that no issuer may be asked about before until.
func (cs *certStore) holdLocked(n *certName, until time.Time, why error) {
	state, text, hint := certFailed, why.Error(), ""
	var spent *budgetError
	var hour *hourError
	switch {
	case errors.As(why, &spent):
		state, text = certBudget, spent.Error() // without the issuer's name
	case errors.As(why, &hour) && n.lastErr != "": // what it failed of tells more
		text, hint = n.lastErr, n.hint
	}
	cs.parkLocked(n, state, text, until)
	n.hint = hint
}

// settleFailed ends the work on a name for now.
func (cs *certStore) settleFailed(j issueJob, err error) {
	now := time.Now()
	until, _ := cs.budget.limited(j.gen, j.class.name, j.n.host, err, now)
	text, hint := issueErrorText(err)
	cs.mu.Lock()
	failed := cs.failLocked(j, err, text, hint, now, until)
	attempt, next := j.n.attempts, j.n.nextTry
	cs.mu.Unlock()
	if failed { // written without the lock: a log may be slow
		cs.log().Warn("no certificate", "host", j.n.host, "issuer", j.class.name, "attempt", attempt,
			"next_try", next.Format(time.RFC3339), "error", text)
	}
}

// failLocked parks a name that has failed, until a pause and whatever the CA
// wants are over. It says whether that is news.
func (cs *certStore) failLocked(j issueJob, err error, text, hint string, now, until time.Time) bool {
	n := j.n
	n.phase = phaseIdle
	if n.gone || cs.stopped || n.ctx.Err() != nil {
		cs.landLocked(n)
		return false
	}
	if until := budgetUntil(err); !until.IsZero() { // another took the last one meanwhile
		n.attempts--
		cs.holdLocked(n, until, err)
		cs.lookAgainLocked(n)
		return false
	}
	pauses := j.gen.Tuning.Backoff
	if j.class.local {
		pauses = j.gen.Tuning.LocalBackoff
	}
	pause := pauses[min(n.failures, len(pauses)-1)]
	next := now.Add(pause + rand.N(pause/8+1)) // many names that fail together come back one by one
	if until.After(next) {
		next = until
	}
	n.failures++
	if cs.cur.Load() != j.gen {
		next = now // what failed has been replaced meanwhile; the hourly limit still holds
		n.again = true
	}
	cs.parkLocked(n, certFailed, text, next)
	n.hint = hint
	cs.lookAgainLocked(n)
	return true
}

// lookAgainLocked makes up for a review that came while the name was worked on.
func (cs *certStore) lookAgainLocked(n *certName) {
	if n.again {
		n.again = false
		cs.reviewLocked(n)
	}
}
