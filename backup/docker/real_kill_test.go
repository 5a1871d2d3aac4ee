package docker

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
)

// victim is what a process that is going to be killed is told, by its environment.
type victim struct {
	Options Options
	App, Op string
	Temp    string
	Journal string // file
	// At is the entry at which it ends itself: before it is written, or after.
	At     int
	Before bool
	// After is how much later it does so, and goes on until then.
	After time.Duration
	// Step counts only entries of that step. Default: all.
	Step string
	// Archive is a file that it restores instead.
	Archive string
}

// fileJournal writes entries to a file, and kills its process at one of them.
type fileJournal struct {
	v victim
	n int
}

func (j *fileJournal) Op() string { return j.v.Op }

func (j *fileJournal) Append(step string, data any) error {
	die := func() {
		if j.v.After > 0 {
			time.AfterFunc(j.v.After, func() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) })
			return
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	counts := j.v.Step == "" || j.v.Step == step
	if counts && j.n == j.v.At && j.v.Before {
		die()
	}
	raw, err := json.Marshal(data)
	if err != nil {
		return err
	}
	line, err := json.Marshal(backup.Entry{Time: time.Now(), Step: step, Data: raw})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(j.v.Journal, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "%s\n", line); err != nil {
		return err
	}
	if counts && j.n == j.v.At && !j.v.Before {
		die()
	}
	if counts {
		j.n++
	}
	return nil
}

