package volume

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup/tarx"
)

// bigBuffers is how many buffers of a large file are on their way from the stream.
const bigBuffers = 4

// createFlags make a file anew, and never go through a symbolic link.
const createFlags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW

// file takes a file off the stream.
func (w *writing) file(h *tarx.Header, dir *target, name cname) error {
	size := h.PayloadSize()
	if size > batchBytes || h.Data != nil {
		return w.big(h, dir, name)
	}
	if w.cur != nil && len(w.cur.buf)+int(size) > batchBytes {
		if err := w.flush(); err != nil {
			return err
		}
	}
	b := w.batch()
	from := len(b.buf)
	b.buf = grow(b.buf, int(size))
	if _, err := io.ReadFull(w.tar, b.buf[from:]); err != nil {
		return cutOff(err)
	}
	return w.put(entry{h: h, dir: dir, name: name, from: from})
}

// cutOff is err, where an end of the stream comes too early.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// small writes a file of a batch.
func (w *writing) small(b *batch, e *entry) error {
	fd, err := openat(e.dir.fd, e.name, createFlags, 0o600)
	if err != nil {
		return exists(err)
	}
	p := b.buf[e.from : e.from+int(e.h.Size)]
	err = pwriteAll(fd, p, 0)
	if err == nil {
		err = w.apply(fd, e.h)
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if !w.opts.NoSums {
		sum := sha256.Sum256(p)
		e.digest = hex.AppendEncode(nil, sum[:])
	}
	w.written.Add(e.h.Size)
	return err
}

// exists explains what it means that something is there already.
func exists(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("%w: the name is there twice", ErrUnsafe)
	}
	return err
}

// piece is a run of content of a large file.
type piece struct {
	p  []byte
	at int64
}

// big writes a file that does not fit into a batch: reading the stream and writing the
// file go on at the same time.
func (w *writing) big(h *tarx.Header, dir *target, name cname) error {
	if err := w.flush(); err != nil {
		return err
	}
	fd, err := openat(dir.fd, name, createFlags, 0o600)
	if err != nil {
		return w.explain(exists(err))
	}
	dir.refs.Add(1)
	b := &batch{big: true, done: make(chan struct{}), items: []entry{{h: h}}}
	if err := w.hand(b); err != nil {
		closeFD(fd)
		dir.release(w)
		return err
	}
	pieces, free := make(chan piece, bigBuffers), make(chan []byte, bigBuffers)
	for range bigBuffers {
		free <- nil
	}
	complete := false
	go func() {
		defer w.pending.Done()
		err := w.pieces(fd, h, pieces, free, b)
		if err == nil && complete {
			err = w.apply(fd, h)
		}
		if cerr := unix.Close(fd); err == nil {
			err = cerr
		}
		if err != nil {
			w.fail(fmt.Errorf("write %q: %w", h.Name, w.explain(err)))
		}
		dir.release(w)
		b.addLines(w, &b.items[0])
		close(b.done)
	}()
	err = w.read(h, pieces, free)
	complete = err == nil
	close(pieces)
	return err
}

// extents are the runs of a file that are stored.
func extents(h *tarx.Header) []tarx.Extent {
	if h.Data != nil {
		return h.Data
	}
	return []tarx.Extent{{Length: h.Size}}
}

// read takes the content of a large file off the stream.
func (w *writing) read(h *tarx.Header, pieces chan<- piece, free <-chan []byte) error {
	for _, e := range extents(h) {
		for at := e.Offset; at < e.Offset+e.Length; {
			var buf []byte
			select {
			case buf = <-free:
			case <-w.ctx.Done():
				return w.ctx.Err()
			}
			if buf == nil {
				buf = make([]byte, batchBytes)
			}
			p := buf[:min(int64(len(buf)), e.Offset+e.Length-at)]
			if _, err := io.ReadFull(w.tar, p); err != nil {
				return cutOff(err)
			}
			pieces <- piece{p, at}
			at += int64(len(p))
		}
	}
	return nil
}

