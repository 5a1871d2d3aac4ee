package frame

import (
	"encoding/binary"
	"math/bits"
)

// The primes of XXH64.
const (
	prime1 uint64 = 11400714785074694791
	prime2 uint64 = 14029467366897019727
	prime3 uint64 = 1609587929392839161
	prime4 uint64 = 9650029242287828579
	prime5 uint64 = 2870177450012600261
)

// xxh64 is the checksum of zstd frames: XXH64 with seed 0, as its specification has it.
func xxh64(b []byte) uint64 {
	total := uint64(len(b))
	h := prime5
	if len(b) >= 32 {
		p1 := prime1 // a variable: constants may not overflow
		a1, a2, a3, a4 := p1+prime2, prime2, uint64(0), -p1
		for len(b) >= 32 {
			a1 = xxRound(a1, binary.LittleEndian.Uint64(b))
			a2 = xxRound(a2, binary.LittleEndian.Uint64(b[8:16]))
			a3 = xxRound(a3, binary.LittleEndian.Uint64(b[16:24]))
			a4 = xxRound(a4, binary.LittleEndian.Uint64(b[24:32]))
			b = b[32:]
		}
		h = bits.RotateLeft64(a1, 1) + bits.RotateLeft64(a2, 7) + bits.RotateLeft64(a3, 12) + bits.RotateLeft64(a4, 18)
		for _, a := range [4]uint64{a1, a2, a3, a4} {
			h = (h^xxRound(0, a))*prime1 + prime4
		}
	}
	h += total
	for ; len(b) >= 8; b = b[8:] {
		h = bits.RotateLeft64(h^xxRound(0, binary.LittleEndian.Uint64(b)), 27)*prime1 + prime4
	}
	if len(b) >= 4 {
		h = bits.RotateLeft64(h^uint64(binary.LittleEndian.Uint32(b))*prime1, 23)*prime2 + prime3
		b = b[4:]
	}
	for _, c := range b {
		h = bits.RotateLeft64(h^uint64(c)*prime5, 11) * prime1
	}
	h = (h ^ h>>33) * prime2
	h = (h ^ h>>29) * prime3
	return h ^ h>>32
}

func xxRound(acc, lane uint64) uint64 {
	return bits.RotateLeft64(acc+lane*prime2, 31) * prime1
}
