//go:build !linux

package volume

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/dentropy/dentropycloud/backup"
)

// Read needs Linux.
func Read(context.Context, string, Sink, ReadOptions) (*backup.Tree, error) {
	return nil, errors.ErrUnsupported
}

// Write needs Linux.
func Write(context.Context, string, io.Reader, WriteOptions) (Result, error) {
	return Result{}, errors.ErrUnsupported
}

// Hash needs Linux.
func Hash(context.Context, string, ReadOptions) (Sums, []backup.Note, error) {
	return Sums{}, nil, errors.ErrUnsupported
}

// Copy needs Linux.
func Copy(context.Context, string, string, ReadOptions, WriteOptions) (Result, error) {
	return Result{}, errors.ErrUnsupported
}

// Main needs Linux.
func Main(_ context.Context, _ []string, _ io.Reader, _, stderr io.Writer) int {
	fmt.Fprintln(stderr, "helper: it runs on Linux only")
	return 1
}
