package frame

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Level says how hard to compress.
type Level int

// The levels, roughly zstd's 1, 3 and 7.
const (
	Fastest Level = iota
	Normal
	Better
)

// MaxWorkers bounds what Options.Workers asks for: from there on hashing and
// writing are slower than compressing.
const MaxWorkers = 8

// Options of a Writer.
type Options struct {
	// Level to compress with. Default: Fastest.
	Level Level
	// Workers is how many frames are compressed at a time, at most MaxWorkers. Default:
	// as many as the program may use processors.
	Workers int
	// Create gives where the bytes of segment n go; it is called for 0, 1, 2, … in turn,
	// each once the last one is closed. Create and what it returns are used by one
	// goroutine at a time, another than that which writes.
	Create func(n int) (io.WriteCloser, error)
}

// Aborter is a sink that is told so, instead of being closed, where not all comes that
// should have.
type Aborter interface{ Abort() }

// errAborted ends a writer that is of no more use.
var errAborted = errors.New("writing was aborted")

// Writer compresses a stream. Its methods are for one goroutine, but for Cancel. It must
// be ended by Close or Abort.
type Writer struct {
	create func(n int) (io.WriteCloser, error)
	enc    *zstd.Encoder
	sample *zstd.Encoder

	cur    *job // is being filled
	offset int64
	ended  bool

	free  chan *job
	work  chan *job
	order chan *job
	hash  chan *job
	wg    sync.WaitGroup

	stop    chan struct{} // closed at the first error
	failing sync.Once
	err     error // set before stop is closed

	segments []Segment // the hasher's until wg is done
}

// job is one frame on its way.
type job struct {
	raw   []byte // FrameSize, made at first use
	n     int    // of raw is filled
	out   []byte
	parts [][]byte      // what is written: out, or headers in out and raw between
	size  int64         // of parts
	ready chan struct{} // one slot
}

// NewWriter makes a writer and starts its workers.
func NewWriter(opts Options) (*Writer, error) {
	workers := opts.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	workers = min(workers, MaxWorkers)
	level := zstd.SpeedFastest
	switch opts.Level {
	case Normal:
		level = zstd.SpeedDefault
	case Better:
		level = zstd.SpeedBetterCompression
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(workers),
		zstd.WithWindowSize(FrameSize), zstd.WithLowerEncoderMem(true), zstd.WithAllLitEntropyCompression(true))
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	sample, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(workers),
		zstd.WithWindowSize(sampleSize), zstd.WithLowerEncoderMem(true), zstd.WithAllLitEntropyCompression(true), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	jobs := 2*workers + 2
	w := &Writer{
		create: opts.Create,
		enc:    enc,
		sample: sample,
		free:   make(chan *job, jobs),
		work:   make(chan *job, jobs),
		order:  make(chan *job, jobs),
		hash:   make(chan *job, jobs),
		stop:   make(chan struct{}),
	}
	for range jobs {
		w.free <- &job{ready: make(chan struct{}, 1)}
	}
	for range workers {
		w.wg.Go(w.compress)
	}
	w.wg.Go(w.sink)
	w.wg.Go(w.sum)
	return w, nil
}

// Offset is how much of the stream was written so far.
func (w *Writer) Offset() int64 { return w.offset }

// Buffer gives the free part of the frame that is being filled, never empty: what is put
// at its start is written by Commit. It waits for a buffer where all are in use.
func (w *Writer) Buffer() ([]byte, error) {
	if w.ended {
		return nil, errAborted
	}
	select {
	case <-w.stop:
		return nil, w.err
	default:
	}
	if w.cur == nil {
		select {
		case <-w.stop:
			return nil, w.err
		case w.cur = <-w.free:
		}
		if w.cur.raw == nil {
			w.cur.raw = make([]byte, FrameSize)
		}
		w.cur.n = 0
	}
	return w.cur.raw[w.cur.n:], nil
}

// Commit writes the first n bytes of what Buffer gave.
func (w *Writer) Commit(n int) error {
	if n == 0 {
		return nil
	}
	if w.ended || w.cur == nil || n < 0 || n > len(w.cur.raw)-w.cur.n {
		return fmt.Errorf("commit %d bytes without a buffer for them", n)
	}
	w.cur.n += n
	w.offset += int64(n)
	if w.cur.n == len(w.cur.raw) {
		w.dispatch()
	}
	return nil
}

// dispatch sends the current frame on its way. There is room in both channels for every
// job that exists.
func (w *Writer) dispatch() {
	w.order <- w.cur
	w.work <- w.cur
	w.cur = nil
}

