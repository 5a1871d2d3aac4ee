package volume_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/frame"
	"github.com/dentropy/dentropycloud/backup/volume"
)

// benchRounds is how often each side runs, by turns; the best counts.
const benchRounds = 5

// TestCompare compares reading and writing with GNU tar, zstd and cat on the same data:
//
//	DENTROPY_BENCH=/folder/with/10GB go test -run TestCompare -v ./backup/volume
//
// A folder in memory leaves the disk out of it. Whatever else the machine does falsifies
// the times, and the CPU times less so.
func TestCompare(t *testing.T) {
	dir := os.Getenv("DENTROPY_BENCH")
	if dir == "" {
		t.Skip("set DENTROPY_BENCH to a folder with 10 GB of space")
	}
	dir, err := os.MkdirTemp(dir, "bench")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &bench{t: t, dir: dir}
	must(t, exec.Command("sync").Run())
	t.Run("small", func(t *testing.T) {
		root := filepath.Join(dir, "small")
		smallFiles(t, root)
		b.t = t
		b.backup(root)
		b.restore(root)
	})
	t.Run("big", func(t *testing.T) {
		root := filepath.Join(dir, "big")
		must(t, os.Mkdir(root, 0o755))
		writeText(t, filepath.Join(root, "dump.sql"), 1<<30)
		b.t = t
		b.backup(root)
		b.restore(root)
	})
	t.Run("media", func(t *testing.T) {
		root := filepath.Join(dir, "media")
		must(t, os.Mkdir(root, 0o755))
		f, err := os.Create(filepath.Join(root, "film"))
		must(t, err)
		_, err = io.CopyN(f, rand.Reader, 1<<30)
		must(t, err)
		must(t, f.Close())
		b.t = t
		b.backup(root)
		b.cat(filepath.Join(root, "film"))
		b.restore(root)
	})
	var use syscall.Rusage
	must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &use))
	t.Logf("peak memory of this process: %d MB", use.Maxrss/1024)
}

type bench struct {
	t   *testing.T
	dir string
}

// cost is what one run took.
type cost struct{ wall, cpu time.Duration }

// versus runs both sides by turns and logs the best of each: whatever else goes on only
// makes it slower. CPU time is of all processes together.
func (b *bench) versus(what, theirs string, prepare, ours, other func()) {
	b.t.Helper()
	best := func(c *cost, who int, run func()) {
		prepare()
		var from, to syscall.Rusage
		must(b.t, syscall.Getrusage(who, &from))
		begin := time.Now()
		run()
		wall := time.Since(begin)
		must(b.t, syscall.Getrusage(who, &to))
		cpu := func(u *syscall.Rusage) time.Duration { return time.Duration(u.Utime.Nano() + u.Stime.Nano()) }
		if c.wall == 0 || wall < c.wall {
			c.wall = wall
		}
		if used := cpu(&to) - cpu(&from); c.cpu == 0 || used < c.cpu {
			c.cpu = used
		}
	}
	var m, o cost
	for range benchRounds {
		best(&o, syscall.RUSAGE_CHILDREN, other)
		best(&m, syscall.RUSAGE_SELF, ours)
	}
	b.t.Logf("%-32s ours %6.3fs (cpu %6.3fs)  %-40s %6.3fs (cpu %6.3fs)  %.2f x", what,
		m.wall.Seconds(), m.cpu.Seconds(), theirs, o.wall.Seconds(), o.cpu.Seconds(), o.wall.Seconds()/m.wall.Seconds())
}

