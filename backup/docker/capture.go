package docker

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/system"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// capture is one app as it is being read.
type capture struct {
	p      *Platform
	opts   backup.CaptureOptions
	app    *backup.App
	group  group
	others []group
	info   system.Info
	raws   []*rawContainer // as app.Containers before they are sorted
	labels []map[string]string
}

// Capture implements backup.Platform.
func (p *Platform) Capture(ctx context.Context, name string, opts backup.CaptureOptions) (*backup.App, error) {
	for _, o := range []struct{ option, value string }{{"images", opts.Images}, {"layers", opts.Layers}} {
		if !slices.Contains([]string{"", "auto", "always", "never"}, o.value) {
			return nil, &backup.Problem{Message: fmt.Sprintf("%s %q is not known", o.option, o.value), Hint: "use auto, always or never"}
		}
	}
	g, others, err := p.findGroup(ctx, name)
	if err != nil {
		return nil, err
	}
	c := &capture{p: p, opts: opts, group: g, others: others, app: &backup.App{
		Name: g.name, Kind: g.kind, Platform: p.Name(), Format: Format, Self: g.self,
	}}
	for _, step := range []func(context.Context) error{c.source, c.containers, c.volumes, c.networks, c.layers, c.images} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return c.app, nil
}

func (c *capture) warn(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(c.app.Warnings, text) {
		c.app.Warnings = append(c.app.Warnings, text)
	}
}

// source reads what engine it is.
func (c *capture) source(ctx context.Context) error {
	var api string
	err := c.p.call(ctx, "ask what it is", func(ctx context.Context, conn *dockerengine.Conn) (err error) {
		c.info, err = conn.Info(ctx)
		api = conn.ClientVersion()
		return err
	})
	if err != nil {
		return err
	}
	i := c.info
	c.app.Source = backup.Source{
		Engine: strings.TrimSpace("docker " + i.ServerVersion), API: api, OS: cmp.Or(i.OSType, "linux"),
		Arch: goArch(i.Architecture), Kernel: i.KernelVersion, StorageDriver: i.Driver,
	}
	if i.ID != "" {
		sum := sha256.Sum256([]byte("dentropy host " + i.ID))
		c.app.Source.HostID = hex.EncodeToString(sum[:8])
	}
	return nil
}

// containers reads the app's containers.
func (c *capture) containers(ctx context.Context) error {
	for _, s := range c.group.members {
		var in container.InspectResponse
		var raw []byte
		err := c.p.call(ctx, "inspect container "+containerName(s), func(ctx context.Context, conn *dockerengine.Conn) (err error) {
			in, raw, err = conn.ContainerInspectWithRaw(ctx, s.ID, false)
			return err
		})
		if errdefs.IsNotFound(err) {
			c.warn("%s was removed while the app was read", containerName(s))
			continue
		}
		if err != nil {
			return err
		}
		r, err := readContainer(in, raw)
		if err != nil {
			return err
		}
		c.raws = append(c.raws, r)
		c.labels = append(c.labels, r.Config.Labels)
	}
	if len(c.raws) == 0 {
		return &backup.Problem{Message: fmt.Sprintf("the containers of %s are gone", c.app.Name), Object: c.app.Name}
	}
	networks := map[string]string{}
	for _, r := range c.raws {
		if r.NetworkSettings == nil {
			continue
		}
		for name, ep := range r.NetworkSettings.Networks {
			if ep != nil && ep.NetworkID != "" {
				networks[ep.NetworkID] = name
			}
		}
	}
	networkOf := func(mode string) string { return cmp.Or(networks[mode], mode) }
	var list []backup.Container
	refs := make([][]string, len(c.raws))
	for i, r := range c.raws {
		for _, ref := range r.users() {
			refs[i] = append(refs[i], c.nameOf(ref))
		}
		settings, err := r.settings(c.nameOf, networkOf, c.info.Name)
		if err != nil {
			return fmt.Errorf("read settings of %s: %w", r.name(), err)
		}
		one, err := containerOf(r)
		if err != nil {
			return &backup.Problem{Message: fmt.Sprintf("%s: %v", r.name(), err), Hint: "correct the label and create the container again", Object: r.name(), Err: err}
		}
		one.Settings = settings
		if c.app.Self && one.Quiesce.Mode != backup.Hot {
			one.Quiesce.Mode, one.Quiesce.Why = backup.Hot, "this program runs in the app"
			c.warn("%s goes on running while it is read: this program runs in the app, or reaches the network through it", one.Name)
		}
		list = append(list, one)
	}
	var warnings []string
	c.app.Containers, warnings = linkUp(list, c.labels, refs)
	for _, w := range warnings {
		c.warn("%s", w)
	}
	c.app.Project = projectOf(c.labels)
	return nil
}

// nameOf is the name of a container by its id or its name.
func (c *capture) nameOf(ref string) string {
	for _, g := range append([]group{c.group}, c.others...) {
		for _, s := range g.members {
			if containerName(s) == ref {
				return ref
			}
			if len(ref) >= shortIDLen && strings.HasPrefix(s.ID, ref) {
				return containerName(s)
			}
		}
	}
	return ref
}

// containerOf makes a container of what the engine says, without its settings.
func containerOf(r *rawContainer) (backup.Container, error) {
	out := backup.Container{
		ID: r.ID, Name: r.name(), Service: r.Config.Labels[labelService], Image: r.Config.Image, ImageID: r.Image,
		State: backup.State(r.State.Status), StartedAt: engineTime(r.State.StartedAt), FinishedAt: engineTime(r.State.FinishedAt),
		Routes: routesOf(r.Config.Labels),
	}
	if h := r.State.Health; h != nil && h.Status != container.NoHealthcheck {
		out.Health = h.Status
	}
	var err error
	out.Quiesce, err = quiesceOf(r.Config.Labels)
	return out, err
}

