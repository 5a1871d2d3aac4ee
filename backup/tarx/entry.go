package tarx

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// entry makes a Header of the last block and what stood before it.
func (r *Reader) entry(block *[blockSize]byte, ex *extras) (*Header, error) {
	h := &Header{Type: block[fieldType], Xattrs: ex.xattrs, Notes: ex.notes}
	name, link := ustarNames(block)
	if err := h.fill(block, ex.attrs); err != nil {
		return nil, err
	}
	if raw, ok := h.Xattrs[xattrACLAccess]; ok && isMode(raw, h.Mode) {
		delete(h.Xattrs, xattrACLAccess)
	}
	stored, err := pick(ex.attrs.size, block[fieldSize:fieldSize+12])
	if err != nil {
		return nil, err
	}
	if stored < 0 || stored > 1<<63-1-blockSize {
		return nil, fmt.Errorf("%w: size %d", ErrHeader, stored)
	}
	for _, p := range []*string{ex.longName, ex.path} {
		if p != nil {
			name = *p
		}
	}
	for _, p := range []*string{ex.longLink, ex.link} {
		if p != nil {
			link = *p
		}
	}
	sparse := ex.sparseMajor != nil || ex.sparseMap != nil || h.Type == 'S'
	if sparse && ex.sparseName != nil {
		name = *ex.sparseName
	}
	if err := h.setType(name, link); err != nil {
		return nil, err
	}
	if h.Type != TypeFile {
		if block[fieldType] != 'D' {
			stored = 0 // some programs give links and folders a size, without content
		}
		// The listing in a folder of an incremental archive, or what stands behind a
		// name that ends in a slash, is no content of ours.
		r.left = stored
		r.padding = padding(stored)
		return h, r.discardContent()
	}
	h.Size = stored
	if sparse {
		if stored, err = r.sparse(block, ex.attrs, h); err != nil {
			return nil, err
		}
	}
	r.left, r.padding = stored, padding(stored)
	return h, nil
}

func (r *Reader) discardContent() error {
	n := r.left + int64(r.padding)
	r.left, r.padding = 0, 0
	return r.discard(n)
}

// ustarNames gives name and link target of a header.
func ustarNames(block *[blockSize]byte) (name, link string) {
	name = text(block[fieldName : fieldName+lenName])
	link = text(block[fieldLink : fieldLink+lenLink])
	if string(block[fieldMagic:fieldMagic+6]) != "ustar\x00" {
		return name, link // v7 and GNU have no prefix
	}
	long := lenPrefix
	if string(block[508:]) == "tar\x00" {
		long = 131 // star keeps times in the rest
	}
	if prefix := text(block[fieldPrefix : fieldPrefix+long]); prefix != "" {
		name = prefix + "/" + name
	}
	return name, link
}

// text is a field up to its NUL.
func text(field []byte) string {
	if i := bytes.IndexByte(field, 0); i >= 0 {
		field = field[:i]
	}
	return string(field)
}

// pick is the number of a record, or that of a field where there is none.
func pick(record *int64, field []byte) (int64, error) {
	if record != nil {
		return *record, nil
	}
	return parseNumber(field)
}

// fill sets what needs no look at the type.
func (h *Header) fill(block *[blockSize]byte, a *attrs) (err error) {
	if h.Mode, err = parseNumber(block[fieldMode : fieldMode+8]); err != nil {
		return err
	}
	h.Mode &= 07777 // old programs write the type too
	if h.UID, err = pick(a.uid, block[fieldUID:fieldUID+8]); err != nil {
		return err
	}
	if h.GID, err = pick(a.gid, block[fieldGID:fieldGID+8]); err != nil {
		return err
	}
	if h.UID < 0 || h.UID > MaxID || h.GID < 0 || h.GID > MaxID {
		return fmt.Errorf("%w: owner %d:%d", ErrHeader, h.UID, h.GID)
	}
	if a.mtime != nil {
		h.ModTime = *a.mtime
	} else {
		sec, err := parseNumber(block[fieldMTime : fieldMTime+12])
		if err != nil {
			return err
		}
		h.ModTime = time.Unix(sec, 0)
	}
	if h.Type == TypeChar || h.Type == TypeBlock {
		if h.Major, err = parseNumber(block[fieldMajor : fieldMajor+8]); err != nil {
			return err
		}
		if h.Minor, err = parseNumber(block[fieldMinor : fieldMinor+8]); err != nil {
			return err
		}
		if h.Major < 0 || h.Major > maxOctal7 || h.Minor < 0 || h.Minor > maxOctal7 {
			return fmt.Errorf("%w: device %d:%d", ErrHeader, h.Major, h.Minor)
		}
	}
	return nil
}

// setType sets type and names, with the few types that there should be.
func (h *Header) setType(name, link string) error {
	if name == "" {
		return fmt.Errorf("%w: an entry without a name", ErrHeader)
	}
	switch h.Type {
	case 0, '7', 'S', TypeFile:
		h.Type = TypeFile
		if strings.HasSuffix(name, "/") {
			h.Type = TypeFolder // as v7 wrote folders
		}
	case 'D':
		h.Type = TypeFolder
	case TypeHardLink, TypeSymlink, TypeChar, TypeBlock, TypeFolder, TypeFIFO:
	default:
		return fmt.Errorf("%w: type %q", ErrHeader, h.Type)
	}
	h.Name = cleanName(name, h.Type == TypeFolder)
	if h.Name == "./" && h.Type != TypeFolder {
		return fmt.Errorf("%w: the root is no folder", ErrHeader)
	}
	switch h.Type {
	case TypeHardLink:
		h.Link = cleanName(link, false)
	case TypeSymlink:
		h.Link = link
	default:
		return nil
	}
	if link == "" {
		return fmt.Errorf("%w: a link without a target", ErrHeader)
	}
	return nil
}

// cleanName takes "./" off the front, and gives the name of a folder one slash at its end,
// any other none.
func cleanName(name string, folder bool) string {
	for strings.HasPrefix(name, "./") {
		name = strings.TrimLeft(name[2:], "/")
	}
	if name == "" || name == "." {
		return "./"
	}
	switch trimmed := strings.TrimRight(name, "/"); {
	case trimmed == "": // "/" and its like, for whoever judges names
	case folder:
		name = trimmed + "/"
	default:
		name = trimmed
	}
	return name
}

// sparse sets size and extents, and returns how much content is left.
func (r *Reader) sparse(block *[blockSize]byte, a *attrs, h *Header) (int64, error) {
	stored := h.Size
	var data []Extent
	var used int64
	var err error
	switch {
	case block[fieldType] == 'S':
		data, h.Size, used, err = readOldMap(r.r, block[:])
		r.pos += used
	case a.sparseSize == nil:
		err = fmt.Errorf("%w: a sparse file without its size", ErrHeader)
	case a.sparseMajor == nil || *a.sparseMajor == 0:
		if data = a.sparseMap; data == nil {
			err = fmt.Errorf("%w: a sparse file without a map", ErrHeader)
		}
		h.Size = *a.sparseSize
	case *a.sparseMajor == 1 && (a.sparseMinor == nil || *a.sparseMinor == 0):
		data, used, err = readMap(r.r, stored)
		r.pos += used
		stored -= used
		h.Size = *a.sparseSize
	default:
		err = fmt.Errorf("%w: sparse format %d is not known", ErrHeader, *a.sparseMajor)
	}
	if err != nil {
		return 0, err
	}
	if h.Size < 0 {
		return 0, fmt.Errorf("%w: size %d", ErrHeader, h.Size)
	}
	h.Data, err = checkMap(data, h.Size, stored)
	return stored, err
}
