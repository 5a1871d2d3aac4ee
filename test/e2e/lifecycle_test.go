package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestContainerBecomesSite(t *testing.T) {
	e, d := newEngine(t), up(t)
	began := time.Now()
	e.run(site("hello", "hello.localhost")) // one label; the port is the exposed one
	eventually(t, "the site answers", d.servedBy("hello.localhost", "/some/path", "hello"))
	t.Logf("from docker run to the first answer over HTTPS: %v", time.Since(began))

	a, err := d.get("hello.localhost", "/some/path?q=1")
	if err != nil {
		t.Fatal(err)
	}
	if a.proto != "HTTP/2.0" {
		t.Errorf("protocol is %s, want HTTP/2.0", a.proto)
	}
	if want := fmt.Sprintf("hello.localhost:%d", d.https); a.Host != want || a.Path != "/some/path" {
		t.Errorf("the container saw host %q and path %q, want %q and /some/path", a.Host, a.Path, want)
	}
	if got := a.Headers.Get("X-Forwarded-Proto"); got != "https" {
		t.Errorf("X-Forwarded-Proto is %q", got)
	}
	if !strings.Contains(a.header.Get("Alt-Svc"), fmt.Sprintf(`h3=":%d"`, d.https)) {
		t.Errorf("Alt-Svc is %q, want HTTP/3 on port %d", a.header.Get("Alt-Svc"), d.https)
	}

	a3, err := d.getHTTP3("hello.localhost", "/")
	if err != nil || a3.Name != "hello" || a3.proto != "HTTP/3.0" {
		t.Errorf("over HTTP/3: %+v, %v", a3, err)
	}
	d.openSocket("hello.localhost").mustBeOpen(t)

	c, err := d.client(false)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := fetch(c, fmt.Sprintf("http://hello.localhost:%d/x?y=z", d.http))
	if err != nil || plain.status != http.StatusPermanentRedirect || plain.header.Get("Location") != d.url("hello.localhost", "/x?y=z") {
		t.Errorf("plain HTTP: %d to %q, %v; want a redirect to HTTPS", plain.status, plain.header.Get("Location"), err)
	}
	plain, err = fetch(c, fmt.Sprintf("http://other.localhost:%d/", d.http))
	if err != nil || plain.status != http.StatusNotFound {
		t.Errorf("plain HTTP for an unknown host: %d, %v; want 404", plain.status, err)
	}
	if err := d.handshake("other.localhost"); err == nil {
		t.Error("an unknown host has got a certificate")
	}

	out, err := d.run("why", "hello.localhost")
	if err != nil || !strings.Contains(out, "asks for hello.localhost") || !strings.Contains(out, "Certificate") {
		t.Errorf("dentropy why: %v\n%s", err, out)
	}
	if out, err = d.run("routes"); err != nil || !strings.Contains(out, "hello.localhost") {
		t.Errorf("dentropy routes: %v\n%s", err, out)
	}

	e.remove("hello")
	eventually(t, "the site is gone", func() error {
		rs, err := d.routes("hello")
		if len(rs) > 0 {
			err = fmt.Errorf("routes %v", rs)
		}
		return err
	})
	eventually(t, "nobody answers for it", d.status("hello.localhost", "/", http.StatusNotFound))
}

func TestUnlabelledIsNotExposed(t *testing.T) {
	e, d := newEngine(t), up(t)
	e.run(spec{name: "private"})
	e.run(site("public", "public.localhost"))
	eventually(t, "the labelled one answers", d.servedBy("public.localhost", "/", "public"))
	if rs, err := d.routes("private"); err != nil || len(rs) > 0 {
		t.Errorf("routes of a container without labels: %v, %v", rs, err)
	}
}

