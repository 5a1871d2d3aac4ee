package tarx_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup/tarx"
)

// gnuTar runs GNU tar, or skips the test where that is not installed.
func gnuTar(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("tar", "--version").Output(); err != nil || !bytes.Contains(out, []byte("GNU tar")) {
		t.Skip("GNU tar is not installed")
	}
	cmd := exec.Command("tar", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("tar %q: %v\n%s", args, err, out)
	}
}

// onDisk reads a folder; links are names of one file.
func onDisk(t *testing.T, dir string) (all map[string]node, links map[string][]string) {
	t.Helper()
	all, links = map[string]node{}, map[string][]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		n := node{
			Mode: int64(st.Mode & 07777), UID: int64(st.Uid), GID: int64(st.Gid), Sec: st.Mtim.Sec, Nsec: st.Mtim.Nsec,
			Xattrs: xattrs(t, path),
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			n.Type, n.Size = tarx.TypeFile, st.Size
			n.Content = fileContent(t, path)
			n.Sparse = st.Blocks*512 < st.Size
			if st.Nlink > 1 {
				key := fmt.Sprint(st.Ino)
				links[key] = append(links[key], name)
			}
		case unix.S_IFLNK:
			n.Type = tarx.TypeSymlink
			n.Link, err = os.Readlink(path)
		case unix.S_IFDIR:
			n.Type = tarx.TypeFolder
			name = strings.TrimSuffix(name, ".") + "/"
			if name == "/" {
				name = "./"
			}
		case unix.S_IFIFO:
			n.Type = tarx.TypeFIFO
		case unix.S_IFCHR, unix.S_IFBLK:
			n.Type = tarx.TypeChar
			if st.Mode&unix.S_IFMT == unix.S_IFBLK {
				n.Type = tarx.TypeBlock
			}
			n.Major, n.Minor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
		}
		all[name] = n
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, links
}

// fileContent reads the data of a file, not its holes.
func fileContent(t *testing.T, path string) (s string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var at int64
	for {
		start, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return s
		}
		if err != nil {
			t.Fatal(err)
		}
		if at, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, at-start)
		if _, err := f.ReadAt(b, start); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		s += content(start, b)
	}
}

func xattrs(t *testing.T, path string) map[string]string {
	t.Helper()
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]string
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		if name == "" || name == "security.selinux" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		if all == nil {
			all = map[string]string{}
		}
		all[name] = string(value[:n])
	}
	return all
}

// TestGNUTarExtracts lets GNU tar make files of what we wrote.
func TestGNUTarExtracts(t *testing.T) {
	entries := tree()
	dir := t.TempDir()
	archive := filepath.Join(dir, "a.tar")
	if err := os.WriteFile(archive, write(t, entries), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o700); err != nil {
		t.Fatal(err)
	}
	gnuTar(t, "--acls", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--delay-directory-restore", "--warning=no-timestamp", "-C", out, "-xpf", archive)
	got, links := onDisk(t, out)
	if diff := cmp.Diff(nodes(entries), got); diff != "" {
		t.Errorf("tree extracted by GNU tar (-want +got):\n%s", diff)
	}
	names := slices.SortedFunc(maps.Values(links), slices.Compare)
	want := [][]string{{"hard link", "plain"}, {"hard link to latin", "latin \xe9\xff\xfe"}}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("hard links (-want +got):\n%s", diff)
	}
}

