package volume

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dentropy/dentropycloud/backup/tarx"
)

// The attributes whose meaning is known here.
const (
	xattrACLAccess  = "system.posix_acl_access"
	xattrACLDefault = "system.posix_acl_default"
	xattrCapability = "security.capability"
)

// treeSums makes the tree hash and the contents hash of lines that come in path order.
type treeSums struct {
	tree, contents hash.Hash
}

func newTreeSums() *treeSums {
	s := &treeSums{tree: sha256.New(), contents: sha256.New()}
	s.tree.Write([]byte("dentropy-tree 1\n"))
	s.contents.Write([]byte("dentropy-contents 1\n"))
	return s
}

func (s *treeSums) sums() Sums {
	return Sums{Hash: sumText(s.tree), Contents: sumText(s.contents)}
}

func sumText(h hash.Hash) string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }

// lineSet holds the lines of some entries that follow each other.
type lineSet struct {
	tree, contents []byte
	// index are lines of the index of files up to the offset, which the framer knows;
	// ends says where in it each line ends.
	index []byte
	ends  []int
}

func (l *lineSet) reset() {
	l.tree, l.contents, l.index, l.ends = l.tree[:0], l.contents[:0], l.index[:0], l.ends[:0]
}

// add appends the lines of one entry. digest is the content hash of a file.
func (l *lineSet) add(h *tarx.Header, digest []byte, index bool) {
	path := entryPath(h.Name)
	l.tree = appendTreeLine(l.tree, path, h, digest)
	l.contents = appendContentsLine(l.contents, path, h, digest)
	if index {
		l.index = appendIndexLine(l.index, path, h, digest)
		l.ends = append(l.ends, len(l.index))
	}
}

// entryPath is the name of an entry without the slash of a folder; "." for the root.
func entryPath(name string) string {
	if name == "./" {
		return "."
	}
	return strings.TrimSuffix(name, "/")
}

// appendTreeLine appends the line of an entry that the tree hash is made of.
func appendTreeLine(b []byte, path string, h *tarx.Header, digest []byte) []byte {
	b = appendQuoted(b, path)
	b = append(b, ' ', h.Type, ' ')
	if h.Type == tarx.TypeHardLink {
		b = append(b, "- - - - - - "...)
		b = appendQuoted(b, h.Link)
		return append(b, " - -\n"...)
	}
	link := h.Type == tarx.TypeSymlink
	if link {
		b = append(b, '-')
	} else {
		b = append(b, '0'+byte(h.Mode>>9&7), '0'+byte(h.Mode>>6&7), '0'+byte(h.Mode>>3&7), '0'+byte(h.Mode&7))
	}
	b = strconv.AppendInt(append(b, ' '), h.UID, 10)
	b = strconv.AppendInt(append(b, ' '), h.GID, 10)
	b = append(b, ' ')
	if h.Type == tarx.TypeFile {
		b = strconv.AppendInt(b, h.Size, 10)
	} else {
		b = append(b, '-')
	}
	b = append(b, ' ')
	if link {
		b = append(b, '-')
	} else {
		b = appendSeconds(b, h.ModTime)
	}
	b = append(b, ' ')
	if h.Type == tarx.TypeChar || h.Type == tarx.TypeBlock {
		b = strconv.AppendInt(b, h.Major, 10)
		b = strconv.AppendInt(append(b, ':'), h.Minor, 10)
	} else {
		b = append(b, '-')
	}
	b = append(b, ' ')
	if link {
		b = appendQuoted(b, h.Link)
	} else {
		b = append(b, '-')
	}
	b = appendOr(append(b, ' '), digest)
	b = appendXattrs(append(b, ' '), h.Xattrs)
	return append(b, '\n')
}

// appendContentsLine appends the line that the contents hash is made of.
func appendContentsLine(b []byte, path string, h *tarx.Header, digest []byte) []byte {
	if h.Type == tarx.TypeFolder {
		return b
	}
	b = appendQuoted(b, path)
	b = append(b, ' ', h.Type, ' ')
	if h.Type == tarx.TypeFile {
		b = strconv.AppendInt(b, h.Size, 10)
	} else {
		b = append(b, '-')
	}
	b = append(b, ' ')
	if h.Type == tarx.TypeSymlink || h.Type == tarx.TypeHardLink {
		b = appendQuoted(b, h.Link)
	} else {
		b = append(b, '-')
	}
	b = appendOr(append(b, ' '), digest)
	return append(b, '\n')
}

