package volume

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/dentropy/dentropycloud/backup"
)

// Errors that callers tell apart.
var (
	// ErrTorn says that files changed or vanished although nothing should have written.
	ErrTorn = errors.New("files changed while they were read")
	// ErrNotEmpty says that a target holds something already.
	ErrNotEmpty = errors.New("the target is not empty")
	// ErrTooMuch says that a stream holds more than was promised.
	ErrTooMuch = errors.New("the data is more than the manifest says")
	// ErrUnsafe says that a stream wants what must not be done.
	ErrUnsafe = errors.New("unsafe entry")
	// ErrSpace says that there is too little space left.
	ErrSpace = errors.New("no space left")
)

// singleName is the name of the only entry of a tree that is a single file.
const singleName = "file"

// lostFound is what a file system may have in its root from its birth.
const lostFound = "lost+found"

// Sums are the hashes of a tree, see the package comment.
type Sums struct {
	Hash     string `json:"hash"`
	Contents string `json:"contents"`
}

// Sink takes what Read makes.
type Sink interface {
	// Segment begins segment n; the one before it is closed. Used by one goroutine.
	Segment(n int) (io.WriteCloser, error)
	// Index begins the index of files; it is written at the same time as segments.
	Index() (io.WriteCloser, error)
}

// Progress is how far a reading or writing is.
type Progress struct {
	Bytes int64 // of files' data
	Files int64 // entries of any kind
}

// progressEvery is how often progress is reported at most.
const progressEvery = 200 * time.Millisecond

// ReadOptions say how a tree is read.
type ReadOptions struct {
	// Volume is the Tree.Volume.
	Volume string
	// Exclude are paths that are not read, with their reasons. Only, where not empty, are
	// the only ones that are.
	Exclude map[string]string
	Only    []string
	// AllowMissing goes on where files cannot be read, with a note.
	AllowMissing bool
	// Quiesced says that nothing should write: Read then returns ErrTorn, beside the
	// tree, where files changed or vanished.
	Quiesced bool
	// Readers read files at the same time. Default: 4 for each processor, at most 16.
	Readers int
	// Workers compress. Default: one for each processor.
	Workers int
	// Progress is called from time to time. May be nil.
	Progress func(Progress)

	// hooks of tests
	hooks readHooks
}

// readHooks let tests change files at the worst of moments.
type readHooks struct {
	// listed is called when the names of a folder are known, opened when a file is open
	// and its size is known.
	listed, opened func(path string)
}

// WriteOptions say how a tree is written.
type WriteOptions struct {
	// MaxEntries, MaxBytes (apparent) and MaxStored (data) bound what is taken from the
	// stream. Default: no bound.
	MaxEntries, MaxBytes, MaxStored int64
	// NoDevices leaves devices out, with a note.
	NoDevices bool
	// Strict makes an error of what the file system or our rights do not allow: owners,
	// attributes, devices. Default: a note.
	Strict bool
	// Labels sets security labels too (SELinux and its like). They belong to a host.
	Labels bool
	// Map changes owners.
	Map []IDRange
	// File says that the target is a single file, which keeps its inode.
	File bool
	// NoSums leaves the Sums of the result empty: for a target that Hash will be asked
	// about anyway, and whose stream is known to be good.
	NoSums bool
	// Writers write files at the same time. Default: 2 for each processor, at most 8.
	Writers int
	// Progress is called from time to time. May be nil.
	Progress func(Progress)

	// noOpenat2 makes tests go the way of kernels without it.
	noOpenat2 bool
}

// Result is what writing a tree came to.
type Result struct {
	Entries int64 `json:"entries"`
	Files   int64 `json:"files"`
	// Bytes is the apparent size of all files, Stored what of it is data.
	Bytes  int64 `json:"bytes"`
	Stored int64 `json:"stored"`
	// SetID counts files that run as somebody else or with capabilities, Devices the device
	// nodes: as backup.Special does.
	SetID   int64 `json:"setid"`
	Devices int64 `json:"devices"`
	// Sums are of the stream: Write compares nothing. Mapped is the tree hash of what
	// should be on disk where owners were changed.
	Sums
	Mapped    string        `json:"mapped,omitempty"`
	Notes     []backup.Note `json:"notes,omitempty"`
	NotesLost int           `json:"notes_lost,omitempty"`
}

// IDRange moves user or group ids.
type IDRange struct {
	// Kind is 'u', 'g', or 0 for both.
	Kind            byte
	From, To, Count int64
}

// ParseIDRange reads "[u|g]OLD:NEW[:COUNT]".
func ParseIDRange(text string) (IDRange, error) {
	r := IDRange{Count: 1}
	rest := text
	if rest != "" && (rest[0] == 'u' || rest[0] == 'g') {
		r.Kind, rest = rest[0], rest[1:]
	}
	fields := strings.Split(rest, ":")
	if len(fields) != 2 && len(fields) != 3 {
		return r, fmt.Errorf("read id range %q: want [u|g]OLD:NEW[:COUNT]", text)
	}
	for i, to := range []*int64{&r.From, &r.To, &r.Count}[:len(fields)] {
		n, err := strconv.ParseUint(fields[i], 10, 32)
		if err != nil {
			return r, fmt.Errorf("read id range %q: %q is no id", text, fields[i])
		}
		*to = int64(n)
	}
	const most = 1<<32 - 1 // the last one means "none"
	if r.Count < 1 || r.From+r.Count > most || r.To+r.Count > most {
		return r, fmt.Errorf("read id range %q: it leaves the range of ids", text)
	}
	return r, nil
}

// mapID moves an id of the given kind.
func mapID(ranges []IDRange, kind byte, id int64) int64 {
	for _, r := range ranges {
		if (r.Kind == 0 || r.Kind == kind) && id >= r.From && id-r.From < r.Count {
			return r.To + id - r.From
		}
	}
	return id
}
