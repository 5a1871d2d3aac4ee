package native

import (
	"math/rand/v2"
	"testing"
)

func TestSlips(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"host", "host", 0},
		{"hots", "host", 1},
		{"hst", "host", 1},
		{"hosst", "host", 1},
		{"host", "hold", 2},
		{"", "ab", 2},
		{"ab", "ba", 1},
		{"abc", "ca", 3},
		{"strippath", "strip_path", 1},
		{"prot", "port", 1},
	} {
		if got := slips(tt.a, tt.b); got != tt.want {
			t.Errorf("slips(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
		if ab, ba := slips(tt.a, tt.b), slips(tt.b, tt.a); ab != ba {
			t.Errorf("slips(%q, %q) = %d, the other way round %d", tt.a, tt.b, ab, ba)
		}
	}
}

// Every key is recognised after any one slip that does not make another key of it.
func TestNearestKeyAfterOneSlip(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	const letters = "abcdefghijklmnopqrstuvwxyz_"
	for _, key := range routeKeys {
		for range 200 {
			b, i := []byte(key), rnd.IntN(len(key))
			letter := letters[rnd.IntN(len(letters))]
			switch rnd.IntN(4) {
			case 0:
				b[i] = letter
			case 1:
				b = append(b[:i], b[i+1:]...)
			case 2:
				b = append(b[:i], append([]byte{letter}, b[i:]...)...)
			case 3:
				if i > 0 {
					b[i-1], b[i] = b[i], b[i-1]
				}
			}
			slip := string(b)
			got := nearestKey(slip, false)
			if got != key && (slips(slip, got) > 1 || got == "") {
				t.Errorf("nearestKey(%q) = %q, want %q or another that is one slip away", slip, got, key)
			}
		}
	}
}
