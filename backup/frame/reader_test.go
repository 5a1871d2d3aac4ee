package frame_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/klauspost/compress/zstd"

	"github.com/dentropy/dentropycloud/backup/frame"
)

// zframe makes a frame by hand: its header behind the magic number, blocks, a checksum.
func zframe(head string, parts ...[]byte) []byte {
	return append([]byte("\x28\xb5\x2f\xfd"+head), bytes.Join(parts, nil)...)
}

// The kinds of blocks.
const (
	raw        = 0
	rle        = 1
	compressed = 2
	reserved   = 3
)

func block(kind, size int, last bool, content string) []byte {
	v := uint32(kind)<<1 | uint32(size)<<3
	if last {
		v |= 1
	}
	return append([]byte{byte(v), byte(v >> 8), byte(v >> 16)}, content...)
}

func skippable(content string) []byte {
	b := binary.LittleEndian.AppendUint32([]byte("\x53\x2a\x4d\x18"), uint32(len(content)))
	return append(b, content...)
}

// small is a frame that holds "abc", with a window and without a size.
func small() []byte { return zframe("\x00\x50", block(raw, 3, true, "abc")) }

func TestReaderAccepts(t *testing.T) {
	tests := map[string]struct {
		stream []byte
		want   string
	}{
		"nothing":           {nil, ""},
		"one":               {small(), "abc"},
		"size of one byte":  {zframe("\x20\x03", block(raw, 3, true, "abc")), "abc"},
		"several":           {bytes.Join([][]byte{small(), small(), small()}, nil), "abcabcabc"},
		"skippable":         {bytes.Join([][]byte{skippable("xyz"), small(), skippable(""), skippable(strings.Repeat("x", 1<<20)), small()}, nil), "abcabc"},
		"skippable only":    {skippable("xyz"), ""},
		"empty frame":       {bytes.Join([][]byte{zframe("\x20\x00", block(raw, 0, true, "")), small()}, nil), "abc"},
		"many blocks":       {zframe("\x00\x50", bytes.Repeat(block(raw, 1, false, "x"), 1000), block(rle, 5, true, "y")), strings.Repeat("x", 1000) + "yyyyy"},
		"dictionary 0":      {zframe("\x01\x50\x00", block(raw, 3, true, "abc")), "abc"},
		"window of 128 MiB": {zframe("\x00\x88", block(raw, 3, true, "abc")), "abc"},
		"repeated, large":   {zframe("\x00\x50", bytes.Repeat(block(rle, 128<<10, false, "z"), 100), block(raw, 0, true, "")), strings.Repeat("z", 100*128<<10)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, r := range []io.Reader{bytes.NewReader(tt.stream), iotest.OneByteReader(bytes.NewReader(tt.stream)), iotest.DataErrReader(bytes.NewReader(tt.stream))} {
				if got, err := unpack(r, 2); string(got) != tt.want || err != nil {
					t.Errorf("%d bytes, %v, want %d", len(got), err, len(tt.want))
				}
			}
			var out bytes.Buffer
			rd := frame.NewReader(bytes.NewReader(tt.stream), 1)
			defer rd.Close()
			if n, err := io.Copy(&out, rd); n != int64(len(tt.want)) || err != nil || out.String() != tt.want {
				t.Errorf("Copy = %d, %v, want %d", n, err, len(tt.want))
			}
		})
	}
}

