package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// readTail reads index, checksums and end marker, and holds them against what was read.
// The current member is the index.
func (r *Reader) readTail() error {
	index, err := r.tailIndex()
	if err != nil {
		return err
	}
	if err := r.tailSums(); err != nil {
		return err
	}
	sums := r.last.SHA256
	if err := r.tailMember(nameEnd, endSize); err != nil {
		return err
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	end, err := parseEnd(text)
	if err != nil {
		return err
	}
	if err := r.finishMember(); err != nil {
		return err
	}
	if _, _, err := r.tar.next(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = fmt.Errorf("%w at offset %d: there is a member behind the end marker", ErrCorrupt, r.tar.pos)
		}
		return err
	}
	bad := func(what string) error { return fmt.Errorf("%w: the end marker is %s", ErrCorrupt, what) }
	switch {
	case end.ID != r.manifest.ID:
		return bad("that of another archive")
	case end.SumsSHA256 != sums:
		return bad("of other checksums")
	case end.IndexOffset != index.Offset || end.IndexSize != index.Size:
		return bad("of another index")
	case end.Status != r.manifest.Status:
		return bad("of another status")
	case end.Total != r.tar.pos:
		return bad(fmt.Sprintf("of an archive of %d bytes, and this one has %d", end.Total, r.tar.pos))
	}
	r.end = &end
	return nil
}

// tailMember begins the member that must come next.
func (r *Reader) tailMember(name string, limit int64) error {
	m, err := r.begin()
	if err != nil {
		return err
	}
	if m.Name != name {
		return fmt.Errorf("%w at offset %d: there is %s where %s should be", ErrCorrupt, r.at, m.Name, name)
	}
	if m.Size > limit || name == nameEnd && m.Size != endSize {
		return fmt.Errorf("%w: %s has %d bytes", ErrCorrupt, name, m.Size)
	}
	return nil
}

// tailIndex reads the index of members.
func (r *Reader) tailIndex() (indexMember, error) {
	if r.cur.Size > maxIndex {
		return indexMember{}, fmt.Errorf("%w: %s has %d bytes", ErrCorrupt, nameIndex, r.cur.Size)
	}
	lines := sha256.New()
	err := readIndex(r, r.manifest.ID, func(m *indexMember) error {
		hashLine(lines, m.line())
		if pm, err := parseMember(m.Name); err == nil && pm.Kind == MemberSegment {
			return m.checkFrames(r.segment(pm))
		}
		return nil
	})
	if err != nil {
		return indexMember{}, err
	}
	if !bytes.Equal(lines.Sum(nil), r.lines.Sum(nil)) {
		return indexMember{}, fmt.Errorf("%w: the index of members is not that of the members that are there", ErrCorrupt)
	}
	if err := r.finishMember(); err != nil {
		return indexMember{}, err
	}
	return r.last, nil
}

// segment is a segment of the manifest; nil where it has none.
func (r *Reader) segment(m Member) *Segment {
	t := r.manifest.Trees[m.Volume]
	if t == nil || m.Segment >= len(t.Segments) {
		return nil
	}
	return &t.Segments[m.Segment]
}

// tailSums reads the checksums, which must be those of all members before them.
func (r *Reader) tailSums() error {
	want := r.sums.Sum(nil)
	if err := r.tailMember(nameSums, maxSums); err != nil {
		return err
	}
	sc := bufio.NewScanner(r)
	wrong := ""
	for sc.Scan() {
		sum, name, _ := strings.Cut(sc.Text(), "  ")
		if have, ok := r.unsure[name]; ok && have != sum && wrong == "" {
			wrong = name
		}
	}
	if err := sc.Err(); err != nil {
		if r.err != nil { // of the archive, not of a line
			return r.err
		}
		return fmt.Errorf("%w: %s has a damaged line", ErrCorrupt, nameSums)
	}
	switch {
	case wrong != "":
		return fmt.Errorf("%w: %s does not have the hash that %s says", ErrCorrupt, wrong, nameSums)
	case hex.EncodeToString(r.sum.Sum(nil)) != hex.EncodeToString(want):
		return fmt.Errorf("%w: %s is not of the members that are there", ErrCorrupt, nameSums)
	}
	return r.finishMember()
}
