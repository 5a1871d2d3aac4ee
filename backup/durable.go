package backup

import (
	"errors"
	"io/fs"
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

// MakeFolder makes a private folder, and those that it is in, durably: a new key or journal
// must not vanish with its folder when the machine stops.
func MakeFolder(dir string) error {
	fresh := missing(dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range fresh { // the name of a folder is in the one above it
		// One that may be gone through and not read is as it is.
		if err := syncDir(filepath.Dir(d)); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

// missing are the folders that have to be made for dir, the innermost first.
func missing(dir string) []string {
	var out []string
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); !errors.Is(err, fs.ErrNotExist) || filepath.Dir(d) == d {
			return out
		}
		out = append(out, d)
	}
}

// writeFile replaces a file, so that it holds the old or the new content, never
// something between, whenever the machine stops. It is private to its owner.
func writeFile(path string, b []byte) error {
	return writeDurable(filepath.Dir(path), filepath.Base(path), b, true)
}

// errHeld says that somebody else has the lock.
var errHeld = errors.New("held by another operation")
