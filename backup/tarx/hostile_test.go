package tarx_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dentropy/dentropycloud/backup/tarx"
)

// rawHeader makes a header of any sort.
func rawHeader(change func(b []byte)) []byte {
	b := make([]byte, 512)
	copy(b, "name")
	copy(b[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00")
	b[156] = '0'
	copy(b[257:], "ustar\x0000")
	if change != nil {
		change(b)
	}
	copy(b[148:], "        ")
	var sum int
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// sized is a header of a type with so much content.
func sized(typ byte, size int) []byte {
	return rawHeader(func(b []byte) {
		b[156] = typ
		copy(b[124:], fmt.Sprintf("%011o", size))
	})
}

// blocks fills up s with zeros.
func blocks(s string) []byte {
	return append([]byte(s), make([]byte, (512-len(s)%512)%512)...)
}

// records makes a pax header of key and value in turn.
func records(typ byte, pairs ...string) []byte {
	var text string
	for i := 0; i < len(pairs); i += 2 {
		body := " " + pairs[i] + "=" + pairs[i+1] + "\n"
		n := len(body) + 1
		for n != len(body)+len(fmt.Sprint(n)) {
			n++
		}
		text += fmt.Sprint(n) + body
	}
	return append(sized(typ, len(text)), blocks(text)...)
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestReaderRefuses(t *testing.T) {
	file := sized('0', 0)
	sparse10 := func(size int, list string) []byte {
		return join(records('x', "GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "x", "GNU.sparse.realsize", "10000"),
			sized('0', size), blocks(list))
	}
	tests := map[string][]byte{
		"checksum":            append([]byte("x"), file[1:]...),
		"type":                sized('Q', 0),
		"multi-volume":        sized('M', 0),
		"no name":             rawHeader(func(b []byte) { copy(b, "\x00\x00\x00\x00") }),
		"root is a file":      rawHeader(func(b []byte) { copy(b, ".\x00\x00\x00") }),
		"negative size":       rawHeader(func(b []byte) { copy(b[124:], bytes.Repeat([]byte{0xff}, 12)) }),
		"huge size":           rawHeader(func(b []byte) { copy(b[124:], "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff") }),
		"size is no number":   rawHeader(func(b []byte) { copy(b[124:], "12345678x") }),
		"negative owner":      rawHeader(func(b []byte) { copy(b[108:], bytes.Repeat([]byte{0xff}, 8)) }),
		"link to nothing":     sized('2', 0),
		"one zero block":      join(make([]byte, 512), file),
		"records at the end":  join(records('x', "path", "a"), tarx.Trailer[:]),
		"records too long":    sized('x', tarx.MaxRecords+1),
		"long name too long":  sized('L', tarx.MaxRecords+1),
		"long name empty":     join(sized('L', 1), blocks(""), make([]byte, 512), file),
		"endless headers":     bytes.Repeat(records('x', "path", "a"), 17),
		"record length":       join(sized('x', 12), blocks("99 path=abc\n"), file),
		"record short":        join(sized('x', 12), blocks("3 path=abcd\n"), file),
		"record no newline":   join(sized('x', 12), blocks("12 path=abcd"), file),
		"record no key":       join(sized('x', 8), blocks("8 =abcd\n"), file),
		"record negative":     join(sized('x', 12), blocks("-2 path=abc\n"), file),
		"record no space":     join(sized('x', 12), blocks(strings.Repeat("1", 12)), file),
		"path with NUL":       join(records('x', "path", "a\x00b"), file),
		"uid":                 join(records('x', "uid", "4294967296"), file),
		"uid not decimal":     join(records('x', "uid", "0x10"), file),
		"size record":         join(records('x', "size", "9223372036854775807"), file),
		"size overflow":       join(records('x', "size", "9223372036854775808"), file),
		"mtime":               join(records('x', "mtime", "now"), file),
		"attribute too long":  join(records('x', "SCHILY.xattr.user.x", strings.Repeat("x", tarx.MaxXattr+1)), file),
		"attribute no name":   join(records('x', "SCHILY.xattr.", "x"), file),
		"attribute long name": join(records('x', "SCHILY.xattr."+strings.Repeat("x", 256), "x"), file),
		"ACL":                 join(records('x', "SCHILY.acl.access", "user::rwx"), file),
		"global attributes":   join(records('g', "SCHILY.xattr.user.x", strings.Repeat("x", 40000), "SCHILY.xattr.user.y", strings.Repeat("x", 40000)), file),
		"label with content":  sized('V', 1),
		"sparse no size":      join(records('x', "GNU.sparse.major", "1", "GNU.sparse.minor", "0"), file),
		"sparse format":       join(records('x', "GNU.sparse.major", "2", "GNU.sparse.minor", "0", "GNU.sparse.realsize", "1"), file),
		"sparse no map":       join(records('x', "GNU.sparse.major", "0", "GNU.sparse.minor", "0", "GNU.sparse.size", "1"), file),
		"map overlaps":        sparse10(1536, "2\n0\n512\n256\n512\n"),
		"map unsorted":        sparse10(1536, "2\n1024\n512\n0\n512\n"),
		"map beyond the end":  sparse10(1024, "1\n9999\n512\n"),
		"map overflows":       sparse10(1024, "1\n9223372036854775807\n9223372036854775807\n"),
		"map too short":       sparse10(2048, "1\n0\n512\n"),
		"map too long":        sparse10(512, "1\n0\n512\n"),
		"map not in content":  sparse10(3, "1\n0\n512\n"),
		"map of huge count":   sparse10(512, "99999999\n"),
		"map count overflow":  sparse10(512, "99999999999999999999999999\n"),
		"map negative":        sparse10(512, "-1\n"),
		"map empty number":    sparse10(512, "\n\n"),
		"map odd":             join(records('x', "GNU.sparse.size", "10", "GNU.sparse.map", "0,1,2"), file),
		"map without offset":  join(records('x', "GNU.sparse.size", "10", "GNU.sparse.numbytes", "1"), file),
		"old map": rawHeader(func(b []byte) {
			b[156] = 'S'
			copy(b[386:], "00000000001\x0000000000001\x00")
			copy(b[483:], "00000000001\x00")
		}),
	}
	for name, archive := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := read(bytes.NewReader(join(archive, make([]byte, 4096))))
			if !errors.Is(err, tarx.ErrHeader) {
				t.Errorf("error %v, want ErrHeader (entries %+v)", err, got)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "read tar at offset ") {
				t.Errorf("error %q does not tell where", err)
			}
		})
	}
}

// TestReaderStaysAtError makes sure that nothing comes after an error.
func TestReaderStaysAtError(t *testing.T) {
	r := tarx.NewReader(bytes.NewReader(join(sized('Q', 0), sized('0', 0), tarx.Trailer[:])))
	_, first := r.Next()
	_, second := r.Next()
	if first == nil || !errors.Is(second, first) {
		t.Errorf("Next = %v, then %v, want one error for ever", first, second)
	}
}

func TestReaderOtherPrograms(t *testing.T) {
	t0 := time.Unix(0, 0)
	file := sized('0', 0)
	tests := []struct {
		name    string
		archive []byte
		want    tarx.Header
	}{
		{"v7 folder", rawHeader(func(b []byte) { copy(b, "dir/"); b[156] = 0; copy(b[257:], "\x00\x00\x00\x00\x00\x00\x00\x00") }),
			tarx.Header{Name: "dir/", Type: '5', Mode: 0o644, ModTime: t0}},
		{"folder without slash", sized('5', 0), tarx.Header{Name: "name/", Type: '5', Mode: 0o644, ModTime: t0}},
		{"contiguous", sized('7', 0), tarx.Header{Name: "name", Type: '0', Mode: 0o644, ModTime: t0}},
		{"type bits in mode", rawHeader(func(b []byte) { copy(b[100:], "0100755\x00") }), tarx.Header{Name: "name", Type: '0', Mode: 0o755, ModTime: t0}},
		{"hard link with a size", join(records('x', "linkpath", "./other"), sized('1', 1000)),
			tarx.Header{Name: "name", Type: '1', Mode: 0o644, Link: "other", ModTime: t0}},
		{"prefix", rawHeader(func(b []byte) { copy(b[345:], "some/where") }), tarx.Header{Name: "some/where/name", Type: '0', Mode: 0o644, ModTime: t0}},
		{"star prefix", rawHeader(func(b []byte) {
			copy(b[345:], "some")
			copy(b[476:], "00000000000 00000000000 ")
			copy(b[508:], "tar\x00")
		}),
			tarx.Header{Name: "some/name", Type: '0', Mode: 0o644, ModTime: t0}},
		{"names are not judged", join(records('x', "path", "./../../etc//passwd"), file), tarx.Header{Name: "../../etc//passwd", Type: '0', Mode: 0o644, ModTime: t0}},
		{"absolute", join(records('x', "path", "/etc/passwd"), file), tarx.Header{Name: "/etc/passwd", Type: '0', Mode: 0o644, ModTime: t0}},
		{"root", join(records('x', "path", "."), sized('5', 0)), tarx.Header{Name: "./", Type: '5', Mode: 0o644, ModTime: t0}},
		{"global", join(records('g', "comment", "x", "mtime", "1.5", "uid", "7", "path", "not for all"), records('x', "uid", ""), file),
			tarx.Header{Name: "name", Type: '0', Mode: 0o644, ModTime: time.Unix(1, 5e8)}},
		{"label", join(sized('V', 0), file), tarx.Header{Name: "name", Type: '0', Mode: 0o644, ModTime: t0}},
		{"signed checksum", signedChecksum(), tarx.Header{Name: "\xff\xff", Type: '0', Mode: 0o644, ModTime: t0}},
		{"names in an ACL", join(records('x', "SCHILY.acl.access", "user::rwx,user:lisa:r-x,group::r-x,mask::r-x,other::---"), file),
			tarx.Header{Name: "name", Type: '0', Mode: 0o644, ModTime: t0, Notes: []string{"system.posix_acl_access names users or groups instead of numbers and is left out"}}},
		{"label of SELinux", join(records('x', "RHT.security.selinux", "a:b:c"), file),
			tarx.Header{Name: "name", Type: '0', Mode: 0o644, ModTime: t0, Xattrs: map[string]string{"security.selinux": "a:b:c\x00"}}},
		{"long name and link", join(sized('K', 4), blocks("to/\x00"), sized('L', 5), blocks("from\x00"), sized('2', 0)),
			tarx.Header{Name: "from", Type: '2', Mode: 0o644, Link: "to/", ModTime: t0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := read(bytes.NewReader(join(tt.archive, tarx.Trailer[:])))
			if err != nil || len(got) != 1 {
				t.Fatalf("read %d entries, %v, want one", len(got), err)
			}
			if diff := cmp.Diff(tt.want, got[0].Header, same); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
		})
	}
}

// signedChecksum is a header as programs wrote it whose char was signed.
func signedChecksum() []byte {
	b := rawHeader(func(b []byte) { copy(b, "\xff\xff\x00\x00") })
	copy(b[148:], "        ")
	var sum int
	for _, c := range b {
		sum += int(int8(c))
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// TestReaderMemory gives headers that claim much and hold nothing.
func TestReaderMemory(t *testing.T) {
	claims := map[string][]byte{
		"records":   sized('x', tarx.MaxRecords),
		"long name": sized('L', tarx.MaxRecords),
		"map": join(records('x', "GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.realsize", "10"),
			sized('0', 1<<30), blocks("1048576\n0\n1\n")),
	}
	for name, archive := range claims {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range 10 {
				if _, err := tarx.NewReader(bytes.NewReader(archive)).Next(); err == nil {
					t.Fatal("Next gave no error")
				}
			}
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
				t.Errorf("10 times %d bytes of input took %d bytes of memory", len(archive), n)
			}
		})
	}
}

// FuzzReader reads anything. What can be read and written again must come back.
func FuzzReader(f *testing.F) {
	f.Add(write(f, tree()[:12]))
	for _, e := range tree() {
		if len(e.Stored) <= 4096 && len(e.Header.Name) < 200 {
			f.Add(write(f, []entry{e}))
		}
	}
	old := rawHeader(func(b []byte) {
		b[156] = 'S'
		copy(b[257:], "ustar  \x00")
		copy(b[124:], "00000000002")
		copy(b[386:], "00000000001\x0000000000001\x00")
		b[482] = 1
		copy(b[483:], "00000001000\x00")
	})
	f.Add(join(old, blocks("00000000100\x0000000000001\x00"), blocks("ab"), tarx.Trailer[:]))
	f.Add(join(records('g', "mtime", "-1.5"), records('x', "GNU.sparse.size", "10", "GNU.sparse.map", "0,1,5,1"), sized('0', 2), blocks("ab"), tarx.Trailer[:]))
	f.Add(join(records('x', "GNU.sparse.size", "10", "GNU.sparse.numblocks", "1", "GNU.sparse.offset", "1", "GNU.sparse.numbytes", "2"), sized('0', 2), blocks("ab"), tarx.Trailer[:]))
	f.Add(join(sized('K', 4), blocks("to/\x00"), sized('L', 5), blocks("from\x00"), sized('2', 0), tarx.Trailer[:]))
	// What the fuzzer finds must have a right checksum, or it finds nothing else.
	f.Add(binary.BigEndian.AppendUint64(sized('0', 5), 5))
	f.Fuzz(func(t *testing.T, archive []byte) {
		for i := 0; i+512 <= len(archive); i += 512 {
			if string(archive[i+257:i+262]) == "ustar" {
				fixChecksum(archive[i : i+512])
			}
		}
		r := tarx.NewReader(bytes.NewReader(archive))
		last := int64(-1)
		for {
			h, err := r.Next()
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, tarx.ErrHeader) {
					t.Fatalf("untyped error: %v", err)
				}
				return
			}
			if r.Offset() <= last || r.Offset()%512 != 0 || r.Offset() > int64(len(archive)) {
				t.Fatalf("offset %d after %d", r.Offset(), last)
			}
			last = r.Offset()
			if h.Size < 0 || h.PayloadSize() < 0 || h.Name == "" {
				t.Fatalf("header %+v", h)
			}
			b, err := tarx.AppendHeader(nil, h)
			if err != nil {
				continue // names that lead out, extents that GNU tar would not take
			}
			again, err := tarx.NewReader(bytes.NewReader(b)).Next()
			if err != nil {
				t.Fatalf("read back %+v: %v", h, err)
			}
			h.Notes = nil
			if diff := cmp.Diff(h, again, same); diff != "" {
				t.Fatalf("read back (-want +got):\n%s", diff)
			}
		}
	})
}

func fixChecksum(b []byte) {
	copy(b[148:], "        ")
	var sum int
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
}
