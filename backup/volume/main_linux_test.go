package volume_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/volume"
)

// A volume goes through all tasks of a backup and a restore.
func TestTasks(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	oddTree(t, root)
	base := t.TempDir()
	transit := filepath.Join(base, "op")
	vols := []volume.VolumeArg{{ID: "db", Path: root}, {ID: "empty", Path: t.TempDir()}}

	code, out, errs := helper(t.Context(), nil, "measure", volume.MeasureArgs{Volumes: vols, Transit: base})
	if code != 0 {
		t.Fatalf("measure = %d, %s", code, errs)
	}
	var m volume.MeasureResult
	lastLine(t, out, &m)
	if !m.Done || m.Volumes["db"].Files < 40 || m.Volumes["db"].Bytes < 14<<20 || m.Volumes["db"].Bytes > 100<<20 ||
		m.Volumes["empty"].Files != 1 || m.TransitFree <= 0 || m.Rate <= 0 {
		t.Errorf("measure: %+v", m)
	}

	code, out, errs = helper(t.Context(), nil, "read", volume.ReadArgs{Volumes: vols, Transit: transit, Reserve: 1 << 20, Quiesced: true})
	if code != 0 {
		t.Fatalf("read = %d, %s", code, errs)
	}
	var r volume.ReadResult
	lastLine(t, out, &r)
	db := r.Volumes["db"]
	if !r.Done || db.Tree.Hash == "" || db.Segments < 1 || r.Volumes["empty"].Tree.Entries != 1 {
		t.Errorf("read: %+v", r)
	}
	var tree backup.Tree
	code, out, errs = helper(t.Context(), nil, "send", volume.SendArgs{Dir: transit, Files: []string{"db.tree.json"}})
	if code != 0 || int64(len(out)) != db.File.Size {
		t.Fatalf("send = %d, %s, %d bytes, want %d", code, errs, len(out), db.File.Size)
	}
	must(t, json.Unmarshal(out, &tree))
	if tree.Hash != db.Tree.Hash || len(tree.Segments) != db.Segments {
		t.Errorf("tree in transit: %+v", tree)
	}
	code, segments, errs := helper(t.Context(), nil, "send", volume.SendArgs{Dir: transit, Files: []string{"db.tar.zst.00000"}})
	if code != 0 || int64(len(segments)) != tree.Segments[0].Size {
		t.Fatalf("send = %d, %s, %d bytes, want %d", code, errs, len(segments), tree.Segments[0].Size)
	}

	to, again := t.TempDir(), t.TempDir()
	code, out, errs = helper(t.Context(), bytes.NewReader(segments), "write", volume.WriteArgs{
		Path: to, MaxEntries: tree.Entries, MaxBytes: tree.Bytes, MaxStored: tree.Stored, Strict: true,
	})
	if code != 0 {
		t.Fatalf("write = %d, %s", code, errs)
	}
	var w volume.WriteResult
	lastLine(t, out, &w)
	if !w.Done || w.Hash != tree.Hash || w.SetID != tree.Special.SetID || w.SetID != 2 || w.Devices != tree.Special.Devices || w.Devices != 3 {
		t.Errorf("write: %+v", w)
	}
	code, _, errs = helper(t.Context(), nil, "copy", volume.CopyArgs{From: to, To: again, WriteArgs: volume.WriteArgs{Strict: true}})
	if code != 0 {
		t.Fatalf("copy = %d, %s", code, errs)
	}
	code, out, errs = helper(t.Context(), nil, "hash", volume.HashArgs{Path: again})
	var h volume.HashResult
	lastLine(t, out, &h)
	if code != 0 || !h.Done || h.Hash != tree.Hash || h.Contents != tree.Contents {
		t.Errorf("hash = %d, %s, %+v, want %s", code, errs, h, tree.Hash)
	}
	if code, _, errs := helper(t.Context(), nil, "copy", volume.CopyArgs{From: to, To: again}); code != 1 || !strings.Contains(errs, "not empty") {
		t.Errorf("copy onto something = %d, %s", code, errs)
	}
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	for name, args := range map[string][]string{
		"nothing":         nil,
		"no JSON":         {"read"},
		"unknown task":    {"dance", "{}"},
		"bad JSON":        {"hash", "{"},
		"unknown field":   {"hash", `{"path":"/","pth":1}`},
		"bad id":          {"read", `{"transit":"/x","volumes":[{"id":"../x","path":"/"}]}`},
		"no transit":      {"read", `{}`},
		"clean root":      {"clean", `{"dir":"/"}`},
		"clean transit":   {"clean", `{"dir":"/transit"}`},
		"clean elsewhere": {"clean", `{"dir":"` + dir + `"}`},
		"clean by dots":   {"clean", `{"dir":"/transit/../etc"}`},
		"clean beside":    {"clean", `{"dir":"/transit-other"}`},
		"copy into":       {"copy", `{"from":"/a","to":"/a/b"}`},
		"swap names":      {"swap", `{"root":"/","a":"..","b":"x/y"}`},
		"bad map":         {"write", `{"path":"/x","chown_map":["1"]}`},
		"bad timeout":     {"get", `{"url":"http://localhost","timeout":"x"}`},
	} {
		var out, errs bytes.Buffer
		if code := volume.Main(t.Context(), args, strings.NewReader(""), &out, &errs); code != 2 || out.Len() > 0 || errs.Len() == 0 {
			t.Errorf("%s: Main(%q) = %d, %q, %q, want 2 and a reason", name, args, code, out.String(), errs.String())
		}
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}

func TestTaskErrors(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o644))
	for task, args := range map[string]any{
		"measure": volume.MeasureArgs{Volumes: []volume.VolumeArg{{ID: "a", Path: filepath.Join(dir, "none")}}},
		"read":    volume.ReadArgs{Volumes: []volume.VolumeArg{{ID: "a", Path: filepath.Join(dir, "none")}}, Transit: t.TempDir()},
		"send":    volume.SendArgs{Dir: dir, Files: []string{"../x"}},
		"hash":    volume.HashArgs{Path: filepath.Join(dir, "none")},
		"empty":   volume.PathArgs{Path: filepath.Join(dir, "f")},
		"get":     volume.GetArgs{URL: "http://127.0.0.1:1/", Timeout: "2s"},
		"swap":    volume.SwapArgs{Root: dir, A: "a", B: "b"},
	} {
		if code, out, errs := helper(t.Context(), nil, task, args); code != 1 || len(out) > 0 || errs == "" {
			t.Errorf("%s %+v = %d, %q, %q, want 1 and a reason", task, args, code, out, errs)
		}
	}
}

