package volume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup/tarx"
)

// hardLink makes another name of a file that was written before.
func (w *writing) hardLink(h *tarx.Header, dir *target, name cname) error {
	parts, err := splitName(h.Link)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", h.Link, err)
	}
	if len(parts) == 0 {
		return fmt.Errorf("%w: hard link to the root", ErrUnsafe)
	}
	if err := w.drain(); err != nil {
		return err
	}
	if w.ctx.Err() != nil {
		return w.ctx.Err()
	}
	from, done, err := w.reach(parts[:len(parts)-1])
	if err != nil {
		return fmt.Errorf("%w: hard link to %q, which was not written before: %w", ErrUnsafe, h.Link, err)
	}
	defer done()
	err = unix.Linkat(from, parts[len(parts)-1], dir.fd, name.String(), 0)
	switch {
	case err == nil:
		return w.line(h)
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: hard link to %q, which was not written before", ErrUnsafe, h.Link)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("hard link to %q: it is a folder, or the file system knows no hard links: %w", h.Link, err)
	}
	return w.explain(exists(err))
}

// reach opens the folder of the given components for the time of one call. Nothing is made
// and nothing followed.
func (w *writing) reach(parts []string) (fd int, done func(), err error) {
	same := 0
	for same < len(parts) && same+1 < len(w.stack) && w.stack[same+1].name == parts[same] {
		same++
	}
	for same > 0 && w.stack[same].fd < 0 {
		same--
	}
	fd, done = w.stack[same].fd, func() {}
	for _, part := range parts[same:] {
		next, err := w.openBelow(fd, toCname(part))
		done()
		if err != nil {
			return -1, nil, err
		}
		fd, done = next, func() { closeFD(next) }
	}
	return fd, done, nil
}

// symlink makes a symbolic link, whatever it points to.
func (w *writing) symlink(h *tarx.Header, dir *target, name cname) error {
	if err := unix.Symlinkat(h.Link, dir.fd, name.String()); err != nil {
		return w.explain(exists(err))
	}
	if err := w.applyTo(h, dir, name); err != nil {
		return err
	}
	return w.line(h)
}

// device makes a device or a FIFO.
func (w *writing) device(h *tarx.Header, dir *target, name cname) error {
	mode, dev := uint32(unix.S_IFIFO), 0
	if h.Type != tarx.TypeFIFO {
		w.result.Devices++
		if mode = unix.S_IFCHR; h.Type == tarx.TypeBlock {
			mode = unix.S_IFBLK
		}
		dev = int(unix.Mkdev(uint32(h.Major), uint32(h.Minor)))
		if w.opts.NoDevices {
			w.notes.add(entryPath(h.Name), "unsupported", "devices are left out")
			return w.line(h)
		}
	}
	if err := unix.Mknodat(dir.fd, name.String(), mode|0o600, dev); err != nil {
		if errors.Is(err, unix.EEXIST) || !unsupported(err) {
			return w.explain(exists(err))
		}
		if err := w.refused(h, "device", err); err != nil {
			return err
		}
		return w.line(h)
	}
	if err := w.applyTo(h, dir, name); err != nil {
		return err
	}
	return w.line(h)
}

// applyTo is apply for what cannot be opened.
func (w *writing) applyTo(h *tarx.Header, dir *target, name cname) error {
	if len(w.opts.Map) > 0 {
		own := *h
		w.mapOwner(&own)
		h = &own
	}
	if err := unix.Fchownat(dir.fd, name.String(), int(h.UID), int(h.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err := w.refused(h, "owner", err); err != nil {
			return err
		}
	}
	set := func(attr, value string) error {
		return unix.Lsetxattr(procPath(dir.fd, name), attr, []byte(value), 0)
	}
	if err := w.setXattrs(h, false, set); err != nil {
		return err
	}
	if h.Type != tarx.TypeSymlink {
		if err := chmodNode(dir.fd, name, uint32(h.Mode&07777)); err != nil {
			if err := w.refused(h, "mode", err); err != nil {
				return err
			}
		}
		if err := w.setXattrs(h, true, set); err != nil {
			return err
		}
	}
	if err := setTime(dir.fd, name, h.ModTime); err != nil {
		return w.refused(h, "time", err)
	}
	return nil
}

// chmodNode sets the mode of a device or FIFO, and of nothing that a link points to.
func chmodNode(dir int, name cname, mode uint32) error {
	fd, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	return unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode)
}

