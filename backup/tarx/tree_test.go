package tarx_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/dentropy/dentropycloud/backup/tarx"
)

// node is what a file system knows about one name.
type node struct {
	Type           byte
	Mode, UID, GID int64
	Sec, Nsec      int64
	Size           int64
	Link           string // of a symbolic link
	Major, Minor   int64
	Xattrs         map[string]string
	Content        string // "offset:bytes" of what is no zeros
	Sparse         bool   // has holes
}

// bigHole is the apparent size of a sparse file.
const bigHole = 1 << 40

// tree makes entries of all kinds. What needs root is there for root only.
func tree() []entry {
	t1 := time.Unix(1764000000, 123456789)
	file := func(name string, content string, change func(*tarx.Header)) entry {
		h := tarx.Header{Name: name, Type: tarx.TypeFile, Mode: 0o644, ModTime: t1, Size: int64(len(content))}
		if change != nil {
			change(&h)
		}
		return entry{h, []byte(content)}
	}
	other := func(h tarx.Header) entry {
		if h.ModTime.IsZero() {
			h.ModTime = t1
		}
		return entry{Header: h}
	}
	block := strings.Repeat("x", 4096)
	long := strings.Repeat(strings.Repeat("d", 200)+"/", 4) // folders, made with each name
	entries := []entry{
		other(tarx.Header{Name: "./", Type: tarx.TypeFolder, Mode: 0o751, ModTime: time.Unix(1e9, 1)}),
		file("plain", "hello", nil),
		file("empty", "", nil),
		file("setuid", "x", func(h *tarx.Header) { h.Mode = 0o6755 }),
		file("old", "x", func(h *tarx.Header) { h.ModTime = time.Unix(-1e9, 500) }),
		file("just before 1970", "x", func(h *tarx.Header) { h.ModTime = time.Unix(-1, 999999999) }),
		file("far ahead", "x", func(h *tarx.Header) { h.ModTime = time.Unix(1<<33+5, 0) }),
		file("-rf", "x", nil),
		file("new\nline\ttab", "x", nil),
		file("latin \xe9\xff\xfe", "x", nil),
		file("umlaut äöü €", "x", nil),
		file(" spaces  ", "x", nil),
		file(`back\slash\n*?[a]`, "x", nil),
		file("100"+strings.Repeat("c", 97), "x", nil),
		file(strings.Repeat("n", 255), "x", nil),
		file(strings.Repeat("\xe9", 255), "x", nil),
		other(tarx.Header{Name: "sticky/", Type: tarx.TypeFolder, Mode: 0o1777}),
		other(tarx.Header{Name: "symlink", Type: tarx.TypeSymlink, Mode: 0o777, Link: "/etc/../no where\n"}),
		other(tarx.Header{Name: "long symlink", Type: tarx.TypeSymlink, Mode: 0o777, Link: strings.Repeat("../", 300) + "x"}),
		other(tarx.Header{Name: "hard link", Type: tarx.TypeHardLink, Mode: 0o644, Link: "plain"}),
		other(tarx.Header{Name: "hard link to latin", Type: tarx.TypeHardLink, Mode: 0o644, Link: "latin \xe9\xff\xfe"}),
		other(tarx.Header{Name: "fifo", Type: tarx.TypeFIFO, Mode: 0o600}),
		other(tarx.Header{Name: strings.Repeat("p", 150) + "/", Type: tarx.TypeFolder, Mode: 0o755}),
		file(strings.Repeat("p", 150)+"/"+strings.Repeat("q", 90), "x", nil),
		file("hole at the end", block, func(h *tarx.Header) { h.Size, h.Data = 1<<20, []tarx.Extent{{0, 4096}} }),
		file("hole at the start", block, func(h *tarx.Header) { h.Size, h.Data = 1<<20, []tarx.Extent{{1<<20 - 4096, 4096}} }),
		file("odd end", block+"tail", func(h *tarx.Header) { h.Size, h.Data = 1<<20+4, []tarx.Extent{{8192, 4096}, {1 << 20, 4}} }),
		file("one hole", "", func(h *tarx.Header) { h.Size, h.Data = 1<<20, []tarx.Extent{} }),
		file("1 TiB", block+block, func(h *tarx.Header) { h.Size, h.Data = bigHole, []tarx.Extent{{4096, 4096}, {1 << 39, 4096}} }),
		file("many holes", strings.Repeat(block, 50), func(h *tarx.Header) {
			h.Size, h.Data = 51<<16, nil
			for i := range int64(50) {
				h.Data = append(h.Data, tarx.Extent{Offset: i << 16, Length: 4096})
			}
		}),
		file("sparse "+strings.Repeat("s", 248), block, func(h *tarx.Header) { h.Size, h.Data = 1<<20, []tarx.Extent{{4096, 4096}} }),
		file("attributes", "x", func(h *tarx.Header) {
			h.Xattrs = map[string]string{"user.plain": "value", "user.bytes": "a\x00b\n\xff", "user.empty": "", "user.a=b%3D%": "=1\n2", "user.long": strings.Repeat("v", 3000)}
		}),
		file("acl", "x", func(h *tarx.Header) {
			h.Mode = 0o670 // the group's bits are the mask
			h.Xattrs = map[string]string{"system.posix_acl_access": acl(1234567, 1<<31)}
		}),
		other(tarx.Header{Name: "default acl/", Type: tarx.TypeFolder, Mode: 0o755, Xattrs: map[string]string{"system.posix_acl_default": acl(54321, 65432)}}),
	}
	for i := range 4 {
		entries = append(entries, other(tarx.Header{Name: long[:201*(i+1)], Type: tarx.TypeFolder, Mode: 0o755}))
	}
	entries = append(entries, file(long+"file", "x", nil))
	if os.Geteuid() != 0 {
		for i := range entries {
			entries[i].Header.UID, entries[i].Header.GID = int64(os.Geteuid()), int64(os.Getegid())
		}
		return entries
	}
	return append(entries,
		file("huge ids", "x", func(h *tarx.Header) { h.UID, h.GID = 1<<31, 1<<32-2 }),
		other(tarx.Header{Name: "null", Type: tarx.TypeChar, Mode: 0o666, Major: 1, Minor: 3}),
		other(tarx.Header{Name: "whiteout", Type: tarx.TypeChar, Mode: 0o000}),
		other(tarx.Header{Name: "disk", Type: tarx.TypeBlock, Mode: 0o660, GID: 6, Major: 4095, Minor: 1<<20 - 1}),
		file("capable", "x", func(h *tarx.Header) {
			h.Mode = 0o755
			h.Xattrs = map[string]string{
				// cap_net_bind_service=ep, revision 2
				"security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
				"trusted.t":           "t",
			}
		}),
	)
}

