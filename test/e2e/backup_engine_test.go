package e2e

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/pkg/stdcopy"
)

// tool runs a command in a container of its own that sees binds only, and gives what it
// prints. It fails where the command does.
func (e *engine) tool(image string, binds []string, cmd ...string) string {
	e.t.Helper()
	ctx := e.t.Context()
	made, err := e.c.ContainerCreate(ctx, &container.Config{Image: image, Entrypoint: cmd, User: "0:0"},
		&container.HostConfig{Binds: binds, NetworkMode: "none"}, nil, nil, "")
	e.must("create a container for "+cmd[0], err)
	defer func() {
		e.must("remove it", e.c.ContainerRemove(context.WithoutCancel(ctx), made.ID, container.RemoveOptions{Force: true}))
	}()
	wait, errs := e.c.ContainerWait(ctx, made.ID, container.WaitConditionNextExit)
	e.must("start "+cmd[0], e.c.ContainerStart(ctx, made.ID, container.StartOptions{}))
	select {
	case err := <-errs:
		e.must("wait for "+cmd[0], err)
	case w := <-wait:
		out := e.logs(made.ID)
		if w.StatusCode != 0 {
			e.t.Fatalf("%q in %v: exit %d: %s", cmd, binds, w.StatusCode, out)
		}
		return out
	}
	return ""
}

func (e *engine) logs(id string) string {
	e.t.Helper()
	r, err := e.c.ContainerLogs(e.t.Context(), id, container.LogsOptions{ShowStdout: true, ShowStderr: true})
	e.must("read logs", err)
	defer r.Close()
	var out bytes.Buffer
	_, err = stdcopy.StdCopy(&out, &out, r)
	e.must("read logs", err)
	return out.String()
}

// tree lists a volume, or a folder of the engine's host: one line says all there is to
// say about one file.
func (e *engine) tree(source string) []string {
	e.t.Helper()
	e.treeApp()
	return strings.Split(strings.TrimSpace(e.tool(treeImage, []string{source + ":/tree:ro"}, "/apps", "tree", "list", "/tree")), "\n")
}

// fill makes a volume with all that a file system can hold.
func (e *engine) fill(source string) {
	e.t.Helper()
	e.treeApp()
	e.tool(treeImage, []string{source + ":/tree"}, "/apps", "tree", "make", "/tree")
}

// sameTree compares listings.
func sameTree(t *testing.T, what string, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	in := func(lines []string) map[string]bool {
		m := make(map[string]bool, len(lines))
		for _, l := range lines {
			m[l] = true
		}
		return m
	}
	had, has := in(want), in(got)
	shown := 0
	for _, l := range want {
		if !has[l] && shown < 5 {
			t.Errorf("%s: lost:  %.500s", what, l)
			shown++
		}
	}
	for _, l := range got {
		if !had[l] && shown < 10 {
			t.Errorf("%s: found: %.500s", what, l)
			shown++
		}
	}
	t.Errorf("%s: %d entries, want %d that are the same", what, len(got), len(want))
}

// exec runs a command inside a running container.
func (e *engine) exec(name string, cmd ...string) (string, error) {
	ctx := e.t.Context()
	made, err := e.c.ContainerExecCreate(ctx, name, container.ExecOptions{Cmd: cmd, AttachStdout: true, AttachStderr: true})
	if err != nil {
		return "", err
	}
	conn, err := e.c.ContainerExecAttach(ctx, made.ID, container.ExecAttachOptions{})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	var out bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, &out, conn.Reader); err != nil {
		return "", err
	}
	info, err := e.c.ContainerExecInspect(ctx, made.ID)
	if err == nil && info.ExitCode != 0 {
		err = fmt.Errorf("%q in %s: exit %d: %s", cmd, name, info.ExitCode, out.String())
	}
	return out.String(), err
}

// inventory is all that an engine holds beside what Docker itself makes.
type inventory struct {
	containers map[string]string // name to state
	volumes    []string
	networks   []string
	images     []string // tags
}

func (e *engine) inventory() inventory {
	e.t.Helper()
	ctx := context.WithoutCancel(e.t.Context())
	inv := inventory{containers: make(map[string]string)}
	cs, err := e.c.ContainerList(ctx, container.ListOptions{All: true})
	e.must("list containers", err)
	for _, c := range cs {
		inv.containers[strings.TrimPrefix(c.Names[0], "/")] = c.State
	}
	vs, err := e.c.VolumeList(ctx, volume.ListOptions{})
	e.must("list volumes", err)
	for _, v := range vs.Volumes {
		inv.volumes = append(inv.volumes, v.Name)
	}
	ns, err := e.c.NetworkList(ctx, network.ListOptions{Filters: filters.NewArgs(filters.Arg("type", "custom"))})
	e.must("list networks", err)
	for _, n := range ns {
		inv.networks = append(inv.networks, n.Name)
	}
	is, err := e.c.ImageList(ctx, image.ListOptions{})
	e.must("list images", err)
	for _, i := range is {
		inv.images = append(inv.images, i.RepoTags...)
	}
	slices.Sort(inv.volumes)
	slices.Sort(inv.networks)
	slices.Sort(inv.images)
	return inv
}

// left says what is there now and was not before: containers, volumes and networks.
// An image of the helper may stay.
func (inv inventory) left(before inventory) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(inv.containers)) {
		if _, ok := before.containers[name]; !ok {
			out = append(out, "container "+name)
		}
	}
	more := func(what string, now, then []string) {
		for _, name := range now {
			if !slices.Contains(then, name) && name != transitVolume {
				out = append(out, what+" "+name)
			}
		}
	}
	more("volume", inv.volumes, before.volumes)
	more("network", inv.networks, before.networks)
	return out
}

// clear removes everything that was not there before, at the end of a test.
func (e *engine) clear(before inventory) {
	ctx := context.WithoutCancel(e.t.Context())
	now := e.inventory()
	for name := range now.containers {
		if _, ok := before.containers[name]; !ok {
			if err := e.c.ContainerRemove(ctx, name, container.RemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
				e.t.Logf("remove container %s: %v", name, err)
			}
		}
	}
	for _, name := range now.networks {
		if !slices.Contains(before.networks, name) {
			if err := e.c.NetworkRemove(ctx, name); err != nil {
				e.t.Logf("remove network %s: %v", name, err)
			}
		}
	}
	for _, name := range e.inventory().volumes {
		if !slices.Contains(before.volumes, name) {
			if err := e.c.VolumeRemove(ctx, name, true); err != nil {
				e.t.Logf("remove volume %s: %v", name, err)
			}
		}
	}
}

// removeImages removes tags and what nothing else needs.
func (e *engine) removeImages(refs ...string) {
	e.t.Helper()
	for _, ref := range refs {
		_, err := e.c.ImageRemove(e.t.Context(), ref, image.RemoveOptions{Force: true, PruneChildren: true})
		e.must("remove image "+ref, err)
	}
}
