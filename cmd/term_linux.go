package dentropycmd

import (
	"os"

	"golang.org/x/sys/unix"
)

// dropTyped drops what was typed on a terminal and not read yet. It reports whether f is
// one.
func dropTyped(f *os.File) bool {
	return unix.IoctlSetInt(int(f.Fd()), unix.TCFLSH, unix.TCIFLUSH) == nil
}
