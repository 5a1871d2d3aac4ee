package volume

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup/tarx"
)

// content reads what h says that the file holds, and returns its hash.
func (r *reader) content(fd int, h *tarx.Header) ([]byte, error) {
	if h.Data == nil && h.Size <= chunkSize/2 {
		return r.small(fd, h)
	}
	r.digest.Reset()
	extents := h.Data
	if h.Data == nil {
		extents = []tarx.Extent{{Length: h.Size}}
		if h.Size > 8*chunkSize {
			// Advice: whether it is heeded makes no difference to the result.
			_ = unix.Fadvise(fd, 0, 0, unix.FADV_SEQUENTIAL)
		}
	}
	short, pos := false, int64(0)
	for _, e := range extents {
		r.digest.Zeros(e.Offset - pos)
		for pos = e.Offset; pos < e.Offset+e.Length; {
			p, err := r.room(e.Offset + e.Length - pos)
			if err != nil {
				return nil, err
			}
			if !short {
				n, err := readAt(fd, p, pos)
				if err != nil {
					if err := r.unreadable(entryPath(h.Name), "read", err); err != nil {
						return nil, err
					}
				}
				short = n < len(p)
				clear(p[n:])
			} else {
				clear(p)
			}
			r.digest.add(p)
			r.c.data += int64(len(p))
			pos += int64(len(p))
		}
	}
	r.digest.Zeros(h.Size - pos)
	if !r.bare {
		r.c.buf = append(r.c.buf, zeros[:tarx.Padding(h)]...)
	}
	r.hex = r.digest.Append(r.hex[:0])
	return r.hex, nil
}

// small reads a file that fits into the current chunk.
func (r *reader) small(fd int, h *tarx.Header) ([]byte, error) {
	size := int(h.Size)
	start := len(r.c.buf)
	r.c.buf = grow(r.c.buf, size+tarx.Padding(h))
	p := r.c.buf[start : start+size]
	n, err := readAt(fd, p, 0)
	if err != nil {
		if err := r.unreadable(entryPath(h.Name), "read", err); err != nil {
			return nil, err
		}
	}
	clear(r.c.buf[start+n:])
	sum := sha256.Sum256(p)
	r.hex = hex.AppendEncode(r.hex[:0], sum[:])
	r.c.data += h.Size
	if r.bare {
		r.c.buf = r.c.buf[:0]
	}
	return r.hex, nil
}

// grow makes b longer by n bytes, whatever is in them.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b[:len(b)+n]
	}
	return append(b, make([]byte, n)...)
}

// room is a part of the current chunk for at most n bytes; a full chunk is sent.
func (r *reader) room(n int64) ([]byte, error) {
	if r.bare {
		if err := r.ctx.Err(); err != nil {
			return nil, errStopped
		}
		if cap(r.c.buf) < chunkSize {
			r.c.buf = make([]byte, 0, chunkSize)
		}
		return r.c.buf[:min(n, chunkSize)], nil
	}
	if len(r.c.buf) >= chunkSize-512 {
		if err := r.emit(false); err != nil {
			return nil, err
		}
	}
	start := len(r.c.buf)
	r.c.buf = grow(r.c.buf, int(min(n, int64(chunkSize-start))))
	return r.c.buf[start:], nil
}

// readAt reads until p is full or the file ends.
func readAt(fd int, p []byte, off int64) (n int, err error) {
	for n < len(p) {
		var done int
		done, err = pread(fd, p[n:], off+int64(n))
		if err != nil || done <= 0 {
			return n, err
		}
		n += done
	}
	return n, nil
}

// holes gives the extents of a file that are data, nil where all of it is.
func holes(fd int, size int64) []tarx.Extent {
	data := []tarx.Extent{}
	for pos := int64(0); pos < size; {
		start, err := unix.Seek(fd, pos, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole up to the end
		}
		if err != nil || start < pos {
			return nil // the file system knows no holes
		}
		if start >= size {
			break
		}
		end, err := unix.Seek(fd, start, unix.SEEK_HOLE)
		if err != nil || end <= start {
			return nil
		}
		end = min(end, size)
		data = append(data, tarx.Extent{Offset: start, Length: end - start})
		if len(data) > 4*tarx.MaxExtents {
			return nil
		}
		pos = end
	}
	if len(data) == 1 && data[0].Length == size {
		return nil
	}
	return tarx.AlignExtents(data, size)
}