// pieces writes the content of a large file.
func (w *writing) pieces(fd int, h *tarx.Header, pieces <-chan piece, free chan<- []byte, b *batch) error {
	d := NewDigest()
	pos, sent := int64(0), int64(0)
	var err error
	if h.Data != nil {
		err = unix.Ftruncate(fd, h.Size)
	}
	for c := range pieces {
		if err == nil {
			if !w.opts.NoSums {
				d.Zeros(c.at - pos)
				d.add(c.p)
			}
			pos = c.at + int64(len(c.p))
			if err = pwriteAll(fd, c.p, c.at); err != nil {
				w.cancel(fmt.Errorf("write %q: %w", h.Name, w.explain(err)))
			}
			w.written.Add(int64(len(c.p)))
			if pos-sent >= flushEvery {
				// Only a hint: the sync at the end has less to wait for.
				_ = unix.SyncFileRange(fd, sent, pos-sent, unix.SYNC_FILE_RANGE_WRITE)
				sent = pos
			}
		}
		free <- c.p[:cap(c.p)]
	}
	if !w.opts.NoSums {
		d.Zeros(h.Size - pos)
		b.items[0].digest = d.Append(nil)
	}
	return err
}

// apply sets what a file or folder has beside its content, in an order in which no step
// undoes the one before: owners clear capabilities and setuid bits, modes change ACLs.
func (w *writing) apply(fd int, h *tarx.Header) error {
	if len(w.opts.Map) > 0 {
		own := *h
		w.mapOwner(&own)
		h = &own
	}
	if err := unix.Fchown(fd, int(h.UID), int(h.GID)); err != nil {
		if err := w.refused(h, "owner", err); err != nil {
			return err
		}
	}
	set := func(name, value string) error { return unix.Fsetxattr(fd, name, []byte(value), 0) }
	if err := w.setXattrs(h, false, set); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, uint32(h.Mode&07777)); err != nil {
		if err := w.refused(h, "mode", err); err != nil {
			return err
		}
	}
	if err := w.setXattrs(h, true, set); err != nil {
		return err
	}
	if err := setTime(fd, nil, h.ModTime); err != nil {
		return w.refused(h, "time", err)
	}
	return nil
}

// refused decides about what the target does not take.
func (w *writing) refused(h *tarx.Header, what string, err error) error {
	if w.opts.Strict || !unsupported(err) {
		return fmt.Errorf("set %s: %w", what, err)
	}
	w.notes.add(entryPath(h.Name), "unsupported", fmt.Sprintf("%s is not set: %v", what, err))
	return nil
}

// setXattrs sets the ACLs, or all other attributes.
func (w *writing) setXattrs(h *tarx.Header, acls bool, set func(name, value string) error) error {
	for name, value := range h.Xattrs {
		if acl := name == xattrACLAccess || name == xattrACLDefault; acl != acls {
			continue
		}
		if !w.settable(name) {
			continue
		}
		if err := set(name, value); err != nil {
			if err := w.refused(h, fmt.Sprintf("attribute %q", name), err); err != nil {
				return err
			}
		}
	}
	return nil
}

// settable reports whether an attribute is set at all. Labels belong to a host, and of
// what other programs may have put into an archive only known kinds are set.
func (w *writing) settable(name string) bool {
	if strings.HasPrefix(name, "security.") && name != xattrCapability {
		return w.opts.Labels && wanted(name)
	}
	return wanted(name)
}

// setTime sets the time of name in dir, or of dir itself where name is nil.
func setTime(dir int, name cname, t time.Time) error {
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return unix.EINVAL
	}
	times := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, ts}
	var path unsafe.Pointer
	flags := 0
	if name != nil {
		path = unsafe.Pointer(&name[0]) //nolint:gosec // the kernel reads up to the NUL
		flags = unix.AT_SYMLINK_NOFOLLOW
	}
	return retry(func() syscall.Errno {
		_, _, errno := syscall.Syscall6(unix.SYS_UTIMENSAT, uintptr(dir), uintptr(path),
			uintptr(unsafe.Pointer(&times)), uintptr(flags), 0, 0) //nolint:gosec // two times, as the kernel wants
		return errno
	})
}
