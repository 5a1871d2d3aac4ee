package volume_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/tarx"
	"github.com/dentropy/dentropycloud/backup/volume"
)

// kinds are the notes as "kind path", without those that depend on our rights.
func kinds(notes []backup.Note) []string {
	out := []string{}
	for _, n := range notes {
		if n.Kind != "unsupported" {
			out = append(out, n.Kind+" "+n.Path)
		}
	}
	return out
}

// What the tree hash is made of, written down by hand as the package comment says.
func TestHashByHand(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	when := time.Unix(1700000000, 5)
	must(t, os.Mkdir(filepath.Join(root, "a"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "a", "x y%"), []byte("hello"), 0o640))
	must(t, os.Chown(filepath.Join(root, "a", "x y%"), 7, 8))
	must(t, unix.Setxattr(filepath.Join(root, "a", "x y%"), "user.k=", []byte{1, 255}, 0))
	must(t, os.Link(filepath.Join(root, "a", "x y%"), filepath.Join(root, "b")))
	must(t, os.Mkdir(filepath.Join(root, "a!"), 0o700)) // "!" is less than "/"
	must(t, os.Symlink("to ü", filepath.Join(root, "l")))
	must(t, os.Symlink("-", filepath.Join(root, "m")))
	must(t, unix.Mknod(filepath.Join(root, "null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	must(t, os.WriteFile(filepath.Join(root, "zero"), make([]byte, 8<<20+3), 0o600))
	for _, name := range []string{"a/x y%", "a", "a!", "null", "zero"} {
		setTimes(t, filepath.Join(root, name), when)
	}
	must(t, os.Chmod(root, 0o777|os.ModeSticky))
	setTimes(t, root, time.Unix(-2, 500000000))
	hello := "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
	rest := sha256.Sum256(make([]byte, 3))
	zero := sha256.Sum256(append(rest[:], "0+2\n"...))
	text := strings.Join([]string{
		"dentropy-tree 1",
		". 5 1777 0 0 - -2.500000000 - - - -",
		"a 5 0755 0 0 - 1700000000.000000005 - - - -",
		"a/x%20y%25 0 0640 7 8 5 1700000000.000000005 - - " + hello + " user.k%3D=01ff",
		"a! 5 0700 0 0 - 1700000000.000000005 - - - -",
		"b 1 - - - - - - a/x%20y%25 - -",
		"l 2 - 0 0 - - - to%20%C3%BC - -",
		"m 2 - 0 0 - - - %2D - -",
		"null 3 0600 0 0 - 1700000000.000000005 1:3 - - -",
		"zero 0 0600 0 0 8388611 1700000000.000000005 - - z:" + hex.EncodeToString(zero[:]) + " -",
		"",
	}, "\n")
	want := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text)))
	sums, _, err := volume.Hash(t.Context(), root, volume.ReadOptions{})
	must(t, err)
	if sums.Hash != want {
		t.Errorf("Hash = %s, want %s of\n%s", sums.Hash, want, text)
	}
	contents := strings.Join([]string{
		"dentropy-contents 1",
		"a/x%20y%25 0 5 - " + hello,
		"b 1 - a/x%20y%25 -",
		"l 2 - to%20%C3%BC -",
		"m 2 - %2D -",
		"null 3 - - -",
		"zero 0 8388611 - z:" + hex.EncodeToString(zero[:]),
		"",
	}, "\n")
	if want := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(contents))); sums.Contents != want {
		t.Errorf("Contents = %s, want %s of\n%s", sums.Contents, want, contents)
	}
}

