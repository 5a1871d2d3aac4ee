package volume

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/dentropy/dentropycloud/backup"
)

// mostNoteBytes bounds the text of all notes: they are part of one line of JSON, which has
// a bound as well, and where each byte may take six.
const mostNoteBytes = 64 << 10

// notes gathers notes from many goroutines: at most backup.MaxNotes and so much text, the
// severe ones first.
type notes struct {
	mu     sync.Mutex
	severe []backup.Note
	others []backup.Note
	lost   int
	// once holds what is said only once for a tree.
	once map[string]bool
}

func (n *notes) add(path, kind, text string) {
	note := backup.Note{Path: quotePath(path), Kind: kind, Text: text}
	n.mu.Lock()
	defer n.mu.Unlock()
	list := &n.others
	if note.Severe() {
		list = &n.severe
	}
	if len(*list) >= backup.MaxNotes {
		n.lost++
		return
	}
	*list = append(*list, note)
}

// addOnce adds a note that concerns the whole tree, once.
func (n *notes) addOnce(kind, text string) {
	n.mu.Lock()
	seen := n.once[text]
	if n.once == nil {
		n.once = map[string]bool{}
	}
	n.once[text] = true
	n.mu.Unlock()
	if !seen {
		n.add(".", kind, text)
	}
}

// take gives the notes by path.
func (n *notes) take() (list []backup.Note, lost int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	list, lost = slices.Concat(n.severe, n.others), n.lost
	keep, size := 0, 0
	for keep < min(len(list), backup.MaxNotes) {
		if size += len(list[keep].Path) + len(list[keep].Text); size > mostNoteBytes {
			break
		}
		keep++
	}
	lost += len(list) - keep
	list = list[:keep]
	slices.SortFunc(list, func(a, b backup.Note) int {
		if c := comparePaths(a.Path, b.Path); c != 0 {
			return c
		}
		return strings.Compare(a.Kind+a.Text, b.Kind+b.Text)
	})
	return list, lost
}

// torn gives the first note of files that changed or vanished.
func (n *notes) torn() (backup.Note, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, note := range n.severe {
		if note.Kind != "unreadable" {
			return note, true
		}
	}
	return backup.Note{}, false
}

// quotePath quotes a path that is not plain text.
func quotePath(path string) string {
	for _, r := range path {
		if r == unicode.ReplacementChar || r == '"' || r == '\\' || !unicode.IsPrint(r) {
			return strconv.Quote(path)
		}
	}
	return path
}
