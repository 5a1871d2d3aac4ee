// Package native reads our own labels, dentropy.host=app.example.com and the
// like, into routes. The user's page for them is docs/labels.md.
//
//	var d native.Dialect
//	routes, problems := d.Parse(discovery.Labelled{Labels: labels, Ports: ports})
//
// # Grammar
//
//	dentropy.<key>          the default route
//	dentropy.<name>.<key>   a further route
//	dentropy.enable         the whole object
//	dentropy.app, dentropy.backup.*   read by other parts; no effect here
//
// A few first words are reserved and never name a route. Keys and names may be
// written in any case. Kubernetes annotations follow the same grammar with another
// beginning, dentropy.cloud/<key>: see New.
//
// # Algorithm
//
//	for each label that begins with the prefix: which route is it for, which key
//	dentropy.enable false: no routes, no problems
//	for each route, by name:
//		for each of its labels, by key: read the value into the route, or note why not
//		no host, or no port and not exactly one exposed: note that
//		nothing noted: the route is good
//
// # Guarantees
//
//   - Parse is pure, never panics, and the same labels give the same bytes.
//   - A label of one route never changes another (up to the limit on the number of
//     routes, which keeps the first ones by name). dentropy.enable concerns all.
//   - What was left at its default and what was written out as the default give
//     equal routes.
//
// # Not guaranteed
//
// The text of dentropy.caddyfile is passed on untouched and is untrusted; an
// issuer's or a network's name is well-formed, but need not exist.
package native
