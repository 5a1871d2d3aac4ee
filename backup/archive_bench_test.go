package backup_test

import (
	"bytes"
	"io"
	"testing"

	"filippo.io/age"
	"github.com/dentropy/dentropycloud/backup"
)

// benchVolume is a volume of 256 MiB that does not compress, in segments of 64 MiB. Its
// segments need not be zstd for what is measured here.
func benchVolume(b *testing.B) *testVolume {
	b.Helper()
	v := &testVolume{tree: &backup.Tree{Volume: "db"}, index: []byte("x")}
	segment := noise(64 << 20)
	for range 4 {
		v.segments = append(v.segments, segment...)
		v.tree.Segments = append(v.tree.Segments, backup.Segment{Blob: blob(segment), Raw: int64(len(segment))})
		v.tree.TarSize += int64(len(segment))
	}
	v.tree.Index = blob(v.index)
	return v
}

func BenchmarkWriter(b *testing.B) {
	for _, enc := range []string{"none", "all"} {
		b.Run(enc, func(b *testing.B) {
			v := benchVolume(b)
			b.SetBytes(int64(len(v.segments)))
			for b.Loop() {
				w, err := backup.NewWriter(io.Discard, backup.WriterOptions{Encryption: enc, Recipients: []age.Recipient{testIdentity(b).Recipient()}})
				if err != nil {
					b.Fatal(err)
				}
				if err := w.Start(&backup.Manifest{Trees: map[string]*backup.Tree{"db": v.tree}}, testApp()); err != nil {
					b.Fatal(err)
				}
				if err := w.Volume(v.tree, bytes.NewReader(v.segments)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReader(b *testing.B) {
	for _, enc := range []string{"none", "all"} {
		b.Run(enc, func(b *testing.B) {
			v := benchVolume(b)
			made := makeArchive(b, archiveOptions{encryption: enc, noImages: true, volumes: map[string]*testVolume{"db": v}})
			b.SetBytes(int64(len(v.segments)))
			for b.Loop() {
				r, err := backup.NewReader(bytes.NewReader(made.bytes), testIdentity(b))
				if err != nil {
					b.Fatal(err)
				}
				if err := r.Finish(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
