// Package dockerengine finds and connects to a Docker Engine: what the discovery of
// containers and the backup of apps share.
//
//	ep, err := dockerengine.Resolve("", dockerengine.TLS{}, os.Getenv)
//	conn, err := ep.Dial(ctx, dockerengine.DialOptions{})
//
// An endpoint is resolved once and contacts nobody: a Unix socket, tcp with or without
// TLS, or ssh to a machine that has the docker command. Dial makes a client and pings
// the engine, and agrees with it on a version of the API. An engine behind a proxy that
// takes the version away from the answer says in its next error which version it wants:
// WantedVersion reads it, and the caller dials again with it.
//
// A client reconnects by itself for each call. What it does not do is to agree on the
// version again, after the engine was replaced by another: ping it now and then.
package dockerengine
