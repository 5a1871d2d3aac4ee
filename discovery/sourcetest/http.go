package sourcetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

var versioned = regexp.MustCompile(`^/v(\d+\.\d+)(/.*)$`)

// serve answers one call.
func (e *Engine) serve(w http.ResponseWriter, r *http.Request) {
	if !e.opts.HideAPI {
		w.Header().Set("Api-Version", e.opts.API)
	}
	w.Header().Set("Ostype", "linux")
	w.Header().Set("Server", "Docker/sourcetest (linux)")
	path, version := r.URL.Path, e.opts.API
	if m := versioned.FindStringSubmatch(path); m != nil {
		version, path = m[1], m[2]
	}
	if r.Method != http.MethodGet {
		e.mu.Lock()
		e.forbidden = append(e.forbidden, r.Method+" "+path)
		e.mu.Unlock()
		if r.Method != http.MethodHead {
			fail(w, http.StatusMethodNotAllowed, "only GET is scripted")
			return
		}
	}
	name, id := route(path)
	f := e.fault(name, e.resolve(name, id))
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.Context().Done():
			return
		}
	}
	if f.Stall {
		<-r.Context().Done()
		return
	}
	if f.Status != 0 {
		fail(w, f.Status, f.Message)
		return
	}
	// The texts are dockerd's own (moby api/server/middleware/version.go).
	if less(version, e.opts.MinAPI) {
		fail(w, http.StatusBadRequest, fmt.Sprintf("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", version, e.opts.MinAPI))
		return
	}
	if less(e.opts.API, version) {
		fail(w, http.StatusBadRequest, fmt.Sprintf("client version %s is too new. Maximum supported API version is %s", version, e.opts.API))
		return
	}
	e.answer(w, r, name, id, version)
}

func (e *Engine) answer(w http.ResponseWriter, r *http.Request, name, id, version string) {
	switch name {
	case PathPing:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("OK")) // the client may be gone
	case PathVersion:
		reply(w, map[string]any{"Version": "28.0.0", "ApiVersion": e.opts.API, "MinAPIVersion": e.opts.MinAPI, "Os": "linux", "Arch": "amd64"})
	case PathInfo:
		e.mu.Lock()
		n := len(e.containers)
		e.mu.Unlock()
		reply(w, map[string]any{"ID": "sourcetest", "Containers": n, "Name": "sourcetest", "OSType": "linux"})
	case PathEvents:
		e.events(w, r, version)
	case PathList:
		e.list(w, r, version)
	case PathInspect:
		e.inspectOne(w, id, version)
	case PathNetworks, PathNetwork:
		e.network(w, name, id)
	default:
		fail(w, http.StatusNotFound, "page not found")
	}
}

// route tells which call a path is, and the id in it.
func route(path string) (name, id string) {
	switch path {
	case PathPing, PathVersion, PathInfo, PathEvents, PathList, PathNetworks:
		return path, ""
	}
	if rest, ok := strings.CutPrefix(path, "/containers/"); ok {
		if id, ok := strings.CutSuffix(rest, "/json"); ok && id != "" && !strings.Contains(id, "/") {
			return PathInspect, id
		}
	}
	if id, ok := strings.CutPrefix(path, "/networks/"); ok && id != "" && !strings.Contains(id, "/") {
		return PathNetwork, id
	}
	return path, ""
}

