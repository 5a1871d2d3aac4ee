// Package upinstance lets the admin API of a program that was started with
// `dentropy up` ask for a new reading of its configuration. The command line
// registers how that is done; the API, which it does not know, calls it.
//
//	stop := upinstance.Register(reload) // cmd
//	err := upinstance.Reload(ctx)       // POST /dentropy/reload
//
// A program has at most one instance. The package guarantees that reloads do not
// overlap; it does not guarantee that anything changes.
package upinstance

import (
	"context"
	"errors"
	"sync"
)

// ErrNone says that the program was not started with `dentropy up`, so that there
// is nothing that Reload could read again.
var ErrNone = errors.New("not started with `dentropy up`")

// ReloadFunc builds the configuration again and puts it into force. An error
// means that the old one is still in force, whole.
type ReloadFunc func(ctx context.Context) error

var (
	// mu guards current.
	mu      sync.Mutex
	current *instance
)

type instance struct {
	// running is a lock that can be waited for with a context: whoever holds its
	// one slot reloads.
	running chan struct{}
	reload  ReloadFunc
}

// Register makes reload the way to reload this program, until the returned
// function is called. A later registration replaces an earlier one.
func Register(reload ReloadFunc) (unregister func()) {
	mine := &instance{running: make(chan struct{}, 1), reload: reload}
	mu.Lock()
	defer mu.Unlock()
	current = mine
	return func() {
		mu.Lock()
		defer mu.Unlock()
		if current == mine {
			current = nil
		}
	}
}

// Active reports whether there is an instance that Reload would reload.
func Active() bool {
	mu.Lock()
	defer mu.Unlock()
	return current != nil
}

// Reload waits for its turn and reloads. It returns ErrNone where there is no
// instance and the error of ctx if that ends first; a reload that has begun is
// not interrupted by ctx unless the ReloadFunc heeds it.
func Reload(ctx context.Context) error {
	mu.Lock()
	in := current
	mu.Unlock()
	if in == nil {
		return ErrNone
	}
	if err := ctx.Err(); err != nil { // select would choose at random
		return err
	}
	select {
	case in.running <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-in.running }()
	return in.reload(ctx)
}
