package docker

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/events"
)

// wantedEvents is the filter that the engine applies. It keeps the three exec_*
// events of every health check run away from us; what is not listed here (attach,
// exec, top, resize …) says nothing about routes.
var wantedEvents = []string{
	"create", "start", "die", "stop", "kill", "pause", "unpause", "restart", "destroy", "remove",
	"rename", "update", "health_status", "connect", "disconnect",
}

// news is everything that waits to be done for one container. Any number of events
// fits: of a kind, only the last counts.
type news struct {
	// came is when the first of the events came, by our clock.
	came time.Time
	// life is the last of start, die, stop, pause, unpause, restart, destroy and
	// create; at is its time by the engine's clock.
	life   events.Action
	at     time.Time
	exit   int
	exited bool // exit is known
	killed bool // somebody sent it a signal
	health string
	// healthAt is when the health changed, by the engine's clock.
	healthAt time.Time
	name     string
	net      bool // its networks changed, last at netAt
	netAt    time.Time
	update   bool // its settings changed
	// attrs are the attributes of the last container event: its labels and more.
	// nil where only networks spoke of it.
	attrs map[string]string
}

// netNews is something about a network itself.
type netNews struct {
	id   string
	gone bool
}

// queue takes events as fast as they come and gives them out container by
// container.
type queue struct {
	wake chan struct{} // has one slot; filled when there is something to take

	mu      sync.Mutex // guards all below
	pending map[string]*news
	order   []string // ids, in order of their first event
	nets    []netNews
	seen    int64     // time of the newest event by the engine's clock, in ns
	seenAt  time.Time // the same by ours
}

func newQueue(since time.Time) *queue {
	return &queue{wake: make(chan struct{}, 1), pending: map[string]*news{}, seen: since.UnixNano(), seenAt: time.Now()}
}

// push takes one event. It never waits.
func (q *queue) push(ev events.Message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if ev.TimeNano == 0 { // all engines that are known set it; without, it is new
		ev.TimeNano = time.Now().UnixNano()
	}
	if ev.TimeNano > q.seen {
		q.seen = ev.TimeNano
	}
	q.seenAt = time.Now()
	switch ev.Type {
	case events.ContainerEventType:
		if ev.Actor.ID != "" {
			q.ofLocked(ev.Actor.ID).add(ev)
		}
	case events.NetworkEventType:
		switch ev.Action {
		case events.ActionConnect, events.ActionDisconnect:
			if id := ev.Actor.Attributes["container"]; id != "" {
				n := q.ofLocked(id)
				n.net, n.netAt = true, time.Unix(0, ev.TimeNano)
			}
		case events.ActionCreate, events.ActionDestroy, events.ActionRemove:
			q.nets = append(q.nets, netNews{ev.Actor.ID, ev.Action != events.ActionCreate})
		}
	}
	select {
	case q.wake <- struct{}{}:
	default: // it is awake already
	}
}

func (q *queue) ofLocked(id string) *news {
	n := q.pending[id]
	if n == nil {
		n = &news{came: q.seenAt}
		q.pending[id] = n
		q.order = append(q.order, id)
	}
	return n
}

// add merges an event into what waits already.
func (n *news) add(ev events.Message) {
	n.attrs = ev.Actor.Attributes
	// The engine writes "health_status: healthy"; Podman has an attribute.
	action, status, _ := strings.Cut(string(ev.Action), ": ")
	switch a := events.Action(action); a {
	case events.ActionHealthStatus:
		if status == "" {
			status = ev.Actor.Attributes["health_status"]
		}
		n.health, n.healthAt = status, time.Unix(0, ev.TimeNano)
	case events.ActionRename:
		n.name = strings.TrimPrefix(ev.Actor.Attributes["name"], "/")
	case events.ActionUpdate:
		n.update = true
	case events.ActionKill:
		n.killed = true
	case events.ActionDie:
		n.life, n.at = a, time.Unix(0, ev.TimeNano)
		for _, key := range []string{"exitCode", "containerExitCode"} { // the second is Podman's
			if code, err := strconv.Atoi(ev.Actor.Attributes[key]); err == nil {
				n.exit, n.exited = code, true
			}
		}
	case events.ActionRemove: // Podman's word
		n.life, n.at = events.ActionDestroy, time.Unix(0, ev.TimeNano)
	case events.ActionCreate, events.ActionStart, events.ActionStop, events.ActionPause, events.ActionUnPause, events.ActionDestroy:
		n.life, n.at = a, time.Unix(0, ev.TimeNano)
	case events.ActionRestart:
		if n.life == "" { // it follows start, which says as much
			n.life, n.at = a, time.Unix(0, ev.TimeNano)
		}
	}
}

// batch is what the queue held at one moment.
type batch struct {
	order []string
	of    map[string]*news
	nets  []netNews
}

// take empties the queue.
func (q *queue) take() batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := batch{q.order, q.pending, q.nets}
	q.order, q.pending, q.nets = nil, map[string]*news{}, nil
	return b
}

// newest returns the time of the newest event by the engine's clock, and when it
// came by ours.
func (q *queue) newest() (seen int64, at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.seen, q.seenAt
}
