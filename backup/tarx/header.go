package tarx

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// The types of entries.
const (
	TypeFile     = '0'
	TypeHardLink = '1'
	TypeSymlink  = '2'
	TypeChar     = '3'
	TypeBlock    = '4'
	TypeFolder   = '5'
	TypeFIFO     = '6'
)

// The bounds that both sides keep.
const (
	// MaxRecords bounds the records of one entry in bytes. It is more than the extended
	// attributes of a file come to on ext4, and leaves room for a long name.
	MaxRecords = 8 << 20
	// MaxXattr is the longest value that Linux takes for one attribute, MaxXattrName the
	// longest name.
	MaxXattr     = 64 << 10
	MaxXattrName = 255
	// MaxExtents bounds the map of a sparse file.
	MaxExtents = 1 << 20
	// MaxID is the greatest user or group id.
	MaxID = 1<<32 - 1
)

// ErrHeader says that a header cannot be written, or that what was read is none.
var ErrHeader = errors.New("invalid tar header")

// Trailer ends an archive.
var Trailer [2 * blockSize]byte

const blockSize = 512

// Extent is a run of stored bytes in a sparse file.
type Extent struct{ Offset, Length int64 }

// Header is one entry.
type Header struct {
	// Name in raw bytes, relative, without "./" in front; that of a folder ends in "/".
	// The root is "./".
	Name string
	// Type is one of the types above.
	Type byte
	// Mode is the permissions with setuid, setgid and sticky bit: 07777.
	Mode     int64
	UID, GID int64
	ModTime  time.Time
	// Size is the apparent size of a file. It is 0 for what is no file.
	Size int64
	// Link is the target of a symbolic link as it is, or the Name that a hard link is
	// another name of.
	Link string
	// Major and Minor are the numbers of a device.
	Major, Minor int64
	// Xattrs holds values in the kernel's binary form by the kernel's names.
	Xattrs map[string]string
	// Data is nil for a file without holes, else its stored extents, sorted. It is empty
	// for a file that is one hole.
	Data []Extent
	// Notes tell what a Reader had to leave out, in words: an ACL that names users who
	// have no number here. AppendHeader does not look at them.
	Notes []string
}

// PayloadSize is the number of bytes of content that follow the headers: Size, or the
// lengths of Data together, and 0 for what is no file. The list of extents is part of
// the headers.
func (h *Header) PayloadSize() int64 {
	if h.Type != TypeFile {
		return 0
	}
	if h.Data == nil {
		return h.Size
	}
	var n int64
	for _, e := range h.Data {
		n += e.Length
	}
	return n
}

// Padding is the number of zero bytes that follow the content.
func Padding(h *Header) int { return padding(h.PayloadSize()) }

// padding is what n lacks to whole blocks.
func padding(n int64) int { return int(-n & (blockSize - 1)) }

// check refuses what cannot be written.
func (h *Header) check() error {
	switch h.Type {
	case TypeFile, TypeFolder, TypeFIFO:
	case TypeHardLink, TypeSymlink:
		if h.Link == "" {
			return h.errorf("the link has no target")
		}
	case TypeChar, TypeBlock:
		// Linux has 12 bits for the major and 20 for the minor number.
		if h.Major < 0 || h.Minor < 0 || h.Major > maxOctal7 || h.Minor > maxOctal7 {
			return h.errorf("device %d:%d", h.Major, h.Minor)
		}
	default:
		return h.errorf("type %q", h.Type)
	}
	if err := checkName(h.Name); err != nil {
		return h.errorf("%w", err)
	}
	if h.Type == TypeHardLink {
		if err := checkName(h.Link); err != nil {
			return h.errorf("target %q: %w", h.Link, err)
		}
	}
	switch {
	case h.Type != TypeFolder && (isRoot(h.Name) || strings.HasSuffix(h.Name, "/")):
		return h.errorf("only a folder ends in a slash")
	case strings.IndexByte(h.Link, 0) >= 0:
		return h.errorf("target %q has a NUL", h.Link)
	case h.Mode < 0 || h.Mode > 07777:
		return h.errorf("mode %#o", h.Mode)
	case h.UID < 0 || h.UID > MaxID || h.GID < 0 || h.GID > MaxID:
		return h.errorf("owner %d:%d", h.UID, h.GID)
	case h.Size < 0:
		return h.errorf("size %d", h.Size)
	}
	return h.checkExtents()
}

// checkExtents refuses extents that readers would not agree on.
func (h *Header) checkExtents() error {
	if h.Data == nil || h.Type != TypeFile {
		return nil
	}
	if len(h.Data) > MaxExtents {
		return h.errorf("%d extents are more than %d", len(h.Data), MaxExtents)
	}
	var end int64
	for i, e := range h.Data {
		if e.Offset < end || e.Length <= 0 || e.Offset > h.Size || e.Length > h.Size-e.Offset {
			return h.errorf("extent %d at %d of length %d", i, e.Offset, e.Length)
		}
		if e.Length%blockSize != 0 && i != len(h.Data)-1 {
			return h.errorf("extent %d of length %d is no multiple of %d", i, e.Length, blockSize)
		}
		end = e.Offset + e.Length
	}
	return nil
}

func (h *Header) errorf(format string, args ...any) error {
	return fmt.Errorf("write header of %q: %w: %w", h.Name, ErrHeader, fmt.Errorf(format, args...))
}

// isRoot reports whether name is the root of the tree.
func isRoot(name string) bool { return name == "./" || name == "." }

// checkName refuses names that are not below the root.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case name[0] == '/':
		return errors.New("the name is absolute")
	case strings.IndexByte(name, 0) >= 0:
		return errors.New("the name has a NUL")
	}
	for rest := name; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		if part == ".." {
			return errors.New("the name leads out of the tree")
		}
	}
	return nil
}
