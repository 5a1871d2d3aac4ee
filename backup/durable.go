package backup

import (
	"errors"
	"os"
	"path/filepath"
)

// syncDir brings the names in a folder to the disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// writeFile replaces a file, so that it holds the old or the new content, never
// something between, whenever the machine stops. It is private to its owner.
func writeFile(path string, b []byte) error {
	return writeDurable(filepath.Dir(path), filepath.Base(path), b, true)
}

// errHeld says that somebody else has the lock.
var errHeld = errors.New("held by another operation")
