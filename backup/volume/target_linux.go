package volume

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup/tarx"
)

// whileWriting is the mode of folders until everything is in them: nobody else comes in.
const whileWriting = 0o700

// target is one folder that is being written.
type target struct {
	name string // "" for the root
	fd   int    // -1 while it is closed
	// refs counts the stack and the files that are still to be written into it.
	refs atomic.Int32
	key  fileKey
	// header says what the folder will be like; nil where no entry has said that.
	header *tarx.Header
	// was is what it is like where it was there before: the root, or a folder that the
	// stream comes back to. Its default ACL is taken off meanwhile, as files would take
	// it over.
	was        *unix.Statx_t
	defaultACL string
	// finish says that it has left the stack: the last reference sets its attributes.
	finish atomic.Bool
}

// release gives up one reference; the last one finishes the folder.
func (t *target) release(w *writing) {
	if t.refs.Add(-1) > 0 {
		return
	}
	if t.finish.Load() {
		if err := w.finishFolder(t); err != nil {
			w.fail(fmt.Errorf("finish folder %q: %w", t.name, w.explain(err)))
		}
	}
	closeFD(t.fd)
}

// open opens the root, which must be empty.
func (w *writing) open() error {
	fd, err := unix.Open(w.root, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", w.root, err)
	}
	empty, err := emptyFolder(fd)
	if err == nil && !empty {
		err = ErrNotEmpty
	}
	t := &target{fd: fd, was: &unix.Statx_t{}}
	if err == nil {
		err = w.stat(fd, emptyName, t.was)
	}
	if err != nil {
		closeFD(fd)
		return fmt.Errorf("write to %s: %w", w.root, err)
	}
	t.key = keyOf(t.was)
	t.refs.Store(1)
	w.takeDefaultACL(t)
	// Nobody shall find files with the rights of others before all is done. Where that
	// is not allowed, it is as it was.
	_ = unix.Fchmod(fd, whileWriting)
	w.stack = append(w.stack, t)
	return nil
}

// emptyFolder reports whether there is nothing in a folder.
func emptyFolder(fd int) (bool, error) {
	names, err := readNames(fd, make([]byte, 64<<10))
	if err != nil {
		return false, err
	}
	for i := range names.names {
		if names.name(i).String() != lostFound {
			return false, nil
		}
	}
	return true, nil
}

// enter makes the folder of the given components the current one. Missing ones are
// made; own says that the last one has the entry at hand.
func (w *writing) enter(parts []string, own bool) error {
	same := 0
	for same < len(parts) && same+1 < len(w.stack) && w.stack[same+1].name == parts[same] {
		same++
	}
	for len(w.stack) > same+1 {
		if err := w.back(); err != nil {
			return err
		}
	}
	for i, part := range parts[same:] {
		if err := w.descend(part, own && i == len(parts)-same-1); err != nil {
			return err
		}
	}
	return nil
}

// descend opens a folder in the current one, and makes it where it is missing.
func (w *writing) descend(part string, own bool) error {
	up := w.stack[len(w.stack)-1]
	name := toCname(part)
	err := unix.Mkdirat(up.fd, part, whileWriting)
	made := err == nil
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make folder %q: %w", part, w.explain(err))
	}
	if made && !own {
		// Folders that have no entry of their own count too.
		if w.result.Entries++; w.opts.MaxEntries > 0 && w.result.Entries > w.opts.MaxEntries {
			return fmt.Errorf("%w: more than %d entries", ErrTooMuch, w.opts.MaxEntries)
		}
	}
	if !made {
		// Where it was left before, files may still be on their way into it: it is looked at
		// when it is finished, so that it ends as its entry says.
		if err := w.drain(); err != nil {
			return err
		}
	}
	fd, err := w.openBelow(up.fd, name)
	if err != nil {
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return fmt.Errorf("%w: %q is there already and no folder", ErrUnsafe, part)
		}
		return fmt.Errorf("open folder %q: %w", part, err)
	}
	t := &target{name: part, fd: fd}
	t.refs.Store(1)
	var st unix.Statx_t
	if err := w.stat(fd, emptyName, &st); err != nil {
		t.release(w)
		return fmt.Errorf("look at folder %q: %w", part, err)
	}
	if st.Mask&w.stack[0].was.Mask&unix.STATX_MNT_ID != 0 && st.Mnt_id != w.stack[0].was.Mnt_id {
		t.release(w)
		return fmt.Errorf("%w: something is mounted at %q", ErrUnsafe, part)
	}
	t.key = keyOf(&st)
	if !made {
		t.was = &st
		w.takeDefaultACL(t)
	}
	w.stack = append(w.stack, t)
	return w.closeFar()
}

