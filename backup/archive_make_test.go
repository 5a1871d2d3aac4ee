package backup_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/tarx"
	"github.com/klauspost/compress/zstd"
)

// The test identity. It guards nothing but the golden archives.
const testKey = "AGE-SECRET-KEY-1W9U57MK3EWXCAUUSJJ4PZKYKGMXE5S6JNFW6P35WY236YQUC9SWSTN0804"

func testIdentity(t testing.TB) *age.X25519Identity {
	t.Helper()
	id, err := age.ParseX25519Identity(testKey)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// testFrame and testFrames make archives of a few KiB have many frames and segments.
const (
	testFrame  = 16 << 10
	testFrames = 3
)

// testVolume is a volume as the helper gives it.
type testVolume struct {
	tree     *backup.Tree
	segments []byte
	index    []byte
	tar      []byte
}

// testFile is one entry of a volume.
type testFile struct {
	h    tarx.Header
	data []byte // as stored
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func blob(b []byte) backup.Blob { return backup.Blob{Size: int64(len(b)), SHA256: sum(b)} }

// noise is data that does not compress, the same each time.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	if _, err := r.Read(b); err != nil {
		panic(err)
	}
	return b
}

// testFiles have what makes volumes hard: links, holes, names.
func testFiles() []testFile {
	at := time.Unix(1700000000, 123456789)
	file := func(name string, data []byte) testFile {
		return testFile{tarx.Header{Name: name, Type: tarx.TypeFile, Mode: 0o640, UID: 1000, GID: 70, ModTime: at, Size: int64(len(data))}, data}
	}
	sparse := file("holes", bytes.Repeat([]byte("x"), 1024))
	sparse.h.Size = 100_000
	sparse.h.Data = []tarx.Extent{{Offset: 4096, Length: 512}, {Offset: 65536, Length: 512}}
	return []testFile{
		{h: tarx.Header{Name: "./", Type: tarx.TypeFolder, Mode: 0o755, ModTime: at}},
		file("big", noise(90_000)),
		{h: tarx.Header{Name: "dir/", Type: tarx.TypeFolder, Mode: 0o700, ModTime: at}},
		file("dir/a file with \xff\n bytes", []byte("hello\n")),
		{h: tarx.Header{Name: "dir/link", Type: tarx.TypeHardLink, Link: "big", Mode: 0o640, UID: 1000, GID: 70, ModTime: at}},
		{h: tarx.Header{Name: "dir/sym", Type: tarx.TypeSymlink, Link: "../../etc/passwd", Mode: 0o777, ModTime: at}},
		file("empty", nil),
		sparse,
		file("text", []byte(strings.Repeat("all work and no play ", 3000))),
	}
}

// makeVolume packs files as the helper does, in small frames and segments.
func makeVolume(t testing.TB, id string, files []testFile) *testVolume {
	t.Helper()
	v := &testVolume{tree: &backup.Tree{Volume: id, Hash: "sha256:" + sum([]byte(id))}}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(true))
	if err != nil {
		t.Fatal(err)
	}
	var raw, index bytes.Buffer
	for _, f := range files {
		line, err := json.Marshal(fileEntry(f, int64(raw.Len())))
		if err != nil {
			t.Fatal(err)
		}
		index.Write(append(line, '\n'))
		hdr, err := tarx.AppendHeader(nil, &f.h)
		if err != nil {
			t.Fatal(err)
		}
		raw.Write(hdr)
		raw.Write(f.data)
		raw.Write(make([]byte, tarx.Padding(&f.h)))
		v.tree.Entries++
		if f.h.Type == tarx.TypeFile {
			v.tree.Files++
			v.tree.Bytes += f.h.Size
			v.tree.Stored += int64(len(f.data))
		}
	}
	raw.Write(tarx.Trailer[:])
	v.tar = raw.Bytes()
	v.index = enc.EncodeAll(index.Bytes(), nil)
	v.tree.TarSize, v.tree.Index = int64(raw.Len()), blob(v.index)
	for rest := v.tar; len(rest) > 0; {
		var s backup.Segment
		at := len(v.segments)
		for range testFrames {
			n := min(testFrame, len(rest))
			if n == 0 {
				break
			}
			before := len(v.segments)
			v.segments = enc.EncodeAll(rest[:n], v.segments)
			s.Frames = append(s.Frames, backup.Frame{Size: int64(len(v.segments) - before), Raw: int64(n)})
			s.Raw += int64(n)
			rest = rest[n:]
		}
		s.Blob = blob(v.segments[at:])
		v.tree.Segments = append(v.tree.Segments, s)
	}
	return v
}

// smallVolumes are volumes of a few KiB, of two segments and more.
func smallVolumes(t testing.TB) map[string]*testVolume {
	files := testFiles()
	return map[string]*testVolume{
		"db":    makeVolume(t, "db", append(files[:1:1], files[len(files)-2:]...)),
		"media": makeVolume(t, "media", files[:1]),
	}
}

