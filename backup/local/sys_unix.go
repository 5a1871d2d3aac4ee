//go:build unix && !solaris && !aix

package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// errNoSpace is a full disk.
const errNoSpace = unix.ENOSPC

// createTries bounds how often a new file may be taken for a dead one, and removed, in the
// moment before it is locked.
const createTries = 10

// createLocked makes a file that must not be there, and locks it. One that a living
// process writes is fs.ErrExist.
func createLocked(root *os.Root, name string) (*os.File, error) {
	for range createTries {
		f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, err
		}
		// Somebody who looks for dead files has the lock for a moment only. A file system
		// without locks does without.
		_ = flock(f, unix.LOCK_EX)
		mine, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if there, err := root.Lstat(name); err == nil && os.SameFile(mine, there) {
			return f, nil
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s is removed again each time: %w", name, fs.ErrExist)
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// removeIfDead removes an unfinished archive if no process has it locked.
func removeIfDead(root *os.Root, name string) {
	// NFS locks only what is open for writing.
	f, err := root.OpenFile(name, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer closeRead(f)
	mine, err := f.Stat()
	if err != nil || !mine.Mode().IsRegular() || flock(f, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	// It may have been committed meanwhile, and another begun under the name.
	if there, err := root.Lstat(name); err == nil && os.SameFile(mine, there) {
		_ = root.Remove(name) // what cannot be removed stays
	}
}

// openFile opens a file for reading. It follows no symbolic link, and does not wait for
// the other end of a pipe.
func openFile(root *os.Root, name string) (*os.File, error) {
	return root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
}

// renameNew renames a file to a name that must be free.
func renameNew(root *os.Root, from, to string) error {
	err := renameNoReplace(root, from, to)
	if !unsupported(err) {
		return err
	}
	if err = root.Link(from, to); err == nil {
		return root.Remove(from)
	}
	if !unsupported(err) {
		return err
	}
	// A file system that knows neither: the best that there is.
	if _, err := root.Lstat(to); err == nil {
		return fmt.Errorf("rename to %s: %w", to, fs.ErrExist)
	}
	return root.Rename(from, to)
}

// unsupported reports errors of file systems that cannot do something at all.
func unsupported(err error) bool {
	for _, no := range []error{errors.ErrUnsupported, unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP, unix.EPERM} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}
