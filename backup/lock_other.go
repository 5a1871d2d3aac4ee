//go:build !unix || solaris || aix

package backup

import (
	"errors"
	"fmt"
	"os"
)

// flock refuses where the system has no flock: without it two operations could work
// on one app.
func flock(*os.File) error {
	return fmt.Errorf("backups need file locks, which this system does not have: %w", errors.ErrUnsupported)
}

func flockWait(f *os.File) error { return flock(f) }
