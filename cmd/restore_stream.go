package dentropycmd

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/dentropy/dentropycloud/backup"
)

// archiveInput is an archive that a restore reads.
type archiveInput struct {
	label       string // as it was named
	store, name string // of a store
	manifest    *backup.Manifest
	// reader stands behind the head; nil where a running dentropy opens the archive itself.
	reader *backup.Reader
	file   io.Closer
	head   []byte // see plainHead
	err    error  // of the reading, for a running dentropy
}

// inStore reports whether a running dentropy opens the archive itself.
func (in *archiveInput) inStore() bool { return in.reader == nil }

func (in *archiveInput) close() error {
	if in.file == nil {
		return nil
	}
	return in.file.Close()
}

// What a running dentropy gets is the archive written anew without encryption: the key
// stays with the verb, and the way is a socket of this machine.

// plainWriter begins such an archive.
func (in *archiveInput) plainWriter(w io.Writer) (*backup.Writer, error) {
	app, err := in.reader.App()
	if err != nil {
		return nil, err
	}
	out, err := backup.NewWriter(w, backup.WriterOptions{Encryption: backup.EncryptNone})
	if err != nil {
		return nil, err
	}
	m := *in.manifest
	return out, out.Start(&m, app)
}

// plainHead is the head alone, for a plan.
func (in *archiveInput) plainHead() ([]byte, error) {
	if in.head != nil {
		return in.head, nil
	}
	var b bytes.Buffer
	w, err := in.plainWriter(&b)
	if err == nil {
		err = w.Flush()
	}
	in.head = b.Bytes()
	return in.head, err
}

// plain gives all of it, once. The function waits until nothing is read any more.
func (in *archiveInput) plain(ctx context.Context) (io.Reader, func()) {
	pr, pw := io.Pipe()
	done := make(chan struct{})
	ctx, stop := context.WithCancel(ctx)
	// it may wait for a stream that has stalled, whether the verb ends or what it talks to
	back := in.reader.Until(ctx)
	go func() {
		defer close(done)
		defer back()
		w := &outlet{w: pw}
		err := in.copyTo(ctx, w)
		if err != nil && !w.shut && ctx.Err() == nil {
			in.err = err
		}
		_ = pw.CloseWithError(err)
	}()
	return pr, func() {
		stop()
		_ = pr.CloseWithError(errEnded)
		<-done
	}
}

// outlet knows whether its reader has stopped reading: then why is for the reader to say.
type outlet struct {
	w    io.Writer
	shut bool
}

func (o *outlet) Write(b []byte) (int, error) {
	n, err := o.w.Write(b)
	if err != nil {
		o.shut = true
	}
	return n, err
}

// copyTo writes the archive anew. It is complete only if the old one is.
func (in *archiveInput) copyTo(ctx context.Context, w io.Writer) error {
	out, err := in.plainWriter(w)
	if err != nil {
		return err
	}
	ar := in.reader
	m, err := ar.Next()
	for err == nil {
		switch m.Kind {
		case backup.MemberImage:
			m, err = in.copyImages(out, m)
			continue
		case backup.MemberSegment:
			s := ar.VolumeStream(ctx, m.Volume)
			err = out.Volume(in.manifest.Trees[m.Volume], s)
			if s.Err() != nil {
				err = s.Err() // the cause
			}
			if err == nil {
				m, err = s.After()
			}
			continue
		case backup.MemberIndex:
			err = out.FileIndex(in.manifest.Trees[m.Volume], ar)
		}
		if err == nil {
			m, err = ar.Next()
		}
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	_, err = out.Finish()
	return err
}

// copyImages hands on the images as a tar, and gives the member behind them.
func (in *archiveInput) copyImages(out *backup.Writer, m *backup.Member) (*backup.Member, error) {
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	var after *backup.Member
	go func() {
		var err error
		after, err = in.writeImages(pw, m)
		if errors.Is(err, io.EOF) {
			_ = pw.Close()
		} else {
			_ = pw.CloseWithError(err)
		}
		done <- err
	}()
	writeErr := out.Images(pr)
	_ = pr.CloseWithError(errEnded)
	readErr := <-done
	switch {
	case readErr != nil && !errors.Is(readErr, errEnded):
		return nil, readErr
	case writeErr != nil:
		return nil, fmt.Errorf("hand on the images: %w", writeErr)
	}
	return after, nil
}

// writeImages writes members as a tar, up to the first that is no image.
func (in *archiveInput) writeImages(w io.Writer, m *backup.Member) (*backup.Member, error) {
	tw := tar.NewWriter(w)
	for {
		const mode = 0o600
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: m.Path, Size: m.Size, Mode: mode}); err != nil {
			return nil, err
		}
		if _, err := io.Copy(tw, in.reader); err != nil {
			return nil, err
		}
		next, err := in.reader.Next()
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if err != nil || next.Kind != backup.MemberImage {
			return next, errors.Join(tw.Close(), err)
		}
		m = next
	}
}
