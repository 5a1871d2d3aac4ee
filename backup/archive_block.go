package backup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// outerTar reads the outer tar, strictly: it takes what Writer writes and nothing else
// that a tar may hold. Any changed bit of it is an error, which archive/tar, made to read
// the tars of many programs, does not promise.
type outerTar struct {
	r    *bufio.Reader
	pos  int64  // in the tar
	left int64  // of the current member's content
	name string // of the current member, for errors
}

// outerBuffer is how much is read at once.
const outerBuffer = 256 << 10

// maxRecords bounds the pax records of a member: a name and a size.
const maxRecords = 4 << 10

func newOuterTar(r io.Reader, pos int64) *outerTar {
	return &outerTar{r: bufio.NewReaderSize(r, outerBuffer), pos: pos}
}

// next skips what is left of the member, and reads the header of the next one. It is
// io.EOF at the end of the tar, behind which nothing may stand.
func (t *outerTar) next() (name string, size int64, err error) {
	if err := t.skip(); err != nil {
		return "", 0, err
	}
	at := t.pos
	var block [blockSize]byte
	if err := t.full(block[:]); err != nil {
		return "", 0, err
	}
	if block == [blockSize]byte{} {
		return "", 0, t.end()
	}
	h, err := parseBlock(&block)
	if err != nil {
		return "", 0, t.corrupt(at, err)
	}
	if h.kind == 'x' {
		long, err := t.records(h.size)
		if err != nil {
			return "", 0, err
		}
		if err := t.full(block[:]); err != nil {
			return "", 0, err
		}
		if h, err = parseBlock(&block); err != nil {
			return "", 0, t.corrupt(at, err)
		}
		if long.name != "" {
			h.name = long.name
		}
		if long.size >= 0 {
			h.size = long.size
		}
	}
	if h.kind != '0' {
		return "", 0, t.corrupt(at, fmt.Errorf("%q is no file (type %q)", h.name, h.kind))
	}
	t.left, t.name = h.size, h.name
	return h.name, h.size, nil
}

// skip moves behind the current member, whose content has been read, and its padding.
func (t *outerTar) skip() error {
	if t.left > 0 {
		return fmt.Errorf("%w: %s was not read to its end", ErrCorrupt, t.name)
	}
	var pad [blockSize]byte
	n := padTo(t.pos)
	if err := t.full(pad[:n]); err != nil {
		return err
	}
	if pad != [blockSize]byte{} {
		return t.corrupt(t.pos-n, errors.New("there is something between two members"))
	}
	return nil
}

// end checks the end of the tar.
func (t *outerTar) end() error {
	var block [blockSize]byte
	if err := t.full(block[:]); err != nil {
		return err
	}
	if block != [blockSize]byte{} {
		return t.corrupt(t.pos-blockSize, errors.New("a single block of zeros"))
	}
	_, err := t.r.ReadByte()
	if err == nil {
		return t.corrupt(t.pos, errors.New("there is something behind its end"))
	}
	if errors.Is(err, io.EOF) {
		t.name = ""
		return io.EOF
	}
	return fmt.Errorf("read the archive at offset %d: %w", t.pos, err)
}

// Read reads the content of the current member.
func (t *outerTar) Read(p []byte) (int, error) {
	if t.left == 0 {
		return 0, io.EOF
	}
	n, err := t.r.Read(p[:min(int64(len(p)), t.left)])
	t.pos += int64(n)
	t.left -= int64(n)
	if err != nil && t.left > 0 {
		return n, t.cutOff(err)
	}
	return n, nil
}

// full fills p from the tar itself.
func (t *outerTar) full(p []byte) error {
	n, err := io.ReadFull(t.r, p)
	t.pos += int64(n)
	if err != nil {
		return t.cutOff(err)
	}
	return nil
}

// cutOff is an error of the stream: where it just ends, the archive is incomplete.
func (t *outerTar) cutOff(err error) error {
	where := ""
	if t.name != "" {
		where = ", in or behind " + t.name
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends at offset %d%s", ErrIncomplete, t.pos, where)
	}
	if errors.Is(err, ErrIncomplete) || errors.Is(err, ErrCorrupt) {
		return err // of the encryption, which knows better
	}
	return fmt.Errorf("read the archive at offset %d%s: %w", t.pos, where, err)
}

func (t *outerTar) corrupt(at int64, err error) error {
	if t.name == "" {
		return fmt.Errorf("%w at offset %d: %w", ErrCorrupt, at, err)
	}
	return fmt.Errorf("%w at offset %d, behind %s: %w", ErrCorrupt, at, t.name, err)
}

// blockHeader is what is needed of a header.
type blockHeader struct {
	kind byte
	name string
	size int64
}

// parseBlock reads a ustar header. All fields are as archive/tar writes them.
func parseBlock(b *[blockSize]byte) (blockHeader, error) {
	var h blockHeader
	var sum int64
	for i, c := range b {
		if i >= 148 && i < 156 {
			c = ' '
		}
		sum += int64(c)
	}
	if want, err := octal(b[148:154]); err != nil || b[154] != 0 || b[155] != ' ' || want != sum {
		return h, errors.New("the header of a member is damaged")
	}
	if string(b[257:265]) != "ustar\x0000" {
		return h, errors.New("the header of a member is not of the POSIX format")
	}
	size, err := octal(b[124:135])
	if err != nil || b[135] != 0 {
		return h, errors.New("the header of a member has no right size")
	}
	h.kind, h.size = b[156], size
	h.name = field(b[0:100])
	if prefix := field(b[345:500]); prefix != "" {
		h.name = prefix + "/" + h.name
	}
	return h, nil
}

// octal reads a number of exactly as many digits as there are bytes.
func octal(b []byte) (int64, error) {
	n := int64(0)
	for _, c := range b {
		if c < '0' || c > '7' {
			return 0, errors.New("no number")
		}
		n = n<<3 | int64(c-'0')
	}
	return n, nil
}

// field is a text up to its NUL.
func field(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// longFields are what pax records say of the next member: size is -1 where they do not.
type longFields struct {
	name string
	size int64
}

// records reads the pax records before a member.
func (t *outerTar) records(size int64) (longFields, error) {
	out := longFields{size: -1}
	at := t.pos
	if size == 0 || size > maxRecords {
		return out, t.corrupt(at, fmt.Errorf("%d bytes of records", size))
	}
	text := make([]byte, size+padTo(size))
	if err := t.full(text); err != nil {
		return out, err
	}
	if len(bytes.TrimLeft(text[size:], "\x00")) > 0 {
		return out, t.corrupt(at, errors.New("there is something behind the records"))
	}
	for rest := string(text[:size]); rest != ""; {
		digits, _, _ := strings.Cut(rest, " ")
		n, ok := parseCount(digits)
		if !ok || n < int64(len(digits))+4 || n > int64(len(rest)) || rest[n-1] != '\n' {
			return out, t.corrupt(at, errors.New("damaged records"))
		}
		key, value, _ := strings.Cut(rest[len(digits)+1:n-1], "=")
		rest = rest[n:]
		var err error
		switch {
		case key == "path" && out.name == "":
			out.name = value
		case key == "size" && out.size < 0:
			if out.size, err = strconv.ParseInt(value, 10, 64); err != nil || out.size < 0 {
				return out, t.corrupt(at, errors.New("damaged records"))
			}
		default:
			return out, t.corrupt(at, fmt.Errorf("a record %q has no place here", key))
		}
	}
	return out, nil
}
