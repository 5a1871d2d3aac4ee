package volume

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup/tarx"
)

const (
	// chunkSize is how much tar goes to the framer at once. A reader holds two chunks.
	chunkSize = 512 << 10
	// holesFrom is the size from which a file is asked for its holes.
	holesFrom = 64 << 10
)

// reader is one of the goroutines that read files.
type reader struct {
	*reading
	ctx    context.Context
	job    *job
	c      *chunk
	digest *Digest
	hex    []byte
	attrs  []byte // scratch for names and values of attributes
	header tarx.Header
	names  []byte
}

// errStopped says that nobody wants the rest.
var errStopped = errors.New("reading was stopped")

func newReader(r *reading) *reader {
	rd := &reader{reading: r, digest: NewDigest()}
	rd.take()
	return rd
}

// jobs takes jobs until there are no more.
func (r *reader) jobs(ctx context.Context) {
	r.ctx = ctx
	for j := range r.work {
		r.job = j
		for i := range j.items {
			it := &j.items[i]
			if j.err == nil {
				j.err = r.item(it)
			}
			it.release()
		}
		if j.err == nil {
			j.err = r.emit(false)
		}
		if j.err != nil {
			r.c.reset()
		}
		j.items = nil
		close(j.out)
		r.underWay.Done()
	}
}

// take gets an empty chunk.
func (r *reader) take() {
	select {
	case r.c = <-r.free:
		r.c.reset()
	default:
		r.c = &chunk{}
		if !r.bare {
			r.c.buf = make([]byte, 0, chunkSize+4<<10)
		}
	}
}

// emit sends the current chunk, unless it is empty, and takes another.
func (r *reader) emit(last bool) error {
	c := r.c
	c.last = last
	if len(c.buf) == 0 && c.entries == 0 && c.data == 0 && c.link == nil && !last {
		return nil
	}
	select {
	case r.job.out <- c:
	case <-r.ctx.Done():
		return errStopped
	}
	r.take()
	return nil
}

// item reads one entry.
func (r *reader) item(it *item) error {
	if r.ctx.Err() != nil {
		return errStopped
	}
	switch {
	case it.self != nil && it.typ != unix.DT_REG:
		return r.folder(it)
	case it.self != nil:
		return r.file(it, it.self.fd, &it.self.st)
	case it.typ == unix.DT_REG:
		fd, err := r.open(it.dir.fd, it.name, 0)
		if err != nil {
			return r.unreadable(it.path(), "open", err)
		}
		defer closeFD(fd)
		var st unix.Statx_t
		if err := r.stat(fd, emptyName, &st); err != nil {
			return r.unreadable(it.path(), "look at", err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			r.notes.add(it.path(), "vanished", "something else took its place while the tree was read")
			return nil
		}
		return r.file(it, fd, &st)
	default:
		return r.special(it)
	}
}

func (it *item) path() string {
	if it.dir == nil {
		return singleName
	}
	return it.dir.path(it.name.String())
}

// fill fills in what all entries have.
func (r *reader) fill(h *tarx.Header, name string, typ byte, st *unix.Statx_t) {
	*h = tarx.Header{
		Name: name, Type: typ, Mode: int64(st.Mode & 07777),
		UID: int64(st.Uid), GID: int64(st.Gid), ModTime: mtimeOf(st),
	}
}

// folder reads the entry of a folder; its descriptor is open.
func (r *reader) folder(it *item) error {
	f := it.self
	name := f.path("")
	if name == "" {
		name = "./"
	}
	h := &r.header
	r.fill(h, name, tarx.TypeFolder, &f.st)
	if err := r.xattrs(h, fdAttrs(f.fd)); err != nil {
		return err
	}
	// Only folders are asked for all flags: their files have them from them, mostly.
	if flags, err := unix.IoctlGetUint32(f.fd, unix.FS_IOC_GETFLAGS); err == nil {
		r.noteFlags(entryPath(name), flags)
	}
	return r.whole(h, nil)
}

// whole adds an entry that has no content.
func (r *reader) whole(h *tarx.Header, digest []byte) error {
	if err := r.begin(h); err != nil {
		return err
	}
	r.end(h, digest)
	if len(r.c.buf) >= chunkSize/2 {
		return r.emit(false)
	}
	return nil
}

// begin appends the headers of an entry.
func (r *reader) begin(h *tarx.Header) error {
	if r.bare {
		return nil
	}
	r.c.starts = append(r.c.starts, len(r.c.buf))
	var err error
	r.c.buf, err = tarx.AppendHeader(r.c.buf, h)
	return err
}

// end completes an entry.
func (r *reader) end(h *tarx.Header, digest []byte) {
	c := r.c
	c.entries++
	if h.Type == tarx.TypeFile {
		c.files++
		c.bytes += h.Size
	}
	c.lines.add(h, digest, !r.bare)
	noteSpecial(&c.special, h)
}

// special reads the entry of what is neither a file nor a folder.
func (r *reader) special(it *item) error {
	var st unix.Statx_t
	if err := r.stat(it.dir.fd, it.name, &st); err != nil {
		return r.unreadable(it.path(), "look at", err)
	}
	path := it.path()
	if r.elsewhere(&st) {
		r.notes.add(path, "mount", "another file is mounted here")
		return nil
	}
	h := &r.header
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG: // the file system does not tell types in folders
		it.typ = unix.DT_REG
		return r.item(it)
	case unix.S_IFSOCK:
		r.notes.add(path, "socket", "sockets are made anew by who listens on them")
		return nil
	case unix.S_IFLNK:
		r.fill(h, path, tarx.TypeSymlink, &st)
		target, err := r.readlink(it, int(st.Size))
		if err != nil {
			return r.unreadable(path, "read link", err)
		}
		h.Link = target
	case unix.S_IFIFO:
		r.fill(h, path, tarx.TypeFIFO, &st)
	case unix.S_IFCHR:
		r.fill(h, path, tarx.TypeChar, &st)
		h.Major, h.Minor = int64(st.Rdev_major), int64(st.Rdev_minor)
	case unix.S_IFBLK:
		r.fill(h, path, tarx.TypeBlock, &st)
		h.Major, h.Minor = int64(st.Rdev_major), int64(st.Rdev_minor)
	default:
		r.notes.add(path, "vanished", "something else took its place while the tree was read")
		return nil
	}
	if err := r.xattrs(h, pathAttrs(procPath(it.dir.fd, it.name))); err != nil {
		return err
	}
	if st.Nlink < 2 {
		return r.whole(h, nil)
	}
	if err := r.link(h, &st); err != nil {
		return err
	}
	if !r.c.link.follows {
		if err := r.begin(h); err != nil {
			return err
		}
		r.end(h, nil)
	}
	return r.emit(true)
}

