package backup_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/tarx"
	"github.com/google/go-cmp/cmp"
)

func openArchive(t testing.TB, b []byte) *backup.Archive {
	t.Helper()
	a, err := backup.OpenArchive(bytes.NewReader(b), int64(len(b)), testIdentity(t))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestOpenArchive(t *testing.T) {
	for _, enc := range []string{"all", "secrets", "none"} {
		t.Run(enc, func(t *testing.T) {
			made := makeArchive(t, archiveOptions{encryption: enc})
			a := openArchive(t, made.bytes)
			app, err := a.App()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(testApp(), app); diff != "" {
				t.Errorf("App (-want +got):\n%s", diff)
			}
			if got, want := a.Manifest().Trees, made.manifest.Trees; !cmp.Equal(want, got) {
				t.Errorf("Trees (-want +got):\n%s", cmp.Diff(want, got))
			}
			if got := a.Members(); got[0].Name != "dentropy/00-FORMAT" || got[len(got)-1].Name != "dentropy/90-files/media.ndjson.zst" {
				t.Errorf("Members = %v", got)
			}
			rc, err := a.TarStream("db")
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(rc)
			if err != nil || !bytes.Equal(got, made.volumes["db"].tar) {
				t.Errorf("TarStream gave %d bytes, %v; want the %d of the tar", len(got), err, len(made.volumes["db"].tar))
			}
			if err := rc.Close(); err != nil {
				t.Error(err)
			}
			var last backup.Progress
			if err := a.Verify(t.Context(), func(p backup.Progress) { last = p }); err != nil {
				t.Errorf("Verify = %v", err)
			}
			if last.Done != last.Total || last.Done == 0 {
				t.Errorf("the last progress is %d of %d", last.Done, last.Total)
			}
			if _, err := backup.VerifyStream(t.Context(), bytes.NewReader(made.bytes), nil, testIdentity(t)); err != nil {
				t.Errorf("VerifyStream = %v", err)
			}
			if _, err := a.TarStream("none"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("TarStream of no volume = %v, want ErrNotExist", err)
			}
		})
	}
}

func TestOpenFile(t *testing.T) {
	a := openArchive(t, makeArchive(t, archiveOptions{}).bytes)
	n := 0
	for e, err := range a.Files("db") {
		if err != nil {
			t.Fatal(err)
		}
		n++
		r, got, err := a.OpenFile("db", "/"+e.Name())
		if e.Type != "0" && e.Type != "1" {
			if err == nil {
				t.Errorf("OpenFile(%q) of type %s: no error", e.Name(), e.Type)
			}
			continue
		}
		if err != nil {
			t.Fatalf("OpenFile(%q) = %v", e.Name(), err)
		}
		b, err := io.ReadAll(r)
		if err != nil || sum(b) != got.SHA256 {
			t.Errorf("OpenFile(%q) gave %d bytes with hash %s, %v; want hash %s", e.Name(), len(b), sum(b), err, got.SHA256)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if n != len(testFiles()) {
		t.Errorf("Files listed %d entries, want %d", n, len(testFiles()))
	}
	if _, _, err := a.OpenFile("db", "nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenFile of no file = %v, want ErrNotExist", err)
	}
}

func TestTarOf(t *testing.T) {
	a := openArchive(t, makeArchive(t, archiveOptions{}).bytes)
	tests := []struct {
		name  string
		match func(string) bool
		want  []string
	}{
		{"one file", func(p string) bool { return p == "text" }, []string{"./ 5", "text 0 63000"}},
		{"a folder", func(p string) bool { return strings.HasPrefix(p, "dir") },
			[]string{"./ 5", "dir/ 5", "dir/a file with \xff\n bytes 0 6", "dir/link 0 90000", "dir/sym 2"}},
		{"file and link", func(p string) bool { return p == "big" || p == "dir/link" },
			[]string{"./ 5", "big 0 90000", "dir/ 5", "dir/link 1"}},
		{"holes", func(p string) bool { return p == "holes" }, []string{"./ 5", "holes 0 100000"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rc, err := a.TarOf("db", tt.match)
			if err != nil {
				t.Fatal(err)
			}
			defer rc.Close()
			var got []string
			tr := tarx.NewReader(rc)
			for {
				h, err := tr.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				line := h.Name + " " + string(h.Type)
				if h.Type == tarx.TypeFile {
					line += " " + string(appendInt(h.Size))
					if b, err := io.ReadAll(tr); err != nil || int64(len(b)) != h.PayloadSize() {
						t.Errorf("%s: %d bytes, %v", h.Name, len(b), err)
					}
				}
				got = append(got, line)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("TarOf (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := a.TarOf("db", func(string) bool { return false }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("TarOf nothing = %v, want ErrNotExist", err)
	}
	rc, err := a.TarOf("db", func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	if err := rc.Close(); err != nil { // early
		t.Error(err)
	}
}

func appendInt(n int64) []byte {
	var b []byte
	for ; n > 0; n /= 10 {
		b = append([]byte{byte('0' + n%10)}, b...)
	}
	return b
}

// Random access finds every cut, and Verify every flipped bit.
func TestOpenArchiveDamaged(t *testing.T) {
	made := makeArchive(t, archiveOptions{encryption: "none"})
	for n := 0; n < len(made.bytes); n += 509 {
		if _, err := backup.OpenArchive(bytes.NewReader(made.bytes[:n]), int64(n)); err == nil {
			t.Fatalf("cut at %d: no error", n)
		}
	}
	for i := 0; i < len(made.bytes); i += 499 {
		made.bytes[i] ^= 4
		a, err := backup.OpenArchive(bytes.NewReader(made.bytes), int64(len(made.bytes)))
		if err == nil {
			err = a.Verify(t.Context(), nil)
		}
		made.bytes[i] ^= 4
		if err == nil {
			t.Fatalf("with a bit of byte %d flipped: no error", i)
		}
	}
}

func TestSalvage(t *testing.T) {
	for _, enc := range []string{"none", "all"} {
		made := makeArchive(t, archiveOptions{encryption: enc})
		whole, err := backup.SalvageArchive(bytes.NewReader(made.bytes), int64(len(made.bytes)), testIdentity(t))
		if err != nil || whole.Salvaged() != nil {
			t.Fatalf("%s: a whole archive: %v, %v", enc, err, whole.Salvaged())
		}
		seen := make(map[int]bool)
		least := 16_000
		if enc == "all" {
			least = 70_000 // age gives nothing of a first piece that is cut off
		}
		for n := len(made.bytes) - 1; n > least; n -= 3001 {
			a, err := backup.SalvageArchive(bytes.NewReader(made.bytes[:n]), int64(n), testIdentity(t))
			if err != nil {
				t.Fatalf("%s: cut at %d: %v", enc, n, err)
			}
			if !errors.Is(a.Salvaged(), backup.ErrIncomplete) {
				t.Errorf("%s: cut at %d: Salvaged = %v, want ErrIncomplete", enc, n, a.Salvaged())
			}
			rc, err := a.TarStream("db")
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(rc)
			rc.Close()
			if !bytes.HasPrefix(made.volumes["db"].tar, got) {
				t.Fatalf("%s: cut at %d: what was salvaged is not the volume's", enc, n)
			}
			if err == nil && len(got) != len(made.volumes["db"].tar) || err != nil && !errors.Is(err, backup.ErrIncomplete) {
				t.Errorf("%s: cut at %d: %d bytes, %v", enc, n, len(got), err)
			}
			seen[len(got)] = true
			if err := a.Verify(t.Context(), nil); err == nil {
				t.Errorf("%s: cut at %d: Verify gives no error", enc, n)
			}
		}
		if enc == "none" && len(seen) < 3 {
			t.Errorf("%s: salvaged %v: want no, some and all segments", enc, seen)
		}
	}
}

func TestSalvageDamaged(t *testing.T) {
	made := makeArchive(t, archiveOptions{encryption: "none"})
	i := bytes.Index(made.bytes, []byte("dentropy/50-volumes/db.tar.zst.00001\x00")) + 600
	made.bytes[i] ^= 1
	a, err := backup.SalvageArchive(bytes.NewReader(made.bytes), int64(len(made.bytes)))
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(a.Salvaged(), backup.ErrCorrupt) {
		t.Errorf("Salvaged = %v, want ErrCorrupt", a.Salvaged())
	}
	rc, err := a.TarStream("media")
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if got, err := io.ReadAll(rc); err != nil || !bytes.Equal(got, made.volumes["media"].tar) {
		t.Errorf("the volume behind the damage: %d bytes, %v", len(got), err)
	}
	n := 0
	for e, err := range a.Files("db") { // its list is whole
		if err != nil {
			t.Fatal(err)
		}
		_ = e
		n++
	}
	if n != len(testFiles()) {
		t.Errorf("%d files listed, want %d", n, len(testFiles()))
	}
}

// A file whose header is whole in the archive but whose bytes are not those of the index.
func TestVerifyIndexDisagrees(t *testing.T) {
	files := testFiles()
	v := makeVolume(t, "db", files)
	files[len(files)-1].data = bytes.Repeat([]byte("z"), len(files[len(files)-1].data))
	other := makeVolume(t, "db", files)
	v.index, v.tree.Index = other.index, other.tree.Index
	made := makeArchive(t, archiveOptions{encryption: "none", volumes: map[string]*testVolume{"db": v}})
	if _, err := backup.VerifyStream(t.Context(), bytes.NewReader(made.bytes), nil); !errors.Is(err, backup.ErrCorrupt) {
		t.Errorf("VerifyStream = %v, want ErrCorrupt", err)
	}
	a := openArchive(t, made.bytes)
	r, _, err := a.OpenFile("db", "text")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, backup.ErrCorrupt) {
		t.Errorf("OpenFile of the other content = %v, want ErrCorrupt", err)
	}
}
