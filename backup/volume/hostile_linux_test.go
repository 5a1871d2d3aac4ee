package volume_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup/tarx"
	"github.com/dentropy/dentropycloud/backup/volume"
)

// raw is an entry as it stands in an archive, whatever its name.
type raw struct {
	name, link string
	typ        byte
	mode       int64
	size       int64 // where it is not the length of body
	body       string
	h          tarx.Header // xattrs, data
}

// tarOf makes a tar by hand, as tarx refuses to write names that lead outside.
func tarOf(entries ...raw) []byte {
	var b bytes.Buffer
	for _, e := range entries {
		b.Write(header(e))
		b.WriteString(e.body)
		b.Write(make([]byte, -len(e.body)&511))
	}
	b.Write(tarx.Trailer[:])
	return b.Bytes()
}

func header(e raw) []byte {
	if e.typ == 0 {
		e.typ = '0'
	}
	if e.size == 0 {
		e.size = int64(len(e.body))
	}
	var out []byte
	var records string
	add := func(key, value string) {
		n := len(key) + len(value) + 3
		size := n + len(fmt.Sprint(n))
		size = n + len(fmt.Sprint(size))
		records += fmt.Sprintf("%d %s=%s\n", size, key, value)
	}
	if len(e.name) > 100 {
		add("path", e.name)
		e.name = e.name[:100]
	}
	if len(e.link) > 100 {
		add("linkpath", e.link)
		e.link = e.link[:100]
	}
	if e.size >= 1<<33 {
		add("size", fmt.Sprint(e.size))
		e.size = 0
	}
	for k, v := range e.h.Xattrs {
		add("SCHILY.xattr."+k, v)
	}
	if records != "" {
		out = append(block(raw{name: "pax", typ: 'x', size: int64(len(records))}), records...)
		out = append(out, make([]byte, -len(records)&511)...)
	}
	return append(out, block(e)...)
}

func block(e raw) []byte {
	b := make([]byte, 512)
	copy(b, e.name)
	copy(b[100:], fmt.Sprintf("%07o\x00", e.mode))
	copy(b[108:], "0000000\x000000000\x00")
	copy(b[124:], fmt.Sprintf("%011o\x00", e.size))
	copy(b[136:], fmt.Sprintf("%011o\x00", 1000))
	b[156] = e.typ
	copy(b[157:257], e.link)
	copy(b[257:], "ustar\x0000")
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// world is a folder with a target in it and things beside it that must stay as they are.
func world(t *testing.T, outside string) (_, target string) {
	t.Helper()
	target = filepath.Join(outside, "target")
	must(t, os.Mkdir(target, 0o755))
	must(t, os.Mkdir(filepath.Join(outside, "canary"), 0o755))
	must(t, os.WriteFile(filepath.Join(outside, "canary", "secret"), []byte("secret"), 0o600))
	must(t, os.WriteFile(filepath.Join(outside, "file"), []byte("file"), 0o644))
	return outside, target
}

// memory is a folder in memory, where syncing takes no time.
func memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "volume")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// around describes all but the target.
func around(t *testing.T, outside string) []string {
	t.Helper()
	var out []string
	for _, line := range describe(t, outside) {
		if !strings.HasPrefix(line, `"target`) && !strings.HasPrefix(line, `"." `) {
			out = append(out, line)
		}
	}
	return out
}

