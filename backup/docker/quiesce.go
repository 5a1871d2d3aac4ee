package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

const (
	// stopGrace is what an engine gives a container to end by itself, where neither it
	// nor its image says.
	stopGrace = 10 * time.Second
	// stopLongest is how long the longest stop is waited for.
	stopLongest = time.Hour
	// stopExtra is how much longer than that an answer may take.
	stopExtra = time.Minute
	// stopAttempts is how often a container that would not stop is stopped.
	stopAttempts = 3
	// exitKilled is the exit code of a container that was killed.
	exitKilled = 137
)

// restPlan is who comes to rest, and how.
type restPlan struct {
	// halt are those that stop or pause, in the order in which they start again.
	halt      []halted
	pre, post []hookRun
	warnings  []string
}

// planRest decides who comes to rest. mode overrides labels, where set. Containers are
// as they are now, in the order in which they start.
func planRest(app *backup.App, mode backup.Mode) (restPlan, error) {
	var r restPlan
	switch mode {
	case "", backup.Stop, backup.Pause, backup.Hot:
	default:
		return r, &backup.Problem{Message: fmt.Sprintf("mode %q is not known", mode), Hint: "use stop, pause or hot"}
	}
	for _, c := range app.Containers {
		alive := c.State == backup.Running || c.State == backup.Restarting
		if c.State == backup.Running {
			for _, h := range c.Quiesce.Pre {
				r.pre = append(r.pre, hookRun{ID: c.ID, Name: c.Name, Hook: h})
			}
			for _, h := range c.Quiesce.Post {
				r.post = append(r.post, hookRun{ID: c.ID, Name: c.Name, Hook: h})
			}
		} else if len(c.Quiesce.Pre)+len(c.Quiesce.Post) > 0 {
			r.warnings = append(r.warnings, fmt.Sprintf("the hooks of %s are not run: it is %s", c.Name, c.State))
		}
		how := modeOf(app, c, mode)
		if alive && how == backup.Pause && removesItself(c.Settings) {
			r.warnings = append(r.warnings, c.Name+" removes itself when it stops (--rm), so it is paused: its data is as after a power cut")
		}
		if !alive || how == backup.Hot {
			continue
		}
		r.halt = append(r.halt, halted{
			ID: c.ID, Name: c.Name, Mode: how, State: c.State, StartedAt: c.StartedAt,
			NoRestart: c.Quiesce.NoRestart && how == backup.Stop, DependsOn: c.DependsOn, Grace: graceOf(c.Settings),
		})
	}
	return r, nil
}

// graceOf is how long a container may take to end by itself, from its settings.
func graceOf(settings json.RawMessage) time.Duration {
	var s struct {
		Config struct{ StopTimeout *int }
	}
	if json.Unmarshal(settings, &s) != nil {
		return stopGrace
	}
	return stopTime(s.Config.StopTimeout)
}

// modeOf is how a container comes to rest.
func modeOf(app *backup.App, c backup.Container, mode backup.Mode) backup.Mode {
	how := c.Quiesce.Mode
	if mode != "" {
		how = mode
	}
	switch {
	case app.Self:
		return backup.Hot // whatever anybody says: this program would stop itself
	case (how == "" || how == backup.Stop) && removesItself(c.Settings):
		return backup.Pause // a stop would remove it, and its anonymous volumes
	case how == "":
		return backup.Stop
	case how == backup.Pause && c.State == backup.Restarting:
		return backup.Stop // what does not run cannot be paused
	}
	return how
}

// removesItself reports whether a container is removed when it ends (docker run --rm).
func removesItself(settings json.RawMessage) bool {
	var s struct{ HostConfig struct{ AutoRemove bool } }
	return json.Unmarshal(settings, &s) == nil && s.HostConfig.AutoRemove
}

