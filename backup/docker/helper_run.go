package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

const (
	// helperMemory bounds what a helper may use, in bytes.
	helperMemory = 512 << 20
	// helperOOM lets the kernel end a helper rather than what runs on the host.
	helperOOM = 500

	volumeRoot = "/v/"      // volumes are mounted at /v/<id> in a helper
	transitDir = "/transit" // and the transit volume here
)

// What a helper's task needs beside being root without capabilities.
var (
	// readCaps read whatever the owner and mode of files are.
	readCaps = []string{"DAC_READ_SEARCH"}
	// writeCaps give files the owners, modes, capabilities and kinds that they had.
	writeCaps = []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"}
)

// helperMount is a tree of files that a helper sees: a named volume, which exists, or
// a path of the engine's host, which exists.
type helperMount struct {
	target string // volumeRoot+id, or transitDir
	volume string
	bind   string
	write  bool
	// recursive says that it sees what is mounted below a path of the host, too.
	recursive bool
}

// helperTask is one run of the helper.
type helperTask struct {
	op    string // the operation's id
	name  string // "read", "write", …
	input any    // becomes its JSON argument
	// mounts are all that it sees.
	mounts []helperMount
	caps   []string
	// processes says that it sees the processes of the engine's host.
	processes bool
	// stdin is copied to it, to the end. It must return once ctx is done, and is never
	// read after the task has ended.
	stdin io.Reader
	// stdout takes its output as it is. Without it the output is read as lines, like the
	// error output.
	stdout io.Writer
	// line takes each line of JSON that it says. It must not keep it.
	line func(line []byte)
	// detached says that the task's result lies in a volume: where the connection breaks
	// because the engine's daemon is restarted, its end is waited for.
	detached bool
}

// helperError says that a helper ended badly.
type helperError struct {
	task   string
	exit   int
	killed bool   // for want of memory
	text   string // the end of what it said
}

func (e *helperError) Error() string {
	switch {
	case e.killed:
		return fmt.Sprintf("helper %s was ended by the kernel for want of memory", e.task)
	case e.text == "":
		return fmt.Sprintf("helper %s ended with exit code %d", e.task, e.exit)
	}
	return fmt.Sprintf("helper %s: %s", e.task, e.text)
}

// runHelper runs a task to its end.
func (p *Platform) runHelper(ctx context.Context, t helperTask) error {
	_, err := p.runToEnd(ctx, t)
	return err
}

// runToEnd runs a task to its end; lost says that a line of it was too long to be kept.
func (p *Platform) runToEnd(ctx context.Context, t helperTask) (lost bool, err error) {
	s, err := p.startHelper(ctx, t)
	if err != nil {
		return false, err
	}
	defer func() { _ = s.Close() }()
	out := t.stdout
	if out == nil {
		out = io.Discard
	}
	_, err = io.Copy(out, s)
	return s.out.lost(), err
}

// helperResult runs a task to its end, and decodes its result: the line of JSON with "done"
// true.
func (p *Platform) helperResult(ctx context.Context, t helperTask, result any) error {
	var last []byte
	also := t.line
	t.line = func(line []byte) {
		var is struct {
			Done json.RawMessage `json:"done"` // true, or how much is done by now
		}
		if json.Unmarshal(line, &is) == nil && string(is.Done) == "true" {
			last = append(last[:0], line...)
		}
		if also != nil {
			also(line)
		}
	}
	lost, err := p.runToEnd(ctx, t)
	switch {
	case err != nil:
		return err
	case lost:
		return fmt.Errorf("helper %s said more than %s in one line: what it found is lost", t.name, backup.FormatBytes(mostLine))
	case last == nil:
		return fmt.Errorf("helper %s ended without a result", t.name)
	}
	if err := json.Unmarshal(last, result); err != nil {
		return fmt.Errorf("read result of helper %s: %w", t.name, err)
	}
	return nil
}

// helperRun is a helper at work. Reading it gives the task's output, and io.EOF only if
// the task ended well.
type helperRun struct {
	p    *Platform
	ctx  context.Context // the task's
	t    helperTask
	id   string
	conn types.HijackedResponse
	out  *demux
	fed  chan struct{} // closed when stdin has been copied
	end  error         // how it ended, once it has
	stop func() bool   // of the watch on ctx
}

