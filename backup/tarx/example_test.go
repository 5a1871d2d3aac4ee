package tarx_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"time"

	"github.com/dentropy/dentropycloud/backup/tarx"
)

// A file of one MiB of which four bytes are stored.
func Example() {
	h := tarx.Header{
		Name: "db/data", Type: tarx.TypeFile, Mode: 0o600, UID: 70, GID: 70,
		ModTime: time.Unix(1764000000, 500000000),
		Size:    1 << 20,
		Data:    tarx.AlignExtents([]tarx.Extent{{Offset: 1<<20 - 4, Length: 4}}, 1<<20),
		Xattrs:  map[string]string{"user.note": "kept"},
	}
	archive, err := tarx.AppendHeader(nil, &h)
	if err != nil {
		log.Fatal(err)
	}
	archive = append(archive, make([]byte, h.PayloadSize()-4)...)
	archive = append(archive, "data"...)
	archive = append(archive, make([]byte, tarx.Padding(&h))...)
	archive = append(archive, tarx.Trailer[:]...)

	r := tarx.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %d bytes, stored %d, %q\n", h.Name, h.Size, h.PayloadSize(), h.Xattrs)
	}
	// Output:
	// db/data: 1048576 bytes, stored 512, map["user.note":"kept"]
}
