package tarx

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What fits the octal fields of ustar.
const (
	maxOctal7  = 1<<21 - 1 // ids and devices: 7 digits
	maxOctal11 = 1<<33 - 1 // size and mtime: 11 digits
)

// The fields of ustar: where they begin and how long they are.
const (
	fieldName     = 0
	lenName       = 100
	fieldMode     = 100
	fieldUID      = 108
	fieldGID      = 116
	fieldSize     = 124
	fieldMTime    = 136
	fieldChecksum = 148
	fieldType     = 156
	fieldLink     = 157
	lenLink       = 100
	fieldMagic    = 257
	fieldMajor    = 329
	fieldMinor    = 337
	fieldPrefix   = 345
	lenPrefix     = 155
)

// The names that readers without pax and GNU sparse would see.
const (
	paxName    = "./PaxHeaders/"
	sparseName = "./GNUSparseFile.0/"
)

// The records that are needed in several places.
const (
	recACLAccess  = "SCHILY.acl.access"
	recACLDefault = "SCHILY.acl.default"
	recXattr      = "SCHILY.xattr."
	recSELinux    = "RHT.security.selinux"

	xattrACLAccess  = "system.posix_acl_access"
	xattrACLDefault = "system.posix_acl_default"
	xattrSELinux    = "security.selinux"
)

var zeroBlock [blockSize]byte

// AppendHeader appends to b all that stands before the content of h: records if there
// are any, the ustar header, the list of extents of a sparse file. The caller then writes
// h.PayloadSize() bytes of content and Padding(h) zeros.
func AppendHeader(b []byte, h *Header) ([]byte, error) {
	if err := h.check(); err != nil {
		return b, err
	}
	start := len(b)
	var nameBuf, linkBuf [256]byte
	name := appendName(nameBuf[:0], h.Name, h.Type == TypeFolder)
	var link []byte
	switch h.Type {
	case TypeHardLink:
		link = appendName(linkBuf[:0], h.Link, false)
	case TypeSymlink:
		link = append(linkBuf[:0], h.Link...)
	}
	sparse := h.Type == TypeFile && h.Data != nil && h.Size > 0
	stored := h.PayloadSize()
	if sparse {
		stored += mapSize(h)
	}

	// Room for the header of the records, given back if there are none.
	b = append(b, zeroBlock[:]...)
	b = appendRecords(b, h, name, link, stored, sparse)
	switch records := int64(len(b) - start - blockSize); {
	case records == 0:
		b = b[:start]
	case records > MaxRecords:
		return b[:start], h.errorf("attributes and name of %d bytes are more than %d", records, MaxRecords)
	default:
		fillPaxHeader(b[start:start+blockSize], records)
		b = append(b, zeroBlock[:padding(records)]...)
	}

	b = append(b, zeroBlock[:]...)
	fillUstar(b[len(b)-blockSize:], h, name, link, stored, sparse)
	if sparse {
		b = appendMap(b, h)
	}
	return b, nil
}

// appendName appends a name as it stands in the archive.
func appendName(b []byte, name string, folder bool) []byte {
	for strings.HasPrefix(name, "./") {
		name = strings.TrimLeft(name[2:], "/")
	}
	if name == "" || name == "." {
		return append(b, "./"...)
	}
	b = append(b, "./"...)
	b = append(b, name...)
	if folder && b[len(b)-1] != '/' {
		b = append(b, '/')
	}
	return b
}

// appendRecords appends the records that h needs, sorted by their keys.
func appendRecords(b []byte, h *Header, name, link []byte, stored int64, sparse bool) []byte {
	var num [32]byte
	if sparse {
		b = appendRecord(b, "GNU.sparse.major", "1")
		b = appendRecord(b, "GNU.sparse.minor", "0")
		b = appendRecord(b, "GNU.sparse.name", name)
		b = appendRecord(b, "GNU.sparse.realsize", strconv.AppendInt(num[:0], h.Size, 10))
	}
	if len(h.Xattrs) > 0 {
		b = appendXattrs(b, h.Xattrs)
	}
	if h.GID > maxOctal7 {
		b = appendRecord(b, "gid", strconv.AppendInt(num[:0], h.GID, 10))
	}
	if len(link) > lenLink {
		b = appendRecord(b, "linkpath", link)
	}
	if sec := h.ModTime.Unix(); sec < 0 || sec > maxOctal11 || h.ModTime.Nanosecond() != 0 {
		b = appendRecord(b, "mtime", appendTime(num[:0], h.ModTime))
	}
	if !sparse {
		if _, ok := splitName(name); !ok {
			b = appendRecord(b, "path", name)
		}
	}
	if stored > maxOctal11 {
		b = appendRecord(b, "size", strconv.AppendInt(num[:0], stored, 10))
	}
	if h.UID > maxOctal7 {
		b = appendRecord(b, "uid", strconv.AppendInt(num[:0], h.UID, 10))
	}
	return b
}

// appendXattrs appends the records of extended attributes.
func appendXattrs(b []byte, xattrs map[string]string) []byte {
	type record struct{ key, value string }
	records := make([]record, 0, len(xattrs))
	for name, value := range xattrs {
		key := ""
		switch name {
		case xattrACLAccess, xattrACLDefault:
			if text, ok := aclToText(value); ok {
				key, value = recACLAccess, text
				if name == xattrACLDefault {
					key = recACLDefault
				}
			}
		case xattrSELinux:
			if label, ok := strings.CutSuffix(value, "\x00"); ok && label != "" && strings.IndexByte(label, 0) < 0 {
				key, value = recSELinux, label
			}
		}
		if key == "" {
			key = recXattr + xattrEscaper.Replace(name)
		}
		records = append(records, record{key, value})
	}
	slices.SortFunc(records, func(a, b record) int { return strings.Compare(a.key, b.key) })
	for _, r := range records {
		b = appendRecord(b, r.key, r.value)
	}
	return b
}

