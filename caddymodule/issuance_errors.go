package caddymodule

import (
	"cmp"
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// issueErrorText makes of an issuer's error what a user can read, and what to do
// about it if that is known.
func issueErrorText(err error) (text, hint string) {
	if err == nil {
		return "", ""
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var texts []string
		for _, e := range many.Unwrap() {
			t, h := issueErrorText(e)
			texts, hint = append(texts, t), cmp.Or(hint, h)
		}
		return strings.Join(texts, "; "), hint
	}
	var p acme.Problem
	if !errors.As(err, &p) {
		return acmeURLs.ReplaceAllString(err.Error(), ""), ""
	}
	kind := strings.TrimPrefix(p.Type, acme.ProblemTypeNamespace)
	text = cmp.Or(p.Detail, p.Title, "no reason given")
	for _, sub := range p.Subproblems {
		text += "; " + sub.Identifier.Value + ": " + sub.Detail
	}
	if prefix, _, ok := strings.Cut(err.Error(), ": "); ok && !strings.Contains(prefix, " ") {
		text = prefix + ": " + text // which issuer said so
	}
	if kind != "" {
		text += " (" + kind + ")"
	}
	return text, issueHints[p.Type]
}

// acmeURLs are what certmagic adds to errors for those who debug a CA.
var acmeURLs = regexp.MustCompile(` \((order|ca)=[^)]*\)`)

// issueHints says what to do about the problems that a user can do something
// about.
var issueHints = map[string]string{
	acme.ProblemTypeDNS: "make the name resolve to this host's public address, for every resolver in the world",
	acme.ProblemTypeConnection: "the CA must reach this host on port 80 or 443: forward the port, open the firewall, " +
		"or use an issuer with a DNS challenge",
	acme.ProblemTypeUnauthorized: "another server seems to answer for the name: check where its A and AAAA records lead, " +
		"and proxies or CDNs before this host",
	acme.ProblemTypeIncorrectResponse: "another server seems to answer for the name: check where its A and AAAA records lead, " +
		"and proxies or CDNs before this host",
	acme.ProblemTypeTLS:                     "something before this host ends TLS: let port 80 through, or use an issuer with a DNS challenge",
	acme.ProblemTypeCAA:                     "a CAA record of the domain forbids this CA: add the CA to it",
	acme.ProblemTypeRejectedIdentifier:      "this CA does not issue for the name: use tls=internal or another issuer",
	acme.ProblemTypeUnsupportedIdentifier:   "this CA does not issue for such names: use tls=internal or another issuer",
	acme.ProblemTypeRateLimited:             "the CA's rate limit is used up: it is asked again when the limit allows",
	acme.ProblemTypeExternalAccountRequired: "this CA wants an external account binding: set eab for the issuer",
	acme.ProblemTypeInvalidContact:          "this CA does not accept the email address: set another",
	acme.ProblemTypeUnsupportedContact:      "this CA does not accept the email address: set another",
	acme.ProblemTypeUserActionRequired:      "this CA wants its terms agreed to again",
}

// limitScope is what a CA's rate limit applies to.
type limitScope uint8

const (
	limitHost limitScope = iota
	limitDomain
	limitAccount
)

type rateLimit struct {
	until  time.Time
	scope  limitScope
	detail string
}

// rateLimitPause is how long a CA is left alone that does not say for how long.
const rateLimitPause = time.Hour

// The longest pause believed: limits of public CAs are over within a week.
const rateLimitLongest = 8 * 24 * time.Hour

// Let's Encrypt says until when in the text of the problem; the Retry-After
// header is not handed on by the ACME library.
var retryAfterText = regexp.MustCompile(`retry after (\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)`)

// issueRateLimit tells a rate limit from other errors.
func issueRateLimit(err error, host string, now time.Time) (rateLimit, bool) {
	var p acme.Problem
	if !errors.As(err, &p) || p.Type != acme.ProblemTypeRateLimited && p.Status != 429 {
		return rateLimit{}, false
	}
	limit := rateLimit{until: now.Add(rateLimitPause), detail: cmp.Or(p.Detail, "no reason given")}
	if m := retryAfterText.FindStringSubmatch(p.Detail); m != nil {
		if t, err := time.Parse(time.DateTime, m[1]+" "+m[2]); err == nil && t.After(now) && t.Sub(now) < rateLimitLongest {
			limit.until = t
		}
	}
	// "too many certificates (50) already issued for "example.com" in the last …"
	// is about the domain; "… for this exact set of identifiers" and "too many
	// failed authorizations" about the name; new orders and registrations about
	// the account or our address.
	detail := strings.ToLower(p.Detail)
	switch {
	case strings.Contains(detail, "exact set"), strings.Contains(detail, "authorizations"):
	case strings.Contains(detail, "already issued for"):
		limit.scope = limitDomain
	case strings.Contains(detail, `"`+host+`"`):
	default:
		limit.scope = limitAccount
	}
	return limit, true
}