// mapOwner changes the ids of an entry as the options say, those in its ACLs too.
func (w *writing) mapOwner(h *tarx.Header) {
	h.UID = mapID(w.opts.Map, 'u', h.UID)
	h.GID = mapID(w.opts.Map, 'g', h.GID)
	for _, name := range []string{xattrACLAccess, xattrACLDefault} {
		value, ok := h.Xattrs[name]
		if !ok {
			continue
		}
		if mapped := mapACL(w.opts.Map, value); mapped != value {
			h.Xattrs = maps.Clone(h.Xattrs)
			h.Xattrs[name] = mapped
		}
	}
}

// The kernel's form of an ACL: a version, then entries of tag, permissions and id, all
// little-endian; the tags of named users and groups.
const (
	aclHead, aclEntry  = 4, 8
	aclUser, aclGroups = 0x02, 0x08
)

func mapACL(ranges []IDRange, value string) string {
	b := []byte(value)
	for at := aclHead; at+aclEntry <= len(b); at += aclEntry {
		kind := byte('u')
		switch binary.LittleEndian.Uint16(b[at:]) {
		case aclUser:
		case aclGroups:
			kind = 'g'
		default:
			continue
		}
		id := b[at+4 : at+8]
		binary.LittleEndian.PutUint32(id, uint32(mapID(ranges, kind, int64(binary.LittleEndian.Uint32(id)))))
	}
	return string(b)
}

// single writes a tree that is one file over an existing file, which stays the same
// inode: it may be mounted.
func (w *writing) single() error {
	fd, err := unix.Open(w.root, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", w.root, err)
	}
	defer closeFD(fd)
	var st unix.Statx_t
	if err := w.stat(fd, emptyName, &st); err != nil {
		return fmt.Errorf("look at %s: %w", w.root, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("write to %s: it is no file", w.root)
	}
	h, err := w.tar.Next()
	if errors.Is(err, io.EOF) {
		return errors.New("the data holds no file")
	}
	if err != nil {
		return err
	}
	if err := w.limits(h); err != nil {
		return err
	}
	if h.Type != tarx.TypeFile {
		return fmt.Errorf("%w: %q is no file, but the target is one", ErrUnsafe, h.Name)
	}
	if err := unix.Ftruncate(fd, 0); err != nil {
		return fmt.Errorf("empty %s: %w", w.root, err)
	}
	b := &batch{items: []entry{{h: h}}}
	pieces, free := make(chan piece, bigBuffers), make(chan []byte, bigBuffers)
	for range bigBuffers {
		free <- nil
	}
	read := make(chan error, 1)
	go func() {
		read <- w.read(h, pieces, free)
		close(pieces)
	}()
	err = w.pieces(fd, h, pieces, free, b)
	if rerr := <-read; err == nil {
		err = rerr
	}
	if err == nil {
		err = w.apply(fd, h)
	}
	if err == nil {
		err = unix.Fsync(fd)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", w.root, w.explain(err))
	}
	if more, err := w.tar.Next(); err == nil {
		return fmt.Errorf("%w: %q comes after the only file", ErrUnsafe, more.Name)
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	if w.opts.NoSums {
		return nil
	}
	b.addLines(w, &b.items[0])
	w.sums.tree.Write(b.lines.tree)
	w.sums.contents.Write(b.lines.contents)
	w.result.Sums = w.sums.sums()
	if w.mapped != nil {
		w.mapped.tree.Write(b.mapped.tree)
		w.result.Mapped = w.mapped.sums().Hash
	}
	return nil
}
