package backup_test

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write golden archives that are missing; those that are there are kept for ever")

// goldenArchives were written by the first program that knew the format. Whatever comes
// later reads them: never change or remove one.
var goldenArchives = []struct{ file, encryption string }{
	{"v1.dentropy.tar", "none"},
	{"v1.dentropy.tar.age", "all"},
}

func TestGoldenArchives(t *testing.T) {
	for _, g := range goldenArchives {
		t.Run(g.file, func(t *testing.T) {
			path := filepath.Join("testdata", g.file)
			b, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) && *update {
				b = makeArchive(t, archiveOptions{encryption: g.encryption}).bytes
				err = errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(path, b, 0o644))
			}
			if err != nil {
				t.Fatal(err)
			}
			m, err := backup.VerifyStream(t.Context(), bytes.NewReader(b), nil, testIdentity(t))
			if err != nil {
				t.Fatalf("VerifyStream = %v", err)
			}
			if m.ID != "01940000-0000-7000-8000-0000deadbeef" || m.Tool != "dentropy test" || len(m.Trees) != 2 {
				t.Errorf("the manifest is %+v", m)
			}
			a := openArchive(t, b)
			if err := a.Verify(t.Context(), nil); err != nil {
				t.Errorf("Verify = %v", err)
			}
			app, err := a.App()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(testApp(), app); diff != "" {
				t.Errorf("App (-want +got):\n%s", diff)
			}
			for _, f := range testFiles() {
				name := f.h.Name
				if f.h.Type != '0' {
					continue
				}
				r, e, err := a.OpenFile("db", name)
				if err != nil {
					t.Errorf("OpenFile(%q) = %v", name, err)
					continue
				}
				got, err := io.ReadAll(r)
				if want := fileEntry(f, e.Offset); err != nil || sum(got) != want.SHA256 || !cmp.Equal(want, e) {
					t.Errorf("%q has %d bytes, %v; entry (-want +got):\n%s", name, len(got), err, cmp.Diff(want, e))
				}
				r.Close()
			}
			got, err := readAll(bytes.NewReader(b), testIdentity(t))
			if err != nil || !bytes.Equal(got["dentropy/30-images/blobs/sha256/"+sum(noise(3000))], noise(3000)) {
				t.Errorf("the image blob has changed: %v", err)
			}
		})
	}
}

// What is written today is what was written first, byte for byte, as long as nobody
// decides otherwise: then this test gets another golden file, and the old one stays above.
func TestGoldenIsStillWritten(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("testdata", "v1.dentropy.tar"))
	if err != nil {
		t.Fatal(err)
	}
	parts, now := takeApart(t, want), takeApart(t, makeArchive(t, archiveOptions{encryption: "none"}).bytes)
	if len(parts) != len(now) {
		t.Fatalf("%d members are written, want %d", len(now), len(parts))
	}
	for i := range parts {
		if parts[i].Name != now[i].Name {
			t.Errorf("member %d is %s, want %s", i, now[i].Name, parts[i].Name)
		}
	}
}