// A task ends when the other side of stdin goes away.
func TestStdinCloses(t *testing.T) {
	pr, pw := io.Pipe()
	blocked := make(chan struct{})
	var errs bytes.Buffer
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(blocked)
		<-r.Context().Done()
	}))
	defer srv.Close()
	go func() {
		<-blocked
		pw.Close()
	}()
	args, _ := json.Marshal(volume.GetArgs{URL: srv.URL, Timeout: "60s"})
	if code := volume.Main(t.Context(), []string{"get", string(args)}, pr, io.Discard, &errs); code != 1 || !strings.Contains(errs.String(), "stdin was closed") {
		t.Errorf("get = %d, %q, want that stdin was closed", code, errs.String())
	}
}

func TestTerminated(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_ = unix.Kill(os.Getpid(), unix.SIGTERM)
		<-r.Context().Done()
	}))
	defer srv.Close()
	if code, out, errs := helper(t.Context(), nil, "get", volume.GetArgs{URL: srv.URL, Timeout: "60s"}); code != 1 || len(out) > 0 {
		t.Errorf("get = %d, %q, %q, want 1", code, out, errs)
	}
}

// The task write ends although nothing comes on stdin any more.
func TestWriteTaskTerminated(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	stdin := readerFunc(func([]byte) (int, error) {
		cancel()
		<-over
		return 0, io.EOF
	})
	if code, out, errs := helper(ctx, stdin, "write", volume.WriteArgs{Path: t.TempDir()}); code != 1 || len(out) > 0 || !strings.Contains(errs, "canceled") {
		t.Errorf("write = %d, %q, %q, want 1", code, out, errs)
	}
}

func TestSwap(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		must(t, os.MkdirAll(filepath.Join(root, name, "_data"), 0o755))
		must(t, os.WriteFile(filepath.Join(root, name, "_data", "who"), []byte(name), 0o644))
	}
	must(t, os.Mkdir(filepath.Join(root, "bare"), 0o755))
	must(t, os.Symlink("a", filepath.Join(root, "link")))
	inodes := func(names ...string) map[string]uint64 {
		code, out, errs := helper(t.Context(), nil, "inode", volume.InodeArgs{Root: root, Names: names})
		if code != 0 {
			t.Fatalf("inode = %d, %s", code, errs)
		}
		var r volume.InodeResult
		lastLine(t, out, &r)
		return r.Inodes
	}
	before := inodes("a", "b", "none", "bare")
	if before["a"] == 0 || before["b"] == 0 || before["none"] != 0 || before["bare"] != 0 {
		t.Errorf("inode: %v", before)
	}
	code, out, errs := helper(t.Context(), nil, "swap", volume.SwapArgs{Root: root, A: "a", B: "b"})
	var r volume.InodeResult
	if code != 0 {
		t.Fatalf("swap = %d, %s", code, errs)
	}
	lastLine(t, out, &r)
	after := inodes("a", "b")
	if after["a"] != before["b"] || after["b"] != before["a"] || r.Inodes["a"] != after["a"] || r.Inodes["b"] != after["b"] {
		t.Errorf("inodes before %v, after %v, said %v", before, after, r.Inodes)
	}
	if who, err := os.ReadFile(filepath.Join(root, "a", "_data", "who")); err != nil || string(who) != "b" {
		t.Errorf("in a there is %q, %v", who, err)
	}
	for _, b := range []string{"none", "bare", "link", "a"} {
		if code, _, errs := helper(t.Context(), nil, "swap", volume.SwapArgs{Root: root, A: "a", B: b}); code == 0 || errs == "" {
			t.Errorf("swap with %q = %d, %q, want an error", b, code, errs)
		}
	}
}

