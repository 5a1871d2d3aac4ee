package volume

import (
	"context"
	"io"
)

// MainIn is Main with another transit volume.
func MainIn(ctx context.Context, transit string, args []string, stdout, stderr io.Writer) int {
	h := &helper{stdout: stdout, transit: transit}
	return h.main(ctx, args, stderr)
}

// MainBeside is Main with other processes.
func MainBeside(ctx context.Context, proc string, args []string, stdout, stderr io.Writer) int {
	h := &helper{stdout: stdout, proc: proc}
	return h.main(ctx, args, stderr)
}

// StopSignal reads a signal.
var StopSignal = stopSignal

// WithoutOpenat2 makes Write do without openat2.
func WithoutOpenat2(opts WriteOptions, off bool) WriteOptions {
	opts.noOpenat2 = off
	return opts
}

// WithHooks calls functions while a tree is read.
func WithHooks(opts ReadOptions, listed, opened func(path string)) ReadOptions {
	opts.hooks = readHooks{listed: listed, opened: opened}
	return opts
}
