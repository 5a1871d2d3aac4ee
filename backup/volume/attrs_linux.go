package volume

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup/tarx"
)

// attrSource gives attributes of one entry.
type attrSource struct {
	fd   int
	path string
}

func fdAttrs(fd int) attrSource { return attrSource{fd: fd} }

func pathAttrs(path string) attrSource { return attrSource{fd: -1, path: path} }

func (s attrSource) list(buf []byte) (int, error) {
	if s.fd >= 0 {
		return unix.Flistxattr(s.fd, buf)
	}
	return unix.Llistxattr(s.path, buf)
}

func (s attrSource) get(name string, buf []byte) (int, error) {
	if s.fd >= 0 {
		return unix.Fgetxattr(s.fd, name, buf)
	}
	return unix.Lgetxattr(s.path, name, buf)
}

// xattrs reads the attributes of an entry.
func (r *reader) xattrs(h *tarx.Header, from attrSource) error {
	if r.noXattrs.Load() {
		return nil
	}
	if r.attrs == nil {
		// As large as a list of names, and as a value, can be.
		r.names, r.attrs = make([]byte, 64<<10), make([]byte, 64<<10)
	}
	n, err := from.list(r.names)
	switch {
	case errors.Is(err, unix.ENOTSUP):
		if from.fd >= 0 {
			r.noXattrs.Store(true)
		}
		return nil
	case errors.Is(err, unix.ENOENT):
		return nil // gone, or there is no /proc
	case err != nil:
		return r.unreadable(entryPath(h.Name), "list attributes", err)
	}
	for rest := r.names[:n]; len(rest) > 0; {
		end := 0
		for end < len(rest) && rest[end] != 0 {
			end++
		}
		name := string(rest[:end])
		rest = rest[min(end+1, len(rest)):]
		if !wanted(name) {
			continue
		}
		n, err := from.get(name, r.attrs)
		switch {
		case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOENT):
			continue
		case err != nil:
			return r.unreadable(entryPath(h.Name), fmt.Sprintf("read attribute %q", name), err)
		}
		if h.Xattrs == nil {
			h.Xattrs = map[string]string{}
		}
		h.Xattrs[name] = string(r.attrs[:n])
	}
	return nil
}

// flagNames are the flags of a file that somebody set on purpose.
var flagNames = []struct {
	bit  uint32
	name string
}{
	{unix.STATX_ATTR_IMMUTABLE, "immutable"},
	{unix.STATX_ATTR_APPEND, "append-only"},
	{unix.STATX_ATTR_NODUMP, "no dump"},
	{unix.STATX_ATTR_COMPRESSED, "compressed"},
	{fsNoCow, "no copy on write"},
	{fsCaseFold, "names without case"},
}

// Flags of linux/fs.h that statx does not tell. Those that it does have the same bits.
const (
	fsNoCow    = 0x800000
	fsCaseFold = 0x40000000
)

func (r *reader) noteFlags(path string, flags uint32) {
	var set []string
	for _, f := range flagNames {
		if flags&f.bit != 0 {
			set = append(set, f.name)
		}
	}
	if len(set) > 0 {
		r.notes.add(path, "flags", strings.Join(set, ", "))
	}
}

// noteAttributes notes the flags that statx tells of a file.
func (r *reader) noteAttributes(path string, st *unix.Statx_t) {
	const interesting = unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND | unix.STATX_ATTR_NODUMP
	if st.Attributes&interesting != 0 {
		r.noteFlags(path, uint32(st.Attributes&interesting))
	}
}