func TestEmpty(t *testing.T) {
	dir := t.TempDir()
	check := func(want bool) {
		t.Helper()
		code, out, errs := helper(t.Context(), nil, "empty", volume.PathArgs{Path: dir})
		var r volume.EmptyResult
		if code != 0 {
			t.Fatalf("empty = %d, %s", code, errs)
		}
		lastLine(t, out, &r)
		if !r.Done || r.Empty != want {
			t.Errorf("empty: %+v, want %v", r, want)
		}
	}
	check(true)
	must(t, os.Mkdir(filepath.Join(dir, "lost+found"), 0o700))
	check(true)
	must(t, os.WriteFile(filepath.Join(dir, ".hidden"), nil, 0o644))
	check(false)
}

func TestCleanAndList(t *testing.T) {
	outside, base := t.TempDir(), t.TempDir()
	keep := filepath.Join(outside, "keep")
	must(t, os.WriteFile(keep, nil, 0o644))
	must(t, os.MkdirAll(filepath.Join(base, "op", "sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(base, "op", "f"), []byte("123"), 0o644))
	must(t, os.Symlink(outside, filepath.Join(base, "op", "out")))
	must(t, os.Symlink(outside, filepath.Join(base, "link")))
	run := func(task, dir string) (int, volume.ListResult) {
		t.Helper()
		args, _ := json.Marshal(volume.DirArgs{Dir: dir})
		var out, errs bytes.Buffer
		code := volume.MainIn(t.Context(), base, []string{task, string(args)}, &out, &errs)
		var r volume.ListResult
		if code == 0 {
			lastLine(t, out.Bytes(), &r)
		}
		return code, r
	}
	code, r := run("list", filepath.Join(base, "op"))
	names := []string{}
	for _, f := range r.Files {
		names = append(names, f.Name)
	}
	slices.Sort(names)
	if code != 0 || !slices.Equal(names, []string{"f", "out", "sub"}) {
		t.Errorf("list = %d, %v", code, names)
	}
	if code, r := run("list", filepath.Join(base, "none")); code != 0 || !r.Missing || len(r.Files) != 0 {
		t.Errorf("list of nothing = %d, %+v", code, r)
	}
	if code, r := run("list", base); code != 0 || len(r.Files) != 2 {
		t.Errorf("list of transit = %d, %+v", code, r)
	}
	if code, _ := run("clean", filepath.Join(base, "link", "keep")); code == 0 {
		t.Error("clean through a link = 0")
	}
	for range 2 { // it can be repeated
		if code, _ := run("clean", filepath.Join(base, "op")); code != 0 {
			t.Errorf("clean = %d", code)
		}
	}
	if code, _ := run("clean", filepath.Join(base, "link")); code != 0 {
		t.Errorf("clean of a link = %d", code)
	}
	if _, err := os.Stat(keep); err != nil {
		t.Errorf("a file outside is gone: %v", err)
	}
	if left, _ := os.ReadDir(base); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestGet(t *testing.T) {
	var host string
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host = r.Host
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, "/else", http.StatusFound)
			return
		}
		w.WriteHeader(http.StatusTeapot)
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer plain.Close()
	defer secure.Close()
	for url, want := range map[string]int{plain.URL: 418, plain.URL + "/moved": 302, secure.URL: 418} {
		code, out, errs := helper(t.Context(), nil, "get", volume.GetArgs{URL: url, HostHeader: "app.example", Timeout: "5s"})
		var r volume.GetResult
		if code != 0 {
			t.Fatalf("get %s = %d, %s", url, code, errs)
		}
		lastLine(t, out, &r)
		if !r.Done || r.Status != want || host != "app.example" {
			t.Errorf("get %s: %+v for host %q, want %d", url, r, host, want)
		}
	}
}
