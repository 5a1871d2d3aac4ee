package backup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/dentropy/dentropycloud/backup/frame"
)

// notThere says that an archive or volume does not have something.
func notThere(in, name string) error {
	return &Problem{
		Message: fmt.Sprintf("%s does not have %q", in, name), Hint: "dentropy archive ls lists what is there",
		Object: name, Err: fs.ErrNotExist,
	}
}

// tree is a volume's tree.
func (a *Archive) tree(volume string) (*Tree, error) {
	t := a.manifest.Trees[volume]
	if t == nil {
		return nil, notThere("the archive", volume)
	}
	return t, nil
}

// TarStream gives the tar of a volume, decompressed. Each segment of it was held against
// its hash by the time that the next one begins, and the last one by the time that Read
// returns io.EOF. The error wraps fs.ErrNotExist where there is no such volume.
func (a *Archive) TarStream(volume string) (io.ReadCloser, error) {
	t, err := a.tree(volume)
	if err != nil {
		return nil, err
	}
	return newTarStream(&segmentsReader{a: a, tree: t}, t), nil
}

// segmentsReader gives the segments of a volume one after the other.
type segmentsReader struct {
	a    *Archive
	tree *Tree
	n    int
	cur  io.Reader
}

func (s *segmentsReader) Read(p []byte) (int, error) {
	for {
		if s.cur == nil {
			if s.n == len(s.tree.Segments) {
				return 0, io.EOF
			}
			i, ok := s.a.byName[segmentName(s.tree.Volume, s.n)]
			if !ok {
				return 0, s.missing()
			}
			s.cur = s.a.open(&s.a.members[i])
			s.n++
		}
		n, err := s.cur.Read(p)
		if errors.Is(err, io.EOF) {
			s.cur, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// missing says that a segment is not there, which only happens in what was salvaged.
func (s *segmentsReader) missing() error {
	why := s.a.salvaged
	if why == nil {
		why = ErrCorrupt
	}
	return fmt.Errorf("segment %d of volume %q is missing: %w", s.n, s.tree.Volume, why)
}

// tarStream is the tar of a volume, which must have the length that the manifest says.
type tarStream struct {
	io.ReadCloser
	tree *Tree
	left int64
}

func newTarStream(segments io.Reader, t *Tree) *tarStream {
	return &tarStream{ReadCloser: frame.NewReader(segments, 0), tree: t, left: t.TarSize}
}

func (s *tarStream) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if int64(n) > s.left {
		n, err = int(s.left), fmt.Errorf("%w: the data of volume %q is longer than the manifest says", ErrCorrupt, s.tree.Volume)
	}
	s.left -= int64(n)
	switch {
	case errors.Is(err, io.EOF) && s.left > 0:
		err = fmt.Errorf("%w: the data of volume %q is %d bytes shorter than the manifest says", ErrCorrupt, s.tree.Volume, s.left)
	case errors.Is(err, frame.ErrCorrupt) || errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("%w: the data of volume %q: %w", ErrCorrupt, s.tree.Volume, err)
	}
	return n, err
}

// frameStream is the tar of a volume from anywhere on: it decodes only the frames that
// are read. Whoever reads it proves what comes by other means than the segments' hashes.
type frameStream struct {
	a    *Archive
	tree *Tree
	// The frame in buf is frame n of segment seg and begins at start in the tar.
	seg, n int
	start  int64
	buf    []byte
	loaded bool
	pos    int64 // in the tar
	packed []byte
}

// hasFrames reports whether all frames of a volume are known.
func hasFrames(t *Tree) bool {
	for i := range t.Segments {
		if len(t.Segments[i].Frames) == 0 {
			return false
		}
	}
	return true
}

// tarFrom gives the tar of a volume from an offset on.
func (a *Archive) tarFrom(t *Tree, offset int64) (io.ReadCloser, error) {
	if offset < 0 || offset >= t.TarSize {
		return nil, fmt.Errorf("%w: offset %d is not in volume %q", ErrCorrupt, offset, t.Volume)
	}
	if hasFrames(t) {
		fs := &frameStream{a: a, tree: t}
		fs.seek(offset)
		return io.NopCloser(fs), nil
	}
	s := newTarStream(&segmentsReader{a: a, tree: t}, t)
	if _, err := io.CopyN(io.Discard, s, offset); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// seek moves to an offset. A frame that is decoded already is used again.
func (f *frameStream) seek(offset int64) {
	f.pos = offset
	if f.loaded && offset >= f.start && offset < f.start+int64(len(f.buf)) {
		return
	}
	f.loaded = false
	f.seg, f.n, f.start = 0, 0, 0
	for f.seg < len(f.tree.Segments) && f.start+f.tree.Segments[f.seg].Raw <= offset {
		f.start += f.tree.Segments[f.seg].Raw
		f.seg++
	}
	if f.seg == len(f.tree.Segments) {
		return
	}
	frames := f.tree.Segments[f.seg].Frames
	for f.n < len(frames)-1 && f.start+frames[f.n].Raw <= offset {
		f.start += frames[f.n].Raw
		f.n++
	}
}

func (f *frameStream) Read(p []byte) (int, error) {
	if f.loaded && f.pos >= f.start+int64(len(f.buf)) {
		f.start += int64(len(f.buf))
		f.loaded = false
		if f.n++; f.n == len(f.tree.Segments[f.seg].Frames) {
			f.seg, f.n = f.seg+1, 0
		}
	}
	if f.seg >= len(f.tree.Segments) {
		return 0, io.EOF
	}
	if !f.loaded {
		if err := f.load(); err != nil {
			return 0, err
		}
	}
	n := copy(p, f.buf[f.pos-f.start:])
	f.pos += int64(n)
	return n, nil
}

// load reads and decodes the current frame.
func (f *frameStream) load() error {
	s := &f.tree.Segments[f.seg]
	name := segmentName(f.tree.Volume, f.seg)
	i, ok := f.a.byName[name]
	if !ok {
		return (&segmentsReader{a: f.a, tree: f.tree, n: f.seg}).missing()
	}
	at := f.a.members[i].Offset
	for _, before := range s.Frames[:f.n] {
		at += before.Size
	}
	fr := s.Frames[f.n]
	f.packed = append(f.packed[:0], make([]byte, fr.Size)...)
	if n, err := f.a.ra.ReadAt(f.packed, at); n < len(f.packed) {
		return fmt.Errorf("read %s: %w", name, err)
	}
	var err error
	f.buf, err = frame.DecodeFrame(f.buf[:0], f.packed, int(fr.Raw))
	if err == nil && int64(len(f.buf)) != fr.Raw {
		err = fmt.Errorf("it holds %d bytes, not %d", len(f.buf), fr.Raw)
	}
	if err != nil {
		return fmt.Errorf("%w: frame %d of %s: %w", ErrCorrupt, f.n, name, err)
	}
	f.loaded = true
	return nil
}
