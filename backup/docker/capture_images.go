package docker

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

const (
	// registryTimeout is for the question whether a registry has an image; a registry that
	// does not answer counts as one that does not have it.
	registryTimeout = 8 * time.Second
	// registryParallel is how many are asked at a time.
	registryParallel = 4
)

// images reads the images of the app's containers, and decides which travel.
func (c *capture) images(ctx context.Context) error {
	refs := map[string][]string{} // by id
	var ids []string
	for _, ct := range c.app.Containers {
		if !slices.Contains(ids, ct.ImageID) {
			ids = append(ids, ct.ImageID)
		}
		if named := ct.Image; named != "" && !isImageID(named) && !slices.Contains(refs[ct.ImageID], named) {
			refs[ct.ImageID] = append(refs[ct.ImageID], named)
		}
	}
	for _, id := range ids {
		var in image.InspectResponse
		err := c.p.call(ctx, "inspect image "+id, func(ctx context.Context, conn *dockerengine.Conn) (err error) {
			in, err = conn.ImageInspect(ctx, id)
			return err
		})
		if errdefs.IsNotFound(err) {
			c.warn("the image %s of a container is no longer on the engine: it cannot travel", cmp.Or(strings.Join(refs[id], ", "), id))
			c.app.Images = append(c.app.Images, backup.Image{ID: id, Refs: refs[id], Reason: "it is no longer on the engine"})
			continue
		}
		if err != nil {
			return err
		}
		c.app.Images = append(c.app.Images, imageOf(id, in, refs[id]))
	}
	c.decideImages(ctx)
	return ctx.Err()
}

// imageOf makes an image of what the engine says. Names that containers were made with
// come first, where they still mean this image.
func imageOf(id string, in image.InspectResponse, used []string) backup.Image {
	im := backup.Image{ID: id, Digests: slices.Clone(in.RepoDigests), Size: in.Size}
	im.Platform = cmp.Or(in.Os, "linux") + "/" + cmp.Or(in.Architecture, "unknown")
	if in.Variant != "" {
		im.Platform += "/" + in.Variant
	}
	for _, tag := range in.RepoTags {
		if tag != "<none>:<none>" {
			im.Refs = append(im.Refs, tag)
		}
	}
	for _, u := range used {
		if !slices.Contains(im.Refs, u) && !slices.Contains(im.Refs, u+":latest") && !strings.Contains(u, "@") {
			// The tag has moved on to another image since; it meant this one.
			im.Refs = append(im.Refs, u)
		}
	}
	slices.Sort(im.Digests)
	return im
}

func isImageID(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}

// decideImages says which images travel inside: those that a registry would not give
// again.
func (c *capture) decideImages(ctx context.Context) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, registryParallel)
	for i := range c.app.Images {
		im := &c.app.Images[i]
		switch {
		case im.Size == 0 && im.Platform == "": // gone
		case c.opts.Images == "never":
			im.Reason = "left out as asked"
		case c.opts.Images == "always":
			im.Include, im.Reason = true, "included as asked"
		case len(im.Digests) == 0:
			im.Include, im.Reason = true, "it was made or loaded here: no registry has it"
		default:
			wg.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				c.askRegistry(ctx, im)
			})
		}
	}
	wg.Wait()
	for i := range c.app.Containers {
		ct := &c.app.Containers[i]
		if !ct.Layer.Include {
			continue
		}
		j := slices.IndexFunc(c.app.Images, func(im backup.Image) bool { return im.ID == ct.ImageID })
		if j >= 0 && !c.app.Images[j].Include && c.opts.Images != "never" {
			// It is part of the layer's image, and costs nothing more.
			c.app.Images[j].Include, c.app.Images[j].Reason = true, "what "+ct.Name+" has written needs it"
		}
	}
}

// askRegistry asks whether an image can be pulled again.
func (c *capture) askRegistry(ctx context.Context, im *backup.Image) {
	ctx, cancel := context.WithTimeout(ctx, registryTimeout)
	defer cancel()
	var last error
	for _, digest := range im.Digests {
		last = c.p.call(ctx, "ask the registry", func(ctx context.Context, conn *dockerengine.Conn) error {
			_, err := conn.DistributionInspect(ctx, digest, "")
			return err
		})
		if last == nil {
			im.Reason = "it can be pulled again: " + digest
			return
		}
	}
	im.Include, im.Reason = true, fmt.Sprintf("the registry does not confirm that it has it (%s)", registryText(last))
}

// registryText is why a registry did not confirm, without addresses and tokens.
func registryText(err error) string {
	switch {
	case errdefs.IsNotFound(err):
		return "not found"
	case errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return "it wants a login"
	}
	return "no answer"
}
