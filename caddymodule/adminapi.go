package caddymodule

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/dentropy/dentropycloud/discovery"
	"github.com/dentropy/dentropycloud/internal/upinstance"
	"golang.org/x/net/idna"
)

func init() { caddy.RegisterModule(adminAPI{}) }

// adminAPI is the part of Caddy's admin endpoint below /dentropy/. A value is
// made for each admin server before the apps of its config exist, and is never
// cleaned up: it keeps nothing and looks the state up at each request.
type adminAPI struct{}

// CaddyModule returns the Caddy module information.
func (adminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.dentropy", New: func() caddy.Module { return new(adminAPI) }}
}

// Routes gives the routes of the API; openapi.json describes them.
func (adminAPI) Routes() []caddy.AdminRoute {
	handle := func(f func(*State, http.ResponseWriter, *http.Request) error) caddy.AdminHandler {
		return guarded(func(w http.ResponseWriter, r *http.Request) error {
			s, err := current()
			var problem apiProblem
			if errors.As(err, &problem) {
				return fail(w, http.StatusServiceUnavailable, problem, "")
			}
			return f(s, w, r)
		})
	}
	return append(backupRoutes(), []caddy.AdminRoute{
		{Pattern: "GET /dentropy/routes", Handler: handle(getRoutes)},
		{Pattern: "GET /dentropy/routes/{host}", Handler: handle(getRoutesOf)},
		{Pattern: "GET /dentropy/why", Handler: handle(getWhy)},
		{Pattern: "GET /dentropy/sources", Handler: handle(getSources)},
		{Pattern: "GET /dentropy/certificates", Handler: handle(getCertificates)},
		{Pattern: "GET /dentropy/events", Handler: handle(getEvents)},
		{Pattern: "POST /dentropy/reload", Handler: guarded(postReload)},
		{Pattern: "GET /dentropy/openapi.json", Handler: caddy.AdminHandlerFunc(getOpenAPI)},
		{Pattern: "/dentropy/", Handler: caddy.AdminHandlerFunc(notFound)},
	}...)
}

// guarded refuses whoever comes through a listener that anybody on the network
// can reach: access to the admin API is as good as root. Unix sockets, loopback
// and Caddy's remote admin, which identifies clients by their certificates, are
// fine.
func guarded(f caddy.AdminHandlerFunc) caddy.AdminHandler {
	return caddy.AdminHandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		if ap, ok := local.(*net.TCPAddr); ok && r.TLS == nil && !ap.IP.IsLoopback() {
			return fail(w, http.StatusForbidden, apiProblem{
				"the admin API listens on " + ap.String() + ", where anybody can reach it without a password",
				"set admin to a unix socket or a loopback address, or use Caddy's remote admin",
			}, "")
		}
		return f(w, r)
	})
}

// openAPI describes the API; a test holds it against Routes and the answers.
//
//go:embed openapi.json
var openAPI []byte

// apiProblem is an error with what to do about it; fail answers with it.
type apiProblem struct {
	Message string
	Hint    string
}

func (p apiProblem) Error() string {
	if p.Hint == "" {
		return p.Message
	}
	return p.Message + "; " + p.Hint
}

func answer(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	return json.NewEncoder(w).Encode(v)
}

// fail answers with the error as JSON: error, hint, and the object concerned.
func fail(w http.ResponseWriter, status int, problem apiProblem, object string) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(map[string]string{"error": problem.Message, "hint": problem.Hint, "object": object})
}

func getRoutes(s *State, w http.ResponseWriter, _ *http.Request) error {
	return answer(w, map[string]any{"routes": s.views(s.registry.Routes())})
}

func getRoutesOf(s *State, w http.ResponseWriter, r *http.Request) error {
	host := cleanHost(r.PathValue("host"))
	views := s.views(s.registry.RoutesFor(host))
	if len(views) == 0 {
		return fail(w, http.StatusNotFound, apiProblem{"no container or object asks for " + host, "see all with: dentropy routes"}, host)
	}
	return answer(w, map[string]any{"routes": views})
}

