// Package docker is the discovery.Source for Docker Engines: it reports the
// containers that carry routing labels, and follows them.
//
//	src, err := docker.New(docker.Config{Endpoint: "unix:///var/run/docker.sock"}, opts)
//	…
//	src.Watch(ctx, updater)
//
// # How it watches
//
//	for ever:
//	    connect, negotiate the API version
//	    subscribe to /events                    one goroutine drains it, nothing else
//	    find out where we run (host, container) and which networks exist
//	    list all containers, once               → Replace
//	    for each event, and after each inspect: → Set, Delete
//	        the labels in the event say whether it concerns us at all
//	        death, pause, health, rename: the event says everything
//	        birth, networks, update: inspect that container, once
//	        events that wait for the same container become one
//	    now and then: is the stream still alive? list again
//	    when anything breaks: Unknown, back off (at most 5 s), again
//
// A container without routing labels costs nothing beyond its line in the list.
// The events of one container never wait for those of another.
//
// # What it asks for
//
// Only GET, and only six paths, held by a guard in the HTTP client:
// /_ping, /events, /containers/json, /containers/{id}/json, /networks and
// /networks/{id}. A read-only socket proxy that lets these through is enough; the
// two network paths may be refused, which costs the order of preference between
// several networks and nothing else.
//
// # Addresses
//
// Every route gets candidates in order of preference, each with its reason: the
// network that a label names, the networks that we share (where we run in a
// container), the container's own addresses (where we run on the engine's host),
// published ports. Whoever uses them must connect to find the first that answers:
// a firewall or a rootless engine cannot be seen from here.
//
// # Not guaranteed
//
// An engine drops events for readers that are slow and keeps 256 at most for those
// who come back. The list after each connect and the periodic one mend that; in
// between, a container may be seen a few seconds late. Swarm services are seen as
// the containers of this engine only.
package docker
