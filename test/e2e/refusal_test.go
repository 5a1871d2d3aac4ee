package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What cannot start says why in one line that names the setting, and exits with 1.
func TestRefusals(t *testing.T) {
	listen := func(t *testing.T, network, address string) net.Listener {
		t.Helper()
		ln, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		return ln
	}
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		name string
		args func(t *testing.T) []string
		want string
	}{
		{"http port taken", func(t *testing.T) []string {
			port := freePort()
			listen(t, "tcp", fmt.Sprint("127.0.0.1:", port))
			return []string{"--http-port", strconv.Itoa(port)}
		}, "--http-port"},
		{"https port taken", func(t *testing.T) []string {
			port := freePort()
			listen(t, "tcp", fmt.Sprint("127.0.0.1:", port))
			return []string{"--https-port", strconv.Itoa(port)}
		}, "--https-port"},
		{"https port taken for UDP", func(t *testing.T) []string {
			port := freePort()
			c, err := net.ListenPacket("udp", fmt.Sprint("127.0.0.1:", port))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return []string{"--https-port", strconv.Itoa(port)}
		}, "--https-port"},
		{"data folder is a file", func(*testing.T) []string { return []string{"--data-dir", file} }, "--data-dir"},
		{"data folder cannot be made", func(*testing.T) []string { return []string{"--data-dir", filepath.Join(file, "x")} }, "--data-dir"},
		{"admin socket in use", func(t *testing.T) []string {
			socket := filepath.Join(dir, "admin.sock")
			listen(t, "unix", socket)
			return []string{"--admin", "unix/" + socket}
		}, "--admin"},
		{"admin open to the network", func(*testing.T) []string { return []string{"--admin", "0.0.0.0:2019"} }, "--admin"},
		{"bad duration", func(*testing.T) []string { return []string{"--hold", "soon"} }, "--hold"},
		{"bad Docker endpoint", func(*testing.T) []string { return []string{"--docker", "gopher://x"} }, "--docker"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data, err := os.MkdirTemp(dir, "d")
			if err != nil {
				t.Fatal(err)
			}
			args := append([]string{
				"up", "--bind", "127.0.0.1", "--http-port", strconv.Itoa(freePort()), "--https-port", strconv.Itoa(freePort()), "--data-dir", data,
			}, tt.args(t)...)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			out, err := exec.CommandContext(ctx, config.bin, args...).CombinedOutput()
			if err == nil || ctx.Err() != nil {
				t.Fatalf("it did not end by itself (%v):\n%s", err, out)
			}
			if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
				t.Errorf("exit: %v, want 1", err)
			}
			text := strings.TrimSpace(string(out))
			if strings.Count(text, "\n") > 0 || !strings.Contains(text, tt.want) {
				t.Errorf("it says:\n%s\nwant one line that names %s", text, tt.want)
			}
		})
	}
}

// Two programs on one data folder would spoil each other's certificates.
func TestDataFolderIsLocked(t *testing.T) {
	d := up(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, config.bin, "up", "--bind", "127.0.0.1",
		"--http-port", strconv.Itoa(freePort()), "--https-port", strconv.Itoa(freePort()), "--data-dir", d.data).CombinedOutput()
	if err == nil || !strings.Contains(string(out), d.data) {
		t.Errorf("second start: %v\n%s", err, out)
	}
	info, err := os.Stat(filepath.Join(d.data, "admin.sock"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("admin socket: %v, %v; want mode 0600", info, err)
	}
	if _, err := d.run("sources"); err != nil {
		t.Errorf("the first one is disturbed: %v", err)
	}
}
