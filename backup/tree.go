package backup

// Tree is what reading one volume came to. The helper makes it.
type Tree struct {
	// Volume is the Volume.ID.
	Volume string `json:"volume"`
	// TarSize is the length of the uncompressed tar.
	TarSize int64 `json:"tar_size"`
	// Entries counts all entries, Files the regular files among them.
	Entries int64 `json:"entries"`
	Files   int64 `json:"files"`
	// Bytes is the apparent size of all files, Stored what of it is data, not holes.
	Bytes  int64 `json:"bytes"`
	Stored int64 `json:"stored"`
	// Hash is the tree hash, see volume.Hash: "sha256:…".
	Hash string `json:"hash"`
	// Contents is the hash of names and contents alone, for file systems that cannot keep
	// owners, modes, times or attributes.
	Contents string `json:"contents,omitempty"`
	// Special are the entries that a restore is to be warned of. nil: not known, as an
	// older program has written it.
	Special *Special `json:"special,omitempty"`
	// Segments in order.
	Segments []Segment `json:"segments"`
	// Index is the list of files, zstd-compressed lines of JSON (FileEntry).
	Index Blob `json:"index"`
	// Notes are what did not go as it should, or was left out on purpose: at most
	// MaxNotes; NotesLost counts the rest.
	Notes     []Note `json:"notes,omitempty"`
	NotesLost int    `json:"notes_lost,omitempty"`
}

// Special counts entries of a volume that can do more than be read and written. Further
// names of one file do not count.
type Special struct {
	// SetID are files that run with the rights of their owner or group (the mode has 4000
	// or 2000), or with capabilities of their own (security.capability).
	SetID int64 `json:"setid"`
	// Devices are device nodes.
	Devices int64 `json:"devices"`
	// Examples are paths of the first files of SetID, at most MaxExamples, quoted as in a Note and
	// at most MaxExample bytes long.
	Examples []string `json:"examples,omitempty"`
}

// The bounds of Special.Examples.
const (
	MaxExamples = 2
	MaxExample  = 120
)

// MaxNotes bounds the notes of one volume.
const MaxNotes = 1000

// Segment is one member of a volume's tar: the same amount of tar in each but the
// last, as zstd frames that do not depend on each other.
type Segment struct {
	Blob
	// Raw is the length of the tar in it.
	Raw int64 `json:"raw"`
	// Frames in order. An archive has them in its index, not in its manifest.
	Frames []Frame `json:"frames,omitempty"`
}

// Frame is one zstd frame of a segment.
type Frame struct {
	Size int64 `json:"size"` // compressed
	Raw  int64 `json:"raw"`
}

// Blob is a run of bytes with its hash.
type Blob struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // hex
}

// Note is something worth knowing about one file.
type Note struct {
	// Path is relative to the volume, quoted as Go quotes where it is not plain text.
	Path string `json:"path"`
	// Kind is "changed", "vanished", "unreadable", "socket", "mount", "excluded", "flags",
	// "unsupported".
	Kind string `json:"kind"`
	Text string `json:"text,omitempty"`
}

// Severe reports whether the note means that data is missing or torn.
func (n Note) Severe() bool {
	return n.Kind == "changed" || n.Kind == "unreadable" || n.Kind == "vanished"
}

// FileEntry is one line of a volume's index of files.
type FileEntry struct {
	// Path is relative, "." for the volume itself. Raw bytes that are no UTF-8 are in
	// PathBytes instead.
	Path      string `json:"p,omitempty"`
	PathBytes []byte `json:"pb,omitempty"`
	// Type is one of tar's letters: 0 file, 1 hard link, 2 symbolic link, 3 and 4
	// devices, 5 folder, 6 FIFO.
	Type string `json:"t"`
	Mode int64  `json:"m"`
	UID  int64  `json:"u"`
	GID  int64  `json:"g"`
	// Size is the apparent size.
	Size int64 `json:"s,omitempty"`
	// MTime in nanoseconds since 1970.
	MTime int64  `json:"mt"`
	Link  string `json:"l,omitempty"`
	// LinkBytes as PathBytes.
	LinkBytes []byte `json:"lb,omitempty"`
	SHA256    string `json:"h,omitempty"` // of a file's content, hex
	// ZeroSHA256 is there instead of SHA256 for a file with whole blocks of zeros, see
	// volume.Digest.
	ZeroSHA256 string `json:"hz,omitempty"`
	// Offset is where the entry's headers begin in the uncompressed tar.
	Offset int64 `json:"o"`
}