// TestReadGNUTar reads what GNU tar writes, in all of its formats.
func TestReadGNUTar(t *testing.T) {
	entries := tree()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.tar"), write(t, entries), 0o600); err != nil {
		t.Fatal(err)
	}
	src := filepath.Join(dir, "src")
	if err := os.Mkdir(src, 0o700); err != nil {
		t.Fatal(err)
	}
	gnuTar(t, "--acls", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--delay-directory-restore", "--warning=no-timestamp", "-C", src, "-xpf", filepath.Join(dir, "a.tar"))
	all, _ := onDisk(t, src)

	plain := func(n node) node {
		n.Xattrs, n.Nsec = nil, 0
		return n
	}
	tests := []struct {
		name string
		args []string
		// keep tells what the format can hold, nil for what it cannot.
		keep func(name string, n node) *node
	}{
		{"pax", []string{"--format=pax", "--acls", "--xattrs", "--xattrs-include=*"}, func(_ string, n node) *node { return &n }},
		{"pax 0.1", []string{"--format=pax", "--sparse-version=0.1", "--acls", "--xattrs", "--xattrs-include=*"}, func(_ string, n node) *node { return &n }},
		{"pax 0.0", []string{"--format=pax", "--sparse-version=0.0", "--acls", "--xattrs", "--xattrs-include=*"}, func(_ string, n node) *node { return &n }},
		{"gnu", []string{"--format=gnu"}, func(_ string, n node) *node {
			n = plain(n)
			return &n
		}},
		{"oldgnu", []string{"--format=oldgnu"}, func(_ string, n node) *node {
			n = plain(n)
			return &n
		}},
		{"ustar", []string{"--format=ustar"}, func(name string, n node) *node {
			if n.Size > 1<<30 || len(name) > 98 && !strings.HasSuffix(name, "/"+strings.Repeat("q", 90)) || len(n.Link) > 100 || n.UID >= 1<<21 || n.Sec < 0 || n.Sec >= 1<<33 {
				return nil
			}
			n = plain(n)
			n.Sparse = false
			return &n
		}},
		{"v7", []string{"--format=v7"}, func(name string, n node) *node {
			if n.Size > 1<<30 || len(name) > 98 || len(n.Link) > 100 || n.UID >= 1<<21 || n.Sec < 0 || n.Sec >= 1<<33 || n.Type != tarx.TypeFile && n.Type != tarx.TypeFolder && n.Type != tarx.TypeSymlink {
				return nil
			}
			n = plain(n)
			n.Sparse = false
			return &n
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := map[string]node{}
			args := append([]string{"--numeric-owner", "--sparse", "--no-recursion", "--null", "--verbatim-files-from", "-C", src}, tt.args...)
			if strings.HasPrefix(tt.args[0], "--format=ustar") || strings.HasPrefix(tt.args[0], "--format=v7") {
				args = slices.DeleteFunc(args, func(s string) bool { return s == "--sparse" })
			}
			var list bytes.Buffer
			for _, name := range slices.Sorted(maps.Keys(all)) {
				if n := tt.keep(name, all[name]); n != nil {
					want[name] = *n
					list.WriteString("./" + strings.TrimPrefix(name, "./") + "\x00")
				}
			}
			names, archive := filepath.Join(dir, "names"), filepath.Join(dir, "b.tar")
			if err := os.WriteFile(names, list.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			gnuTar(t, append(args, "-T", names, "-cf", archive)...)
			f, err := os.Open(archive)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got, err := read(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range got {
				if len(e.Header.Notes) > 0 {
					t.Errorf("notes of %q: %q", e.Header.Name, e.Header.Notes)
				}
			}
			if diff := cmp.Diff(want, nodes(got)); diff != "" {
				t.Errorf("tree written by GNU tar (-want +got):\n%.5000s", diff)
			}
		})
	}
}

// TestGNUTarListsLarge lets GNU tar list a file whose size does not fit its header.
func TestGNUTarListsLarge(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("tar is not installed")
	}
	const size = 1<<33 + 5
	h := tarx.Header{Name: "large", Type: tarx.TypeFile, Size: size, ModTime: time.Unix(1e9, 0)}
	b, err := tarx.AppendHeader(nil, &h)
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "a.tar")
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	end := int64(len(b)) + size + int64(tarx.Padding(&h))
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	// The content is a hole in the archive.
	if _, err := f.WriteAt(write(t, []entry{{Header: tarx.Header{Name: "next", Type: tarx.TypeFIFO, ModTime: time.Unix(1e9, 0)}}}), end); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tar", "--numeric-owner", "-tvf", archive)
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("tar -tv: %v\n%s", err, out)
	}
	if got := strings.Fields(string(out)); len(got) != 12 || got[2] != fmt.Sprint(size) || got[11] != "./next" {
		t.Errorf("tar -tv printed\n%swant a file of %d bytes and ./next", out, size)
	}
}
