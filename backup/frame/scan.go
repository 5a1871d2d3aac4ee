package frame

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// sourceBuffer is how much is read at once; the blocks of a frame are smaller.
const sourceBuffer = 256 << 10

// scanner finds frames in a stream.
type scanner struct {
	r   *bufio.Reader
	pos int64
}

func newScanner(r io.Reader) *scanner {
	return &scanner{r: bufio.NewReaderSize(r, sourceBuffer)}
}

// take appends the next n bytes to b.
func (s *scanner) take(b []byte, n int) ([]byte, error) {
	start := len(b)
	if cap(b)-start < n {
		b = append(make([]byte, 0, max(2*cap(b), start+n)), b...)
	}
	b = b[:start+n]
	done, err := io.ReadFull(s.r, b[start:])
	s.pos += int64(done)
	if err != nil {
		return b[:start+done], cutOff(err)
	}
	return b, nil
}

// cutOff is err, where an end of the stream comes too early.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// open reads the header of the next frame and skips what is no frame. It returns io.EOF
// at the end of the stream.
func (s *scanner) open() (header, error) {
	for {
		head, err := s.r.Peek(maxHeader)
		if len(head) == 0 {
			return header{}, err
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return header{}, err
		}
		if len(head) < 4 || binary.LittleEndian.Uint32(head)&skippableMask != skippable {
			return parseHeader(head)
		}
		if len(head) < 8 {
			return header{}, io.ErrUnexpectedEOF
		}
		size := 8 + int64(binary.LittleEndian.Uint32(head[4:]))
		done, err := io.CopyN(io.Discard, s.r, size)
		if s.pos += done; err != nil {
			return header{}, cutOff(err)
		}
	}
}

// block appends the next block of a frame, with its header, to b.
func (s *scanner) block(b []byte, h header) ([]byte, block, error) {
	b, err := s.take(b, blockHeader)
	if err != nil {
		return b, block{}, err
	}
	bl, err := parseBlock(b[len(b)-blockHeader:])
	if err != nil {
		return b, bl, err
	}
	n := bl.stored
	if bl.last {
		n += h.checksum
	}
	b, err = s.take(b, n)
	return b, bl, err
}

// frame reads the next frame into p. It stops before the end of a frame that is too large
// to be decoded as a whole, and reports that.
func (s *scanner) frame(p *piece) (h header, large bool, err error) {
	h, err = s.open()
	p.at = s.pos
	if err != nil {
		return h, false, err
	}
	if p.src, err = s.take(p.src[:0], h.size); err != nil {
		return h, false, err
	}
	if h.window > MaxWindow && (!h.known || h.content > ParallelSize) {
		return h, false, fmt.Errorf("window of %d bytes: %w", h.window, errors.ErrUnsupported)
	}
	if h.known && h.content > ParallelSize {
		return h, true, nil
	}
	most := 0
	for {
		var bl block
		if p.src, bl, err = s.block(p.src, h); err != nil {
			return h, false, err
		}
		most += bl.most
		if bl.last {
			break
		}
		// Many small blocks may hold little, so what is known counts more than what
		// they could come to; but no frame of that size takes so many bytes.
		if !h.known && most > ParallelSize-maxBlock || len(p.src) > ParallelSize {
			return h, true, nil
		}
	}
	if p.most = most; h.known {
		p.most = int(h.content)
	}
	return h, false, nil
}

// scan hands out frames to the workers, until the stream ends.
func (r *Reader) scan() {
	defer close(r.work)
	for {
		p := r.takePiece()
		if p == nil {
			return
		}
		h, large, err := r.src.frame(p)
		switch {
		case err != nil:
			if !errors.Is(err, io.EOF) {
				err = fmt.Errorf("read zstd frame at offset %d: %w", p.at, err)
			}
			r.emit(p, err)
			return
		case large:
			if !r.stream(p, h) {
				return
			}
		default:
			r.order <- p
			r.work <- p
		}
	}
}

// takePiece waits for a free piece; nil is the end of the reader.
func (r *Reader) takePiece() *piece {
	select {
	case <-r.stop:
		return nil
	default:
	}
	select {
	case <-r.stop:
		return nil
	case p := <-r.free:
		p.out, p.err = nil, nil
		return p
	}
}

// emit puts out a piece that needs no worker.
func (r *Reader) emit(p *piece, err error) {
	p.err = err
	p.ready <- struct{}{}
	r.order <- p
}

// decode is a worker.
func (r *Reader) decode() {
	// The fast code of the decoder writes some bytes further than it has to.
	const slack = 64
	for p := range r.work {
		select {
		case <-r.stop:
		default:
			if cap(p.buf) < p.most+slack {
				p.buf = make([]byte, 0, p.most+slack)
			}
			out, err := r.dec.DecodeAll(p.src, p.buf[:0])
			if err != nil {
				p.err = fmt.Errorf("read zstd frame at offset %d: %w: %w", p.at, ErrCorrupt, err)
			} else {
				p.out = out
			}
		}
		p.ready <- struct{}{}
	}
}

// stream decodes the large frame that begins in p as it comes. It reports whether
// there may be more.
func (r *Reader) stream(p *piece, h header) bool {
	rest := &frameRest{s: r.src, h: h, buf: p.src}
	at := p.at
	p.src = nil
	dec, err := zstd.NewReader(rest, zstd.WithDecoderConcurrency(min(r.workers, 2)), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(MaxWindow), zstd.WithDecodeBuffersBelow(0))
	if err != nil {
		r.emit(p, fmt.Errorf("read zstd frame at offset %d: %w: %w", at, ErrCorrupt, err))
		return false
	}
	defer dec.Close()
	for {
		if cap(p.buf) < streamChunk {
			p.buf = make([]byte, 0, streamChunk)
		}
		n, err := readFull(dec, p.buf[:streamChunk])
		p.out = p.buf[:n]
		if err != nil {
			dec.Close() // from here on nobody reads rest
		}
		switch {
		case err == nil:
		case rest.err != nil && !errors.Is(rest.err, io.EOF):
			err = fmt.Errorf("read zstd frame at offset %d: %w", at, rest.err)
		case !errors.Is(err, io.EOF):
			err = fmt.Errorf("read zstd frame at offset %d: %w: %w", at, ErrCorrupt, err)
		case rest.err == nil || len(rest.buf) > 0:
			err = fmt.Errorf("read zstd frame at offset %d: %w", at, ErrCorrupt)
		default:
			r.emit(p, nil)
			return true
		}
		r.emit(p, err)
		if err != nil {
			return false
		}
		if p = r.takePiece(); p == nil {
			return false
		}
	}
}

// readFull is io.ReadFull, but leaves io.EOF and io.ErrUnexpectedEOF apart.
func readFull(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var done int
		done, err = r.Read(p[n:])
		n += done
	}
	return n, err
}

// frameRest reads one frame of which a part was read already.
type frameRest struct {
	s   *scanner
	h   header
	buf []byte // not read yet
	mem []byte // what buf is in
	err error
}

// Read reads the bytes of the frame, up to its end.
func (f *frameRest) Read(p []byte) (int, error) {
	if len(f.buf) == 0 {
		if f.err != nil {
			return 0, f.err
		}
		var bl block
		if f.mem, bl, f.err = f.s.block(f.mem[:0], f.h); f.err != nil {
			return 0, f.err
		}
		if bl.last {
			f.err = io.EOF
		}
		f.buf = f.mem
	}
	n := copy(p, f.buf)
	f.buf = f.buf[n:]
	return n, nil
}
