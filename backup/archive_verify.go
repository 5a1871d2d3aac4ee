package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"filippo.io/age"
	"github.com/dentropy/dentropycloud/backup/tarx"
	"github.com/klauspost/compress/zstd"
)

// VerifyStream reads a whole archive from front to end and proves all of it: every hash,
// that every volume can be decompressed and is a sound tar, and that the indexes of files
// say what is in them. report may be nil.
func VerifyStream(ctx context.Context, r io.Reader, report func(Progress), identities ...age.Identity) (*Manifest, error) {
	ar, err := OpenReader(ctx, r, identities...)
	if err != nil {
		return nil, err
	}
	defer ar.Until(ctx)()
	return ar.manifest, verify(ctx, ar, nil, report)
}

// Verify does the same as VerifyStream with an archive that is open, and proves the table
// of frames as well, with which OpenFile finds a file.
func (a *Archive) Verify(ctx context.Context, report func(Progress)) error {
	if a.salvaged != nil {
		return a.salvaged
	}
	ar, err := newReader(io.NewSectionReader(a.ra, 0, a.size), a.identities)
	if err != nil {
		return err
	}
	if !slices.EqualFunc(ar.front, a.members[:min(len(ar.front), len(a.members))], func(x, y indexMember) bool { return x.line() == y.line() }) {
		return fmt.Errorf("%w: its front has changed since it was opened", ErrCorrupt)
	}
	return verify(ctx, ar, a.manifest.Trees, report)
}

// verify reads what is behind the head. frames are trees with frames, or nil.
func verify(ctx context.Context, r *Reader, frames map[string]*Tree, report func(Progress)) error {
	if _, err := r.App(); err != nil && !errors.Is(err, ErrNoKey) {
		return err
	}
	p := verifyProgress{report: report}
	for _, t := range r.manifest.Trees {
		p.total += t.Index.Size
		for i := range t.Segments {
			p.total += t.Segments[i].Size
		}
	}
	var vol *volumeCheck
	defer func() {
		if vol != nil {
			vol.close(errStop)
		}
	}()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		m, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		in := &verifyReader{ctx: ctx, r: r, p: &p, text: m.Volume}
		switch m.Kind {
		case MemberSegment:
			if m.Segment == 0 {
				vol = startVolumeCheck(ctx, r.manifest.Trees[m.Volume])
			}
			err = vol.segment(in, frames, m)
		case MemberIndex:
			err = vol.index(ctx, in, m.Volume)
			vol = nil
		default:
			_, err = io.Copy(io.Discard, in)
		}
		if err != nil {
			return err
		}
	}
}

// verifyProgress counts what is verified.
type verifyProgress struct {
	report      func(Progress)
	done, total int64
}

// verifyReader reports what goes through, and ends with its context.
type verifyReader struct {
	ctx  context.Context // for one member
	r    io.Reader
	p    *verifyProgress
	text string
}

func (r *verifyReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.r.Read(b)
	r.p.done += int64(n)
	if r.p.report != nil {
		r.p.report(Progress{Phase: "verify", Text: r.text, Done: r.p.done, Total: max(r.p.total, r.p.done)})
	}
	return n, err
}

// volumeCheck takes the data of a volume apart while it passes.
type volumeCheck struct {
	tree *Tree
	pipe *io.PipeWriter
	done chan struct{}
	sum  hash.Hash // of all entries
	err  error     // once done is closed
}

// startVolumeCheck begins with a volume. It ends with index, or close.
func startVolumeCheck(ctx context.Context, t *Tree) *volumeCheck {
	pr, pw := io.Pipe()
	v := &volumeCheck{tree: t, pipe: pw, done: make(chan struct{}), sum: sha256.New()}
	go func() {
		defer close(v.done)
		v.err = v.parse(ctx, pr)
		pr.CloseWithError(v.err)
	}()
	return v
}

// close ends the check and waits for it.
func (v *volumeCheck) close(err error) {
	v.pipe.CloseWithError(err)
	<-v.done
}

// segment passes a segment on.
func (v *volumeCheck) segment(in io.Reader, frames map[string]*Tree, m *Member) error {
	w := io.Writer(v.pipe)
	var fc *frameCheck
	if t := frames[m.Volume]; t != nil && m.Segment < len(t.Segments) && len(t.Segments[m.Segment].Frames) > 0 {
		fc = &frameCheck{frames: t.Segments[m.Segment].Frames}
		w = io.MultiWriter(fc, v.pipe)
	}
	buf := make([]byte, hashBuffer)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return werr // what the parser or the frames say
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if fc != nil && len(fc.frames) > 0 {
		return fmt.Errorf("%w: %s has fewer frames than the index says", ErrCorrupt, m.Name)
	}
	return nil
}

