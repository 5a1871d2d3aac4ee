package local

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// renameNoReplace renames in one step, and not over what is there.
func renameNoReplace(root *os.Root, from, to string) error {
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	err = unix.Renameat2(int(d.Fd()), from, int(d.Fd()), to, unix.RENAME_NOREPLACE)
	if err != nil {
		err = &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return errors.Join(err, d.Close())
}