// resolve finds a container by id, the beginning of an id, or name. What is not
// found is returned as it is.
func (e *Engine) resolve(name, ref string) string {
	if name != PathInspect {
		return ref
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.containers[ref]; ok {
		return ref
	}
	for id, c := range e.containers {
		if c.Name == strings.TrimPrefix(ref, "/") || (len(ref) >= 4 && strings.HasPrefix(id, ref)) {
			return id
		}
	}
	return ref
}

// less compares API versions.
func less(a, b string) bool {
	am, an := split(a)
	bm, bn := split(b)
	return am < bm || am == bm && an < bn
}

func split(v string) (major, minor int) {
	a, b, _ := strings.Cut(v, ".")
	major, _ = strconv.Atoi(a) // the pattern of versioned lets digits through only
	minor, _ = strconv.Atoi(b)
	return major, minor
}

func fail(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(mustJSON(map[string]string{"message": message})) // the client may be gone
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(mustJSON(v)) // the client may be gone
}

func (e *Engine) list(w http.ResponseWriter, r *http.Request, version string) {
	all := slices.Contains([]string{"1", "true"}, r.URL.Query().Get("all"))
	if r.URL.Query().Get("filters") != "" {
		fail(w, http.StatusBadRequest, "invalid filter: not scripted")
		return
	}
	e.mu.Lock()
	parts := make([][]byte, 0, len(e.order))
	for i := len(e.order) - 1; i >= 0; i-- { // newest first, as Docker does
		c := e.containers[e.order[i]]
		if all || c.running() {
			parts = append(parts, e.listEntryLocked(c, !less(version, "1.52")))
		}
	}
	e.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	sep := []byte("[")
	for _, p := range parts {
		_, _ = w.Write(sep) // the client may be gone
		_, _ = w.Write(p)
		sep = []byte(",")
	}
	if len(parts) == 0 {
		_, _ = w.Write(sep)
	}
	_, _ = w.Write([]byte("]\n"))
}

func (e *Engine) inspectOne(w http.ResponseWriter, ref, version string) {
	id := e.resolve(PathInspect, ref)
	e.mu.Lock()
	c := e.containers[id]
	var body []byte
	if c != nil {
		body = e.inspectLocked(c, less(version, "1.52"))
	}
	e.mu.Unlock()
	if c == nil {
		fail(w, http.StatusNotFound, "No such container: "+ref)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // the client may be gone
}

func (e *Engine) network(w http.ResponseWriter, path, ref string) {
	e.mu.Lock()
	nets := make([]networkWire, 0, len(e.networks))
	for _, n := range e.networks {
		nets = append(nets, networkWire{Name: n.Name, ID: n.ID, Scope: "local", Driver: n.Driver, Internal: n.Internal, Labels: n.Labels})
	}
	e.mu.Unlock()
	sort.Slice(nets, func(i, j int) bool { return nets[i].Name < nets[j].Name })
	if path == PathNetworks {
		reply(w, nets)
		return
	}
	i := slices.IndexFunc(nets, func(n networkWire) bool { return n.ID == ref || n.Name == ref })
	if i < 0 {
		fail(w, http.StatusNotFound, "network "+ref+" not found")
		return
	}
	reply(w, nets[i])
}

// events streams what happens.
func (e *Engine) events(w http.ResponseWriter, r *http.Request, version string) {
	q := r.URL.Query()
	since, err1 := eventTime(q.Get("since"))
	until, err2 := eventTime(q.Get("until"))
	sub := &subscriber{ch: make(chan event, eventsRoom), gone: make(chan struct{})}
	err3 := sub.filter(q.Get("filters"))
	for _, err := range []error{err1, err2, err3} {
		if err != nil {
			fail(w, http.StatusBadRequest, err.Error())
			return
		}
	}
	if !until.IsZero() && until.Before(since) {
		fail(w, http.StatusBadRequest, fmt.Sprintf("`since` time (%s) cannot be after `until` time (%s)", q.Get("since"), q.Get("until")))
		return
	}
	past := e.hub.subscribe(sub, since, until)
	defer e.hub.unsubscribe(sub)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	send := func(ev event) bool {
		line := ev.wire
		if less(version, "1.52") {
			line = ev.legacy
		}
		_, err := w.Write(line)
		return err == nil && rc.Flush() == nil
	}
	if rc.Flush() != nil {
		return
	}
	for _, ev := range past {
		if !send(ev) {
			return
		}
	}
	var end <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		end = t.C
	}
	for {
		select {
		case ev := <-sub.ch:
			if !send(ev) {
				return
			}
		case <-end:
			return
		case <-sub.gone:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// filter reads the filters of /events: {"type":{"container":true}} or, in the
// oldest form, {"type":["container"]}.
func (s *subscriber) filter(text string) error {
	if text == "" {
		return nil
	}
	var in map[string]map[string]bool
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		return fmt.Errorf("invalid filter: %w", err)
	}
	for k, v := range in {
		for name, on := range v {
			switch {
			case !on:
			case k == "type":
				s.types = append(s.types, name)
			case k == "event":
				s.actions = append(s.actions, name)
			default:
				return fmt.Errorf("invalid filter %q: not scripted", k)
			}
		}
	}
	return nil
}

// eventTime reads seconds with up to nine decimals.
func eventTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	sec, frac, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(sec, 10, 64)
	if err != nil || len(frac) > 9 {
		return time.Time{}, fmt.Errorf("invalid time %q", s)
	}
	nano, err := strconv.ParseInt(frac+strings.Repeat("0", 9-len(frac)), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("invalid time %q", s)
	}
	return time.Unix(n, nano), nil
}
