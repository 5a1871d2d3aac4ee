package backup

import "fmt"

// Flush brings what was written so far to the file, but for what the encryption of all
// holds back. Behind Start, that is a head from which a restore can be planned.
func (w *Writer) Flush() error {
	if err := w.ready(); err != nil {
		return err
	}
	if err := w.tw.Flush(); err != nil {
		return w.fail(fmt.Errorf("write the archive: %w", err))
	}
	if err := w.buf.Flush(); err != nil {
		return w.fail(fmt.Errorf("write the archive: %w", err))
	}
	return nil
}