func TestWriteHostile(t *testing.T) {
	needRoot(t)
	dir := raw{name: "d/", typ: '5', mode: 0o755}
	link := func(to string) raw { return raw{name: "l", typ: '2', link: to} }
	evil := func(name string) raw { return raw{name: name, body: "evil", mode: 0o666} }
	hard := func(name, to string) raw { return raw{name: name, typ: '1', link: to} }
	for name, tc := range map[string]struct {
		entries []raw
		want    error
	}{
		"absolute":                       {[]raw{evil("/tmp/dentropy-evil")}, volume.ErrUnsafe},
		"absolute after a dot":           {[]raw{evil(".//tmp/x"), evil("/file")}, volume.ErrUnsafe},
		"parent":                         {[]raw{evil("../file")}, volume.ErrUnsafe},
		"parent folder":                  {[]raw{{name: "../canary/", typ: '5', mode: 0o777}}, volume.ErrUnsafe},
		"parent inside":                  {[]raw{dir, evil("d/../../file")}, volume.ErrUnsafe},
		"parent at the end":              {[]raw{{name: "d/..", typ: '5', mode: 0o777}}, volume.ErrUnsafe},
		"just parent":                    {[]raw{{name: "..", typ: '5', mode: 0o777}}, volume.ErrUnsafe},
		"empty component":                {[]raw{dir, evil("d//f")}, volume.ErrUnsafe},
		"dot component":                  {[]raw{dir, evil("d/./f")}, volume.ErrUnsafe},
		"root as a file":                 {[]raw{{name: "./", typ: '2', link: "x"}}, nil},
		"through a link":                 {[]raw{link("../canary"), evil("l/secret")}, volume.ErrUnsafe},
		"through an absolute link":       {[]raw{link("/tmp"), evil("l/dentropy-evil")}, volume.ErrUnsafe},
		"through a link inside":          {[]raw{dir, link("d"), evil("l/f")}, volume.ErrUnsafe},
		"over a link":                    {[]raw{link("../file"), evil("l")}, volume.ErrUnsafe},
		"folder over a link":             {[]raw{link("../canary"), {name: "l/", typ: '5', mode: 0o777}}, volume.ErrUnsafe},
		"link over a folder":             {[]raw{{name: "l/", typ: '5', mode: 0o755}, link("../canary"), evil("l/secret")}, volume.ErrUnsafe},
		"device over a link":             {[]raw{link("../file"), {name: "l", typ: '3'}}, volume.ErrUnsafe},
		"deep through a link":            {[]raw{dir, {name: "d/l", typ: '2', link: "../../canary"}, evil("d/l/x/secret")}, volume.ErrUnsafe},
		"hard link to outside":           {[]raw{hard("h", "../file"), evil("h")}, volume.ErrUnsafe},
		"hard link to absolute":          {[]raw{hard("h", "/etc/passwd")}, volume.ErrUnsafe},
		"hard link through a link":       {[]raw{link("../canary"), hard("h", "l/secret")}, volume.ErrUnsafe},
		"hard link to a link, then it":   {[]raw{link("../file"), hard("h", "l"), evil("h")}, volume.ErrUnsafe},
		"hard link to nothing":           {[]raw{hard("h", "none")}, volume.ErrUnsafe},
		"hard link to what comes later":  {[]raw{hard("h", "later"), evil("later")}, volume.ErrUnsafe},
		"hard link to itself":            {[]raw{hard("h", "h")}, volume.ErrUnsafe},
		"hard link to a folder":          {[]raw{dir, hard("h", "d")}, unix.EPERM},
		"hard link to the root":          {[]raw{hard("h", "./")}, volume.ErrUnsafe},
		"hard link over a file":          {[]raw{evil("a"), evil("b"), hard("a", "b")}, volume.ErrUnsafe},
		"file twice":                     {[]raw{evil("a"), evil("a")}, volume.ErrUnsafe},
		"file as a folder":               {[]raw{evil("a"), evil("a/b")}, volume.ErrUnsafe},
		"link twice":                     {[]raw{link("a"), link("b")}, volume.ErrUnsafe},
		"long component":                 {[]raw{evil(strings.Repeat("n", 256))}, volume.ErrUnsafe},
		"very long name":                 {[]raw{evil(strings.Repeat("n/", 600<<10))}, volume.ErrUnsafe},
		"long link":                      {[]raw{link(strings.Repeat("x", 5000))}, unix.ENAMETOOLONG},
		"more bytes than promised":       {[]raw{{name: "f", body: strings.Repeat("x", 2000)}}, volume.ErrTooMuch},
		"huge size":                      {[]raw{{name: "f", size: 1 << 50}}, volume.ErrTooMuch},
		"more entries than promised":     {many(101), volume.ErrTooMuch},
		"folders that have no entries":   {[]raw{evil(strings.Repeat("n/", 150) + "f")}, volume.ErrTooMuch},
		"attribute that is too large":    {[]raw{{name: "f", h: tarx.Header{Xattrs: map[string]string{"user.x": strings.Repeat("x", 65537)}}}}, nil},
		"attribute with a long name":     {[]raw{{name: "f", h: tarx.Header{Xattrs: map[string]string{"user." + strings.Repeat("x", 300): "x"}}}}, nil},
		"unknown type":                   {[]raw{{name: "f", typ: 'Z'}}, nil},
		"cut off within a file":          {[]raw{{name: "f", size: 900, body: "x"}}, io.ErrUnexpectedEOF},
		"size of nine exabytes":          {[]raw{{name: "f", size: 1<<63 - 600}}, nil},
		"sum of sizes beyond all bounds": {[]raw{{name: "f", size: 1 << 62}, {name: "g", size: 1 << 62}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			outside, target := world(t, t.TempDir())
			before := around(t, outside)
			for _, old := range []bool{false, true} {
				opts := volume.WithoutOpenat2(volume.WriteOptions{MaxEntries: 100, MaxBytes: 1000, Strict: true}, old)
				_, err := volume.Write(t.Context(), target, bytes.NewReader(tarOf(tc.entries...)), opts)
				if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
					t.Errorf("Write = %v, want %v", err, tc.want)
				}
				if diff := cmp.Diff(before, around(t, outside)); diff != "" {
					t.Fatalf("something outside changed:\n%s", diff)
				}
				if _, err := os.Lstat("/tmp/dentropy-evil"); err == nil {
					t.Fatal("a file was made in /tmp")
				}
				must(t, os.RemoveAll(target))
				must(t, os.Mkdir(target, 0o755))
			}
		})
	}
}

