package volume_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup/volume"
)

// mostOpen is how many descriptors may be open: those of the folders above, and those of
// what is under way.
const mostOpen = 350

// most keeps the largest number of descriptors that this process had open.
type most struct{ n atomic.Int64 }

func (m *most) look(t *testing.T) {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Error(err)
	}
	if n := int64(len(open)); n > m.n.Load() {
		m.n.Store(n)
	}
}

// fileInEach makes folders in folders, each with a file.
func fileInEach(t *testing.T, root string, depth int) {
	t.Helper()
	t.Cleanup(func() { removeDeep(root) })
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	for range depth {
		f, err := unix.Openat(fd, "a", unix.O_CREAT|unix.O_WRONLY, 0o644)
		must(t, err)
		_, err = unix.Write(f, make([]byte, 100))
		must(t, err)
		unix.Close(f)
		must(t, unix.Mkdirat(fd, "f", 0o755))
		next, err := unix.Openat(fd, "f", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
}

// TestReadDescriptors: what reads files lags behind what finds them.
func TestReadDescriptors(t *testing.T) {
	const depth = 3000
	root := t.TempDir()
	fileInEach(t, root, depth)
	var m most
	opts := volume.WithHooks(volume.ReadOptions{Readers: 8},
		func(string) { m.look(t) },
		func(string) { <-time.After(time.Millisecond) })
	tree, _ := read(t, root, opts)
	if tree.Entries < depth {
		t.Fatalf("%d entries, want %d", tree.Entries, depth)
	}
	t.Logf("at most %d descriptors were open", m.n.Load())
	if n := m.n.Load(); n > mostOpen {
		t.Errorf("%d descriptors were open, want at most %d", n, mostOpen)
	}
	again, _ := read(t, root, volume.ReadOptions{})
	if again.Hash != tree.Hash {
		t.Errorf("hash %s, want %s", tree.Hash, again.Hash)
	}
}

// TestWriteDescriptors: what writes files lags behind what makes their folders.
func TestWriteDescriptors(t *testing.T) {
	const depth = 3000
	root, to := t.TempDir(), t.TempDir()
	fileInEach(t, root, depth)
	t.Cleanup(func() { removeDeep(to) })
	tree, dir := read(t, root, volume.ReadOptions{})
	var m most
	looking, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		for {
			select {
			case <-looking:
				return
			case <-time.After(time.Millisecond):
				m.look(t)
			}
		}
	}()
	result, err := volume.Write(t.Context(), to, stream(t, dir, tree), volume.WriteOptions{Writers: 8})
	close(looking)
	<-over
	must(t, err)
	if result.Hash != tree.Hash {
		t.Errorf("hash %s, want %s", result.Hash, tree.Hash)
	}
	t.Logf("at most %d descriptors were open", m.n.Load())
	if n := m.n.Load(); n > mostOpen {
		t.Errorf("%d descriptors were open, want at most %d", n, mostOpen)
	}
}

// TestRemoveDeep: a tree is removed however deep it is.
func TestRemoveDeep(t *testing.T) {
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "tree"), 0o755))
	fileInEach(t, filepath.Join(root, "tree"), 3000)
	out := t.TempDir()
	must(t, os.WriteFile(filepath.Join(out, "kept"), nil, 0o644))
	must(t, os.Symlink(out, filepath.Join(root, "tree/f/way")))
	var before, now unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &before))
	now = unix.Rlimit{Cur: 500, Max: before.Max}
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &now))
	defer func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &before)) }()
	code, _, said := helper(t.Context(), nil, "host", volume.HostArgs{Root: root, Do: []volume.HostStep{{Op: "remove", A: "tree"}}})
	if code != 0 {
		t.Fatalf("remove ends with %d: %s", code, said)
	}
	if _, err := os.Lstat(filepath.Join(root, "tree")); !os.IsNotExist(err) {
		t.Errorf("it is there still: %v", err)
	}
	if _, err := os.Stat(filepath.Join(out, "kept")); err != nil {
		t.Errorf("what a link leads to was removed: %v", err)
	}
}

// TestTransitShort: a file that could not be written whole does not get its name.
func TestTransitShort(t *testing.T) {
	dir := tmpfs(t, "1m")
	transit := volume.NewTransit(dir, "v", 0)
	w, err := transit.Segment(0)
	must(t, err)
	if _, err := w.Write(noise(2<<20, 1)); err == nil {
		t.Fatal("all was written: the test shows nothing")
	}
	_ = w.Close()
	transit.Wait()
	if _, err := os.Stat(filepath.Join(dir, "v.tar.zst.00000")); err == nil {
		t.Error("a segment has its name, although it is not whole")
	}
	// The same where the reading fails.
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "f"), noise(4<<20, 1), 0o644))
	full := tmpfs(t, "2m")
	transit = volume.NewTransit(full, "v", 0)
	if _, err := volume.Read(t.Context(), root, transit, volume.ReadOptions{}); err == nil {
		t.Fatal("all was read: the test shows nothing")
	}
	transit.Wait()
	left, err := os.ReadDir(full)
	must(t, err)
	for _, e := range left {
		if !strings.HasSuffix(e.Name(), ".partial") {
			t.Errorf("%s has its name, although not all was read", e.Name())
		}
	}
}
