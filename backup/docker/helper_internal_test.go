package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/system"

	"github.com/dentropy/dentropycloud/backup"
)

func TestInspectBinary(t *testing.T) {
	dir := t.TempDir()
	static := filepath.Join(dir, "static")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", static, "./testdata/app")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm64")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	dynamic, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("there is no sh")
	}
	tests := []struct{ path, arch, err string }{
		{static, "arm64", ""},
		{text, "", "no Linux program"},
		{dynamic, "", "linked dynamically"},
		{filepath.Join(dir, "none"), "", "cannot be read"},
	}
	images := map[string]bool{}
	for _, args := range [][]string{{"helper"}, {"dentropy", "helper"}} {
		for _, tt := range tests {
			p := &Platform{opts: Options{HelperBinary: tt.path, HelperArgs: args}}
			bin, err := p.inspectBinary()
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(backup.HintOf(err), "DENTROPY_HELPER") {
					t.Errorf("%s: error %v (%s), want %q and what to do", tt.path, err, backup.HintOf(err), tt.err)
				}
				continue
			}
			if err != nil || bin.arch != tt.arch || !strings.HasPrefix(bin.image, helperRepo+":") {
				t.Errorf("%s: %+v, %v", tt.path, bin, err)
			}
			images[bin.image] = true
		}
	}
	if len(images) != 2 {
		t.Errorf("images %v, want one for each way to call the helper", images)
	}
}

func TestFits(t *testing.T) {
	tests := []struct {
		arch string
		info system.Info
		ok   bool
	}{
		{"amd64", system.Info{OSType: "linux", Architecture: "x86_64"}, true},
		{"arm64", system.Info{OSType: "linux", Architecture: "aarch64"}, true},
		{"arm", system.Info{OSType: "linux", Architecture: "armv7l"}, true},
		{"386", system.Info{OSType: "linux", Architecture: "x86_64"}, true},
		{"riscv64", system.Info{OSType: "linux", Architecture: "riscv64"}, true},
		{"amd64", system.Info{}, true}, // it does not say
		{"amd64", system.Info{OSType: "linux", Architecture: "aarch64"}, false},
		{"amd64", system.Info{OSType: "windows", Architecture: "x86_64"}, false},
	}
	for _, tt := range tests {
		if err := fits(tt.arch, tt.info); (err == nil) != tt.ok {
			t.Errorf("%s on %s/%s: %v, want ok %v", tt.arch, tt.info.OSType, tt.info.Architecture, err, tt.ok)
		}
	}
}

func TestHelperConfig(t *testing.T) {
	cfg, host, err := helperConfig("img", helperTask{op: "0a", name: "read", input: map[string]int{"a": 1}, caps: readCaps, mounts: []helperMount{
		{target: "/v/a", volume: "vol"}, {target: "/v/b", bind: "/srv"}, {target: transitDir, volume: "t", write: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case !cfg.NetworkDisabled, host.NetworkMode != "none", !host.ReadonlyRootfs, cfg.Tty, host.LogConfig.Type != "none", host.AutoRemove,
		strings.Join(host.CapDrop, "") != "ALL", strings.Join(host.CapAdd, "") != "DAC_READ_SEARCH", host.Privileged, host.RestartPolicy.Name != "",
		host.Memory != helperMemory, strings.Join(cfg.Cmd, " ") != `read {"a":1}`, cfg.OpenStdin, len(host.Binds) > 0:
		t.Errorf("config %+v, %+v", cfg, host)
	}
	for i, want := range []bool{true, true, false} {
		m := host.Mounts[i]
		if m.ReadOnly != want {
			t.Errorf("%s is read-only: %v, want %v", m.Target, m.ReadOnly, want)
		}
		if m.VolumeOptions != nil && !m.VolumeOptions.NoCopy || m.BindOptions != nil && (!m.BindOptions.NonRecursive || m.BindOptions.CreateMountpoint) {
			t.Errorf("%s: %+v, %+v", m.Target, m.VolumeOptions, m.BindOptions)
		}
		if strings.Contains(m.Source, ".sock") {
			t.Error("the helper sees a socket")
		}
	}
}

func TestGone(t *testing.T) {
	for _, err := range []error{io.EOF, fmt.Errorf("x: %w", io.ErrUnexpectedEOF), errSlow, context.DeadlineExceeded, errdefs.ErrUnavailable} {
		if !gone(err) {
			t.Errorf("gone(%v) = false", err)
		}
	}
	for _, err := range []error{nil, context.Canceled, errdefs.ErrNotFound, errdefs.ErrConflict, errdefs.ErrInternal, errors.New("what an engine says")} {
		if gone(err) {
			t.Errorf("gone(%v) = true", err)
		}
	}
}
