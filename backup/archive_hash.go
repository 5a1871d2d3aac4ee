package backup

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
)

const (
	// hashBuffer is how much is handed to another core at once, hashBuffers how many
	// such pieces there are: enough that neither side waits for the other.
	hashBuffer  = 256 << 10
	hashBuffers = 4
)

// hasher hashes in a goroutine of its own: at 2 GB/s for one core, SHA-256 would
// otherwise be what an archive is written and read at.
type hasher struct {
	h    hash.Hash
	full chan []byte
	free chan []byte
	done chan struct{}
}

// newHasher starts to hash into h. It ends with stop.
func newHasher(h hash.Hash) *hasher {
	s := &hasher{h: h, full: make(chan []byte, hashBuffers), free: make(chan []byte, hashBuffers), done: make(chan struct{})}
	for range hashBuffers {
		s.free <- nil
	}
	go func() {
		defer close(s.done)
		for b := range s.full {
			s.h.Write(b)
			s.free <- b[:0]
		}
	}()
	return s
}

// Write takes a copy of p.
func (s *hasher) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		b := <-s.free
		if b == nil {
			b = make([]byte, 0, hashBuffer)
		}
		k := min(len(p), hashBuffer)
		s.full <- append(b, p[:k]...)
		p = p[k:]
	}
	return n, nil
}

// stop waits until all is hashed.
func (s *hasher) stop() {
	close(s.full)
	<-s.done
}

// smallMember is up to where a goroutine costs more than it gains.
const smallMember = 1 << 20

// copyHashed copies n bytes and gives their hash.
func copyHashed(w io.Writer, r io.Reader, n int64) (string, error) {
	sum := sha256.New()
	if n <= smallMember {
		err := copyBoth(w, sum, r, n)
		return hex.EncodeToString(sum.Sum(nil)), err
	}
	h := newHasher(sum)
	err := copyBoth(w, h, r, n)
	h.stop()
	return hex.EncodeToString(sum.Sum(nil)), err
}

// copyBoth copies n bytes to two writers. What ends early is an error.
func copyBoth(w, h io.Writer, r io.Reader, n int64) error {
	buf := make([]byte, min(n, hashBuffer))
	for n > 0 {
		k, err := r.Read(buf[:min(n, int64(len(buf)))])
		if k > 0 {
			_, _ = h.Write(buf[:k]) // neither a hash nor a hasher fails
			if _, err := w.Write(buf[:k]); err != nil {
				return err
			}
			n -= int64(k)
		}
		if err != nil && n > 0 {
			if errors.Is(err, io.EOF) {
				return fmt.Errorf("it ends %d bytes early: %w", n, io.ErrUnexpectedEOF)
			}
			return err
		}
	}
	return nil
}

// fileWriter counts and hashes what goes to a file; between start and stop the hashing
// is done elsewhere.
type fileWriter struct {
	w    io.Writer
	n    int64
	hash hash.Hash
	bg   *hasher
}

func (f *fileWriter) start() { f.bg = newHasher(f.hash) }

func (f *fileWriter) stop() {
	f.bg.stop()
	f.bg = nil
}

func (f *fileWriter) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if n < len(p) && err == nil {
		err = io.ErrShortWrite
	}
	n = max(0, min(n, len(p)))
	f.n += int64(n)
	if f.bg != nil {
		_, _ = f.bg.Write(p[:n])
	} else {
		f.hash.Write(p[:n])
	}
	return n, err
}

// counter counts what goes through.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// hexSum is the text of a hash.
func hexSum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// hashedReader reads so many bytes and holds them against a hash.
type hashedReader struct {
	r    io.Reader
	left int64
	want string
	name string
	sum  hash.Hash
}

func (h *hashedReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.sum.Write(p[:n])
	h.left -= int64(n)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	if h.left != 0 {
		return n, fmt.Errorf("%w: it ends in %s", ErrIncomplete, h.name)
	}
	if hexSum(h.sum) != h.want {
		return n, fmt.Errorf("%w: %s does not have the hash that it should", ErrCorrupt, h.name)
	}
	return n, io.EOF
}