// nodes gives what a file system should know of entries.
func nodes(entries []entry) map[string]node {
	all := map[string]node{}
	for _, e := range entries {
		h := e.Header
		if h.Type == tarx.TypeHardLink {
			all[h.Name] = all[h.Link]
			continue
		}
		n := node{
			Type: h.Type, Mode: h.Mode, UID: h.UID, GID: h.GID, Size: h.Size, Link: h.Link, Major: h.Major, Minor: h.Minor,
			Sec: h.ModTime.Unix(), Nsec: int64(h.ModTime.Nanosecond()), Sparse: h.Data != nil,
		}
		if len(h.Xattrs) > 0 {
			n.Xattrs = h.Xattrs
		}
		extents := h.Data
		if extents == nil {
			extents = []tarx.Extent{{Length: h.Size}}
		}
		rest := e.Stored
		for _, x := range extents {
			n.Content += content(x.Offset, rest[:x.Length])
			rest = rest[x.Length:]
		}
		all[h.Name] = n
	}
	return all
}

// content describes bytes at an offset, in blocks, without zeros.
func content(offset int64, b []byte) (s string) {
	for len(b) > 0 {
		n := min(len(b), int(4096-offset%4096))
		if bytes.Trim(b[:n], "\x00") != nil {
			s += fmt.Sprintf("%d:%s\n", offset, b[:n])
		}
		offset, b = offset+int64(n), b[n:]
	}
	return s
}
