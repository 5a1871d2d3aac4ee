package caddymodule

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/discovery"
)

const (
	// restPatience bounds how long a request waits for an app that rests: longer, and
	// browsers and proxies give up by themselves.
	restPatience = time.Minute
	// restSlack is how much later than expected an app may be back for a request that
	// waits for it.
	restSlack = 5 * time.Second
	// restRetryMost bounds what a client is told to wait: the app may be back earlier.
	restRetryMost = 10 * time.Minute
	// restReloadMost bounds how long the page waits until it loads itself again.
	restReloadMost = 30 * time.Second
)

// rests knows which apps rest, and which routes lead to them. Routes go by scope (see
// discovery.Group), apps by the ids of their containers.
type rests struct {
	mu     sync.Mutex                            // guards all below
	scopes map[string]map[string]string          // source -> object id -> scope
	now    map[string]map[string]*backup.Resting // scope -> platform and app -> what rests
}

func newRests() *rests {
	return &rests{scopes: map[string]map[string]string{}, now: map[string]map[string]*backup.Resting{}}
}

// resting is told by the Manager that an app is about to stop, or runs again.
func (b *backups) resting(r *backup.Resting) {
	if r == nil {
		return
	}
	b.rest.set(r)
	e := Event{Kind: r.Why, Object: r.App}
	if r.Over {
		e.Text = "running again"
	} else {
		e.Text = "at rest until about " + r.Back.UTC().Format(time.RFC3339)
	}
	b.state.journal.add(e)
}

func (r *rests) set(rest *backup.Resting) {
	key := rest.Platform + "\x00" + rest.App
	r.mu.Lock()
	defer r.mu.Unlock()
	for scope, all := range r.now { // what it was said to be before no longer counts
		if delete(all, key); len(all) == 0 {
			delete(r.now, scope)
		}
	}
	if rest.Over {
		return
	}
	add := func(scope string) {
		if r.now[scope] == nil {
			r.now[scope] = map[string]*backup.Resting{}
		}
		r.now[scope][key] = rest
	}
	// a compose project, or a lone container, even where the source knows it no more
	add(discovery.Group{Engine: rest.Platform, Project: rest.App}.Scope().String())
	add(discovery.Group{Engine: rest.Platform, Service: rest.App}.Scope().String())
	for _, id := range rest.Containers {
		if scope, ok := r.scopes[rest.Platform][id]; ok {
			add(scope)
		}
	}
}

// of gives what a route's app rests for; nil if it does not.
func (r *rests) of(lr *liveRoute) *backup.Resting {
	scope := lr.key[:max(0, strings.LastIndexByte(lr.key, '#'))] // see discovery's wantedKey
	r.mu.Lock()
	defer r.mu.Unlock()
	var last *backup.Resting
	for _, rest := range r.now[scope] {
		if last == nil || rest.Back.After(last.Back) {
			last = rest
		}
	}
	return last
}

// watching passes on what a source says, and takes down whose container is whose.
func (r *rests) watching(source string, up discovery.Updater) discovery.Updater {
	return &restUpdater{Updater: up, rests: r, source: source}
}

type restUpdater struct {
	discovery.Updater
	rests  *rests
	source string
}

// changing is the name of a container while a restore or an undo puts another in its
// place: the old and the new one are versions of the same, and the host stays with it.
var changing = regexp.MustCompile(`^(.+)\.(?:pre-)?(?:restore|undo)-[0-9a-f]{12}$`)

// unchanged gives an object the group that it has outside of a restore. A compose
// project is its group whatever its containers are called.
func unchanged(o discovery.Object) discovery.Object {
	if o.Group.Project != "" {
		return o
	}
	if m := changing.FindStringSubmatch(o.Group.Service); m != nil {
		o.Group.Service = m[1]
	}
	return o
}

func (u *restUpdater) Set(o discovery.Object) {
	o = unchanged(o)
	u.rests.mu.Lock()
	if u.rests.scopes[u.source] == nil {
		u.rests.scopes[u.source] = map[string]string{}
	}
	u.rests.scopes[u.source][o.ID] = o.Group.Scope().String()
	u.rests.mu.Unlock()
	u.Updater.Set(o)
}

func (u *restUpdater) Delete(id string) {
	u.rests.mu.Lock()
	delete(u.rests.scopes[u.source], id)
	u.rests.mu.Unlock()
	u.Updater.Delete(id)
}

func (u *restUpdater) Replace(objects []discovery.Object) {
	all := make(map[string]string, len(objects))
	objects = slices.Clone(objects)
	for i := range objects {
		objects[i] = unchanged(objects[i])
		all[objects[i].ID] = objects[i].Group.Scope().String()
	}
	u.rests.mu.Lock()
	u.rests.scopes[u.source] = all
	u.rests.mu.Unlock()
	u.Updater.Replace(objects)
}

// restPatienceOf is how long a request may wait: longer where an app that rests will be
// back soon. A route that does not let requests wait at all stays like that.
func (s *State) restPatienceOf(lr *liveRoute, usual time.Duration) time.Duration {
	if usual <= 0 {
		return usual
	}
	rest := s.backups.rest.of(lr)
	if rest == nil {
		return usual
	}
	left := time.Until(rest.Back)
	if left > restPatience {
		return usual // in vain anyway: the page says when it is back
	}
	return min(max(usual, left+restSlack), restPatience)
}

// restText says what an app rests for and when it is back, and how long a client is to
// wait.
func restText(rest *backup.Resting) (state, retry string) {
	state = "is being backed up"
	if rest.Why != "backup" {
		state = "is being restored"
	}
	left := time.Until(rest.Back)
	if left <= 0 {
		return state + " and will be back in a moment", retryAfter
	}
	state += " and is expected back at " + rest.Back.UTC().Format("15:04:05") + " UTC"
	if left > 24*time.Hour {
		state += " on " + rest.Back.UTC().Format(time.DateOnly)
	}
	return state, strconv.Itoa(int(math.Ceil(min(left, restRetryMost).Seconds())))
}
