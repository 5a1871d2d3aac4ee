package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
)

// journals gives the journals of operations that are not over.
func (d *dentropy) journals() []string {
	found, err := filepath.Glob(filepath.Join(d.data, "backup", "journal", "*.ndjson"))
	if err != nil {
		d.t.Fatal(err)
	}
	return found
}

// steps gives the steps of the journal that is there, the first line aside.
func (d *dentropy) steps() []string {
	var out []string
	for _, j := range d.journals() {
		b, err := os.ReadFile(j)
		if err != nil {
			continue // it is over
		}
		for n, line := range bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n")) {
			if n == 0 {
				continue
			}
			_, step, _ := strings.Cut(string(line), `"step":"`)
			step, _, _ = strings.Cut(step, `"`)
			out = append(out, step)
		}
	}
	return out
}

// running is a verb that was started and not waited for.
type running struct {
	cmd  *exec.Cmd
	out  *logBuffer
	done chan struct{}
}

func (d *dentropy) begin(args ...string) *running {
	d.t.Helper()
	r := &running{cmd: exec.Command(config.bin, append(args, "--data-dir", d.data)...), out: new(logBuffer), done: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = r.out, r.out
	if err := r.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go func() {
		r.cmd.Wait()
		close(r.done)
	}()
	return r
}

// when waits until something holds, and reports whether it did before the verb ended.
func (r *running) when(condition func() bool) bool {
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-r.done:
			return false
		case <-tick.C:
		}
	}
	return true
}

// wait waits for the end of the verb, whatever it comes to.
func (r *running) wait(t *testing.T) {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(2 * time.Minute):
		r.cmd.Process.Kill()
		<-r.done
		t.Errorf("the verb does not end:\n%s", r.out)
	}
}

// kill ends the verb.
func (r *running) kill() {
	r.cmd.Process.Kill()
	<-r.done
}

// after is a condition that holds from some time on.
func after(d time.Duration) func() bool {
	end := time.Now().Add(d)
	return func() bool { return time.Now().After(end) }
}

// profile runs a verb undisturbed, and gives the steps of its journal and its time.
func (d *dentropy) profile(args ...string) (steps []string, took time.Duration) {
	d.t.Helper()
	began := time.Now()
	r := d.begin(args...)
	r.when(func() bool {
		if now := d.steps(); len(now) > len(steps) {
			steps = now
		}
		return false
	})
	took = time.Since(began)
	if code := r.cmd.ProcessState.ExitCode(); code != 0 {
		d.t.Fatalf("dentropy %s: exit %d\n%s", strings.Join(args, " "), code, r.out)
	}
	d.t.Logf("%s: %v, steps %q", args[0], took, steps)
	return steps, took
}

