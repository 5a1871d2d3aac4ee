package backup

import (
	"context"
	"errors"
	"io"
)

// VolumeStream is the segments of one volume, one after the other, out of a Reader.
type VolumeStream struct {
	ctx     context.Context // for its lifetime: io.Reader has none
	r       *Reader
	volume  string
	pending *Member // what came after them
	err     error
}

// VolumeStream reads the segments of a volume, at the first of which the Reader stands.
// Each was held against its hash by the time that the next one begins, and the last one by
// the time that Read returns io.EOF. It ends with ctx. Nobody else may use the Reader
// until it has ended.
func (r *Reader) VolumeStream(ctx context.Context, volume string) *VolumeStream {
	return &VolumeStream{ctx: ctx, r: r, volume: volume}
}

// Read reads on, into the next segment where one ends.
func (s *VolumeStream) Read(p []byte) (int, error) {
	for s.err == nil {
		if s.err = s.ctx.Err(); s.err != nil {
			break
		}
		n, err := s.r.Read(p)
		if err != nil && !errors.Is(err, io.EOF) {
			s.err = err
			return n, err
		}
		if n > 0 || err == nil {
			return n, nil
		}
		m, err := s.r.Next()
		switch {
		case err != nil:
			s.err = err
		case m.Kind != MemberSegment || m.Volume != s.volume:
			s.pending, s.err = m, io.EOF
		}
	}
	return 0, s.err
}

// Err is why the archive could not be read on; nil where it could.
func (s *VolumeStream) Err() error {
	if errors.Is(s.err, io.EOF) {
		return nil
	}
	return s.err
}

// After gives the member behind the volume, once the rest of the volume was read, or
// io.EOF at the archive's end.
func (s *VolumeStream) After() (*Member, error) {
	if _, err := io.Copy(io.Discard, s); err != nil {
		return nil, err
	}
	if s.pending == nil {
		return nil, s.err
	}
	return s.pending, nil
}
