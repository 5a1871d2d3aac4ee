package volume

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"strconv"
)

// zeroBlock is how many zeros at a multiple of it make a block that is not hashed.
const zeroBlock = 4 << 20

var zeros [64 << 10]byte

// Digest computes the content hash of a file, see the package comment. Bytes and holes
// come in order. The zero value is not ready: use NewDigest.
type Digest struct {
	sha hash.Hash
	pos int64
	// pending counts zeros since the beginning of the current block, as long as there
	// was nothing else in it; -1 where there was.
	pending int64
	// runs is the text of the runs that are over; first and count are the open one.
	runs         []byte
	first, count int64
}

// NewDigest returns an empty digest.
func NewDigest() *Digest { return &Digest{sha: sha256.New()} }

// Reset makes it empty again.
func (d *Digest) Reset() {
	d.sha.Reset()
	*d = Digest{sha: d.sha, runs: d.runs[:0]}
}

// Write adds bytes.
func (d *Digest) Write(p []byte) (int, error) {
	d.add(p)
	return len(p), nil
}

func (d *Digest) add(p []byte) {
	for len(p) > 0 {
		n := int(min(int64(len(p)), zeroBlock-d.pos%zeroBlock))
		d.part(p[:n])
		p = p[n:]
	}
}

// part adds bytes of one block.
func (d *Digest) part(p []byte) {
	if d.pending >= 0 {
		n := zeroPrefix(p)
		d.zerosIn(int64(n))
		if p = p[n:]; len(p) == 0 {
			return
		}
		d.flush()
	}
	d.sha.Write(p)
	d.advance(int64(len(p)))
}

// Zeros adds n zeros.
func (d *Digest) Zeros(n int64) {
	for n > 0 {
		if d.pos%zeroBlock == 0 && n >= zeroBlock {
			whole := n / zeroBlock
			d.blocks(whole)
			n -= whole * zeroBlock
			continue
		}
		part := min(n, zeroBlock-d.pos%zeroBlock)
		if d.pending >= 0 {
			d.zerosIn(part)
		} else {
			d.hashZeros(part)
			d.advance(part)
		}
		n -= part
	}
}

// zerosIn adds zeros to a block that holds nothing else so far.
func (d *Digest) zerosIn(n int64) {
	d.pending += n
	d.pos += n
	if d.pending == zeroBlock {
		d.pending = 0
		d.pos -= zeroBlock
		d.blocks(1)
	}
}

// blocks adds whole blocks of zeros.
func (d *Digest) blocks(n int64) {
	at := d.pos / zeroBlock
	if d.count > 0 && d.first+d.count != at {
		d.endRun()
	}
	if d.count == 0 {
		d.first = at
	}
	d.count += n
	d.pos += n * zeroBlock
}

func (d *Digest) endRun() {
	d.runs = strconv.AppendInt(d.runs, d.first, 10)
	d.runs = append(d.runs, '+')
	d.runs = strconv.AppendInt(d.runs, d.count, 10)
	d.runs = append(d.runs, '\n')
	d.count = 0
}

// flush hashes the zeros that stood before the first other byte of the block.
func (d *Digest) flush() {
	d.hashZeros(d.pending)
	d.pending = -1
}

func (d *Digest) hashZeros(n int64) {
	for n > 0 {
		part := min(n, int64(len(zeros)))
		d.sha.Write(zeros[:part])
		n -= part
	}
}

func (d *Digest) advance(n int64) {
	d.pos += n
	if d.pos%zeroBlock == 0 {
		d.pending = 0
	}
}

// Append appends the content hash to b. Nothing may be added afterwards.
func (d *Digest) Append(b []byte) []byte {
	if d.pending > 0 {
		d.hashZeros(d.pending)
		d.pending = 0
	}
	var sum [sha256.Size]byte
	d.sha.Sum(sum[:0])
	if d.count > 0 {
		d.endRun()
	}
	if len(d.runs) == 0 {
		return hex.AppendEncode(b, sum[:])
	}
	d.sha.Reset()
	d.sha.Write(sum[:])
	d.sha.Write(d.runs)
	d.sha.Sum(sum[:0])
	return hex.AppendEncode(append(b, "z:"...), sum[:])
}

// String is the content hash. Nothing may be added afterwards.
func (d *Digest) String() string { return string(d.Append(nil)) }

// zeroPrefix counts the zeros at the front of p.
func zeroPrefix(p []byte) int {
	n := 0
	for len(p)-n >= 64 && [64]byte(p[n:n+64]) == [64]byte{} {
		n += 64
	}
	for n < len(p) && p[n] == 0 {
		n++
	}
	return n
}
