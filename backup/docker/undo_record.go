package docker

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// undoDetail is this platform's own record of a restore.
type undoDetail struct {
	Op  string `json:"op"`
	App string `json:"app"`
	// Old is the set that was there before, with all its settings.
	Old []undoContainer `json:"old,omitempty"`
	// New are the names of the restored containers.
	New   []newOne   `json:"new"`
	Swaps []swapped  `json:"swaps,omitempty"`
	Paths []pathMove `json:"paths,omitempty"`
	// Volumes and Networks were made.
	Volumes  []string `json:"volumes,omitempty"`
	Networks []string `json:"networks,omitempty"`
	// Anonymous are volumes that only the old containers had.
	Anonymous []string `json:"anonymous,omitempty"`
	// Layers are images of what old containers had written.
	Layers []string `json:"layers,omitempty"`
}

// undoContainer is a container that an undo makes again.
type undoContainer struct {
	// Container holds the settings, as in an archive.
	Container backup.Container        `json:"container"`
	Restart   container.RestartPolicy `json:"restart"`
	Ran       bool                    `json:"ran,omitempty"`
	Paused    bool                    `json:"paused,omitempty"`
	Image     string                  `json:"image"`
}

// undoRepo are the images of what old containers had written; they live as long as an undo.
const undoRepo = "dentropy-undo"

// undo makes the record of a restore. The old containers are still there, set aside.
func (c *changeover) undo(ctx context.Context, r *restore) (*backup.Undo, error) {
	d := undoDetail{Op: c.op, App: c.rec.App, New: c.rec.New, Swaps: c.rec.Swaps, Paths: c.rec.Paths, Volumes: c.rec.Volumes, Networks: c.rec.Networks}
	for i, o := range c.rec.Old {
		u, anonymous, err := c.remember(ctx, o, fmt.Sprintf("%s:%s-%d", undoRepo, c.op, i))
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(u.Image, undoRepo+":") {
			d.Layers = append(d.Layers, u.Image)
		}
		d.Old = append(d.Old, *u)
		d.Anonymous = append(d.Anonymous, anonymous...)
	}
	raw, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("record the undo: %w", err)
	}
	return &backup.Undo{
		ID: c.op, Platform: c.p.Name(), App: c.rec.App, Archive: r.m.ID, Time: time.Now().UTC(),
		Summary: d.summary(), Kept: d.kept(), Detail: raw,
	}, nil
}

// summary says what an undo does.
func (d *undoDetail) summary() string {
	names := enumerate(d.New, func(n newOne) string { return n.Name })
	if len(d.Old) == 0 {
		return "removes " + names + "; the restored data stays"
	}
	text := "brings back " + enumerate(d.Old, func(o undoContainer) string { return o.Container.Name }) + " in the place of " + names
	if len(d.Swaps)+len(d.Paths) > 0 {
		text += ", with the data from before; the restored data is kept"
	}
	return text
}

// kept are what is still there of what was before. The old containers are not: the record
// has their settings.
func (d *undoDetail) kept() []string {
	var out []string
	for _, s := range d.Swaps {
		out = append(out, "the volume "+s.Keep+" (was "+s.Final+")")
	}
	for i := range d.Paths {
		if m := &d.Paths[i]; m.Keep != "" {
			out = append(out, path.Join(m.Base, m.Keep)+" (was "+m.Path+")")
		}
	}
	for _, v := range d.Anonymous {
		out = append(out, "the volume "+v)
	}
	for _, l := range d.Layers {
		out = append(out, "the image "+l+", with what a container had written")
	}
	return out
}

// remember reads all that is needed to make an old container again.
func (c *changeover) remember(ctx context.Context, o oldOne, layerTag string) (*undoContainer, []string, error) {
	var in container.InspectResponse
	var raw []byte
	err := c.p.call(ctx, "inspect container "+o.Name, func(ctx context.Context, conn *dockerengine.Conn) (err error) {
		in, raw, err = conn.ContainerInspectWithRaw(ctx, o.ID, false)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	rc, err := readContainer(in, raw)
	if err != nil {
		return nil, nil, err
	}
	names := map[string]string{}
	for _, old := range c.rec.Old {
		names[old.ID], names[old.ID[:min(len(old.ID), shortIDLen)]], names[c.aside(old.Name)] = old.Name, old.Name, old.Name
	}
	nameOf := func(ref string) string { return cmp.Or(names[ref], ref) }
	// Set aside, it has another name and policy than before.
	rc.Name = o.Name
	policy, err := json.Marshal(o.Restart)
	if err != nil {
		return nil, nil, err
	}
	rc.host["RestartPolicy"] = policy
	settings, err := rc.settings(nameOf, func(s string) string { return s }, c.machine)
	if err != nil {
		return nil, nil, fmt.Errorf("read settings of %s: %w", o.Name, err)
	}
	u := &undoContainer{Restart: o.Restart, Ran: o.Ran, Paused: o.Paused, Image: in.Config.Image}
	u.Container = backup.Container{
		ID: in.ID, Name: o.Name, Image: in.Config.Image, ImageID: in.Image, Settings: settings, DependsOn: o.DependsOn,
	}
	var anonymous, targets []string
	for _, m := range in.Mounts {
		targets = append(targets, m.Destination)
		if m.Name == "" {
			continue
		}
		u.Container.Mounts = append(u.Container.Mounts, backup.Mount{Volume: m.Name, Target: m.Destination, ReadOnly: !m.RW})
		if isAnonymous(m.Name) {
			anonymous = append(anonymous, m.Name)
		}
	}
	changed, err := c.p.wrote(ctx, o.ID, targets)
	if err != nil {
		return nil, nil, err
	}
	if changed {
		if err := c.p.commitLayer(ctx, o.ID, layerTag); err != nil {
			return nil, nil, err
		}
		u.Image = layerTag
	}
	return u, anonymous, nil
}

// wrote reports whether a container has written outside of its volumes what matters.
func (p *Platform) wrote(ctx context.Context, id string, targets []string) (bool, error) {
	var changes []container.FilesystemChange
	err := p.call(ctx, "look for changes", func(ctx context.Context, conn *dockerengine.Conn) (err error) {
		changes, err = conn.ContainerDiff(ctx, id)
		return err
	})
	for i := range targets {
		targets[i] = path.Clean(targets[i])
	}
	paths := layerChanges(changes, targets)
	if err != nil || len(paths) == 0 {
		return false, err
	}
	if !onlyAdded(changes, paths) {
		return true, nil
	}
	var written *int64
	err = p.call(ctx, "measure changes", func(ctx context.Context, conn *dockerengine.Conn) error {
		in, _, err := conn.ContainerInspectWithRaw(ctx, id, true)
		if err == nil && in.ContainerJSONBase != nil {
			written = in.SizeRw
		}
		return err
	})
	if err != nil || !layerMatters(paths, true, written) {
		return false, err
	}
	return !p.onlyFolders(ctx, id, paths), nil
}

// commitTimeout is for an image of what a container has written.
const commitTimeout = 10 * time.Minute

// commitLayer makes an image of a container.
func (p *Platform) commitLayer(ctx context.Context, id, tag string) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	_, err := p.commit(ctx, id, tag)
	return err
}
