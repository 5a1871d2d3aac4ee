package backup_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
)

// part is a member of an archive that a test takes apart.
type part struct {
	tar.Header
	data []byte
}

// takeApart gives the members of an archive.
func takeApart(t testing.TB, b []byte) []part {
	t.Helper()
	var parts []part
	tr := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return parts
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, part{*h, data})
	}
}

// putTogether makes a tar of members as they are.
func putTogether(t testing.TB, parts []part) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, p := range parts {
		h := p.Header
		h.Size, h.Format = int64(len(p.data)), tar.FormatUnknown
		if h.Typeflag != tar.TypeReg {
			h.Size = 0
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write(p.data); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func find(t testing.TB, parts []part, name string) int {
	t.Helper()
	for i, p := range parts {
		if p.Name == name {
			return i
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

// seal gives parts the hashes, the index and the end that they should have: whoever makes
// a hostile archive can do that too.
func seal(t testing.TB, parts []part, id string) []byte {
	t.Helper()
	frames := framesOf(t, parts)
	parts = slices.DeleteFunc(slices.Clone(parts), func(p part) bool {
		return p.Name == "dentropy/91-index.json" || p.Name == "dentropy/92-SHA256SUMS" || p.Name == "dentropy/99-END"
	})
	m := find(t, parts, "dentropy/10-manifest.json")
	f := find(t, parts, "dentropy/00-FORMAT")
	parts[f].data = []byte("dentropy-app-archive 1\nmanifest " + sum(parts[m].data) + "\n")
	head := func(name string, data []byte) part {
		return part{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600}, data}
	}
	var index, sums strings.Builder
	fmt.Fprintf(&index, "{\"format\":1,\"id\":\"%s\",\"members\":[\n", id)
	at := int64(0)
	for i, p := range parts {
		at += 512
		fmt.Fprintf(&index, `{"name":%q,"offset":%d,"size":%d,"sha256":"%s"%s}`, p.Name, at, len(p.data), sum(p.data), frames[p.Name])
		if i < len(parts)-1 {
			index.WriteByte(',')
		}
		index.WriteByte('\n')
		fmt.Fprintf(&sums, "%s  %s\n", sum(p.data), p.Name)
		at += (int64(len(p.data)) + 511) / 512 * 512
	}
	index.WriteString("]}\n")
	fmt.Fprintf(&sums, "%s  %s\n", sum([]byte(index.String())), "dentropy/91-index.json")
	total := at + 512 + int64(index.Len()+511)/512*512 + 512 + int64(sums.Len()+511)/512*512 + 2048
	end := fmt.Sprintf("dentropy-app-archive 1 end\nid %s\nindex %d %d\nsums %s\nstatus complete\ntotal %d\n",
		id, at+512, index.Len(), sum([]byte(sums.String())), total)
	end += strings.Repeat(" ", 511-len(end)) + "\n"
	parts = append(parts, head("dentropy/91-index.json", []byte(index.String())),
		head("dentropy/92-SHA256SUMS", []byte(sums.String())), head("dentropy/99-END", []byte(end)))
	return putTogether(t, parts)
}

// framesOf are the frames that the index of an archive has, as text.
func framesOf(t testing.TB, parts []part) map[string]string {
	t.Helper()
	var index struct {
		Members []struct {
			Name   string
			Frames json.RawMessage
		}
	}
	if err := json.Unmarshal(parts[find(t, parts, "dentropy/91-index.json")].data, &index); err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	for _, m := range index.Members {
		if m.Frames != nil {
			out[m.Name] = `,"frames":` + string(m.Frames)
		}
	}
	return out
}

// editManifest changes the manifest of parts.
func editManifest(t testing.TB, parts []part, edit func(map[string]any)) {
	t.Helper()
	i := find(t, parts, "dentropy/10-manifest.json")
	var m map[string]any
	if err := json.Unmarshal(parts[i].data, &m); err != nil {
		t.Fatal(err)
	}
	edit(m)
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	parts[i].data = b
}

func swap(parts []part, i, j int) { parts[i], parts[j] = parts[j], parts[i] }

func TestHostileArchives(t *testing.T) {
	const seg0, seg1 = "dentropy/50-volumes/db.tar.zst.00000", "dentropy/50-volumes/db.tar.zst.00001"
	made := makeArchive(t, archiveOptions{encryption: "none"})
	other := takeApart(t, makeArchive(t, archiveOptions{encryption: "none", id: "01940000-0000-7000-8000-0000deadbee0"}).bytes)
	file := func(name string, data string) part {
		return part{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600}, []byte(data)}
	}
	trees := func(m map[string]any) map[string]any { return m["trees"].(map[string]any) }
	tests := []struct {
		name string
		edit func([]part) []part
		want string // in the error
	}{
		{"segments the wrong way round", func(p []part) []part { swap(p, find(t, p, seg0), find(t, p, seg1)); return p }, "not in its place"},
		{"a segment twice", func(p []part) []part { i := find(t, p, seg0); return slices.Insert(p, i, p[i]) }, "not in its place"},
		{"a segment missing", func(p []part) []part { i := find(t, p, seg1); return slices.Delete(p, i, i+1) }, "not in its place"},
		{"the last segment missing", func(p []part) []part {
			i := find(t, p, "dentropy/90-files/db.ndjson.zst")
			return slices.Delete(p, i-1, i)
		}, "should be"},
		{"a whole volume missing", func(p []part) []part {
			return slices.DeleteFunc(p, func(x part) bool {
				return strings.Contains(x.Name, "/media.")
			})
		}, `volume "media" is missing`},
		{"an index of files missing", func(p []part) []part {
			i := find(t, p, "dentropy/90-files/db.ndjson.zst")
			return slices.Delete(p, i, i+1)
		}, "the index of volume"},
		{"the indexes of files behind all volumes", func(p []part) []part {
			i := find(t, p, "dentropy/90-files/db.ndjson.zst")
			index := p[i]
			return append(slices.Delete(p, i, i+1), index)
		}, `the index of volume "db" should be`},
		{"a segment of a foreign volume", func(p []part) []part {
			return slices.Insert(p, find(t, p, seg0), file("dentropy/50-volumes/evil.tar.zst.00000", "x"))
		}, "does not know"},
		{"a changed segment", func(p []part) []part { p[find(t, p, seg0)].data[100] ^= 1; return p }, "hash"},
		{"a changed blob", func(p []part) []part {
			for i := range p {
				if strings.Contains(p[i].Name, "/blobs/") {
					p[i].data[0] ^= 1
				}
			}
			return p
		}, "hash"},
		{"an image behind the volumes", func(p []part) []part {
			return append(p, file("dentropy/30-images/repositories", "{}"))
		}, "behind a volume"},
		{"settings of another app", func(p []part) []part {
			i := find(t, p, "dentropy/20-settings.json")
			p[i].data = bytes.Replace(p[i].data, []byte(`"shop"`), []byte(`"evil"`), 1)
			return p
		}, "hash that it should"},
		{"no secrets", func(p []part) []part {
			i := find(t, p, "dentropy/25-secrets.json")
			return slices.Delete(p, i, i+1)
		}, "should be"},
		{"a name that leads out", func(p []part) []part {
			return slices.Insert(p, 5, file("dentropy/60-x/../../../etc/passwd", "x"))
		}, "not allowed"},
		{"an absolute name", func(p []part) []part { return slices.Insert(p, 5, file("/dentropy/60-x", "x")) }, "not allowed"},
		{"a name of nobody", func(p []part) []part { return slices.Insert(p, 5, file("etc/passwd", "x")) }, "not allowed"},
		{"a name with capitals of ours", func(p []part) []part {
			return slices.Insert(p, 5, file("dentropy/50-volumes/DB.tar.zst.00000", "x"))
		}, "not allowed"},
		{"a sign in a number", func(p []part) []part {
			return slices.Insert(p, 5, file("dentropy/50-volumes/db.tar.zst.+0000", "x"))
		}, "not allowed"},
		{"a link", func(p []part) []part {
			return slices.Insert(p, 5, part{tar.Header{Typeflag: tar.TypeSymlink, Name: "dentropy/60-x", Linkname: "/etc/passwd"}, nil})
		}, "no file"},
		{"a device", func(p []part) []part {
			return slices.Insert(p, 5, part{tar.Header{Typeflag: tar.TypeChar, Name: "dentropy/60-x", Devmajor: 1}, nil})
		}, "no file"},
		{"a folder", func(p []part) []part {
			return slices.Insert(p, 5, part{tar.Header{Typeflag: tar.TypeDir, Name: "dentropy/60-x/"}, nil})
		}, "no file"},
		{"records", func(p []part) []part {
			return slices.Insert(p, 5, part{tar.Header{Typeflag: tar.TypeReg, Name: "dentropy/60-x", PAXRecords: map[string]string{"X.y": "z"}}, nil})
		}, "has no place"},
		{"a bomb of records", func(p []part) []part {
			return slices.Insert(p, 5, part{tar.Header{Typeflag: tar.TypeReg, Name: "dentropy/60-x", PAXRecords: map[string]string{"X.y": strings.Repeat("z", 900_000)}}, nil})
		}, "bytes of records"},
		{"an unknown member twice", func(p []part) []part {
			return slices.Insert(p, 5, file("dentropy/60-x", "x"), file("dentropy/60-x", "x"))
		}, "twice"},
		{"a volume id that leads out", func(p []part) []part {
			editManifest(t, p, func(m map[string]any) { trees(m)["../evil"] = trees(m)["db"] })
			return p
		}, "volume id"},
		{"a tree of another", func(p []part) []part {
			editManifest(t, p, func(m map[string]any) { trees(m)["media"] = trees(m)["db"] })
			return p
		}, "another's tree"},
		{"no tree", func(p []part) []part {
			editManifest(t, p, func(m map[string]any) { trees(m)["media"] = nil })
			return p
		}, "another's tree"},
		{"a negative size", func(p []part) []part {
			editManifest(t, p, func(m map[string]any) { trees(m)["db"].(map[string]any)["tar_size"] = -1 })
			return p
		}, "out of range"},
		{"more special files than files", func(p []part) []part {
			editManifest(t, p, func(m map[string]any) {
				trees(m)["db"].(map[string]any)["special"] = map[string]any{"setid": 1 << 40, "devices": 0}
			})
			return p
		}, "special files"},
		{"a thousand examples", func(p []part) []part {
			editManifest(t, p, func(m map[string]any) {
				trees(m)["db"].(map[string]any)["special"] = map[string]any{"setid": 1, "devices": 0, "examples": make([]string, 1000)}
			})
			return p
		}, "special files"},
		{"a long example", func(p []part) []part {
			editManifest(t, p, func(m map[string]any) {
				trees(m)["db"].(map[string]any)["special"] = map[string]any{"setid": 1, "devices": 0, "examples": []string{strings.Repeat("x", 4000)}}
			})
			return p
		}, "special files"},
		{"sizes that do not add up", func(p []part) []part {
			editManifest(t, p, func(m map[string]any) { trees(m)["db"].(map[string]any)["tar_size"] = 1 << 50 })
			return p
		}, "bytes of"},
		{"a segment of a petabyte", func(p []part) []part {
			editManifest(t, p, func(m map[string]any) {
				s := trees(m)["db"].(map[string]any)["segments"].([]any)[0].(map[string]any)
				s["raw"] = 1 << 50
			})
			return p
		}, "no right size"},
		{"a million volumes", func(p []part) []part {
			var b strings.Builder
			b.WriteString(`{"format":1,"trees":{"v":{}`)
			for i := range 1_000_000 {
				fmt.Fprintf(&b, `,"v%d":{}`, i)
			}
			b.WriteString("}}")
			p[find(t, p, "dentropy/10-manifest.json")].data = []byte(b.String())
			return p
		}, "too large or too deep"},
		{"a deep manifest", func(p []part) []part {
			i := find(t, p, "dentropy/10-manifest.json")
			p[i].data = []byte(strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000))
			return p
		}, "too large or too deep"},
		{"an id that is none", func(p []part) []part {
			editManifest(t, p, func(m map[string]any) { m["id"] = "../../x" })
			return p
		}, "UUID"},
		{"a huge manifest", func(p []part) []part {
			i := find(t, p, "dentropy/10-manifest.json")
			p[i].data = append(p[i].data, bytes.Repeat([]byte(" "), 64<<20)...)
			return p
		}, "more than the"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			parts := tt.edit(takeApart(t, made.bytes))
			b := seal(t, parts, made.manifest.ID)
			_, err := readAll(bytes.NewReader(b))
			if !errors.Is(err, backup.ErrCorrupt) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("reading = %v, want ErrCorrupt with %q", err, tt.want)
			}
			a, err := backup.OpenArchive(bytes.NewReader(b), int64(len(b)))
			if err == nil {
				err = a.Verify(t.Context(), nil)
			}
			if err == nil {
				t.Error("OpenArchive and Verify: no error")
			}
		})
	}
	t.Run("unchanged", func(t *testing.T) {
		if _, err := readAll(bytes.NewReader(seal(t, takeApart(t, made.bytes), made.manifest.ID))); err != nil {
			t.Errorf("what the other cases are made from: %v", err)
		}
	})
	t.Run("unknown members are skipped", func(t *testing.T) {
		parts := takeApart(t, made.bytes)
		parts = slices.Insert(parts, 5, file("dentropy/60-new/X.json", "x"))
		parts = slices.Insert(parts, 3, file("dentropy/15-new", "x"))
		got, err := readAll(bytes.NewReader(seal(t, parts, made.manifest.ID)))
		if err != nil || string(got["dentropy/60-new/X.json"]) != "x" {
			t.Errorf("reading = %v, %q", err, got["dentropy/60-new/X.json"])
		}
	})
	t.Run("another's end", func(t *testing.T) {
		parts := takeApart(t, made.bytes)
		parts[len(parts)-1] = other[len(other)-1]
		b := putTogether(t, parts)
		if _, err := readAll(bytes.NewReader(b)); !errors.Is(err, backup.ErrCorrupt) || !strings.Contains(err.Error(), "another archive") {
			t.Errorf("reading = %v, want ErrCorrupt: another archive", err)
		}
		if _, err := backup.OpenArchive(bytes.NewReader(b), int64(len(b))); !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("OpenArchive = %v, want ErrCorrupt", err)
		}
	})
	t.Run("a member behind the end", func(t *testing.T) {
		b := putTogether(t, append(takeApart(t, made.bytes), file("dentropy/99-END", "x")))
		if _, err := readAll(bytes.NewReader(b)); !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("reading = %v, want ErrCorrupt", err)
		}
	})
	t.Run("no end", func(t *testing.T) {
		parts := takeApart(t, made.bytes)
		b := putTogether(t, parts[:len(parts)-1])
		if _, err := readAll(bytes.NewReader(b)); !errors.Is(err, backup.ErrIncomplete) {
			t.Errorf("reading = %v, want ErrIncomplete", err)
		}
	})
	t.Run("a newer version", func(t *testing.T) {
		parts := takeApart(t, made.bytes)
		parts[0].data = bytes.Replace(parts[0].data, []byte(" 1\n"), []byte(" 2\n"), 1)
		_, err := readAll(bytes.NewReader(putTogether(t, parts)))
		if err == nil || !strings.Contains(err.Error(), "newer version") || errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("reading = %v, want that a newer version wrote it", err)
		}
	})
	t.Run("something else", func(t *testing.T) {
		for _, in := range []string{"", "hello", strings.Repeat("x", 10_000), "PK\x03\x04" + strings.Repeat("\x00", 2000)} {
			if _, err := readAll(strings.NewReader(in)); err == nil {
				t.Errorf("reading %d bytes of %.5q: no error", len(in), in)
			}
		}
	})
}