// Write writes p.
func (w *Writer) Write(p []byte) (n int, err error) {
	for n < len(p) {
		buf, err := w.Buffer()
		if err != nil {
			return n, err
		}
		done := copy(buf, p[n:])
		if err := w.Commit(done); err != nil {
			return n, err
		}
		n += done
	}
	return n, nil
}

// ReadFrom writes all of r, without a copy.
func (w *Writer) ReadFrom(r io.Reader) (n int64, err error) {
	for {
		buf, err := w.Buffer()
		if err != nil {
			return n, err
		}
		done, err := r.Read(buf)
		n += int64(done)
		if err := w.Commit(done); err != nil {
			return n, err
		}
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// Close writes what is left and waits until all of it is in the sinks. It returns the
// segments, or the first error that there was.
func (w *Writer) Close() ([]Segment, error) {
	w.end()
	select {
	case <-w.stop:
		return nil, w.err
	default:
		return w.segments, nil
	}
}

// Cancel makes the writer fail with err from now on, unless it has failed already. It
// does not wait, and is the one method that any goroutine may call at any time.
func (w *Writer) Cancel(err error) { w.fail(err) }

// Abort ends the writer and waits for its goroutines. The sink that is open is closed.
func (w *Writer) Abort() {
	w.fail(errAborted)
	w.end()
}

func (w *Writer) end() {
	if w.ended {
		return
	}
	w.ended = true
	if w.cur != nil && w.cur.n > 0 {
		w.dispatch()
	}
	close(w.work)
	close(w.order)
	w.wg.Wait()
	// Buffers live as long as the writer is held, and it is held for its segments.
	w.cur, w.enc, w.sample, w.free = nil, nil, nil, nil
}

// fail notes the first error and stops everything.
func (w *Writer) fail(err error) {
	w.failing.Do(func() {
		w.err = err
		close(w.stop)
	})
}

// failed reports whether there was an error.
func (w *Writer) failed() bool {
	select {
	case <-w.stop:
		return true
	default:
		return false
	}
}

// compress is a worker.
func (w *Writer) compress() {
	buf := make([]byte, 0, sampleSize)
	var out []byte
	for j := range w.work {
		if !w.failed() {
			raw := j.raw[:j.n]
			var worth bool
			if buf, out, worth = shrinks(w.sample, raw, buf, out); worth {
				if cap(j.out) == 0 {
					j.out = make([]byte, 0, len(raw)/2)
				}
				j.out = w.enc.EncodeAll(raw, j.out[:0])
				j.parts = append(j.parts[:0], j.out)
			} else {
				j.parts, j.out = rawFrame(j.parts, j.out, raw)
			}
		}
		j.ready <- struct{}{}
	}
}

// sink writes frames in order.
func (w *Writer) sink() {
	defer close(w.hash)
	var out io.WriteCloser
	closeSink := func() {
		if out == nil {
			return
		}
		if a, ok := out.(Aborter); ok && w.failed() {
			a.Abort()
		} else if err := out.Close(); err != nil {
			w.fail(fmt.Errorf("close segment: %w", err))
		}
		out = nil
	}
	defer closeSink()
	frames := 0
	for j := range w.order {
		<-j.ready
		if w.failed() {
			closeSink()
			w.free <- j
			continue
		}
		if frames%SegmentFrames == 0 {
			if closeSink(); w.failed() {
				w.free <- j
				continue
			}
			var err error
			if out, err = w.create(frames / SegmentFrames); err != nil {
				out = nil
				w.fail(fmt.Errorf("create segment: %w", err))
				w.free <- j
				continue
			}
		}
		frames++
		if err := j.write(out); err != nil {
			w.fail(fmt.Errorf("write segment: %w", err))
		}
		w.hash <- j
	}
}

// write writes the frame to a sink.
func (j *job) write(out io.Writer) error {
	j.size = 0
	for _, part := range j.parts {
		n, err := out.Write(part)
		if err != nil {
			return err
		}
		if n != len(part) {
			return io.ErrShortWrite
		}
		j.size += int64(n)
	}
	return nil
}

// sum hashes what was written, and lets go of it.
func (w *Writer) sum() {
	h := sha256.New()
	var seg *Segment
	finish := func() {
		if seg != nil {
			h.Sum(seg.SHA256[:0])
			h.Reset()
		}
	}
	for j := range w.hash {
		if seg == nil || len(seg.Frames) == SegmentFrames {
			finish()
			w.segments = append(w.segments, Segment{Frames: make([]Frame, 0, SegmentFrames)})
			seg = &w.segments[len(w.segments)-1]
		}
		for _, part := range j.parts {
			_, _ = h.Write(part) // never fails
		}
		raw := int64(j.n)
		seg.Frames = append(seg.Frames, Frame{j.size, raw})
		seg.Size += j.size
		seg.Raw += raw
		w.free <- j
	}
	finish()
}
