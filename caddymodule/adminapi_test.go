package caddymodule

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/dentropy/dentropycloud/discovery"
	"github.com/dentropy/dentropycloud/internal/upinstance"
)

// adminServer serves our routes as Caddy's admin endpoint does.
func adminServer(t *testing.T) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	for _, route := range (adminAPI{}).Routes() {
		mux.HandleFunc(route.Pattern, func(w http.ResponseWriter, r *http.Request) {
			err := route.Handler.ServeHTTP(w, r)
			var api caddy.APIError
			if errors.As(err, &api) {
				w.WriteHeader(api.HTTPStatus)
				_ = json.NewEncoder(w).Encode(map[string]string{"error": api.Err.Error()})
			} else if err != nil {
				t.Errorf("%s: %v", r.URL, err)
			}
		})
	}
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv
}

func TestAPIWithoutConfig(t *testing.T) {
	srv := adminServer(t)
	resp, err := http.Get(srv.URL + "/dentropy/routes")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status = %d, want 503", resp.StatusCode)
	}
	var answer map[string]string
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer["error"] == "" || answer["hint"] == "" {
		t.Errorf("answer = %v, %v, want an error and a hint", answer, err)
	}
}

// populate makes a world in which every kind of answer has something to say.
func populate(t *testing.T) *world {
	w := newWorld(t, nil)
	up := w.up()
	good := object("web-1", discovery.Route{Hosts: []string{"app.localhost"}, Paths: []string{"/"}, Dialect: "native"}, backend(t, "b"))
	good.Group = discovery.Group{Engine: w.name, Project: "shop", Service: "web"}
	good.Labels = map[string]string{"dentropy.host": "app.localhost", "dentropy.caddyfile": "basic_auth { secret }"}
	late := object("late", off("app.localhost"), backend(t, "late"))
	bad := discovery.Object{ID: "bad", Name: "bad", Group: discovery.Group{Engine: w.name, Service: "bad"}, State: discovery.Running,
		Problems: []discovery.Problem{{Label: "dentropy.host", Value: "bad.test/x", Reason: "has a path", Hint: "write bad.test"}}}
	up.Replace([]discovery.Object{good, object("asleep", off("asleep.test"), ""), bad})
	up.Set(late)
	up.Unknown(errors.New("dial unix: no such file"))
	s, _ := current()
	eventually(t, "the good one serves", func() bool { return s.registry.Count()["serving"] == 1 })
	return w
}