// consistencyOf says how a volume is read: as its users are at that time.
func consistencyOf(app *backup.App, v *backup.Volume, mode backup.Mode) string {
	if v.Class == classProject {
		return "hot" // whoever edits it is not stopped
	}
	rank := map[string]int{"stopped": 0, "paused": 1, "hook": 2, "hot": 3}
	worst := "stopped"
	for _, c := range app.Containers {
		uses := slices.ContainsFunc(c.Mounts, func(m backup.Mount) bool { return m.Volume == v.ID && !m.ReadOnly })
		if !uses {
			continue
		}
		how := "stopped"
		switch {
		case c.State == backup.Paused:
			how = "paused"
		case c.State != backup.Running && c.State != backup.Restarting:
		case modeOf(app, c, mode) == backup.Pause:
			how = "paused"
		case modeOf(app, c, mode) == backup.Hot && len(c.Quiesce.Pre) > 0:
			how = "hook"
		case modeOf(app, c, mode) == backup.Hot:
			how = "hot"
		}
		if rank[how] > rank[worst] {
			worst = how
		}
	}
	return worst
}

// refresh asks how the app's containers are now. One that is gone is an error: what was
// captured is no longer what runs.
func (p *Platform) refresh(ctx context.Context, app *backup.App) error {
	for i := range app.Containers {
		c := &app.Containers[i]
		st, err := p.state(ctx, c.ID)
		if err != nil {
			return err
		}
		if st == nil {
			return &backup.Problem{Message: fmt.Sprintf("%s was removed or made again since the app was looked at", c.Name), Hint: "begin again", Object: c.Name}
		}
		c.State = backup.State(st.Status)
		c.StartedAt, c.FinishedAt = engineTime(st.StartedAt), engineTime(st.FinishedAt)
	}
	return nil
}

// halter brings containers to rest.
type halter struct {
	p    *Platform
	list []halted // in the order in which they start; StartedAt is kept up to date
	// noted takes down that one has come to rest; it is called for one at a time.
	noted func(h halted, st *container.State) error
	// report takes progress.
	report func(backup.Progress)

	mu      sync.Mutex // guards what follows
	stopped []backup.StoppedContainer
	last    time.Time // when the last stop or pause returned
	errs    []error
}

