package backup

import (
	"errors"
	"fmt"
	"io"
)

// readBack proves that what the store has under that name is as long as what was
// written, and that its end, index and head can be read, decrypted where the key is here.
// It does not read all of it again: that is what verifying an archive is for.
func (b *backupRun) readBack(name string, sum Summary) error {
	o, err := b.store.Open(b.ctx, name)
	if err != nil {
		return err
	}
	defer func() { _ = o.Close() }()
	if o.Size() != sum.Size {
		return fmt.Errorf("it has %d bytes, and %d were written: %w", o.Size(), sum.Size, ErrCorrupt)
	}
	if !b.opensWithOwnKey() {
		// the last byte at least
		if _, err := o.ReadAt(make([]byte, 1), sum.Size-1); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		return nil
	}
	a, err := OpenArchive(o, o.Size(), b.cfg.identities()...)
	if err != nil {
		return err
	}
	if got := a.Manifest().ID; got != b.id {
		return fmt.Errorf("it is another archive, %s: %w", got, ErrCorrupt)
	}
	return nil
}
