// Package dentropycmd is the command line: `dentropy up`, which is Caddy set up to
// serve containers without a configuration file, and the verbs that ask a running
// one: routes, why, certs, sources, events, reload. The verbs about backups (apps,
// backup, restore, archive, jobs) hand their work to a running one, and do it
// themselves where none runs.
//
// In the binary `dentropy` (see [Main]) the verbs stand at the top level, beside all
// commands of Caddy; in any other Caddy that has our modules they are
// `caddy dentropy VERB`.
//
// # How up works
//
//	options := flags, else environment, else defaults
//	file    := --config, adapted to JSON                 (may be absent)
//	sockets := one TCP socket per address and port, one UDP socket for HTTP/3
//	config  := build(options, file, sockets)              (pure)
//	load config into Caddy, in this process
//	on reload: read file again, build, load; the sockets stay
//
// Caddy would open the sockets itself, anew for each configuration, and lose the
// connections that wait in the queue of the old ones. So we open them once and give
// Caddy their numbers. What Caddy cannot see then (it takes the port for 0) is
// settled in the configuration: which server speaks TLS, where redirects lead, and
// which ports certificates are validated on.
//
// # How backup and restore find who works
//
//	running := --address, DENTROPY_ADMIN, the socket in the data folder, Caddy's
//	           default address if it has our API         (--local: nobody)
//	worker  := remote(running), else local: a Manager in this process, with the data
//	           folder, locks and journal that a running one would have
//	flags, answers file, questions ▸ worker.plan ▸ until the plan is ready ▸ worker.restore
//
// A running one never gets a key: the verb opens an archive itself, and sends it on
// without encryption through the socket. A signal ends the work in good order, and the
// verb waits until what ran before runs again.
//
// # Not guaranteed
//
// Ports that only a --config file mentions are opened by Caddy and blink on a reload
// as they always did. Where there are no file descriptors to hand over (Windows)
// that goes for every port.
//
// The package knows Caddy but not our modules: it speaks to them through the
// configuration and the admin API.
package dentropycmd
