package frame_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/dentropy/dentropycloud/backup/frame"
)

// sinks keeps segments in memory, and counts what is open.
type sinks struct {
	bufs []*bytes.Buffer
	open int
}

func (s *sinks) create(n int) (io.WriteCloser, error) {
	if n != len(s.bufs) {
		return nil, fmt.Errorf("segment %d after %d", n, len(s.bufs)-1)
	}
	if s.open != 0 {
		return nil, errors.New("two segments are open")
	}
	s.open++
	s.bufs = append(s.bufs, new(bytes.Buffer))
	return &sink{s, s.bufs[n]}, nil
}

type sink struct {
	all *sinks
	*bytes.Buffer
}

func (s *sink) Close() error {
	s.all.open--
	return nil
}

func (s *sinks) all() []byte {
	var b []byte
	for _, buf := range s.bufs {
		b = append(b, buf.Bytes()...)
	}
	return b
}

func unpack(r io.Reader, workers int) ([]byte, error) {
	rd := frame.NewReader(r, workers)
	defer rd.Close()
	return io.ReadAll(rd)
}

func TestRoundTrip(t *testing.T) {
	for _, kind := range kinds {
		sizes := []int{0, 1, 1000, frame.FrameSize - 1, frame.FrameSize + 1}
		if kind.name == "Zeros" { // the fastest
			sizes = append(sizes, frame.FrameSize, frame.SegmentSize, frame.SegmentSize+5<<20)
		}
		all := kind.make(sizes[len(sizes)-1])
		for _, size := range sizes {
			t.Run(fmt.Sprintf("%s/%d", kind.name, size), func(t *testing.T) {
				data := all[:size]
				var s sinks
				w, err := frame.NewWriter(frame.Options{Workers: 3, Create: s.create})
				if err != nil {
					t.Fatal(err)
				}
				if n, err := w.Write(data); n != len(data) || err != nil {
					t.Fatalf("Write = %d, %v, want %d", n, err, len(data))
				}
				if w.Offset() != int64(size) {
					t.Errorf("Offset = %d, want %d", w.Offset(), size)
				}
				segments, err := w.Close()
				if err != nil {
					t.Fatal(err)
				}
				if s.open != 0 {
					t.Error("a segment is still open")
				}
				checkSegments(t, data, segments, s.bufs)
				for _, workers := range []int{1, 2} {
					got, err := unpack(bytes.NewReader(s.all()), workers)
					if err != nil || !bytes.Equal(got, data) {
						t.Errorf("with %d workers %d bytes come back, %v, want %d", workers, len(got), err, len(data))
					}
				}
			})
		}
	}
}

// checkSegments checks sizes and hashes, and decodes each frame alone.
func checkSegments(t *testing.T, data []byte, segments []frame.Segment, bufs []*bytes.Buffer) {
	t.Helper()
	if want := (len(data) + frame.SegmentSize - 1) / frame.SegmentSize; len(segments) != want || len(bufs) != want {
		t.Fatalf("%d segments in %d sinks, want %d", len(segments), len(bufs), want)
	}
	for i, seg := range segments {
		packed := bufs[i].Bytes()
		if seg.SHA256 != sha256.Sum256(packed) || seg.Size != int64(len(packed)) {
			t.Errorf("segment %d has other bytes than its hash and size of %d say", i, seg.Size)
		}
		if i < len(segments)-1 && seg.Raw != frame.SegmentSize {
			t.Errorf("segment %d holds %d bytes, want %d", i, seg.Raw, frame.SegmentSize)
		}
		raw := data[i*frame.SegmentSize:][:seg.Raw]
		var sum int64
		for k, f := range seg.Frames {
			if sum += f.Size; k < len(seg.Frames)-1 && f.Raw != frame.FrameSize {
				t.Errorf("frame %d of segment %d holds %d bytes, want %d", k, i, f.Raw, frame.FrameSize)
			}
			got, err := frame.DecodeFrame([]byte("before"), packed[:f.Size], frame.FrameSize)
			if err != nil || !bytes.Equal(got[6:], raw[:f.Raw]) || string(got[:6]) != "before" {
				t.Errorf("DecodeFrame of frame %d of segment %d: %v, or other bytes", k, i, err)
			}
			if _, err := frame.DecodeFrame(nil, packed[:f.Size], int(f.Raw)-1); !errors.Is(err, frame.ErrCorrupt) {
				t.Errorf("DecodeFrame of more than the limit = %v, want ErrCorrupt", err)
			}
			packed, raw = packed[f.Size:], raw[f.Raw:]
		}
		if sum != seg.Size || len(raw) != 0 {
			t.Errorf("frames of segment %d do not come to its sizes", i)
		}
	}
}

