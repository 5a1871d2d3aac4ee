package backup

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
)

// indexMember is one line of the index of members.
type indexMember struct {
	Name   string `json:"name"`
	Offset int64  `json:"offset"` // of the content, in the outer tar
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	// Frames of a segment: compressed and raw size of each.
	Frames [][2]int64 `json:"frames,omitempty"`
}

// line is what both sides hash to compare an index with what was read, without keeping
// either.
func (m *indexMember) line() string {
	return m.Name + " " + strconv.FormatInt(m.Offset, 10) + " " + strconv.FormatInt(m.Size, 10) + " " + m.SHA256 + "\n"
}

// sumLine is the member's line in the checksums.
func (m *indexMember) sumLine() string { return m.SHA256 + "  " + m.Name + "\n" }

// The index is one JSON document with one member on each line, so that it can be read line
// by line. The layout of lines is part of the format.
const (
	indexOpen  = `{"format":1,"id":"%s","members":[` + "\n"
	indexClose = "]}\n"
)

// encodeIndex writes an index.
func encodeIndex(id string, members []indexMember) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, indexOpen, id)
	for i := range members {
		line, err := marshalPlain(&members[i])
		if err != nil {
			return nil, fmt.Errorf("write the index: %w", err)
		}
		if len(line) >= maxLine-2 {
			return nil, fmt.Errorf("write the index: %s has too many frames", members[i].Name)
		}
		b.Write(line)
		if i < len(members)-1 {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
	}
	b.WriteString(indexClose)
	if b.Len() > maxIndex {
		return nil, fmt.Errorf("write the index: %d bytes are more than fit: the volumes are too large for one archive", b.Len())
	}
	return b.Bytes(), nil
}

// readIndex reads an index and gives its members in order. id is the archive's.
func readIndex(r io.Reader, id string, each func(*indexMember) error) error {
	bad := func(what string) error { return fmt.Errorf("%w: the index of members %s", ErrCorrupt, what) }
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 64<<10), maxLine)
	sc.Split(scanWholeLines)
	if !sc.Scan() || sc.Text() != fmt.Sprintf(indexOpen, id) {
		if err := sc.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
			return err
		}
		return bad("is of another archive, or damaged at its start")
	}
	members, frames, open := 0, 0, true
	for sc.Scan() {
		line := sc.Bytes()
		if string(line) == indexClose {
			if sc.Scan() {
				return bad("goes on after its end")
			}
			return sc.Err()
		}
		if !open {
			return bad("has a line after its last one")
		}
		line, open = bytes.CutSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte(","))
		var m indexMember
		if checkJSON(line, jsonLimits{depth: 3, objects: maxLine / 4, values: maxLine}) != nil || json.Unmarshal(line, &m) != nil {
			return bad("has a damaged line")
		}
		if err := m.check(); err != nil {
			return bad("has a damaged line: " + err.Error())
		}
		members++
		if frames += len(m.Frames); members > maxMembers || frames > maxFrames {
			return bad("is too large")
		}
		if err := each(&m); err != nil {
			return err
		}
	}
	if err := sc.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
		return err
	}
	return bad("is cut off")
}

// scanWholeLines is bufio.ScanLines that leaves the newline on, and leaves a last line out
// that has none: it is cut off.
func scanWholeLines(data []byte, _ bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i+1], nil
	}
	return 0, nil, nil
}

// check checks a line in itself.
func (m *indexMember) check() error {
	pm, err := parseMember(m.Name)
	if err != nil {
		return err
	}
	if m.Size < 0 || m.Offset < blockSize || m.Offset%blockSize != 0 || !sha256RE.MatchString(m.SHA256) {
		return fmt.Errorf("%s has no right place or hash", m.Name)
	}
	if len(m.Frames) > 0 && pm.Kind != MemberSegment {
		return fmt.Errorf("%s has frames", m.Name)
	}
	var sum int64
	for _, f := range m.Frames {
		if f[0] <= 0 || f[0] > maxFrame || f[1] <= 0 || f[1] > maxFrame {
			return fmt.Errorf("%s has a frame of no right size", m.Name)
		}
		sum += f[0]
	}
	if len(m.Frames) > 0 && sum != m.Size {
		return fmt.Errorf("%s has frames of another size than its own", m.Name)
	}
	return nil
}

// checkFrames holds the frames of a line against the segment that they make. A line
// without frames is allowed: its segment can only be read as a whole.
func (m *indexMember) checkFrames(s *Segment) error {
	var raw int64
	for _, f := range m.Frames {
		raw += f[1]
	}
	if s == nil || len(m.Frames) > 0 && raw != s.Raw {
		return fmt.Errorf("%w: the frames of %s do not come to its size", ErrCorrupt, m.Name)
	}
	return nil
}

// hashLine adds a member to a running hash of all members.
func hashLine(h hash.Hash, line string) { h.Write([]byte(line)) }

// frames are the frames of a line as a Segment has them.
func (m *indexMember) frames() []Frame {
	out := make([]Frame, len(m.Frames))
	for i, f := range m.Frames {
		out[i] = Frame{Size: f[0], Raw: f[1]}
	}
	return out
}

// zstdFrames are the frames of a segment as a line of the index has them.
func zstdFrames(frames []Frame) [][2]int64 {
	out := make([][2]int64, len(frames))
	for i, f := range frames {
		out[i] = [2]int64{f.Size, f.Raw}
	}
	return out
}
