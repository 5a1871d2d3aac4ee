package volume_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/volume"
)

// Without rights: what cannot be read is an error, or a note where that is asked for.
func TestAsNobody(t *testing.T) {
	if os.Getenv("DENTROPY_NOBODY") == "" {
		needRoot(t)
		work, err := os.MkdirTemp("/tmp", "nobody")
		must(t, err)
		defer os.RemoveAll(work)
		must(t, os.Chmod(work, 0o777))
		bin := filepath.Join(work, "test")
		self, err := os.ReadFile("/proc/self/exe")
		must(t, err)
		must(t, os.WriteFile(bin, self, 0o755))
		root := filepath.Join(work, "root")
		must(t, os.Mkdir(root, 0o755))
		must(t, os.WriteFile(filepath.Join(root, "closed"), []byte("x"), 0o600))
		must(t, os.WriteFile(filepath.Join(root, "open"), []byte("x"), 0o644))
		must(t, os.Mkdir(filepath.Join(root, "secret"), 0o700))
		cmd := exec.Command(bin, "-test.run", "^TestAsNobody$", "-test.v")
		cmd.Dir = work
		cmd.Env = append(os.Environ(), "DENTROPY_NOBODY="+work, "TMPDIR="+work)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestAsNobody")) {
			t.Errorf("as nobody: %v\n%s", err, out)
		}
		return
	}
	root := filepath.Join(os.Getenv("DENTROPY_NOBODY"), "root")
	_, err := volume.Read(t.Context(), root, volume.NewTransit(t.TempDir(), "v", 0), volume.ReadOptions{})
	if !errors.Is(err, os.ErrPermission) {
		t.Errorf("Read = %v, want a permission error", err)
	}
	tree, dir := read(t, root, volume.ReadOptions{AllowMissing: true})
	if diff := cmp.Diff([]string{"unreadable closed", "unreadable secret"}, kinds(tree.Notes)); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	if !slices.ContainsFunc(tree.Notes, func(n backup.Note) bool {
		return n.Path == "." && n.Kind == "unsupported" && strings.Contains(n.Text, "trusted")
	}) {
		t.Errorf("notes: %v, want one about trusted attributes", tree.Notes)
	}
	to := t.TempDir()
	result, err := volume.Write(t.Context(), to, stream(t, dir, tree), volume.WriteOptions{})
	must(t, err)
	if len(result.Notes) == 0 || result.Notes[0].Kind != "unsupported" {
		t.Errorf("notes of Write: %v, want that owners are not set", result.Notes)
	}
	sums, _, err := volume.Hash(t.Context(), to, volume.ReadOptions{})
	must(t, err)
	if sums.Hash == tree.Hash || sums.Contents != tree.Contents {
		t.Errorf("on disk %+v; read %s, %s: want the same contents with other owners", sums, tree.Hash, tree.Contents)
	}
	_, err = volume.Write(t.Context(), t.TempDir(), stream(t, dir, tree), volume.WriteOptions{Strict: true})
	if !errors.Is(err, unix.EPERM) {
		t.Errorf("strict Write = %v, want EPERM", err)
	}
}

func TestSingleFile(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	must(t, os.WriteFile(from, bytes.Repeat([]byte("line\n"), 300000), 0o640))
	setTimes(t, from, time.Unix(1, 2))
	must(t, os.WriteFile(to, bytes.Repeat([]byte("longer"), 1e6), 0o600))
	var before unix.Stat_t
	must(t, unix.Stat(to, &before))
	tree, transit := read(t, from, volume.ReadOptions{})
	if tree.Entries != 1 || tree.Files != 1 {
		t.Errorf("tree: %d entries, %d files", tree.Entries, tree.Files)
	}
	result, err := volume.Write(t.Context(), to, stream(t, transit, tree), volume.WriteOptions{File: true})
	must(t, err)
	var after unix.Stat_t
	must(t, unix.Stat(to, &after))
	if after.Ino != before.Ino {
		t.Error("the file is another inode now")
	}
	sums, _, err := volume.Hash(t.Context(), to, volume.ReadOptions{})
	must(t, err)
	if sums != result.Sums || sums.Hash != tree.Hash {
		t.Errorf("sums: disk %v, write %v, read %s", sums, result.Sums, tree.Hash)
	}
	for name, data := range map[string][]byte{
		"two files": tarOf(raw{name: "a"}, raw{name: "b"}),
		"a folder":  tarOf(raw{name: "./", typ: '5'}),
		"a link":    tarOf(raw{name: "file", typ: '2', link: "/etc/passwd"}),
		"nothing":   tarOf(),
	} {
		if _, err := volume.Write(t.Context(), to, bytes.NewReader(data), volume.WriteOptions{File: true}); err == nil {
			t.Errorf("Write of %s over a file = nil", name)
		}
	}
	link := filepath.Join(dir, "link")
	must(t, os.Symlink(to, link))
	if _, err := volume.Write(t.Context(), link, bytes.NewReader(tarOf(raw{name: "a"})), volume.WriteOptions{File: true}); err == nil {
		t.Error("Write through a symbolic link = nil")
	}
}

func TestChownMap(t *testing.T) {
	needRoot(t)
	root, to := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "f"), nil, 0o644))
	must(t, os.Chown(filepath.Join(root, "f"), 1000, 1001))
	must(t, unix.Setxattr(filepath.Join(root, "f"), "system.posix_acl_access", someACL(1002), 0))
	must(t, os.Symlink("x", filepath.Join(root, "l")))
	must(t, os.Lchown(filepath.Join(root, "l"), 5, 1000))
	var ranges []volume.IDRange
	for _, text := range []string{"1000:5000:10", "u5:6"} {
		r, err := volume.ParseIDRange(text)
		must(t, err)
		ranges = append(ranges, r)
	}
	result, err := volume.Copy(t.Context(), root, to, volume.ReadOptions{}, volume.WriteOptions{Map: ranges, Strict: true})
	must(t, err)
	for name, want := range map[string][2]uint32{"f": {5000, 5001}, "l": {6, 5000}, ".": {0, 0}} {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(to, name), &st))
		if got := [2]uint32{st.Uid, st.Gid}; got != want {
			t.Errorf("owner of %q = %v, want %v", name, got, want)
		}
	}
	value := make([]byte, 100)
	n, err := unix.Getxattr(filepath.Join(to, "f"), "system.posix_acl_access", value)
	must(t, err)
	if !bytes.Equal(value[:n], someACL(5002)) {
		t.Errorf("ACL = %x, want %x", value[:n], someACL(5002))
	}
	sums, _, err := volume.Hash(t.Context(), to, volume.ReadOptions{})
	must(t, err)
	if sums.Hash != result.Mapped {
		t.Errorf("hash on disk %s, foretold %s", sums.Hash, result.Mapped)
	}
	for _, bad := range []string{"", "1", "1:2:3:4", "x:1", "1:-2", "4294967295:1", "1:4294967290:10", "1:2:0"} {
		if r, err := volume.ParseIDRange(bad); err == nil {
			t.Errorf("ParseIDRange(%q) = %v, want an error", bad, r)
		}
	}
}
