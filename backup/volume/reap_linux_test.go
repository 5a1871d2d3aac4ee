package volume_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup/volume"
)

// host is a /proc that tells of real processes what a test wants.
type host struct {
	t    *testing.T
	proc string
	over map[int]<-chan error
}

func newHost(t *testing.T) *host {
	return &host{t: t, proc: t.TempDir(), over: map[int]<-chan error{}}
}

// run starts a process that waits, and is seen under a name, in a control group and with
// arguments.
func (h *host) run(comm, group string, parent int, args ...string) (pid int) {
	h.t.Helper()
	script := "echo; exec sleep 300"
	if comm == "stubborn" || strings.HasPrefix(comm, "runc:[") {
		script = "trap '' TERM; " + script
	}
	cmd := exec.Command("sh", "-c", script)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it minds its signals now
		h.t.Fatal(err)
	}
	pid = cmd.Process.Pid
	if parent == 0 {
		parent = 1
	}
	dir := filepath.Join(h.proc, strconv.Itoa(pid))
	for name, text := range map[string]string{
		"stat":    fmt.Sprintf("%d (%s) S %d 1 1", pid, comm, parent),
		"cgroup":  "0::" + group + "\n",
		"cmdline": strings.Join(append(args, ""), "\x00"),
	} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			h.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			h.t.Fatal(err)
		}
	}
	over := make(chan error, 1)
	h.over[pid] = over
	go func() {
		err := cmd.Wait()
		_ = os.RemoveAll(dir)
		over <- err
	}()
	h.t.Cleanup(func() { _ = cmd.Process.Kill() })
	return pid
}

// endedBy waits for the end of a process, and gives the signal that ended it.
func (h *host) endedBy(pid int) unix.Signal {
	h.t.Helper()
	select {
	case err := <-h.over[pid]:
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			return e.Sys().(syscall.WaitStatus).Signal()
		}
		h.t.Fatalf("process %d: %v", pid, err)
	case <-time.After(10 * time.Second):
		h.t.Fatalf("process %d runs on", pid)
	}
	return 0
}

func (h *host) reap(args volume.ReapArgs) (result volume.ReapResult) {
	h.t.Helper()
	arg, err := json.Marshal(args)
	if err != nil {
		h.t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if code := volume.MainBeside(h.t.Context(), h.proc, []string{"reap", string(arg)}, &out, &errs); code != 0 {
		h.t.Fatalf("reap: exit %d, %s", code, errs.String())
	}
	if err := json.Unmarshal(out.Bytes(), &result); err != nil {
		h.t.Fatal(err)
	}
	return result
}

func TestReap(t *testing.T) {
	id, other := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	h := newHost(t)
	shimOf := func(id string) int {
		return h.run("containerd-shim", "/system.slice/containerd.service", 0, "/usr/bin/containerd-shim-runc-v2", "-namespace", "moby", "-id", id, "-address", "/x")
	}
	shim, otherShim := shimOf(id), shimOf(other)
	group := "/system.slice/docker-" + id + ".scope"
	willing := h.run("postgres (a) S 1", group, shim, "postgres")
	child := h.run("postgres", group, willing, "postgres: writer")
	stubborn := h.run("stubborn", group+"/deep", shim, "stubborn")
	beside := h.run("postgres", "/system.slice/docker-"+other+".scope", otherShim, "postgres")
	named := h.run("vi", "/user.slice", 0, "vi", "-id", id)

	if got, want := h.reap(volume.ReapArgs{ID: id, Signal: "TERM", Grace: 300 * time.Millisecond}), (volume.ReapResult{Done: true, Processes: 3, Shims: 1}); got != want {
		t.Errorf("reap = %+v, want %+v", got, want)
	}
	for pid, want := range map[int]unix.Signal{
		willing: unix.SIGTERM, child: unix.SIGKILL, // a child is for its parent to end
		stubborn: unix.SIGKILL, shim: unix.SIGKILL,
	} {
		if got := h.endedBy(pid); got != want {
			t.Errorf("process %d was ended by %v, want %v", pid, got, want)
		}
	}
	for _, pid := range []int{beside, otherShim, named} {
		if err := unix.Kill(pid, 0); err != nil {
			t.Errorf("process %d, which is no part of it: %v", pid, err)
		}
	}
	if got, want := h.reap(volume.ReapArgs{ID: id}), (volume.ReapResult{Done: true}); got != want {
		t.Errorf("reap = %+v where nothing is left, want %+v", got, want)
	}
}

// What has not begun is not asked: it would not answer.
func TestReapNotBegun(t *testing.T) {
	id := strings.Repeat("ab", 32)
	h := newHost(t)
	pid := h.run("runc:[2:INIT]", "/docker/"+id, 0, "runc", "init")
	begun := time.Now()
	if got, want := h.reap(volume.ReapArgs{ID: id, Grace: time.Minute}), (volume.ReapResult{Done: true, Processes: 1}); got != want || time.Since(begun) > 30*time.Second {
		t.Errorf("reap = %+v after %v, want %+v at once", got, time.Since(begun), want)
	}
	if got := h.endedBy(pid); got != unix.SIGKILL {
		t.Errorf("it was ended by %v, want %v", got, unix.SIGKILL)
	}
}

func TestReapWantsAnID(t *testing.T) {
	for _, id := range []string{"", "a", strings.Repeat("a", 63), strings.Repeat("g", 64), "../" + strings.Repeat("a", 61)} {
		arg, err := json.Marshal(volume.ReapArgs{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		if code := volume.MainBeside(t.Context(), t.TempDir(), []string{"reap", string(arg)}, &out, &errs); code != 2 {
			t.Errorf("reap of %q: exit %d, want 2", id, code)
		}
	}
}

func TestStopSignal(t *testing.T) {
	for text, want := range map[string]unix.Signal{
		"": unix.SIGTERM, "SIGINT": unix.SIGINT, "quit": unix.SIGQUIT, "9": unix.SIGKILL, "SIGRTMIN+3": 37, "RTMIN": 34,
		"SIGRTMAX-2": 62, "SIGRTMAX+1": unix.SIGTERM, "SIGRTMIN+99": unix.SIGTERM, "0": unix.SIGTERM, "-1": unix.SIGTERM, "65": unix.SIGTERM, "nonsense": unix.SIGTERM,
	} {
		if got := volume.StopSignal(text); got != want {
			t.Errorf("StopSignal(%q) = %v, want %v", text, got, want)
		}
	}
}
