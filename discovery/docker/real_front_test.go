package docker_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
)

// front stands before a real server and hands on every byte, until it is told to fail
// as networks do.
type front struct {
	l    net.Listener
	dial func(context.Context) (net.Conn, error)
	wg   sync.WaitGroup

	mu     sync.Mutex // guards all below
	conns  map[net.Conn]*link
	closed bool // what comes is turned away
}

// link is one connection through a front.
type link struct {
	f    *front
	mute bool // guarded by the front's mutex
}

func newFront(t *testing.T, l net.Listener, dial func(context.Context) (net.Conn, error)) *front {
	t.Helper()
	f := &front{l: l, dial: dial, conns: map[net.Conn]*link{}}
	f.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.wg.Go(func() { f.serve(t.Context(), c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		f.cut()
		f.wg.Wait()
	})
	return f
}

func (f *front) endpoint() string { return "tcp://" + f.l.Addr().String() }

// enter notes a connection, or closes it where the front is closed.
func (f *front) enter(c net.Conn, l *link) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		_ = c.Close()
		return false
	}
	f.conns[c] = l
	return true
}

func (f *front) leave(c net.Conn) {
	_ = c.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
}

func (f *front) serve(ctx context.Context, near net.Conn) {
	l := &link{f: f}
	if !f.enter(near, l) {
		return
	}
	defer f.leave(near)
	far, err := f.dial(ctx)
	if err != nil || !f.enter(far, l) {
		return
	}
	defer f.leave(far)
	f.wg.Go(func() {
		_, _ = io.Copy(pipe{far, l}, near)
		_ = far.Close() // ends the other direction
	})
	_, _ = io.Copy(pipe{near, l}, far)
}

// pipe is one direction of a link.
type pipe struct {
	to net.Conn
	l  *link
}

func (p pipe) Write(b []byte) (int, error) {
	p.l.f.mu.Lock()
	mute := p.l.mute
	p.l.f.mu.Unlock()
	if mute {
		return len(b), nil
	}
	return p.to.Write(b)
}

// cut ends all connections, and every new one until open.
func (f *front) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for c := range f.conns {
		_ = c.Close()
	}
}

func (f *front) open() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = false
}

// mute loses from now on what the connections that there are carry, without ending
// them: so looks a machine that goes to sleep, or a router that has forgotten.
func (f *front) mute() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.conns {
		l.mute = true
	}
}
