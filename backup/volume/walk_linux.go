package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// jobItems is how many entries a reader takes at once: enough that handing them over
	// costs little beside opening them.
	jobItems = 32
	// openFolders is how many folders above the current one stay open. Those above are
	// opened again on the way back.
	openFolders = 64
	// maxPath bounds the length of a path; the kernel knows no bound.
	maxPath = 1 << 20
)

// folder is one folder that is being read.
type folder struct {
	parent *folder
	name   string // "" for the root
	fd     int    // -1 while it is closed
	// refs counts the walker and the jobs that need fd; the last one closes it.
	refs   atomic.Int32
	st     unix.Statx_t
	length int // of the path, with a slash at its end
}

func (f *folder) release() {
	if f.refs.Add(-1) == 0 {
		closeFD(f.fd)
	}
}

// path is the path of name in f.
func (f *folder) path(name string) string {
	b := make([]byte, f.length+len(name))
	copy(b[f.length:], name)
	for ; f.parent != nil; f = f.parent {
		b[f.length-1] = '/'
		copy(b[f.parent.length:], f.name)
	}
	return string(b)
}

// item is one entry to be read.
type item struct {
	dir  *folder // that it is in
	self *folder // the folder itself, else nil
	name cname
	typ  uint8
}

// job is some entries that follow each other.
type job struct {
	seq   int64
	items []item
	// out gives the chunks in order; closed at the end, or after err is set.
	out chan *chunk
	err error
}

// level is one folder above the current entry.
type level struct {
	dir     *folder
	names   *listing
	next    int
	exclude *filter
	only    *filter
}

// walker finds all entries in order and makes jobs of them.
type walker struct {
	*reading
	ctx   context.Context
	stack []level
	cur   *job
	seq   int64
	buf   []byte
	lag   int // folders far above that were still open when they should have been closed
}

// filter is a set of paths as a tree.
type filter struct {
	sub map[string]*filter
	// end says that a path ends here; reason why it was given.
	end    bool
	reason string
}

func newFilter(paths map[string]string) *filter {
	if len(paths) == 0 {
		return nil
	}
	root := &filter{}
	for path, reason := range paths {
		at := root
		for part := range strings.SplitSeq(path, "/") {
			if part == "" || part == "." {
				continue
			}
			if at.sub == nil {
				at.sub = map[string]*filter{}
			}
			if at.sub[part] == nil {
				at.sub[part] = &filter{}
			}
			at = at.sub[part]
		}
		at.end, at.reason = true, reason
	}
	return root
}

// below is the filter for what is in name; nil where no path leads there.
func (f *filter) below(name cname) *filter {
	if f == nil {
		return nil
	}
	return f.sub[string(name[:len(name)-1])]
}

// walk sends jobs for the tree at root, whose descriptor it takes.
func (w *walker) walk(root *folder) error {
	defer func() {
		for _, l := range w.stack {
			if l.dir.fd >= 0 {
				l.dir.release()
			}
		}
	}()
	only := map[string]string{}
	for _, path := range w.opts.Only {
		only[path] = ""
	}
	top := level{dir: root, exclude: newFilter(w.opts.Exclude), only: newFilter(only)}
	if top.only != nil && top.only.end {
		top.only = nil // "." is everything
	}
	w.stack = append(w.stack, top)
	if err := w.add(item{self: root, name: emptyName}); err != nil {
		return err
	}
	if err := w.list(); err != nil {
		return err
	}
	for len(w.stack) > 0 {
		l := &w.stack[len(w.stack)-1]
		if l.next == len(l.names.names) {
			if err := w.pop(); err != nil {
				return err
			}
			continue
		}
		i := l.next
		l.next++
		if err := w.entry(l, l.names.name(i), l.names.names[i].typ); err != nil {
			return err
		}
	}
	return w.flush()
}

// list reads the names in the current folder.
func (w *walker) list() error {
	l := &w.stack[len(w.stack)-1]
	names, err := readNames(l.dir.fd, w.buf)
	if err != nil {
		l.names = &listing{}
		return w.unreadable(l.dir.path(""), "list folder", err)
	}
	l.names = names
	if w.opts.hooks.listed != nil {
		w.opts.hooks.listed(l.dir.path(""))
	}
	return nil
}