// spread picks at most n of the numbers from 1 to most, evenly.
func spread(most, n int) []int {
	var out []int
	for i := range n {
		if v := 1 + i*max(most-1, 0)/max(n-1, 1); !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// verifyAll proves that what looks like an archive is one, and removes it.
func (d *dentropy) verifyAll() {
	d.t.Helper()
	for _, a := range d.archives() {
		if strings.Contains(filepath.Base(a), ".partial") || strings.HasPrefix(filepath.Base(a), ".") {
			continue
		}
		out, err := exec.Command(config.static, "archive", "verify", a, "--data-dir", d.data).CombinedOutput()
		if err != nil {
			d.t.Errorf("%s looks complete and is not: %v\n%s", a, err, out)
		}
		if err := os.Remove(a); err != nil {
			d.t.Error(err)
		}
	}
}

// The program is killed at each step that it takes down in its journal, and in between.
// The app runs again, by the guard where nobody starts the program.
func TestChaosBackupProgram(t *testing.T) {
	e := newEngine(t)
	a := e.smallApp("chaos")
	d := up(t)
	eventually(t, "its site answers", d.servedBy(a.host, "/", "web"))
	verb := []string{"backup", "chaos", "--yes"}
	steps, took := d.profile(verb...)
	a.check(t, d)
	d.verifyAll()

	point := func(name string, byGuard bool, condition func() func() bool) {
		t.Run(name, func(t *testing.T) {
			r := d.begin(verb...)
			hit := r.when(condition())
			d.end(syscall.SIGKILL)
			r.kill() // it would wait for the program to come back
			if !hit {
				t.Log("it was over before")
			}
			if byGuard {
				eventually(t, "the guard brings the app back", a.asBefore)
			}
			d.start()
			a.check(t, d)
			d.verifyAll()
		})
	}
	for n, at := range spread(len(steps), 10) {
		point(fmt.Sprintf("step %d %s", at, steps[at-1]), n%2 == 0, func() func() bool {
			return func() bool { return len(d.steps()) >= at }
		})
	}
	// It has no journal yet: what measures for it is found by its age.
	point("measures", false, func() func() bool { return func() bool { return a.helper("-measure-") != "" } })
	for n := range 4 {
		point(fmt.Sprintf("at %d of 4", n+1), n%2 == 1, func() func() bool { return after(took * time.Duration(2*n+1) / 8) })
	}
}

// The program is killed while it replaces an app by an archive.
func TestChaosRestoreProgram(t *testing.T) {
	e := newEngine(t)
	a := e.smallApp("chaos")
	d := up(t)
	eventually(t, "its site answers", d.servedBy(a.host, "/", "web"))
	archive := keepCopy(t, d.backup("chaos"))
	d.verifyAll()
	verb := []string{"restore", archive, "--yes", "--on-conflict", "replace"}
	steps, took := d.profile(verb...)
	d.undone(t, a)

	point := func(name string, condition func() func() bool) {
		t.Run(name, func(t *testing.T) {
			r := d.begin(verb...)
			if !r.when(condition()) {
				t.Log("it was over before")
			}
			d.end(syscall.SIGKILL)
			r.kill() // it would wait for the program to come back
			if now := d.steps(); guarded(now, steps) {
				eventually(t, fmt.Sprintf("the guard brings the app back after %q", now), a.asBefore)
			}
			d.start()
			d.undone(t, a)
		})
	}
	for _, at := range spread(len(steps), 8) {
		point(fmt.Sprintf("step %d %s", at, steps[at-1]), func() func() bool {
			return func() bool { return len(d.steps()) >= at }
		})
	}
	for n := range 3 {
		point(fmt.Sprintf("at %d of 3", n+1), func() func() bool { return after(took * time.Duration(2*n+1) / 6) })
	}
}

// guarded reports whether a restore that has come so far had containers to stop still: its
// guard is there until all have stopped.
func guarded(now, all []string) bool {
	count := func(steps []string, step string) (n int) {
		for _, s := range steps {
			if s == step {
				n++
			}
		}
		return n
	}
	return count(now, "restore.halt") == 1 && count(now, "restore.halted") < count(all, "restore.halted")
}

// undone waits for the end of recovery, looks at the app, takes the restore back where
// it has come to an end, and looks again.
func (d *dentropy) undone(t *testing.T, a *smallApp) {
	t.Helper()
	eventuallyWithin(t, time.Minute, "the journal is worked off", func() error {
		if j := d.journals(); len(j) > 0 {
			return fmt.Errorf("there is %q", j)
		}
		return nil
	})
	eventually(t, "the app is as it was, or restored", a.asBefore)
	sameTree(t, "the data that it uses", a.e.tree(a.mounted(t)), a.tree)
	eventually(t, "its site answers", d.servedBy(a.host, "/", "web"))
	if r := d.verb("restore", "--undo", "--yes"); r.exit != 0 && !strings.Contains(r.stderr, "no such restore") {
		t.Errorf("restore --undo: %v", r)
	} else if r.exit == 0 {
		t.Logf("restore --undo: %.1000s", r.stderr)
		a.dropKept(t)
	}
	a.check(t, d)
}

// dropKept removes the data that an undo has kept: nobody may be using it.
func (a *smallApp) dropKept(t *testing.T) {
	t.Helper()
	for _, v := range a.e.inventory().volumes {
		if strings.HasPrefix(v, a.name+"_data.pre-restore-") {
			sameTree(t, "the restored data that is kept", a.e.tree(v), a.tree)
			a.e.must("remove "+v, a.e.c.VolumeRemove(t.Context(), v, false))
		}
	}
}

// mounted gives the volume that the data base uses.
func (a *smallApp) mounted(t *testing.T) string {
	t.Helper()
	info, err := a.e.c.ContainerInspect(t.Context(), a.container("db"))
	a.e.must("inspect", err)
	for _, m := range info.Mounts {
		if m.Destination == "/data" {
			return m.Name
		}
	}
	t.Fatalf("the data base has no volume: %+v", info.Mounts)
	return ""
}

// helper gives the container that runs now and whose name holds a word, and is not the
// app's.
func (a *smallApp) helper(word string) string {
	list, err := a.e.c.ContainerList(a.e.t.Context(), container.ListOptions{})
	if err != nil {
		return ""
	}
	for _, c := range list {
		name := strings.TrimPrefix(c.Names[0], "/")
		if _, ok := a.states[name]; !ok && strings.Contains(name, word) {
			return c.ID
		}
	}
	return ""
}

// The helper is killed in each of its tasks, and so is the guard: the verb fails or does
// not need it, and the app runs.
func TestChaosHelper(t *testing.T) {
	e := newEngine(t)
	a := e.smallApp("chaos")
	d := up(t)
	eventually(t, "its site answers", d.servedBy(a.host, "/", "web"))
	archive := keepCopy(t, d.backup("chaos"))
	d.verifyAll()
	backup, restore := []string{"backup", "chaos", "--yes"}, []string{"restore", archive, "--yes", "--on-conflict", "replace"}
	for _, tt := range []struct {
		task string
		verb []string
		ends bool // the verb cannot do without
	}{
		{"-measure-", backup, false},
		{"-guard", backup, false},
		{"-read-", backup, true},
		{"-send-", backup, false}, // what it has sent may lie in a socket already
		{"-write-", restore, true},
		{"-hash-", restore, true},
	} {
		t.Run(tt.verb[0]+tt.task, func(t *testing.T) {
			r := d.begin(tt.verb...)
			hit := r.when(func() bool {
				id := a.helper(tt.task)
				return id != "" && e.c.ContainerKill(t.Context(), id, "KILL") == nil
			})
			r.wait(t)
			if code := r.cmd.ProcessState.ExitCode(); !hit || tt.ends && code == 0 {
				t.Errorf("killed: %v, exit %d\n%s", hit, code, r.out)
			}
			d.undone(t, a)
			d.verifyAll()
		})
	}
}

// The engine's daemon is killed and started again during a backup and a restore.
func TestChaosDaemon(t *testing.T) {
	e := newEngine(t)
	t.Cleanup(func() { e.daemon("daemon-start") })
	a := e.smallApp("chaos")
	d := up(t)
	eventually(t, "its site answers", d.servedBy(a.host, "/", "web"))
	archive := keepCopy(t, d.backup("chaos"))
	d.verifyAll()
	for _, verb := range [][]string{
		{"backup", "chaos", "--yes"},
		{"restore", archive, "--yes", "--on-conflict", "replace"},
	} {
		steps, _ := d.profile(verb...)
		d.undone(t, a)
		for _, at := range spread(len(steps), 4) {
			t.Run(fmt.Sprintf("%s step %d %s", verb[0], at, steps[at-1]), func(t *testing.T) {
				r := d.begin(verb...)
				hit := r.when(func() bool { return len(d.steps()) >= at })
				e.daemon("daemon-kill")
				e.daemon("daemon-start")
				r.wait(t)
				t.Logf("hit %v, exit %d\n%s", hit, r.cmd.ProcessState.ExitCode(), r.out)
				d.undone(t, a)
				d.verifyAll()
			})
		}
	}
}
