package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maker fills a folder and keeps the first error.
type maker struct {
	dir string
	err error
}

func (m *maker) do(err error) { m.err = errors.Join(m.err, err) }

func (m *maker) path(name string) string { return filepath.Join(m.dir, name) }

func (m *maker) file(name string, mode os.FileMode, data []byte) string {
	p := m.path(name)
	m.do(os.MkdirAll(filepath.Dir(p), 0o755))
	m.do(os.WriteFile(p, data, 0o600))
	m.do(os.Chmod(p, mode))
	return p
}

// makeTree fills a folder with what backups lose: holes, hard links, attributes, access
// lists, capabilities, devices, odd names, owners and times.
func makeTree(dir string) error {
	m := &maker{dir: dir}
	m.do(os.MkdirAll(dir, 0o755))
	for n := range 200 {
		m.file(fmt.Sprintf("many/%d/file-%d", n%7, n), 0o644, bytes.Repeat([]byte{byte(n)}, n*37))
	}
	m.file("empty", 0o600, nil)
	m.file("big", 0o640, pseudoRandom(9<<20))
	m.names()
	m.links()
	m.holes()
	m.special()
	m.attributes()
	// Times last: what is made in a folder changes the folder's.
	m.do(unix.UtimesNanoAt(unix.AT_FDCWD, m.path("empty"), []unix.Timespec{{Sec: -86400, Nsec: 123456789}, {Sec: -86400, Nsec: 123456789}}, 0))
	m.do(unix.UtimesNanoAt(unix.AT_FDCWD, m.path("many"), []unix.Timespec{{Sec: 1e9, Nsec: 1}, {Sec: 1e9, Nsec: 999999999}}, 0))
	m.do(os.Chown(dir, 1234, 5678))
	m.do(unix.Chmod(dir, 0o2750))
	return m.err
}

func (m *maker) names() {
	m.file("odd/new\nline", 0o644, []byte("1"))
	m.file("odd/ leading and trailing ", 0o644, []byte("2"))
	m.file("odd/-rf", 0o644, []byte("3"))
	m.file("odd/not \xff\xfe UTF-8", 0o644, []byte("4"))
	m.file("odd/back\\slash \"quotes\" 'and' $(dollar)", 0o644, []byte("5"))
	m.file("odd/"+strings.Repeat("x", 255), 0o644, []byte("6"))
	m.file("deep/"+strings.Repeat(strings.Repeat("d", 99)+"/", 12)+"end", 0o644, []byte("7"))
	m.do(os.MkdirAll(m.path("odd/empty folder"), 0o700))
}

func (m *maker) links() {
	p := m.file("links/a", 0o644, []byte("one file, three names"))
	m.do(os.Link(p, m.path("links/b")))
	m.do(os.MkdirAll(m.path("before"), 0o755))
	m.do(os.Link(p, m.path("before/c")))
	for name, target := range map[string]string{
		"absolute": "/etc/passwd", "outside": "../../../../etc/shadow", "dangling": "nowhere", "folder": "../many",
		"long": strings.Repeat("t", 1000), "odd": "not \xff UTF-8",
	} {
		m.do(os.Symlink(target, m.path("links/"+name)))
	}
}

func (m *maker) holes() {
	sparse := func(name string, size int64, data ...int64) {
		p := m.file("holes/"+name, 0o644, nil)
		f, err := os.OpenFile(p, os.O_WRONLY, 0)
		if err != nil {
			m.do(err)
			return
		}
		for _, at := range data {
			_, err := f.WriteAt(pseudoRandom(4096), at)
			m.do(err)
		}
		m.do(errors.Join(f.Truncate(size), f.Close()))
	}
	sparse("all", 1<<30)
	sparse("front", 1<<20, 1<<20-4096)
	sparse("back", 1<<20, 0)
	sparse("middle", 5<<30, 0, 1<<30, 4<<30+4096)
	many := make([]int64, 0, 300)
	for n := range int64(300) {
		many = append(many, n*16384)
	}
	sparse("many", 300*16384, many...)
}

func (m *maker) special() {
	m.do(os.MkdirAll(m.path("special"), 0o755))
	m.do(unix.Mkfifo(m.path("special/fifo"), 0o600))
	m.do(unix.Mknod(m.path("special/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	m.do(unix.Mknod(m.path("special/disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 300000))))
	m.do(unix.Chmod(m.file("special/setuid", 0o755, []byte("not a program")), 0o4755))
	m.do(os.MkdirAll(m.path("special/sticky"), 0o755))
	m.do(unix.Chmod(m.path("special/sticky"), 0o1777))
	p := m.file("special/huge ids", 0o644, nil)
	m.do(os.Chown(p, 2147483647, 4294967294))
}

func (m *maker) attributes() {
	p := m.file("attributes/user", 0o644, []byte("x"))
	m.do(unix.Setxattr(p, "user.comment", []byte("text"), 0))
	m.do(unix.Setxattr(p, "user.binary", []byte{0, 1, '\n', '=', 255}, 0))
	m.do(unix.Setxattr(p, "user.empty", nil, 0))
	m.do(unix.Setxattr(m.path("attributes"), "user.on-folder", pseudoRandom(2000), 0))
	p = m.file("attributes/capable", 0o755, []byte("x"))
	// cap_net_bind_service+ep, revision 2 of the kernel's format
	capability := binary.LittleEndian.AppendUint32(nil, 0x02000001)
	for _, word := range []uint32{1 << 10, 0, 0, 0} {
		capability = binary.LittleEndian.AppendUint32(capability, word)
	}
	m.do(unix.Setxattr(p, "security.capability", capability, 0))
	p = m.file("attributes/acl", 0o640, []byte("x"))
	m.do(unix.Setxattr(p, "system.posix_acl_access", acl(), 0))
	m.do(unix.Setxattr(m.path("attributes"), "system.posix_acl_default", acl(), 0))
}

// acl is user::rw-, user:1000:rwx, group::r--, mask::rwx, other::--- as the kernel
// writes it.
func acl() []byte {
	const undefined = 0xffffffff
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{0x01, 6, undefined}, {0x02, 7, 1000}, {0x04, 4, undefined}, {0x10, 7, undefined}, {0x20, 0, undefined}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// pseudoRandom gives bytes that do not compress, the same every time.
func pseudoRandom(n int) []byte {
	b := make([]byte, n)
	x := uint64(88172645463325252)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}
