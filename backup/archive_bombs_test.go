package backup_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/tarx"
	"github.com/klauspost/compress/zstd"
)

// The index of members may point into the content of an unknown one, where another head
// is: whoever goes by the index would see another archive than whoever reads from the
// front, and verify would be lost between the two.
func TestTwoHeads(t *testing.T) {
	made := makeArchive(t, archiveOptions{encryption: "none", noImages: true})
	parts := takeApart(t, made.bytes)
	frames := framesOf(t, parts)
	pad := func(b []byte) []byte { return append(b, make([]byte, -len(b)&511)...) }
	other := slices.Clone(parts)
	editManifest(t, other, func(m map[string]any) { // of one segment
		db := m["trees"].(map[string]any)["db"].(map[string]any)
		db["segments"] = db["segments"].([]any)[:1]
		db["tar_size"] = db["segments"].([]any)[0].(map[string]any)["raw"]
	})
	manifest := other[find(t, other, "dentropy/10-manifest.json")].data
	format := []byte("dentropy-app-archive 1\nmanifest " + sum(manifest) + "\n")
	hidden := slices.Concat(pad(slices.Clone(format)), make([]byte, 512), pad(slices.Clone(manifest)))
	parts = slices.DeleteFunc(parts, func(p part) bool {
		return p.Name == "dentropy/91-index.json" || p.Name == "dentropy/92-SHA256SUMS" || p.Name == "dentropy/99-END"
	})
	file := func(name string, data []byte) part {
		return part{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600}, data}
	}
	at := slices.IndexFunc(parts, func(p part) bool { return strings.HasPrefix(p.Name, "dentropy/25-") })
	parts = slices.Insert(parts, at+1, file("dentropy/60-x", hidden))

	var lines, sums []string
	list := func(name string, offset int64, data []byte) {
		lines = append(lines, fmt.Sprintf(`{"name":%q,"offset":%d,"size":%d,"sha256":"%s"%s}`, name, offset, len(data), sum(data), frames[name]))
		sums = append(sums, sum(data)+"  "+name+"\n")
	}
	pos := int64(0)
	for _, p := range parts {
		pos += 512
		switch {
		case p.Name == "dentropy/60-x":
			list("dentropy/00-FORMAT", pos, format)
			list("dentropy/10-manifest.json", pos+1024, manifest)
		case strings.HasPrefix(p.Name, "dentropy/00"), p.Name == "dentropy/10-manifest.json":
		case strings.Contains(p.Name, "/db.tar.zst.") && !strings.HasSuffix(p.Name, "00000"):
		default:
			list(p.Name, pos, p.data)
		}
		pos += (int64(len(p.data)) + 511) / 512 * 512
	}
	index := fmt.Sprintf("{\"format\":1,\"id\":\"%s\",\"members\":[\n", made.manifest.ID) + strings.Join(lines, ",\n") + "\n]}\n"
	text := strings.Join(sums, "") + sum([]byte(index)) + "  dentropy/91-index.json\n"
	total := pos + 512 + int64(len(index)+511)/512*512 + 512 + int64(len(text)+511)/512*512 + 2048
	end := fmt.Sprintf("dentropy-app-archive 1 end\nid %s\nindex %d %d\nsums %s\nstatus complete\ntotal %d\n", made.manifest.ID, pos+512, len(index), sum([]byte(text)), total)
	end += strings.Repeat(" ", 511-len(end)) + "\n"
	b := putTogether(t, append(parts, file("dentropy/91-index.json", []byte(index)), file("dentropy/92-SHA256SUMS", []byte(text)), file("dentropy/99-END", []byte(end))))
	a, err := backup.OpenArchive(bytes.NewReader(b), int64(len(b)))
	if err == nil {
		err = a.Verify(t.Context(), nil)
		t.Error("an archive with two heads can be opened")
	}
	if !errors.Is(err, backup.ErrCorrupt) {
		t.Errorf("error = %v, want ErrCorrupt", err)
	}
}

// counting counts what is read.
type counting struct {
	r io.Reader
	n int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// Members that this version does not know are bounded before the manifest as well.
func TestUnknownMembersInHead(t *testing.T) {
	parts := takeApart(t, makeArchive(t, archiveOptions{encryption: "none", noImages: true}).bytes)
	pr, pw := io.Pipe()
	defer func() { _ = pr.Close() }()
	go func() {
		w := tar.NewWriter(pw)
		var err error
		for _, p := range parts[:2] {
			h := p.Header
			err = errors.Join(err, w.WriteHeader(&h))
			if _, werr := w.Write(p.data); werr != nil {
				err = werr
			}
		}
		for i := 0; i < 100_000 && err == nil; i++ {
			err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("dentropy/11-%d", i), Mode: 0o600, Format: tar.FormatUSTAR})
		}
		_ = pw.CloseWithError(errors.Join(err, io.ErrUnexpectedEOF))
	}()
	src := &counting{r: pr}
	if _, err := backup.NewReader(src); !errors.Is(err, backup.ErrCorrupt) || src.n > 4<<20 {
		t.Errorf("NewReader = %v after %d bytes, want ErrCorrupt after a few thousand members", err, src.n)
	}
}

