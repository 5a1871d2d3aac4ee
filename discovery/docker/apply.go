package docker

import (
	"context"
	"maps"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/network"
)

// applyAll applies everything that the queue held. With doubt, states are asked for
// instead of believed.
func (w *watcher) applyAll(ctx context.Context, b batch, doubt bool) {
	for _, n := range b.nets {
		w.applyNetwork(ctx, n)
	}
	for _, id := range b.order {
		n := b.of[id]
		if w.touched != nil {
			w.touched[id] = true
		}
		if w.at.inside && id == w.at.id && n.net {
			w.lookAgain(ctx)
		}
		w.apply(id, n, doubt)
	}
}

// apply brings one container up to date. It never waits.
func (w *watcher) apply(id string, n *news, doubt bool) {
	if n.life == events.ActionDestroy {
		w.remove(id, n.came)
		return
	}
	r := w.known[id]
	if r == nil {
		// The labels are in the event: most containers are none of our business.
		if w.sharers[id] != nil || (n.attrs != nil && w.read.concerns(n.attrs)) {
			w.work.want(id, n.came)
		}
		return
	}
	if doubt {
		w.work.want(id, n.came)
		return
	}
	r.facts = r.edited()
	changed := r.applyState(n)
	if n.name != "" && n.name != r.name {
		r.name, changed = n.name, true
	}
	switch {
	case n.life == events.ActionStart,
		n.life == events.ActionRestart && !r.running() && !w.work.pending(id),
		n.life == events.ActionCreate && r.partial,
		n.life == events.ActionUnPause && r.state != stateRunning,
		n.update,
		n.net && r.running() && n.netAt.After(r.started): // a stopped one is asked when it starts
		w.work.want(id, n.came)
	}
	if changed {
		w.report(r, n.came)
	}
}

// sameEnd is how far the several times that an engine has for one end (of the
// container, its events "die" and "stop") may be apart.
const sameEnd = time.Second

// applyState does what an event says by itself.
func (r *record) applyState(n *news) (changed bool) {
	switch n.life {
	case events.ActionDie, events.ActionStop, events.ActionPause, events.ActionUnPause:
		r.lives++ // the others are followed by an inspection
	}
	if n.health != "" {
		r.healths++
	}
	if n.killed {
		r.killed = true
	}
	if n.health != "" && n.life != events.ActionStart && n.health != r.health && !n.healthAt.Before(r.started) {
		r.health = n.health
		if r.state == stateRunning {
			r.since, changed = n.healthAt, true
		}
	}
	if n.at.Before(r.started) && !n.at.IsZero() {
		return changed // of an earlier life
	}
	switch n.life {
	case events.ActionDie, events.ActionStop:
		if r.state == stateExited && n.at.Sub(r.since) < sameEnd && (!n.exited || n.exit == r.exit) {
			return changed // an inspection has told of it before
		}
		if n.exited {
			r.exit, r.exited = n.exit, true
		} else if n.life == events.ActionStop && !r.running() && r.state != stateRestarting {
			return changed
		}
		r.state, r.detail, r.since, changed = stateExited, "", n.at, true
		if n.life == events.ActionDie && !r.killed && r.restarts() {
			r.state = stateRestarting
		}
	case events.ActionPause:
		r.state, r.since, changed = statePaused, n.at, true
	case events.ActionUnPause:
		if r.state == statePaused {
			r.state, r.since, changed = stateRunning, n.at, true
		}
	case events.ActionStart:
		r.killed = false
	}
	return changed
}

// restarts says that the engine starts it again by itself.
func (r *record) restarts() bool {
	switch r.restart {
	case "always", "unless-stopped":
		return true
	case "on-failure":
		return r.exited && r.exit != 0
	}
	return false
}

// applyNetwork keeps up with which networks there are.
func (w *watcher) applyNetwork(ctx context.Context, n netNews) {
	if n.gone {
		w.networks = maps.Clone(w.networks)
		delete(w.networks, n.id)
		return
	}
	if _, known := w.networks[n.id]; known || n.id == "" {
		return
	}
	w.background(ctx, func() func() {
		var in network.Inspect
		err := w.within(ctx, w.timing.call, "inspect network", func(ctx context.Context) (err error) {
			in, err = w.conn.NetworkInspect(ctx, n.id, network.InspectOptions{})
			return err
		})
		return func() {
			if err != nil { // it only helps to choose
				w.log.Debug("network is not known", "network", n.id, "error", err)
				return
			}
			w.networks = maps.Clone(w.networks)
			w.networks[in.ID] = networkInfo{driver: in.Driver, internal: in.Internal}
		}
	})
}

// lookAgain finds out about our own networks after they changed, and reports every
// route anew where that matters.
func (w *watcher) lookAgain(ctx context.Context) {
	id := w.at.id
	w.background(ctx, func() func() {
		var at place
		err := w.within(ctx, w.timing.call, "look at our own container", func(ctx context.Context) (err error) {
			at, err = findPlace(ctx, w.conn, []string{id}, w.ep.Host())
			return err
		})
		return func() {
			if err != nil {
				w.failed = err // connecting again looks again
				return
			}
			w.at = at
			for _, r := range w.known {
				w.set(r, time.Time{})
			}
		}
	})
}
