package frame

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	// ParallelSize is the most that a frame may hold to be decoded beside others.
	ParallelSize = 8 << 20
	// MaxWindow is how far back a frame may refer: as far as for zstd -d.
	MaxWindow = 128 << 20
	// streamChunk is how much of a larger frame is handed on at once.
	streamChunk = 1 << 20
)

// errClosed ends a reader that was closed.
var errClosed = errors.New("read zstd: the reader is closed")

// Reader decodes a stream. It is for one goroutine.
type Reader struct {
	src     *scanner
	workers int
	dec     *zstd.Decoder

	cur *piece // is being read
	err error

	started bool
	free    chan *piece
	work    chan *piece
	order   chan *piece
	stop    chan struct{}
	wg      sync.WaitGroup
}

// piece is what comes out next: a frame, or a part of a large one.
type piece struct {
	src   []byte
	buf   []byte // what out is in
	out   []byte
	most  int   // what src can come to
	at    int64 // where its frame begins
	err   error // after out
	ready chan struct{}
}

// NewReader decodes what r gives, with so many workers; 0 is as many as the program may
// use processors. It reads r in another goroutine from the first Read on, and may read
// more of it than it hands out. Close waits for a read of r that is under way.
func NewReader(r io.Reader, workers int) io.ReadCloser {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	workers = min(workers, MaxWorkers)
	pieces := workers + 2
	rd := &Reader{
		src:     newScanner(r),
		workers: workers,
		free:    make(chan *piece, pieces),
		work:    make(chan *piece, pieces),
		order:   make(chan *piece, pieces),
		stop:    make(chan struct{}),
	}
	for range pieces {
		rd.free <- &piece{ready: make(chan struct{}, 1)}
	}
	return rd
}

// start starts the goroutines.
func (r *Reader) start() error {
	r.started = true
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(r.workers), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(MaxWindow))
	if err != nil {
		return fmt.Errorf("make zstd decoder: %w", err)
	}
	r.dec = dec
	r.wg.Go(r.scan)
	for range r.workers {
		r.wg.Go(r.decode)
	}
	return nil
}

// next waits for the next piece.
func (r *Reader) next() error {
	if r.err != nil {
		return r.err
	}
	if !r.started {
		if r.err = r.start(); r.err != nil {
			return r.err
		}
	}
	if r.cur != nil {
		if r.err = r.cur.err; r.err != nil {
			return r.err
		}
		r.free <- r.cur
		r.cur = nil
	}
	r.cur = <-r.order
	<-r.cur.ready
	return nil
}

// Read reads the decoded stream.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.cur == nil || len(r.cur.out) == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.cur.out)
	r.cur.out = r.cur.out[n:]
	return n, nil
}

// WriteTo writes the decoded stream to w, without a copy.
func (r *Reader) WriteTo(w io.Writer) (n int64, err error) {
	for {
		if r.cur != nil && len(r.cur.out) > 0 {
			done, err := w.Write(r.cur.out)
			n += int64(done)
			r.cur.out = r.cur.out[done:]
			if err != nil {
				return n, err
			}
		}
		if err := r.next(); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return n, err
		}
	}
}

// Close ends the reader and waits for its goroutines.
func (r *Reader) Close() error {
	if errors.Is(r.err, errClosed) {
		return nil
	}
	r.err = errClosed
	close(r.stop)
	r.wg.Wait()
	if r.dec != nil {
		r.dec.Close()
	}
	r.cur = nil
	return nil
}
