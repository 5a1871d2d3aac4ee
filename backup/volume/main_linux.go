package volume

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The exit codes of Main.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// memoryLimit keeps the helper small beside an application that needs the memory more.
const memoryLimit = 220 << 20

// grace is how long a task that was told to end may take for that.
const grace = 3 * time.Second

// transitRoot is where the transit volume is mounted in the helper.
const transitRoot = "/transit"

// helper runs one task.
type helper struct {
	stdin  io.Reader
	stdout io.Writer
	// transit is the folder that clean and list work in.
	transit string
	// proc is where reap sees processes. Default: /proc.
	proc string

	mu sync.Mutex // for lines on stdout
}

// usageError is an error of the caller.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// Main runs one task of the helper: args are its name and its JSON. Results and progress
// are lines of JSON on stdout; the last one has "done", and only with exit code 0 all is
// well. The tasks, with what they take and tell beside "done":
//
//	measure {"volumes":[{"id","path","exclude","only"}],"transit"} ▸ {"volumes":{id:{"bytes","files"}},"transit_free","transit_disk","rate"}
//	read    {"volumes":[…],"transit","allow_missing","quiesced","reserve"} ▸ {"volumes":{id:{"hash","entries",…,"tree"}}}
//	send    {"dir","files"} ▸ the files, one after the other, and nothing else
//	write   {"path","max_entries","max_bytes","max_stored","no_devices","strict","labels","chown_map","file","no_sums"}, a tar or tar.zst on stdin ▸ Result
//	hash    {"path","exclude","only"} ▸ {"hash","contents","notes"}
//	copy    {"from","to", and what write takes} ▸ Result
//	swap    {"root","a","b"} ▸ {"inodes":{a:…,b:…}}
//	inode   {"root","names"} ▸ {"inodes":{name:…}}, 0 where there is none
//	clean   {"dir"}
//	list    {"dir"} ▸ {"files":[{"name","size","dir","modified"}]}
//	empty   {"path"} ▸ {"empty"}
//	host    {"root","do":[{"op","a","b","text"}]} ▸ {"stats","merge"}, see HostStep
//	get     {"url","host_header","timeout"} ▸ {"status"}
//	reap    {"id","signal","grace"} ▸ {"processes","shims"}, see ReapArgs
//
// A task ends early when ctx does, on SIGTERM and SIGINT, and when stdin is a pipe that
// its other side has closed (other than in write, where that is the end of the data).
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	h := &helper{stdin: stdin, stdout: stdout, transit: transitRoot}
	debug.SetMemoryLimit(memoryLimit)
	// The modes of what is made here are set, not left to chance.
	old := unix.Umask(0)
	defer unix.Umask(old)
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()
	return h.main(ctx, args, stderr)
}

func (h *helper) main(ctx context.Context, args []string, stderr io.Writer) int {
	if len(args) != 2 {
		fmt.Fprintln(stderr, "usage: helper TASK JSON")
		return exitUsage
	}
	run := h.tasks()[args[0]]
	if run == nil {
		fmt.Fprintf(stderr, "helper: there is no task %q\n", args[0])
		return exitUsage
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if args[0] != "write" {
		h.watch(cancel)
	}
	done := make(chan error, 1)
	go func() { done <- run(ctx, []byte(args[1])) }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		// A read of a disk or a write to a pipe may hang; the process ends all the same.
		late := time.NewTimer(grace)
		defer late.Stop()
		select {
		case err = <-done:
		case <-late.C:
			err = errHangs
		}
	}
	var usage usageError
	if err != nil && ctx.Err() != nil && !errors.As(err, &usage) {
		err = context.Cause(ctx)
	}
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "helper %s: %v\n", args[0], err)
		return exitUsage
	}
	fmt.Fprintf(stderr, "helper %s: %v\n", args[0], err)
	return exitError
}

// task runs one task with its JSON.
type task func(ctx context.Context, args []byte) error

func (h *helper) tasks() map[string]task {
	return map[string]task{
		"measure": with(h.measure), "read": with(h.read), "send": with(h.send), "write": with(h.write),
		"hash": with(h.hash), "copy": with(h.copy), "swap": with(h.swap), "inode": with(h.inode),
		"clean": with(h.clean), "list": with(h.list), "empty": with(h.empty), "get": with(h.get), "host": with(h.host),
		"reap": with(h.reap),
	}
}

// with reads the JSON of a task. A field that is not known is an error: it would be
// something that was asked for and is not done.
func with[T any](run func(context.Context, T) error) task {
	return func(ctx context.Context, data []byte) error {
		var args T
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&args); err != nil {
			return usageError{fmt.Errorf("read arguments: %w", err)}
		}
		return run(ctx, args)
	}
}

// errHangs says that a task did not end when it was told to.
var errHangs = errors.New("the task hangs")

// errGone says that the other side of stdin is gone.
var errGone = errors.New("stopped: stdin was closed")

// watch ends the task when the other side of stdin goes away. What is no pipe says
// nothing about that.
func (h *helper) watch(cancel context.CancelCauseFunc) {
	if h.stdin == nil {
		return
	}
	if f, ok := h.stdin.(*os.File); ok {
		st, err := f.Stat()
		if err != nil || st.Mode()&(os.ModeNamedPipe|os.ModeSocket) == 0 {
			return
		}
	}
	// This goroutine lives as long as the process, where stdin stays open.
	go func() {
		_, _ = io.Copy(io.Discard, h.stdin)
		cancel(errGone)
	}()
}

// say writes one line.
func (h *helper) say(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := h.stdout.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write to stdout: %w", err)
	}
	return nil
}
