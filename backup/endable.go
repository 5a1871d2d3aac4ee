package backup

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// endable is a stream whose reads end with a context, also one that waits for what never
// comes: a network that hangs, a pipe that nobody writes to. Without a context it is the
// stream itself.
type endable struct {
	r io.Reader

	mu   sync.Mutex      // guards ctx: it is set while somebody may read
	ctx  context.Context // for some of the reads: io.Reader has none
	lost error           // of a read that is still under way; final

	buf  []byte
	have []byte // of buf
	err  error  // behind have; nil where more may come
}

// until lets reads end with ctx, until back is called.
func (e *endable) until(ctx context.Context) (back func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.ctx
	e.ctx = ctx
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.ctx = before
	}
}

func (e *endable) context() context.Context {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ctx
}

// Read reads on, or returns the error of the context. A read that had to be left alone
// goes on by itself, into a buffer that nobody uses any more.
func (e *endable) Read(p []byte) (int, error) {
	if e.lost != nil {
		return 0, e.lost
	}
	ctx := e.context()
	if ctx != nil && ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if len(e.have) == 0 && e.err == nil {
		if ctx == nil || ctx.Done() == nil {
			return e.r.Read(p)
		}
		if err := e.fill(ctx); err != nil {
			e.lost = err
			return 0, err
		}
	}
	n := copy(p, e.have)
	if e.have = e.have[n:]; len(e.have) > 0 {
		return n, nil
	}
	err := e.err
	if err != nil {
		return n, err
	}
	return n, nil
}

// fill reads into the buffer.
func (e *endable) fill(ctx context.Context) error {
	if e.buf == nil {
		e.buf = make([]byte, outerBuffer)
	}
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := e.r.Read(e.buf)
		done <- result{n, err}
	}()
	select {
	case got := <-done:
		e.have, e.err = e.buf[:got.n], got.err
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stalledAfter is how long whoever takes an archive from us may take nothing at all. The
// app runs again by then, but its lock is held, and its data waits.
const stalledAfter = 10 * time.Minute

// endableWriter writes until its context is over, or until the other side takes nothing
// for too long.
type endableWriter struct {
	ctx   context.Context // for the lifetime of one archive: io.Writer has none
	w     io.Writer
	limit time.Duration
	buf   []byte
	err   error // final: a write may be still under way
}

// Write writes a copy of p: a write that had to be left alone goes on by itself.
func (e *endableWriter) Write(p []byte) (int, error) {
	const most = 64 << 10 // a slow other side shows that it takes something
	written := 0
	for len(p) > written {
		if e.err != nil {
			return written, e.err
		}
		if e.err = e.ctx.Err(); e.err != nil {
			continue
		}
		e.buf = append(e.buf[:0], p[written:min(len(p), written+most)]...)
		n, err := e.write()
		written += n
		e.err = err
	}
	return written, e.err
}

func (e *endableWriter) write() (int, error) {
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := e.w.Write(e.buf)
		if n < len(e.buf) && err == nil {
			err = io.ErrShortWrite
		}
		done <- result{max(0, min(n, len(e.buf))), err}
	}()
	t := time.NewTimer(e.limit)
	defer t.Stop()
	select {
	case got := <-done:
		return got.n, got.err
	case <-e.ctx.Done():
		return 0, e.ctx.Err()
	case <-t.C:
		return 0, &Problem{
			Message: fmt.Sprintf("whoever takes the archive has taken nothing for %s", e.limit),
			Hint:    "see why it stalls, or write the archive to a folder",
		}
	}
}
