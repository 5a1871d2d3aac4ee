package tarx_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/dentropy/dentropycloud/backup/tarx"
)

// entry is a header with its stored bytes.
type entry struct {
	Header tarx.Header
	Stored []byte
}

// write makes an archive.
func write(tb testing.TB, entries []entry) []byte {
	tb.Helper()
	var b []byte
	for i := range entries {
		b = appendEntry(tb, b, &entries[i])
	}
	return append(b, tarx.Trailer[:]...)
}

func appendEntry(tb testing.TB, b []byte, e *entry) []byte {
	tb.Helper()
	start := len(b)
	b, err := tarx.AppendHeader(b, &e.Header)
	if err != nil {
		tb.Fatal(err)
	}
	if n := e.Header.PayloadSize(); n != int64(len(e.Stored)) {
		tb.Fatalf("PayloadSize of %q = %d, want %d", e.Header.Name, n, len(e.Stored))
	}
	b = append(b, e.Stored...)
	b = append(b, make([]byte, tarx.Padding(&e.Header))...)
	if (len(b)-start)%512 != 0 {
		tb.Fatalf("entry %q takes %d bytes, no whole blocks", e.Header.Name, len(b)-start)
	}
	return b
}

// read reads an archive to its end.
func read(r io.Reader) (entries []entry, err error) {
	tr := tarx.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil {
			return entries, err
		}
		stored, err := io.ReadAll(tr)
		if err != nil {
			return entries, err
		}
		entries = append(entries, entry{*h, stored})
	}
}

// acl is the kernel's form of an ACL with a named user and a named group.
func acl(user, group uint32) string {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, 1<<32 - 1}, {2, 7, user}, {4, 4, 1<<32 - 1}, {8, 5, group}, {16, 7, 1<<32 - 1}, {32, 0, 1<<32 - 1}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return string(b)
}

// randomEntry makes any entry that there can be.
func randomEntry(rng *rand.Rand) entry {
	h := tarx.Header{
		Name:    randomName(rng),
		Type:    "0012345600"[rng.IntN(10)],
		Mode:    rng.Int64N(010000),
		UID:     randomID(rng),
		GID:     randomID(rng),
		ModTime: randomTime(rng),
	}
	var stored []byte
	switch h.Type {
	case tarx.TypeFile:
		if rng.IntN(3) == 0 {
			h.Size, h.Data = randomMap(rng)
		} else {
			h.Size = rng.Int64N(2000)
		}
		stored = make([]byte, h.PayloadSize())
		for i := range stored {
			stored[i] = byte(rng.Uint32())
		}
	case tarx.TypeHardLink:
		h.Link = randomName(rng)
	case tarx.TypeSymlink:
		h.Link = []string{"/etc/passwd", "../../x", "./a", ".", "x\n=y", randomName(rng)}[rng.IntN(6)]
	case tarx.TypeChar, tarx.TypeBlock:
		h.Major, h.Minor = rng.Int64N(1<<12), rng.Int64N(1<<20)
	case tarx.TypeFolder:
		if h.Name += "/"; rng.IntN(4) == 0 {
			h.Name = "./"
		}
	}
	for range rng.IntN(4) - 1 {
		if h.Xattrs == nil {
			h.Xattrs = map[string]string{}
		}
		switch name := "user." + randomPart(rng, 200); rng.IntN(5) {
		case 0:
			h.Xattrs["system.posix_acl_access"] = acl(rng.Uint32N(1<<31), rng.Uint32())
		case 1:
			h.Xattrs["system.posix_acl_default"] = "not an ACL"
		case 2:
			h.Xattrs["security.selinux"] = "system_u:object_r:tmp_t:s0" + "\x00"[:rng.IntN(2)]
		case 3:
			h.Xattrs[name] = ""
		default:
			h.Xattrs[name] = randomPart(rng, 300)
		}
	}
	return entry{h, stored}
}

// randomPart is a part of a name: any bytes but "/" and NUL, not "." nor "..".
func randomPart(rng *rand.Rand, most int) string {
	b := make([]byte, 1+rng.IntN(most))
	for i := range b {
		for b[i] == 0 || b[i] == '/' {
			if b[i] = byte('a' + rng.IntN(26)); rng.IntN(4) == 0 {
				b[i] = byte(rng.Uint32())
			}
		}
	}
	if strings.Trim(string(b), ".") == "" {
		return "%3D="
	}
	return string(b)
}