func TestHoldAndRelease(t *testing.T) {
	e, d := newEngine(t), up(t)
	e.run(site("app", "app.localhost"))
	e.run(site("brief", "brief.localhost", "dentropy.hold=1s"))
	eventually(t, "app answers", d.servedBy("app.localhost", "/", "app"))
	eventually(t, "brief answers", d.servedBy("brief.localhost", "/", "brief"))

	e.stop("app")
	d.waitState("app", "holding")
	held := make(chan error, 1)
	go func() { held <- d.servedBy("app.localhost", "/", "app")() }()
	always(t, time.Second, "the request waits", func() error {
		select {
		case err := <-held:
			return fmt.Errorf("it was answered while the container is stopped: %w", err)
		default:
			return nil
		}
	})
	e.start("app")
	if err := <-held; err != nil {
		t.Errorf("the request that waited: %v", err)
	}

	e.stop("brief")
	a, err := d.get("brief.localhost", "/")
	if err != nil {
		t.Fatal(err)
	}
	if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("after the hold: status %d, Retry-After %q, want 503 and a time", a.status, a.header.Get("Retry-After"))
	}
	if !strings.Contains(a.body, "stopped") && !strings.Contains(a.body, "exited") {
		t.Errorf("the page does not say what the container does: %s", a.body)
	}
}

// A restart under load costs time, not requests.
func TestRestartUnderLoad(t *testing.T) {
	e, d := newEngine(t), up(t)
	e.run(site("app", "app.localhost"))
	eventually(t, "app answers", d.servedBy("app.localhost", "/", "app"))
	l := d.startLoad(4, d.url("app.localhost", "/"))
	for range 3 {
		e.restart("app")
		eventually(t, "app answers again", d.servedBy("app.localhost", "/", "app"))
	}
	// A request that is being answered when its server is stopped has no second try;
	// the server answers at once, so none is.
	l.mustBeClean(t)
}

func TestSlowStarter(t *testing.T) {
	e, d := newEngine(t), up(t)
	s := site("slow", "slow.localhost")
	s.args = []string{"-after", "2s"}
	e.run(s)
	eventually(t, "the route is known", func() error {
		rs, err := d.routes("slow")
		if err == nil && len(rs) != 1 {
			err = errors.New("no route")
		}
		return err
	})
	eventually(t, "it has a certificate", func() error { return d.handshake("slow.localhost") })
	if err := d.servedBy("slow.localhost", "/", "slow")(); err != nil {
		t.Errorf("a request before the program listens: %v", err)
	}
}

func TestRename(t *testing.T) {
	e, d := newEngine(t), up(t)
	e.run(site("before", "renamed.localhost"))
	eventually(t, "it answers", d.servedBy("renamed.localhost", "/", "before"))
	l := d.startLoad(2, d.url("renamed.localhost", "/"))
	e.must("rename", e.c.ContainerRename(t.Context(), "before", "after"))
	t.Cleanup(func() { e.c.ContainerRename(t.Context(), "after", "before") })
	d.waitState("after", "serving")
	l.mustBeClean(t)
	e.remove("after")
}

func TestPause(t *testing.T) {
	e, d := newEngine(t), up(t)
	e.run(site("app", "app.localhost", "dentropy.hold=1s"))
	eventually(t, "app answers", d.servedBy("app.localhost", "/", "app"))
	e.must("pause", e.c.ContainerPause(t.Context(), "app"))
	d.waitState("app", "holding")
	a, err := d.get("app.localhost", "/")
	if err != nil || a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "paused") {
		t.Errorf("while paused: %d, %v: %s", a.status, err, a.body)
	}
	e.must("unpause", e.c.ContainerUnpause(t.Context(), "app"))
	eventually(t, "app answers again", d.servedBy("app.localhost", "/", "app"))
}

func TestHealthCheck(t *testing.T) {
	e, d := newEngine(t), up(t)
	s := site("app", "app.localhost", "dentropy.hold=1s")
	s.health = true
	s.args = []string{"-unhealthy"}
	e.run(s)
	d.waitState("app", "holding")
	eventually(t, "no traffic before it is healthy", d.status("app.localhost", "/", http.StatusServiceUnavailable))
	e.post("app", "/health/ok")
	eventually(t, "traffic once it is healthy", d.servedBy("app.localhost", "/", "app"))
	e.post("app", "/health/bad")
	d.waitState("app", "holding")
	e.post("app", "/health/ok")
	d.waitState("app", "serving")
}
