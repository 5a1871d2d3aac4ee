// Package caddymodule makes Caddy serve what the sources discover, without a
// config reload: importing it registers all modules of Dentropy Cloud.
//
// # How a change travels
//
// The Caddy config is static. The pooled state, which outlives configs, holds a
// discovery.Registry; the registry calls state.Apply with what changed:
//
//	Apply(change):
//	    gone:     take the rules out of the table, let the requests in flight end
//	    new:      provision the route's own chain if it has one, enter the rules
//	    upstream: store the new addresses (one pointer), wake held requests
//	    want or drop the certificates of the hosts
//
// A request looks its route up in the table, without a lock, and runs either the
// shared reverse proxy of the newest config (a plain route) or the route's own
// handler chain (one with a Caddyfile snippet). Only the latter is provisioned
// per route.
//
// # Lock order
//
// registry, then state.mu, then the certificate store. Nothing here calls the
// registry with state.mu held.
//
// # Reloads
//
// Each config load makes a new App, a generation. It prepares its proxies and
// chains in Start, takes over by one pointer store, and its predecessor's are
// cleaned up when their last request ends. If the load fails after our Start, the
// predecessor gets its role back in our Cleanup.
package caddymodule
