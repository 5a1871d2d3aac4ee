package volume_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/backup/volume"
)

const zeroBlock = 4 << 20

// digestByHand is the content hash as the package comment says it.
func digestByHand(data []byte) string {
	sha := sha256.New()
	var runs strings.Builder
	first, count := 0, 0
	end := func() {
		if count > 0 {
			fmt.Fprintf(&runs, "%d+%d\n", first, count)
			count = 0
		}
	}
	for i := 0; i*zeroBlock < len(data); i++ {
		part := data[i*zeroBlock : min(len(data), (i+1)*zeroBlock)]
		if len(part) == zeroBlock && strings.Trim(string(part), "\x00") == "" {
			if count == 0 {
				first = i
			}
			count++
			continue
		}
		end()
		sha.Write(part)
	}
	end()
	sum := sha.Sum(nil)
	if runs.Len() == 0 {
		return hex.EncodeToString(sum)
	}
	sum2 := sha256.Sum256(append(sum, runs.String()...))
	return "z:" + hex.EncodeToString(sum2[:])
}

// However bytes and zeros come, the hash is the same.
func TestDigest(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	d := volume.NewDigest()
	for round := range 16 {
		data := make([]byte, rng.IntN(6*zeroBlock))
		if round%4 == 0 {
			data = make([]byte, rng.IntN(5)*zeroBlock)
		}
		for range rng.IntN(4) {
			if len(data) > 0 {
				at := rng.IntN(len(data))
				if rng.IntN(2) == 0 {
					at = at / zeroBlock * zeroBlock // at the edge of a block
				}
				data[at] = 1
			}
		}
		d.Reset()
		for pos := 0; pos < len(data); {
			n := min(1+rng.IntN(zeroBlock), len(data)-pos)
			if rng.IntN(3) == 0 {
				n = min(2*zeroBlock, len(data)-pos)
			}
			if part := data[pos : pos+n]; strings.Trim(string(part), "\x00") == "" && rng.IntN(2) == 0 {
				d.Zeros(int64(n))
			} else if _, err := d.Write(part); err != nil {
				t.Fatal(err)
			}
			pos += n
		}
		if got, want := d.String(), digestByHand(data); got != want {
			t.Fatalf("round %d, %d bytes: %s, want %s", round, len(data), got, want)
		}
	}
}

func TestDigestOfHole(t *testing.T) {
	d := volume.NewDigest()
	d.Zeros(1 << 50)
	sum := sha256.Sum256(nil)
	want := sha256.Sum256(append(sum[:], fmt.Sprintf("0+%d\n", 1<<50/zeroBlock)...))
	if got := d.String(); got != "z:"+hex.EncodeToString(want[:]) {
		t.Errorf("digest of a hole = %s, want z:%x", got, want)
	}
}