// A record's key ends at its first "=", so GNU tar writes that otherwise in names of
// attributes, and "%" for the way back.
var (
	xattrEscaper   = strings.NewReplacer("%", "%25", "=", "%3D")
	xattrUnescaper = strings.NewReplacer("%25", "%", "%3D", "=")
)

// appendRecord appends one record: its own length in decimal, a space, key=value and a
// newline.
func appendRecord[T string | []byte](b []byte, key string, value T) []byte {
	n := len(key) + len(value) + 3
	size := n + digits(n)
	if more := n + digits(size); more != size {
		size = more
	}
	b = strconv.AppendInt(b, int64(size), 10)
	b = append(b, ' ')
	b = append(b, key...)
	b = append(b, '=')
	b = append(b, value...)
	return append(b, '\n')
}

func digits(n int) int {
	d := 1
	for ; n >= 10; n /= 10 {
		d++
	}
	return d
}

// appendTime appends t as signed decimal seconds with as much of a fraction as there is.
func appendTime(b []byte, t time.Time) []byte {
	sec, ns := t.Unix(), t.Nanosecond()
	abs := uint64(sec)
	if sec < 0 {
		b = append(b, '-')
		if ns > 0 {
			sec, ns = sec+1, 1e9-ns
		}
		abs = -uint64(sec)
	}
	b = strconv.AppendUint(b, abs, 10)
	if ns == 0 {
		return b
	}
	b = append(b, '.')
	for scale := int(1e8); ns > 0; scale /= 10 {
		b = append(b, byte('0'+ns/scale))
		ns %= scale
	}
	return b
}

// splitName finds where a name parts into prefix and name; at is 0 where it fits whole.
func splitName(name []byte) (at int, ok bool) {
	if len(name) <= lenName {
		return 0, true
	}
	if len(name) > lenPrefix+1+lenName {
		return 0, false
	}
	// The slash of a folder at its end must stay in the name.
	for at = min(lenPrefix, len(name)-2); at >= len(name)-1-lenName && at > 0; at-- {
		if name[at] == '/' {
			return at, true
		}
	}
	return 0, false
}

// fillPaxHeader fills in the header of records.
func fillPaxHeader(block []byte, size int64) {
	copy(block[fieldName:], paxName)
	putOctal(block[fieldMode:fieldMode+8], 0o644)
	putOctal(block[fieldUID:fieldUID+8], 0)
	putOctal(block[fieldGID:fieldGID+8], 0)
	putOctal(block[fieldSize:fieldSize+12], size)
	putOctal(block[fieldMTime:fieldMTime+12], 0)
	block[fieldType] = 'x'
	finish(block)
}

// fillUstar fills in the header of the entry. What is in records is 0 or cut short here.
func fillUstar(block []byte, h *Header, name, link []byte, stored int64, sparse bool) {
	if sparse {
		base := name[1+lastSlash(name):]
		copy(block[fieldName:fieldName+lenName], sparseName)
		copy(block[fieldName+len(sparseName):fieldName+lenName], base)
	} else if at, _ := splitName(name); at > 0 {
		copy(block[fieldPrefix:fieldPrefix+lenPrefix], name[:at])
		copy(block[fieldName:fieldName+lenName], name[at+1:])
	} else {
		copy(block[fieldName:fieldName+lenName], name)
	}
	copy(block[fieldLink:fieldLink+lenLink], link)
	putOctal(block[fieldMode:fieldMode+8], h.Mode)
	putOctal(block[fieldUID:fieldUID+8], fits(h.UID, maxOctal7))
	putOctal(block[fieldGID:fieldGID+8], fits(h.GID, maxOctal7))
	putOctal(block[fieldSize:fieldSize+12], fits(stored, maxOctal11))
	putOctal(block[fieldMTime:fieldMTime+12], fits(h.ModTime.Unix(), maxOctal11))
	block[fieldType] = h.Type
	if h.Type == TypeChar || h.Type == TypeBlock {
		putOctal(block[fieldMajor:fieldMajor+8], h.Major)
		putOctal(block[fieldMinor:fieldMinor+8], h.Minor)
	}
	finish(block)
}

func lastSlash(name []byte) int {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '/' {
			return i
		}
	}
	return -1
}

// fits is n, or 0 where a record says more.
func fits(n, most int64) int64 {
	if n < 0 || n > most {
		return 0
	}
	return n
}

// putOctal fills a field with octal digits and a NUL.
func putOctal(field []byte, n int64) {
	for i := len(field) - 2; i >= 0; i-- {
		field[i] = byte('0' + n&7)
		n >>= 3
	}
}

// finish sets magic and checksum of a header.
func finish(block []byte) {
	copy(block[fieldMagic:], "ustar\x0000")
	copy(block[fieldChecksum:fieldChecksum+8], "        ")
	putOctal(block[fieldChecksum:fieldChecksum+7], sum(block))
}

// sum adds up the bytes of a block, eight at a time.
func sum(block []byte) int64 {
	const even = 0x00ff00ff00ff00ff
	// Four lanes of 16 bits: 64 words of at most 2*255 stay below 1<<16.
	var lanes uint64
	for i := 0; i < blockSize; i += 8 {
		w := binary.LittleEndian.Uint64(block[i:])
		lanes += w&even + w>>8&even
	}
	return int64(lanes&0xffff + lanes>>16&0xffff + lanes>>32&0xffff + lanes>>48)
}