func TestReaderRefuses(t *testing.T) {
	ours := pack(t, []byte("some text, some text, some text, some text"))
	flipped := bytes.Clone(ours)
	flipped[len(flipped)-1] ^= 1
	tests := []struct {
		name   string
		stream []byte
		want   error
		offset string
	}{
		{"no magic number", []byte("this is no zstd"), frame.ErrCorrupt, "offset 0"},
		{"rubbish behind", append(small(), "this is no zstd"...), frame.ErrCorrupt, "offset 12"},
		{"short rubbish behind", append(small(), "x"...), io.ErrUnexpectedEOF, "offset 12"},
		{"reserved bit", zframe("\x08\x50", block(raw, 3, true, "abc")), frame.ErrCorrupt, "offset 0"},
		{"reserved block", zframe("\x00\x50", block(reserved, 3, true, "abc")), frame.ErrCorrupt, "offset 0"},
		{"large block", zframe("\x00\x50", block(raw, 128<<10+1, true, strings.Repeat("x", 128<<10+1))), frame.ErrCorrupt, "offset 0"},
		{"no compressed block", zframe("\x00\x50", block(compressed, 10, true, "aaaaaaaaaa")), frame.ErrCorrupt, "offset 0"},
		{"more than it says", zframe("\x20\x02", block(raw, 3, true, "abc")), frame.ErrCorrupt, "offset 0"},
		{"less than it says", zframe("\x20\x04", block(raw, 3, true, "abc")), frame.ErrCorrupt, "offset 0"},
		{"much less than it says", zframe("\xe0\xff\xff\xff\xff\xff\xff\xff\x0f", block(raw, 3, true, "abc")), errors.ErrUnsupported, "offset 0"},
		{"somewhat less than it says", zframe("\xa0\x00\x00\x00\x01", block(raw, 3, true, "abc")), frame.ErrCorrupt, "offset 0"},
		{"dictionary", zframe("\x01\x50\x07", block(raw, 3, true, "abc")), errors.ErrUnsupported, "offset 0"},
		{"huge window", zframe("\x00\xff", block(raw, 3, true, "abc")), errors.ErrUnsupported, "offset 0"},
		{"checksum", append(small(), flipped...), frame.ErrCorrupt, "offset 12"},
		{"skippable cut off", append(small(), skippable("abc")[:10]...), io.ErrUnexpectedEOF, "offset"},
		{"large and corrupt", zframe("\x00\x50", bytes.Repeat(block(rle, 128<<10, false, "z"), 100), block(reserved, 0, true, "")), frame.ErrCorrupt, "offset 0"},
		{"large and cut off", zframe("\x00\x50", bytes.Repeat(block(rle, 128<<10, false, "z"), 100)), io.ErrUnexpectedEOF, "offset 0"},
		{"large with a bad checksum", zframe("\x04\x50", bytes.Repeat(block(rle, 128<<10, false, "z"), 100), block(raw, 0, true, "abcd")), frame.ErrCorrupt, "offset 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, workers := range []int{1, 2} {
				synctest.Test(t, func(t *testing.T) {
					_, err := unpack(bytes.NewReader(tt.stream), workers)
					if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.offset) {
						t.Errorf("error %v, want %v at %s", err, tt.want, tt.offset)
					}
				})
			}
		})
	}
}

// TestReaderCutOff cuts a stream of several frames everywhere. Between two frames it
// looks complete.
func TestReaderCutOff(t *testing.T) {
	stream := bytes.Join([][]byte{small(), pack(t, text(1000)), skippable("x"), zframe("\x20\x03", block(raw, 1, false, "a"), block(rle, 2, true, "b"))}, nil)
	whole, err := unpack(bytes.NewReader(stream), 2)
	if err != nil {
		t.Fatal(err)
	}
	complete := 0
	for n := range len(stream) {
		got, err := unpack(bytes.NewReader(stream[:n]), 2)
		if err == nil {
			complete++
		} else if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the first %d bytes: %v, want ErrUnexpectedEOF", n, err)
		}
		if !bytes.HasPrefix(whole, got) {
			t.Errorf("the first %d bytes gave other content", n)
		}
	}
	if complete != 4 {
		t.Errorf("%d cuts look complete, want the 4 between frames", complete)
	}
}

// TestReaderFlipped flips each bit of what we write: none goes unnoticed.
func TestReaderFlipped(t *testing.T) {
	for _, data := range [][]byte{noise(200), text(200)} {
		stream := pack(t, data)
		for i := range len(stream) * 8 {
			bad := bytes.Clone(stream)
			bad[i/8] ^= 1 << (i % 8)
			got, err := unpack(bytes.NewReader(bad), 1)
			// Some bits of the magic number make it that of a skippable frame, and the
			// whole stream one that is cut off.
			if err == nil && !bytes.Equal(got, data) {
				t.Errorf("bit %d flipped: other content without an error", i)
			}
			if err != nil && !errors.Is(err, frame.ErrCorrupt) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("bit %d flipped: untyped error %v", i, err)
			}
		}
	}
}

func TestReaderSourceFails(t *testing.T) {
	large := zframe("\x00\x50", bytes.Repeat(block(rle, 128<<10, false, "z"), 100))
	for name, stream := range map[string][]byte{"at the start": nil, "between": small(), "within": small()[:8], "within a large one": large} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, err := unpack(io.MultiReader(bytes.NewReader(stream), iotest.ErrReader(errSink)), 2)
				if !errors.Is(err, errSink) || errors.Is(err, frame.ErrCorrupt) {
					t.Errorf("error %v, want %v", err, errSink)
				}
			})
		})
	}
}

// TestReaderClose closes in the middle, of small frames and of a large one.
func TestReaderClose(t *testing.T) {
	large := zframe("\x00\x50", bytes.Repeat(block(rle, 128<<10, false, "z"), 1000), block(raw, 0, true, ""))
	for name, stream := range map[string][]byte{"frames": bytes.Repeat(small(), 1000), "one large": large, "unread": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := frame.NewReader(bytes.NewReader(stream), 2)
				if stream != nil {
					if _, err := io.ReadFull(r, make([]byte, 5)); err != nil {
						t.Fatal(err)
					}
				}
				if err := errors.Join(r.Close(), r.Close()); err != nil {
					t.Errorf("Close = %v", err)
				}
				if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, io.EOF) {
					t.Errorf("Read after Close = %d, %v, want an error", n, err)
				}
			})
		})
	}
}

