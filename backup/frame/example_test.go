package frame_test

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"strings"

	"github.com/dentropy/dentropycloud/backup/frame"
)

// Segments go to memory here; mostly each is a file.
func Example() {
	var out bytes.Buffer
	w, err := frame.NewWriter(frame.Options{
		Create: func(int) (io.WriteCloser, error) { return nopCloser{&out}, nil },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer w.Abort() // of no effect after Close
	if _, err := io.Copy(w, strings.NewReader(strings.Repeat("all work and no play ", 1000))); err != nil {
		log.Fatal(err)
	}
	segments, err := w.Close()
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range segments {
		fmt.Println(len(s.Frames), "frame,", s.Raw, "bytes, shrunk:", s.Size < 200)
	}

	r := frame.NewReader(&out, 0)
	defer r.Close()
	n, err := io.Copy(io.Discard, r)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(n, "bytes back")
	// Output:
	// 1 frame, 21000 bytes, shrunk: true
	// 21000 bytes back
}
