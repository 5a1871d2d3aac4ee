// Package discovery knows what should be routed: it follows sources (Docker
// engines, Kubernetes), reads the labels of what they hold, settles who owns
// which host, verifies that the backends answer, and hands the result on as a
// stream of small changes. It imports the standard library only and knows
// nothing of Caddy.
//
// # Glossary
//
//   - source: something that is watched and holds objects (one Docker engine).
//   - object: one thing of a source that may ask for routes (a container).
//   - dialect: a language of labels; text in, routes out, pure.
//   - route: hosts and paths, and how requests for them are handled.
//   - unit: one host + path + matchers, the smallest thing that is owned.
//   - group: who asks: engine, project (compose project or namespace), service.
//   - endpoint: one address that may serve a route; ready once it has answered a
//     TCP connect.
//   - wanted route: the routes of one project that ask for the same thing, merged:
//     one specification, the units that were granted, the endpoints of all
//     replicas. It is what a consumer serves.
//
// # Flow
//
//	source ── Set/Delete/Replace/Unknown ──▶ Registry ── Change ──▶ consumer (a Sink)
//	                                          │   ▲
//	                                          ▼   │ ready / not ready
//	                                          prober
//
// The work for one event depends on what that object asks for, never on how many
// objects or routes there are. An error of a source means "unknown": what was
// last known stays, marked stale.
//
// # Not guaranteed
//
// A consumer may see an endpoint as ready that has just died: it must treat a
// refused connection as news (Registry.Suspect) and try again.
package discovery