// Sources that fail are not taken for damage.
func TestReadErrorsStayThemselves(t *testing.T) {
	errDisk := errors.New("the disk is gone")
	for _, enc := range []string{"none", "all"} {
		made := makeArchive(t, archiveOptions{encryption: enc})
		for n := 0; n < len(made.bytes); n += 4099 {
			r := io.MultiReader(bytes.NewReader(made.bytes[:n]), failing{errDisk})
			_, err := readAll(r, testIdentity(t))
			if !errors.Is(err, errDisk) || errors.Is(err, backup.ErrCorrupt) || errors.Is(err, backup.ErrIncomplete) {
				t.Fatalf("%s: failing at %d: %v, want only the disk's error", enc, n, err)
			}
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestWriterRefuses(t *testing.T) {
	v := makeVolume(t, "db", testFiles())
	m := func() *backup.Manifest {
		return &backup.Manifest{Trees: map[string]*backup.Tree{"db": v.tree}}
	}
	start := func(t *testing.T, man *backup.Manifest) *backup.Writer {
		t.Helper()
		w, err := backup.NewWriter(io.Discard, backup.WriterOptions{Encryption: "none"})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Start(man, testApp()); err != nil {
			t.Fatal(err)
		}
		return w
	}
	if _, err := backup.NewWriter(io.Discard, backup.WriterOptions{}); err == nil {
		t.Error("NewWriter without recipients: no error")
	}
	w := start(t, m())
	if _, err := w.Finish(); err == nil {
		t.Error("Finish without the volume: no error")
	}
	w = start(t, m())
	damaged := bytes.Clone(v.segments)
	damaged[len(damaged)-1] ^= 1
	if err := w.Volume(v.tree, bytes.NewReader(damaged)); !errors.Is(err, backup.ErrCorrupt) {
		t.Errorf("Volume with other data = %v, want ErrCorrupt", err)
	}
	if err := w.FileIndex(v.tree, bytes.NewReader(v.index)); err == nil {
		t.Error("FileIndex after an error: no error")
	}
	if err := start(t, m()).Volume(v.tree, bytes.NewReader(v.segments[:1000])); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Volume cut off = %v, want ErrUnexpectedEOF", err)
	}
	if err := start(t, m()).Volume(v.tree, bytes.NewReader(append(bytes.Clone(v.segments), 'x'))); !errors.Is(err, backup.ErrCorrupt) {
		t.Errorf("Volume with more data = %v, want ErrCorrupt", err)
	}
	bad := *v.tree
	bad.Volume = "../x"
	w, err := backup.NewWriter(io.Discard, backup.WriterOptions{Encryption: "none"})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Start(&backup.Manifest{Trees: map[string]*backup.Tree{"../x": &bad}}, testApp()); err == nil {
		t.Error("Start with a hostile volume id: no error")
	}
}
