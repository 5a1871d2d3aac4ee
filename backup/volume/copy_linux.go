package volume

import (
	"context"
	"errors"
	"io"
)

// Copy copies the tree at from into the empty folder to. The sums in the result are of
// what was read.
func Copy(ctx context.Context, from, to string, ropts ReadOptions, wopts WriteOptions) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := newReading(ropts)
	pr, pw := io.Pipe()
	read := make(chan error, 1)
	go func() {
		// The reports of the writer are enough.
		r.opts.Progress = nil
		_, err := r.run(ctx, from, pw, nil)
		pw.CloseWithError(err) // nil is io.EOF
		if err == nil {
			err = r.torn()
		}
		read <- err
	}()
	result, err := Write(ctx, to, pr, wopts)
	if err == nil {
		// What follows the end of the tar: nothing, or the error of the reader.
		_, err = io.Copy(io.Discard, pr)
	}
	pr.CloseWithError(errStopped)
	if err != nil {
		cancel(err)
	}
	rerr := <-read
	switch {
	case rerr != nil && !errors.Is(rerr, errStopped):
		err = rerr
	case err == nil:
		err = rerr
	}
	more, lost := r.notes.take()
	result.Notes = append(more, result.Notes...)
	result.NotesLost += lost
	return result, err
}