// startHelper starts a task. The caller closes what it gives.
func (p *Platform) startHelper(ctx context.Context, t helperTask) (*helperRun, error) {
	img, err := p.EnsureHelper(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.mountable(ctx, t.mounts); err != nil {
		return nil, err
	}
	cfg, host, err := helperConfig(img, t)
	if err != nil {
		return nil, err
	}
	r := &helperRun{p: p, ctx: ctx, t: t, fed: make(chan struct{}), stop: func() bool { return true }}
	name := "dentropy-" + t.op + "-" + t.name + "-" + randomHex()
	err = p.call(ctx, "create helper", func(ctx context.Context, c *dockerengine.Conn) error {
		made, err := c.ContainerCreate(ctx, cfg, host, nil, nil, name)
		r.id = made.ID
		return err
	})
	if err != nil {
		close(r.fed)
		if gone(err) || ctx.Err() != nil { // it may have been made all the same
			err = errors.Join(err, p.removeContainer(ctx, name))
		}
		return nil, notMounted(err)
	}
	if err := r.begin(); err != nil {
		_ = r.Close()
		return nil, notMounted(err)
	}
	return r, nil
}

// begin attaches to the helper, and starts it.
func (r *helperRun) begin() error {
	conn, err := r.p.attach(r.ctx, r.id, r.t.stdin != nil)
	if err != nil {
		close(r.fed)
		return err
	}
	r.conn = conn
	// What reads or writes does not look at ctx.
	r.stop = context.AfterFunc(r.ctx, conn.Close)
	r.out = &demux{r: conn.Reader, raw: r.t.stdout != nil, line: r.t.line}
	go func() {
		defer close(r.fed)
		if r.t.stdin == nil {
			return
		}
		// A helper that ends before it has read everything says why by itself.
		_, err := io.Copy(conn.Conn, r.t.stdin)
		if err == nil {
			err = conn.CloseWrite()
		}
		if err != nil {
			// Nor may it take what came for all that there is: without its input's end it
			// would wait for ever, and so it must not live on.
			conn.Close()
		}
	}()
	return r.p.call(r.ctx, "start helper", func(ctx context.Context, c *dockerengine.Conn) error {
		return c.ContainerStart(ctx, r.id, container.StartOptions{})
	})
}

// attach connects to the input and output of a container.
func (p *Platform) attach(ctx context.Context, id string, stdin bool) (types.HijackedResponse, error) {
	conn, err := p.api(ctx)
	if err != nil {
		return types.HijackedResponse{}, err
	}
	out, err := hijack(ctx, func() (types.HijackedResponse, error) {
		return conn.ContainerAttach(ctx, id, container.AttachOptions{Stream: true, Stdin: stdin, Stdout: true, Stderr: true})
	})
	if err != nil {
		return out, p.failed("attach to container", err)
	}
	return out, nil
}

// Read gives the task's output.
func (r *helperRun) Read(b []byte) (int, error) {
	if r.end != nil {
		return 0, r.end
	}
	n, err := r.out.Read(b)
	if err == nil {
		return n, nil
	}
	if r.ctx.Err() != nil {
		r.end = context.Cause(r.ctx)
		return n, r.end
	}
	if r.end = r.wait(); r.end == nil {
		r.end = io.EOF
	}
	if n > 0 {
		return n, nil // the end comes with the next call
	}
	return 0, r.end
}

// wait waits for the end of a helper whose output has ended.
func (r *helperRun) wait() error {
	state, err := r.p.waitExit(r.ctx, r.id, r.t.detached)
	if err != nil {
		return fmt.Errorf("helper %s: %w", r.t.name, err)
	}
	if state.ExitCode == 0 {
		return nil
	}
	return &helperError{task: r.t.name, exit: state.ExitCode, killed: state.OOMKilled, text: r.out.tail()}
}

// Close ends and removes the helper.
func (r *helperRun) Close() error {
	r.stop()
	if r.end == nil {
		r.end = io.ErrClosedPipe
	}
	if r.conn.Conn != nil {
		r.conn.Close()
	}
	err := r.p.removeContainer(r.ctx, r.id)
	<-r.fed
	return err
}

// removeContainer ends and removes a container of ours, by its id or name; ctx may be
// over. One that is not there is removed. An engine that is away is waited for, unless
// ctx is over: nobody else would remove it for a long time.
func (p *Platform) removeContainer(ctx context.Context, id string) error {
	remove := p.insist
	if ctx.Err() != nil {
		remove = p.call
	}
	return remove(context.WithoutCancel(ctx), "remove container", func(ctx context.Context, c *dockerengine.Conn) error {
		err := c.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
		if errdefs.IsNotFound(err) || errdefs.IsConflict(err) { // a removal is under way
			return nil
		}
		return err
	})
}
