package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/dentropy/dentropycloud/backup"
)

// frozen is the data of an app in transit.
type frozen struct {
	f        *freeze
	trees    map[string]*backup.Tree
	imageDir string
	layout   *layout // once images have been staged
	closed   bool
}

func (z *frozen) Trees() map[string]*backup.Tree { return z.trees }

func (z *frozen) Report() backup.QuiesceReport { return z.f.report }

// Segments implements backup.Frozen.
func (z *frozen) Segments(ctx context.Context, volume string) (io.ReadCloser, error) {
	tree := z.trees[volume]
	if tree == nil {
		return nil, fmt.Errorf("read volume %q: it is not among those that were read", volume)
	}
	files := make([]transitFile, len(tree.Segments))
	for i, s := range tree.Segments {
		files[i] = transitFile{name: fmt.Sprintf("%s.tar.zst.%05d", volume, i), size: s.Size}
	}
	return z.f.p.openTransit(ctx, z.f.j.Op(), z.f.dir, files), nil
}

// Index implements backup.Frozen.
func (z *frozen) Index(ctx context.Context, volume string) (io.ReadCloser, error) {
	tree := z.trees[volume]
	if tree == nil {
		return nil, fmt.Errorf("read volume %q: it is not among those that were read", volume)
	}
	return z.f.p.openTransit(ctx, z.f.j.Op(), z.f.dir, []transitFile{{volume + ".files.ndjson.zst", tree.Index.Size}}), nil
}

// Close implements backup.Frozen.
func (z *frozen) Close(ctx context.Context) error {
	if z.closed {
		return nil
	}
	z.f.dropLayers(ctx)
	err := z.f.p.cleanTransit(ctx, z.f.j.Op())
	if z.imageDir != "" {
		err = errors.Join(err, os.RemoveAll(z.imageDir))
	}
	z.f.p.sweepHelpers(ctx)
	z.closed = err == nil
	return err
}
