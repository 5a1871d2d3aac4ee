package tarx

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// readBuffer is how much a Reader reads at once; larger reads of content go past it.
const readBuffer = 64 << 10

// maxExtras bounds the headers that may stand before that of an entry.
const maxExtras = 16

// Reader reads an archive. It reads ahead: what follows the trailer may be gone.
type Reader struct {
	r       *bufio.Reader
	pos     int64 // in the stream
	offset  int64 // where the headers of the current entry begin
	left    int64 // of the current entry's content
	padding int   // after it
	global  attrs
	records bytes.Buffer
	err     error
}

// NewReader reads an archive from r.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, readBuffer)}
}

// Offset is where in the stream the headers of the current entry begin; after the end
// that is where the trailer begins.
func (r *Reader) Offset() int64 { return r.offset }

// Next moves on to the next entry. It returns io.EOF at the trailer, and
// io.ErrUnexpectedEOF where the archive ends without one. All errors are final.
func (r *Reader) Next() (*Header, error) {
	if r.err != nil {
		return nil, r.err
	}
	h, err := r.next()
	if err != nil {
		if !errors.Is(err, io.EOF) {
			err = fmt.Errorf("read tar at offset %d: %w", r.offset, err)
		}
		r.err = err
		return nil, err
	}
	return h, nil
}

// Read reads the stored bytes of the current entry.
func (r *Reader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if r.err != nil {
		return 0, r.err
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.r.Read(p)
	r.pos += int64(n)
	r.left -= int64(n)
	if err != nil && r.left > 0 {
		r.err = fmt.Errorf("read tar at offset %d: %w", r.pos, cutOff(err))
		return n, r.err
	}
	return n, nil
}

// cutOff is err, where an end of the stream comes too early.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// discard skips n bytes.
func (r *Reader) discard(n int64) error {
	const most = 1 << 30 // Discard takes an int
	for n > 0 {
		done, err := r.r.Discard(int(min(n, most)))
		r.pos += int64(done)
		n -= int64(done)
		if err != nil {
			return cutOff(err)
		}
	}
	return nil
}

func readBlock(r *bufio.Reader, block *[blockSize]byte) error {
	if _, err := io.ReadFull(r, block[:]); err != nil {
		return cutOff(err)
	}
	return nil
}

// extras is what headers before that of an entry say.
type extras struct {
	*attrs
	longName, longLink *string // GNU format
	size               int64   // of all of it
	count              int
}

// next reads up to and with the header of the next entry.
func (r *Reader) next() (*Header, error) {
	if err := r.discard(r.left + int64(r.padding)); err != nil {
		r.left = 0
		return nil, err
	}
	r.left, r.padding = 0, 0
	r.offset = r.pos
	var block [blockSize]byte
	var ex extras
	for {
		if err := readBlock(r.r, &block); err != nil {
			return nil, err
		}
		r.pos += blockSize
		if block == zeroBlock {
			return nil, r.trailer(&ex)
		}
		if err := checkSum(&block); err != nil {
			return nil, err
		}
		switch block[fieldType] {
		case 'x', 'X', 'g', 'L', 'K':
			if err := r.extra(&block, &ex); err != nil {
				return nil, err
			}
			continue
		case 'V':
			// The label of a GNU archive.
			size, err := parseNumber(block[fieldSize : fieldSize+12])
			if err != nil || size != 0 || ex.count > 0 {
				return nil, fmt.Errorf("%w: label", ErrHeader)
			}
			r.offset = r.pos
			continue
		}
		if ex.attrs == nil {
			ex.attrs = r.global.clone()
		}
		return r.entry(&block, &ex)
	}
}

// trailer checks that a second block of zeros follows.
func (r *Reader) trailer(ex *extras) error {
	var block [blockSize]byte
	if ex.count > 0 {
		return fmt.Errorf("%w: records without an entry", ErrHeader)
	}
	if err := readBlock(r.r, &block); err != nil {
		return err
	}
	r.pos += blockSize
	if block != zeroBlock {
		return fmt.Errorf("%w: a single block of zeros", ErrHeader)
	}
	return io.EOF
}

// checkSum compares the checksum. Some old programs added signed bytes.
func checkSum(block *[blockSize]byte) error {
	want, err := parseNumber(block[fieldChecksum : fieldChecksum+8])
	if err != nil {
		return err
	}
	got := sum(block[:])
	for _, c := range block[fieldChecksum : fieldChecksum+8] {
		got += ' ' - int64(c)
	}
	if got == want {
		return nil
	}
	var signed int64
	for i, c := range block {
		if i >= fieldChecksum && i < fieldChecksum+8 {
			c = ' '
		}
		signed += int64(int8(c))
	}
	if signed != want {
		return fmt.Errorf("%w: checksum", ErrHeader)
	}
	return nil
}

// extra reads records or a long name.
func (r *Reader) extra(block *[blockSize]byte, ex *extras) error {
	size, err := parseNumber(block[fieldSize : fieldSize+12])
	if err != nil {
		return err
	}
	ex.count++
	if size < 0 || size > MaxRecords-ex.size || ex.count > maxExtras {
		return fmt.Errorf("%w: records of more than %d bytes", ErrHeader, MaxRecords)
	}
	ex.size += size
	// The buffer grows with what is there, not with what is claimed.
	r.records.Reset()
	n, err := io.CopyN(&r.records, r.r, size)
	if r.pos += n; err != nil {
		return cutOff(err)
	}
	if err := r.discard(int64(padding(size))); err != nil {
		return err
	}
	data := r.records.Bytes()
	switch block[fieldType] {
	case 'L', 'K':
		text := string(bytes.TrimRight(data, "\x00"))
		if text == "" || strings.IndexByte(text, 0) >= 0 {
			return fmt.Errorf("%w: long name", ErrHeader)
		}
		if block[fieldType] == 'L' {
			ex.longName = &text
		} else {
			ex.longLink = &text
		}
		return nil
	case 'g':
		ex.count-- // it may stand at the very end, and is no part of an entry
		return r.setGlobal(data)
	}
	if ex.attrs == nil {
		ex.attrs = r.global.clone()
	}
	return ex.add(data)
}

// setGlobal takes in records that hold for all that follows. What makes no sense for
// more than one entry is dropped, and with it the chance to pile up memory.
func (r *Reader) setGlobal(data []byte) error {
	g := r.global.clone()
	if err := g.add(data); err != nil {
		return err
	}
	r.global = attrs{size: nil, uid: g.uid, gid: g.gid, mtime: g.mtime, xattrs: g.xattrs}
	var n int
	for name, value := range g.xattrs {
		n += len(name) + len(value)
	}
	if n > MaxXattr {
		return fmt.Errorf("%w: global attributes of more than %d bytes", ErrHeader, MaxXattr)
	}
	return nil
}