func TestLevels(t *testing.T) {
	data := text(5 << 20)
	size := int64(len(data))
	for _, level := range []frame.Level{frame.Fastest, frame.Normal, frame.Better} {
		var s sinks
		w, err := frame.NewWriter(frame.Options{Level: level, Create: s.create})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(w, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		segments, err := w.Close()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := unpack(bytes.NewReader(s.all()), 0); err != nil || !bytes.Equal(got, data) {
			t.Errorf("level %d does not come back: %v", level, err)
		}
		if segments[0].Size >= size {
			t.Errorf("level %d gives %d bytes, want less than %d", level, segments[0].Size, size)
		}
		size = segments[0].Size
	}
}

// TestIncompressible makes sure that what does not shrink costs next to nothing.
func TestIncompressible(t *testing.T) {
	const size = 2*frame.FrameSize + 12345
	data := noise(size)
	if packed := pack(t, data); len(packed) > size+3*(3*33+13) {
		t.Errorf("%d bytes became %d", size, len(packed))
	}
	// A small part that shrinks is not worth it, a large one is.
	copy(data[frame.FrameSize/2:], make([]byte, frame.FrameSize/2))
	if packed := pack(t, data); len(packed) > size-frame.FrameSize/2+4096 {
		t.Errorf("%d bytes, half a frame of them zeros, became %d", size, len(packed))
	}
}

func TestBuffer(t *testing.T) {
	data := text(frame.FrameSize + 100)
	var s sinks
	w, err := frame.NewWriter(frame.Options{Create: s.create})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for rest := data; len(rest) > 0; {
		buf, err := w.Buffer()
		if err != nil || len(buf) == 0 {
			t.Fatalf("Buffer = %d bytes, %v", len(buf), err)
		}
		n := copy(buf, rest[:min(len(rest), rng.IntN(1<<20))])
		if err := w.Commit(n); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.Commit(frame.FrameSize); err == nil {
		t.Error("Commit of more than there is room for gave no error")
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := unpack(bytes.NewReader(s.all()), 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes come back, %v, want %d", len(got), err, len(data))
	}
	if _, err := w.Buffer(); err == nil {
		t.Error("Buffer after Close gave no error")
	}
	if n, err := w.Write([]byte("x")); err == nil || n != 0 {
		t.Errorf("Write after Close = %d, %v, want an error", n, err)
	}
}

var errSink = errors.New("disk is full")

// badSink fails in one of its ways.
type badSink struct {
	left  int // bytes until it fails
	short bool
	close error
}

func (s *badSink) Write(p []byte) (int, error) {
	if s.left -= len(p); s.left >= 0 {
		return len(p), nil
	}
	if s.short {
		return len(p) - 1, nil
	}
	return 0, errSink
}

func (s *badSink) Close() error { return s.close }

// TestSinkFails checks that a bad sink ends the writer soon, with its error, and that
// nothing is left behind.
func TestSinkFails(t *testing.T) {
	const plenty = 1 << 40
	tests := []struct {
		name   string
		create func(n int) (io.WriteCloser, error)
		want   error
	}{
		{"create", func(int) (io.WriteCloser, error) { return nil, errSink }, errSink},
		{"second create", func(n int) (io.WriteCloser, error) {
			if n == 1 {
				return nil, errSink
			}
			return &badSink{left: plenty}, nil
		}, errSink},
		{"write", func(int) (io.WriteCloser, error) { return &badSink{left: 10 << 20}, nil }, errSink},
		{"short write", func(int) (io.WriteCloser, error) { return &badSink{left: 10 << 20, short: true}, nil }, io.ErrShortWrite},
		{"close", func(int) (io.WriteCloser, error) { return &badSink{left: plenty, close: errSink}, nil }, errSink},
	}
	data := noise(1 << 20)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, err := frame.NewWriter(frame.Options{Workers: 2, Create: tt.create})
				if err != nil {
					t.Fatal(err)
				}
				for err == nil && w.Offset() < 2*frame.SegmentSize {
					_, err = w.Write(data)
				}
				if !errors.Is(err, tt.want) {
					t.Errorf("Write = %v after %d bytes, want %v", err, w.Offset(), tt.want)
				}
				if segments, err := w.Close(); !errors.Is(err, tt.want) || segments != nil {
					t.Errorf("Close = %d segments, %v, want %v", len(segments), err, tt.want)
				}
			})
		})
	}
	t.Run("close of the last", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, err := frame.NewWriter(frame.Options{Create: func(int) (io.WriteCloser, error) { return &badSink{left: plenty, close: errSink}, nil }})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(data); err != nil {
				t.Fatal(err)
			}
			if segments, err := w.Close(); !errors.Is(err, errSink) || segments != nil {
				t.Errorf("Close = %d segments, %v, want %v", len(segments), err, errSink)
			}
		})
	})
}

// gate is a sink that waits.
type gate chan struct{}

func (g gate) Write(p []byte) (int, error) {
	<-g
	return len(p), nil
}

func (gate) Close() error { return nil }

// TestWriterIsBounded writes to a sink that does not move, and cancels.
func TestWriterIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers = 2
		g := make(gate)
		w, err := frame.NewWriter(frame.Options{Workers: workers, Create: func(int) (io.WriteCloser, error) { return g, nil }})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			_, err := w.ReadFrom(zeros{})
			done <- err
		}()
		synctest.Wait()
		if got, most := w.Offset(), int64(2*workers+2)*frame.FrameSize; got > most {
			t.Errorf("%d bytes are on their way, want at most %d", got, most)
		}
		w.Cancel(errSink)
		if err := <-done; !errors.Is(err, errSink) {
			t.Errorf("ReadFrom after Cancel = %v, want %v", err, errSink)
		}
		close(g)
		if segments, err := w.Close(); !errors.Is(err, errSink) || segments != nil {
			t.Errorf("Close after Cancel = %d segments, %v, want %v", len(segments), err, errSink)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sinks
		w, err := frame.NewWriter(frame.Options{Workers: 2, Create: s.create})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(text(20 << 20)); err != nil {
			t.Fatal(err)
		}
		w.Abort()
		w.Abort()
		if s.open != 0 {
			t.Error("a segment is still open")
		}
		if segments, err := w.Close(); err == nil || segments != nil {
			t.Errorf("Close after Abort = %d segments, %v, want an error", len(segments), err)
		}
	})
}

func TestReadFromFails(t *testing.T) {
	w, err := frame.NewWriter(frame.Options{Create: new(sinks).create})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if n, err := w.ReadFrom(io.MultiReader(bytes.NewReader([]byte("abc")), iotest.ErrReader(errSink))); n != 3 || !errors.Is(err, errSink) {
		t.Errorf("ReadFrom = %d, %v, want 3, %v", n, err, errSink)
	}
}
