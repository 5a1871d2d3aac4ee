package caddymodule

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/discovery"
)

// site is a container that stops under requests.
type site struct {
	address string
	asked   chan string   // the path of each request that has arrived, but for those that go on
	answer  chan struct{} // lets /slow be answered
	inside  atomic.Int64  // requests to /slow
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{asked: make(chan string, 100), answer: make(chan struct{})}
	ended := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.asked <- r.URL.Path
		_, _ = io.WriteString(w, r.URL.Path)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		s.inside.Add(1)
		defer s.inside.Add(-1)
		b, _ := io.ReadAll(r.Body)
		s.asked <- r.URL.Path
		select {
		case <-s.answer:
		case <-ended:
		}
		_, _ = fmt.Fprintf(w, "slowly %s", b)
	})
	mux.HandleFunc("/dies", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		s.asked <- r.URL.Path
		<-s.answer
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: one\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("/socket", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, b) != nil {
				return
			}
		}
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(ended) })
	s.address = srv.Listener.Addr().String()
	return s
}

// expect waits until a request for path has arrived.
func (s *site) expect(t *testing.T, path string) {
	t.Helper()
	select {
	case got := <-s.asked:
		if got != path {
			t.Fatalf("%s has arrived, want %s", got, path)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("%s does not arrive", path)
	}
}

type reply struct {
	status int
	body   string
	err    error
}

// ask sends a request with a body and gives the reply when it is there.
func (w *world) ask(url string) chan reply {
	out := make(chan reply, 1)
	go func() {
		resp, err := w.client.Post(url, "text/plain", strings.NewReader("body"))
		if err != nil {
			out <- reply{err: err}
			return
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		out <- reply{resp.StatusCode, string(b), err}
	}()
	return out
}

func want(t *testing.T, what string, got reply, status int, body string) {
	t.Helper()
	if got.err != nil || got.status != status || !strings.Contains(got.body, body) {
		t.Errorf("%s: %d %q, %v; want %d %q", what, got.status, got.body, got.err, status, body)
	}
}

// member is the container of that name in the app "shop".
func (b *backupWorld) member(name, host, address string) discovery.Object {
	o := object(name, off(host), address)
	o.Group = discovery.Group{Engine: b.name, Project: "shop", Service: name}
	return o
}

// down is o at rest.
func down(o discovery.Object, state discovery.State) discovery.Object {
	o.State = state
	o.Routes = []discovery.Route{o.Routes[0]}
	o.Routes[0].Endpoints = nil
	return o
}

// A backup meets requests under way: they end first; new ones wait, and are answered as
// soon as their container runs. What does not end by itself is not waited for.
func TestBackupDrains(t *testing.T) {
	for _, state := range []discovery.State{discovery.Stopped, discovery.Paused} {
		t.Run(string(state), func(t *testing.T) {
			b := newBackupWorld(t)
			up, s := b.up(), newSite(t)
			web := b.member("web", "shop.test", s.address)
			quick := newSite(t)
			unheld := b.member("db", "unheld.test", quick.address)
			unheld.Routes[0].Hold = -1
			hot, other := newSite(t), newSite(t)
			up.Replace([]discovery.Object{web, unheld, b.member("hot", "hot.test", hot.address), object("other", off("other.test"), other.address)})
			for _, host := range []string{"shop", "unheld", "hot", "other"} {
				eventually(t, host+" serves", func() bool { status, _ := b.get("http://" + host + ".test/"); return status == 200 })
			}
			for len(s.asked) > 0 {
				<-s.asked
			}
			state0, _ := current()
			conn := b.websocket("http://shop.test/socket")
			defer func() { _ = conn.CloseNow() }()
			speak(t, conn, "before")
			events, err := b.client.Get("http://shop.test/events")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = events.Body.Close() }()
			if line, err := bufio.NewReader(events.Body).ReadString('\n'); err != nil || line != "data: one\n" {
				t.Fatalf("events = %q, %v", line, err)
			}
			slow := b.ask("http://shop.test/slow")
			s.expect(t, "/slow")

			var held chan reply
			b.platform.Step = func(step string) error {
				switch step {
				case "stop:web":
					if n := s.inside.Load(); n != 0 {
						t.Errorf("%d requests are under way when the container stops", n)
					}
					speak(t, conn, "still here")
					up.Set(down(web, state))
				case "stop:db":
					up.Set(down(unheld, state))
				case "start:db":
					up.Set(unheld)
				case "start:web":
					up.Set(web)
					s.expect(t, "/held") // though the app as a whole is not back yet
					want(t, "the request that was held", <-held, 200, "/held")
				}
				return nil
			}
			if got := b.call("POST", "backups?job=0000000000d1", backup.BackupRequest{App: "shop", Encryption: "none"}, nil); got != 202 {
				t.Fatal(got)
			}
			eventually(t, "the app is about to rest", func() bool { return len(state0.backups.rest.serving([]string{s.address})) == 0 })
			held = b.ask("http://shop.test/held")
			eventually(t, "the new request waits", func() bool { return state0.holding.Load() == 1 })
			want(t, "a route that does not hold", <-b.ask("http://unheld.test/"), 503, "is being backed up")
			for _, host := range []string{"hot", "other"} {
				want(t, "a container that does not stop", <-b.ask("http://"+host+".test/x"), 200, "/x")
			}
			if n := s.inside.Load(); n != 1 || len(s.asked) != 0 {
				t.Fatalf("%d slow and %d other requests have arrived, want the one that was there before", n, len(s.asked))
			}
			close(s.answer)
			want(t, "the request that was under way", <-slow, 200, "slowly body")
			if v := b.job("0000000000d1"); v.State != "done" {
				t.Fatalf("job = %+v", v)
			}
			want(t, "afterwards", <-b.ask("http://unheld.test/after"), 200, "/after")
			if r := state0.backups.rest; len(r.about[b.name]) != 0 || r.away != nil {
				t.Errorf("left over: about %v, away %v", r.about, r.away)
			}
		})
	}
}

// Who cancels a backup that waits for requests does not wait for them, and the app serves
// on: what was held, too.
func TestCancelledDrain(t *testing.T) {
	b := newBackupWorld(t)
	up, s := b.up(), newSite(t)
	up.Replace([]discovery.Object{b.member("web", "shop.test", s.address)})
	eventually(t, "it serves", func() bool { status, _ := b.get("http://shop.test/"); return status == 200 })
	for len(s.asked) > 0 {
		<-s.asked
	}
	slow := b.ask("http://shop.test/slow")
	s.expect(t, "/slow")
	b.platform.Step = func(step string) error {
		if strings.HasPrefix(step, "stop:") {
			return errors.New("it is cancelled")
		}
		return nil
	}
	if got := b.call("POST", "backups?job=0000000000d2", backup.BackupRequest{App: "shop", Encryption: "none"}, nil); got != 202 {
		t.Fatal(got)
	}
	state, _ := current()
	eventually(t, "the app is about to rest", func() bool { return len(state.backups.rest.serving([]string{s.address})) == 0 })
	held := b.ask("http://shop.test/held")
	eventually(t, "the new request waits", func() bool { return state.holding.Load() == 1 })
	if got := b.call("DELETE", "jobs/0000000000d2", nil, nil); got/100 != 2 {
		t.Fatal(got)
	}
	if v := b.job("0000000000d2"); v.State != "cancelled" {
		t.Errorf("job = %+v", v)
	}
	s.expect(t, "/held")
	want(t, "the request that was held", <-held, 200, "/held")
	close(s.answer)
	want(t, "the request that was under way", <-slow, 200, "slowly body")
}

// A request that its container has had is not sent again, whatever becomes of it.
func TestDrainReplaysNothing(t *testing.T) {
	b := newBackupWorld(t)
	up, s := b.up(), newSite(t)
	web := b.member("web", "shop.test", s.address)
	up.Replace([]discovery.Object{web})
	eventually(t, "it serves", func() bool { status, _ := b.get("http://shop.test/"); return status == 200 })
	for len(s.asked) > 0 {
		<-s.asked
	}
	cut := b.ask("http://shop.test/dies")
	s.expect(t, "/dies")
	state, _ := current()
	rest := backup.Resting{Platform: b.name, App: "shop", Why: "backup", Containers: []string{"web"}, Back: time.Now()}
	state.backups.resting(&rest)
	close(s.answer)
	want(t, "a request that was cut", <-cut, 502, "")
	rest.Over = true
	state.backups.resting(&rest)
	want(t, "afterwards", <-b.ask("http://shop.test/after"), 200, "/after")
	s.expect(t, "/after")
}

// What a snippet has read of a body is gone: such a request is not tried again, which would
// give the container an empty one.
func TestReadBodyIsNotTriedAgain(t *testing.T) {
	for snippet, again := range map[string]bool{"reverse_proxy {\n\trequest_buffers 1MB\n}": false, "header X-A b": true} {
		t.Run(snippet, func(t *testing.T) {
			w := newWorld(t, nil)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			address := l.Addr().String()
			route := off("app.test")
			route.Caddyfile = snippet
			w.up().Set(object("app", route, address))
			s, _ := current()
			eventually(t, "it is ready", func() bool { return s.registry.Count()["serving"] == 1 })
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			answered := w.ask("http://app.test/")
			if !again {
				want(t, "a request whose body was read", <-answered, 503, "")
				return
			}
			eventually(t, "the request waits", func() bool { return s.holding.Load() == 1 })
			if l, err = net.Listen("tcp", address); err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				_, _ = fmt.Fprintf(w, "got %s", b)
			}), ReadHeaderTimeout: time.Minute}
			go func() { _ = srv.Serve(l) }()
			t.Cleanup(func() { _ = srv.Close() })
			want(t, "a request whose body was not read", <-answered, 200, "got body")
		})
	}
}
