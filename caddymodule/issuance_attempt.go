package caddymodule

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// issueAttempt goes with the context of an attempt of ours, down to the issuers.
type issueAttempt struct {
	renewal bool // takes nothing from the budget

	mu   sync.Mutex
	errs []error // of each issuer, in order
}

type issueAttemptKey struct{}

// result gives what certmagic's error means: certmagic tells of the last issuer
// only. That one of them was not asked for want of budget matters if it holds for
// all.
func (a *issueAttempt) result(err error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	asked := slices.DeleteFunc(slices.Clone(a.errs), func(err error) bool { return !budgetUntil(err).IsZero() })
	if len(asked) == 0 {
		asked = a.errs
	}
	if len(asked) == 0 {
		return err
	}
	return errors.Join(asked...)
}

// issuer is what certmagic gets to see of an issuer of a class. It takes
// certificates from the budget, keeps the error of every issuer of a class, and
// never lets certmagic ask questions on the terminal.
type issuer struct {
	certmagic.Issuer
	budget  *issuanceBudget
	storage certmagic.Storage
	counted bool
}

// ariIssuer is an issuer that knows when a certificate should be renewed.
type ariIssuer struct {
	issuer
	certmagic.RenewalInfoGetter
}

func wrapIssuer(iss certmagic.Issuer, budget *issuanceBudget, storage certmagic.Storage, counted bool) certmagic.Issuer {
	w := issuer{Issuer: iss, budget: budget, storage: storage, counted: counted}
	if ari, ok := iss.(certmagic.RenewalInfoGetter); ok {
		return ariIssuer{w, ari}
	}
	return w
}

// PreCheck implements certmagic.PreChecker.
func (i issuer) PreCheck(ctx context.Context, names []string, _ bool) error {
	if p, ok := i.Issuer.(certmagic.PreChecker); ok {
		return i.note(ctx, p.PreCheck(ctx, names, false))
	}
	return nil
}

// Issue implements certmagic.Issuer.
func (i issuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	a, ours := ctx.Value(issueAttemptKey{}).(*issueAttempt)
	if !ours || !i.counted {
		cert, err := i.Issuer.Issue(ctx, csr)
		return cert, i.note(ctx, err)
	}
	refused, err := i.budget.take(ctx, i.storage, i.IssuerKey(), csrName(csr), a.renewal)
	if err != nil {
		return nil, i.note(ctx, err)
	}
	cert, err := i.Issuer.Issue(ctx, csr)
	if err != nil {
		refused()
	}
	return cert, i.note(ctx, err)
}

// note keeps an error for the user.
func (i issuer) note(ctx context.Context, err error) error {
	if a, ours := ctx.Value(issueAttemptKey{}).(*issueAttempt); ours && err != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.errs = append(a.errs, fmt.Errorf("%s: %w", i.IssuerKey(), err))
	}
	return err
}

func csrName(csr *x509.CertificateRequest) string {
	switch {
	case len(csr.DNSNames) > 0:
		return csr.DNSNames[0]
	case len(csr.IPAddresses) > 0:
		return csr.IPAddresses[0].String()
	}
	return csr.Subject.CommonName
}

// Interface guards
var (
	_ certmagic.Issuer            = issuer{}
	_ certmagic.PreChecker        = issuer{}
	_ certmagic.RenewalInfoGetter = ariIssuer{}
	_ interface {
		GetRenewalInfo(context.Context, certmagic.Certificate) (acme.RenewalInfo, error)
	} = ariIssuer{}
)
