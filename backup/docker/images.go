package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/docker/docker/api/types/image"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// Images implements backup.Frozen. The images are read from the engine at the first call,
// and lie in the temporary folder until Close.
func (z *frozen) Images(ctx context.Context) (io.ReadCloser, error) {
	var list []backup.Image
	for _, im := range z.f.app.Images {
		if im.Include {
			list = append(list, im)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("read images: none travels: %w", fs.ErrNotExist)
	}
	if z.imageDir == "" {
		dir, err := os.MkdirTemp("", "dentropy-images-")
		if err != nil {
			return nil, fmt.Errorf("make folder for images: %w", err)
		}
		z.imageDir = dir
	}
	if z.layout == nil {
		l, err := z.f.p.stageImages(ctx, list, z.imageDir, z.f.opts.Report)
		if err != nil {
			return nil, err
		}
		z.layout = l
	}
	return z.layout.open(), nil
}

// stageImages saves images into a folder, as the parts of an OCI layout.
func (p *Platform) stageImages(ctx context.Context, list []backup.Image, dir string, report func(backup.Progress)) (*layout, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("clear folder for images: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder for images: %w", err)
	}
	names, err := p.saveNames(ctx, list)
	if err != nil {
		return nil, err
	}
	conn, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	saved, err := conn.ImageSave(ctx, names)
	if err != nil {
		return nil, p.failed("save images", err)
	}
	defer func() { _ = saved.Close() }()
	var total int64
	for _, im := range list {
		total += im.Size
	}
	s := newStager(dir, func(done int64) {
		report(backup.Progress{Phase: "images", Done: done, Total: max(total, done)})
	})
	if err := s.read(saved); err != nil {
		return nil, fmt.Errorf("save images: %w", err)
	}
	l, err := s.layout(list)
	if err != nil {
		return nil, fmt.Errorf("save images: %w", err)
	}
	return l, nil
}

// saveNames are what images are saved by: their names where these still mean them, since
// a name that is not asked for is not saved, else their id.
func (p *Platform) saveNames(ctx context.Context, list []backup.Image) ([]string, error) {
	var out []string
	for _, im := range list {
		found := false
		for _, ref := range im.Refs {
			var in image.InspectResponse
			err := p.call(ctx, "inspect image "+ref, func(ctx context.Context, c *dockerengine.Conn) (err error) {
				in, err = c.ImageInspect(ctx, ref)
				return ignoreNotFound(err)
			})
			if err != nil {
				return nil, err
			}
			if in.ID == im.ID && !slices.Contains(out, ref) {
				out = append(out, ref)
				found = true
			}
		}
		if !found {
			out = append(out, im.ID)
		}
	}
	return out, nil
}

// layout is an OCI layout, parts of it in files.
type layout struct {
	small map[string][]byte // by member name
	files map[string]staged
}

// staged is a blob in a file.
type staged struct {
	path string
	size int64
}

// open gives the layout as a tar.
func (l *layout) open() io.ReadCloser {
	pr, pw := io.Pipe()
	s := &pipeStream{PipeReader: pr, over: make(chan struct{})}
	go func() {
		defer close(s.over)
		_ = pw.CloseWithError(l.write(pw))
	}()
	return s
}

// pipeStream is what a goroutine writes; Close ends it.
type pipeStream struct {
	*io.PipeReader
	over chan struct{}
}

func (s *pipeStream) Close() error {
	err := s.PipeReader.Close()
	<-s.over
	return err
}

// layoutFirst are the members that come before all blobs: a reader of the stream knows
// from them what follows.
var layoutFirst = []string{"oci-layout", "index.json", "manifest.json"}

func (l *layout) write(w io.Writer) error {
	tw := tar.NewWriter(w)
	names := slices.Sorted(maps.Keys(l.small))
	for name := range l.files {
		names = append(names, name)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(layoutFirst, n) })
	slices.Sort(names)
	for _, name := range slices.Concat(layoutFirst, names) {
		if err := l.member(tw, name); err != nil {
			return fmt.Errorf("read images: %s: %w", name, err)
		}
	}
	return tw.Close()
}

func (l *layout) member(tw *tar.Writer, name string) error {
	var r io.Reader
	var size int64
	if b, ok := l.small[name]; ok {
		r, size = bytes.NewReader(b), int64(len(b))
	} else {
		st := l.files[name]
		f, err := os.Open(st.path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		r, size = f, st.size
	}
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, Format: tar.FormatPAX}); err != nil {
		return err
	}
	n, err := io.Copy(tw, r)
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// blobFile is where the stager puts its n-th blob.
func blobFile(dir string, n int) string { return filepath.Join(dir, fmt.Sprintf("%06d", n)) }

var errOddImages = errors.New("the engine's answer is no set of images as it is known")
