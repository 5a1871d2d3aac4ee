package tarx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The kernel's binary form of an ACL (include/uapi/linux/posix_acl_xattr.h): a version,
// then entries of tag, permissions and id, all little-endian.
const (
	aclVersion = 2
	aclHead    = 4
	aclEntry   = 8
	aclNoID    = 1<<32 - 1

	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
)

// errACLName says that an ACL names somebody who has no number here.
var errACLName = errors.New("an ACL holds a name instead of a number")

type aclLine struct {
	tag, perm uint16
	id        uint32
}

// aclToText gives the text form of an ACL with numeric ids, in one line with commas. It
// reports false where the text would not lead back to the same bytes.
func aclToText(raw string) (string, bool) {
	if len(raw) < aclHead || (len(raw)-aclHead)%aclEntry != 0 || len(raw) == aclHead {
		return "", false
	}
	data := []byte(raw)
	if binary.LittleEndian.Uint32(data) != aclVersion {
		return "", false
	}
	b := make([]byte, 0, 2*len(raw))
	for e := data[aclHead:]; len(e) > 0; e = e[aclEntry:] {
		id := uint64(binary.LittleEndian.Uint32(e[4:]))
		switch binary.LittleEndian.Uint16(e) {
		case aclUserObj:
			b = append(b, "user::"...)
		case aclUser:
			b = append(strconv.AppendUint(append(b, "user:"...), id, 10), ':')
		case aclGroupObj:
			b = append(b, "group::"...)
		case aclGroup:
			b = append(strconv.AppendUint(append(b, "group:"...), id, 10), ':')
		case aclMask:
			b = append(b, "mask::"...)
		case aclOther:
			b = append(b, "other::"...)
		default:
			return "", false
		}
		perm := binary.LittleEndian.Uint16(e[2:])
		for i, c := range []byte("rwx") {
			if perm&(4>>i) == 0 {
				c = '-'
			}
			b = append(b, c)
		}
		b = append(b, ',')
	}
	text := string(b[:len(b)-1])
	back, err := aclFromText(text)
	return text, err == nil && back == raw
}

// aclFromText gives the kernel's form of an ACL in text: entries parted by commas or
// newlines, comments from "#" to the end of a line. star adds the number of a named user
// or group as a fourth field.
func aclFromText(text string) (string, error) {
	var lines []aclLine
	for line := range strings.SplitSeq(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		for entry := range strings.SplitSeq(line, ",") {
			entry = strings.TrimSpace(entry)
			if entry == "" {
				continue
			}
			l, err := parseACLEntry(entry)
			if err != nil {
				return "", err
			}
			if lines = append(lines, l); len(lines) > (MaxXattr-aclHead)/aclEntry {
				return "", fmt.Errorf("%w: an ACL is too long", ErrHeader)
			}
		}
	}
	if len(lines) == 0 {
		return "", nil
	}
	slices.SortFunc(lines, func(a, b aclLine) int {
		if a.tag != b.tag {
			return int(a.tag) - int(b.tag)
		}
		return int(int64(a.id) - int64(b.id))
	})
	if err := checkACL(lines); err != nil {
		return "", err
	}
	out := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, l := range lines {
		out = binary.LittleEndian.AppendUint16(out, l.tag)
		out = binary.LittleEndian.AppendUint16(out, l.perm)
		out = binary.LittleEndian.AppendUint32(out, l.id)
	}
	return string(out), nil
}

func parseACLEntry(entry string) (aclLine, error) {
	bad := func() (aclLine, error) { return aclLine{}, fmt.Errorf("%w: ACL entry %q", ErrHeader, entry) }
	fields := strings.Split(entry, ":")
	if len(fields) == 2 && (strings.HasPrefix(fields[0], "m") || strings.HasPrefix(fields[0], "o")) {
		// The old short form without the empty field.
		fields = []string{fields[0], "", fields[1]}
	}
	if len(fields) != 3 && len(fields) != 4 {
		return bad()
	}
	l := aclLine{id: aclNoID}
	who := fields[1]
	switch fields[0] {
	case "user", "u":
		l.tag = aclUserObj
	case "group", "g":
		l.tag = aclGroupObj
	case "mask", "m":
		l.tag = aclMask
	case "other", "o":
		l.tag = aclOther
	default:
		return bad()
	}
	for _, c := range strings.TrimSpace(fields[2]) {
		switch c {
		case 'r':
			l.perm |= 4
		case 'w':
			l.perm |= 2
		case 'x':
			l.perm |= 1
		case '-':
		default:
			return bad()
		}
	}
	if who == "" {
		return l, nil
	}
	if l.tag != aclUserObj && l.tag != aclGroupObj {
		return bad()
	}
	l.tag *= 2 // the named kind
	if len(fields) == 4 {
		who = fields[3]
	}
	id, err := strconv.ParseUint(who, 10, 32)
	switch {
	case err == nil && id != aclNoID:
		l.id = uint32(id)
	case err == nil || errors.Is(err, strconv.ErrRange) || len(fields) == 4:
		return bad()
	case who == "root":
		l.id = 0
	default:
		return aclLine{}, errACLName
	}
	return l, nil
}

// isMode reports whether an ACL says no more than the permissions do. The kernel does not
// keep such a one; GNU tar writes it beside a default ACL.
func isMode(raw string, mode int64) bool {
	if len(raw) != aclHead+3*aclEntry {
		return false
	}
	var perm int64
	for e := []byte(raw)[aclHead:]; len(e) > 0; e = e[aclEntry:] {
		perm = perm<<3 | int64(binary.LittleEndian.Uint16(e[2:]))
	}
	return perm == mode&0o777
}

// checkACL refuses what the kernel would refuse. lines are sorted.
func checkACL(lines []aclLine) error {
	var seen uint16
	for i, l := range lines {
		if i > 0 && lines[i-1].tag == l.tag && lines[i-1].id == l.id {
			return fmt.Errorf("%w: an ACL has an entry twice", ErrHeader)
		}
		seen |= l.tag
	}
	const needed = aclUserObj | aclGroupObj | aclOther
	if seen&needed != needed || seen&(aclUser|aclGroup) != 0 && seen&aclMask == 0 {
		return fmt.Errorf("%w: an ACL lacks an entry", ErrHeader)
	}
	return nil
}
