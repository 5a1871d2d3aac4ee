package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"strconv"
)

// contentBlock is the size of the blocks that a contentHash leaves out where they are all
// zeros, at multiples of it.
const contentBlock = 4 << 20

var zeroBytes [64 << 10]byte

// contentHash is the content hash of a file as FileEntry has it: SHA256, or ZeroSHA256
// where whole blocks of it are zeros (package volume says how that is made). What stands
// in an archive is so held against its index without hashing the holes of sparse files,
// which may be terabytes.
type contentHash struct {
	sum   hash.Hash
	pos   int64
	zeros int64 // at the start of the current block, while there is nothing else in it
	mixed bool  // there is something else in it
	runs  []byte
	first int64 // block at which the open run begins
	count int64
}

func newContentHash() *contentHash { return &contentHash{sum: sha256.New()} }

// Write adds bytes.
func (c *contentHash) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		part := p[:min(int64(len(p)), contentBlock-c.pos%contentBlock)]
		p = p[len(part):]
		if !c.mixed {
			z := 0
			for z < len(part) {
				k := min(len(part)-z, len(zeroBytes))
				if !bytes.Equal(part[z:z+k], zeroBytes[:k]) {
					break
				}
				z += k
			}
			c.addZeros(int64(z))
			if part = part[z:]; len(part) == 0 {
				continue
			}
			c.hashZeros(c.zeros)
			c.zeros, c.mixed = 0, true
		}
		c.sum.Write(part)
		c.advance(int64(len(part)))
	}
	return n, nil
}

// Zeros adds a hole.
func (c *contentHash) Zeros(n int64) {
	if !c.mixed && c.zeros == 0 {
		whole := n / contentBlock
		c.blocks(whole)
		n -= whole * contentBlock
	}
	for n > 0 {
		part := min(n, contentBlock-c.pos%contentBlock)
		n -= part
		if !c.mixed {
			c.addZeros(part)
		} else {
			c.hashZeros(part)
			c.advance(part)
		}
		if c.pos%contentBlock == 0 && n >= contentBlock {
			c.blocks(n / contentBlock)
			n %= contentBlock
		}
	}
}

// addZeros adds zeros to a block that holds nothing else, up to its end.
func (c *contentHash) addZeros(n int64) {
	c.zeros += n
	c.pos += n
	if c.zeros == contentBlock {
		c.zeros = 0
		c.pos -= contentBlock
		c.blocks(1)
	}
}

// blocks adds whole blocks of zeros.
func (c *contentHash) blocks(n int64) {
	if n == 0 {
		return
	}
	at := c.pos / contentBlock
	if c.count > 0 && c.first+c.count != at {
		c.endRun()
	}
	if c.count == 0 {
		c.first = at
	}
	c.count += n
	c.pos += n * contentBlock
}

func (c *contentHash) endRun() {
	c.runs = strconv.AppendInt(c.runs, c.first, 10)
	c.runs = append(c.runs, '+')
	c.runs = strconv.AppendInt(c.runs, c.count, 10)
	c.runs = append(c.runs, '\n')
	c.count = 0
}

func (c *contentHash) hashZeros(n int64) {
	for ; n > 0; n -= min(n, int64(len(zeroBytes))) {
		c.sum.Write(zeroBytes[:min(n, int64(len(zeroBytes)))])
	}
}

func (c *contentHash) advance(n int64) {
	c.pos += n
	if c.pos%contentBlock == 0 {
		c.mixed = false
	}
}

// sums are the values of FileEntry.SHA256 and ZeroSHA256. Nothing may be added afterwards.
func (c *contentHash) sums() (plain, zero string) {
	c.hashZeros(c.zeros)
	c.zeros = 0
	sum := c.sum.Sum(nil)
	if c.count > 0 {
		c.endRun()
	}
	if len(c.runs) == 0 {
		return hex.EncodeToString(sum), ""
	}
	h := sha256.New()
	h.Write(sum)
	h.Write(c.runs)
	return "", hex.EncodeToString(h.Sum(nil))
}
