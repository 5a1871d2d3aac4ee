package backup

import (
	"context"
	"io"
	"time"
)

// Store keeps archives. Its methods may be called from any goroutine. Names are plain
// file names (ArchiveName); an implementation refuses all others.
type Store interface {
	// String names it for people, without secrets: "/srv/backups".
	String() string
	// Check proves that it can be written and holds need more bytes, as far as that can be
	// known, without leaving anything behind. need 0 is "unknown".
	Check(ctx context.Context, need int64) error
	// Create begins an archive. Nothing under that name can be seen until Commit has
	// returned; an existing archive is never overwritten: fs.ErrExist, at the latest from
	// Commit.
	Create(ctx context.Context, name string) (Upload, error)
	// Open reads an archive. fs.ErrNotExist where there is none.
	Open(ctx context.Context, name string) (Object, error)
	// List gives the complete archives, sorted by name.
	List(ctx context.Context) ([]Entity, error)
	// Remove deletes an archive. fs.ErrNotExist where there is none.
	Remove(ctx context.Context, name string) error
}

// Upload is an archive that is being written. Exactly one of Commit and Abort ends it;
// Abort after Commit does nothing.
type Upload interface {
	io.Writer
	// Commit makes the archive durable and then visible.
	Commit() error
	// Abort removes what was written. It can be repeated.
	Abort() error
}

// Object is an archive that is being read.
type Object interface {
	io.Reader
	io.ReaderAt
	io.Closer
	Size() int64
}

// Entity is one archive in a store.
type Entity struct {
	Name     string    `json:"name"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
}
