package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
)

// write writes the archive to w.
func (b *backupRun) write(frozen Frozen, w io.Writer) (Summary, error) {
	var none Summary
	trees := frozen.Trees()
	images, err := frozen.Images(b.ctx)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return none, fmt.Errorf("read images: %w", err)
	}
	if images != nil {
		defer func() { _ = images.Close() }()
	}
	man := &Manifest{
		Format: FormatVersion, ID: b.id, Created: b.began.UTC(), Tool: b.cfg.Tool,
		Trees: trees, ImagesInside: images != nil, Quiesce: frozen.Report(),
		Encryption: b.encryption, Status: StatusComplete, Warnings: b.job.warnings(),
	}
	if len(man.Warnings) > 0 {
		man.Status = StatusWarnings
	}
	man.Warnings = slices.DeleteFunc(man.Warnings, func(w string) bool { return slices.Contains(b.app.Warnings, w) })
	out, err := NewWriter(w, WriterOptions{Encryption: b.encryption, Recipients: b.recipients})
	if err != nil {
		return none, err
	}
	if err := out.Start(man, b.app); err != nil {
		return none, err
	}
	p := &writeProgress{over: b.over, report: b.req.Freeze.Report}
	for _, t := range trees {
		p.total += t.Index.Size
		for _, s := range t.Segments {
			p.total += s.Size
		}
	}
	if images != nil {
		p.total += b.est.ImageBytes
		if err := out.Images(p.reader(images, "images")); err != nil {
			return none, fmt.Errorf("images: %w", err)
		}
	}
	for i := range b.app.Volumes {
		v := &b.app.Volumes[i]
		if t := trees[v.ID]; t != nil {
			if err := b.writeVolume(out, frozen, t, p, v.Name); err != nil {
				return none, fmt.Errorf("volume %s: %w", v.Name, err)
			}
		}
	}
	return out.Finish()
}

func (b *backupRun) writeVolume(out *Writer, frozen Frozen, t *Tree, p *writeProgress, name string) error {
	parts := []struct {
		open func(context.Context, string) (io.ReadCloser, error)
		put  func(*Tree, io.Reader) error
	}{{frozen.Segments, out.Volume}, {frozen.Index, out.FileIndex}}
	for _, part := range parts {
		r, err := part.open(b.ctx, t.Volume)
		if err != nil {
			return err
		}
		err = part.put(t, p.reader(r, name))
		if cl := r.Close(); err == nil {
			err = cl
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeProgress counts what goes into the archive.
type writeProgress struct {
	over        func() error // not nil once the backup is cancelled
	report      func(Progress)
	done, total int64
	told        int64
}

func (p *writeProgress) reader(r io.Reader, what string) io.Reader {
	return &progressReader{p: p, r: r, what: what}
}

type progressReader struct {
	p    *writeProgress
	r    io.Reader
	what string
}

// Read reads on, and ends with the backup.
func (r *progressReader) Read(b []byte) (int, error) {
	const tellEvery = 1 << 20
	if err := r.p.over(); err != nil {
		return 0, err
	}
	n, err := r.r.Read(b)
	p := r.p
	if p.done += int64(n); p.done-p.told >= tellEvery || err != nil {
		p.told = p.done
		p.report(Progress{Phase: "write", Text: r.what, Done: p.done, Total: max(p.total, p.done)})
	}
	return n, err
}
