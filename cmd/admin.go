package dentropycmd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
)

const (
	adminSocket = "admin.sock"
	// adminMode lets the owner alone talk to the API: whoever can, is root in all
	// but name.
	adminMode = "0600"
	// maxSocketPath is what the kernels we run on have room for, with the closing
	// zero byte: 104 on the BSDs, 108 on Linux.
	maxSocketPath = 103
)

func defaultAdmin(dataDir string) string {
	return "unix/" + filepath.Join(dataDir, adminSocket) + "|" + adminMode
}

// parseAdmin checks an admin address and brings it into Caddy's form. The API can
// change everything and asks for no password, so it listens on a unix socket or
// on a loopback address, or not at all.
func parseAdmin(s string) (string, error) {
	if strings.HasPrefix(s, "/") {
		s = "unix/" + s
	}
	a, err := caddy.ParseNetworkAddress(s)
	if err != nil {
		return "", fmt.Errorf("this is no address: %w", err)
	}
	switch {
	case a.IsUnixNetwork():
		path, mode, _ := strings.Cut(a.Host, "|")
		if len(path) > maxSocketPath && !strings.HasPrefix(path, "@") {
			return "", fmt.Errorf("the path is too long for a unix socket (%d bytes, at most %d): use --admin unix//run/dentropy.sock", len(path), maxSocketPath)
		}
		if mode == "" {
			mode = adminMode
		}
		return a.Network + "/" + path + "|" + mode, nil
	case a.IsFdNetwork() || a.Network != "tcp" && a.Network != "tcp4" && a.Network != "tcp6":
		return "", fmt.Errorf("network %q cannot be used here: give a unix socket or a loopback address", a.Network)
	case a.PortRangeSize() != 1 || a.StartPort == 0:
		return "", errors.New("a port is missing: give for example localhost:2019")
	case !loopback(a.Host):
		return "", errors.New("the admin API asks for no password, so it may listen on a unix socket or a loopback address only; " +
			"from other machines use ssh, or Caddy's remote admin (admin.remote in a JSON config)")
	}
	return a.String(), nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// dialWait is enough for a process on this machine to accept a connection.
const dialWait = 2 * time.Second

// adminInUse reports who answers on the admin address. Caddy would unlink a
// socket that is in use, and take its clients away from whoever serves them; and it
// does not say whose folder is missing.
func adminInUse(ctx context.Context, addr string) error {
	a, err := caddy.ParseNetworkAddress(addr)
	if err != nil {
		return err
	}
	if !a.IsUnixNetwork() {
		var lc net.ListenConfig
		ln, err := lc.Listen(ctx, a.Network, a.JoinHostPort(0))
		if err != nil {
			return err
		}
		return ln.Close()
	}
	path, _, _ := strings.Cut(a.Host, "|")
	dialer := net.Dialer{Timeout: dialWait}
	if c, err := dialer.DialContext(ctx, a.Network, path); err == nil {
		_ = c.Close()
		return fmt.Errorf("listen on %s: %w", path, syscall.EADDRINUSE)
	}
	// absent, or left behind by a process that is gone
	if strings.HasPrefix(path, "@") { // abstract: in no folder
		return nil
	}
	_, err = os.Stat(filepath.Dir(path))
	return err
}

// showAdmin is an admin address as people write it.
func showAdmin(addr string) string {
	addr, _, _ = strings.Cut(addr, "|")
	return strings.TrimPrefix(addr, "unix/")
}