// entry takes on one name in the current folder.
func (w *walker) entry(l *level, name cname, typ uint8) error {
	exclude, only := l.exclude.below(name), l.only
	if exclude != nil && exclude.end {
		w.notes.add(l.dir.path(name.String()), "excluded", exclude.reason)
		return nil
	}
	if only != nil {
		if only = l.only.below(name); only == nil {
			return nil
		}
		if only.end {
			only = nil // and everything below
		}
	}
	if l.dir.length+len(name) > maxPath {
		return w.unreadable(l.dir.path(name.String()), "read", unix.ENAMETOOLONG)
	}
	if typ == unix.DT_UNKNOWN {
		var st unix.Statx_t
		if err := w.stat(l.dir.fd, name, &st); err != nil {
			return w.unreadable(l.dir.path(name.String()), "look at", err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			typ = unix.DT_DIR
		}
	}
	if typ == unix.DT_DIR {
		return w.push(level{exclude: exclude, only: only}, l.dir, name)
	}
	return w.add(item{dir: l.dir, name: name, typ: typ})
}

// push opens a folder and descends into it.
func (w *walker) push(l level, parent *folder, name cname) error {
	fd, err := w.openFolder(parent.fd, name)
	if err != nil {
		return w.unreadable(parent.path(name.String()), "open folder", err)
	}
	f := &folder{parent: parent, name: name.String(), fd: fd, length: parent.length + len(name)}
	f.refs.Store(1)
	if err := w.stat(fd, emptyName, &f.st); err != nil {
		f.release()
		return w.unreadable(f.path(""), "look at folder", err)
	}
	if w.mounted(&f.st) {
		w.notes.add(strings.TrimSuffix(f.path(""), "/"), "mount", "another file system is mounted here")
		f.release()
		return nil
	}
	l.dir = f
	w.stack = append(w.stack, l)
	if err := w.list(); err != nil {
		return err
	}
	if parent.parent == nil && f.name == lostFound && len(w.stack[len(w.stack)-1].names.names) == 0 {
		w.stack = w.stack[:len(w.stack)-1]
		f.release()
		return nil
	}
	if err := w.add(item{dir: parent, self: f, name: name, typ: unix.DT_DIR}); err != nil {
		return err
	}
	return w.closeFar()
}

// closeFar closes what is far above. A folder whose entries are still to be read stays
// open; before there are too many of those, the readers are waited for.
func (w *walker) closeFar() error {
	n := len(w.stack) - openFolders
	if n <= 0 {
		return nil
	}
	far := func(f *folder) bool {
		if f.fd >= 0 && f.refs.Load() > 1 {
			return false
		}
		if f.fd >= 0 {
			closeFD(f.fd)
			f.fd = -1
		}
		return true
	}
	if far(w.stack[n-1].dir) {
		return nil
	}
	if w.lag++; w.lag < openFolders {
		return nil
	}
	w.lag = 0
	if err := w.flush(); err != nil {
		return err
	}
	w.underWay.Wait()
	for _, l := range w.stack[:n] {
		far(l.dir)
	}
	return nil
}

// elsewhere reports whether something belongs to another mount, as far as the kernel
// tells.
func (r *reading) elsewhere(st *unix.Statx_t) bool {
	return st.Mask&r.root.Mask&unix.STATX_MNT_ID != 0 && st.Mnt_id != r.root.Mnt_id
}

// mounted reports whether a folder is where another file system is mounted. The device
// tells that where the kernel tells no mounts; otherwise it is no sign: a subvolume has
// its own, and so have files in overlays.
func (r *reading) mounted(st *unix.Statx_t) bool {
	if st.Mask&r.root.Mask&unix.STATX_MNT_ID != 0 {
		return r.elsewhere(st)
	}
	return devOf(st) != devOf(&r.root)
}

// pop goes back to the folder above.
func (w *walker) pop() error {
	n := len(w.stack) - 1
	done := w.stack[n].dir
	w.stack[n] = level{}
	w.stack = w.stack[:n]
	defer done.release()
	if n == 0 || w.stack[n-1].dir.fd >= 0 {
		return nil
	}
	up := w.stack[n-1].dir
	fd, err := w.openFolder(done.fd, toCname(".."))
	if err == nil {
		var st unix.Statx_t
		if err = w.stat(fd, emptyName, &st); err == nil && keyOf(&st) == keyOf(&up.st) {
			up.fd = fd
			return nil
		}
		closeFD(fd)
	}
	if err == nil {
		err = errors.New("it was moved meanwhile")
	}
	return fmt.Errorf("go back to folder %q: %w", up.path(""), err)
}

// add puts an entry into the current job.
func (w *walker) add(it item) error {
	if w.cur == nil {
		w.cur = &job{seq: w.seq, items: make([]item, 0, jobItems), out: make(chan *chunk, 1)}
		w.seq++
	}
	if it.self != nil {
		it.self.refs.Add(1)
	} else {
		it.dir.refs.Add(1)
	}
	w.cur.items = append(w.cur.items, it)
	if len(w.cur.items) == jobItems {
		return w.flush()
	}
	return nil
}

// flush hands the current job to the framer and to a reader, in this order.
func (w *walker) flush() error {
	j := w.cur
	if w.cur = nil; j == nil {
		return nil
	}
	w.underWay.Add(1)
	for _, to := range []chan<- *job{w.order, w.work} {
		select {
		case to <- j:
		case <-w.ctx.Done():
			if to == w.work {
				close(j.out)
			}
			for _, it := range j.items {
				it.release()
			}
			w.underWay.Done()
			return context.Cause(w.ctx)
		}
	}
	return nil
}

func (it *item) release() {
	if it.self != nil {
		it.self.release()
	} else {
		it.dir.release()
	}
}

// openFolder opens a folder for reading.
func (r *reading) openFolder(dir int, name cname) (int, error) {
	return r.open(dir, name, unix.O_DIRECTORY)
}

// open opens for reading, without a trace in the time of access where that is allowed.
// Not blocking matters where a file turns into a FIFO at the wrong moment.
func (r *reading) open(dir int, name cname, flags int) (int, error) {
	flags |= unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK
	fd, err := openat(dir, name, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		// Only the owner may ask for it, and CAP_FOWNER.
		fd, err = openat(dir, name, flags, 0)
	}
	return fd, err
}

// unreadable decides about what cannot be read: gone is a note, the rest is an error
// unless it is allowed.
func (r *reading) unreadable(path, doing string, err error) error {
	path = strings.TrimSuffix(path, "/")
	if path == "" {
		return fmt.Errorf("%s: %w", doing, err)
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		r.notes.add(path, "vanished", "it was removed while the tree was read")
		return nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		r.notes.add(path, "vanished", "something else took its place while the tree was read")
		return nil
	case r.opts.AllowMissing:
		r.notes.add(path, "unreadable", fmt.Sprintf("%s: %v", doing, err))
		return nil
	}
	return fmt.Errorf("%s %q: %w", doing, path, err)
}
