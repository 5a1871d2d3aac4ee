package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	// maxHeader is the longest header of a frame, with its magic number.
	maxHeader   = 18
	blockHeader = 3
	// The magic numbers of skippable frames are 16 that differ in their last digit.
	skippable     = 0x184D2A50
	skippableMask = 0xFFFFFFF0
)

// header is what the header of a frame says: RFC 8878, section 3.1.1.1.
type header struct {
	size     int // of the header itself
	content  uint64
	known    bool // content is
	window   uint64
	checksum int  // bytes behind the last block: 0 or 4
	dict     bool // a dictionary is needed
}

// parseHeader reads the header at the start of b, which may be longer or cut off.
func parseHeader(b []byte) (header, error) {
	var h header
	if len(b) < 5 {
		return h, io.ErrUnexpectedEOF
	}
	if binary.LittleEndian.Uint32(b) != magic {
		return h, fmt.Errorf("%w: no frame begins here", ErrCorrupt)
	}
	d := b[4]
	if d&(1<<3) != 0 {
		return h, fmt.Errorf("%w: a reserved bit is set", ErrCorrupt)
	}
	single := d&(1<<5) != 0
	if d&(1<<2) != 0 {
		h.checksum = 4
	}
	dictLen := [4]int{0, 1, 2, 4}[d&3]
	contentLen := [4]int{0, 2, 4, 8}[d>>6]
	if contentLen == 0 && single {
		contentLen = 1
	}
	windowLen := 1
	if single {
		windowLen = 0
	}
	h.size = 5 + windowLen + dictLen + contentLen
	if len(b) < h.size {
		return h, io.ErrUnexpectedEOF
	}
	rest := b[5:h.size]
	if !single {
		base := uint64(1) << (10 + rest[0]>>3)
		h.window = base + base/8*uint64(rest[0]&7)
		rest = rest[1:]
	}
	for _, c := range rest[:dictLen] {
		h.dict = h.dict || c != 0
	}
	rest = rest[dictLen:]
	for i, c := range rest {
		h.content |= uint64(c) << (8 * i)
	}
	if contentLen == 2 {
		h.content += 256
	}
	if h.known = contentLen > 0; single {
		h.window = h.content
	}
	if h.dict {
		return h, fmt.Errorf("read zstd: dictionary: %w", errors.ErrUnsupported)
	}
	return h, nil
}

// block is what the header of a block says.
type block struct {
	last   bool
	stored int // bytes behind the header
	most   int // bytes that it can come to
}

func parseBlock(b []byte) (block, error) {
	v := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
	n := v >> 3
	bl := block{last: v&1 != 0, stored: n, most: n}
	switch v >> 1 & 3 {
	case 0: // raw
	case 1: // one byte, many times
		bl.stored = 1
	case 2: // compressed
		bl.most = maxBlock
	default:
		return bl, fmt.Errorf("%w: a block of reserved type", ErrCorrupt)
	}
	if n > maxBlock {
		return bl, fmt.Errorf("%w: a block of %d bytes", ErrCorrupt, n)
	}
	return bl, nil
}

// measure finds where the frame at the start of b ends, and how much it can come to.
func measure(b []byte, h header) (size, most int, err error) {
	for pos := h.size; ; {
		if len(b)-pos < blockHeader {
			return 0, 0, io.ErrUnexpectedEOF
		}
		bl, err := parseBlock(b[pos:])
		if err != nil {
			return 0, 0, err
		}
		pos += blockHeader
		if len(b)-pos < bl.stored {
			return 0, 0, io.ErrUnexpectedEOF
		}
		pos += bl.stored
		most += bl.most
		if bl.last {
			if len(b)-pos < h.checksum {
				return 0, 0, io.ErrUnexpectedEOF
			}
			return pos + h.checksum, most, nil
		}
	}
}
