package dentropycmd

import (
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestSocketError(t *testing.T) {
	o, err := options("--data-dir /d", "")
	if err != nil {
		t.Fatal(err)
	}
	free := freePort(t)
	tests := []struct {
		name          string
		err           error
		setting, kind string
		bind          string
		port          int
		want          []string
	}{
		{"taken", syscall.EADDRINUSE, "http-port", "tcp", "", free, []string{"is taken by another program (address already in use)", "use --http-port"}},
		{"taken for HTTP/3", syscall.EADDRINUSE, "https-port", "udp", "10.0.0.1", free, []string{"UDP port", " of 10.0.0.1 is taken", "use --https-port"}},
		{"forbidden", os.NewSyscallError("bind", syscall.EACCES), "http-port", "tcp", "", 80,
			[]string{"port 80 needs a permission", "run as root", "setcap cap_net_bind_service=+ep", "ip_unprivileged_port_start=80", "--http-port"}},
		{"no such address", syscall.EADDRNOTAVAIL, "http-port", "tcp", "10.9.9.9", 80, []string{"--bind 10.9.9.9: this machine has no such address"}},
		{"other", errors.New("boom"), "http-port", "tcp", "", 80, []string{"listen on port 80 (--http-port): boom"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := socketError(o, tt.err, tt.setting, tt.kind, tt.bind, tt.port).Error()
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("socketError() = %q, want %q in it", got, want)
				}
			}
			if strings.Contains(got, "\n") {
				t.Errorf("socketError() = %q, want one line", got)
			}
		})
	}
}

func TestPortOwnerNamesThisProcess(t *testing.T) {
	if _, err := os.Stat("/proc/net/tcp"); err != nil {
		t.Skip("no /proc")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	if got := portOwner("tcp", ln.Addr().(*net.TCPAddr).Port); !strings.Contains(got, ", process ") {
		t.Errorf("portOwner() = %q, want a program and its process", got)
	}
}

func TestSocketsOfBothFamilies(t *testing.T) {
	if ln, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Skip("no IPv6 here")
	} else {
		_ = ln.Close()
	}
	o, err := options("--data-dir /d --bind 127.0.0.1,::1", "")
	if err != nil {
		t.Fatal(err)
	}
	o.HTTPPort, o.HTTPSPort = freePort(t), freePort(t)
	s, err := openSockets(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range s.listeners {
		c, err := net.Dial("tcp", listenerAddress(l.Bind, o.HTTPSPort))
		if err != nil {
			t.Errorf("dial %s: %v", l.Bind, err)
			continue
		}
		_ = c.Close()
	}
	seen := map[string]bool{}
	for _, l := range s.listeners {
		for _, name := range []string{l.HTTP, l.HTTPS, l.QUIC} {
			if seen[name] || !strings.HasPrefix(name, "fd") {
				t.Errorf("socket %q is named twice, or not by its descriptor", name)
			}
			seen[name] = true
		}
	}
	// A start that fails gives everything back.
	if _, err := openSockets(t.Context(), o); err == nil {
		t.Error("the sockets could be opened twice")
	}
	s.close()
	again, err := openSockets(t.Context(), o)
	if err != nil {
		t.Fatalf("open after close: %v", err)
	}
	again.close()
}

func TestNetwork(t *testing.T) {
	for bind, want := range map[string]string{"": "tcp", "0.0.0.0": "tcp4", "::": "tcp6", "127.0.0.1": "tcp4", "::1": "tcp6"} {
		if got := network("tcp", bind); got != want {
			t.Errorf("network(%q) = %q, want %q", bind, got, want)
		}
	}
	if got := (Options{}).binds(); !slices.Equal(got, []string{""}) {
		t.Errorf("binds() without --bind = %q, want one for all addresses", got)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"web":              "web",
		"a\x1b]0;title\a":  "a·]0;title·",
		"tab\tand\nline":   "tab and·line",
		"\u202egnp.exe":    "·gnp.exe",
		"bad \xff byte":    "bad · byte",
		"naïve – 漢字 works": "naïve – 漢字 works",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}