// closeFar closes what is far above, but for the root. A folder that files are still on
// their way into stays open; before there are too many of those, they are waited for.
func (w *writing) closeFar() error {
	n := len(w.stack) - openFolders
	if n <= 1 {
		return nil
	}
	far := func(t *target) bool {
		if t.fd >= 0 && t.refs.Load() > 1 {
			return false
		}
		if t.fd >= 0 {
			closeFD(t.fd)
			t.fd = -1
		}
		return true
	}
	if far(w.stack[n-1]) {
		return nil
	}
	if w.lag++; w.lag < openFolders {
		return nil
	}
	w.lag = 0
	if err := w.drain(); err != nil {
		return err
	}
	for _, t := range w.stack[1:n] {
		far(t)
	}
	return nil
}

// openBelow opens a folder by its plain name and follows nothing.
func (w *writing) openBelow(dir int, name cname) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW
	if !w.noOpenat2.Load() {
		fd, err := unix.Openat2(dir, name.String(), &unix.OpenHow{
			Flags:   flags | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
		})
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			// The plain way below is as safe for a single component.
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
			w.noOpenat2.Store(true)
		default:
			return fd, err
		}
	}
	return openat(dir, name, flags, 0)
}

// back leaves the current folder.
func (w *writing) back() error {
	n := len(w.stack) - 1
	done, up := w.stack[n], w.stack[n-1]
	if up.fd < 0 {
		fd, err := openat(done.fd, toCname(".."), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return fmt.Errorf("go back to folder %q: %w", up.name, err)
		}
		var st unix.Statx_t
		if err = w.stat(fd, emptyName, &st); err == nil && keyOf(&st) != up.key {
			err = errors.New("it was moved meanwhile")
		}
		if err != nil {
			closeFD(fd)
			return fmt.Errorf("go back to folder %q: %w", up.name, err)
		}
		up.fd = fd
	}
	w.pop(true)
	return nil
}

// pop takes the current folder off the stack. It is finished when the last file is in it.
func (w *writing) pop(finish bool) {
	n := len(w.stack) - 1
	done := w.stack[n]
	w.stack[n] = nil
	w.stack = w.stack[:n]
	if done.fd < 0 {
		return // closed meanwhile, after an error
	}
	done.finish.Store(finish)
	done.release(w)
}

// takeDefaultACL takes off the ACL that new files would take over.
func (w *writing) takeDefaultACL(t *target) {
	buf := make([]byte, 256)
	n, err := unix.Fgetxattr(t.fd, xattrACLDefault, buf)
	if errors.Is(err, unix.ERANGE) {
		buf = make([]byte, tarx.MaxXattr)
		n, err = unix.Fgetxattr(t.fd, xattrACLDefault, buf)
	}
	if err != nil || n == 0 {
		return
	}
	t.defaultACL = string(buf[:n])
	// Where it cannot be taken off, files are given their own ACLs all the same.
	_ = unix.Fremovexattr(t.fd, xattrACLDefault)
}

// finishFolder gives a folder its owner, mode, attributes and time.
func (w *writing) finishFolder(t *target) error {
	h := t.header
	switch {
	case h != nil:
		return w.apply(t.fd, h)
	case t.was != nil:
		if t.defaultACL != "" {
			if err := unix.Fsetxattr(t.fd, xattrACLDefault, []byte(t.defaultACL), 0); err != nil {
				return err
			}
		}
		if err := unix.Fchmod(t.fd, uint32(t.was.Mode&07777)); err != nil && !unsupported(err) {
			return err
		}
		return setTime(t.fd, nil, mtimeOf(t.was))
	default:
		return unix.Fchmod(t.fd, 0o755)
	}
}
