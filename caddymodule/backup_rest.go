package caddymodule

import (
	"maps"
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

// rests knows which apps rest, and which routes lead to them. What is said of routes goes
// by scope (see discovery.Group); whether they are served goes by the addresses of the
// containers that stop, so that those of the same app that run on serve on.
type rests struct {
	mu    sync.Mutex                            // guards all below
	known map[string]map[string]knownObject     // source -> object id -> what is known of it
	now   map[string]map[string]*backup.Resting // scope -> platform and app -> what rests
	// about are containers that are about to stop: platform -> id -> platform and app.
	// They are in here until they are seen at rest.
	about map[string]map[string]string
	// away are the addresses of those in about; nil for none.
	away map[string]bool
}

// knownObject is what is kept of a container.
type knownObject struct {
	scope     string
	addresses []string
}

func known(o *discovery.Object) knownObject {
	k := knownObject{scope: o.Group.Scope().String()}
	for i := range o.Routes {
		for _, e := range o.Routes[i].Endpoints {
			for _, c := range e.Candidates {
				if !slices.Contains(k.addresses, c.Address) {
					k.addresses = append(k.addresses, c.Address)
				}
			}
		}
	}
	return k
}

func newRests() *rests {
	return &rests{
		known: map[string]map[string]knownObject{}, now: map[string]map[string]*backup.Resting{}, about: map[string]map[string]string{},
	}
}

// resting is told by the Manager that an app is about to stop, or runs again. When it
// returns no new request is passed on to what is about to stop.
func (b *backups) resting(r *backup.Resting) {
	if r == nil {
		return
	}
	b.rest.set(r)
	b.state.reserve()
	e := Event{Kind: r.Why, Object: r.App}
	if r.Over {
		e.Text = "running again"
	} else {
		e.Text = "at rest until about " + r.Back.UTC().Format(time.RFC3339)
	}
	b.state.journal.add(e)
}

// restKey tells apps apart.
func restKey(rest *backup.Resting) string { return rest.Platform + "\x00" + rest.App }

func (r *rests) set(rest *backup.Resting) {
	key := restKey(rest)
	r.mu.Lock()
	defer r.mu.Unlock()
	for scope, all := range r.now { // what it was said to be before no longer counts
		if delete(all, key); len(all) == 0 {
			delete(r.now, scope)
		}
	}
	maps.DeleteFunc(r.about[rest.Platform], func(_, of string) bool { return of == key })
	defer r.awayLocked()
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
	if r.about[rest.Platform] == nil {
		r.about[rest.Platform] = map[string]string{}
	}
	for _, id := range rest.Containers {
		r.about[rest.Platform][id] = key
		if k, ok := r.known[rest.Platform][id]; ok {
			add(k.scope)
		}
	}
}

// awayLocked finds out which addresses lead to what is about to stop.
func (r *rests) awayLocked() {
	r.away = nil
	for source, ids := range r.about {
		if len(ids) == 0 {
			delete(r.about, source)
			continue
		}
		for id := range ids {
			for _, address := range r.known[source][id].addresses {
				if r.away == nil {
					r.away = map[string]bool{}
				}
				r.away[address] = true
			}
		}
	}
}

// serving leaves out the addresses of what is about to stop.
func (r *rests) serving(ready []string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.away) == 0 {
		return ready
	}
	return slices.DeleteFunc(slices.Clone(ready), func(address string) bool { return r.away[address] })
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
	u.rests.learn(u.source, o)
	u.Updater.Set(o)
	u.rests.learned(u.source, o)
}

func (u *restUpdater) Delete(id string) {
	u.Updater.Delete(id)
	u.rests.forget(u.source, func(of string) bool { return of == id })
}

func (u *restUpdater) Replace(objects []discovery.Object) {
	objects = slices.Clone(objects)
	there := make(map[string]bool, len(objects))
	for i := range objects {
		objects[i] = unchanged(objects[i])
		there[objects[i].ID] = true
	}
	u.rests.learn(u.source, objects...)
	u.Updater.Replace(slices.Clone(objects)) // which sorts it
	u.rests.learned(u.source, objects...)
	u.rests.forget(u.source, func(id string) bool { return !there[id] })
}

// atRest reports whether a container in state s has no requests any more.
func atRest(s discovery.State) bool {
	return s == discovery.Stopped || s == discovery.Paused
}

// learn takes down what a source says, before routes do. What is about to stop keeps the
// addresses that routes still lead to.
func (r *rests) learn(source string, objects ...discovery.Object) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known[source] == nil {
		r.known[source] = make(map[string]knownObject, len(objects))
	}
	stops := false
	for i := range objects {
		o := &objects[i]
		k := known(o)
		if _, ok := r.about[source][o.ID]; ok {
			k.addresses = append(k.addresses, r.known[source][o.ID].addresses...)
			stops = true
		}
		r.known[source][o.ID] = k
	}
	if stops {
		r.awayLocked()
	}
}

// learned comes after learn, when routes are as the source says. From when a container is
// seen at rest, its state alone says whether it is served, as at any other time: it is in
// no route now, and comes back when it runs, which may be long before all of the app does.
func (r *rests) learned(source string, objects ...discovery.Object) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.about[source]) == 0 {
		return
	}
	for i := range objects {
		o := &objects[i]
		if _, ok := r.about[source][o.ID]; !ok {
			continue
		}
		r.known[source][o.ID] = known(o)
		if atRest(o.State) {
			delete(r.about[source], o.ID)
		}
	}
	r.awayLocked()
}

// forget drops containers that are gone.
func (r *rests) forget(source string, gone func(id string) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.known[source], func(id string, _ knownObject) bool { return gone(id) })
	maps.DeleteFunc(r.about[source], func(id, _ string) bool { return gone(id) })
	r.awayLocked()
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