func appendOr(b, value []byte) []byte {
	if len(value) == 0 {
		return append(b, '-')
	}
	return append(b, value...)
}

const upperHex = "0123456789ABCDEF"

// appendQuoted appends text as the tree hash has it.
func appendQuoted(b []byte, text string) []byte {
	if text == "-" {
		return append(b, "%2D"...)
	}
	for i := range len(text) {
		switch c := text[i]; {
		case c < 0x21, c > 0x7e, c == '%', c == '=', c == ',':
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		default:
			b = append(b, c)
		}
	}
	return b
}

// appendSeconds appends seconds with nine digits of nanoseconds.
func appendSeconds(b []byte, t time.Time) []byte {
	b = strconv.AppendInt(b, t.Unix(), 10)
	b = append(b, '.')
	ns := t.Nanosecond()
	for scale := int(1e8); scale > 0; scale /= 10 {
		b = append(b, '0'+byte(ns/scale%10))
	}
	return b
}

// hashed reports whether an attribute is part of the tree hash.
func hashed(name string) bool {
	return strings.HasPrefix(name, "user.") || name == xattrCapability || name == xattrACLAccess || name == xattrACLDefault
}

func appendXattrs(b []byte, xattrs map[string]string) []byte {
	names := make([]string, 0, 4)
	for name := range xattrs {
		if hashed(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return append(b, '-')
	}
	slices.Sort(names)
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendQuoted(b, name), '=')
		b = hex.AppendEncode(b, []byte(xattrs[name]))
	}
	return b
}

// appendIndexLine appends a backup.FileEntry as JSON, up to the value of its last field,
// the offset.
func appendIndexLine(b []byte, path string, h *tarx.Header, digest []byte) []byte {
	b = append(b, '{')
	b = appendText(b, path, `"p":`, `"pb":`)
	b = append(b, `,"t":"`...)
	b = append(b, h.Type)
	b = strconv.AppendInt(append(b, `","m":`...), h.Mode, 10)
	b = strconv.AppendInt(append(b, `,"u":`...), h.UID, 10)
	b = strconv.AppendInt(append(b, `,"g":`...), h.GID, 10)
	if h.Type == tarx.TypeFile && h.Size > 0 {
		b = strconv.AppendInt(append(b, `,"s":`...), h.Size, 10)
	}
	b = strconv.AppendInt(append(b, `,"mt":`...), nanoseconds(h.ModTime), 10)
	if h.Link != "" {
		b = appendText(append(b, ','), h.Link, `"l":`, `"lb":`)
	}
	switch {
	case len(digest) == 0:
	case bytes.HasPrefix(digest, []byte("z:")):
		b = append(append(b, `,"hz":"`...), digest[2:]...)
		b = append(b, '"')
	default:
		b = append(append(b, `,"h":"`...), digest...)
		b = append(b, '"')
	}
	return append(b, `,"o":`...)
}

// nanoseconds is t in nanoseconds since 1970, or the nearest there is.
func nanoseconds(t time.Time) int64 {
	const most = math.MaxInt64/int64(time.Second) - 1
	switch sec := t.Unix(); {
	case sec > most:
		return math.MaxInt64
	case sec < -most:
		return math.MinInt64
	}
	return t.UnixNano()
}

// appendText appends a key and a JSON string, or the other key and base64 for what is
// no UTF-8.
func appendText(b []byte, text, key, bytesKey string) []byte {
	if !utf8.ValidString(text) {
		b = append(append(b, bytesKey...), '"')
		b = base64.StdEncoding.AppendEncode(b, []byte(text))
		return append(b, '"')
	}
	b = append(append(b, key...), '"')
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 || c == 0x7f:
			b = append(b, `\u00`...)
			b = append(b, upperHex[c>>4], upperHex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// rootFirst is 1 for the root.
func rootFirst(path string) int {
	if path == "." {
		return 1
	}
	return 0
}

// comparePaths orders paths component by component. "." comes first.
func comparePaths(a, b string) int {
	if a == "." || b == "." {
		return rootFirst(b) - rootFirst(a)
	}
	n := min(len(a), len(b))
	for i := range n {
		if a[i] == b[i] {
			continue
		}
		switch {
		case a[i] == '/':
			return -1
		case b[i] == '/':
			return 1
		case a[i] < b[i]:
			return -1
		default:
			return 1
		}
	}
	return len(a) - len(b)
}
