//go:build unix && !solaris && !aix

package dentropycmd

import (
	"errors"
	"os"
	"syscall"
)

// lock takes f for this process. It ends with the descriptor, however the process
// ends.
func lock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errLocked
	}
	return err
}