// engineTime reads a time as engines write it; their "never" is the zero time.
func engineTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() <= 1 {
		return time.Time{}
	}
	return t.UTC()
}

// routeLabel are the labels that route, of all dialects.
var routeLabel = regexp.MustCompile(`^(dentropy\.|traefik\.|caddy(_[0-9]+)?(\.|$))`)

// routesOf are the routing labels among all.
func routesOf(labels map[string]string) map[string]string {
	var out map[string]string
	for k, v := range labels {
		if !routeLabel.MatchString(k) || strings.HasPrefix(k, "dentropy.backup.") || k == labelApp {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[k] = v
	}
	return out
}

// projectOf reads the labels of compose: those of the first container that has them.
func projectOf(labels []map[string]string) *backup.Project {
	i := slices.IndexFunc(labels, func(l map[string]string) bool { return l[labelProject] != "" })
	if i < 0 {
		return nil
	}
	l := labels[i]
	pr := &backup.Project{Name: l[labelProject]}
	if dir := l[labelWorkingDir]; strings.HasPrefix(dir, "/") {
		pr.Dir = path.Clean(dir)
	}
	files := func(list string) (out []string) {
		for f := range strings.SplitSeq(list, ",") {
			f = strings.TrimSpace(f)
			switch {
			case f == "" || f == "-": // it was piped in
				continue
			case !strings.HasPrefix(f, "/"):
				if pr.Dir == "" {
					continue
				}
				f = path.Join(pr.Dir, f)
			}
			if f = path.Clean(f); !slices.Contains(out, f) {
				out = append(out, f)
			}
		}
		return out
	}
	pr.ConfigFiles, pr.EnvFiles = files(l[labelConfigFiles]), files(l[labelEnvFiles])
	return pr
}

// volumes reads what containers mount.
func (c *capture) volumes(ctx context.Context) error {
	byName := map[string]*rawContainer{}
	for _, r := range c.raws {
		byName[r.name()] = r
	}
	var uses []use
	for i := range c.app.Containers {
		ct := &c.app.Containers[i]
		r := byName[ct.Name]
		points := slices.Clone(r.Mounts)
		for target := range r.HostConfig.Tmpfs { // engines do not list these as mounts
			points = append(points, container.MountPoint{Type: "tmpfs", Destination: target, RW: true})
		}
		slices.SortFunc(points, func(a, b container.MountPoint) int { return cmp.Compare(a.Destination, b.Destination) })
		for _, m := range points {
			uses = append(uses, use{mount: m, by: ct.Name, label: cmp.Or(ct.Service, ct.Name)})
		}
	}
	volumes, mounts, warnings := volumesOf(uses, volumeFacts{
		project: c.app.Project, dataRoot: c.info.DockerRootDir, others: othersOf(c.others), opts: c.opts,
		isFile: func(u use) bool { return c.isFile(ctx, u) },
	})
	for _, w := range warnings {
		c.warn("%s", w)
	}
	for i := range c.app.Containers {
		c.app.Containers[i].Mounts = mounts[c.app.Containers[i].Name]
	}
	for i := range volumes {
		if v := &volumes[i]; v.Kind == backup.Named || v.Kind == backup.Anonymous {
			if err := c.volume(ctx, v); err != nil {
				return err
			}
		}
	}
	nest(volumes)
	c.app.Volumes = volumes
	return nil
}

// volume fills in what the engine knows about a named volume.
func (c *capture) volume(ctx context.Context, v *backup.Volume) error {
	return c.p.call(ctx, "inspect volume "+v.Name, func(ctx context.Context, conn *dockerengine.Conn) error {
		in, err := conn.VolumeInspect(ctx, v.Name)
		if errdefs.IsNotFound(err) {
			if v.Action == backup.Include {
				v.Action, v.Reason = backup.Skip, "it does not exist"
				c.warn("the volume %s does not exist: it is not in the backup", v.Name)
			}
			return nil
		}
		if err != nil {
			return err
		}
		if _, ok := in.Labels["com.docker.volume.anonymous"]; ok {
			v.Kind = backup.Anonymous
		}
		v.Driver, v.Options, v.Labels = cmp.Or(in.Driver, v.Driver), maps.Clone(in.Options), maps.Clone(in.Labels)
		if pr := c.app.Project; pr != nil && v.Kind == backup.Named {
			v.External = in.Labels[labelProject] != pr.Name
		}
		if v.Name == c.p.opts.TransitVolume {
			return errors.New("it is the transit volume: an app cannot use it")
		}
		return nil
	})
}

// isFile asks the engine whether a bind mount is one file.
func (c *capture) isFile(ctx context.Context, u use) bool {
	i := slices.IndexFunc(c.raws, func(r *rawContainer) bool { return r.name() == u.by })
	if i < 0 {
		return false
	}
	file := false
	err := c.p.call(ctx, "look at a mount", func(ctx context.Context, conn *dockerengine.Conn) error {
		st, err := conn.ContainerStatPath(ctx, c.raws[i].ID, u.mount.Destination)
		file = err == nil && !st.Mode.IsDir()
		return err
	})
	if err != nil { // it is taken for a folder: reading it says what it is
		c.p.log.Debug("a mount cannot be looked at", "container", u.by, "target", u.mount.Destination, "error", err)
	}
	return file
}
