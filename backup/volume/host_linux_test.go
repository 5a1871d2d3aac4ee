package volume

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup/tarx"
)

// runHost runs steps of the task host below a folder.
func runHost(t *testing.T, root string, do ...HostStep) (HostResult, error) {
	t.Helper()
	var out bytes.Buffer
	h := &helper{stdout: &out}
	if err := h.host(context.Background(), HostArgs{Root: root, Do: do}); err != nil {
		return HostResult{}, err
	}
	var r HostResult
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || !r.Done {
		t.Fatalf("result %s: %v", out.Bytes(), err)
	}
	return r, nil
}

func put(t *testing.T, root, name, text string) {
	t.Helper()
	p := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func get(root, name string) string {
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return "?"
	}
	return string(text)
}

func TestHostMoves(t *testing.T) {
	root := t.TempDir()
	put(t, root, "old/f", "old")
	put(t, root, "stage/new/f", "new")
	r, err := runHost(t, root,
		HostStep{Op: "stat", A: "old"}, HostStep{Op: "stat", A: "none/deep"}, HostStep{Op: "exchange", A: "stage/new", B: "old"},
		HostStep{Op: "mkdir", A: "a/b"}, HostStep{Op: "rename", A: "stage/new", B: "a/b/kept"}, HostStep{Op: "rmdir", A: "stage"},
		HostStep{Op: "rmdir", A: "a"}, HostStep{Op: "touch", A: "a/file"}, HostStep{Op: "put", A: "a/text", Text: "x"}, HostStep{Op: "stat", A: "stage"},
	)
	if err != nil {
		t.Fatal(err)
	}
	if st := r.Stats; !st[0].Dir || st[0].Empty || st[0].Inode == 0 || st[1].Exists || st[2].Exists {
		t.Errorf("stats %+v", st)
	}
	if get(root, "old/f") != "new" || get(root, "a/b/kept/f") != "old" || get(root, "a/file") != "" || get(root, "a/text") != "x" {
		t.Error("files are not where they should be")
	}
	if _, err := runHost(t, root, HostStep{Op: "rename", A: "old", B: "a/b/kept"}); err == nil {
		t.Error("rename goes over what is there")
	}
	if _, err := runHost(t, root, HostStep{Op: "put", A: "a/text", Text: "y"}); err == nil {
		t.Error("put goes over what is there")
	}
	if _, err := runHost(t, root, HostStep{Op: "remove", A: "a"}, HostStep{Op: "remove", A: "none"}); err != nil || get(root, "a/text") != "?" {
		t.Errorf("remove: %v", err)
	}
}

func TestHostStaysInside(t *testing.T) {
	out, root := t.TempDir(), t.TempDir()
	put(t, out, "secret", "kept")
	if err := os.Symlink(out, filepath.Join(root, "way")); err != nil {
		t.Fatal(err)
	}
	put(t, root, "f", "mine")
	for _, s := range []HostStep{
		{Op: "remove", A: "way/secret"}, {Op: "rename", A: "f", B: "way/f"}, {Op: "exchange", A: "f", B: "way/secret"},
		{Op: "mkdir", A: "way/x"}, {Op: "touch", A: "way/x"}, {Op: "put", A: "way/x", Text: "x"}, {Op: "remove", A: "../x"}, {Op: "remove", A: "/etc/x"},
		{Op: "remove", A: "."}, {Op: "remove", A: ""}, {Op: "merge", A: "way", B: "."}, {Op: "rename", A: "f", B: "a/../../x"}, {Op: "wipe", A: "f"},
	} {
		if _, err := runHost(t, root, s); err == nil {
			t.Errorf("%+v was done", s)
		}
	}
	if get(out, "secret") != "kept" || get(root, "f") != "mine" {
		t.Error("something outside was touched")
	}
	r, err := runHost(t, root, HostStep{Op: "stat", A: "way"}, HostStep{Op: "stat", A: "way/secret"})
	if err != nil || !r.Stats[0].Link || !r.Stats[1].Link || r.Stats[1].Exists {
		t.Errorf("stats %+v, %v: want that both are links", r.Stats, err)
	}
	// A link itself is removed, not what it leads to.
	if _, err := runHost(t, root, HostStep{Op: "remove", A: "way"}); err != nil || get(out, "secret") != "kept" {
		t.Errorf("remove of a link: %v", err)
	}
}