// index ends the data and holds the index of files against it.
func (v *volumeCheck) index(ctx context.Context, in io.Reader, volume string) error {
	sum := sha256.New()
	listed := readFiles(in, v.tree, func(e *FileEntry) error {
		sum.Write(entryLine(e))
		return ctx.Err()
	})
	v.close(nil)
	if v.err != nil {
		return v.err
	}
	if listed != nil {
		return listed
	}
	if !bytes.Equal(sum.Sum(nil), v.sum.Sum(nil)) {
		return fmt.Errorf("%w: the index of files of volume %q does not say what is in the volume", ErrCorrupt, volume)
	}
	return nil
}

// parse reads the tar of the volume.
func (v *volumeCheck) parse(ctx context.Context, segments io.Reader) error {
	s := newTarStream(segments, v.tree)
	defer s.Close()
	tr := tarx.NewReader(s)
	var entries, files, size int64
	for {
		// The holes of a file cost time and come from nothing: the stream cannot end this.
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return tarError(v.tree.Volume, err)
		}
		e := entryOf(h, tr.Offset())
		entries++
		if h.Type == tarx.TypeFile {
			files++
			if h.Size > v.tree.Bytes-size {
				return fmt.Errorf("%w: the files of volume %q are larger than the manifest says", ErrCorrupt, v.tree.Volume)
			}
			size += h.Size
			if e.SHA256, e.ZeroSHA256, err = hashEntry(ctx, tr, h); err != nil {
				return tarError(v.tree.Volume, err)
			}
		}
		v.sum.Write(entryLine(&e))
	}
	if tr.Offset()+int64(len(tarx.Trailer)) != v.tree.TarSize || entries != v.tree.Entries || files != v.tree.Files {
		return fmt.Errorf("%w: volume %q has %d entries, and the manifest says %d", ErrCorrupt, v.tree.Volume, entries, v.tree.Entries)
	}
	if size != v.tree.Bytes {
		return fmt.Errorf("%w: the files of volume %q have %d bytes, and the manifest says %d", ErrCorrupt, v.tree.Volume, size, v.tree.Bytes)
	}
	// What the tar reader did not want to see is still to be decoded.
	_, err := io.Copy(io.Discard, s)
	return err
}

// tarError is an error in the tar of a volume. Errors of what carries it stay what they
// are.
func tarError(volume string, err error) error {
	if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrIncomplete) || errors.Is(err, errStop) {
		return err
	}
	if errors.Is(err, tarx.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: the data of volume %q: %w", ErrCorrupt, volume, err)
	}
	return err
}

// hashEntry is the content hash of the file that tr stands at.
func hashEntry(ctx context.Context, tr *tarx.Reader, h *tarx.Header) (plain, zero string, err error) {
	sum := newContentHash()
	data := h.Data
	if data == nil && h.Size > 0 {
		data = []tarx.Extent{{Offset: 0, Length: h.Size}}
	}
	pos := int64(0)
	for _, x := range data {
		if err := ctx.Err(); err != nil {
			return "", "", err
		}
		sum.Zeros(x.Offset - pos)
		if _, err := io.CopyN(sum, tr, x.Length); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return "", "", err
		}
		pos = x.Offset + x.Length
	}
	sum.Zeros(h.Size - pos)
	plain, zero = sum.sums()
	return plain, zero, nil
}

// frameCheck holds a table of frames against the segment that passes: at each border
// that it names a frame must begin, of the size that it says.
type frameCheck struct {
	frames []Frame // still to come
	pos    int64   // in the first of them
	head   []byte  // its beginning
}

func (c *frameCheck) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if len(c.frames) == 0 {
			return 0, fmt.Errorf("%w: a segment has more frames than the index says", ErrCorrupt)
		}
		f := c.frames[0]
		part := p[:min(int64(len(p)), f.Size-c.pos)]
		p = p[len(part):]
		if k := zstd.HeaderMaxSize - len(c.head); k > 0 {
			c.head = append(c.head, part[:min(k, len(part))]...)
		}
		if c.pos += int64(len(part)); c.pos < f.Size {
			continue
		}
		var h zstd.Header
		if err := h.Decode(c.head); err != nil || h.Skippable || h.HasFCS && h.FrameContentSize != uint64(f.Raw) {
			return 0, fmt.Errorf("%w: a frame is not where the index says, or of another size", ErrCorrupt)
		}
		c.frames, c.pos, c.head = c.frames[1:], 0, c.head[:0]
	}
	return n, nil
}
