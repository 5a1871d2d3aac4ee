package frame_test

import (
	"bytes"
	"os/exec"
	"testing"

	"github.com/dentropy/dentropycloud/backup/frame"
)

// zstdCLI runs the zstd program, or skips the test where that is not installed.
func zstdCLI(t *testing.T, in []byte, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath("zstd"); err != nil {
		t.Skip("zstd is not installed")
	}
	cmd := exec.Command("zstd", args...)
	cmd.Stdin = bytes.NewReader(in)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("zstd %q: %v\n%s", args, err, errs.Bytes())
	}
	return out.Bytes()
}

// TestZstdReadsOurs gives what we write to the zstd program, which takes no empty stream.
func TestZstdReadsOurs(t *testing.T) {
	for _, kind := range kinds {
		for _, size := range []int{1, 255, 256, 65791, 65792, 128 << 10, 128<<10 + 1, frame.FrameSize + 3} {
			data := kind.make(size)
			packed := pack(t, data)
			if got := zstdCLI(t, packed, "-dc"); !bytes.Equal(got, data) {
				t.Errorf("zstd -d of %d bytes of %s gives %d others", size, kind.name, len(got))
			}
			zstdCLI(t, packed, "-t")
		}
	}
}

// TestReadZstd reads what the zstd program writes.
func TestReadZstd(t *testing.T) {
	tests := map[string][]string{
		"fast":            {"-1", "-T0", "-c"},
		"stream":          {"-3", "-c", "-"},
		"no checksum":     {"-1", "--no-check", "-c"},
		"small blocks":    {"-1", "-B1MiB", "-T2", "-c"},
		"best":            {"-19", "-c"},
		"very fast":       {"--fast=10", "-c"},
		"window":          {"-3", "--long=27", "-c"},
		"size of the app": {"-1", "-c", "--stream-size=9000000"},
	}
	data := mixed(9000000)
	for name, args := range tests {
		t.Run(name, func(t *testing.T) {
			in := data
			if name == "best" {
				in = data[:1<<20]
			}
			packed := zstdCLI(t, in, args...)
			for _, workers := range []int{1, 2} {
				// Twice: a frame may follow a large one.
				got, err := unpack(bytes.NewReader(bytes.Repeat(packed, 2)), workers)
				if err != nil || !bytes.Equal(got, bytes.Repeat(in, 2)) {
					t.Errorf("with %d workers %d bytes, %v, want %d", workers, len(got), err, 2*len(in))
				}
			}
		})
	}
}
