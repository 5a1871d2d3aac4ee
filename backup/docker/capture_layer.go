package docker

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// layerSample is how many paths are shown of what a container has written.
const layerSample = 10

// passing are paths whose content nobody misses: what programs write there, they write
// again.
var (
	passing = []string{
		"/tmp", "/run", "/var/run", "/var/tmp", "/var/cache", "/var/log", "/var/lock", "/dev", "/proc", "/sys", "/.dockerenv",
		"/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/mtab", "/root/.cache", "/var/lib/apt/lists",
		"/sbin/docker-init", "/usr/sbin/docker-init", // where the engine mounts its own, for init: true
	}
	passingNames    = []string{".ash_history", ".bash_history", ".sh_history", ".python_history", ".viminfo", ".lesshst", ".wget-hsts", "__pycache__"}
	passingSuffixes = []string{".pid", ".sock", ".pyc", ".swp"}
)

// layerChanges picks from a container's changes those that matter. targets are where
// volumes are mounted.
func layerChanges(changes []container.FilesystemChange, targets []string) (out []string) {
	parents := map[string]bool{} // folders that changed because something in them did
	for _, ch := range changes {
		for dir := path.Dir(path.Clean(ch.Path)); dir != "/" && dir != "." && !parents[dir]; dir = path.Dir(dir) {
			parents[dir] = true
		}
	}
	for _, ch := range changes {
		p := path.Clean(ch.Path)
		switch {
		case p == "/":
		case parents[p]: // what is in it counts by itself
		case slices.ContainsFunc(passing, func(s string) bool { return within(s, p) }):
		case slices.ContainsFunc(targets, func(t string) bool { return within(t, p) || within(p, t) }):
		case slices.ContainsFunc(strings.Split(p, "/"), func(s string) bool { return slices.Contains(passingNames, s) }):
		case slices.ContainsFunc(passingSuffixes, func(s string) bool { return strings.HasSuffix(p, s) }):
		case ch.Kind == container.ChangeModify && slices.ContainsFunc(passing, func(s string) bool { return within(p, s) }):
		default:
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// onlyAdded reports whether none of the paths, which are sorted, was changed or removed.
func onlyAdded(changes []container.FilesystemChange, paths []string) bool {
	return !slices.ContainsFunc(changes, func(ch container.FilesystemChange) bool {
		if ch.Kind == container.ChangeAdd {
			return false
		}
		_, there := slices.BinarySearch(paths, path.Clean(ch.Path))
		return there
	})
}

// layerMatters reports whether there is anything to keep of what a container has written:
// paths of which none was there before, and without a byte, are folders that a program makes
// at each start. written is nil where it is not known.
func layerMatters(paths []string, added bool, written *int64) bool {
	return len(paths) > 0 && (!added || written == nil || *written != 0)
}

// mostFolders bounds how many paths are looked at to see whether they are folders.
const mostFolders = 50

// onlyFolders reports whether all paths of a container, which are leaves of what it has
// changed, are folders: empty ones.
func (p *Platform) onlyFolders(ctx context.Context, id string, paths []string) bool {
	if len(paths) > mostFolders {
		return false
	}
	for _, at := range paths {
		folder := false
		err := p.call(ctx, "look at "+at, func(ctx context.Context, conn *dockerengine.Conn) error {
			st, err := conn.ContainerStatPath(ctx, id, at)
			folder = err == nil && st.Mode.IsDir()
			return err
		})
		if err != nil || !folder {
			return false // not known is kept
		}
	}
	return true
}

// layers looks at what containers have written outside of volumes.
func (c *capture) layers(ctx context.Context) error {
	if c.opts.Layers == "never" {
		return nil
	}
	for i := range c.app.Containers {
		ct := &c.app.Containers[i]
		var changes []container.FilesystemChange
		err := c.p.call(ctx, "look for changes in "+ct.Name, func(ctx context.Context, conn *dockerengine.Conn) (err error) {
			changes, err = conn.ContainerDiff(ctx, ct.ID)
			return err
		})
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			c.warn("it is not known what %s has written outside of its volumes: %v", ct.Name, err)
			continue
		}
		var targets []string
		for _, m := range ct.Mounts {
			targets = append(targets, path.Clean(m.Target))
		}
		paths := layerChanges(changes, targets)
		if err := c.layer(ctx, ct, paths, onlyAdded(changes, paths)); err != nil {
			return err
		}
	}
	return nil
}

// layer decides about one container.
func (c *capture) layer(ctx context.Context, ct *backup.Container, paths []string, added bool) error {
	ct.Layer = backup.Layer{Changes: len(paths), Sample: paths[:min(len(paths), layerSample)]}
	always := c.opts.Layers == "always"
	if len(paths) == 0 && !always {
		return nil
	}
	var written *int64
	err := c.p.call(ctx, "measure changes in "+ct.Name, func(ctx context.Context, conn *dockerengine.Conn) error {
		in, _, err := conn.ContainerInspectWithRaw(ctx, ct.ID, true)
		if err == nil && in.ContainerJSONBase != nil && in.SizeRw != nil {
			ct.Layer.Bytes, written = *in.SizeRw, in.SizeRw
		}
		return err
	})
	if err != nil {
		return err
	}
	ct.Layer.Include = always || layerMatters(paths, added, written)
	if ct.Layer.Include && !always && added {
		ct.Layer.Include = !c.p.onlyFolders(ctx, ct.ID, paths)
	}
	if ct.Layer.Include && c.opts.Images == "never" && !always {
		ct.Layer.Include = false
		c.warn("what %s has written outside of its volumes is not in the backup: it would need its image", ct.Name)
	}
	return nil
}