// withIndex is a small volume with another index of files.
func withIndex(t *testing.T, entries int64, lines ...backup.FileEntry) map[string]*testVolume {
	t.Helper()
	v := makeVolume(t, "db", testFiles())
	var text bytes.Buffer
	for _, e := range lines {
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(append(b, '\n'))
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	v.index = enc.EncodeAll(text.Bytes(), nil)
	v.tree.Index = blob(v.index)
	if entries > 0 {
		v.tree.Entries = entries
	}
	return map[string]*testVolume{"db": v}
}

func TestHostileIndexOfFiles(t *testing.T) {
	file := func(path string, offset int64) backup.FileEntry {
		return backup.FileEntry{Path: path, Type: "0", Offset: offset}
	}
	var many, deep []backup.FileEntry
	for i := range int64(30) {
		many = append(many, file(fmt.Sprint("f", i), i*512))
		deep = append(deep, file(fmt.Sprint(strings.Repeat("a/", 450_000), i), i*512))
	}
	var folders []backup.FileEntry // other ones in each line
	for i := range int64(60) {
		folders = append(folders, file(fmt.Sprint(i, strings.Repeat("/b", 4000), "/c"), i*512))
	}
	for _, tt := range []struct {
		name    string
		entries int64
		lines   []backup.FileEntry
		want    string
	}{
		{"more lines than entries", 0, many, "more lines than"},
		{"backwards", 0, []backup.FileEntry{file("a", 1024), file("b", 512)}, "not in the order"},
		{"one place twice", 0, []backup.FileEntry{file("a", 512), file("b", 512)}, "not in the order"},
		{"behind the tar", 0, []backup.FileEntry{file("a", 1<<40)}, "points out of it"},
		{"deep", 1000, deep, "folders that it does not have"},
		{"many folders", 1000, folders, "folders that it does not have"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := openArchive(t, makeArchive(t, archiveOptions{encryption: "none", noImages: true, volumes: withIndex(t, tt.entries, tt.lines...)}).bytes)
			began := time.Now()
			_, err := a.TarOf("db", func(string) bool { return true })
			if !errors.Is(err, backup.ErrCorrupt) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("TarOf = %v, want ErrCorrupt and %q", err, tt.want)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestArchiveUntil(t *testing.T) {
	a := openArchive(t, makeArchive(t, archiveOptions{encryption: "none", noImages: true}).bytes)
	ctx, cancel := context.WithCancel(t.Context())
	a.Until(ctx)
	if _, err := a.TarOf("db", func(string) bool { return true }); err != nil {
		t.Error(err)
	}
	cancel()
	if _, err := a.TarOf("db", func(string) bool { return true }); !errors.Is(err, context.Canceled) {
		t.Errorf("TarOf = %v, want that it was cancelled", err)
	}
	for _, err := range a.Files("db") {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Files = %v, want that it was cancelled", err)
		}
	}
}

// sparseBomb is a volume of a few kilobytes with a file whose hash is that of terabytes of
// zeros.
func sparseBomb(t *testing.T, bytes int64) map[string]*testVolume {
	t.Helper()
	const (
		every   = 4 << 20
		extents = 1 << 18
	)
	f := testFile{h: tarx.Header{Name: "bomb", Type: tarx.TypeFile, Mode: 0o600, ModTime: time.Unix(1, 0), Size: every * extents}, data: make([]byte, extents*512)}
	for i := range int64(extents) {
		f.data[i*512] = 1
		f.h.Data = append(f.h.Data, tarx.Extent{Offset: i * every, Length: 512})
	}
	v := makeVolume(t, "db", []testFile{testFiles()[0], f})
	if bytes > 0 {
		v.tree.Bytes = bytes
	}
	return map[string]*testVolume{"db": v}
}

func TestVerifySparseBomb(t *testing.T) {
	lying := makeArchive(t, archiveOptions{encryption: "none", noImages: true, volumes: sparseBomb(t, 1000)})
	if _, err := backup.VerifyStream(t.Context(), bytes.NewReader(lying.bytes), nil); !errors.Is(err, backup.ErrCorrupt) || !strings.Contains(err.Error(), "larger than the manifest says") {
		t.Errorf("VerifyStream = %v, want that the files are larger than the manifest says", err)
	}
	honest := makeArchive(t, archiveOptions{encryption: "none", noImages: true, volumes: sparseBomb(t, 0)})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := time.Now()
	_, err := backup.VerifyStream(ctx, bytes.NewReader(honest.bytes), func(p backup.Progress) {
		if p.Done > p.Total/2 {
			cancel()
		}
	})
	if took := time.Since(began); !errors.Is(err, context.Canceled) || took > 30*time.Second {
		t.Errorf("VerifyStream = %v after %v, want that it was cancelled at once", err, took)
	}
}

// What its reader would refuse is refused before anything is written.
func TestWriterKeepsLimits(t *testing.T) {
	frames := make([]backup.Frame, 1<<20)
	for i := range frames {
		frames[i] = backup.Frame{Size: 1, Raw: 1}
	}
	tree := &backup.Tree{Volume: "db", Index: blob([]byte("x"))}
	for range 9 {
		tree.Segments = append(tree.Segments, backup.Segment{Blob: backup.Blob{Size: 1 << 20, SHA256: sum(nil)}, Raw: 1 << 20, Frames: frames})
		tree.TarSize += 1 << 20
	}
	var out bytes.Buffer
	w, err := backup.NewWriter(&out, backup.WriterOptions{Encryption: "none"})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Start(&backup.Manifest{Trees: map[string]*backup.Tree{"db": tree}}, testApp()); err == nil || !strings.Contains(err.Error(), "frames are more") || out.Len() > 0 {
		t.Errorf("Start with 9 million frames = %v, want a refusal", err)
	}

	out.Reset()
	if w, err = backup.NewWriter(&out, backup.WriterOptions{Encryption: "none"}); err != nil {
		t.Fatal(err)
	}
	if err := w.Start(&backup.Manifest{ImagesInside: true}, testApp()); err != nil {
		t.Fatal(err)
	}
	var layout bytes.Buffer
	if err := tar.NewWriter(&layout).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "index.json", Size: 1 << 30, Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	if err := w.Images(&layout); err == nil || !strings.Contains(err.Error(), "more than the") {
		t.Errorf("Images with an index of 1 GiB = %v, want a refusal", err)
	}
}
