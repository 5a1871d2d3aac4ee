package docker

import (
	"context"
	"fmt"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// layersOf makes images of the layers that go into the archive.
func (f *freeze) layersOf(ctx context.Context) error {
	for i := range f.app.Containers {
		c := &f.app.Containers[i]
		if !c.Layer.Include {
			continue
		}
		f.opts.Report(backup.Progress{Phase: "read", Text: "what " + c.Name + " has written outside of volumes"})
		ref := layerRepo + ":" + f.j.Op() + "-" + fmt.Sprint(len(f.layers))
		if err := f.append(stepLayer, journalLayer{Image: ref}); err != nil {
			return err
		}
		f.layers = append(f.layers, ref)
		limited, cancel := context.WithTimeout(ctx, backTimeout)
		id, err := f.p.commit(limited, c.ID, ref)
		cancel()
		if err != nil {
			return fmt.Errorf("keep what %s has written outside of volumes: %w", c.Name, err)
		}
		c.Layer.ImageID = id
	}
	return nil
}

// layerRepo are the images of layers; they live as long as an operation.
const layerRepo = "dentropy-layer"

// commit makes an image of a container.
func (p *Platform) commit(ctx context.Context, id, ref string) (string, error) {
	conn, err := p.api(ctx)
	if err != nil {
		return "", err
	}
	made, err := conn.ContainerCommit(ctx, id, container.CommitOptions{Reference: ref, Comment: "what a container has written", Pause: false})
	if err != nil {
		return "", p.failed("commit container", err)
	}
	return made.ID, nil
}

// dropLayers removes the images of layers.
func (f *freeze) dropLayers(ctx context.Context) {
	for _, ref := range f.layers {
		f.p.removeImage(ctx, ref)
	}
	f.layers = nil
	for i := range f.app.Containers {
		f.app.Containers[i].Layer.ImageID = ""
	}
}

// layerRef is the name of the image of a container's layer.
func (f *freeze) layerRef(c *backup.Container) string {
	n := 0
	for i := range f.app.Containers {
		if other := &f.app.Containers[i]; other.Layer.Include {
			if other == c {
				return f.layers[n]
			}
			n++
		}
	}
	return ""
}

// layerImage describes the image of a layer.
func (p *Platform) layerImage(ctx context.Context, c *backup.Container, ref string) (backup.Image, error) {
	var in image.InspectResponse
	err := p.call(ctx, "inspect image "+ref, func(ctx context.Context, conn *dockerengine.Conn) (err error) {
		in, err = conn.ImageInspect(ctx, ref)
		return err
	})
	if err != nil {
		return backup.Image{}, err
	}
	im := imageOf(c.Layer.ImageID, in, nil)
	im.Include, im.Reason = true, "what "+c.Name+" has written outside of volumes"
	return im, nil
}

// removeImage removes an image of ours. One that is not there is removed.
func (p *Platform) removeImage(ctx context.Context, ref string) {
	err := p.call(ctx, "remove image", func(ctx context.Context, c *dockerengine.Conn) error {
		_, err := c.ImageRemove(ctx, ref, image.RemoveOptions{Force: true, PruneChildren: true})
		return ignoreNotFound(err)
	})
	if err != nil {
		p.log.Warn("image stays", "image", ref, "error", err)
	}
}
