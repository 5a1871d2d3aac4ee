package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"golang.org/x/net/publicsuffix"
)

// issuanceBudget keeps us within the limits of CAs: it counts the new
// certificates asked for per registered domain, so that a crowd of new names
// never runs into the CA's own limit, which would keep every name of the domain
// without certificate for days; and the failures of each name, so that the name
// is not locked out for an hour. Both are kept in Caddy's storage, one key per
// domain, so that neither a restart nor a crash loop starts anew, and shared by
// all that share the storage. Renewals take no certificate: CAs do not count
// them.
type issuanceBudget struct {
	mu      sync.Mutex // guards all below; not held during I/O
	most    int        // certificates per domain and window; negative: no limit
	window  time.Duration
	perHour int                       // attempts per name; negative: no limit
	spent   map[string]issuanceRecord // by domain, as last seen in storage
	pauses  map[string]issuancePause  // by class, domain or host: what a CA has told us
	turns   map[string]chan struct{}  // by domain: one goroutine at a time changes its record
}

// issuanceRecord is what storage holds of a domain.
type issuanceRecord struct {
	// Issued are certificates that were asked for and not refused.
	Issued []issuanceEntry `json:"issued,omitempty"`
	// Failed are refusals of the last hour.
	Failed []issuanceEntry `json:"failed,omitempty"`
}

type issuanceEntry struct {
	Host   string    `json:"host"`
	Issuer string    `json:"issuer"`
	Time   time.Time `json:"time"`
}

type issuancePause struct {
	until time.Time
	why   error
}

// budgetError says that a domain has no new certificates left.
type budgetError struct {
	Domain string
	Most   int
	Window time.Duration
	Until  time.Time
}

func (e *budgetError) Error() string {
	return fmt.Sprintf("%d new certificates for %s within %s are used up, the next is asked for at %s",
		e.Most, e.Domain, certDays(e.Window), e.Until.UTC().Format(time.RFC3339))
}

// hourError says that a name was asked for as often as CAs stand.
type hourError struct {
	Host  string
	Until time.Time
}

func (e *hourError) Error() string {
	return fmt.Sprintf("%s was asked for too often within an hour, it is tried again at %s", e.Host, e.Until.UTC().Format(time.RFC3339))
}

func certDays(d time.Duration) string {
	if days := d / (24 * time.Hour); days > 0 && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%d days", days)
	}
	return d.String()
}

func newIssuanceBudget() *issuanceBudget {
	t := certTuning{}.withDefaults()
	return &issuanceBudget{
		most:    t.Budget,
		window:  t.BudgetWindow,
		perHour: t.PerHour,
		spent:   make(map[string]issuanceRecord),
		pauses:  make(map[string]issuancePause),
		turns:   make(map[string]chan struct{}),
	}
}

// limit changes how much may be spent.
func (b *issuanceBudget) limit(t certTuning) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.most, b.window, b.perHour = t.Budget, t.BudgetWindow, t.PerHour
}

// registeredDomain gives the domain by which CAs count a host.
func registeredDomain(host string) string {
	host = strings.TrimPrefix(host, "*.")
	if certmagic.SubjectIsIP(host) {
		return host
	}
	if domain, err := publicsuffix.EffectiveTLDPlusOne(host); err == nil {
		return domain
	}
	return host
}

// budgetKey is where storage holds the record of a domain. The domain of an IPv6
// address has colons, which not every storage can have in a key.
func budgetKey(domain string) string {
	return "dentropy/issuance/" + strings.ReplaceAll(domain, ":", "_") + ".json"
}

// check says whether issuers may be asked about host now, for a new certificate
// or only for a renewal; if not, the error is a *budgetError or an *hourError. It
// reads storage only if the domain is new to this process or the answer would be
// no.
func (b *issuanceBudget) check(ctx context.Context, storage certmagic.Storage, host string, renewal bool) error {
	domain := registeredDomain(host)
	b.mu.Lock()
	rec, known := b.spent[domain]
	refusal := b.refuseLocked(rec, domain, host, renewal, time.Now())
	b.mu.Unlock()
	if known && refusal == nil {
		return nil
	}
	rec, err := loadBudget(ctx, storage, domain)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent[domain] = rec
	return b.refuseLocked(rec, domain, host, renewal, time.Now())
}

// refuseLocked gives the error if rec does not allow to ask about host.
func (b *issuanceBudget) refuseLocked(rec issuanceRecord, domain, host string, renewal bool, now time.Time) error {
	if !renewal && b.most >= 0 {
		if recent := recentEntries(rec.Issued, b.window, now); len(recent) >= b.most {
			until := now.Add(b.window)
			if b.most > 0 {
				until = recent[len(recent)-b.most].Time.Add(b.window)
			}
			return &budgetError{Domain: domain, Most: b.most, Window: b.window, Until: until}
		}
	}
	if b.perHour <= 0 {
		return nil
	}
	var until time.Time
	byIssuer := map[string][]time.Time{} // each CA counts for itself
	for _, e := range recentEntries(append(slices.Clone(rec.Failed), rec.Issued...), time.Hour, now) {
		if e.Host != host {
			continue
		}
		times := append(byIssuer[e.Issuer], e.Time)
		byIssuer[e.Issuer] = times
		if len(times) >= b.perHour {
			if t := times[len(times)-b.perHour].Add(time.Hour); t.After(until) {
				until = t
			}
		}
	}
	if !until.IsZero() {
		return &hourError{Host: host, Until: until}
	}
	return nil
}

// budgetSkew is how far in the future an entry may be: another host that shares
// the storage may have a clock that is ahead. More than that was written while
// the clock was wrong, as it is on small computers after a start.
const budgetSkew = time.Hour

