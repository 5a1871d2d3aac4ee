package volume_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup/volume"
)

var errFault = errors.New("fault")

// faulty is a sink that fails after a number of bytes, in one of several ways.
type faulty struct {
	mode string
	mu   sync.Mutex
	left int
}

func (f *faulty) Segment(n int) (io.WriteCloser, error) {
	if f.mode == "segment" && n > 0 {
		return nil, errFault
	}
	return &faultyFile{f, "segment"}, nil
}

func (f *faulty) Index() (io.WriteCloser, error) {
	if f.mode == "index" {
		return nil, errFault
	}
	return &faultyFile{f, "index"}, nil
}

type faultyFile struct {
	f    *faulty
	kind string
}

func (w *faultyFile) Write(p []byte) (int, error) {
	w.f.mu.Lock()
	defer w.f.mu.Unlock()
	if w.f.left -= len(p); w.f.left > 0 {
		return len(p), nil
	}
	switch w.f.mode + " " + w.kind {
	case "write segment", "write index segment", "index write index":
		return 0, errFault
	case "short segment", "short index index":
		return len(p) / 2, nil
	}
	return len(p), nil
}

func (w *faultyFile) Close() error {
	if w.f.mode == "close" || w.f.mode == "close index" && w.kind == "index" {
		return errFault
	}
	return nil
}

// settled waits until no more goroutines run than before.
func settled(t *testing.T, before int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines run, before there were %d:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
		runtime.Gosched()
	}
}

func TestReadFaultySink(t *testing.T) {
	root := t.TempDir()
	for i := range 17 { // more than one segment
		must(t, os.WriteFile(filepath.Join(root, fmt.Sprint(i)), noise(4<<20, byte(i)), 0o644))
	}
	for _, mode := range []string{"segment", "index", "write", "index write", "short", "short index", "close", "close index"} {
		for _, left := range []int{1, 10 << 20} {
			if strings.Contains(mode, "index") && left > 1 {
				continue
			}
			t.Run(fmt.Sprintf("%s %d", mode, left), func(t *testing.T) {
				before := runtime.NumGoroutine()
				tree, err := volume.Read(t.Context(), root, &faulty{mode: mode, left: left}, volume.ReadOptions{})
				if err == nil || tree != nil {
					t.Fatalf("Read = %v, %v, want an error", tree, err)
				}
				if !errors.Is(err, errFault) && !errors.Is(err, io.ErrShortWrite) {
					t.Errorf("Read = %v, want the sink's error", err)
				}
				settled(t, before)
			})
		}
	}
}

// noise is data that does not compress.
func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func TestCancel(t *testing.T) {
	root := t.TempDir()
	for i := range 20 {
		must(t, os.WriteFile(filepath.Join(root, fmt.Sprint(i)), noise(4<<20, byte(i)), 0o644))
	}
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := volume.Read(ctx, root, volume.NewTransit(t.TempDir(), "v", 0), volume.WithHooks(volume.ReadOptions{}, nil, func(path string) {
		if path == "15" {
			cancel(errFault)
		}
	}))
	if !errors.Is(err, errFault) {
		t.Errorf("Read = %v, want the cause", err)
	}
	settled(t, before)

	tree, dir := read(t, root, volume.ReadOptions{})
	before = runtime.NumGoroutine()
	ctx, cancel = context.WithCancelCause(t.Context())
	data := io.MultiReader(io.LimitReader(stream(t, dir, tree), 30<<20), readerFunc(func([]byte) (int, error) {
		cancel(errFault)
		return 0, errors.New("the other side is gone")
	}))
	if _, err = volume.Write(ctx, t.TempDir(), data, volume.WriteOptions{}); err == nil {
		t.Error("Write = nil, want an error")
	}
	settled(t, before+5) // the frame reader is closed when the test ends
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func tmpfs(t *testing.T, size string) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	mount(t, "tmpfs", dir, "tmpfs", "size="+size, 0)
	return dir
}

func TestTransitFull(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "f"), noise(20<<20, 1), 0o644))
	for name, reserve := range map[string]int64{"full": 0, "reserve": 6 << 20, "reserve at the start": 100 << 20} {
		t.Run(name, func(t *testing.T) {
			dir := tmpfs(t, "16m")
			transit := volume.NewTransit(dir, "v", reserve)
			before := runtime.NumGoroutine()
			_, err := volume.Read(t.Context(), root, transit, volume.ReadOptions{})
			transit.Wait()
			if !errors.Is(err, volume.ErrSpace) || !strings.Contains(err.Error(), dir) {
				t.Errorf("Read = %v, want ErrSpace that names %s", err, dir)
			}
			settled(t, before)
			if _, err := os.Stat(filepath.Join(dir, "v.tree.json")); err == nil {
				t.Error("there is a tree, although not all was read")
			}
			var st unix.Statfs_t
			must(t, unix.Statfs(dir, &st))
			if reserve == 6<<20 && st.Bavail < 256 {
				t.Errorf("%d blocks are left of the reserve", st.Bavail)
			}
		})
	}
}

func TestTargetFull(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "a"), noise(9<<20, 1), 0o644))
	for i := range 100 {
		must(t, os.WriteFile(filepath.Join(root, fmt.Sprint("f", i)), noise(100<<10, 1), 0o644))
	}
	tree, dir := read(t, root, volume.ReadOptions{})
	for _, size := range []string{"4m", "12m"} {
		to := tmpfs(t, size)
		_, err := volume.Write(t.Context(), to, stream(t, dir, tree), volume.WriteOptions{})
		if !errors.Is(err, volume.ErrSpace) || !errors.Is(err, unix.ENOSPC) {
			t.Errorf("Write into %s = %v, want ErrSpace", size, err)
		}
	}
}

// A stream that breaks off at any place is an error.
func TestWriteCutOff(t *testing.T) {
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "d"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "d", "a"), []byte("a"), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "d", "b"), noise(1<<20, 1), 0o644))
	must(t, os.Symlink("x", filepath.Join(root, "l")))
	tree, dir := read(t, root, volume.ReadOptions{})
	data, err := io.ReadAll(stream(t, dir, tree))
	must(t, err)
	for _, n := range []int{0, 1, 511, 512, 1024, 1500, 3000, 4096, 600000, 1 << 20, len(data) - 1536, len(data) - 1024, len(data) - 512, len(data) - 1} {
		if _, err := volume.Write(t.Context(), t.TempDir(), bytes.NewReader(data[:n]), volume.WriteOptions{}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("Write of %d bytes of %d = %v, want ErrUnexpectedEOF", n, len(data), err)
		}
	}
}