// TestReaderIsBounded reads a bomb, with a consumer that takes little of it.
func TestReaderIsBounded(t *testing.T) {
	bombs := map[string][]byte{
		"one frame":    zframe("\x00\x88", bytes.Repeat(block(rle, 128<<10, false, "z"), 1<<18), block(raw, 0, true, "")), // 32 GiB
		"known size":   zframe("\xe0\x00\x00\x00\x08\x00\x00\x00\x00", bytes.Repeat(block(rle, 128<<10, false, "z"), 1<<10), block(raw, 0, true, "")),
		"small frames": bytes.Repeat(zframe("\x00\x50", bytes.Repeat(block(rle, 128<<10, false, "z"), 63), block(raw, 0, true, "")), 10000),
	}
	for name, stream := range bombs {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r := frame.NewReader(bytes.NewReader(stream), 2)
			if n, err := io.CopyN(io.Discard, r, 64<<20); err != nil {
				t.Fatalf("read %d bytes, %v", n, err)
			}
			runtime.ReadMemStats(&after)
			r.Close()
			if n := after.TotalAlloc - before.TotalAlloc; n > 200<<20 {
				t.Errorf("a stream of %d bytes took %d MiB of memory", len(stream), n>>20)
			}
		})
	}
}

func TestDecodeFrame(t *testing.T) {
	tests := []struct {
		name  string
		frame []byte
		most  int
		want  string
		err   error
	}{
		{"plain", small(), 3, "abc", nil},
		{"with a limit that is not reached", small(), 1 << 20, "abc", nil},
		{"too long, size unknown", small(), 2, "", frame.ErrCorrupt},
		{"too long, size known", zframe("\x20\x03", block(raw, 3, true, "abc")), 2, "", frame.ErrCorrupt},
		{"more than it says", zframe("\x20\x02", block(raw, 3, true, "abc")), 5, "", frame.ErrCorrupt},
		{"two frames", append(small(), small()...), 6, "", frame.ErrCorrupt},
		{"cut off", small()[:10], 6, "", io.ErrUnexpectedEOF},
		{"header cut off", small()[:5], 6, "", io.ErrUnexpectedEOF},
		{"empty", nil, 6, "", io.ErrUnexpectedEOF},
		{"bomb", zframe("\x00\x50", bytes.Repeat(block(rle, 128<<10, false, "z"), 1<<16), block(raw, 0, true, "")), 1 << 20, "", frame.ErrCorrupt},
		{"size unknown, fits", zframe("\x00\x50", bytes.Repeat(block(compressed, 0, false, ""), 0), block(rle, 100, true, "z")), 100, strings.Repeat("z", 100), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := frame.DecodeFrame(nil, tt.frame, tt.most)
			if string(got) != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("DecodeFrame = %q, %v, want %q, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

// FuzzReader compares with a decoder that knows nothing of frames beside each other.
func FuzzReader(f *testing.F) {
	f.Add(small())
	f.Add(pack(f, text(300)))
	f.Add(pack(f, noise(300)))
	f.Add(append(skippable("abc"), small()...))
	f.Add(zframe("\x00\x50", bytes.Repeat(block(rle, 128<<10, false, "z"), 70), block(raw, 0, true, "")))
	f.Add(zframe("\xe0\x00\x00\x00\x08\x00\x00\x00\x00", bytes.Repeat(block(rle, 128<<10, false, "z"), 9), block(raw, 0, true, "")))
	f.Fuzz(func(t *testing.T, stream []byte) {
		const most = 32 << 20
		r := frame.NewReader(bytes.NewReader(stream), 2)
		defer r.Close()
		got, err := io.ReadAll(io.LimitReader(r, most))
		if err != nil {
			if !errors.Is(err, frame.ErrCorrupt) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, errors.ErrUnsupported) {
				t.Fatalf("untyped error: %v", err)
			}
			return
		}
		ref, err := zstd.NewReader(bytes.NewReader(stream), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(frame.MaxWindow))
		if err != nil {
			t.Fatal(err)
		}
		defer ref.Close()
		want, err := io.ReadAll(io.LimitReader(ref, most))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, the other decoder gives %d, %v", len(got), len(want), err)
		}
		if one, err := frame.DecodeFrame(nil, stream, most); err == nil && !bytes.Equal(one, want) {
			t.Fatalf("DecodeFrame gives %d other bytes", len(one))
		}
	})
}
