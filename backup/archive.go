package backup

import (
	"context"
	"errors"
	"io"

	"filippo.io/age"
)

// Member is one member of an archive.
type Member struct {
	// Name is the tar name: "dentropy/50-volumes/db.tar.zst.00000".
	Name string
	Kind MemberKind
	Size int64
	// Volume and Segment are set for segments, Volume for indexes of files.
	Volume  string
	Segment int
	// Path is an image member's name within the OCI layout: "blobs/sha256/…".
	Path string
}

// MemberKind says what a member is.
type MemberKind int

// The kinds of members, in the order in which they come.
const (
	MemberHead    MemberKind = iota // format, README, manifest, settings, secrets
	MemberImage                     // one file of the OCI layout
	MemberSegment                   // part of a volume
	MemberIndex                     // index of files of a volume
	MemberTail                      // index of members, checksums, end
	MemberUnknown                   // of a later version; skipped
)

// ErrIncomplete says that an archive has no end marker: it was cut off, or writing it
// was never finished. What is in it up to there may be good.
var ErrIncomplete = errors.New("the archive is incomplete")

// ErrCorrupt says that an archive's bytes are not those that were written.
var ErrCorrupt = errors.New("the archive is damaged")

// ErrNoKey says that none of the identities opens the archive.
var ErrNoKey = errors.New("no key opens this archive")

// WriterOptions say how an archive is written.
type WriterOptions struct {
	// Encryption is "all" (default), "secrets" or "none"; the first two need recipients.
	Encryption string
	Recipients []age.Recipient
}

// Summary is what Writer.Finish tells.
type Summary struct {
	Size    int64  `json:"size"` // of the file
	Members int    `json:"members"`
	SHA256  string `json:"sha256"` // of the file, hex
}

// Source of the next members of an archive: the methods of Reader that a Platform
// uses. Next moves on to the next member, io.EOF after the last; Read reads it. Each
// byte that Read gives has been checked against the manifest's hashes by the time Next
// is called again: Next returns ErrCorrupt for the member before.
var _ interface {
	Manifest() *Manifest
	App() (*App, error)
	Next() (*Member, error)
	io.Reader
	// Finish reads what is left and returns nil only for a complete and undamaged archive.
	Finish(ctx context.Context) error
} = (*Reader)(nil)
