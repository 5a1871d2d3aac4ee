package discovery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// probe is the state of the verification of one member's endpoint.
type probe struct {
	address string // that answered; "" if none
	reason  string // why that one
	err     error  // of the last attempt; nil if none failed
	tried   int
	at      time.Time
	cancel  context.CancelFunc
}

const (
	// probeTimeout bounds one connect: far more than a bridge or a LAN needs.
	probeTimeout = 2 * time.Second
	// A program that was just started listens after milliseconds or seconds: ask
	// often at first, then as often as costs nothing.
	probeFirst = 2 * time.Millisecond
	probeSoon  = 250 * time.Millisecond // most between two attempts in the first probeHaste
	probeLate  = 2 * time.Second        // most between two attempts after that
	probeHaste = time.Minute
)

// endpointLocked takes the endpoint of m as its source describes it now.
func (r *Registry) endpointLocked(m *member, e Endpoint, wasRunning bool) {
	same := slices.Equal(m.endpoint.Candidates, e.Candidates) && m.endpoint.Verified == e.Verified
	m.endpoint = e
	if m.object.State != Running || len(e.Candidates) == 0 {
		r.stopProbeLocked(m)
		return
	}
	if e.Verified {
		r.stopProbeLocked(m)
		r.readyLocked(m, e.Candidates[0])
		return
	}
	if same && wasRunning && (m.probe.address != "" || m.probe.cancel != nil) {
		return
	}
	r.startProbeLocked(m)
}

func (r *Registry) stopProbeLocked(m *member) {
	if m.probe.cancel != nil {
		m.probe.cancel()
	}
	had := m.probe.address != ""
	m.probe = probe{}
	if had && m.wanted != nil {
		r.changedLocked(m)
	}
}

// changedLocked notes that an address of m came or went.
func (r *Registry) changedLocked(m *member) {
	r.touched[m.wanted.key] = m.wanted
	if !m.contestedLocked(r) {
		return
	}
	for _, u := range m.wanted.units {
		r.electLocked(u.Host)
	}
}

// contestedLocked reports whether readiness may decide an election: only then is
// there more than one claim for a host of m.
func (m *member) contestedLocked(r *Registry) bool {
	return slices.ContainsFunc(m.wanted.units, func(u Unit) bool {
		h := r.hosts[u.Host]
		return h != nil && len(h.claims) > 1
	})
}

func (r *Registry) readyLocked(m *member, c Candidate) {
	if m.probe.address == c.Address {
		return
	}
	m.probe = probe{address: c.Address, reason: c.Reason, at: r.opts.Now()}
	r.changedLocked(m)
}

// startProbeLocked asks the candidates of m in turn until one answers.
func (r *Registry) startProbeLocked(m *member) {
	r.stopProbeLocked(m)
	if r.closed {
		return
	}
	ctx, cancel := context.WithCancel(r.probes)
	m.probe.cancel = cancel
	candidates := m.endpoint.Candidates
	r.probing.Go(func() {
		defer cancel()
		r.probeUntilReady(ctx, m, candidates)
	})
}

func (r *Registry) probeUntilReady(ctx context.Context, m *member, candidates []Candidate) {
	start, wait, dials := time.Now(), probeFirst, r.dials
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		c, err := r.firstAnswer(ctx, dials, candidates)
		r.update(func() {
			if ctx.Err() != nil { // overtaken by news
				return
			}
			if err == nil {
				r.readyLocked(m, c)
				return
			}
			news := m.probe.err == nil
			m.probe.err, m.probe.at = err, r.opts.Now()
			m.probe.tried++
			if news { // the page that is shown meanwhile can say it
				r.touched[m.wanted.key] = m.wanted
			}
		})
		if err == nil || ctx.Err() != nil {
			return
		}
		dials = r.dials
		if errors.Is(err, context.DeadlineExceeded) {
			dials = r.deadDials
		}
		most := probeSoon
		if time.Since(start) > probeHaste {
			most = probeLate
		}
		wait = min(wait*2, most)
		timer.Reset(wait*3/4 + rand.N(wait/2))
	}
}

// firstAnswer dials the candidates in turn, within the bounds of dials.
func (r *Registry) firstAnswer(ctx context.Context, dials chan struct{}, candidates []Candidate) (Candidate, error) {
	select {
	case dials <- struct{}{}:
		defer func() { <-dials }()
	case <-ctx.Done():
		return Candidate{}, ctx.Err()
	}
	var errs []error
	for _, c := range candidates {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		err := r.opts.Dial(ctx, c.Address)
		cancel()
		if err == nil {
			return c, nil
		}
		errs = append(errs, &dialError{c.Address, err})
	}
	return Candidate{}, errors.Join(errs...)
}

// dialError says that an address did not answer.
type dialError struct {
	address string
	err     error
}

func (e *dialError) Error() string { return e.address + " does not answer: " + dialReason(e.err) }
func (e *dialError) Unwrap() error { return e.err }

// dialReason takes the address, which is said already, off a dial error.
func dialReason(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("no answer within %s", probeTimeout)
	}
	s := err.Error()
	if i := strings.LastIndex(s, ": "); i >= 0 {
		s = s[i+2:]
	}
	return s
}

// Suspect says that address refused a connection for the wanted route key: it is
// taken out until it answers a probe again. Unknown keys and addresses are
// ignored.
func (r *Registry) Suspect(key, address string) {
	r.update(func() {
		w := r.wanted[key]
		if w == nil {
			return
		}
		for _, m := range w.members {
			if m.probe.address == address && !m.endpoint.Verified {
				r.startProbeLocked(m)
				return
			}
		}
	})
}