// Segments, frames, index and offsets are what they are said to be.
func TestReadOutput(t *testing.T) {
	root := t.TempDir()
	oddTree(t, root)
	tree, dir := read(t, root, volume.ReadOptions{Readers: 3})
	for i, s := range tree.Segments {
		data, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("v.tar.zst.%05d", i)))
		must(t, err)
		if got := fmt.Sprintf("%x", sha256.Sum256(data)); got != s.SHA256 || int64(len(data)) != s.Size {
			t.Errorf("segment %d: %d bytes, %s; tree: %d, %s", i, len(data), got, s.Size, s.SHA256)
		}
	}
	tar, err := io.ReadAll(stream(t, dir, tree))
	must(t, err)
	if int64(len(tar)) != tree.TarSize {
		t.Errorf("the tar has %d bytes, the tree says %d", len(tar), tree.TarSize)
	}
	packedIndex, err := os.ReadFile(filepath.Join(dir, "v.files.ndjson.zst"))
	must(t, err)
	if got := fmt.Sprintf("%x", sha256.Sum256(packedIndex)); got != tree.Index.SHA256 || int64(len(packedIndex)) != tree.Index.Size {
		t.Errorf("index: %d bytes, %s; tree: %+v", len(packedIndex), got, tree.Index)
	}
	dec, err := zstd.NewReader(bytes.NewReader(packedIndex))
	must(t, err)
	defer dec.Close()
	lines := json.NewDecoder(dec)
	r := tarx.NewReader(bytes.NewReader(tar))
	var n int64
	for ; ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		var e backup.FileEntry
		must(t, lines.Decode(&e))
		path := e.Path + string(e.PathBytes)
		want := strings.TrimSuffix(h.Name, "/")
		if path != want || e.Offset != r.Offset() || e.Type != string(rune(h.Type)) || e.Mode != h.Mode || e.UID != h.UID ||
			e.GID != h.GID || e.Size != h.Size || e.MTime != h.ModTime.UnixNano() || e.Link+string(e.LinkBytes) != h.Link {
			t.Errorf("index: %+v, tar: %+v at %d", e, h, r.Offset())
		}
		if h.Type != '0' || h.Size > 1<<30 {
			continue
		}
		content := make([]byte, h.Size)
		at := h.Data
		if at == nil {
			at = []tarx.Extent{{Length: h.Size}}
		}
		for _, x := range at {
			_, err := io.ReadFull(r, content[x.Offset:x.Offset+x.Length])
			must(t, err)
		}
		if sum := fmt.Sprintf("%x", sha256.Sum256(content)); e.SHA256 != "" && e.SHA256 != sum || e.SHA256 == "" && e.ZeroSHA256 == "" {
			t.Errorf("index: %q has hash %q, content %s", path, e.SHA256, sum)
		}
	}
	if n != tree.Entries {
		t.Errorf("the tar has %d entries, the tree says %d", n, tree.Entries)
	}
	again, _ := read(t, root, volume.ReadOptions{Readers: 1, Workers: 1})
	if again.Hash != tree.Hash || again.TarSize != tree.TarSize || !slices.Equal(again.Segments[0].Frames, tree.Segments[0].Frames) {
		t.Errorf("reading again gives another tree: %s, %d; %s, %d", again.Hash, again.TarSize, tree.Hash, tree.TarSize)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.partial"))
	if err != nil || len(left) > 0 {
		t.Errorf("partial files are left: %v, %v", left, err)
	}
}

func TestReadChanges(t *testing.T) {
	build := func(t *testing.T) string {
		root := t.TempDir()
		for _, dir := range []string{"a", "b", "c"} {
			must(t, os.Mkdir(filepath.Join(root, dir), 0o755))
			for _, f := range []string{"1", "2"} {
				must(t, os.WriteFile(filepath.Join(root, dir, f), bytes.Repeat([]byte(f), 3<<20), 0o644))
			}
		}
		return root
	}
	for name, tc := range map[string]struct {
		at   string // path for the hook opened, or folder with a slash for listed
		do   func(root string) error
		want []string
		size int64 // of the entry b/1
	}{
		"grows": {"b/1", func(root string) error {
			f, err := os.OpenFile(filepath.Join(root, "b/1"), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteString("more")
			return err
		}, []string{"changed b/1"}, 3 << 20},
		"shrinks":                {"b/1", func(root string) error { return os.Truncate(filepath.Join(root, "b/1"), 1000) }, []string{"changed b/1"}, 3 << 20},
		"is written to":          {"b/1", func(root string) error { return os.WriteFile(filepath.Join(root, "b/1"), make([]byte, 3<<20), 0) }, []string{"changed b/1"}, 3 << 20},
		"is removed when open":   {"b/1", func(root string) error { return os.Remove(filepath.Join(root, "b/1")) }, []string{"changed b/1"}, 3 << 20},
		"is removed when listed": {"b/", func(root string) error { return os.Remove(filepath.Join(root, "b/1")) }, []string{"vanished b/1"}, -1},
		"folder is removed":      {"", func(root string) error { return os.RemoveAll(filepath.Join(root, "b")) }, []string{"vanished b"}, -1},
		"turns into a link":      {"b/", swapFor(func(path string) error { return os.Symlink("/etc/passwd", path) }), []string{"vanished b/1"}, -1},
		"turns into a FIFO":      {"b/", swapFor(func(path string) error { return unix.Mkfifo(path, 0o644) }), []string{"vanished b/1"}, -1},
		"turns into a folder":    {"b/", swapFor(func(path string) error { return os.Mkdir(path, 0o755) }), []string{"vanished b/1"}, -1},
		"folder turns into a link": {"", func(root string) error {
			return errors.Join(os.RemoveAll(filepath.Join(root, "b")), os.Symlink("/etc", filepath.Join(root, "b")))
		}, []string{"vanished b"}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			root := build(t)
			hook := func(path string) {
				if path == tc.at {
					if err := tc.do(root); err != nil {
						t.Error(err)
					}
				}
			}
			dir := t.TempDir()
			transit := volume.NewTransit(dir, "v", 0)
			tree, err := volume.Read(t.Context(), root, transit, volume.WithHooks(volume.ReadOptions{Quiesced: true}, hook, hook))
			if !errors.Is(err, volume.ErrTorn) || tree == nil {
				t.Fatalf("Read while stopped = %v, %v, want a tree and ErrTorn", tree, err)
			}
			_, err = transit.Commit(tree)
			must(t, err)
			if diff := cmp.Diff(tc.want, kinds(tree.Notes)); diff != "" {
				t.Errorf("notes (-want +got):\n%s", diff)
			}
			r := tarx.NewReader(stream(t, dir, tree))
			size := int64(-1)
			for {
				h, err := r.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				must(t, err)
				if h.Name == "b/1" {
					size = h.Size
				}
			}
			if size != tc.size {
				t.Errorf("b/1 has size %d, want %d", size, tc.size)
			}
		})
	}
}