func many(n int) []raw {
	var out []raw
	for i := range n {
		out = append(out, raw{name: fmt.Sprintf("f%06d", i)})
	}
	return out
}

// What looks dangerous and is legal inside a volume stays as it is.
func TestWriteLegal(t *testing.T) {
	needRoot(t)
	outside, target := world(t, t.TempDir())
	before := around(t, outside)
	data := tarOf(
		raw{name: "./", typ: '5', mode: 0o755},
		raw{name: "abs", typ: '2', link: "/etc/shadow"},
		raw{name: "deep/er/file", body: "x", mode: 0o4755},
		raw{name: "deep/", typ: '5', mode: 0o711},
		raw{name: "hard", typ: '1', link: "abs"},
		raw{name: "loop", typ: '2', link: "loop"},
		raw{name: "null", typ: '3', mode: 0o666},
		raw{name: "up", typ: '2', link: "../../../canary"},
		raw{name: "after/the/tree", body: "late", mode: 0o600},
		raw{name: "deep/late", body: "late", mode: 0o600},
	)
	result, err := volume.Write(t.Context(), target, bytes.NewReader(data), volume.WriteOptions{Strict: true})
	must(t, err)
	if diff := cmp.Diff(before, around(t, outside)); diff != "" {
		t.Errorf("something outside changed:\n%s", diff)
	}
	if result.SetID != 1 || result.Devices != 1 {
		t.Errorf("result: setid %d, devices %d, want 1 and 1", result.SetID, result.Devices)
	}
	for name, want := range map[string]string{"abs": "/etc/shadow", "hard": "/etc/shadow", "up": "../../../canary", "loop": "loop"} {
		if got, err := os.Readlink(filepath.Join(target, name)); err != nil || got != want {
			t.Errorf("Readlink(%q) = %q, %v, want %q", name, got, err, want)
		}
	}
	st, err := os.Stat(filepath.Join(target, "deep"))
	must(t, err)
	if st.Mode().Perm() != 0o711 || st.ModTime().Unix() != 1000 {
		t.Errorf("folder that was left and entered again: mode %o, time %v", st.Mode().Perm(), st.ModTime())
	}
	if st, err := os.Stat(filepath.Join(target, "deep", "er")); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("folder without an entry: %v, %v", st.Mode(), err)
	}
	sums, _, err := volume.Hash(t.Context(), target, volume.ReadOptions{})
	must(t, err)
	if sums != result.Sums {
		t.Errorf("sums of a stream in another order: %v, on disk %v", result.Sums, sums)
	}
}

func TestWriteNotEmpty(t *testing.T) {
	target := t.TempDir()
	must(t, os.Mkdir(filepath.Join(target, "lost+found"), 0o700))
	data := tarOf(raw{name: "f", body: "x"})
	if _, err := volume.Write(t.Context(), target, bytes.NewReader(data), volume.WriteOptions{}); err != nil {
		t.Errorf("Write beside lost+found = %v, want nil", err)
	}
	_, err := volume.Write(t.Context(), target, bytes.NewReader(data), volume.WriteOptions{})
	if !errors.Is(err, volume.ErrNotEmpty) {
		t.Errorf("Write over a file = %v, want ErrNotEmpty", err)
	}
}

