package frame

import (
	"encoding/binary"

	"github.com/klauspost/compress/zstd"
)

const (
	magic = 0xFD2FB528
	// maxBlock is the most that a block of any frame holds.
	maxBlock = 128 << 10
	// sampleSize bytes in sampleSpots places of a frame tell whether it shrinks.
	sampleSize  = 64 << 10
	sampleSpots = 8
)

// shrinks reports whether a sample of raw compresses by 3 % or more. buf and out are
// scratch space.
func shrinks(enc *zstd.Encoder, raw, buf, out []byte) ([]byte, []byte, bool) {
	sample := raw
	if len(raw) > sampleSize {
		const piece = sampleSize / sampleSpots
		step := (len(raw) - piece) / (sampleSpots - 1)
		buf = buf[:0]
		for i := range sampleSpots {
			buf = append(buf, raw[i*step:][:piece]...)
		}
		sample = buf
	}
	out = enc.EncodeAll(sample, out[:0])
	return buf, out, len(out)*103 <= len(sample)*100
}

// rawFrame gives a frame of raw blocks in pieces: RFC 8878, section 3.1.1. The content is
// not copied; the headers between are in scratch, which is given back grown.
func rawFrame(pieces [][]byte, scratch, raw []byte) ([][]byte, []byte) {
	// Content size in 4 bytes, single segment, checksum.
	const descriptor = 2<<6 | 1<<5 | 1<<2
	// Pieces refer to scratch, so it must not move.
	if need := 9 + blockHeader*(len(raw)/maxBlock+1) + 4; cap(scratch) < need {
		scratch = make([]byte, 0, need)
	}
	b := binary.LittleEndian.AppendUint32(scratch[:0], magic)
	b = append(b, descriptor)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(raw)))
	sum := uint32(xxh64(raw))
	pieces = pieces[:0]
	from := 0
	for first := true; first || len(raw) > 0; first = false {
		n := min(len(raw), maxBlock)
		head := uint32(n) << 3 // type 0: raw
		if n == len(raw) {
			head |= 1 // the last one
		}
		b = append(b, byte(head), byte(head>>8), byte(head>>16))
		pieces = append(pieces, b[from:], raw[:n])
		from = len(b)
		raw = raw[n:]
	}
	b = binary.LittleEndian.AppendUint32(b, sum)
	return append(pieces, b[from:]), b
}
