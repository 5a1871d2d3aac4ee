package tarx_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/dentropy/dentropycloud/backup/tarx"
)

func BenchmarkAppendHeader(b *testing.B) {
	headers := map[string]tarx.Header{
		"Plain":    {Name: "some/folder/of/files/name.txt", Type: '0', Mode: 0o644, UID: 1000, GID: 1000, Size: 1234, ModTime: time.Unix(1764000000, 0)},
		"Fraction": {Name: "some/folder/of/files/name.txt", Type: '0', Mode: 0o644, UID: 1000, GID: 1000, Size: 1234, ModTime: time.Unix(1764000000, 123456789)},
		"Xattr": {Name: "some/folder/of/files/name.txt", Type: '0', Mode: 0o644, UID: 1000, GID: 1000, Size: 1234, ModTime: time.Unix(1764000000, 123456789),
			Xattrs: map[string]string{"user.a": "b", "system.posix_acl_access": acl(1000, 1000)}},
	}
	for name, h := range headers {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var buf []byte
			for range b.N {
				var err error
				if buf, err = tarx.AppendHeader(buf[:0], &h); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "headers/s")
		})
	}
}

func BenchmarkReader(b *testing.B) {
	var archive []byte
	const count = 1000
	for i := range count {
		archive = appendEntry(b, archive, &entry{tarx.Header{Name: fmt.Sprint("folder/file", i), Type: '0', Size: 100, ModTime: time.Unix(1764000000, 123456789)}, make([]byte, 100)})
	}
	archive = append(archive, tarx.Trailer[:]...)
	b.ReportAllocs()
	for range b.N {
		if _, err := read(bytes.NewReader(archive)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*count/b.Elapsed().Seconds(), "headers/s")
}
