package docker

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// newImages are images and references that were not there before.
type newImages struct {
	IDs  []string `json:"ids,omitempty"`
	Refs []string `json:"refs,omitempty"`
}

// absentImages takes down what will be brought to the engine.
func (r *restore) absentImages(ctx context.Context) error {
	var n newImages
	for _, im := range r.d.Images {
		if im.How == imagePresent {
			continue
		}
		n.IDs = append(n.IDs, im.ID)
		for _, ref := range im.Refs {
			id, err := r.p.imageID(ctx, ref)
			if err != nil {
				return err
			}
			if id == "" {
				n.Refs = append(n.Refs, ref)
			}
		}
	}
	if len(n.IDs) > 0 {
		r.c.rec.Images = &n
	}
	return nil
}

// imageID gives the id of an image by a reference or an id, "" where there is none.
func (p *Platform) imageID(ctx context.Context, ref string) (string, error) {
	id := ""
	err := p.call(ctx, "inspect image", func(ctx context.Context, c *dockerengine.Conn) error {
		in, err := c.ImageInspect(ctx, ref)
		if errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err) {
			return nil
		}
		id = in.ID
		return err
	})
	return id, err
}

// pull pulls images that are neither here nor in the archive.
func (r *restore) pull(ctx context.Context) error {
	for _, im := range r.d.Images {
		if im.How != imagePull {
			continue
		}
		r.opts.Report(backup.Progress{Phase: "images", Text: im.Pull})
		conn, err := r.p.api(ctx)
		if err != nil {
			return err
		}
		resp, err := conn.ImagePull(ctx, im.Pull, image.PullOptions{})
		if err == nil {
			err = importAnswer(resp)
			_ = resp.Close()
		}
		if err != nil {
			return r.p.failed("pull image "+im.Pull, err)
		}
		id, err := r.p.imageID(ctx, im.Pull)
		if err != nil {
			return err
		}
		if id == "" {
			return fmt.Errorf("pull image %s: it is not there afterwards", im.Pull)
		}
		r.images[im.ID] = id
		if err := r.tag(ctx, id, im.Refs); err != nil {
			return err
		}
	}
	return nil
}

// tag gives an image those references that are free.
func (r *restore) tag(ctx context.Context, id string, refs []string) error {
	for _, ref := range refs {
		if strings.Contains(ref, "@") || ownRef(ref) {
			continue
		}
		have, err := r.p.imageID(ctx, ref)
		if err != nil {
			return err
		}
		if have != "" {
			continue
		}
		err = r.p.call(ctx, "tag image "+ref, func(ctx context.Context, c *dockerengine.Conn) error { return c.ImageTag(ctx, id, ref) })
		if err != nil {
			return err
		}
	}
	return nil
}

// loaded looks for the images that were loaded.
func (r *restore) loaded(ctx context.Context, l *loader) error {
	for _, im := range r.d.Images {
		if im.How != imageInside {
			continue
		}
		for _, id := range l.all(im.ID) {
			have, err := r.p.imageID(ctx, id)
			if err != nil {
				return err
			}
			if have != "" {
				r.images[im.ID] = have
				break
			}
		}
		if r.images[im.ID] == "" {
			return fmt.Errorf("load images: the archive should hold the image %s, and does not", im.ID)
		}
		if err := r.tag(ctx, r.images[im.ID], im.Refs); err != nil {
			return err
		}
	}
	return nil
}

// checkImages sees that all images are there before anything that runs is touched.
func (r *restore) checkImages(ctx context.Context) error {
	for _, im := range r.d.Images {
		if r.images[im.ID] != "" {
			continue
		}
		candidates := []string{im.ID}
		for i := range r.app.Images {
			if r.app.Images[i].ID == im.ID {
				candidates = append(candidates, r.app.Images[i].Digests...)
			}
		}
		for _, ref := range candidates {
			id, err := r.p.imageID(ctx, ref)
			if err != nil {
				return err
			}
			if id != "" {
				r.images[im.ID] = id
				break
			}
		}
		if r.images[im.ID] == "" {
			return &backup.Problem{Message: fmt.Sprintf("the image %s is not on the engine any more", im.ID), Hint: "plan again", Object: im.ID}
		}
	}
	return nil
}

// imageOf is what a container is made from: its reference where that means the right
// image, else the image's id.
func (r *restore) imageOf(ctx context.Context, c *backup.Container, cp *containerPlan) (string, error) {
	want := c.ImageID
	if c.Layer.Include && c.Layer.ImageID != "" {
		want = c.Layer.ImageID
	}
	id := r.images[want]
	if id == "" {
		return "", fmt.Errorf("container %s: its image %s is not there", c.Name, want)
	}
	have, err := r.p.imageID(ctx, cp.Image)
	if err != nil {
		return "", err
	}
	if have == id {
		return cp.Image, nil
	}
	return id, nil
}

// removeImages removes images that a restore brought, where it is taken back. What is in
// use stays.
func (c *changeover) removeImages(ctx context.Context) {
	if c.rec.Images == nil {
		return
	}
	_ = c.p.call(ctx, "remove images", func(ctx context.Context, conn *dockerengine.Conn) error {
		for _, ref := range slices.Concat(c.rec.Images.Refs, c.rec.Images.IDs) {
			_, _ = conn.ImageRemove(ctx, ref, image.RemoveOptions{PruneChildren: true}) // it costs space, no more
		}
		return nil
	})
}

// removeGently ends and removes a container. One that is not there is removed.
func removeGently(ctx context.Context, conn *dockerengine.Conn, ref string, volumes bool) error {
	err := conn.ContainerRemove(ctx, ref, container.RemoveOptions{Force: true, RemoveVolumes: volumes})
	if errdefs.IsNotFound(err) || err != nil && strings.Contains(err.Error(), "is already in progress") {
		return nil
	}
	return err
}
