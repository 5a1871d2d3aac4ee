package frame

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// The shape of a stream.
const (
	// FrameSize is how much of the stream is in one frame: enough that compressing it
	// alone costs next to nothing in ratio, little enough for random access and for
	// a buffer per worker.
	FrameSize = 4 << 20
	// SegmentFrames is how many frames make a segment.
	SegmentFrames = 16
	// SegmentSize is how much of the stream is in one segment.
	SegmentSize = FrameSize * SegmentFrames
)

// ErrCorrupt says that what was read is no valid zstd.
var ErrCorrupt = errors.New("corrupt zstd data")

// Segment is one run of frames, as it was given to a sink.
type Segment struct {
	Size   int64    // compressed
	Raw    int64    // of the stream
	SHA256 [32]byte // of the compressed bytes
	Frames []Frame
}

// Frame is one zstd frame.
type Frame struct {
	Size int64 // compressed
	Raw  int64 // of the stream
}

// DecodeFrame appends to dst what the one frame in src holds, which must be at most
// maxRaw bytes.
func DecodeFrame(dst, src []byte, maxRaw int) ([]byte, error) {
	h, err := parseHeader(src)
	if err != nil {
		return dst, err
	}
	size, most, err := measure(src, h)
	switch {
	case err != nil:
		return dst, err
	case size != len(src):
		return dst, fmt.Errorf("%w: %d bytes behind the frame", ErrCorrupt, len(src)-size)
	case h.known && h.content > uint64(maxRaw):
		return dst, fmt.Errorf("%w: a frame of %d bytes where at most %d may be", ErrCorrupt, h.content, maxRaw)
	case !h.known && most > maxRaw:
		return decodeCapped(dst, src, maxRaw)
	}
	out, err := zstd.DecodeTo(dst, src)
	if err != nil {
		return dst, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return out, nil
}

// decodeCapped decodes a frame that does not say how much it holds.
func decodeCapped(dst, src []byte, maxRaw int) ([]byte, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return dst, fmt.Errorf("make zstd decoder: %w", err)
	}
	defer dec.Close()
	buf := make([]byte, len(dst), len(dst)+maxRaw)
	copy(buf, dst)
	out, err := dec.DecodeAll(src, buf)
	if err != nil {
		return dst, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return out, nil
}
