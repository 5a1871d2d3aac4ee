package caddymodule

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/certmagic"
	"golang.org/x/net/publicsuffix"
)

// The names of the issuer classes that every config has.
const (
	classInternal = "internal"
	classACME     = "acme"
)

// certClass decides which class of issuers a host gets its certificate from; ""
// is none. tls is the route's wish: auto (or ""), internal, off, or the name of
// one of classes. localNames are further patterns of names that get the internal
// CA: a host name, or "*." and a domain for everything below it. A wish that
// cannot be granted comes back as a problem.
func certClass(host, tls string, classes, localNames []string) (class, problem string) {
	switch tls {
	case "off":
		return "", ""
	case "", "auto":
		class = classACME
		if localName(host, localNames) {
			class = classInternal
		}
	default:
		class = tls
	}
	if host == "" || host == "*" {
		return "", "" // no name to get one for; whatever names exist bring their own
	}
	if !slices.Contains(classes, class) {
		known := append([]string{"auto", "off"}, classes...)
		slices.Sort(known[2:])
		return "", fmt.Sprintf("no issuer %q is configured; there are: %s", class, strings.Join(known, ", "))
	}
	if !certmagic.SubjectQualifiesForCert(host) {
		return "", fmt.Sprintf("no certificate can be made for %q", host)
	}
	return class, ""
}

// localDomains are domains that no public CA issues for, though some of them
// are in the list of public suffixes.
var localDomains = []string{
	"alt", "corp", "domain", "example", "fritz.box", "home", "home.arpa", "internal", "intranet", "invalid", "lan",
	"local", "localdomain", "localhost", "mail", "onion", "private", "test",
}

// localName reports whether a host is one that only the internal CA issues for:
// an address, a name without dot, in a domain for local use or in one that does
// not exist on the internet, or matched by a pattern.
func localName(host string, patterns []string) bool {
	bare := strings.TrimPrefix(host, "*.")
	if !strings.Contains(bare, ".") || certmagic.SubjectIsIP(bare) || certmagic.SubjectIsInternal(bare) {
		return true
	}
	for _, domain := range localDomains {
		if strings.HasSuffix(bare, "."+domain) || bare == domain {
			return true
		}
	}
	for _, pattern := range patterns {
		pattern = strings.ToLower(pattern)
		if host == pattern {
			return true
		}
		if below, ok := strings.CutPrefix(pattern, "*."); ok && strings.HasSuffix(bare, "."+below) {
			return true
		}
	}
	suffix, icann := publicsuffix.PublicSuffix(bare)
	return !icann && !strings.Contains(suffix, ".")
}
