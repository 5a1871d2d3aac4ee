package docker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/volume"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// mountable sees to it that the volumes are there: an engine makes those that are
// not, empty, and nobody would notice.
func (p *Platform) mountable(ctx context.Context, mounts []helperMount) error {
	for _, m := range mounts {
		if m.volume == "" {
			continue
		}
		err := p.call(ctx, "inspect volume", func(ctx context.Context, c *dockerengine.Conn) error {
			_, err := c.VolumeInspect(ctx, m.volume)
			return err
		})
		if errdefs.IsNotFound(err) {
			return &backup.Problem{Message: fmt.Sprintf("there is no volume %q on the engine", m.volume), Object: m.volume, Err: err}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// notMounted says in words what an engine says of paths that are not there.
func notMounted(err error) error {
	if strings.Contains(err.Error(), "bind source path does not exist") {
		_, path, _ := strings.Cut(err.Error(), "bind source path does not exist: ")
		return &backup.Problem{Message: fmt.Sprintf("there is no %q on the engine's host", path), Object: path, Err: err}
	}
	if m := mountFailed.FindStringSubmatch(err.Error()); m != nil {
		name, text := path.Base(path.Dir(m[1])), err.Error()
		return &backup.Problem{
			Message: fmt.Sprintf("the volume %s cannot be mounted: %s", name, text[strings.LastIndex(text, ": ")+2:]),
			Hint:    "see that what is behind it is there; --exclude " + shellWord(name) + " leaves it out of a backup", Object: name, Err: err,
		}
	}
	return err
}

// mountFailed is what an engine says where a volume cannot be mounted, with its path.
var mountFailed = regexp.MustCompile(`error while mounting volume '([^']+/_data)'`)

// helperConfig is the container of a task.
func helperConfig(img string, t helperTask) (*container.Config, *container.HostConfig, error) {
	input, err := json.Marshal(t.input)
	if err != nil {
		return nil, nil, fmt.Errorf("helper %s: %w", t.name, err)
	}
	cfg := &container.Config{
		Image: img, Cmd: []string{t.name, string(input)}, User: "0:0",
		Labels:          map[string]string{labelJob: t.op, labelRole: roleHelper},
		NetworkDisabled: true, AttachStdout: true, AttachStderr: true,
	}
	if t.stdin != nil {
		cfg.AttachStdin, cfg.OpenStdin, cfg.StdinOnce = true, true, true
	}
	host := &container.HostConfig{
		NetworkMode: "none", IpcMode: "none", ReadonlyRootfs: true,
		CapDrop: []string{"ALL"}, CapAdd: t.caps,
		// A label would keep it from files of containers that have others.
		SecurityOpt: []string{"no-new-privileges:true", "label=disable"},
		// Output goes to us: in a log it would fill the disk.
		LogConfig:   container.LogConfig{Type: "none"},
		OomScoreAdj: helperOOM,
		Resources:   container.Resources{Memory: helperMemory},
	}
	if t.processes {
		// A profile would keep it from signals to what has another.
		host.PidMode, host.UsernsMode = "host", "host"
		host.SecurityOpt = append(host.SecurityOpt, "apparmor=unconfined")
	}
	for _, m := range t.mounts {
		if m.volume != "" {
			host.Mounts = append(host.Mounts, mount.Mount{
				Type: mount.TypeVolume, Source: m.volume, Target: m.target, ReadOnly: !m.write,
				VolumeOptions: &mount.VolumeOptions{NoCopy: true},
			})
			continue
		}
		host.Mounts = append(host.Mounts, mount.Mount{
			Type: mount.TypeBind, Source: m.bind, Target: m.target, ReadOnly: !m.write,
			BindOptions: &mount.BindOptions{NonRecursive: !m.recursive},
		})
	}
	return cfg, host, nil
}

// ensureTransit makes the transit volume, if there is none.
func (p *Platform) ensureTransit(ctx context.Context) error {
	return p.call(ctx, "make transit volume", func(ctx context.Context, c *dockerengine.Conn) error {
		_, err := c.VolumeInspect(ctx, p.opts.TransitVolume)
		if errdefs.IsNotFound(err) {
			_, err = c.VolumeCreate(ctx, volume.CreateOptions{Name: p.opts.TransitVolume, Labels: map[string]string{labelRole: roleTransit}})
		}
		return err
	})
}

// transitMount is the transit volume, for a helper.
func (p *Platform) transitMount(write bool) helperMount {
	return helperMount{target: transitDir, volume: p.opts.TransitVolume, write: write}
}

// randomHex is a short name that nothing else has.
func randomHex() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
