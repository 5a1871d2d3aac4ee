package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// hookRun is a hook of a container.
type hookRun struct {
	ID   string      `json:"id"`
	Name string      `json:"name"`
	Hook backup.Hook `json:"hook"`
}

// runHook runs a command in a container. Its output is not kept, but for its end in the
// error.
func (p *Platform) runHook(ctx context.Context, h hookRun) (backup.HookReport, error) {
	report := backup.HookReport{Container: h.Name, Label: h.Hook.Label, ExitCode: -1}
	begun := time.Now()
	code, tail, err := p.exec(ctx, h)
	report.Took = time.Since(begun)
	if err != nil {
		return report, fmt.Errorf("run hook %s of %s: %w", h.Hook.Label, h.Name, err)
	}
	report.ExitCode = code
	if code != 0 {
		return report, hookFailed(h, code, tail)
	}
	return report, nil
}

// hookFailed says how a hook ended. Programs that dump databases like to print how they were
// called, and with which password.
func hookFailed(h hookRun, code int, tail string) error {
	text := fmt.Sprintf("hook %s of %s ended with code %d", h.Hook.Label, h.Name, code)
	if tail != "" {
		text += ": " + withoutSecrets(errors.New(tail)).Error()
	}
	return &backup.Problem{Message: text, Hint: "run it by hand in the container to see why", Object: h.Name}
}

// hookTail is how much of a hook's output an error shows.
const hookTail = 400

func (p *Platform) exec(ctx context.Context, h hookRun) (code int, tail string, err error) {
	var id string
	err = p.call(ctx, "prepare hook", func(ctx context.Context, c *dockerengine.Conn) error {
		made, err := c.ContainerExecCreate(ctx, h.ID, container.ExecOptions{
			Cmd: h.Hook.Command, User: h.Hook.User, AttachStdout: true, AttachStderr: true,
		})
		id = made.ID
		return err
	})
	if err != nil {
		return 0, "", err
	}
	conn, err := p.api(ctx)
	if err != nil {
		return 0, "", err
	}
	out, err := hijack(ctx, func() (types.HijackedResponse, error) {
		return conn.ContainerExecAttach(ctx, id, container.ExecAttachOptions{})
	})
	if err != nil {
		return 0, "", p.failed("run hook", err)
	}
	defer out.Close()
	defer context.AfterFunc(ctx, out.Close)()
	d := &demux{r: out.Reader}
	_, readErr := io.Copy(io.Discard, d)
	if ctx.Err() != nil {
		return 0, "", context.Cause(ctx)
	}
	// The exit code is there only after the end of the output.
	tail = d.tail()
	if extra := len(tail) - hookTail; extra > 0 {
		// Half a word could be a password without its name.
		tail = tail[extra:]
		tail = "…" + tail[strings.IndexAny(tail, " \t\n")+1:]
	}
	for wait := time.NewTicker(lookEvery); ; {
		var in container.ExecInspect
		err = p.call(ctx, "ask how the hook ended", func(ctx context.Context, c *dockerengine.Conn) (err error) {
			in, err = c.ContainerExecInspect(ctx, id)
			return err
		})
		if err != nil || !in.Running {
			wait.Stop()
			return in.ExitCode, tail, errors.Join(err, readErr)
		}
		if readErr != nil {
			wait.Stop()
			return 0, tail, fmt.Errorf("the connection to it broke: %w", readErr)
		}
		select { // its output has ended, and so will it
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return 0, tail, context.Cause(ctx)
		}
	}
}

// hijack makes a call that takes a connection over: the client does not look at ctx once
// its request is out.
func hijack(ctx context.Context, do func() (types.HijackedResponse, error)) (types.HijackedResponse, error) {
	type answer struct {
		conn types.HijackedResponse
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		conn, err := do()
		got <- answer{conn, err}
	}()
	limit := time.NewTimer(callTimeout)
	defer limit.Stop()
	var err error
	select {
	case a := <-got:
		return a.conn, a.err
	case <-ctx.Done():
		err = ctx.Err()
	case <-limit.C:
		err = errSlow
	}
	go func() { // it ends when the engine answers or the connection does
		if a := <-got; a.err == nil {
			a.conn.Close()
		}
	}()
	return types.HijackedResponse{}, err
}
