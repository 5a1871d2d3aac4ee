package frame

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func TestXXH64(t *testing.T) {
	// From the specification's own test vectors and common knowledge.
	for text, want := range map[string]uint64{
		"":    0xef46db3751d8e999,
		"a":   0xd24ec4f1a98c6e5b,
		"abc": 0x44bc2cf5ad770999,
	} {
		if got := xxh64([]byte(text)); got != want {
			t.Errorf("xxh64(%q) = %#x, want %#x", text, got, want)
		}
	}
	// The compressor's checksum is the lower half of the same.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for n := 1; n < 3000; n += 1 + n/10 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		packed := enc.EncodeAll(b, nil)
		if got, want := uint32(xxh64(b)), binary.LittleEndian.Uint32(packed[len(packed)-4:]); got != want {
			t.Errorf("xxh64 of %d bytes = %#x, want %#x", n, got, want)
		}
	}
}
