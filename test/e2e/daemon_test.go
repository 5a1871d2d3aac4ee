package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sourceState is a check for eventually: the engine is connected or unknown.
func (d *dentropy) sourceState(want string) func() error {
	return func() error {
		raw, err := d.admin(http.MethodGet, "/dentropy/sources")
		if err != nil {
			return err
		}
		var all struct {
			Sources []struct{ Name, State, Error string }
		}
		if err := json.Unmarshal(raw, &all); err != nil {
			return err
		}
		if len(all.Sources) != 1 || all.Sources[0].State != want {
			return fmt.Errorf("sources are %+v, want %s", all.Sources, want)
		}
		return nil
	}
}

// The daemon is killed and started again under load. Its containers run on, so no
// request fails; what happened in between is noticed afterwards.
func TestDockerRestart(t *testing.T) {
	e, d := newEngine(t), up(t)
	t.Cleanup(func() { e.daemon("daemon-start") })
	e.run(site("steady", "steady.localhost"))
	e.run(site("doomed", "doomed.localhost", "dentropy.hold=200ms"))
	eventually(t, "steady answers", d.servedBy("steady.localhost", "/", "steady"))
	eventually(t, "doomed answers", d.servedBy("doomed.localhost", "/", "doomed"))
	doomed := e.ip("doomed")
	l := d.startLoad(4, d.url("steady.localhost", "/"))
	ws := d.openSocket("steady.localhost")

	e.daemon("daemon-kill")
	eventually(t, "the loss is noticed", d.sourceState("unknown"))
	if r := d.waitState("steady", "serving"); !r.Stale {
		t.Errorf("route is not marked stale: %v", r)
	}
	http.Get("http://" + doomed + ":8080/crash") // nobody tells us of this one
	always(t, 2*time.Second, "steady answers without Docker", d.servedBy("steady.localhost", "/", "steady"))

	e.daemon("daemon-start")
	eventually(t, "the return is noticed", d.sourceState("connected"))
	if r := d.waitState("doomed", "holding"); r.Stale {
		t.Errorf("route is still marked stale: %v", r)
	}
	e.run(site("late", "late.localhost"))
	eventually(t, "a new container is served", d.servedBy("late.localhost", "/", "late"))
	l.mustBeClean(t)
	ws.mustBeOpen(t)
}

func TestDockerAbsentAtStart(t *testing.T) {
	e := newEngine(t)
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "docker.sock")
	d := prepare(t)
	d.docker = "unix://" + socket
	d.start()
	eventually(t, "the source is unknown", d.sourceState("unknown"))
	e.run(site("app", "app.localhost"))
	always(t, 2*time.Second, "it waits", d.sourceState("unknown")) // and tries more than once
	if err := os.Symlink(strings.TrimPrefix(os.Getenv("DOCKER_TEST_HOST"), "unix://"), socket); err != nil {
		t.Fatal(err)
	}
	eventually(t, "Docker is picked up", d.sourceState("connected"))
	eventually(t, "app answers", d.servedBy("app.localhost", "/", "app"))
	warnings := 0
	for line := range strings.Lines(d.out.String()) {
		if strings.Contains(line, `"level":"warn"`) && strings.Contains(line, socket) {
			warnings++
		}
	}
	if warnings != 1 {
		t.Errorf("the log warns of the absent engine %d times, want once", warnings)
	}
}

// kill -9 loses nothing: the certificate that it serves afterwards is the old one.
func TestKill9(t *testing.T) {
	e, d := newEngine(t), up(t)
	e.run(site("app", "app.localhost"))
	eventually(t, "app answers", d.servedBy("app.localhost", "/", "app"))
	before, err := d.get("app.localhost", "/")
	if err != nil {
		t.Fatal(err)
	}
	d.end(syscall.SIGKILL)
	began := time.Now()
	d.start()
	eventually(t, "app answers again", d.servedBy("app.localhost", "/", "app"))
	t.Logf("serving %v after the start", time.Since(began))
	after, err := d.get("app.localhost", "/")
	if err != nil {
		t.Fatal(err)
	}
	if before.cert.SerialNumber.Cmp(after.cert.SerialNumber) != 0 {
		t.Error("the certificate was issued anew")
	}
}

func TestStopsCleanly(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		d := up(t)
		began := time.Now()
		d.end(sig)
		if code := d.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("%v: exit code %d, want 0\n%s", sig, code, d.out)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%v: took %v to end", sig, took)
		}
	}
}
