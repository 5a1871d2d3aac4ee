package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// transitFile is a file in transit, and how long it is.
type transitFile struct {
	name string
	size int64
}

const (
	// sendBatch is how many files one helper sends: their names are one argument, which
	// Linux bounds to 128 KiB.
	sendBatch = 1000
	// sendAttempts is how often sending goes on where the connection broke.
	sendAttempts = 5
)

// transitReader reads files in transit, one after the other, as if they were one.
type transitReader struct {
	p     *Platform
	ctx   context.Context // the reading's
	op    string
	dir   string
	files []transitFile

	run      *helperRun
	at       int   // the file that is being read
	pos      int64 // and how much of it has been
	left     int64 // of what the current helper sends
	attempts int
	err      error
}

// openTransit reads files of an operation in transit.
func (p *Platform) openTransit(ctx context.Context, op, dir string, files []transitFile) io.ReadCloser {
	return &transitReader{p: p, ctx: ctx, op: op, dir: dir, files: files}
}

// Read reads on. What is shorter or longer than it was is an error.
func (r *transitReader) Read(b []byte) (int, error) {
	for r.err == nil {
		for r.at < len(r.files) && r.pos == r.files[r.at].size {
			r.at, r.pos = r.at+1, 0
		}
		if r.run == nil {
			if r.at == len(r.files) {
				r.err = io.EOF
				break
			}
			if r.err = r.open(); r.err != nil {
				break
			}
		}
		if r.left == 0 {
			r.err = r.finish()
			continue
		}
		n, err := r.run.Read(b[:min(int64(len(b)), r.left)])
		r.advance(int64(n))
		if err != nil {
			r.err = r.broke(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, r.err
}

func (r *transitReader) advance(n int64) {
	r.left -= n
	for n > 0 {
		part := min(n, r.files[r.at].size-r.pos)
		r.pos += part
		n -= part
		if r.pos == r.files[r.at].size {
			r.at, r.pos = r.at+1, 0
		}
	}
}

// open starts a helper that sends on, from the current file.
func (r *transitReader) open() error {
	names := []string{}
	r.left = 0
	for _, f := range r.files[r.at:min(len(r.files), r.at+sendBatch)] {
		names = append(names, f.name)
		r.left += f.size
	}
	run, err := r.p.startHelper(r.ctx, helperTask{
		op: r.op, name: "send", mounts: []helperMount{r.p.transitMount(false)}, stdout: io.Discard,
		input: map[string]any{"dir": r.dir, "files": names},
	})
	if err != nil {
		return err
	}
	r.run = run
	if r.pos > 0 { // it was read before the connection broke
		n, err := io.CopyN(io.Discard, run, r.pos)
		if r.left -= n; err != nil {
			return r.broke(err)
		}
	}
	return nil
}

// finish sees to it that a helper that has sent everything has nothing more to say, and
// ended well.
func (r *transitReader) finish() error {
	var more [1]byte
	n, err := r.run.Read(more[:])
	_ = r.run.Close()
	r.run = nil
	switch {
	case n > 0:
		return errors.New("read transit: a file has grown since it was written")
	case err != nil && !errors.Is(err, io.EOF):
		var bad *helperError
		if errors.As(err, &bad) || r.ctx.Err() != nil {
			return fmt.Errorf("read transit: %w", err)
		}
	}
	return nil
}

// broke says what follows from an error: nothing where the reading can go on.
func (r *transitReader) broke(err error) error {
	if r.left == 0 && errors.Is(err, io.EOF) {
		_ = r.run.Close()
		r.run = nil
		return nil
	}
	_ = r.run.Close()
	r.run = nil
	var bad *helperError
	r.attempts++
	switch {
	case r.ctx.Err() != nil:
		return context.Cause(r.ctx)
	case errors.As(err, &bad), r.attempts > sendAttempts:
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read transit: %w", err)
	}
	r.p.log.Warn("reading transit goes on after the connection broke", "operation", r.op, "error", err)
	return nil
}

// Close ends the reading.
func (r *transitReader) Close() error {
	if r.err == nil {
		r.err = io.ErrClosedPipe
	}
	if r.run == nil {
		return nil
	}
	err := r.run.Close()
	r.run = nil
	return err
}
