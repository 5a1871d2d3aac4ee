package dentropycmd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
)

// handOn hands an archive on to whoever reads as much as he wants, and gives why it is not
// complete.
func handOn(t *testing.T, archive []byte, read func(io.Reader) error) error {
	t.Helper()
	r, err := backup.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	in := &archiveInput{reader: r, manifest: r.Manifest()}
	body, stop := in.plain(t.Context())
	if err := read(body); err != nil {
		t.Error(err)
	}
	stop()
	return in.err
}

// A dentropy that refuses a restore stops reading: why is what it answers.
func TestHandOnToNobody(t *testing.T) {
	archive := makeArchive(t, "none")
	for name, read := range map[string]func(io.Reader) error{
		"at once":       func(r io.Reader) error { return r.(io.Closer).Close() },
		"in the middle": func(r io.Reader) error { _, err := io.CopyN(io.Discard, r, 600); return err },
		"at the end":    func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err },
	} {
		if err := handOn(t, archive, read); err != nil {
			t.Errorf("%s: %v, want the reason to be the other side's", name, err)
		}
	}
	all := func(r io.Reader) error {
		if n, err := io.Copy(io.Discard, r); err == nil {
			t.Errorf("%d bytes of a damaged archive came in without an error", n)
		}
		return nil
	}
	if err := handOn(t, archive[:len(archive)/2], all); err == nil {
		t.Error("no reason of an archive that is cut off")
	}
}

// stalls is a stream that stops.
type stalls struct{ waits, released chan struct{} }

func (s stalls) Read([]byte) (int, error) {
	close(s.waits)
	<-s.released
	return 0, io.ErrUnexpectedEOF
}

// What is handed on ends with the verb, and with what it talks to, also while nothing comes.
func TestHandOnStalled(t *testing.T) {
	archive := makeArchive(t, "none")
	for _, byVerb := range []bool{true, false} {
		s := stalls{make(chan struct{}), make(chan struct{})}
		r, err := backup.NewReader(io.MultiReader(bytes.NewReader(archive[:len(archive)-3000]), s))
		if err != nil {
			t.Fatal(err)
		}
		in := &archiveInput{reader: r, manifest: r.Manifest()}
		ctx, cancel := context.WithCancel(t.Context())
		body, stop := in.plain(ctx)
		read := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, body)
			read <- err
		}()
		<-s.waits
		if byVerb {
			cancel()
			if err := <-read; !errors.Is(err, context.Canceled) {
				t.Errorf("reading ends with %v, want that it was cancelled", err)
			}
		}
		stop()
		if in.err != nil {
			t.Errorf("by the verb %v: the archive is blamed: %v", byVerb, in.err)
		}
		cancel()
		close(s.released)
	}
}