// TestVictim is the process that is killed.
func TestVictim(t *testing.T) {
	text := os.Getenv("DENTROPY_TEST_VICTIM")
	if text == "" {
		t.Skip("it is run by other tests")
	}
	var v victim
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	p, err := New(v.Options)
	if err != nil {
		t.Fatal(err)
	}
	if v.Archive != "" {
		if err := v.restore(t, p); err != nil {
			t.Fatal(err)
		}
		return
	}
	app, err := p.Capture(t.Context(), v.App, backup.CaptureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	opts := backup.FreezeOptions{TempDir: v.Temp, HealthTimeout: 20 * time.Second}
	est, err := p.Estimate(t.Context(), app, opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Freeze(t.Context(), app, est, opts, &fileJournal{v: v}); err != nil {
		t.Fatal(err)
	}
}

// kill runs a freeze in a process of its own, which is killed at an entry of its journal.
// It returns the journal, and whether the freeze ended before that.
func (b *bed) kill(v victim) (entries []backup.Entry, over bool) {
	b.t.Helper()
	v.Options, v.App, v.Temp = b.p.opts, b.tag, b.t.TempDir()
	v.Options.Log = nil
	v.Journal = filepath.Join(v.Temp, "journal")
	text, err := json.Marshal(v)
	b.must(err)
	cmd := exec.CommandContext(b.t.Context(), os.Args[0], "-test.run=^TestVictim$")
	cmd.Env = append(os.Environ(), "DENTROPY_TEST_VICTIM="+string(text))
	out, err := cmd.CombinedOutput()
	if err == nil {
		over = true
	} else if cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		b.t.Fatalf("the victim: %v\n%s", err, out)
	}
	f, err := os.Open(v.Journal)
	if err != nil {
		return nil, over // it was killed before the first entry
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e backup.Entry
		b.must(json.Unmarshal(lines.Bytes(), &e))
		entries = append(entries, e)
	}
	return entries, over
}

// apart makes an app of two containers, one of which depends on the other.
func (b *bed) apart() (ids []string) {
	data := b.vol("data")
	return []string{
		b.run(spec{name: "db", binds: []string{data + ":/data"}, env: []string{"NOTE=/data/note"}, labels: map[string]string{labelPost: `["/app","note","/data/post","done"]`}}),
		b.run(spec{name: "web", labels: map[string]string{labelDependsOn: "db:service_started:false"}}),
	}
}

// A process that is killed at any entry of its journal, without a guard: Recover brings
// the app back, and can be repeated.
func TestRealRecoverAtEachEntry(t *testing.T) {
	t.Parallel()
	for _, before := range []bool{true, false} {
		t.Run(map[bool]string{true: "before", false: "after"}[before], func(t *testing.T) {
			b := newBed(t)
			b.p.opts.GuardSocket = "/nowhere/docker.sock"
			ids := b.apart()
			stopped, at := 0, 0
			for over := false; !over; at++ {
				op := randomOp()
				var entries []backup.Entry
				entries, over = b.kill(victim{Op: op, At: at, Before: before})
				for _, id := range ids {
					if !over && !b.inspect(id).State.Running {
						stopped++
					}
				}
				for range 2 {
					b.must(b.p.Recover(t.Context(), backup.Operation{ID: op, Kind: "backup", App: b.tag}, entries, nil))
				}
				b.running(ids...)
				b.clean(op)
			}
			if at < 6 {
				t.Errorf("the journal had %d entries, want more", at-1)
			}
			if stopped < 2 {
				t.Errorf("%d containers were stopped in all: the test shows too little", stopped)
			}
		})
	}
}

// A process that is killed while its app rests, and never comes back: the guard does it.
func TestRealGuard(t *testing.T) {
	b := newBed(t)
	ids := b.apart()
	for _, at := range []int{2, 3} { // after each stop; the plan is 1
		op := randomOp()
		entries, over := b.kill(victim{Op: op, At: at})
		if over {
			t.Fatal("the freeze had ended before it was killed")
		}
		begun := time.Now()
		b.until("the guard brings the app back", func() bool {
			return !slices.ContainsFunc(ids, func(id string) bool { return !b.inspect(id).State.Running })
		})
		t.Logf("killed at entry %d: back after %v", at, time.Since(begun))
		b.until("the guard ends", func() bool {
			return !slices.ContainsFunc(b.ours(op), func(s container.Summary) bool { return s.State == "running" })
		})
		b.must(b.p.Recover(t.Context(), backup.Operation{ID: op, Kind: "backup", App: b.tag}, entries, nil))
		b.running(ids...)
		b.clean(op)
	}
}

// A guard that is killed as well, as in a reboot, is started again by the engine.
func TestRealGuardKilled(t *testing.T) {
	b := newBed(t)
	ids := b.apart()
	op := randomOp()
	entries, over := b.kill(victim{Op: op, At: 3})
	if over {
		t.Fatal("the freeze had ended before it was killed")
	}
	i := slices.IndexFunc(b.ours(op), func(s container.Summary) bool { return s.Labels[labelRole] == roleGuard })
	if i < 0 {
		t.Fatal("there is no guard")
	}
	pid := b.inspect(b.ours(op)[i].ID).State.Pid
	b.must(syscall.Kill(pid, syscall.SIGKILL)) // not by the engine, which would not start it again
	b.until("the guard brings the app back", func() bool {
		return !slices.ContainsFunc(ids, func(id string) bool { return !b.inspect(id).State.Running })
	})
	b.must(b.p.Recover(t.Context(), backup.Operation{ID: op, Kind: "backup", App: b.tag}, entries, nil))
	b.clean(op)
}

// A reboot, as far as an engine can tell it from one: the daemon and all processes of
// containers end at once, and the daemon starts again.
func TestRealReboot(t *testing.T) {
	b := newBedAlone(t)
	ids := b.apart()
	op := randomOp()
	entries, over := b.kill(victim{Op: op, At: 3})
	if over {
		t.Fatal("the freeze had ended before it was killed")
	}
	var pids []int
	for _, s := range b.ours(op) {
		if pid := b.inspect(s.ID).State.Pid; pid > 0 {
			pids = append(pids, pid)
		}
	}
	b.daemon("daemon-kill")
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	}
	b.daemon("daemon-start")
	for _, id := range ids {
		if b.inspect(id).State.Running {
			t.Error("the app runs already: the test shows nothing")
		}
	}
	b.until("the guard brings the app back", func() bool {
		return !slices.ContainsFunc(ids, func(id string) bool { return !b.inspect(id).State.Running })
	})
	b.must(b.p.Recover(t.Context(), backup.Operation{ID: op, Kind: "backup", App: b.tag}, entries, nil))
	b.clean(op)
}

// A process that is killed while a container takes its time to end: it runs still when
// it is looked at, and ends later.
func TestRealKilledInStop(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		t.Run(map[bool]string{true: "guard", false: "recover"}[guarded], func(t *testing.T) {
			b := newBed(t)
			if !guarded {
				b.p.opts.GuardSocket = "/nowhere/docker.sock"
			}
			id := b.run(spec{name: "db", env: []string{"SLOW_END=7s", "NOTE=/tmp/note"}})
			b.until("it runs", func() bool { return b.file(id, "/tmp/note") != "" })
			before := b.inspect(id).State.StartedAt
			op := randomOp()
			entries, _ := b.kill(victim{Op: op, After: time.Second})
			if !b.inspect(id).State.Running {
				t.Error("it has ended already: the test shows nothing")
			}
			if guarded {
				b.until("the guard ends", func() bool {
					return !slices.ContainsFunc(b.ours(op), func(s container.Summary) bool { return s.State == "running" })
				})
			} else {
				b.must(b.p.Recover(t.Context(), backup.Operation{ID: op, Kind: "backup", App: b.tag}, entries, nil))
			}
			b.running(id)
			if b.inspect(id).State.StartedAt == before {
				t.Error("it was never stopped")
			}
			b.must(b.p.Recover(t.Context(), backup.Operation{ID: op, Kind: "backup", App: b.tag}, entries, nil))
			b.clean(op)
		})
	}
}

