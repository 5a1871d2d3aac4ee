package dentropycmd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/dentropy/dentropycloud/backup"
)

const lockFile = "up.lock"

// errLocked says that another process holds the lock.
var errLocked = errors.New("held by another process")

// openDataDir makes the folder, private to its owner since keys are in it, proves
// that it can be written, and takes it for this process until release is called
// or the process ends.
func openDataDir(o Options) (release func(), err error) {
	hint := "use " + o.hintDataDir()
	if err := backup.MakeFolder(o.DataDir); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("data folder %s cannot be made by this user: %s, or run as root", o.DataDir, hint)
		}
		return nil, fmt.Errorf("data folder %s cannot be made: %w: %s", o.DataDir, err, hint)
	}
	path := filepath.Join(o.DataDir, lockFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data folder %s is not writable: %w: make it writable or %s", o.DataDir, cause(err), hint)
	}
	if err := lock(f); err != nil {
		defer func() { _ = f.Close() }()
		if !errors.Is(err, errLocked) {
			return nil, fmt.Errorf("lock %s: %w: %s", path, err, hint)
		}
		return nil, fmt.Errorf("another `dentropy up`%s is running on data folder %s: stop it or %s", holder(f), o.DataDir, hint)
	}
	// The lock may lie on a full disk: then certificates could not be kept either.
	if err := writePID(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("data folder %s is not writable: %w: %s", o.DataDir, cause(err), hint)
	}
	// The file stays: removing it would let a third process lock a new one while
	// the second waits for the old.
	return func() { _ = f.Close() }, nil
}

func (o Options) hintDataDir() string {
	if how := o.given["data-dir"]; how != "" && how != "--data-dir" {
		return "another folder in " + how
	}
	return "--data-dir with another folder"
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// holder reads who wrote the lock.
func holder(f *os.File) string {
	const most = 20 // digits of a number
	b := make([]byte, most)
	n, _ := f.ReadAt(b, 0) // io.EOF is the usual case
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (process %d)", pid)
}

// cause takes the path off an error that names it already.
func cause(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}
