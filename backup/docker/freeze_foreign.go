package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// foreign refuses an app whose containers a guard stands by. Locks are files in a data
// folder: of a program with another one, in a container say, only its guard can be seen.
// What this one has left behind is finished before.
func (p *Platform) foreign(ctx context.Context, app *backup.App) error {
	var list []container.Summary
	err := p.call(ctx, "list guards", func(ctx context.Context, c *dockerengine.Conn) (err error) {
		list, err = c.ContainerList(ctx, container.ListOptions{Filters: filters.NewArgs(filters.Arg("label", labelRole+"="+roleGuard))})
		return err
	})
	if err != nil {
		return err
	}
	for _, s := range list {
		if s.Labels[labelRole] != roleGuard {
			continue
		}
		var in container.InspectResponse
		err := p.call(ctx, "inspect guard", func(ctx context.Context, c *dockerengine.Conn) (err error) {
			in, err = c.ContainerInspect(ctx, s.ID)
			return ignoreNotFound(err)
		})
		if err != nil {
			return err
		}
		var spec guardSpec
		if in.Config == nil || len(in.Config.Cmd) == 0 || json.Unmarshal([]byte(in.Config.Cmd[len(in.Config.Cmd)-1]), &spec) != nil {
			continue // gone meanwhile, or of another version
		}
		if name := spec.guards(app); name != "" {
			return &backup.Problem{
				Message: fmt.Sprintf("another dentropy works on %s: its guard %s stands by the container %s (operation %s)", app.Name, containerName(s), name, spec.Op),
				Hint:    "wait for it to end; use one dentropy, with one data folder, for the backups of an engine", Object: app.Name, Err: backup.ErrLocked,
			}
		}
	}
	return nil
}

// guards gives a container of an app that a guard stands by; "" where it does not.
func (s *guardSpec) guards(app *backup.App) string {
	for _, c := range app.Containers {
		if slices.ContainsFunc(s.Halt, func(h halted) bool { return h.ID == c.ID }) ||
			slices.ContainsFunc(s.Old, func(o oldOne) bool { return o.ID == c.ID }) {
			return c.Name
		}
	}
	return ""
}
