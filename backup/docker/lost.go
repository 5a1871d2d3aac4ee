package docker

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// An engine whose daemon is killed in the moment in which it starts a container may lose
// track of it: containerd has made the task, the daemon that comes back takes the container
// for stopped, and refuses each start from then on, also after it is restarted itself
// (Docker 20.10 with containerd 1.6). Mostly the container's program runs, with the app's
// volumes: another container in its place would be a second one that writes to the same
// data. So what runs of it is ended, by a helper that sees the processes of the engine's
// host, its shim as well, upon which containerd forgets the task. The container itself stays
// as it is: its settings, what it has written, and who refers to it.

// lostText is how engines refuse to start what they have lost track of; %s is the
// container's id.
const lostText = `task "?%[1]s"?: already exists|container (?:with id )?"?%[1]s"?(?::| is)? already exists|id already in use|/%[1]s: file exists`

// lostAfter is the attempt from which on an answer like that is taken for what it says: a
// start that an earlier daemon began may be under way still.
const lostAfter = 2

// isLost reports whether an engine refuses a start since something runs as that container,
// which it takes for stopped.
func isLost(err error, id string) bool {
	if err == nil {
		return false
	}
	return regexp.MustCompile(fmt.Sprintf(lostText, regexp.QuoteMeta(id))).MatchString(err.Error())
}

// errNothingLost says that nothing runs of a container.
var errNothingLost = errors.New("nothing of it runs on the engine's host")

// endLost ends what runs of a container that the engine takes for stopped, so that it can
// be started. It can be repeated.
func (p *Platform) endLost(ctx context.Context, id string) error {
	var in container.InspectResponse
	err := p.insist(ctx, "inspect container", func(ctx context.Context, c *dockerengine.Conn) (err error) {
		in, err = c.ContainerInspect(ctx, id)
		return err
	})
	switch {
	case err != nil:
		return err
	case in.ContainerJSONBase == nil || in.State == nil || in.Config == nil:
		return errors.New("inspect container: the engine's answer lacks its settings")
	case in.State.Running || in.State.Restarting || in.State.Paused:
		return nil // it is not lost any more
	}
	grace := stopTime(in.Config.StopTimeout)
	limited, cancel := context.WithTimeout(ctx, grace+stopExtra)
	defer cancel()
	var result struct{ Processes, Shims int }
	err = p.helperResult(limited, helperTask{
		op: randomOp(), name: "reap", caps: []string{"KILL"}, processes: true,
		input: map[string]any{"id": in.ID, "signal": in.Config.StopSignal, "grace": grace},
	}, &result)
	if err == nil && result.Processes+result.Shims == 0 {
		err = errNothingLost
	}
	if err != nil {
		return err
	}
	p.log.Warn("engine had lost track of a container", "container", trimSlash(in.Name), "processes", result.Processes)
	return nil
}

// lostProblem says what a person has to do about a container that is lost: refused is what
// the engine says, err why we could do nothing about it.
func lostProblem(name string, refused, err error) error {
	text := fmt.Sprintf("the engine has lost track of %s: it takes it for stopped, and refuses to start it (%v)", name, refused)
	if err != nil {
		text += fmt.Sprintf("; what runs of it cannot be ended from here: %v", err)
	}
	return &backup.Problem{
		Message: text,
		Hint: "restart containerd and Docker on the engine's host (systemctl restart containerd docker), and " + name +
			" is started by itself; or make it anew with its compose file (docker compose up -d --force-recreate)",
		Object: name, Err: refused,
	}
}
