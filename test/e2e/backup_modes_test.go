package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
)

// eventsOf collects what happens to the containers of an app until stop is called:
// "db stop", "web start".
func (a *smallApp) events() (stop func() []string) {
	a.e.t.Helper()
	since, err := a.e.c.Info(a.e.t.Context())
	a.e.must("ask the engine's time", err)
	return func() []string {
		now, err := a.e.c.Info(a.e.t.Context())
		a.e.must("ask the engine's time", err)
		messages, errs := a.e.c.Events(a.e.t.Context(), events.ListOptions{
			Since: since.SystemTime, Until: now.SystemTime,
			Filters: filters.NewArgs(filters.Arg("type", "container"), filters.Arg("label", "com.docker.compose.project="+a.name)),
		})
		var out []string
		for {
			select {
			case m := <-messages:
				action, _, _ := strings.Cut(string(m.Action), ":")
				out = append(out, m.Actor.Attributes["com.docker.compose.service"]+" "+action)
			case err := <-errs:
				if !errors.Is(err, io.EOF) {
					a.e.must("read events", err)
				}
				return out
			}
		}
	}
}

func has(events []string, what string) bool {
	for _, e := range events {
		if e == what {
			return true
		}
	}
	return false
}

// Labels say how each container comes to rest: by a stop in order, by a pause, or not
// at all.
func TestBackupModes(t *testing.T) {
	e, d := newEngine(t), up(t)
	for _, tt := range []struct {
		mode      string
		want, not []string
	}{
		{"stop", []string{"db die", "web die", "web start", "db start"}, []string{"db pause", "idle start", "paused die"}},
		{"pause", []string{"db pause", "db unpause"}, []string{"db die", "web die"}},
		{"hot", nil, []string{"db die", "web die", "db pause", "web pause"}},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			sub := &engine{t: t, c: e.c}
			a := sub.smallApp("mode-"+tt.mode, "dentropy.backup.mode="+tt.mode)
			eventually(t, "its site answers", d.servedBy(a.host, "/", "web"))
			stop := a.events()
			archive := d.backup(a.name)
			got := stop()
			for _, w := range tt.want {
				if !has(got, w) {
					t.Errorf("there is no %q in %q", w, got)
				}
			}
			for _, n := range tt.not {
				if has(got, n) {
					t.Errorf("there is %q in %q", n, got)
				}
			}
			if tt.mode == "stop" {
				order := strings.Join(got, ",")
				if strings.Index(order, "web die") > strings.Index(order, "db die") || strings.Index(order, "db start") > strings.Index(order, "web start") {
					t.Errorf("the site uses the data base, and the order is %s", order)
				}
			}
			a.check(t, d)
			d.must("archive", "verify", archive)
		})
	}
}

// A dump made by a hook is in the archive; a hook that fails ends the backup before
// anything stops.
func TestBackupHooks(t *testing.T) {
	e := newEngine(t)
	e.realApps()
	before := e.inventory()
	t.Cleanup(func() { e.clear(before) })
	d := up(t)
	p := e.newProject("dumped", map[string]string{"compose.yaml": `
services:
  db:
    image: ` + postgresImage + `
    environment: {POSTGRES_PASSWORD: correct-horse-battery}
    volumes: [pgdata:/var/lib/postgresql/data, dumps:/dumps]
    healthcheck: {test: [CMD, pg_isready, -h, 127.0.0.1, -U, postgres], interval: 300ms, timeout: 5s, retries: 100}
    labels:
      dentropy.backup.mode: hot
      dentropy.backup.pre: pg_dumpall -h /tmp -U postgres -f /dumps/all.sql
      dentropy.backup.post: rm /dumps/all.sql
volumes: {pgdata: {}, dumps: {}}
`})
	p.up()
	if _, err := e.exec("dumped-db-1", "psql", "-h", "/tmp", "-U", "postgres", "-c", "CREATE TABLE kept(x int); INSERT INTO kept VALUES(4711)"); err != nil {
		t.Fatal(err)
	}
	began := e.ids("dumped")
	archive := d.backup("dumped", "--image", "never")
	if now := e.ids("dumped"); fmt.Sprint(now) != fmt.Sprint(began) {
		t.Errorf("the data base was stopped: %v, was %v", now, began)
	}
	if got := d.must("archive", "ls", archive, "dumped_dumps").stdout; !strings.Contains(got, "all.sql") {
		t.Errorf("no dump in the archive:\n%s", got)
	}
	out := d.must("archive", "cat", archive, "dumped_dumps:all.sql").stdout
	if !strings.Contains(out, "4711") {
		t.Errorf("the dump is %.500s", out)
	}
	if _, err := e.exec("dumped-db-1", "test", "-e", "/dumps/all.sql"); err == nil {
		t.Error("the post hook did not run")
	}

	broken := e.smallApp("hooked", `dentropy.backup.pre=["/no/such/program"]`)
	stop := broken.events()
	d.refuses([]string{"pre"}, "backup", "hooked", "--yes")
	if got := stop(); has(got, "web die") || has(got, "db die") {
		t.Errorf("the app was stopped although the hook failed: %q", got)
	}
	broken.check(t, d)
}