func randomName(rng *rand.Rand) string {
	parts := make([]string, 1+rng.IntN(4))
	most := []int{5, 40, 255}[rng.IntN(3)]
	for i := range parts {
		parts[i] = randomPart(rng, most)
	}
	if rng.IntN(200) == 0 {
		return strings.Repeat(parts[0]+"/", 20000/len(parts[0])) + "x"
	}
	return strings.Join(parts, "/")
}

func randomID(rng *rand.Rand) int64 {
	return []int64{0, 1000, 1<<21 - 1, 1 << 21, 1 << 31, 1<<32 - 1, rng.Int64N(1 << 32)}[rng.IntN(7)]
}

func randomTime(rng *rand.Rand) time.Time {
	sec := []int64{0, 1, -1, 1<<33 - 1, 1 << 33, -2208988800, 1764000000, math.MaxInt64, math.MinInt64 + 1, rng.Int64N(1<<34) - 1<<33}[rng.IntN(10)]
	ns := []int64{0, 0, 1, 999999999, 500000000, rng.Int64N(1e9)}[rng.IntN(6)]
	return time.Unix(sec, ns)
}

// randomMap makes the map of a sparse file.
func randomMap(rng *rand.Rand) (size int64, data []tarx.Extent) {
	data = []tarx.Extent{}
	for range rng.IntN(6) {
		size += rng.Int64N(1 << uint(1+rng.IntN(40)))
		e := tarx.Extent{Offset: size, Length: 512 * (1 + rng.Int64N(4))}
		data = append(data, e)
		size += e.Length
	}
	if n := len(data); n > 0 && rng.IntN(2) == 0 {
		size -= 100
		data[n-1].Length -= 100
	} else {
		size += 1 + rng.Int64N(10000)
	}
	return size, data
}

// same compares headers. A time is the same whatever the place.
var same = cmp.Options{
	cmp.Comparer(func(a, b time.Time) bool { return a.Unix() == b.Unix() && a.Nanosecond() == b.Nanosecond() }),
	cmpopts.EquateEmpty(),
}

// differ compares entries; "" is no difference.
func differ(want, got []entry) string {
	if len(want) != len(got) {
		return fmt.Sprintf("%d entries, want %d", len(got), len(want))
	}
	for i := range want {
		if diff := cmp.Diff(want[i].Header, got[i].Header, same); diff != "" {
			return diff
		}
		if !bytes.Equal(want[i].Stored, got[i].Stored) {
			return fmt.Sprintf("other content of %q", want[i].Header.Name)
		}
	}
	return ""
}

func TestRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		entries := make([]entry, rng.IntN(30))
		for i := range entries {
			entries[i] = randomEntry(rng)
		}
		archive := write(t, entries)
		got, err := read(bytes.NewReader(archive))
		if err != nil {
			t.Fatal(err)
		}
		if diff := differ(entries, got); diff != "" {
			t.Fatalf("round trip (-want +got):\n%s", diff)
		}
		for i := range got {
			if (entries[i].Header.Data == nil) != (got[i].Header.Data == nil) {
				t.Errorf("Data of %q: nil became a map or back", got[i].Header.Name)
			}
		}
		if again := write(t, got); !bytes.Equal(again, archive) {
			t.Fatal("equal headers gave other bytes")
		}
	}
}