func TestHostMerge(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"a/same": "x", "b/same": "x", "a/other": "x", "b/other": "y", "a/new/deep/f": "1", "a/dir/same": "x", "b/dir/same": "x",
		"a/dir/new": "1", "b/only": "1", "a/kind": "1", "b/kind/f": "1",
	} {
		put(t, root, name, text)
	}
	r, err := runHost(t, root, HostStep{Op: "merge", A: "a", B: "b"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range r.Merge {
		if m.There {
			m.Path += "!"
		}
		got = append(got, m.Path)
	}
	if want := "dir/new kind! new other!"; strings.Join(got, " ") != want {
		t.Errorf("merge tells of %v, want %s", got, want)
	}
}

// A FIFO of the name of a file does not hold up who opens it.
func TestHostTouchFIFO(t *testing.T) {
	root := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(root, "way"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := runHost(t, root, HostStep{Op: "touch", A: "way"}); err == nil {
		t.Error("touch of a FIFO = nil, want an error")
	}
	// Nor does one that somebody reads.
	fd, err := unix.Open(filepath.Join(root, "way"), unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(fd)
	if _, err := runHost(t, root, HostStep{Op: "touch", A: "way"}); err == nil {
		t.Error("touch of a FIFO that is read = nil, want an error")
	}
}

func TestHostMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	root := t.TempDir()
	put(t, root, "a dir/deep/f", "1")
	point := filepath.Join(root, "a dir/deep")
	if err := unix.Mount("tmpfs", point, "tmpfs", 0, ""); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(point, 0) })
	r, err := runHost(t, root, HostStep{Op: "mounts"}, HostStep{Op: "stat", A: "."}, HostStep{Op: "stat", A: "a dir/deep"})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Mounts) != 1 || r.Mounts[0] != "a dir/deep" {
		t.Errorf("mounts %q, want one", r.Mounts)
	}
	if top, in := r.Stats[0], r.Stats[1]; !top.Dir || top.Inode == 0 || top.Dev == in.Dev {
		t.Errorf("stats %+v, want two file systems", r.Stats)
	}
}

func TestMountsBelow(t *testing.T) {
	const info = `22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /v/host/a\040b\134c rw - tmpfs tmpfs rw
31 30 0:40 / /v/host/a\040b\134c rw - tmpfs tmpfs rw
32 22 0:41 / /v/host rw - tmpfs tmpfs rw
33 22 0:42 / /v/hostel/x rw - tmpfs tmpfs rw
odd
`
	got := mountsBelow(info, "/v/host")
	if len(got) != 1 || got[0] != `a b\c` {
		t.Errorf("mountsBelow = %q, want one", got)
	}
}

func TestServerName(t *testing.T) {
	for header, want := range map[string]string{"a.example.com": "a.example.com", "a.example.com:8443": "a.example.com", "[2001:db8::1]": "2001:db8::1", "[2001:db8::1]:443": "2001:db8::1", "": ""} {
		if got := serverName(header); got != want {
			t.Errorf("serverName(%q) = %q, want %q", header, got, want)
		}
	}
}

// A file that is given another name while the tree is read: all the names that it had when
// it was first seen have been, and a reader has left its content to them.
func TestLinkedMeanwhile(t *testing.T) {
	r := newReading(ReadOptions{})
	f := newFramer(r, io.Discard, nil)
	c := &chunk{link: &linked{key: fileKey{}, nlink: 3, follows: true, header: &tarx.Header{Name: "c", Type: tarx.TypeFile}}, last: true}
	if err := f.chunk(c); err != nil {
		t.Fatalf("chunk = %v, want a note", err)
	}
	notes, _ := r.notes.take()
	if len(notes) != 1 || notes[0].Path != "c" || notes[0].Kind != "changed" {
		t.Errorf("notes %+v, want one that it was changed", notes)
	}
	if f.skipping || f.tree.Entries != 0 {
		t.Errorf("skipping %v, %d entries: want that it is left out", f.skipping, f.tree.Entries)
	}
	r.opts.Quiesced = true
	if err := r.torn(); err == nil {
		t.Error("torn = nil, want that the tree is read again")
	}
}
