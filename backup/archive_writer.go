package backup

import (
	"errors"
	"io"
)

// Writer writes an archive, in this order: Start, Images, then for each volume Volume
// and FileIndex, Finish.
type Writer struct{}

// NewWriter begins an archive on w.
func NewWriter(w io.Writer, opts WriterOptions) (*Writer, error) { return nil, errors.ErrUnsupported }

// Start writes the head. app is the app with its secrets; m.App is filled in by Start.
func (w *Writer) Start(m *Manifest, app *App) error { return errors.ErrUnsupported }

// Images writes an OCI layout, given as a tar (Frozen.Images).
func (w *Writer) Images(layout io.Reader) error { return errors.ErrUnsupported }

// Volume writes the segments of a volume, which follow each other in r.
func (w *Writer) Volume(t *Tree, r io.Reader) error { return errors.ErrUnsupported }

// FileIndex writes the index of files of a volume.
func (w *Writer) FileIndex(t *Tree, r io.Reader) error { return errors.ErrUnsupported }

// Finish writes indexes, checksums and the end marker. It closes the encryption, not w.
func (w *Writer) Finish() (Summary, error) { return Summary{}, errors.ErrUnsupported }