func (r *reader) readlink(it *item, size int) (string, error) {
	for size = max(size+1, 128); ; size *= 2 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(it.dir.fd, it.name.String(), buf)
		if err != nil {
			return "", err
		}
		if n < len(buf) {
			return string(buf[:n]), nil
		}
	}
}

// link begins a chunk of its own for an entry with several names. Where an earlier job
// has the content, this one does not read it.
func (r *reader) link(h *tarx.Header, st *unix.Statx_t) error {
	if err := r.emit(false); err != nil {
		return err
	}
	key := keyOf(st)
	r.mu.Lock()
	seq, claimed := r.claims[key]
	if !claimed || r.job.seq < seq {
		r.claims[key] = r.job.seq
	}
	r.mu.Unlock()
	own := *h
	// A second name in the same job comes later too.
	r.c.link = &linked{key: key, nlink: st.Nlink, header: &own, follows: claimed && seq <= r.job.seq}
	return nil
}

// file reads a file.
func (r *reader) file(it *item, fd int, st *unix.Statx_t) error {
	path := it.path()
	if it.dir != nil && r.elsewhere(st) {
		r.notes.add(path, "mount", "another file is mounted here")
		return nil
	}
	h := &r.header
	r.fill(h, path, tarx.TypeFile, st)
	h.Size = int64(st.Size)
	if err := r.xattrs(h, fdAttrs(fd)); err != nil {
		return err
	}
	r.noteAttributes(path, st)
	if r.opts.hooks.opened != nil {
		r.opts.hooks.opened(path)
	}
	if st.Nlink > 1 && it.dir != nil {
		if err := r.link(h, st); err != nil {
			return err
		}
		if r.c.link.follows {
			return r.emit(true)
		}
	}
	if h.Size >= holesFrom && int64(st.Blocks)*512 < h.Size {
		h.Data = holes(fd, h.Size)
	}
	several := r.c.link != nil
	if err := r.begin(h); err != nil {
		return err
	}
	digest, err := r.content(fd, h)
	if err != nil {
		return err
	}
	var now unix.Statx_t
	if err := r.stat(fd, emptyName, &now); err != nil {
		r.notes.add(path, "changed", fmt.Sprintf("it cannot be looked at again: %v", err))
	} else if !sameVersion(st, &now) {
		r.notes.add(path, "changed", changeText(st, &now))
	}
	r.end(h, digest)
	if several || len(r.c.buf) >= chunkSize/2 {
		return r.emit(several)
	}
	return nil
}

func changeText(before, after *unix.Statx_t) string {
	switch {
	case after.Size > before.Size:
		return "it grew while it was read"
	case after.Size < before.Size:
		return "it shrank while it was read"
	}
	return "it was written to while it was read"
}
