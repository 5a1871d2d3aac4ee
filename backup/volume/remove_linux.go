package volume

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// removing is one folder that is being emptied.
type removing struct {
	name  cname // in the one above
	key   fileKey
	names *listing
	next  int
}

// remover removes a tree with one descriptor, however deep it is.
type remover struct {
	statter
	fd    int // of the last folder of stack
	stack []removing
	buf   []byte
}

// removeTree removes what has that name in dir, with all in it. What is not there is
// removed.
func removeTree(dir int, name cname) error {
	r := &remover{fd: -1, buf: make([]byte, 64<<10)}
	defer func() {
		if r.fd >= 0 {
			closeFD(r.fd)
		}
	}()
	gone, err := unlink(dir, name)
	if gone || err != nil {
		return err
	}
	if err := r.into(dir, name); err != nil {
		return err
	}
	for {
		l := &r.stack[len(r.stack)-1]
		if l.next < len(l.names.names) {
			child := l.names.name(l.next)
			l.next++
			gone, err := unlink(r.fd, child)
			if err == nil && !gone {
				err = r.into(r.fd, child)
			}
			if err != nil {
				return fmt.Errorf("remove %q: %w", child.String(), err)
			}
			continue
		}
		if len(r.stack) == 1 {
			return removeEmptied(dir, name)
		}
		if err := r.back(); err != nil {
			return err
		}
	}
}

// unlink removes an entry, and reports whether it is gone: a folder that is not empty is
// not.
func unlink(dir int, name cname) (gone bool, err error) {
	err = unix.Unlinkat(dir, name.String(), 0)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
		switch rerr := unix.Unlinkat(dir, name.String(), unix.AT_REMOVEDIR); {
		case errors.Is(rerr, unix.ENOTEMPTY), errors.Is(rerr, unix.EEXIST):
			return false, nil
		case !errors.Is(rerr, unix.ENOTDIR):
			err = rerr
		}
	}
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return err == nil, err
}

// into goes into a folder.
func (r *remover) into(dir int, name cname) error {
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	if r.fd >= 0 {
		closeFD(r.fd)
	}
	r.fd = fd
	var st unix.Statx_t
	if err := r.stat(fd, emptyName, &st); err != nil {
		return err
	}
	names, err := readNames(fd, r.buf)
	if err != nil {
		return err
	}
	r.stack = append(r.stack, removing{name: append(cname(nil), name...), key: keyOf(&st), names: names})
	return nil
}

// back leaves a folder, and removes it.
func (r *remover) back() error {
	n := len(r.stack) - 1
	done := r.stack[n]
	r.stack = r.stack[:n]
	fd, err := openat(r.fd, toCname(".."), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	closeFD(r.fd)
	r.fd = fd
	var st unix.Statx_t
	if err := r.stat(fd, emptyName, &st); err != nil {
		return err
	}
	if keyOf(&st) != r.stack[n-1].key {
		return fmt.Errorf("remove %q: it was moved meanwhile", done.name.String())
	}
	return removeEmptied(fd, done.name)
}

func removeEmptied(dir int, name cname) error {
	gone, err := unlink(dir, name)
	if err == nil && !gone {
		err = errors.New("somebody writes into it")
	}
	if err != nil {
		return fmt.Errorf("remove %q: %w", name.String(), err)
	}
	return nil
}
