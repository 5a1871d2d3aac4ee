package frame_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/dentropy/dentropycloud/backup/frame"
)

// discard is a sink that keeps nothing.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }

// text is log lines: what a database or a log compresses like.
func text(n int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 3000)
	for i := range words {
		b := make([]byte, 2+rng.IntN(9))
		for j := range b {
			b[j] = byte('a' + rng.IntN(26))
		}
		words[i] = string(b)
	}
	var out bytes.Buffer
	for i := 0; out.Len() < n; i++ {
		fmt.Fprintf(&out, "2026-11-24T08:%02d:%02d.%06dZ host=%d id=%016x", i/60%60, i%60, rng.IntN(1e6), rng.IntN(16), rng.Uint64())
		for range 4 + rng.IntN(12) {
			// A few words are frequent, most are not.
			out.WriteByte(' ')
			out.WriteString(words[int(float64(len(words))*rng.Float64()*rng.Float64()*rng.Float64())])
		}
		out.WriteByte('\n')
	}
	return out.Bytes()[:n]
}

// noise does not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(b)
	return b
}

// mixed is text and noise by turns, a MiB each.
func mixed(n int) []byte {
	a, b := text(n), noise(n)
	for i := 1 << 20; i < n; i += 2 << 20 {
		copy(a[i:min(n, i+1<<20)], b)
	}
	return a
}

var kinds = []struct {
	name string
	make func(int) []byte
}{
	{"Compressible", text},
	{"Incompressible", noise},
	{"Mixed", mixed},
	{"Base64", func(n int) []byte { return []byte(base64.StdEncoding.EncodeToString(noise(n)))[:n] }},
	{"Zeros", func(n int) []byte { return make([]byte, n) }},
}

func BenchmarkWriter(b *testing.B) {
	for _, kind := range kinds {
		data := kind.make(64 << 20)
		b.Run(kind.name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			var size int64
			for range b.N {
				w, err := frame.NewWriter(frame.Options{Create: func(int) (io.WriteCloser, error) { return discard{}, nil }})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := w.Write(data); err != nil {
					b.Fatal(err)
				}
				segments, err := w.Close()
				if err != nil {
					b.Fatal(err)
				}
				size = segments[0].Size
			}
			b.ReportMetric(float64(len(data))/float64(size), "ratio")
		})
	}
}

func BenchmarkReader(b *testing.B) {
	for _, kind := range kinds {
		data := kind.make(64 << 20)
		packed := pack(b, data)
		b.Run(kind.name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for range b.N {
				r := frame.NewReader(bytes.NewReader(packed), 0)
				if n, err := io.Copy(io.Discard, r); err != nil || n != int64(len(data)) {
					b.Fatalf("Copy = %d, %v", n, err)
				}
				r.Close()
			}
		})
	}
}

// pack compresses data into one slice.
func pack(tb testing.TB, data []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	w, err := frame.NewWriter(frame.Options{Create: func(int) (io.WriteCloser, error) { return nopCloser{&out}, nil }})
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
