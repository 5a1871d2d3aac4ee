package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// procRoot is where the processes of the host are seen.
	procRoot = "/proc"
	// reapEvery is how often processes that are to end are looked for.
	reapEvery = 50 * time.Millisecond
	// reapLimit is how long a process that was killed may take to be gone.
	reapLimit = 10 * time.Second
)

// ReapArgs are the arguments of the task reap. It ends what runs on the host of a container
// that its engine takes for stopped: its processes, and then the shim above them. The
// helper sees the processes of the host for that.
type ReapArgs struct {
	// ID is the container's, in full.
	ID string `json:"id"`
	// Signal asks its processes to end: a name or a number, as engines take it. Default:
	// SIGTERM.
	Signal string `json:"signal,omitempty"`
	// Grace is how long they may take before they are killed.
	Grace time.Duration `json:"grace,omitempty"`
}

// ReapResult is what the task reap tells: how many there were.
type ReapResult struct {
	Done      bool `json:"done"`
	Processes int  `json:"processes"`
	Shims     int  `json:"shims"`
}

// containerID is the id of a container: nothing else is in the names of control groups by
// chance.
var containerID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// process is one of the host.
type process struct {
	pid, parent int
	comm        string
}

// begun reports whether the container's program runs in it: until then it is the runtime,
// which waits to be told.
func (p process) begun() bool { return !strings.HasPrefix(p.comm, "runc:[") }

func (h *helper) reap(ctx context.Context, a ReapArgs) error {
	if !containerID.MatchString(a.ID) {
		return usageError{fmt.Errorf("%q is no id of a container", a.ID)}
	}
	r := reaper{proc: procRoot, id: a.ID}
	if h.proc != "" {
		r.proc = h.proc
	}
	result := ReapResult{Done: true}
	var err error
	if result.Processes, err = r.processes(ctx, stopSignal(a.Signal), a.Grace); err != nil {
		return err
	}
	if result.Shims, err = r.end(ctx, r.shim, unix.SIGKILL, reapLimit); err != nil {
		return err
	}
	return h.say(result)
}

// reaper ends the processes of a container.
type reaper struct{ proc, id string }

// processes ends all that is in the container.
func (r *reaper) processes(ctx context.Context, sig unix.Signal, grace time.Duration) (int, error) {
	all, err := r.find(r.inside)
	if err != nil || len(all) == 0 {
		return 0, err
	}
	if slices.ContainsFunc(all, func(p process) bool { return p.pid == os.Getpid() }) {
		return 0, errors.New("it runs in that container itself")
	}
	if slices.ContainsFunc(all, process.begun) {
		top := func(p process) bool {
			return r.inside(p) && !slices.ContainsFunc(all, func(o process) bool { return o.pid == p.parent })
		}
		if _, err := r.end(ctx, top, sig, grace); err != nil && !errors.Is(err, errStays) {
			return 0, err
		}
	}
	_, err = r.end(ctx, r.inside, unix.SIGKILL, reapLimit)
	return len(all), err
}

// errStays says that processes do not end.
var errStays = errors.New("it does not end")

// end sends a signal to those that are meant, and waits until none is there. It returns
// how many there were.
func (r *reaper) end(ctx context.Context, meant func(process) bool, sig unix.Signal, limit time.Duration) (int, error) {
	late := time.NewTimer(limit)
	defer late.Stop()
	tick := time.NewTicker(reapEvery)
	defer tick.Stop()
	told := map[int]bool{}
	for {
		list, err := r.find(meant)
		if err != nil || len(list) == 0 {
			return len(told), err
		}
		for _, p := range list {
			if told[p.pid] {
				continue
			}
			told[p.pid] = true
			if err := tell(p.pid, func() bool { return meant(p) }, sig); err != nil {
				return len(told), fmt.Errorf("end process %d (%s): %w", p.pid, p.comm, err)
			}
		}
		select {
		case <-tick.C:
		case <-late.C:
			return len(told), fmt.Errorf("process %d (%s): %w", list[0].pid, list[0].comm, errStays)
		case <-ctx.Done():
			return len(told), ctx.Err()
		}
	}
}

// tell sends a signal to a process that is still the one that is meant: a number that
// was free meanwhile may be another's. One that has ended gets none.
func tell(pid int, still func() bool, sig unix.Signal) error {
	p, err := os.FindProcess(pid) // holds on to it, where the kernel can
	if err != nil {
		return err
	}
	defer func() { _ = p.Release() }()
	if !still() {
		return nil
	}
	if err := p.Signal(sig); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// find gives the processes of the host that are meant. Those that have ended and wait for
// their parent are not there.
func (r *reaper) find(meant func(process) bool) ([]process, error) {
	list, err := os.ReadDir(r.proc)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var out []process
	for _, e := range list {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p, ok, err := r.read(pid)
		if err != nil {
			return nil, fmt.Errorf("look at process %d: %w", pid, err)
		}
		if ok && meant(p) {
			out = append(out, p)
		}
	}
	return out, nil
}

// read reads what is told of a process: "PID (NAME) STATE PARENT …", where a name may hold
// anything. It is false where there is none any more.
func (r *reaper) read(pid int) (p process, ok bool, err error) {
	text, err := r.file(pid, "stat")
	if err != nil || text == nil {
		return p, false, err
	}
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return p, false, nil
	}
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 2 || fields[0] == "Z" || fields[0] == "X" {
		return p, false, nil
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return p, false, nil //nolint:nilerr // it is no process
	}
	return process{pid: pid, parent: parent, comm: string(text[open+1 : end])}, true, nil
}

// file reads a file of a process, nil where that has ended.
func (r *reaper) file(pid int, name string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(r.proc, strconv.Itoa(pid), name))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	return text, err
}

// inside reports whether a process is in a control group of the container.
func (r *reaper) inside(p process) bool {
	text, err := r.file(p.pid, "cgroup")
	return err == nil && bytes.Contains(text, []byte(r.id))
}

// shim reports whether a process is the container's shim: it is told the id.
func (r *reaper) shim(p process) bool {
	text, err := r.file(p.pid, "cmdline")
	if err != nil {
		return false
	}
	args := strings.Split(string(text), "\x00")
	if !strings.HasPrefix(filepath.Base(args[0]), "containerd-shim") {
		return false
	}
	i := slices.IndexFunc(args, func(s string) bool { return s == "-id" || s == "--id" })
	return i >= 0 && i+1 < len(args) && args[i+1] == r.id
}

// The signals whose numbers programs may give a meaning of their own.
const (
	firstRealtime = 34
	lastRealtime  = 64
)

// stopSignal reads a signal: a number, or a name with or without SIG.
func stopSignal(text string) unix.Signal {
	if n, err := strconv.Atoi(text); err == nil && n > 0 && n <= lastRealtime {
		return unix.Signal(n)
	}
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if sig := unix.SignalNum(name); sig != 0 {
		return sig
	}
	for prefix, base := range map[string]int{"SIGRTMIN": firstRealtime, "SIGRTMAX": lastRealtime} {
		rest, ok := strings.CutPrefix(name, prefix)
		n, err := strconv.Atoi("0" + strings.TrimLeft(rest, "+-"))
		if strings.HasPrefix(rest, "-") {
			n = -n
		}
		if sig := base + n; ok && err == nil && sig >= firstRealtime && sig <= lastRealtime {
			return unix.Signal(sig)
		}
	}
	return unix.SIGTERM
}
