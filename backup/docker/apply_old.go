package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// oldOne reads a container that is to be set aside; nil where there is none.
func (p *Platform) oldOne(ctx context.Context, id string) (*oldOne, error) {
	var in container.InspectResponse
	err := p.call(ctx, "inspect container", func(ctx context.Context, c *dockerengine.Conn) (err error) {
		in, err = c.ContainerInspect(ctx, id)
		return err
	})
	switch {
	case errdefs.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, err
	case in.ContainerJSONBase == nil || in.State == nil || in.HostConfig == nil || in.Config == nil:
		return nil, errors.New("inspect container: the engine's answer lacks its settings")
	case in.HostConfig.AutoRemove:
		return nil, &backup.Problem{Message: fmt.Sprintf("%s removes itself when it stops: it cannot be set aside", in.Name), Hint: "restore under another name", Object: in.Name}
	}
	o := &oldOne{halted: halted{ID: in.ID, Name: trimSlash(in.Name), Mode: backup.Stop, State: backup.State(in.State.Status), StartedAt: engineTime(in.State.StartedAt)}, Restart: in.HostConfig.RestartPolicy}
	o.Ran = in.State.Running || in.State.Restarting || in.State.Paused
	o.Grace = stopTime(in.Config.StopTimeout)
	o.Paused = in.State.Paused
	if hc := in.State.Health; hc != nil && hc.Status != container.NoHealthcheck {
		o.Unhealthy = hc.Status != container.Healthy
	}
	for _, d := range parseDependsOn(in.Config.Labels[labelDependsOn]) {
		o.DependsOn = append(o.DependsOn, backup.Dependency{Container: d.service, Condition: d.condition}) // by service for now
	}
	o.service = in.Config.Labels[labelService]
	return o, nil
}

// lookAgain sees how the old set is now: hours may have gone by since it was planned.
func (c *changeover) lookAgain(ctx context.Context) error {
	for i := range c.rec.Old {
		o := &c.rec.Old[i]
		now, err := c.p.oldOne(ctx, o.ID)
		if err != nil {
			return err
		}
		if now == nil {
			return &backup.Problem{Message: o.Name + " was removed, or made again, while the " + c.why + " was under way", Hint: "try again", Object: o.Name}
		}
		now.Name, now.DependsOn, now.service = o.Name, o.DependsOn, o.service
		*o = *now
	}
	if err := c.append(stepOld, c.rec.Old); err != nil {
		return err
	}
	c.touched = true
	return nil
}

// halted takes down that one of the old set has come to rest. From then on it is ours to
// start, whenever it was started before.
func (c *changeover) halted(h halted, _ *container.State) error {
	c.rec.came(h.ID, h.StartedAt)
	return c.append(stepHalted, journalRest{ID: h.ID, StartedAt: h.StartedAt})
}

// came notes that one of the old set was stopped.
func (c *changeRecord) came(id string, started time.Time) {
	for i := range c.Old {
		if o := &c.Old[i]; o.ID == id {
			o.Ours = true
			if !started.IsZero() {
				o.StartedAt = started
			}
		}
	}
}

// stopTime is how long a container of that setting may take to end by itself.
func stopTime(seconds *int) time.Duration {
	switch {
	case seconds == nil:
		return stopGrace
	case *seconds < 0 || *seconds > int(stopLongest/time.Second):
		return stopLongest // or without end
	}
	return time.Duration(*seconds) * time.Second
}

func trimSlash(s string) string {
	if len(s) > 0 && s[0] == '/' {
		return s[1:]
	}
	return s
}

// orderOld sorts old containers so that each comes after those that it depends on, and
// names dependencies by container.
func orderOld(list []oldOne) {
	byService := map[string][]string{}
	for _, o := range list {
		byService[o.service] = append(byService[o.service], o.Name)
	}
	tmp := make([]backup.Container, len(list))
	for i := range list {
		o := &list[i]
		var deps []backup.Dependency
		for _, d := range o.DependsOn {
			for _, name := range byService[d.Container] {
				if name != o.Name && d.Container != "" {
					deps = append(deps, backup.Dependency{Container: name, Condition: d.Condition})
				}
			}
		}
		tmp[i] = backup.Container{Name: o.Name, Service: o.service, DependsOn: deps}
	}
	sorted, _ := startOrder(tmp)
	at := map[string]int{}
	deps := map[string][]backup.Dependency{}
	for i, c := range sorted {
		at[c.Name], deps[c.Name] = i, c.DependsOn
	}
	for i := range list {
		list[i].DependsOn = deps[list[i].Name]
	}
	slices.SortFunc(list, func(a, b oldOne) int { return cmp.Compare(at[a.Name], at[b.Name]) })
}
