//go:build unix && !solaris && !aix

package backup

import (
	"errors"
	"os"
	"syscall"
)

// flock takes f for this open file; errHeld where another one has it, be it of this
// process or of another. It ends with the descriptor, however the process ends.
func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return errHeld
		default:
			return err
		}
	}
}

// flockWait takes f and waits for whoever has it.
func flockWait(f *os.File) error {
	for {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