// What will take too long is refused before anything stops; so is a second operation on
// the same app, and an app that is not there.
func TestBackupRefusals(t *testing.T) {
	e := newEngine(t)
	a := e.smallApp("refused")
	d := up(t)
	eventually(t, "its site answers", d.servedBy(a.host, "/", "web"))
	stop := a.events()
	d.refuses([]string{"downtime"}, "backup", "refused", "--yes", "--max-downtime", "1ms")
	d.refuses([]string{"no-such-app"}, "backup", "no-such-app", "--yes")
	r := d.must("backup", "refused", "--dry-run")
	if !strings.Contains(r.stdout+r.stderr, "refused-web-1") {
		t.Errorf("--dry-run does not say what stops: %v", r)
	}
	if got := stop(); has(got, "web die") || has(got, "db die") {
		t.Errorf("something was stopped: %q", got)
	}
	a.check(t, d)

	first := d.begin("backup", "refused", "--yes")
	if !first.when(func() bool { return len(d.journals()) > 0 }) {
		t.Fatalf("no journal: %s", first.out)
	}
	second := d.verb("backup", "refused", "--yes")
	first.wait(t)
	if second.exit == 0 && first.cmd.ProcessState.ExitCode() == 0 && len(d.archives()) != 2 {
		t.Errorf("two backups at once: %v", second)
	}
	if second.exit != 0 && !strings.Contains(second.stderr, "refused") {
		t.Errorf("the second backup does not say why not: %v", second)
	}
	a.check(t, d)
}

// From one program to another, with no file in between.
func TestBackupThroughPipe(t *testing.T) {
	e := newEngine(t)
	a := e.smallApp("piped")
	d := up(t)
	source := exec.Command(config.bin, "backup", "piped", "--yes", "-o", "-", "--data-dir", d.data)
	target := exec.Command(config.bin, "restore", "-", "--yes", "--as", "piped2", "--route", "web=piped2.localhost", "--data-dir", d.data)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	said, took := new(logBuffer), new(logBuffer)
	source.Stdout, source.Stderr = w, said
	target.Stdin, target.Stdout, target.Stderr = r, took, took
	if err := target.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close() // or a target that has ended would block the source
	err = source.Run()
	w.Close()
	if err != nil {
		t.Errorf("backup -o -: %v\n%s", err, said)
	}
	if err := target.Wait(); err != nil {
		t.Fatalf("restore -: %v\n%s", err, took)
	}
	eventually(t, "the copy answers", d.servedBy("piped2.localhost", "/", "web"))
	sameTree(t, "its data", e.tree("piped2_data"), a.tree)
	var list struct{ Undos []struct{ ID, App string } }
	if err := json.Unmarshal([]byte(d.must("restore", "--list", "--json").stdout), &list); err != nil || len(list.Undos) != 1 || list.Undos[0].App != "piped2" {
		t.Errorf("restore --list: %+v, %v", list, err)
	}
	d.must("restore", "--undo", "--yes")
	e.must("remove the data that an undo keeps", e.c.VolumeRemove(t.Context(), "piped2_data", false))
	a.check(t, d)
}
