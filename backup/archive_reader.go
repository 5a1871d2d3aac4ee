package backup

import (
	"context"
	"errors"
	"io"

	"filippo.io/age"
)

// Reader reads an archive from front to end.
type Reader struct{}

// NewReader reads the head of an archive: manifest, settings, secrets. Age encryption is
// recognised by itself; identities are then needed.
func NewReader(r io.Reader, identities ...age.Identity) (*Reader, error) {
	return nil, errors.ErrUnsupported
}

// Manifest is what the archive says about itself.
func (r *Reader) Manifest() *Manifest { return nil }

// App is the captured app with its secrets.
func (r *Reader) App() (*App, error) { return nil, errors.ErrUnsupported }

// Next moves on to the next member, io.EOF after the last.
func (r *Reader) Next() (*Member, error) { return nil, errors.ErrUnsupported }

// Read reads the current member.
func (r *Reader) Read(p []byte) (int, error) { return 0, errors.ErrUnsupported }

// Finish reads what is left, and returns nil only for a complete and undamaged archive.
func (r *Reader) Finish(ctx context.Context) error { return errors.ErrUnsupported }