// TestOffset reads each entry again from where the Reader says that it begins.
func TestOffset(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	entries := make([]entry, 200)
	for i := range entries {
		entries[i] = randomEntry(rng)
	}
	archive := write(t, entries)
	r := tarx.NewReader(bytes.NewReader(archive))
	for i := range entries {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		h, err := tarx.NewReader(bytes.NewReader(archive[r.Offset():])).Next()
		if err != nil || h.Name != entries[i].Header.Name {
			t.Fatalf("entry at %d = %v, %v, want %q", r.Offset(), h, err, entries[i].Header.Name)
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("Next at the end = %v, want EOF", err)
	}
	if want := int64(len(archive) - len(tarx.Trailer)); r.Offset() != want {
		t.Errorf("Offset at the end = %d, want %d", r.Offset(), want)
	}
}

// TestCutOff cuts an archive at every byte.
func TestCutOff(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	archive := write(t, []entry{
		{Header: tarx.Header{Name: "dir/", Type: tarx.TypeFolder, ModTime: time.Unix(1, 2)}},
		{tarx.Header{Name: "file", Type: tarx.TypeFile, Size: 700}, make([]byte, 700)},
		{tarx.Header{Name: "holes", Type: tarx.TypeFile, Size: 1 << 40, Data: []tarx.Extent{{512, 512}}}, make([]byte, 512)},
	})
	whole, err := read(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(archive) {
		if n%512 != 0 && rng.IntN(16) != 0 {
			continue
		}
		got, err := read(bytes.NewReader(archive[:n]))
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the first %d of %d bytes: error %v, want ErrUnexpectedEOF", n, len(archive), err)
		}
		if diff := differ(whole[:len(got)], got); diff != "" {
			t.Errorf("the first %d bytes gave other entries: %s", n, diff)
		}
	}
}

func TestAppendHeaderIsPlainWhereItCan(t *testing.T) {
	tests := []struct {
		name   string
		header tarx.Header
		want   int
	}{
		{"plain", tarx.Header{Name: "a", Type: '0', Size: 5, ModTime: time.Unix(5, 0)}, 512},
		{"split name", tarx.Header{Name: strings.Repeat("a", 100) + "/" + strings.Repeat("b", 100), Type: '0'}, 512},
		{"split folder", tarx.Header{Name: strings.Repeat("a", 100) + "/" + strings.Repeat("b", 99) + "/", Type: '5', Mode: 0o755}, 512},
		{"long name", tarx.Header{Name: strings.Repeat("a", 101), Type: '0', ModTime: time.Unix(0, 0)}, 1536},
		{"fraction", tarx.Header{Name: "a", Type: '0', ModTime: time.Unix(0, 1)}, 1536},
		{"large", tarx.Header{Name: "a", Type: '0', Size: 1 << 33}, 1536},
		{"almost large", tarx.Header{Name: "a", Type: '0', Size: 1<<33 - 1}, 512},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.header.ModTime.IsZero() {
				tt.header.ModTime = time.Unix(0, 0)
			}
			prefix := []byte("before")
			b, err := tarx.AppendHeader(prefix, &tt.header)
			if err != nil {
				t.Fatal(err)
			}
			if got := len(b) - len(prefix); got != tt.want || !bytes.HasPrefix(b, prefix) {
				t.Errorf("AppendHeader(%q) appended %d bytes, want %d", tt.header.Name, got, tt.want)
			}
			h, err := tarx.NewReader(bytes.NewReader(b[len(prefix):])).Next()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&tt.header, h, same); diff != "" {
				t.Errorf("read back (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAppendHeaderRefuses(t *testing.T) {
	file := func(change func(*tarx.Header)) tarx.Header {
		h := tarx.Header{Name: "a", Type: tarx.TypeFile}
		change(&h)
		return h
	}
	extents := func(size int64, data ...tarx.Extent) tarx.Header {
		return file(func(h *tarx.Header) { h.Size, h.Data = size, data })
	}
	tests := map[string]tarx.Header{
		"no name":         file(func(h *tarx.Header) { h.Name = "" }),
		"absolute":        file(func(h *tarx.Header) { h.Name = "/a" }),
		"up":              file(func(h *tarx.Header) { h.Name = "a/../../b" }),
		"NUL":             file(func(h *tarx.Header) { h.Name = "a\x00b" }),
		"slash":           file(func(h *tarx.Header) { h.Name = "a/" }),
		"root":            file(func(h *tarx.Header) { h.Name = "./" }),
		"type":            file(func(h *tarx.Header) { h.Type = 's' }),
		"mode":            file(func(h *tarx.Header) { h.Mode = 0o100644 }),
		"uid":             file(func(h *tarx.Header) { h.UID = -1 }),
		"gid":             file(func(h *tarx.Header) { h.GID = 1 << 32 }),
		"size":            file(func(h *tarx.Header) { h.Size = -1 }),
		"no target":       file(func(h *tarx.Header) { h.Type = '2' }),
		"hard link up":    file(func(h *tarx.Header) { h.Type, h.Link = '1', "../x" }),
		"device":          file(func(h *tarx.Header) { h.Type, h.Major = '3', 1<<21 }),
		"overlap":         extents(4096, tarx.Extent{Offset: 0, Length: 1024}, tarx.Extent{Offset: 512, Length: 512}),
		"behind the end":  extents(4096, tarx.Extent{Offset: 4096, Length: 512}),
		"beyond the end":  extents(4096, tarx.Extent{Offset: 3584, Length: 1024}),
		"overflow":        extents(4096, tarx.Extent{Offset: 512, Length: math.MaxInt64}),
		"no whole blocks": extents(4096, tarx.Extent{Offset: 0, Length: 100}, tarx.Extent{Offset: 512, Length: 512}),
		"empty extent":    extents(4096, tarx.Extent{Offset: 0, Length: 0}),
		"attributes":      file(func(h *tarx.Header) { h.Xattrs = map[string]string{"user.x": strings.Repeat("x", 9<<20)} }),
	}
	for name, h := range tests {
		t.Run(name, func(t *testing.T) {
			before := []byte("before")
			b, err := tarx.AppendHeader(before, &h)
			if !errors.Is(err, tarx.ErrHeader) || string(b) != "before" {
				t.Errorf("AppendHeader = %d bytes, %v, want ErrHeader", len(b), err)
			}
		})
	}
}

func TestAlignExtents(t *testing.T) {
	tests := []struct {
		name       string
		size       int64
		data, want []tarx.Extent
	}{
		{"none", 100, []tarx.Extent{}, []tarx.Extent{}},
		{"aligned", 8192, []tarx.Extent{{0, 512}, {4096, 4096}}, []tarx.Extent{{0, 512}, {4096, 4096}}},
		{"end of file", 1000, []tarx.Extent{{512, 488}}, []tarx.Extent{{512, 488}}},
		{"grown", 8192, []tarx.Extent{{100, 10}, {4000, 200}}, []tarx.Extent{{0, 512}, {3584, 1024}}},
		{"merged", 8192, []tarx.Extent{{0, 100}, {300, 10}, {512, 512}, {1536, 1}}, []tarx.Extent{{0, 1024}, {1536, 512}}},
		{"empty ones", 8192, []tarx.Extent{{0, 0}, {300, 10}, {600, 0}}, []tarx.Extent{{0, 512}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tarx.AlignExtents(slices.Clone(tt.data), tt.size)
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("AlignExtents(%v, %d) (-want +got):\n%s", tt.data, tt.size, diff)
			}
			h := tarx.Header{Name: "a", Type: '0', Size: tt.size, Data: got}
			if _, err := tarx.AppendHeader(nil, &h); err != nil {
				t.Errorf("AppendHeader: %v", err)
			}
		})
	}
}

// TestAlignExtentsBounds gives a file with more extents than a map may have.
func TestAlignExtentsBounds(t *testing.T) {
	data := make([]tarx.Extent, tarx.MaxExtents+100)
	for i := range data {
		data[i] = tarx.Extent{Offset: int64(i) * 8192, Length: 4096}
	}
	size := int64(len(data)) * 8192
	got := tarx.AlignExtents(data, size)
	if len(got) > tarx.MaxExtents || len(got) == 0 {
		t.Fatalf("AlignExtents gave %d extents, want at most %d", len(got), tarx.MaxExtents)
	}
	if last := got[len(got)-1]; last.Offset+last.Length != size-4096 {
		t.Errorf("the last extent ends at %d, want %d", last.Offset+last.Length, size-4096)
	}
}

// TestMostExtents writes and reads a map of the greatest size.
func TestMostExtents(t *testing.T) {
	data := make([]tarx.Extent, tarx.MaxExtents)
	for i := range data {
		data[i] = tarx.Extent{Offset: int64(i) * 1024, Length: 512}
	}
	h := tarx.Header{Name: "a", Type: '0', Size: int64(len(data)) * 1024, Data: data}
	b, err := tarx.AppendHeader(nil, &h)
	if err != nil {
		t.Fatal(err)
	}
	got, err := tarx.NewReader(bytes.NewReader(b)).Next()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(data, got.Data) {
		t.Error("other extents came back")
	}
}
