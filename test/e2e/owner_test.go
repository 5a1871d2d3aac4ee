package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestReplicasShareARoute(t *testing.T) {
	e, d := newEngine(t), up(t)
	e.run(site("shop-web-1", "shop.localhost").compose("shop", "web"))
	e.run(site("shop-web-2", "shop.localhost").compose("shop", "web"))
	seen := map[string]bool{}
	eventually(t, "both replicas answer", func() error {
		a, err := d.get("shop.localhost", "/")
		if err != nil {
			return err
		}
		seen[a.Name] = true
		if !seen["shop-web-1"] || !seen["shop-web-2"] {
			return fmt.Errorf("seen so far: %v", seen)
		}
		return nil
	})
	l := d.startLoad(2, d.url("shop.localhost", "/"))
	e.stop("shop-web-1")
	always(t, time.Second, "the other one answers", d.servedBy("shop.localhost", "/", "shop-web-2"))
	l.mustBeClean(t)
}

func TestProjectSharesAHost(t *testing.T) {
	e, d := newEngine(t), up(t)
	e.run(site("shop-web", "shop.localhost").compose("shop", "web"))
	e.run(site("shop-api", "shop.localhost", "dentropy.path=/api", "dentropy.strip_path=true").compose("shop", "api"))
	eventually(t, "the root", d.servedBy("shop.localhost", "/apix", "shop-web"))
	eventually(t, "the API", d.servedBy("shop.localhost", "/api/items", "shop-api"))
	a, err := d.get("shop.localhost", "/api/items")
	if err != nil || a.Path != "/items" {
		t.Errorf("the API saw path %q, %v; want /items", a.Path, err)
	}

	// Somebody else wants a path of a host that is taken.
	e.run(site("thief", "shop.localhost", "dentropy.path=/login").compose("other", "web"))
	r := d.waitState("thief", "refused")
	if len(r.Refused) == 0 || !strings.Contains(r.Refused[0].Reason, "shop") {
		t.Errorf("refusal does not name the owner: %v", r)
	}
	eventually(t, "the owner has the path", d.servedBy("shop.localhost", "/login", "shop-web"))
}

func TestOlderKeepsTheHost(t *testing.T) {
	e, d := newEngine(t), up(t)
	e.run(site("older", "one.localhost"))
	eventually(t, "it answers", d.servedBy("one.localhost", "/", "older"))
	l := d.startLoad(2, d.url("one.localhost", "/"))
	e.run(site("newer", "one.localhost"))
	r := d.waitState("newer", "refused")
	if len(r.Refused) == 0 || !strings.Contains(r.Refused[0].Reason, "older") {
		t.Errorf("refusal does not name the owner: %v", r)
	}
	always(t, time.Second, "the older one answers", d.servedBy("one.localhost", "/", "older"))
	l.mustBeClean(t)
	// A restart of the owner gives nothing away.
	e.restart("older")
	eventually(t, "the older one answers", d.servedBy("one.localhost", "/", "older"))
	if a, err := d.get("one.localhost", "/"); err != nil || a.Name != "older" {
		t.Errorf("after its restart: %q, %v", a.Name, err)
	}
}

func TestBadLabel(t *testing.T) {
	e, d := newEngine(t), up(t)
	e.run(site("app", "app.localhost"))
	eventually(t, "app answers", d.servedBy("app.localhost", "/", "app"))

	// The container is made anew, with a slip.
	e.remove("app")
	e.run(site("app", "app.localhost", "dentropy.prot=8080"))
	var r route
	eventually(t, "the problem shows", func() error {
		rs, err := d.routes("app")
		if err != nil {
			return err
		}
		for _, r = range rs {
			if len(r.Problems) > 0 {
				return nil
			}
		}
		return fmt.Errorf("routes %v", rs)
	})
	p := r.Problems[0]
	if p.Label != "dentropy.prot" || !strings.Contains(p.Hint+p.Reason, "port") {
		t.Errorf("problem is %+v, want the label and the nearest right spelling", p)
	}
	eventually(t, "the last good version goes on", d.servedBy("app.localhost", "/", "app"))

	// One that was never right has nothing to go on with, and harms nobody.
	e.run(site("new", "new.localhost", "dentropy.tls=maybe"))
	d.waitState("new", "error")
	eventually(t, "app still answers", d.servedBy("app.localhost", "/", "app"))
	out, err := d.run("why", "new.localhost")
	if err == nil || !strings.Contains(out, "dentropy.tls") {
		t.Errorf("dentropy why (error %v):\n%s", err, out)
	}
	if n := strings.Count(d.out.String(), "dentropy.prot"); n == 0 || n > 2 {
		t.Errorf("the log mentions the label %d times, want one line", n)
	}
}

func TestSnippet(t *testing.T) {
	e, d := newEngine(t), up(t)
	e.run(site("good", "good.localhost", "dentropy.caddyfile=header X-From snippet"))
	e.run(site("bad", "bad.localhost", "dentropy.caddyfile=respond {env.HOME}"))
	eventually(t, "good answers", d.servedBy("good.localhost", "/", "good"))
	a, err := d.get("good.localhost", "/")
	if err != nil || a.header.Get("X-From") != "snippet" {
		t.Errorf("header is %q, %v", a.header.Get("X-From"), err)
	}
	r := d.waitState("bad", "error")
	if len(r.Problems) == 0 || !strings.Contains(r.Problems[0].Reason, "env") {
		t.Errorf("problems are %v", r.Problems)
	}
}

// What is private answers to clients of private networks, and loopback is one.
func TestAccess(t *testing.T) {
	e, d := newEngine(t), up(t)
	e.run(site("private", "private.localhost", "dentropy.access=private"))
	e.run(site("far", "far.localhost", "dentropy.access=192.0.2.0/24"))
	eventually(t, "private answers", d.servedBy("private.localhost", "/", "private"))
	eventually(t, "far refuses", d.status("far.localhost", "/", http.StatusForbidden))
}
