package volume

import (
	"unicode/utf8"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/tarx"
)

// setIDBits are the bits of a mode by which a file runs as its owner, or as its group.
const setIDBits = 0o6000

// setID reports whether an entry is a file that runs with other rights than those of who
// runs it. Reading and writing a tree count by it, and a restore holds one count against
// the other.
func setID(h *tarx.Header) bool {
	if h.Type != tarx.TypeFile {
		return false
	}
	if h.Mode&setIDBits != 0 {
		return true
	}
	_, capable := h.Xattrs[xattrCapability]
	return capable
}

// noteSpecial counts an entry, if it is one to be counted.
func noteSpecial(s *backup.Special, h *tarx.Header) {
	if h.Type == tarx.TypeChar || h.Type == tarx.TypeBlock {
		s.Devices++
	}
	if !setID(h) {
		return
	}
	s.SetID++
	if len(s.Examples) < backup.MaxExamples {
		s.Examples = append(s.Examples, example(entryPath(h.Name)))
	}
}

// addSpecial adds the counts of entries that follow.
func addSpecial(to, s *backup.Special) {
	to.SetID += s.SetID
	to.Devices += s.Devices
	if room := backup.MaxExamples - len(to.Examples); room > 0 {
		to.Examples = append(to.Examples, s.Examples[:min(room, len(s.Examples))]...)
	}
}

// example is a path in a form that is short, and plain text.
func example(path string) string {
	const dots = "…"

	if q := quotePath(path); len(q) <= backup.MaxExample {
		return q
	}
	// Its end tells more than its beginning, and each byte may become \xNN within quotes.
	for keep := min(len(path), backup.MaxExample-len(dots)); ; keep-- {
		end := path[len(path)-keep:]
		for end != "" && !utf8.RuneStart(end[0]) {
			end = end[1:]
		}
		if q := dots + quotePath(end); len(q) <= backup.MaxExample {
			return q
		}
	}
}