func (b *bench) sh(script string) {
	b.t.Helper()
	out, err := exec.Command("sh", "-c", "set -e; cd "+b.dir+"; "+script).CombinedOutput()
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

func (b *bench) fresh(name string) string {
	path := filepath.Join(b.dir, name)
	must(b.t, os.RemoveAll(path))
	must(b.t, os.Mkdir(path, 0o755))
	return path
}

func (b *bench) backup(root string) {
	size := func(pattern string) (n int64) {
		files, _ := filepath.Glob(filepath.Join(b.dir, pattern))
		for _, f := range files {
			st, err := os.Stat(f)
			must(b.t, err)
			n += st.Size()
		}
		return n
	}
	prepare := func() {
		b.fresh("transit")
		b.sh("rm -f their.tar.zst")
	}
	ours := func() { b.read(root) }
	b.versus("read", "tar | zstd -1 -T0; sync file", prepare, ours, func() {
		b.sh("tar -C " + root + " -c . | zstd -q -1 -T0 -f -o their.tar.zst; sync their.tar.zst")
	})
	b.versus("read", "tar with all we keep | zstd; sync file", prepare, ours, func() {
		b.sh("tar --format=pax --acls --xattrs -C " + root + " -c . | zstd -q -1 -T0 -f -o their.tar.zst; sync their.tar.zst")
	})
	b.versus("read, theirs not synced", "tar | zstd -1 -T0", func() { b.fresh("transit") }, ours, func() {
		b.sh("tar -C " + root + " -c . | zstd -q -1 -T0 -f -o their.tar.zst")
	})
	b.t.Logf("sizes: ours %d, zstd -1 %d (%.3f)", size("transit/v.tar.zst.*"), size("their.tar.zst"),
		float64(size("transit/v.tar.zst.*"))/float64(size("their.tar.zst")))
}

// read reads a tree into transit.
func (b *bench) read(root string) *backup.Tree {
	b.t.Helper()
	transit := volume.NewTransit(filepath.Join(b.dir, "transit"), "v", 0)
	tree, err := volume.Read(b.t.Context(), root, transit, volume.ReadOptions{})
	must(b.t, err)
	_, err = transit.Commit(tree)
	must(b.t, err)
	return tree
}

func (b *bench) cat(file string) {
	warm := func() {
		b.fresh("transit")
		b.sh("rm -f other")
	}
	cold := func() {
		warm()
		b.sh("sync; echo 3 > /proc/sys/vm/drop_caches || true")
	}
	ours := func() { b.read(filepath.Dir(file)) }
	b.versus("media, warm", "cat > other; sync other", warm, ours, func() { b.sh("cat " + file + " > other; sync other") })
	b.versus("media, cold", "cat > other; sync other", cold, ours, func() { b.sh("cat " + file + " > other; sync other") })
	b.versus("media, warm, theirs not synced", "cat > other", warm, ours, func() { b.sh("cat " + file + " > other") })
}

func (b *bench) restore(root string) {
	transit := b.fresh("transit")
	tree := b.read(root)
	prepare := func() { b.fresh("to") }
	ours := func() { b.write(transit, tree, volume.WriteOptions{Strict: true}) }
	bare := func() { b.write(transit, tree, volume.WriteOptions{Strict: true, NoSums: true}) }
	theirs := func() { b.sh("zstd -dqc their.tar.zst | tar -C to -xp; sync -f to") }
	b.versus("write", "zstd -d | tar x; sync -f", prepare, ours, theirs)
	b.versus("write without sums", "zstd -d | tar x; sync -f", prepare, bare, theirs)
	b.versus("write, same archive", "cat segments | zstd -d | tar x; sync -f", prepare, ours, func() {
		b.sh("cat transit/v.tar.zst.* | zstd -dqc | tar -C to -xp --acls --xattrs; sync -f to")
	})
}

// write writes what is in transit.
func (b *bench) write(transit string, tree *backup.Tree, opts volume.WriteOptions) {
	b.t.Helper()
	in := frame.NewReader(packed(b.t, transit, tree), 0)
	defer in.Close()
	result, err := volume.Write(b.t.Context(), filepath.Join(b.dir, "to"), in, opts)
	must(b.t, err)
	if result.Hash != tree.Hash && !opts.NoSums {
		b.t.Fatalf("hash %s, want %s", result.Hash, tree.Hash)
	}
}

// words makes text that compresses about as well as logs and dumps do.
func words(rng *mrand.Rand, n int) []byte {
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "INSERT INTO orders VALUES (%d, '%s', %d.%02d, '%x');\n", rng.IntN(1e6),
			strings.Repeat(string(rune('a'+rng.IntN(26))), 1+rng.IntN(4))+names[rng.IntN(len(names))], rng.IntN(1000), rng.IntN(100), rng.Uint64())
	}
	return b.Bytes()[:n]
}

var names = strings.Fields("the quick brown fox jumps over lazy dogs while seven wizards boxed five dozen liquor jugs under pale moonlight near harbour")

func smallFiles(t *testing.T, root string) {
	t.Helper()
	rng := mrand.New(mrand.NewPCG(3, 4))
	for i := range 100_000 {
		dir := filepath.Join(root, fmt.Sprintf("d%03d", i/200))
		if i%200 == 0 {
			must(t, os.MkdirAll(dir, 0o755))
		}
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%06d.txt", i)), words(rng, 1024+rng.IntN(7<<10)), 0o644))
	}
}

func writeText(t *testing.T, path string, size int) {
	t.Helper()
	rng := mrand.New(mrand.NewPCG(5, 6))
	f, err := os.Create(path)
	must(t, err)
	for n := 0; n < size; n += 1 << 20 {
		_, err := f.Write(words(rng, 1<<20))
		must(t, err)
	}
	must(t, f.Close())
}