// recentEntries gives the entries that are not older than window, oldest first.
func recentEntries(entries []issuanceEntry, window time.Duration, now time.Time) []issuanceEntry {
	var recent []issuanceEntry
	for _, e := range entries {
		if age := now.Sub(e.Time); age > -budgetSkew && age < window {
			recent = append(recent, e)
		}
	}
	slices.SortStableFunc(recent, func(x, y issuanceEntry) int { return x.Time.Compare(y.Time) })
	return recent
}

// take takes one certificate for host from the budget, nothing for a renewal; if
// it must not, the error is a *budgetError or an *hourError. The caller says so if
// the issuer has refused.
func (b *issuanceBudget) take(ctx context.Context, storage certmagic.Storage, issuer, host string, renewal bool) (refused func(), err error) {
	domain := registeredDomain(host)
	entry := issuanceEntry{Host: host, Issuer: issuer, Time: time.Now().UTC()}
	if renewal {
		err = b.check(ctx, storage, host, true)
	} else {
		err = b.change(ctx, storage, domain, func(rec issuanceRecord) (issuanceRecord, error) {
			if err := b.refuseLocked(rec, domain, host, false, entry.Time); err != nil {
				return rec, err
			}
			rec.Issued = append(recentEntries(rec.Issued, b.window, entry.Time), entry)
			return rec, nil
		})
	}
	if err != nil {
		return nil, err
	}
	return func() {
		// Left undone, one too many is counted: the safe side. It must not depend on
		// the attempt, which may have been cancelled.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), budgetStorageTime)
		defer cancel()
		_ = b.change(ctx, storage, domain, func(rec issuanceRecord) (issuanceRecord, error) {
			rec.Issued = slices.DeleteFunc(slices.Clone(rec.Issued), func(e issuanceEntry) bool {
				return e.Host == entry.Host && e.Issuer == entry.Issuer && e.Time.Equal(entry.Time)
			})
			rec.Failed = append(recentEntries(rec.Failed, time.Hour, time.Now()), entry)
			return rec, nil
		})
	}, nil
}

// budgetStorageTime bounds noting a refusal.
const budgetStorageTime = 30 * time.Second

// change changes the record of a domain in storage. f is called with mu held.
func (b *issuanceBudget) change(ctx context.Context, storage certmagic.Storage, domain string, f func(issuanceRecord) (issuanceRecord, error)) (err error) {
	done, err := b.turn(ctx, domain)
	if err != nil {
		return err
	}
	defer done()
	// Others may share the storage.
	lock := "dentropy_issuance_" + domain
	if err := storage.Lock(ctx, lock); err != nil {
		return fmt.Errorf("lock the issuance budget of %s: %w", domain, err)
	}
	defer func() {
		unlockErr := storage.Unlock(context.WithoutCancel(ctx), lock)
		if unlockErr != nil && err == nil {
			err = fmt.Errorf("unlock the issuance budget of %s: %w", domain, unlockErr)
		}
	}()
	rec, err := loadBudget(ctx, storage, domain)
	if err != nil {
		return err
	}
	b.mu.Lock()
	rec, err = f(rec)
	b.spent[domain] = rec
	b.mu.Unlock()
	if err != nil {
		return err
	}
	raw, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("encode the issuance budget of %s: %w", domain, err)
	}
	if err := storage.Store(ctx, budgetKey(domain), raw); err != nil {
		return fmt.Errorf("store the issuance budget of %s: %w", domain, err)
	}
	return nil
}

// turn waits until no other goroutine changes the record of a domain. Storage
// locks do that too, but poll.
func (b *issuanceBudget) turn(ctx context.Context, domain string) (done func(), err error) {
	b.mu.Lock()
	turn := b.turns[domain]
	if turn == nil {
		turn = make(chan struct{}, 1)
		b.turns[domain] = turn
	}
	b.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func loadBudget(ctx context.Context, storage certmagic.Storage, domain string) (issuanceRecord, error) {
	var rec issuanceRecord
	raw, err := storage.Load(ctx, budgetKey(domain))
	if errors.Is(err, fs.ErrNotExist) {
		return rec, nil
	}
	if err != nil {
		return rec, fmt.Errorf("load the issuance budget of %s: %w", domain, err)
	}
	if err := json.Unmarshal(raw, &rec); err != nil {
		return rec, fmt.Errorf("read the issuance budget of %s (delete %q in the storage to start anew): %w",
			domain, budgetKey(domain), err)
	}
	return rec, nil
}

// paused gives until when, by what a CA has said, it is not to be asked about
// host, and why.
func (b *issuanceBudget) paused(class, host string) (time.Time, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var longest issuancePause
	for _, key := range []string{pauseClass(class), pauseName(class, registeredDomain(host)), pauseName(class, host)} {
		p, ok := b.pauses[key]
		if ok && !p.until.After(time.Now()) {
			delete(b.pauses, key)
		} else if p.until.After(longest.until) {
			longest = p
		}
	}
	return longest.until, longest.why
}

// limited notes what a CA's rate limit says, and gives until when it holds; false
// if err is no rate limit.
func (b *issuanceBudget) limited(gen *certGen, class, host string, err error, now time.Time) (time.Time, bool) {
	limit, ok := issueRateLimit(err, host, now)
	if !ok || gen.classes[class] != nil && gen.classes[class].local {
		return time.Time{}, false
	}
	key := pauseName(class, host)
	switch limit.scope {
	case limitAccount:
		key = pauseClass(class)
	case limitDomain:
		key = pauseName(class, registeredDomain(host))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pauses[key] = issuancePause{limit.until, fmt.Errorf("the CA's rate limit holds until %s: %s",
		limit.until.UTC().Format(time.RFC3339), limit.detail)}
	return limit.until, true
}

func pauseClass(class string) string      { return class }
func pauseName(class, name string) string { return class + " " + name }
