//go:build !linux

package local

import (
	"errors"
	"os"
)

// renameNoReplace is for Linux.
func renameNoReplace(*os.Root, string, string) error { return errors.ErrUnsupported }
