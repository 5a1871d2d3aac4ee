package volume_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dentropy/dentropycloud/backup/tarx"
	"github.com/dentropy/dentropycloud/backup/volume"
)

// plainTar makes a tar of folders and of files of three bytes.
func plainTar(t *testing.T, names ...string) string {
	t.Helper()
	var b []byte
	for _, name := range names {
		h := &tarx.Header{
			Name: name, Type: tarx.TypeFile, Mode: 0o644, Size: 3, ModTime: time.Unix(1000, 0),
			UID: int64(os.Geteuid()), GID: int64(os.Getegid()),
		}
		if strings.HasSuffix(name, "/") {
			h.Type, h.Mode, h.Size = tarx.TypeFolder, 0o751, 0
		}
		var err error
		b, err = tarx.AppendHeader(b, h)
		must(t, err)
		if h.Type == tarx.TypeFile {
			b = append(append(b, "abc"...), make([]byte, tarx.Padding(h))...)
		}
	}
	return string(append(b, tarx.Trailer[:]...))
}

func wantFolder(t *testing.T, path string) {
	t.Helper()
	st, err := os.Stat(path)
	must(t, err)
	if st.Mode().Perm() != 0o751 || st.ModTime().Unix() != 1000 {
		t.Errorf("%s has mode %o and time %d, want 751 and 1000", path, st.Mode().Perm(), st.ModTime().Unix())
	}
}

// TestWriteEndsDeep: the last entry of a stream lies so deep that folders above it are
// closed by then.
func TestWriteEndsDeep(t *testing.T) {
	for _, depth := range []int{63, 64, 65, 66, 67, 200} {
		t.Run(fmt.Sprint(depth), func(t *testing.T) {
			names, path := []string{"./"}, ""
			for range depth {
				path += "a/"
				names = append(names, path)
			}
			to := t.TempDir()
			result, err := volume.Write(t.Context(), to, strings.NewReader(plainTar(t, append(names, path+"f")...)), volume.WriteOptions{})
			must(t, err)
			for n := 1; n <= depth; n++ {
				wantFolder(t, filepath.Join(to, strings.Repeat("a/", n)))
			}
			sums, _, err := volume.Hash(t.Context(), to, volume.ReadOptions{})
			must(t, err)
			if sums != result.Sums {
				t.Errorf("what is on disk has the hashes %v, want those of the stream, %v", sums, result.Sums)
			}
		})
	}
}

// TestWriteComesBack: another program's tar comes back to a folder into which files are
// still on their way.
func TestWriteComesBack(t *testing.T) {
	to := t.TempDir()
	_, err := volume.Write(t.Context(), to, strings.NewReader(plainTar(t, "a/", "a/1", "b/", "b/1", "a/2", "b/2")), volume.WriteOptions{})
	must(t, err)
	for _, name := range []string{"a", "b"} {
		wantFolder(t, filepath.Join(to, name))
		if _, err := os.Stat(filepath.Join(to, name, "2")); err != nil {
			t.Error(err)
		}
	}
}
