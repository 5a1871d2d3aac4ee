//go:build !unix || solaris || aix

package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// errNoSpace is a full disk, which is told from other errors on unix only.
var errNoSpace = errors.New("no space left")

// createLocked makes a file that must not be there. There are no locks here.
func createLocked(root *os.Root, name string) (*os.File, error) {
	return root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

// removeIfDead removes nothing: without locks nobody knows what is dead.
func removeIfDead(*os.Root, string) {}

func openFile(root *os.Root, name string) (*os.File, error) { return root.Open(name) }

// renameNew renames a file to a name that must be free.
func renameNew(root *os.Root, from, to string) error {
	err := renameNoReplace(root, from, to)
	if errors.Is(err, errors.ErrUnsupported) {
		if _, err := root.Lstat(to); err == nil {
			return fmt.Errorf("rename to %s: %w", to, fs.ErrExist)
		}
		return root.Rename(from, to)
	}
	return err
}
