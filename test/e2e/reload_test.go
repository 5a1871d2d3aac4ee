package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestReloadUnderLoad(t *testing.T) {
	const reloads = 10
	e, d := newEngine(t), up(t)
	e.run(site("app", "app.localhost"))
	eventually(t, "app answers", d.servedBy("app.localhost", "/", "app"))
	before, err := d.get("app.localhost", "/")
	if err != nil {
		t.Fatal(err)
	}
	ws := d.openSocket("app.localhost")
	l := d.startLoad(8, d.url("app.localhost", "/"))
	for n := range reloads {
		loads := d.configLoads()
		if _, err := d.run("reload"); err != nil {
			t.Fatal(err)
		}
		eventually(t, fmt.Sprintf("reload %d has happened", n), func() error {
			if d.configLoads() == loads {
				return fmt.Errorf("still %s", loads)
			}
			return nil
		})
		if _, err := d.getHTTP3("app.localhost", "/"); err != nil {
			t.Errorf("HTTP/3 after reload %d: %v", n, err)
		}
	}
	l.mustBeClean(t)
	ws.mustBeOpen(t)
	after, err := d.get("app.localhost", "/")
	if err != nil {
		t.Fatal(err)
	}
	if before.cert.SerialNumber.Cmp(after.cert.SerialNumber) != 0 {
		t.Error("the certificate was issued anew")
	}
}

// A configuration that is refused changes nothing.
func TestReloadThatFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "Caddyfile")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("static.localhost {\n\ttls internal\n\trespond static\n}\n")
	e, d := newEngine(t), up(t, "--config", file)
	e.run(site("app", "app.localhost"))
	eventually(t, "app answers", d.servedBy("app.localhost", "/", "app"))
	eventually(t, "the static site answers", d.status("static.localhost", "/", http.StatusOK))
	l := d.startLoad(4, d.url("app.localhost", "/"), d.url("static.localhost", "/"))
	for _, bad := range []string{
		"static.localhost {\n\tno_such_directive\n}\n",
		"static.localhost {\n\ttls /no/such.pem /no/such.key\n}\n", // fails when it is provisioned
	} {
		write(bad)
		if out, err := d.run("reload"); err == nil {
			t.Errorf("reload of a bad file succeeds:\n%s", out)
		}
		always(t, time.Second, "app goes on", d.servedBy("app.localhost", "/", "app"))
		if _, err := d.run("routes"); err != nil {
			t.Errorf("the admin API after a failed reload: %v", err)
		}
	}
	write("static.localhost {\n\ttls internal\n\trespond \"static 2\"\n}\n")
	if _, err := d.run("reload"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new file is in force", func() error {
		a, err := d.get("static.localhost", "/")
		if err == nil && a.body != "static 2" {
			err = fmt.Errorf("body %q", a.body)
		}
		return err
	})
	l.mustBeClean(t)
}

// Neighbours come and go by the hundred; an open websocket, a steady load and the
// configuration do not notice.
func TestChurnDisturbsNobody(t *testing.T) {
	const rounds = 100 // of start and kill
	e, d := newEngine(t), up(t)
	e.run(site("steady", "steady.localhost"))
	eventually(t, "steady answers", d.servedBy("steady.localhost", "/", "steady"))
	d.configLoads()
	loads := d.configLoads()
	ws := d.openSocket("steady.localhost")
	l := d.startLoad(4, d.url("steady.localhost", "/"))
	e.create(site("neighbour", "neighbour.localhost"))
	for n := range rounds {
		e.start("neighbour")
		e.kill("neighbour")
		if n%20 == 0 { // and one that comes and goes for good
			e.run(site("guest", "guest.localhost"))
			e.remove("guest")
		}
	}
	e.start("neighbour")
	eventually(t, "neighbour answers", d.servedBy("neighbour.localhost", "/", "neighbour"))
	l.mustBeClean(t)
	ws.mustBeOpen(t)
	if now := d.configLoads(); now != loads {
		t.Errorf("a configuration was loaded: %s, was %s", now, loads)
	}
}

// A response that is being sent goes on while its neighbours change.
func TestDownloadSurvivesChurn(t *testing.T) {
	e, d := newEngine(t), up(t)
	e.run(site("slow", "slow.localhost"))
	eventually(t, "slow answers", d.servedBy("slow.localhost", "/", "slow"))
	done := make(chan error, 1)
	go func() {
		a, err := d.get("slow.localhost", "/slow?ms=3000")
		if err == nil && strings.TrimSpace(a.body) != "slow" {
			err = fmt.Errorf("%d: %s", a.status, a.body)
		}
		done <- err
	}()
	for range 5 {
		e.run(site("guest", "guest.localhost"))
		e.remove("guest")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