func swapFor(make func(path string) error) func(root string) error {
	return func(root string) error {
		path := filepath.Join(root, "b/1")
		return errors.Join(os.Remove(path), make(path))
	}
}

func TestReadLeftOut(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"in/sub", "out/deep", "lost+found", "x"} {
		must(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	for _, f := range []string{"in/f", "in/skip", "out/f", "out/deep/f", "x/f"} {
		must(t, os.WriteFile(filepath.Join(root, f), []byte(f), 0o644))
	}
	l, err := net.Listen("unix", filepath.Join(root, "in", "s"))
	must(t, err)
	defer l.Close()
	for name, tc := range map[string]struct {
		opts  volume.ReadOptions
		paths []string
		notes []string
	}{
		"all": {
			volume.ReadOptions{},
			[]string{"./", "in/", "in/f", "in/skip", "in/sub/", "out/", "out/deep/", "out/deep/f", "out/f", "x/", "x/f"},
			[]string{"socket in/s"},
		},
		"exclude": {
			volume.ReadOptions{Exclude: map[string]string{"out": "another volume", "in/skip": "no", "none": "x"}},
			[]string{"./", "in/", "in/f", "in/sub/", "x/", "x/f"},
			[]string{"excluded in/skip", "socket in/s", "excluded out"},
		},
		"only": {
			volume.ReadOptions{Only: []string{"out/deep", "/x/f", "none/at/all"}},
			[]string{"./", "out/", "out/deep/", "out/deep/f", "x/", "x/f"},
			[]string{},
		},
		"only and exclude": {
			volume.ReadOptions{Only: []string{"."}, Exclude: map[string]string{"./in/": "x", "out/deep": "y"}},
			[]string{"./", "out/", "out/f", "x/", "x/f"},
			[]string{"excluded in", "excluded out/deep"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tree, dir := read(t, root, tc.opts)
			var paths []string
			r := tarx.NewReader(stream(t, dir, tree))
			for {
				h, err := r.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				must(t, err)
				paths = append(paths, h.Name)
			}
			if diff := cmp.Diff(tc.paths, paths); diff != "" {
				t.Errorf("paths (-want +got):\n%s", diff)
			}
			slices.Sort(tc.notes)
			got := kinds(tree.Notes)
			slices.Sort(got)
			if diff := cmp.Diff(tc.notes, got); diff != "" {
				t.Errorf("notes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadMounts(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	for _, dir := range []string{"disk", "bind", "real"} {
		must(t, os.Mkdir(filepath.Join(root, dir), 0o755))
	}
	must(t, os.WriteFile(filepath.Join(root, "real", "f"), []byte("f"), 0o644))
	mount(t, "tmpfs", filepath.Join(root, "disk"), "tmpfs", "size=1m", 0)
	must(t, os.WriteFile(filepath.Join(root, "disk", "inside"), []byte("f"), 0o644))
	mount(t, filepath.Join(root, "real"), filepath.Join(root, "bind"), "", "", unix.MS_BIND)
	must(t, os.WriteFile(filepath.Join(root, "secret"), nil, 0o600))
	mount(t, filepath.Join(root, "real", "f"), filepath.Join(root, "secret"), "", "", unix.MS_BIND)
	tree, _ := read(t, root, volume.ReadOptions{})
	if diff := cmp.Diff([]string{"mount bind", "mount disk", "mount secret"}, kinds(tree.Notes)); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	if tree.Entries != 3 {
		t.Errorf("entries = %d, want 3: root, real, real/f", tree.Entries)
	}
}

func mount(t *testing.T, from, to, kind, opts string, flags uintptr) {
	t.Helper()
	if err := unix.Mount(from, to, kind, flags, opts); err != nil {
		t.Skipf("cannot mount here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(to, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func TestReadFlags(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	file := filepath.Join(root, "f")
	must(t, os.WriteFile(file, []byte("f"), 0o644))
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, unix.STATX_ATTR_IMMUTABLE); err != nil {
		t.Skipf("no flags here: %v", err)
	}
	defer func() { must(t, unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0)) }()
	tree, _ := read(t, root, volume.ReadOptions{})
	if diff := cmp.Diff([]string{"flags f"}, kinds(tree.Notes)); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
}