// views adds what only this side knows: a chain that could not be provisioned.
func (s *State) views(views []discovery.RouteView) []discovery.RouteView {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range views {
		lr := s.routes[views[i].Key]
		if lr == nil {
			continue
		}
		if err := lr.failed.Load(); err != nil {
			views[i].Problems = append(views[i].Problems, discovery.Problem{Label: "dentropy.caddyfile", Reason: (*err).Error()})
		}
	}
	return views
}

func getSources(s *State, w http.ResponseWriter, _ *http.Request) error {
	return answer(w, map[string]any{"sources": s.registry.Sources()})
}

func getCertificates(s *State, w http.ResponseWriter, _ *http.Request) error {
	list := s.certs.Status()
	if list == nil {
		list = []CertStatus{}
	}
	return answer(w, map[string]any{"certificates": list})
}

func getWhy(s *State, w http.ResponseWriter, r *http.Request) error {
	host := cleanHost(r.URL.Query().Get("host"))
	if host == "" {
		return fail(w, http.StatusBadRequest, apiProblem{"the parameter host is missing", "ask for /dentropy/why?host=app.example.com"}, "")
	}
	return answer(w, s.why(host))
}

// cleanHost takes what people paste instead of a host name: a URL, a port, upper
// case, letters of other scripts.
func cleanHost(text string) string {
	text = strings.ToLower(strings.TrimSpace(text))
	if _, rest, ok := strings.Cut(text, "://"); ok {
		text = rest
	}
	text, _, _ = strings.Cut(text, "/")
	host := discovery.RequestHost(&http.Request{Host: text})
	if ascii, err := idna.Lookup.ToASCII(host); err == nil {
		return ascii
	}
	return host // a wildcard, an IPv6 address, or no name at all
}

// heartbeat is how often a silent stream says that it lives, below the minute
// after which proxies cut idle connections.
const heartbeat = 15 * time.Second

// getEvents streams events as server-sent events, those that are kept first.
// ?since=<seq> leaves out older ones; ?follow=false ends after the kept ones.
func getEvents(s *State, w http.ResponseWriter, r *http.Request) error {
	since, err := strconv.ParseInt(r.URL.Query().Get("since"), 10, 64)
	if err != nil && r.URL.Query().Get("since") != "" {
		return fail(w, http.StatusBadRequest, apiProblem{"since is not a number", "give the seq of the last event you have"}, "")
	}
	rc := http.NewResponseController(w)
	// the admin server's read timeout would end the request's context
	if err := rc.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	send := func(e Event) error {
		b, err := json.Marshal(e)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "id: %d\ndata: %s\n\n", e.Seq, b)
		return err
	}
	kept, following := s.journal.subscribe(r.Context(), since)
	for _, e := range kept {
		if err := send(e); err != nil {
			return nil // the client has gone
		}
	}
	if err := rc.Flush(); err != nil || r.URL.Query().Get("follow") == "false" {
		return nil
	}
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		select {
		case e := <-following:
			if err := send(e); err != nil {
				return nil
			}
		case <-tick.C:
			if _, err := fmt.Fprint(w, ": still here\n\n"); err != nil {
				return nil
			}
		case <-r.Context().Done():
			return nil
		case <-s.ended:
			return nil
		}
		if err := rc.Flush(); err != nil {
			return nil
		}
	}
}

func postReload(w http.ResponseWriter, r *http.Request) error {
	err := upinstance.Reload(r.Context())
	switch {
	case errors.Is(err, upinstance.ErrNone):
		return fail(w, http.StatusConflict, apiProblem{"this program was not started with `dentropy up`", "give the config: dentropy reload --config Caddyfile"}, "")
	case err != nil:
		return fail(w, http.StatusUnprocessableEntity, apiProblem{err.Error(), "the config from before is still in force"}, "")
	}
	return answer(w, map[string]string{"status": "reloaded"})
}

func getOpenAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	_, err := w.Write(openAPI)
	return err
}

func notFound(w http.ResponseWriter, r *http.Request) error {
	return fail(w, http.StatusNotFound, apiProblem{"there is no " + r.Method + " " + r.URL.Path, "GET /dentropy/openapi.json lists what there is"}, "")
}

// Interface guards
var _ caddy.AdminRouter = adminAPI{}