// A file of an exabyte of nothing costs nothing, or is refused by the file system.
func TestWriteHugeSparse(t *testing.T) {
	for _, size := range []int64{1 << 42, 1 << 62} {
		target := t.TempDir()
		b, err := tarx.AppendHeader(nil, &tarx.Header{Name: "huge", Type: '0', Size: size, Data: []tarx.Extent{}, ModTime: time.Unix(1, 0)})
		must(t, err)
		b = append(b, tarx.Trailer[:]...)
		begin := time.Now()
		_, err = volume.Write(t.Context(), target, bytes.NewReader(b), volume.WriteOptions{})
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("Write(%d zeros) took %v", size, took)
		}
		if st, serr := os.Stat(filepath.Join(target, "huge")); err == nil && (serr != nil || st.Size() != size) {
			t.Errorf("Write(%d zeros): %v, %v", size, st, serr)
		}
	}
}

// zerosReader is a stream of a million entries that nobody holds in memory.
type entriesReader struct{ n, max int }

func (r *entriesReader) Read(p []byte) (int, error) {
	if r.n == r.max {
		return 0, io.EOF
	}
	r.n++
	return copy(p, block(raw{name: fmt.Sprintf("d%d/f%d", r.n/1000, r.n)})), nil
}

func TestWriteMillionEntries(t *testing.T) {
	target := t.TempDir()
	_, err := volume.Write(t.Context(), target, &entriesReader{max: 1e6}, volume.WriteOptions{MaxEntries: 500})
	if !errors.Is(err, volume.ErrTooMuch) {
		t.Errorf("Write = %v, want ErrTooMuch", err)
	}
}

// Nothing is left open, whatever happens.
func TestNoDescriptorsLeft(t *testing.T) {
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(list)
	}
	root := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(root, "a/b/c"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "a/f"), []byte("f"), 0o644))
	run := func() {
		tree, dir := read(t, root, volume.ReadOptions{})
		target := t.TempDir()
		data, err := io.ReadAll(stream(t, dir, tree))
		must(t, err)
		_, err = volume.Write(t.Context(), target, bytes.NewReader(data), volume.WriteOptions{})
		must(t, err)
		target = t.TempDir()
		bad := append(data[:len(data)-1024:len(data)-1024], header(raw{name: "x/y/z/../f"})...)
		if _, err = volume.Write(t.Context(), target, bytes.NewReader(bad), volume.WriteOptions{}); err == nil {
			t.Error("Write of a bad name = nil")
		}
		if _, err = volume.Write(t.Context(), t.TempDir(), bytes.NewReader(data[:1700]), volume.WriteOptions{}); err == nil {
			t.Error("Write of a cut off tar = nil")
		}
	}
	t.Run("warm up", func(*testing.T) { run() })
	before := count()
	t.Run("again", func(t *testing.T) { run() })
	// The segments that the first run's cleanup closes are in neither count.
	if after := count(); after > before+1 {
		t.Errorf("%d descriptors are open, before there were %d", after, before)
	}
}

func FuzzWrite(f *testing.F) {
	f.Add(tarOf(raw{name: "a/b", body: "x"}, raw{name: "l", typ: '2', link: "/"}, raw{name: "h", typ: '1', link: "a/b"}))
	f.Add(tarOf(raw{name: "../x"}, raw{name: "/y"}, raw{name: "d/", typ: '5'}, raw{name: "p", typ: '6'}))
	b, _ := tarx.AppendHeader(nil, &tarx.Header{Name: "s", Type: '0', Size: 4096, Data: []tarx.Extent{{Offset: 512, Length: 512}}, ModTime: time.Unix(1, 5)})
	f.Add(append(append(b, make([]byte, 512)...), tarx.Trailer[:]...))
	f.Fuzz(func(t *testing.T, data []byte) {
		outside, target := world(t, memory(t))
		before := around(t, outside)
		result, err := volume.Write(t.Context(), target, bytes.NewReader(data), volume.WriteOptions{
			MaxEntries: 1000, MaxBytes: 1 << 24, NoDevices: true,
		})
		if diff := cmp.Diff(before, around(t, outside)); diff != "" {
			t.Fatalf("something outside changed:\n%s", diff)
		}
		if err != nil || len(result.Notes) > 0 {
			return
		}
		sums, _, err := volume.Hash(t.Context(), target, volume.ReadOptions{})
		must(t, err)
		if sums != result.Sums {
			t.Errorf("sums: write %v, on disk %v", result.Sums, sums)
		}
	})
}
