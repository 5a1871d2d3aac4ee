package docker

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"

	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

const (
	// orphanedFor is how long a helper with a brief task has ended when nobody waits for
	// it: its owner reads what it says at once, and removes it.
	orphanedFor = 20 * time.Second
	// unstartedFor is how old a helper is that nobody is about to start: between making and
	// starting it there are two calls.
	unstartedFor = 2*callTimeout + time.Minute
	// forgotten is how old an ended helper is that its owner would have removed by now,
	// whatever its task, and an image that its owner would have begun to use.
	forgotten = time.Hour
	// sweepRunning is when to look again at a helper that is at work, maybe for nobody.
	sweepRunning = 5 * time.Second
)

// briefTasks are those of helpers that say a few lines. The output of others may be on its
// way for long.
var briefTasks = []string{"measure", "host", "inode", "swap", "list", "clean", "reap"}

// Sweep removes helpers of processes that were killed, and images of earlier versions of
// the helper that no container uses. Helpers of an operation with a journal are removed
// by Recover; this is for the others, such as those that measure. Whoever lives removes
// his own at once, and who does not cannot say so: time tells. again is when a helper that
// is there may be proven to be nobody's, 0 where none is there.
func (p *Platform) Sweep(ctx context.Context) (again time.Duration, err error) {
	var list []container.Summary
	err = p.call(ctx, "list helpers", func(ctx context.Context, c *dockerengine.Conn) (err error) {
		list, err = c.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", labelRole+"="+roleHelper))})
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, s := range list {
		next, err := p.sweepHelper(ctx, s)
		if err != nil {
			return 0, err
		}
		if again == 0 || next > 0 && next < again {
			again = next
		}
	}
	return again, p.sweepImages(ctx)
}

// sweepHelpers is Sweep for who does something else: what cannot be removed now is tried
// again after the next job.
func (p *Platform) sweepHelpers(ctx context.Context) {
	if _, err := p.Sweep(ctx); err != nil {
		p.log.Debug("old helpers stay", "error", err)
	}
}

// sweepHelper removes a helper that is nobody's.
func (p *Platform) sweepHelper(ctx context.Context, s container.Summary) (again time.Duration, err error) {
	var in container.InspectResponse
	err = p.call(ctx, "inspect helper", func(ctx context.Context, c *dockerengine.Conn) (err error) {
		in, err = c.ContainerInspect(ctx, s.ID)
		return err
	})
	if errdefs.IsNotFound(err) {
		return 0, nil
	}
	if err != nil || in.ContainerJSONBase == nil || in.State == nil {
		return 0, err
	}
	nobodys, again := fateOf(taskOf(s), time.Unix(s.Created, 0), in.State, time.Now())
	if !nobodys {
		return again, nil
	}
	return 0, p.call(ctx, "remove helper", func(ctx context.Context, c *dockerengine.Conn) error {
		err := c.ContainerRemove(ctx, s.ID, container.RemoveOptions{}) // refused where it runs after all
		if errdefs.IsNotFound(err) || errdefs.IsConflict(err) {
			return nil
		}
		return err
	})
}

// taskOf is a helper's task, by its name.
func taskOf(s container.Summary) string {
	task, _, _ := strings.Cut(strings.TrimPrefix(containerName(s), "dentropy-"+s.Labels[labelJob]+"-"), "-")
	return task
}

// fateOf reports whether a helper is nobody's, or else when to look again, where time will
// tell.
func fateOf(task string, created time.Time, st *container.State, now time.Time) (nobodys bool, again time.Duration) {
	brief := slices.Contains(briefTasks, task)
	ended := engineTime(st.FinishedAt)
	switch {
	case st.Running || st.Restarting || st.Paused:
		if brief {
			again = sweepRunning
		}
		return false, again
	case engineTime(st.StartedAt).IsZero():
		return due(created, unstartedFor, now)
	case ended.IsZero():
		return due(created, forgotten, now)
	case brief:
		return due(ended, orphanedFor, now)
	}
	// It may have worked for hours: its owner is about to look how it ended.
	return due(ended, forgotten, now)
}

// due reports whether something has been so for longer than limit, or else when it will
// have been. The engine's clock may not be ours.
func due(since time.Time, limit time.Duration, now time.Time) (over bool, again time.Duration) {
	if now.Sub(since) > limit {
		return true, 0
	}
	return false, min(since.Add(limit).Sub(now)+time.Millisecond, limit)
}

// sweepImages removes images of earlier versions of the helper.
func (p *Platform) sweepImages(ctx context.Context) error {
	p.imageMu.Lock()
	current := p.program.image
	p.imageMu.Unlock()
	if current == "" {
		return nil // which one is ours has not been looked at yet
	}
	return p.call(ctx, "remove old helper images", func(ctx context.Context, c *dockerengine.Conn) error {
		images, err := c.ImageList(ctx, image.ListOptions{Filters: filters.NewArgs(filters.Arg("label", labelHelper))})
		if err != nil {
			return err
		}
		for _, im := range images {
			if time.Since(time.Unix(im.Created, 0)) < forgotten {
				continue // another version of this program may be about to use it
			}
			for _, tag := range im.RepoTags {
				if strings.HasPrefix(tag, helperRepo+":") && tag != current {
					_, _ = c.ImageRemove(ctx, tag, image.RemoveOptions{}) // refused while a container uses it
				}
			}
		}
		return nil
	})
}
