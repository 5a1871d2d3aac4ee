package volume_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/frame"
	"github.com/dentropy/dentropycloud/backup/volume"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// read reads a tree into a transit folder of its own, and checks what Transit promises.
func read(t testing.TB, root string, opts volume.ReadOptions) (*backup.Tree, string) {
	t.Helper()
	dir := t.TempDir()
	opts.Volume = "v"
	transit := volume.NewTransit(dir, "v", 0)
	tree, err := volume.Read(t.Context(), root, transit, opts)
	must(t, err)
	_, err = transit.Commit(tree)
	must(t, err)
	return tree, dir
}

// stream gives the segments of a tree, decoded.
func stream(t testing.TB, dir string, tree *backup.Tree) io.Reader {
	t.Helper()
	r := frame.NewReader(packed(t, dir, tree), 0)
	t.Cleanup(func() { r.Close() })
	return r
}

func packed(t testing.TB, dir string, tree *backup.Tree) io.Reader {
	t.Helper()
	var readers []io.Reader
	for i := range tree.Segments {
		f, err := os.Open(filepath.Join(dir, fmt.Sprintf("v.tar.zst.%05d", i)))
		must(t, err)
		t.Cleanup(func() { f.Close() })
		readers = append(readers, f)
	}
	return io.MultiReader(readers...)
}

// describe lists everything about a tree that this test knows to ask for, by other means
// than the code under test: full paths do not matter to it, as it changes folders.
func describe(t testing.TB, root string) []string {
	t.Helper()
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	inodes := map[uint64]string{}
	var out []string
	describeAt(t, fd, "", inodes, &out)
	return out
}

func describeAt(t testing.TB, fd int, prefix string, inodes map[uint64]string, out *[]string) {
	t.Helper()
	*out = append(*out, describeOne(t, fd, ".", prefix+".", inodes))
	again, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	d := os.NewFile(uintptr(again), "dir")
	names, err := d.Readdirnames(-1)
	d.Close()
	must(t, err)
	slices.Sort(names)
	for _, name := range names {
		var st unix.Stat_t
		must(t, unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW))
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			must(t, err)
			describeAt(t, sub, prefix+name+"/", inodes, out)
			unix.Close(sub)
			continue
		}
		*out = append(*out, describeOne(t, fd, name, prefix+name, inodes))
	}
}

func describeOne(t testing.TB, fd int, name, path string, inodes map[uint64]string) string {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW))
	var b strings.Builder
	fmt.Fprintf(&b, "%q mode %o owner %d:%d mtime %d.%09d", path, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if !isDir {
		fmt.Fprintf(&b, " size %d links %d rdev %x", st.Size, st.Nlink, st.Rdev)
		if first, ok := inodes[st.Ino]; ok && st.Nlink > 1 {
			fmt.Fprintf(&b, " = %q", first)
		} else {
			inodes[st.Ino] = path
		}
	}
	proc := fmt.Sprintf("/proc/self/fd/%d/%s", fd, name)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		buf := make([]byte, 8192)
		n, err := unix.Readlinkat(fd, name, buf)
		must(t, err)
		fmt.Fprintf(&b, " -> %q", buf[:n])
	case unix.S_IFREG:
		if st.Size <= 64<<20 {
			f, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			must(t, err)
			file := os.NewFile(uintptr(f), name)
			data, err := io.ReadAll(file)
			file.Close()
			must(t, err)
			fmt.Fprintf(&b, " content %x", sha256.Sum256(data))
		}
	}
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(proc, names)
	must(t, err)
	attrs := strings.Split(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00")
	slices.Sort(attrs)
	for _, attr := range attrs {
		if attr == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(proc, attr, value)
		must(t, err)
		fmt.Fprintf(&b, " %s=%s", attr, hex.EncodeToString(value[:n]))
	}
	return b.String()
}

// acl builds the kernel's form of an ACL.
func acl(entries ...[3]uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return b
}

const noID = 1<<32 - 1

