package tarx

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"
)

// attrs is what records say about an entry. A nil pointer: nothing.
type attrs struct {
	path, link     *string
	size, uid, gid *int64
	mtime          *time.Time
	xattrs         map[string]string
	notes          []string

	sparseMajor, sparseMinor *int64
	sparseName               *string
	sparseSize               *int64 // realsize, or size in formats 0.0 and 0.1
	sparseMap                []Extent
	sparseOffset             *int64 // in format 0.0, until its numbytes comes
}

// clone gives a copy that can be changed.
func (a *attrs) clone() *attrs {
	c := *a
	c.xattrs = maps.Clone(a.xattrs)
	return &c
}

// add takes in the records of one pax header.
func (a *attrs) add(data []byte) error {
	for len(data) > 0 {
		key, value, rest, err := nextRecord(data)
		if err != nil {
			return err
		}
		if err := a.set(key, value); err != nil {
			return fmt.Errorf("record %q: %w", key, err)
		}
		data = rest
	}
	return nil
}

// nextRecord parts the first record from the rest.
func nextRecord(data []byte) (key, value string, rest []byte, err error) {
	bad := func() (string, string, []byte, error) {
		return "", "", nil, fmt.Errorf("%w: record %q", ErrHeader, data[:min(len(data), 32)])
	}
	space := bytes.IndexByte(data[:min(len(data), 12)], ' ')
	if space <= 0 {
		return bad()
	}
	size, err := parseDecimal(string(data[:space]))
	if err != nil || size > int64(len(data)) || size < int64(space)+2 || data[size-1] != '\n' {
		return bad()
	}
	body := data[space+1 : size-1]
	equals := bytes.IndexByte(body, '=')
	if equals <= 0 {
		return bad()
	}
	return string(body[:equals]), string(body[equals+1:]), data[size:], nil
}

// set takes in one record. An empty value takes back what was said before.
func (a *attrs) set(key, value string) error {
	switch key {
	case "path":
		return setText(&a.path, value)
	case "linkpath":
		return setText(&a.link, value)
	case "size":
		return setNumber(&a.size, value)
	case "uid":
		return setNumber(&a.uid, value)
	case "gid":
		return setNumber(&a.gid, value)
	case "mtime":
		a.mtime = nil
		if value == "" {
			return nil
		}
		t, err := parseTime(value)
		a.mtime = &t
		return err
	case recACLAccess:
		return a.setACL(xattrACLAccess, value)
	case recACLDefault:
		return a.setACL(xattrACLDefault, value)
	case recSELinux:
		if value == "" {
			delete(a.xattrs, xattrSELinux)
			return nil
		}
		return a.setXattr(xattrSELinux, value+"\x00")
	}
	if name, ok := strings.CutPrefix(key, recXattr); ok {
		return a.setXattr(xattrUnescaper.Replace(name), value)
	}
	if name, ok := strings.CutPrefix(key, "GNU.sparse."); ok {
		return a.setSparse(name, value)
	}
	return nil // others are for others
}

func (a *attrs) setXattr(name, value string) error {
	if name == "" || len(name) > MaxXattrName || strings.IndexByte(name, 0) >= 0 {
		return fmt.Errorf("%w: name of an attribute", ErrHeader)
	}
	if len(value) > MaxXattr {
		return fmt.Errorf("%w: %d bytes are too long for an attribute", ErrHeader, len(value))
	}
	if a.xattrs == nil {
		a.xattrs = map[string]string{}
	}
	a.xattrs[name] = value
	return nil
}

func (a *attrs) setACL(name, text string) error {
	raw, err := aclFromText(text)
	switch {
	case errors.Is(err, errACLName):
		// Names mean something on the machine where they were written only.
		a.notes = append(a.notes[:len(a.notes):len(a.notes)], name+" names users or groups instead of numbers and is left out")
		raw = ""
	case err != nil:
		return err
	}
	if raw == "" {
		delete(a.xattrs, name)
		return nil
	}
	return a.setXattr(name, raw)
}

// setSparse takes in a record GNU.sparse.<name>.
func (a *attrs) setSparse(name, value string) error {
	switch name {
	case "major":
		return setNumber(&a.sparseMajor, value)
	case "minor":
		return setNumber(&a.sparseMinor, value)
	case "name":
		return setText(&a.sparseName, value)
	case "realsize", "size":
		return setNumber(&a.sparseSize, value)
	case "numblocks":
		a.sparseMap = []Extent{}
		return nil
	case "offset":
		return setNumber(&a.sparseOffset, value)
	case "numbytes":
		n, err := parseDecimal(value)
		if err != nil || value == "" || a.sparseOffset == nil {
			return fmt.Errorf("%w: extent %q", ErrHeader, value)
		}
		a.sparseMap = append(a.sparseMap, Extent{*a.sparseOffset, n})
		a.sparseOffset = nil
		return nil
	case "map":
		return a.setSparseMap(value)
	}
	return nil
}

// setSparseMap takes in the map of format 0.1: offsets and lengths in turn.
func (a *attrs) setSparseMap(value string) error {
	a.sparseMap = []Extent{}
	if value == "" {
		return nil
	}
	var e Extent
	n := 0
	for text := range strings.SplitSeq(value, ",") {
		number, err := parseDecimal(text)
		if err != nil {
			return err
		}
		if n++; n%2 == 1 {
			e.Offset = number
			continue
		}
		e.Length = number
		a.sparseMap = append(a.sparseMap, e)
	}
	if n%2 == 1 {
		return fmt.Errorf("%w: the map has an odd count of numbers", ErrHeader)
	}
	return nil
}

func setText(p **string, value string) error {
	if *p = nil; value == "" {
		return nil
	}
	if strings.IndexByte(value, 0) >= 0 {
		return fmt.Errorf("%w: %q has a NUL", ErrHeader, value[:min(len(value), 64)])
	}
	*p = &value
	return nil
}

func setNumber(p **int64, value string) error {
	if *p = nil; value == "" {
		return nil
	}
	n, err := parseDecimal(value)
	*p = &n
	return err
}
