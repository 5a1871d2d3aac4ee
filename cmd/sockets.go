package dentropycmd

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// binds are the addresses to listen on: "" stands for all of both families.
func (o Options) binds() []string {
	if len(o.Bind) == 0 {
		return []string{""}
	}
	return o.Bind
}

// network adds the family to "tcp" or "udp": for Go, 0.0.0.0 would mean IPv6 as
// well. Without an address both families share one socket.
func network(kind, bind string) string {
	switch {
	case bind == "":
		return kind
	case strings.Contains(bind, ":"):
		return kind + "6"
	default:
		return kind + "4"
	}
}

// socketError says which setting to change when a socket cannot be had.
func socketError(o Options, err error, setting, kind, bind string, port int) error {
	what := "port " + strconv.Itoa(port)
	if kind == "udp" {
		what = "UDP " + what
	}
	if bind != "" {
		what += " of " + bind
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		who := cmp.Or(portOwner(kind, port), "address already in use")
		return fmt.Errorf("%s is taken by another program (%s): stop it or use --%s", what, who, setting)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		exe, exeErr := os.Executable()
		if exeErr != nil {
			exe = os.Args[0]
		}
		return fmt.Errorf("%s needs a permission that this user lacks: run as root, "+
			"or `sudo setcap cap_net_bind_service=+ep %s`, "+
			"or `sudo sysctl -w net.ipv4.ip_unprivileged_port_start=%d`, or use --%s with a port from 1024 up",
			what, filepath.Clean(exe), port, setting)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s %s: this machine has no such address: %w", o.origin("bind"), bind, err)
	default:
		return fmt.Errorf("listen on %s (--%s): %w", what, setting, err)
	}
}

// sockets are the listening sockets of the process, kept until it ends.
type sockets struct {
	listeners []Listener
	// held are the descriptors that this process opened.
	held []int
	// opened is what they were opened for: it cannot change without a restart.
	httpPort, httpsPort int
	bind                []string
}

// same says which setting differs from what the sockets were opened for.
func (s *sockets) same(o Options) error {
	switch {
	case s.httpPort != o.HTTPPort:
		return fmt.Errorf("the http port cannot change from %d to %d on a reload: restart dentropy", s.httpPort, o.HTTPPort)
	case s.httpsPort != o.HTTPSPort:
		return fmt.Errorf("the https port cannot change from %d to %d on a reload: restart dentropy", s.httpsPort, o.HTTPSPort)
	case !slices.Equal(s.bind, o.binds()):
		return errors.New("the addresses to listen on cannot change on a reload: restart dentropy")
	}
	return nil
}

// listenerAddress is where Caddy opens a socket itself.
func listenerAddress(bind string, port int) string {
	return net.JoinHostPort(bind, strconv.Itoa(port))
}
