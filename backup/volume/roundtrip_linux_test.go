package volume_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup/volume"
)

func roundTrip(t *testing.T, root string, wopts volume.WriteOptions) string {
	t.Helper()
	tree, dir := read(t, root, volume.ReadOptions{})
	to := filepath.Join(t.TempDir(), "to")
	must(t, os.Mkdir(to, 0o755))
	t.Cleanup(func() { removeDeep(to) })
	wopts.Strict = os.Geteuid() == 0
	wopts.MaxEntries, wopts.MaxBytes, wopts.MaxStored = tree.Entries, tree.Bytes, max(tree.Stored, 1)
	result, err := volume.Write(t.Context(), to, stream(t, dir, tree), wopts)
	must(t, err)
	if os.Geteuid() != 0 {
		return to
	}
	if diff := cmp.Diff(describe(t, root), describe(t, to)); diff != "" {
		t.Errorf("the trees differ (-source +target):\n%s", diff)
	}
	sums, _, err := volume.Hash(t.Context(), to, volume.ReadOptions{})
	must(t, err)
	if sums.Hash != tree.Hash || result.Hash != tree.Hash {
		t.Errorf("hashes: read %s, write %s, target %s", tree.Hash, result.Hash, sums.Hash)
	}
	if sums.Contents != tree.Contents || result.Contents != tree.Contents {
		t.Errorf("contents hashes: read %s, write %s, target %s", tree.Contents, result.Contents, sums.Contents)
	}
	if result.Entries != tree.Entries || result.Files != tree.Files || result.Bytes != tree.Bytes || result.Stored != tree.Stored {
		t.Errorf("write: %+v, read: entries %d, files %d, bytes %d, stored %d", result, tree.Entries, tree.Files, tree.Bytes, tree.Stored)
	}
	return to
}

func TestRoundTripOdd(t *testing.T) {
	for _, old := range []bool{false, true} {
		t.Run(fmt.Sprintf("without openat2 %v", old), func(t *testing.T) {
			root := t.TempDir()
			oddTree(t, root)
			to := roundTrip(t, root, volume.WithoutOpenat2(volume.WriteOptions{}, old))
			if got := blocks(t, filepath.Join(to, "sparse")); got > 200 {
				t.Errorf("sparse file takes %d blocks", got)
			}
		})
	}
}

func TestRoundTripDeep(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	deepTree(t, root, 700) // paths of 14000 bytes
	roundTrip(t, root, volume.WriteOptions{})
}

func TestRoundTripMany(t *testing.T) {
	root := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	var made []string
	for d := range 40 {
		dir := filepath.Join(root, fmt.Sprintf("d%02d", d%20), fmt.Sprintf("e%d", d))
		must(t, os.MkdirAll(dir, 0o755))
		for f := range 250 {
			path := filepath.Join(dir, fmt.Sprintf("f%d", f))
			if f%50 == 49 {
				must(t, os.Link(made[rng.IntN(len(made))], path))
				continue
			}
			must(t, os.WriteFile(path, bytes.Repeat([]byte{byte(rng.IntN(256))}, rng.IntN(3000)), 0o644))
			made = append(made, path)
		}
	}
	roundTrip(t, root, volume.WriteOptions{})
}

func TestRoundTripEmpty(t *testing.T) {
	roundTrip(t, t.TempDir(), volume.WriteOptions{})
}

func TestCopy(t *testing.T) {
	needRoot(t)
	root, to := t.TempDir(), t.TempDir()
	oddTree(t, root)
	result, err := volume.Copy(t.Context(), root, to, volume.ReadOptions{}, volume.WriteOptions{Strict: true})
	must(t, err)
	if diff := cmp.Diff(describe(t, root), describe(t, to)); diff != "" {
		t.Errorf("the trees differ (-source +target):\n%s", diff)
	}
	sums, _, err := volume.Hash(t.Context(), to, volume.ReadOptions{})
	must(t, err)
	if sums != result.Sums {
		t.Errorf("sums: copy %+v, target %+v", result.Sums, sums)
	}
}

// randomTree makes entries of all kinds with attributes of all kinds.
func randomTree(t *testing.T, root string, rng *rand.Rand) {
	t.Helper()
	dirs, files := []string{root}, []string{}
	name := func() string {
		b := make([]byte, 1+rng.IntN(1+rng.IntN(60)))
		for i := range b {
			for b[i] == 0 || b[i] == '/' || b[i] == '.' {
				b[i] = byte(rng.IntN(256))
			}
		}
		return string(b)
	}
	for range 300 {
		path := filepath.Join(dirs[rng.IntN(len(dirs))], name())
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		switch kind := rng.IntN(12); {
		case kind < 3:
			must(t, os.Mkdir(path, 0o700))
			dirs = append(dirs, path)
		case kind < 7:
			must(t, os.WriteFile(path, noise(rng.IntN(1<<rng.IntN(21)), byte(kind)), 0o600))
			files = append(files, path)
		case kind == 7:
			sparse(t, path, rng.Int64N(1<<rng.IntN(44)), map[int64]int{rng.Int64N(1 << 20): 1 + rng.IntN(9000)})
			files = append(files, path)
		case kind == 8 && len(files) > 0:
			must(t, os.Link(files[rng.IntN(len(files))], path))
		case kind == 9:
			must(t, os.Symlink(name(), path))
		case kind == 10:
			must(t, unix.Mkfifo(path, 0o600))
		default:
			must(t, unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(uint32(rng.IntN(4096)), uint32(rng.IntN(1<<20))))))
		}
		must(t, os.Lchown(path, int(rng.Uint32()>>rng.IntN(32)>>1), int(rng.Uint32()>>rng.IntN(32)>>1)))
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		kind := st.Mode & unix.S_IFMT
		if kind != unix.S_IFLNK {
			must(t, unix.Chmod(path, uint32(rng.IntN(0o10000))))
		}
		if (kind == unix.S_IFREG || kind == unix.S_IFDIR) && rng.IntN(3) == 0 {
			attr := fmt.Sprintf("%s.%x", []string{"user", "trusted"}[rng.IntN(2)], rng.Uint64())
			must(t, unix.Setxattr(path, attr, noise(rng.IntN(500), 1), 0))
			must(t, unix.Setxattr(path, "system.posix_acl_access", someACL(rng.Uint32()>>1), 0))
		}
		if kind == unix.S_IFDIR && rng.IntN(3) == 0 {
			must(t, unix.Setxattr(path, "system.posix_acl_default", someACL(rng.Uint32()>>1), 0))
		}
	}
	must(t, filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err == nil {
			setTimes(t, path, time.Unix(rng.Int64N(1<<32)-1<<31, rng.Int64N(1e9)))
		}
		return err
	}))
}

func TestRoundTripRandom(t *testing.T) {
	needRoot(t)
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			root := t.TempDir()
			randomTree(t, root, rand.New(rand.NewPCG(seed, 99)))
			roundTrip(t, root, volume.WriteOptions{})
		})
	}
}
