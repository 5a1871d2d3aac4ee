package volume_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/volume"
)

// netRaw is the value of security.capability that setcap cap_net_raw+ep writes.
var netRaw = []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// What reading counts is what writing counts of the same tree.
func TestSpecial(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	mode := func(name string, m uint32, size int) {
		t.Helper()
		must(t, os.MkdirAll(filepath.Dir(at(name)), 0o755))
		must(t, os.WriteFile(at(name), make([]byte, size), 0o600))
		must(t, unix.Chmod(at(name), m))
	}
	mode("plain", 0o755, 1)
	mode("bin/su", 0o4755, 3)
	mode("bin/wall", 0o2755, 2<<20) // in several chunks
	mode("cap", 0o755, 0)
	must(t, unix.Setxattr(at("cap"), "security.capability", netRaw, 0))
	for i := range 40 { // by several readers
		must(t, os.Link(at("bin/su"), at("link"+strconv.Itoa(i))))
	}
	must(t, os.Mkdir(at("group"), 0o755))
	must(t, unix.Chmod(at("group"), 0o2775)) // a folder's bit gives no rights
	must(t, os.Symlink("bin/su", at("symlink")))
	must(t, unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, os.Link(at("null"), at("null2")))
	must(t, unix.Mknod(at("loop"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 0))))
	must(t, unix.Mkfifo(at("fifo"), 0o666))

	want := &backup.Special{SetID: 3, Devices: 2, Examples: []string{"bin/su", "bin/wall"}}
	tree, dir := read(t, root, volume.ReadOptions{Readers: 4})
	if diff := cmp.Diff(want, tree.Special); diff != "" {
		t.Errorf("Special (-want +got):\n%s", diff)
	}
	result, err := volume.Write(t.Context(), t.TempDir(), stream(t, dir, tree), volume.WriteOptions{Strict: true})
	must(t, err)
	if result.SetID != want.SetID || result.Devices != want.Devices {
		t.Errorf("written: setid %d, devices %d, want %d and %d", result.SetID, result.Devices, want.SetID, want.Devices)
	}

	tree, _ = read(t, t.TempDir(), volume.ReadOptions{})
	if diff := cmp.Diff(&backup.Special{}, tree.Special); diff != "" {
		t.Errorf("Special of an empty folder (-want +got):\n%s", diff)
	}
}

// Names are chosen by others: examples are short lines of plain text.
func TestSpecialExamples(t *testing.T) {
	for _, test := range []struct{ name, want string }{
		{"bin/su", "bin/su"},
		{"über/su", "über/su"},
		{"a\x1b[2Jb", `"a\x1b[2Jb"`},
		{"a\nb", `"a\nb"`},
		{"\xff", `"\xff"`},
		{strings.Repeat("d", 100) + "/" + strings.Repeat("e", 100), "…" + strings.Repeat("d", 16) + "/" + strings.Repeat("e", 100)},
		{strings.Repeat("\xff", 200), ""}, // only bounds
		{strings.Repeat("ü", 100), ""},
		{strings.Repeat("\u202e", 60), ""},
	} {
		root := t.TempDir()
		path := filepath.Join(root, test.name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, nil, 0o600))
		must(t, unix.Chmod(path, 0o4755))
		tree, _ := read(t, root, volume.ReadOptions{})
		if tree.Special.SetID != 1 || len(tree.Special.Examples) != 1 {
			t.Fatalf("%q: %+v, want one file", test.name, tree.Special)
		}
		got := tree.Special.Examples[0]
		if test.want != "" && got != test.want {
			t.Errorf("%q: example %s, want %s", test.name, got, test.want)
		}
		if len(got) > backup.MaxExample || !utf8.ValidString(got) || strings.ContainsAny(got, "\x1b\n\u202e") || len(got) < 40 && test.want == "" {
			t.Errorf("%q: example %q is too long, too short, or no plain text", test.name, got)
		}
	}
}

// A stream made by others is counted as it comes.
func TestWriteCountsGroups(t *testing.T) {
	needRoot(t)
	data := tarOf(raw{name: "./", typ: '5', mode: 0o755}, raw{name: "g", body: "x", mode: 0o2700}, raw{name: "p", body: "x", mode: 0o700})
	result, err := volume.Write(t.Context(), t.TempDir(), bytes.NewReader(data), volume.WriteOptions{})
	must(t, err)
	if result.SetID != 1 || result.Devices != 0 {
		t.Errorf("result: %+v, want one file of a group", result)
	}
}