func someACL(user uint32) []byte {
	return acl([3]uint32{1, 7, noID}, [3]uint32{2, 5, user}, [3]uint32{4, 5, noID},
		[3]uint32{8, 4, user + 1}, [3]uint32{16, 7, noID}, [3]uint32{32, 1, noID})
}

// capNetBind is cap_net_bind_service=ep in version 2.
var capNetBind = []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// setTimes sets the time of one name.
func setTimes(t testing.TB, path string, when time.Time) {
	t.Helper()
	ts, err := unix.TimeToTimespec(when)
	must(t, err)
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
}

// oddTree makes one of everything.
func oddTree(t testing.TB, root string) {
	t.Helper()
	j := func(parts ...string) string { return filepath.Join(append([]string{root}, parts...)...) }
	write := func(path string, data []byte, mode os.FileMode) {
		must(t, os.WriteFile(path, data, 0o600))
		must(t, os.Chmod(path, mode))
	}
	must(t, os.Mkdir(j("empty"), 0o700))
	must(t, os.Mkdir(j("a"), 0o755))
	must(t, os.Mkdir(j("a", "b"), 0o750))
	must(t, os.Mkdir(j("a-"), 0o755)) // before a/ by its bytes, after it in path order
	write(j("a", "file"), []byte("hello\n"), 0o644)
	write(j("a", "zero"), nil, 0o000)
	write(j("a-", "x"), bytes.Repeat([]byte("x"), 70000), 0o640)
	// Names.
	for _, name := range []string{"-rf", " lead", "trail ", "new\nline", "tab\t", "\x01\x7f", "bin\xff\xfe", "ünï", `q"\`, "%=,", "a b", strings.Repeat("n", 255)} {
		write(j("a", name), []byte(name), 0o644)
	}
	must(t, os.Symlink("../../../etc/passwd", j("up")))
	must(t, os.Symlink("/etc", j("abs")))
	must(t, os.Symlink(strings.Repeat("long/", 800), j("long")))
	must(t, os.Symlink("bin\xff", j("sym\xff")))
	// Hard links: the first name in path order is made last.
	write(j("z1"), []byte("several names"), 0o644)
	must(t, os.Link(j("z1"), j("a", "b", "z0")))
	must(t, os.Link(j("z1"), j("z2")))
	must(t, os.Link(j("long"), j("long2")))
	// Large, sparse and zero.
	big := make([]byte, 5<<20+123)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(big)
	write(j("big"), big, 0o600)
	must(t, os.Link(j("big"), j("big2")))
	write(j("zeros"), make([]byte, 9<<20), 0o600)
	sparse(t, j("sparse"), 1<<40, map[int64]int{0: 10, 1 << 20: 4096, 5<<20 + 100: 1, 1<<39 + 1: 100, 1<<40 - 7: 7})
	sparse(t, j("hole"), 3<<20, nil)
	sparse(t, j("tail"), 1<<30, map[int64]int{4096: 8192})
	// Special files.
	must(t, unix.Mkfifo(j("fifo"), 0o640))
	if os.Geteuid() == 0 {
		must(t, unix.Mknod(j("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		must(t, unix.Mknod(j("whiteout"), unix.S_IFCHR, 0))
		must(t, unix.Mknod(j("block"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70000))))
		var large int64 = 1 << 31
		must(t, os.Lchown(j("a", "file"), int(large), int(large+5)))
		must(t, os.Lchown(j("abs"), 70000, 70001))
		large = 4000000000
		must(t, os.Chown(j("empty"), int(large), 1))
		for name, value := range map[string][]byte{"trusted.x": []byte("t"), "security.capability": capNetBind} {
			must(t, unix.Setxattr(j("a-", "x"), name, value, 0))
		}
		must(t, unix.Lsetxattr(j("up"), "trusted.link", []byte("v"), 0))
		must(t, unix.Setxattr(j("fifo"), "trusted.fifo", []byte{0, 1, 255}, 0))
	}
	must(t, unix.Setxattr(j("a", "file"), "user.bin", []byte{0, 255, 10, '='}, 0))
	must(t, unix.Setxattr(j("a", "file"), "user.empty", nil, 0))
	must(t, unix.Setxattr(j("a", "file"), "user.a=b%,c", bytes.Repeat([]byte("v"), 2000), 0))
	must(t, unix.Setxattr(j("a"), "user.dir", []byte("d"), 0))
	must(t, unix.Setxattr(j("a", "b", "z0"), "system.posix_acl_access", someACL(1000), 0))
	must(t, unix.Setxattr(j("a", "b"), "system.posix_acl_default", someACL(2000), 0))
	must(t, unix.Setxattr(j("a", "b"), "system.posix_acl_access", someACL(3000), 0))
	must(t, unix.Setxattr(root, "user.root", []byte("r"), 0))
	must(t, unix.Setxattr(root, "system.posix_acl_default", someACL(4000), 0))
	write(j("suid"), []byte("#!"), 0o755|os.ModeSetuid|os.ModeSetgid)
	must(t, os.Mkdir(j("sticky"), 0o777|os.ModeSticky))
	must(t, os.Chmod(j("sticky"), 0o777|os.ModeSticky|os.ModeSetgid))
	write(j("sticky", "f"), []byte("f"), 0o666)
	must(t, os.Mkdir(j("closed"), 0o700))
	write(j("closed", "f"), []byte("f"), 0)
	// Times.
	setTimes(t, j("suid"), time.Unix(-1, 999999999))
	setTimes(t, j("up"), time.Unix(-86400*365, 1))
	setTimes(t, j("fifo"), time.Unix(5000000000, 5))
	setTimes(t, j("a", "file"), time.Unix(1e9, 0))
	setTimes(t, j("empty"), time.Unix(0, 1))
	setTimes(t, j("a", "b"), time.Unix(12345, 678))
	setTimes(t, j("a"), time.Unix(1, 1))
	must(t, os.Chmod(j("closed"), 0))
	must(t, os.Chmod(root, 0o733|os.ModeSticky))
	setTimes(t, root, time.Unix(1111111111, 222222222))
}

func sparse(t testing.TB, path string, size int64, data map[int64]int) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	must(t, f.Truncate(size))
	for at, n := range data {
		_, err := f.WriteAt(bytes.Repeat([]byte{7}, n), at)
		must(t, err)
	}
	must(t, f.Close())
}

func blocks(t testing.TB, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st.Blocks
}

// deepTree makes folders in folders, deeper than a path can say.
func deepTree(t testing.TB, root string, depth int) {
	t.Helper()
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	for i := range depth {
		name := fmt.Sprintf("folder-with-a-name-%d", i%10)
		must(t, unix.Mkdirat(fd, name, 0o755))
		if i%7 == 0 {
			f, err := unix.Openat(fd, "zfile", unix.O_CREAT|unix.O_WRONLY, 0o644)
			must(t, err)
			_, err = unix.Write(f, []byte(name))
			must(t, err)
			unix.Close(f)
		}
		next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	t.Cleanup(func() { removeDeep(root) })
}

// removeDeep removes what os.RemoveAll may not be able to.
func removeDeep(root string) {
	r, err := os.OpenRoot(root)
	if err != nil {
		return
	}
	defer r.Close()
	d, err := r.Open(".")
	if err != nil {
		return
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, name := range names {
		_ = r.RemoveAll(name)
	}
}

func lastLine(t testing.TB, out []byte, into any) {
	t.Helper()
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	if err := json.Unmarshal(lines[len(lines)-1], into); err != nil {
		t.Fatalf("last line %q: %v", lines[len(lines)-1], err)
	}
}

// helper runs one task.
func helper(ctx context.Context, stdin io.Reader, task string, args any) (code int, stdout []byte, stderr string) {
	data, err := json.Marshal(args)
	if err != nil {
		panic(err)
	}
	var out, errs bytes.Buffer
	code = volume.Main(ctx, []string{task, string(data)}, stdin, &out, &errs)
	return code, out.Bytes(), errs.String()
}