// halt stops containers, each after those that depend on it, and then pauses others.
func (h *halter) halt(ctx context.Context) error {
	over := map[string]chan struct{}{}
	for _, c := range h.list {
		over[c.Name] = make(chan struct{})
	}
	// by name, those that depend on it
	users := map[string][]string{}
	for _, c := range h.list {
		for _, d := range c.DependsOn {
			users[d.Container] = append(users[d.Container], c.Name)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for i := range h.list {
		c := &h.list[i]
		wg.Go(func() {
			defer close(over[c.Name])
			for _, user := range users[c.Name] {
				<-over[user] // dependencies hold no circle
			}
			if c.Mode != backup.Stop {
				return
			}
			if err := h.one(ctx, c, h.p.stopContainer); err != nil {
				cancel() // nothing more is stopped
			}
		})
	}
	wg.Wait()
	for i := range slices.Backward(h.list) {
		if c := &h.list[i]; c.Mode == backup.Pause && len(h.errs) == 0 {
			_ = h.one(ctx, c, h.p.pauseContainer) // it is kept in errs
		}
	}
	return errors.Join(h.errs...)
}

// one brings one container to rest.
func (h *halter) one(ctx context.Context, c *halted, do func(context.Context, string) (*container.State, error)) error {
	err := ctx.Err()
	begun := time.Now()
	var st *container.State
	if err == nil {
		h.report(backup.Progress{Phase: "quiesce", Text: c.Name})
		st, err = do(ctx, c.ID)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil && st == nil {
		err = errors.New("somebody removed it")
	}
	if err == nil {
		// It may have been started again since it was looked at: what rests now is what we
		// have brought to rest.
		if t := engineTime(st.StartedAt); !t.IsZero() {
			c.StartedAt = t
			if c.State == backup.Restarting {
				c.State = backup.Running // its time is certain now
			}
		}
		h.last = time.Now()
		one := backup.StoppedContainer{Name: c.Name, Mode: c.Mode, Took: time.Since(begun)}
		if c.Mode == backup.Stop {
			one.ExitCode = st.ExitCode
		}
		if one.ExitCode == exitKilled {
			h.report(backup.Progress{Phase: "quiesce", Warning: c.Name + " did not end by itself and was killed: its data may not be clean; give it a longer stop_grace_period"})
		}
		h.stopped = append(h.stopped, one)
		err = h.noted(*c, st)
	}
	if err != nil {
		err = fmt.Errorf("bring %s to rest: %w", c.Name, err)
		h.errs = append(h.errs, err)
	}
	return err
}

// stopContainer stops a container as it wants to be stopped, and gives the state it is
// in then. A stop that was begun is waited for whatever becomes of ctx: engines go on with
// it, and who looked at once would find the container running, and leave it to stop later.
func (p *Platform) stopContainer(ctx context.Context, id string) (*container.State, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	for attempt := 1; ; attempt++ {
		err := p.stopOnce(ctx, id)
		// Whatever the answer was, or was not: its state counts.
		st, stErr := p.state(ctx, id)
		if stErr != nil {
			return nil, errors.Join(err, stErr)
		}
		if st == nil || !st.Running && !st.Restarting && !st.Paused {
			return st, nil
		}
		if attempt == stopAttempts {
			if err == nil {
				err = errors.New("it runs again, or still")
			}
			return nil, err
		}
	}
}

func (p *Platform) stopOnce(ctx context.Context, id string) error {
	var in container.InspectResponse
	err := p.insist(ctx, "inspect container", func(ctx context.Context, c *dockerengine.Conn) (err error) {
		in, err = c.ContainerInspect(ctx, id)
		return err
	})
	if err != nil {
		return err
	}
	grace := stopGrace
	if in.Config != nil {
		grace = stopTime(in.Config.StopTimeout)
	}
	conn, err := p.api(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, grace+stopExtra)
	defer cancel()
	// Without a timeout of ours the container's own counts, and its signal.
	if err := conn.ContainerStop(ctx, id, container.StopOptions{}); err != nil {
		p.stale()
		return p.failed("stop container", err)
	}
	return nil
}

// pauseContainer pauses a container, and gives the state it is in then.
func (p *Platform) pauseContainer(ctx context.Context, id string) (*container.State, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx) // as for stopContainer
	err := p.insist(ctx, "pause", func(ctx context.Context, c *dockerengine.Conn) error {
		err := c.ContainerPause(ctx, id)
		if err != nil {
			if in, e := c.ContainerInspect(ctx, id); e == nil && in.State != nil && in.State.Paused {
				return nil
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	st, err := p.state(ctx, id)
	if err == nil && st != nil && !st.Paused {
		err = errors.New("it is not paused")
	}
	return st, err
}

// intruders looks whether what was brought to rest still is, and says who is not.
func (p *Platform) intruders(ctx context.Context, list []halted) ([]string, error) {
	var out []string
	for _, h := range list {
		st, err := p.state(ctx, h.ID)
		switch {
		case err != nil:
			return nil, err
		case st == nil: // removed: nothing that it could have written
		case h.Mode == backup.Pause && !st.Paused,
			h.Mode == backup.Stop && (st.Running || st.Restarting || !h.StartedAt.IsZero() && !engineTime(st.StartedAt).Equal(h.StartedAt)):
			out = append(out, h.Name)
		}
	}
	return out, nil
}

// errIntruders says that somebody started containers while they were read.
func errIntruders(names []string) error {
	return &backup.Problem{
		Message: "somebody started " + strings.Join(names, ", ") + " while the data was read, twice: the data would not be consistent",
		Hint:    "look for what starts containers: autoheal, watchtower, a cron job, another backup, a restart of the engine with restart policy \"always\"; or use --mode pause or hot",
		Object:  names[0],
	}
}