// What somebody did since is left alone.
func TestRealRecoverLeavesOthers(t *testing.T) {
	b := newBed(t)
	b.p.opts.GuardSocket = "/nowhere/docker.sock"
	ids := b.apart()
	op := randomOp()
	entries, _ := b.kill(victim{Op: op, At: 3}) // both are stopped
	ctx := t.Context()
	b.must(b.cli.ContainerStart(ctx, ids[0], container.StartOptions{}))
	b.must(b.cli.ContainerStop(ctx, ids[0], container.StopOptions{})) // the user wants it so
	b.must(b.cli.ContainerRemove(ctx, ids[1], container.RemoveOptions{Force: true}))
	b.must(b.p.Recover(ctx, backup.Operation{ID: op, Kind: "backup", App: b.tag}, entries, nil))
	if st := b.inspect(ids[0]).State; st.Running {
		t.Error("a container that the user stopped was started")
	}
	b.clean(op)
}

// daemon ends or starts the daemon of the test's own engine.
func (b *bed) daemon(verb string) {
	b.t.Helper()
	dir := os.Getenv("DENTROPY_ENGINE")
	if dir == "" || !strings.Contains(os.Getenv("DOCKER_TEST_HOST"), dir) {
		b.t.Skip("DENTROPY_ENGINE names no engine of the test's own")
	}
	out, err := exec.CommandContext(context.WithoutCancel(b.t.Context()), "../../scripts/docker-engine", verb, dir).CombinedOutput()
	if err != nil {
		b.t.Fatalf("docker-engine %s: %v\n%s", verb, err, out)
	}
}

// The engine's daemon is killed while the app rests, and starts again.
func TestRealDaemonKilled(t *testing.T) {
	b := newBedAlone(t)
	ids := b.apart()
	for _, step := range []string{stepPlan, stepRest, "read"} {
		t.Run(step, func(t *testing.T) {
			j := newJournal()
			n := 0
			j.at = func(_ int, at string) error {
				if at != step && (step != "read" || at != stepRest) {
					return nil
				}
				if n++; n == 1 && step != "read" || n == 2 && step == "read" {
					b.daemon("daemon-kill")
					b.daemon("daemon-start")
				}
				return nil
			}
			_, z, err := b.freeze(b.options(), j)
			t.Logf("the freeze: %v", err)
			b.running(ids...)
			if err == nil {
				b.must(z.Close(t.Context()))
			} else {
				b.must(b.p.Recover(t.Context(), j.operation(b), j.list(), nil))
			}
			b.clean(j.op)
		})
	}
}

// The engine's daemon is killed while a helper reads; with live-restore the helper reads
// on, and the freeze goes on when the daemon is back.
func TestRealDaemonKilledInRead(t *testing.T) {
	b := newBedAlone(t)
	data := b.vol("data")
	id := b.run(spec{name: "db", binds: []string{data + ":/data"}, env: []string{"NOTE=/data/note"}})
	b.fill(data, 300)
	j := newJournal()
	once := false
	opts := b.options()
	report := opts.Report
	opts.Report = func(p backup.Progress) {
		report(p)
		if p.Phase == "read" && p.Done > 0 && !once {
			once = true
			b.daemon("daemon-kill")
			b.daemon("daemon-start")
		}
	}
	_, z, err := b.freeze(opts, j)
	b.must(err)
	if !once {
		t.Error("the daemon was not killed")
	}
	b.running(id)
	b.must(z.Close(t.Context()))
	b.clean(j.op)
}

// fill puts a file of some megabytes that cannot be compressed into a volume.
func (b *bed) fill(volume string, megabytes int) {
	b.t.Helper()
	made, err := b.cli.ContainerCreate(b.t.Context(), &container.Config{Image: b.image, Cmd: []string{"/app", "fill", "/data/big", strconv.Itoa(megabytes)}, Labels: map[string]string{labelOneoff: "True"}}, &container.HostConfig{Binds: []string{volume + ":/data"}}, nil, nil, b.tag+"fill")
	b.must(err)
	b.must(b.cli.ContainerStart(b.t.Context(), made.ID, container.StartOptions{}))
	b.until("the volume is filled", func() bool { return !b.inspect(made.ID).State.Running })
	b.must(b.cli.ContainerRemove(b.t.Context(), made.ID, container.RemoveOptions{}))
}