func fileEntry(f testFile, offset int64) backup.FileEntry {
	h := f.h
	e := backup.FileEntry{
		Path: strings.TrimSuffix(h.Name, "/"), Type: string(h.Type), Mode: h.Mode, UID: h.UID, GID: h.GID,
		Size: h.Size, MTime: h.ModTime.UnixNano(), Link: h.Link, Offset: offset,
	}
	if strings.Contains(e.Path, "\xff") {
		e.Path, e.PathBytes = "", []byte(e.Path)
	}
	if h.Type == tarx.TypeFile && h.Size <= 1<<30 { // larger ones are for tests that never get as far as their hash
		whole := f.data
		if h.Data != nil {
			whole = make([]byte, h.Size)
			rest := f.data
			for _, x := range h.Data {
				rest = rest[copy(whole[x.Offset:x.Offset+x.Length], rest):]
			}
		}
		e.SHA256 = sum(whole)
	}
	return e
}

// testApp has secrets in many places.
func testApp() *backup.App {
	return &backup.App{
		Name: "shop", Kind: "compose", Platform: "docker", Format: "docker",
		Source:  backup.Source{Engine: "docker 20.10.24", Arch: "amd64"},
		Project: &backup.Project{Name: "shop", Dir: "/srv/shop"},
		Containers: []backup.Container{{
			ID: "c1", Name: "shop-db-1", Service: "db", Image: "postgres:16", State: backup.Running,
			Settings: json.RawMessage(`{"Config":{"Env":["POSTGRES_PASSWORD=hunter2-hunter2","LANG=C"],"Cmd":["postgres"],"Image":"postgres:16"},"HostConfig":{"Memory":12345678901234567890}}`),
		}},
		Volumes: []backup.Volume{
			{ID: "db", Kind: backup.Named, Name: "shop_db", Class: "data", Action: backup.Include},
			{ID: "media", Kind: backup.Named, Name: "shop_media", Driver: "local", Action: backup.Include,
				Options: map[string]string{"type": "cifs", "device": "//nas/x", "o": "username=bob,password=s3cr3t-s3cr3t,vers=3"}},
		},
		Images: []backup.Image{{ID: "sha256:" + strings.Repeat("a", 64), Include: true}},
	}
}

// makeLayout is a tar of an OCI layout.
func makeLayout(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(name string, data []byte) {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "blobs/", Mode: 0o755}); err != nil {
		t.Fatal(err)
	}
	layer := noise(3000)
	put("blobs/sha256/"+sum(layer), layer)
	put("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	put("index.json", []byte(`{"schemaVersion":2,"manifests":[]}`))
	put("manifest.json", []byte(`[]`))
	put("blobs/sha256/"+sum(layer), layer) // twice, as some savers have it
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// archive is one that was made for a test.
type archive struct {
	bytes    []byte
	manifest *backup.Manifest
	volumes  map[string]*testVolume
	summary  backup.Summary
}

type archiveOptions struct {
	encryption string
	id         string
	noImages   bool
	recipients []age.Recipient
	volumes    map[string]*testVolume
}

// makeArchive writes an archive of testApp with two volumes.
func makeArchive(t testing.TB, opts archiveOptions) *archive {
	t.Helper()
	if opts.recipients == nil && opts.encryption != "none" {
		opts.recipients = []age.Recipient{testIdentity(t).Recipient()}
	}
	a := &archive{volumes: opts.volumes}
	if a.volumes == nil {
		a.volumes = map[string]*testVolume{
			"db":    makeVolume(t, "db", testFiles()),
			"media": makeVolume(t, "media", testFiles()[:1]),
		}
	}
	a.manifest = &backup.Manifest{
		ID: opts.id, Created: time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC), Tool: "dentropy test",
		Trees: map[string]*backup.Tree{}, ImagesInside: !opts.noImages,
	}
	if a.manifest.ID == "" {
		a.manifest.ID = "01940000-0000-7000-8000-0000deadbeef"
	}
	for id, v := range a.volumes {
		a.manifest.Trees[id] = v.tree
	}
	var b bytes.Buffer
	w, err := backup.NewWriter(&b, backup.WriterOptions{Encryption: opts.encryption, Recipients: opts.recipients})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Start(a.manifest, testApp()); err != nil {
		t.Fatal(err)
	}
	if !opts.noImages {
		if err := w.Images(bytes.NewReader(makeLayout(t))); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"db", "media"} {
		v := a.volumes[id]
		if v == nil {
			continue
		}
		if err := w.Volume(v.tree, bytes.NewReader(v.segments)); err != nil {
			t.Fatal(err)
		}
		if err := w.FileIndex(v.tree, bytes.NewReader(v.index)); err != nil {
			t.Fatal(err)
		}
	}
	if a.summary, err = w.Finish(); err != nil {
		t.Fatal(err)
	}
	a.bytes = b.Bytes()
	return a
}

// readAll reads an archive from front to end and returns its members' contents.
func readAll(r io.Reader, ids ...age.Identity) (map[string][]byte, error) {
	ar, err := backup.NewReader(r, ids...)
	if err != nil {
		return nil, err
	}
	out := make(map[string][]byte)
	for {
		m, err := ar.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		b, err := io.ReadAll(ar)
		if err != nil {
			return out, err
		}
		out[m.Name] = b
	}
}
