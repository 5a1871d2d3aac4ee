//go:build unix

package dentropycmd

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// openSockets opens every listening socket, or none. The descriptors belong to
// nothing that Go would close: they live until the process ends, and each
// configuration of Caddy listens on a duplicate.
func openSockets(ctx context.Context, o Options) (*sockets, error) {
	s := &sockets{httpPort: o.HTTPPort, httpsPort: o.HTTPSPort, bind: o.binds()}
	for _, bind := range s.bind {
		l := Listener{Bind: bind}
		for _, w := range []struct {
			to            *string
			kind, setting string
			port          int
		}{
			{&l.HTTP, "tcp", "http-port", o.HTTPPort},
			{&l.HTTPS, "tcp", "https-port", o.HTTPSPort},
			{&l.QUIC, "udp", "https-port", o.HTTPSPort},
		} {
			fd, err := openSocket(ctx, w.kind, bind, w.port)
			if err != nil {
				s.close()
				return nil, socketError(o, err, w.setting, w.kind, bind, w.port)
			}
			s.held = append(s.held, fd)
			name := "fd/"
			if w.kind == "udp" {
				name = "fdgram/"
			}
			*w.to = name + strconv.Itoa(fd)
		}
		s.listeners = append(s.listeners, l)
	}
	return s, nil
}

// openSocket opens one socket the way Go does (SO_REUSEADDR, both families, the
// system's backlog) and gives a descriptor of it.
func openSocket(ctx context.Context, kind, bind string, port int) (int, error) {
	var lc net.ListenConfig
	addr := listenerAddress(bind, port)
	var conn interface {
		syscall.Conn
		Close() error
	}
	if kind == "udp" {
		pc, err := lc.ListenPacket(ctx, network(kind, bind), addr)
		if err != nil {
			return 0, err
		}
		conn = pc.(*net.UDPConn)
	} else {
		ln, err := lc.Listen(ctx, network(kind, bind), addr)
		if err != nil {
			return 0, err
		}
		conn = ln.(*net.TCPListener)
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	fd, dupErr := 0, error(nil)
	if err := raw.Control(func(s uintptr) {
		// Programs that we start (ssh) must not keep our ports.
		fd, dupErr = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return 0, err
	}
	if dupErr != nil {
		return 0, fmt.Errorf("duplicate socket: %w", dupErr)
	}
	// Caddy wraps the descriptor in an os.File. Where that finds a non-blocking one,
	// it makes it blocking for a moment at each use, under the listener that is
	// accepting on it.
	if err := unix.SetNonblock(fd, false); err != nil {
		_ = unix.Close(fd)
		return 0, os.NewSyscallError("setnonblock", err)
	}
	return fd, nil
}

// close gives up the sockets of a start that failed, before Caddy knew of them.
func (s *sockets) close() {
	for _, fd := range s.held {
		_ = unix.Close(fd)
	}
	s.held = nil
}

// release lets the kernel refuse new connections once Caddy has closed its own
// duplicates: otherwise they would wait, unheard, until the process ends. The
// numbers stay taken, since Caddy still knows them.
func (s *sockets) release() {
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return // the end of the process does the same, a little later
	}
	for _, fd := range s.held {
		_ = unix.Dup2(null, fd)
	}
	_ = unix.Close(null)
}
