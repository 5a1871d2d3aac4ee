package volume

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls that are made for every file take names that are NUL-terminated already:
// the wrappers of package unix would copy each of them.

// cname is a name with a NUL at its end, which is no part of String.
type cname []byte

func toCname(name string) cname { return append([]byte(name), 0) }

func (n cname) String() string { return string(n[:len(n)-1]) }

var emptyName = cname{0}

// retry repeats a call that a signal interrupted.
func retry(call func() syscall.Errno) error {
	for {
		errno := call()
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

func openat(dir int, name cname, flags int, mode uint32) (int, error) {
	var fd uintptr
	err := retry(func() (errno syscall.Errno) {
		fd, _, errno = syscall.Syscall6(unix.SYS_OPENAT, uintptr(dir),
			uintptr(unsafe.Pointer(&name[0])), //nolint:gosec // the kernel reads up to the NUL
			uintptr(flags|unix.O_CLOEXEC|unix.O_LARGEFILE), uintptr(mode), 0, 0)
		return errno
	})
	return int(fd), err
}

// statter asks for what is known about files.
type statter struct {
	// noStatx remembers that statx is not to be had: on old kernels, or where a sandbox
	// does not know it.
	noStatx atomic.Bool
}

// STATX_MNT_ID is known from Linux 5.8 on, and left out of the answer before.
const statxMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME | unix.STATX_MNT_ID

// stat fills st for name in dir, or for dir itself where the name is empty.
func (s *statter) stat(dir int, name cname, st *unix.Statx_t) error {
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if len(name) == 1 {
		flags |= unix.AT_EMPTY_PATH
	}
	if !s.noStatx.Load() {
		err := retry(func() syscall.Errno {
			_, _, errno := syscall.Syscall6(unix.SYS_STATX, uintptr(dir),
				uintptr(unsafe.Pointer(&name[0])), //nolint:gosec // the kernel reads up to the NUL
				uintptr(flags), statxMask,
				uintptr(unsafe.Pointer(st)), 0) //nolint:gosec // it is as large as the kernel's
			return errno
		})
		if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
			return err
		}
		s.noStatx.Store(true)
	}
	var old unix.Stat_t
	var err error
	if len(name) == 1 {
		err = unix.Fstat(dir, &old)
	} else {
		err = unix.Fstatat(dir, name.String(), &old, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil {
		fromStat(st, &old)
	}
	return err
}

// widen gives a field whose width depends on the architecture.
func widen[T ~int32 | ~int64 | ~uint32 | ~uint64](v T) int64 { return int64(v) }

func fromStat(st *unix.Statx_t, old *unix.Stat_t) {
	dev, rdev := uint64(widen(old.Dev)), uint64(widen(old.Rdev))
	*st = unix.Statx_t{
		Mask: unix.STATX_BASIC_STATS,
		Mode: uint16(old.Mode), Nlink: uint32(widen(old.Nlink)), Uid: old.Uid, Gid: old.Gid,
		Ino: uint64(widen(old.Ino)), Size: uint64(widen(old.Size)), Blocks: uint64(widen(old.Blocks)),
		Dev_major: unix.Major(dev), Dev_minor: unix.Minor(dev), Rdev_major: unix.Major(rdev), Rdev_minor: unix.Minor(rdev),
		Mtime: unix.StatxTimestamp{Sec: widen(old.Mtim.Sec), Nsec: uint32(widen(old.Mtim.Nsec))},
		Ctime: unix.StatxTimestamp{Sec: widen(old.Ctim.Sec), Nsec: uint32(widen(old.Ctim.Nsec))},
	}
}

// fileKey tells files apart. The time of birth is in it, as the number of an inode may
// be given to another file while a tree is read.
type fileKey struct {
	dev, ino uint64
	birth    unix.StatxTimestamp
}

func keyOf(st *unix.Statx_t) fileKey {
	return fileKey{dev: devOf(st), ino: st.Ino, birth: st.Btime}
}

func devOf(st *unix.Statx_t) uint64 { return uint64(st.Dev_major)<<32 | uint64(st.Dev_minor) }

func mtimeOf(st *unix.Statx_t) time.Time { return time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec)) }

// sameVersion reports whether a file was not written to between two looks at it.
func sameVersion(a, b *unix.Statx_t) bool {
	return a.Size == b.Size && a.Mtime == b.Mtime && a.Ctime == b.Ctime
}

func pread(fd int, p []byte, off int64) (n int, err error) {
	for {
		n, err = unix.Pread(fd, p, off)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// pwriteAll writes all of p.
func pwriteAll(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n <= 0:
			return unix.EIO
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// closeFD closes a descriptor that was only read, or whose data is synced later.
func closeFD(fd int) {
	_ = unix.Close(fd)
}

// closeQuietly closes what was only read.
func closeQuietly(c io.Closer) {
	_ = c.Close()
}

// procPath leads to name in the folder dir without following name, for calls that know
// no folders. /proc must be there.
func procPath(dir int, name cname) string {
	return "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name.String()
}

// listing are the names in a folder, sorted.
type listing struct {
	arena []byte // name, NUL, name, NUL, …
	names []nameRef
}

type nameRef struct {
	off  uint32
	size uint16 // with the NUL
	typ  uint8  // unix.DT_…
}

func (l *listing) name(i int) cname {
	r := l.names[i]
	return cname(l.arena[r.off : r.off+uint32(r.size)])
}

func (l *listing) sort() {
	slices.SortFunc(l.names, func(a, b nameRef) int {
		return bytes.Compare(l.arena[a.off:a.off+uint32(a.size)], l.arena[b.off:b.off+uint32(b.size)])
	})
}

// direntName is where in a directory entry of the kernel the name begins: after inode
// and offset (8 bytes each), length (2) and type (1).
const direntName = 19

// readNames reads the names in a folder. buf is scratch space.
func readNames(fd int, buf []byte) (*listing, error) {
	l := &listing{}
	for {
		n, err := unix.Getdents(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			break
		}
		for b := buf[:n]; len(b) > direntName; {
			size := int(binary.NativeEndian.Uint16(b[16:]))
			if size <= direntName || size > len(b) {
				return nil, unix.EIO
			}
			l.add(b[direntName:size], b[18])
			b = b[size:]
		}
	}
	l.sort()
	return l, nil
}

// add takes in a name up to its NUL.
func (l *listing) add(name []byte, typ uint8) {
	n := 0
	for n < len(name) && name[n] != 0 {
		n++
	}
	if n == 0 || name[0] == '.' && (n == 1 || n == 2 && name[1] == '.') {
		return
	}
	l.names = append(l.names, nameRef{off: uint32(len(l.arena)), size: uint16(n + 1), typ: typ})
	l.arena = append(l.arena, name[:n]...)
	l.arena = append(l.arena, 0)
}

// capabilities that decide what can be read or written.
const capSysAdmin = 21

// hasCapability reports whether the process has a capability in effect.
func hasCapability(bit uint) bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	return data[bit/32].Effective&(1<<(bit%32)) != 0
}

// unsupported reports whether an error means that the file system or our rights do not
// allow something that other ones do.
func unsupported(err error) bool {
	for _, e := range []error{unix.ENOTSUP, unix.EOPNOTSUPP, unix.EPERM, unix.EACCES, unix.EINVAL, unix.ENOSYS, unix.ENODATA, unix.ERANGE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// wanted reports whether an attribute is read.
func wanted(name string) bool {
	switch {
	case strings.HasPrefix(name, "user."):
		return true
	case strings.HasPrefix(name, "trusted."):
		return !strings.HasPrefix(name, "trusted.overlay.")
	case name == "security.evm", name == "security.ima":
		return false // made by this machine's kernel for this machine
	case strings.HasPrefix(name, "security."):
		return true
	}
	return name == xattrACLAccess || name == xattrACLDefault
}