func TestAPIAgreesWithOpenAPI(t *testing.T) {
	populate(t)
	srv := adminServer(t)
	doc := readAPIDoc(t)
	var have, want []string
	for _, r := range (adminAPI{}).Routes() {
		if r.Pattern != "/dentropy/" { // answers what is not there
			have = append(have, r.Pattern)
		}
	}
	for path, ops := range doc.Paths {
		for method := range ops {
			want = append(want, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf("the API has\n%q, the document\n%q", have, want)
	}
	calls := []struct {
		path, url string
		status    int
	}{
		{"/dentropy/routes", "/dentropy/routes", 200},
		{"/dentropy/routes/{host}", "/dentropy/routes/app.localhost", 200},
		{"/dentropy/routes/{host}", "/dentropy/routes/bad.test", 200},
		{"/dentropy/routes/{host}", "/dentropy/routes/nobody.test", 404},
		{"/dentropy/why", "/dentropy/why?host=https://app.localhost:443/x", 200},
		{"/dentropy/why", "/dentropy/why?host=asleep.test", 200},
		{"/dentropy/why", "/dentropy/why?host=bad.test", 200},
		{"/dentropy/why", "/dentropy/why?host=ap.localhost", 200},
		{"/dentropy/why", "/dentropy/why", 400},
		{"/dentropy/sources", "/dentropy/sources", 200},
		{"/dentropy/certificates", "/dentropy/certificates", 200},
		{"/dentropy/events", "/dentropy/events?follow=false", 200},
		{"/dentropy/events", "/dentropy/events?since=x", 400},
		{"/dentropy/openapi.json", "/dentropy/openapi.json", 200},
	}
	for _, tt := range calls {
		t.Run(tt.url, func(t *testing.T) {
			resp, err := http.Get(srv.URL + tt.url)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			if resp.StatusCode != tt.status {
				t.Fatalf("status = %d, want %d", resp.StatusCode, tt.status)
			}
			doc.check(t, "get", tt.path, resp)
		})
	}
}

// apiDoc is the document as far as answers are held against it.
type apiDoc struct {
	Paths      map[string]map[string]operation
	Components struct {
		Schemas   map[string]schema
		Responses map[string]response
	}
}

func readAPIDoc(t *testing.T) (doc apiDoc) {
	t.Helper()
	if err := json.Unmarshal(openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// check holds an answer against the document.
func (doc apiDoc) check(t *testing.T, method, path string, resp *http.Response) {
	t.Helper()
	declared, ok := doc.Paths[path][method].Responses[fmt.Sprint(resp.StatusCode)]
	if !ok {
		t.Fatalf("the document has no status %d for %s %s", resp.StatusCode, method, path)
	}
	if name, ok := strings.CutPrefix(declared.Ref, "#/components/responses/"); ok {
		declared = doc.Components.Responses[name]
	}
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	body, ok := declared.Content[kind]
	if !ok {
		t.Fatalf("content type %q is not in the document", kind)
	}
	var values []any
	if kind == "text/event-stream" {
		scan := bufio.NewScanner(resp.Body)
		for scan.Scan() {
			if data, ok := strings.CutPrefix(scan.Text(), "data: "); ok {
				var v any
				if err := json.Unmarshal([]byte(data), &v); err != nil {
					t.Fatal(err)
				}
				values = append(values, v)
			}
		}
		if len(values) == 0 {
			t.Error("no event")
		}
	} else {
		var v any
		if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
			t.Fatal(err)
		}
		values = []any{v}
	}
	for _, v := range values {
		for _, e := range body.Schema.check(doc.Components.Schemas, "answer", v) {
			t.Error(e)
		}
	}
}

type operation struct{ Responses map[string]response }
type response struct {
	Ref     string `json:"$ref"`
	Content map[string]struct{ Schema schema }
}

// schema is the part of JSON Schema that the document uses.
type schema struct {
	Ref        string `json:"$ref"`
	Type       string
	Enum       []string
	Required   []string
	Properties map[string]schema
	Items      *schema
}

func (s schema) check(all map[string]schema, at string, v any) (errs []string) {
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		def, ok := all[name]
		if !ok {
			return []string{at + ": no schema " + name}
		}
		return def.check(all, at, v)
	}
	if len(s.Enum) > 0 {
		if text, ok := v.(string); !ok || !slices.Contains(s.Enum, text) {
			return []string{fmt.Sprintf("%s: %v is none of %v", at, v, s.Enum)}
		}
		return nil
	}
	switch v := v.(type) {
	case nil:
		return []string{at + ": null"}
	case map[string]any:
		if s.Type != "object" {
			return []string{fmt.Sprintf("%s: an object, want %q", at, s.Type)}
		}
		for _, key := range s.Required {
			if _, ok := v[key]; !ok {
				errs = append(errs, at+": "+key+" is missing")
			}
		}
		for key, value := range v {
			p, ok := s.Properties[key]
			if !ok && s.Properties != nil {
				errs = append(errs, at+": "+key+" is not in the document")
			} else if ok {
				errs = append(errs, p.check(all, at+"."+key, value)...)
			}
		}
	case []any:
		if s.Type != "array" {
			return []string{fmt.Sprintf("%s: a list, want %q", at, s.Type)}
		}
		for i, value := range v {
			errs = append(errs, s.Items.check(all, fmt.Sprintf("%s[%d]", at, i), value)...)
		}
	default:
		kinds := map[string]string{"string": "string", "bool": "boolean", "float64": "integer"}
		if f, ok := v.(float64); ok && (s.Type == "number" || f != math.Trunc(f)) {
			kinds["float64"] = "number"
		}
		if kind := kinds[fmt.Sprintf("%T", v)]; kind != s.Type {
			errs = append(errs, fmt.Sprintf("%s: %T, want %q", at, v, s.Type))
		}
	}
	return errs
}

func TestWhyTellsWhereItBreaks(t *testing.T) {
	populate(t)
	s, _ := current()
	tests := []struct {
		host string
		want []string
	}{
		{"app.localhost", []string{"web-1 (shop/web)", "answers at 127.0.0.1:", "belongs to", "use another host; another path is enough within one compose project", "ready by internal", "cannot be asked since", "so far"}},
		{"asleep.test", []string{"asleep is stopped", "TLS is off"}},
		{"bad.test", []string{"has a path write bad.test"}},
		{"ap.localhost", []string{"did you mean app.localhost?"}},
	}
	for _, tt := range tests {
		t.Run(tt.host, func(t *testing.T) {
			var text string
			check := func() bool {
				text = ""
				for _, step := range s.why(tt.host).Steps {
					text += fmt.Sprintln(step.Title, step.State, step.Text, step.Hint, step.Data)
				}
				return slices.IndexFunc(tt.want, func(w string) bool { return !strings.Contains(strings.ToLower(text), strings.ToLower(w)) }) < 0
			}
			defer func() {
				if t.Failed() {
					t.Log(text)
				}
			}()
			eventually(t, "the chain is complete", check)
			if strings.Contains(text, "secret") {
				t.Errorf("a snippet's text is shown:\n%s", text)
			}
		})
	}
}

// A static site needs no container: nothing is bad about a host that only it serves.
func TestWhyStaticSite(t *testing.T) {
	newWorld(t, nil)
	s, _ := current()
	s.static.Store(&map[string]bool{"static.test": true})
	steps := s.why("static.test").Steps
	if len(steps) == 0 || !strings.Contains(steps[0].Text, "served by the Caddyfile") {
		t.Errorf("steps = %+v, want one that names the Caddyfile", steps)
	}
	for _, step := range steps {
		if step.State == "bad" {
			t.Errorf("step = %+v, want none that is bad", step)
		}
	}
}

// No certificate can be for every name, and the answer says what to do instead.
func TestWhyCatchAll(t *testing.T) {
	w := newWorld(t, nil)
	w.up().Set(object("all", discovery.Route{Hosts: []string{"*"}}, backend(t, "all")))
	s, _ := current()
	eventually(t, "the route serves", func() bool { return s.registry.Count()["serving"] == 1 })
	for _, step := range s.why("any.localhost").Steps {
		if step.Title == "Certificate" {
			if step.State != "bad" || !strings.Contains(step.Hint, "dentropy.tls=off") {
				t.Errorf("certificate step = %+v, want a bad one that says what to do", step)
			}
			return
		}
	}
	t.Error("there is no certificate step")
}

// What a certificate fails of says what to do; ports are beside the point where
// nobody was asked.
func TestWhyCertificateHint(t *testing.T) {
	w := newWorld(t, nil)
	o := object("wild", discovery.Route{Hosts: []string{"*.wild.example.org"}}, backend(t, "wild"))
	plain := off("*.wild.example.org")
	plain.Name, plain.Paths = "plain", []string{"/plain"}
	o.Routes = append(o.Routes, plain)
	w.up().Set(o)
	s, _ := current()
	eventually(t, "the route serves", func() bool { return s.registry.Count()["serving"] > 0 })
	for _, step := range s.why("*.wild.example.org").Steps {
		if step.Title == "Certificate" {
			if step.State != "bad" || !strings.Contains(step.Text, "DNS challenge") || strings.Contains(step.Hint, "80") {
				t.Errorf("certificate step = %+v, want that it needs a DNS challenge, and no word of ports", step)
			}
			return
		}
	}
	t.Error("there is no certificate step")
}

func TestCleanHost(t *testing.T) {
	for in, want := range map[string]string{
		"app.localhost":                 "app.localhost",
		" https://App.Localhost.:443/x": "app.localhost",
		"[::1]:8443":                    "::1",
		"*.example.com":                 "*.example.com",
		"bücher.example.com":            "xn--bcher-kva.example.com",
		"http://BÜCHER.example.com/":    "xn--bcher-kva.example.com",
		"my_app.localhost":              "my_app.localhost",
		"":                              "",
	} {
		if got := cleanHost(in); got != want {
			t.Errorf("cleanHost(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestEventsFollow(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	srv := adminServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", srv.URL+"/dentropy/events", nil)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	lines := make(chan string)
	go func() {
		defer close(lines)
		scan := bufio.NewScanner(resp.Body)
		for scan.Scan() {
			lines <- scan.Text()
		}
	}()
	up.Set(object("app", off("app.test"), backend(t, "app")))
	var seen string
	for line := range lines {
		seen += line + "\n"
		if strings.Contains(line, "app.test") {
			cancel()
			break
		}
	}
	if !strings.Contains(seen, `"kind":"config"`) {
		t.Errorf("events before the subscription are missing:\n%s", seen)
	}
	for range lines { // the stream ends with its client
	}
}

func TestReloadOfUp(t *testing.T) {
	srv := adminServer(t)
	post := func() int {
		resp, err := http.Post(srv.URL+"/dentropy/reload", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	if got := post(); got != http.StatusConflict {
		t.Errorf("without up: status = %d, want 409", got)
	}
	var fails error
	defer upinstance.Register(func(context.Context) error { return fails })()
	if got := post(); got != 200 {
		t.Errorf("status = %d, want 200", got)
	}
	fails = errWrong
	if got := post(); got != http.StatusUnprocessableEntity {
		t.Errorf("a reload that fails: status = %d, want 422", got)
	}
}

func TestAPIOnOpenListenerIsRefused(t *testing.T) {
	newWorld(t, nil)
	for _, route := range (adminAPI{}).Routes() {
		if route.Pattern == "/dentropy/" || strings.HasSuffix(route.Pattern, "openapi.json") {
			continue // tell nothing
		}
		method, path, _ := strings.Cut(route.Pattern, " ")
		for local, want := range map[net.Addr]bool{
			&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 2019}: true,
			&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 2019}: false,
			&net.UnixAddr{Name: "/run/admin.sock", Net: "unix"}:  false,
		} {
			ctx, cancel := context.WithCancel(context.WithValue(t.Context(), http.LocalAddrContextKey, local))
			r := httptest.NewRequestWithContext(ctx, method, strings.Replace(path, "{host}", "x", 1)+"?follow=false", nil)
			w := httptest.NewRecorder()
			if err := route.Handler.ServeHTTP(w, r); err != nil {
				t.Errorf("%s at %s: %v", route.Pattern, local, err)
			}
			cancel()
			if refused := w.Code == http.StatusForbidden; refused != want {
				t.Errorf("%s at %s: status %d, want refused = %v", route.Pattern, local, w.Code, want)
			}
		}
	}
}
