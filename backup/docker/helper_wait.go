package docker

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/internal/backoff"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

var errCutOff = errors.New("the connection to it broke")

// waitExit waits until a container that was started does not run. Where patient, it
// waits for an engine that has gone away, too.
func (p *Platform) waitExit(ctx context.Context, id string, patient bool) (*container.State, error) {
	wait := backoff.Backoff{Max: retryMax}
	lost := time.Time{}
	for {
		state, err := p.exitState(ctx, id, patient)
		switch {
		case err == nil && state != nil:
			return state, nil
		case err == nil && !patient:
			return nil, errCutOff
		case err == nil:
			lost = time.Time{}
		case !gone(err) || !patient || ctx.Err() != nil:
			return nil, err
		case lost.IsZero():
			lost = time.Now()
		case time.Since(lost) > patience:
			return nil, err
		}
		if err := wait.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

// exitState gives the state of a container that has ended, nil for one that runs. It
// waits for its end for a while, or for long.
func (p *Platform) exitState(ctx context.Context, id string, long bool) (*container.State, error) {
	conn, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	limit := exitGrace
	if long {
		limit = waitSlice
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// Without one a container that has not been started counts as one that has ended.
	over, failed := conn.ContainerWait(limited, id, container.WaitConditionNotRunning)
	select {
	case <-over:
	case err := <-failed:
		if limited.Err() == nil {
			p.stale()
			if errdefs.IsNotFound(err) {
				return nil, errors.New("somebody removed it")
			}
			// asked below
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var in container.InspectResponse
	err = p.call(ctx, "inspect container", func(ctx context.Context, c *dockerengine.Conn) error {
		in, err = c.ContainerInspect(ctx, id)
		return err
	})
	switch {
	case errdefs.IsNotFound(err):
		return nil, errors.New("somebody removed it")
	case err != nil:
		return nil, err
	case in.ContainerJSONBase == nil || in.State == nil:
		return nil, errors.New("the engine does not say how it ended")
	case in.State.Running || in.State.Restarting:
		return nil, nil
	case in.State.StartedAt == "" || strings.HasPrefix(in.State.StartedAt, "0001-"):
		return nil, errors.New("it was never started")
	}
	return in.State, nil
}

const (
	// exitGrace is between the end of a container's output and its own.
	exitGrace = 20 * time.Second
	// waitSlice is how long the end of a container is waited for in one call: a
	// connection that has silently died is noticed then.
	waitSlice = time.Minute
)
