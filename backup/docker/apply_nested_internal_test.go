package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/volume"
)

// nested is a folder with others in it, on this machine, and a restore that replaces it.
type nested struct {
	t    *testing.T
	base string
	c    *changeover
	// left is how many more changes are made until the power is cut; < 0 is never.
	left int
}

var errCut = errors.New("the power is cut")

// host is the helper.
func (n *nested) host(base string, do []hostStep) (hostResult, error) {
	n.t.Helper()
	var all hostResult
	for _, s := range do {
		if s.Op != "stat" {
			if n.left == 0 {
				return all, errCut
			}
			n.left--
		}
		args, err := json.Marshal(map[string]any{"root": base, "do": []hostStep{s}})
		if err != nil {
			return all, err
		}
		var out, said bytes.Buffer
		if volume.Main(n.t.Context(), []string{"host", string(args)}, nil, &out, &said) != 0 {
			return all, fmt.Errorf("%+v: %s", s, said.String())
		}
		var one hostResult
		if err := json.Unmarshal(out.Bytes(), &one); err != nil {
			return all, err
		}
		all.Stats = append(all.Stats, one.Stats...)
	}
	return all, nil
}

func (n *nested) tree() map[string]string {
	n.t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(n.base, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(p)
		out[strings.TrimPrefix(p, n.base+"/")] = string(text)
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return out
}

func (n *nested) inode(rel string) uint64 {
	n.t.Helper()
	r, err := n.host(n.base, []hostStep{{Op: "stat", A: rel}})
	if err != nil || r.Stats[0].Inode == 0 {
		n.t.Fatalf("stat %s: %+v %v", rel, r.Stats, err)
	}
	return r.Stats[0].Inode
}

// newNested has a folder with another and a file that the archive has, too, with live data
// in it and in that one, and in the live data a folder that is replaced.
func newNested(t *testing.T) *nested {
	t.Helper()
	n := &nested{t: t, base: t.TempDir(), left: -1}
	for name, text := range map[string]string{
		"o/a": "old", "o/in/b": "old", "o/conf": "old", "o/live/c": "live", "o/in/deep/live/d": "live", "o/live/n/e": "old", "beside": "live",
		".stage/o/a": "new", ".stage/in/b": "new", ".stage/conf": "new", ".stage/n/e": "new",
	} {
		p := filepath.Join(n.base, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	// The archive's folder has an empty one where another comes.
	if err := os.Mkdir(filepath.Join(n.base, ".stage/o/live"), 0o755); err != nil {
		t.Fatal(err)
	}
	move := func(rel, stage, keep string, m pathMove) pathMove {
		m.Path, m.Base, m.Rel, m.Stage, m.Keep = filepath.Join(n.base, rel), n.base, rel, ".stage/"+stage, keep
		m.OldInode, m.StageInode = n.inode(rel), n.inode(m.Stage)
		return m
	}
	outer := move("o", "o", "o.pre", pathMove{})
	list := []pathMove{
		outer, move("o/in", "in", "", pathMove{Inside: true}), move("o/conf", "conf", "", pathMove{Inside: true, File: true}),
		move("o/live/n", "n", "o/live/n.pre", pathMove{}),
	}
	for _, rel := range []string{"o/live", "o/in/deep/live"} {
		list = append(list, outer.stay(rel, filepath.Join(n.base, rel), n.inode(rel)))
	}
	sortMoves(list)
	n.c = n.change(list)
	return n
}

func (n *nested) change(list []pathMove) *changeover {
	return &changeover{rec: changeRecord{Paths: list}, hosts: n.host, j: newJournal(), opts: backup.ApplyOptions{Report: func(backup.Progress) {}}}
}

// cuts does something that changes the tree, cut off after each change, takes it back,
// which is cut off after each change as well, and wants all to be as it was.
func cuts(t *testing.T, begin func(t *testing.T) (*nested, *changeover, func() error)) {
	t.Helper()
	for forward := 0; ; forward++ {
		var done bool
		for back := 0; ; back++ {
			n, c, do := begin(t)
			want := n.tree()
			n.left = forward
			err := do()
			if done = err == nil; err != nil && !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			n.left = back
			cut := c.pathsBack(context.Background())
			if cut != nil && !errors.Is(cut, errCut) {
				t.Fatalf("cut off after %d changes: %v", forward, cut)
			}
			if n.left = -1; cut != nil {
				if err := c.pathsBack(context.Background()); err != nil {
					t.Fatalf("cut off after %d changes, and after %d back: %v", forward, back, err)
				}
			}
			if diff := cmp.Diff(want, n.tree()); diff != "" {
				t.Fatalf("cut off after %d changes, and after %d back (-before +after):\n%s", forward, back, diff)
			}
			if cut == nil {
				break
			}
		}
		if done {
			break
		}
	}
}

func TestNestedCutOff(t *testing.T) {
	cuts(t, func(t *testing.T) (*nested, *changeover, func() error) {
		n := newNested(t)
		return n, n.c, func() error { return n.c.placePaths(context.Background()) }
	})
}

func TestNestedUndoCutOff(t *testing.T) {
	cuts(t, func(t *testing.T) (*nested, *changeover, func() error) {
		n := newNested(t)
		if err := n.c.placePaths(context.Background()); err != nil {
			t.Fatal(err)
		}
		c := n.change(nil)
		z := &undoing{d: undoDetail{Paths: n.c.rec.Paths}, c: c}
		return n, c, func() error { return z.movePaths(context.Background()) }
	})
}

// What an archive has is new, what it has not is as it was, and an undo brings the old
// back.
func TestNestedThereAndBack(t *testing.T) {
	n := newNested(t)
	if err := n.c.placePaths(context.Background()); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"o/a": "new", "o/in/b": "new", "o/conf": "new", "o/live/c": "live", "o/in/deep/live/d": "live", "o/live/n/e": "new", "beside": "live",
		"o.pre/a": "old", "o.pre/in/b": "old", "o.pre/conf": "old", "o/live/n.pre/e": "old",
	}
	if diff := cmp.Diff(want, n.tree()); diff != "" {
		t.Fatalf("after the restore (-want +got):\n%s", diff)
	}
	// Written after the restore.
	if err := os.WriteFile(filepath.Join(n.base, "o/live/c"), []byte("later"), 0o600); err != nil {
		t.Fatal(err)
	}
	z := &undoing{d: undoDetail{Paths: n.c.rec.Paths}, c: n.change(nil)}
	if err := z.movePaths(context.Background()); err != nil {
		t.Fatal(err)
	}
	want = map[string]string{
		"o/a": "old", "o/in/b": "old", "o/conf": "old", "o/live/c": "later", "o/in/deep/live/d": "live", "o/live/n/e": "old", "beside": "live",
		"o.pre/a": "new", "o.pre/in/b": "new", "o.pre/conf": "new", "o/live/n.pre/e": "new",
	}
	if diff := cmp.Diff(want, n.tree()); diff != "" {
		t.Errorf("after the undo (-want +got):\n%s", diff)
	}
	aside, left := z.d.leftovers()
	if len(aside) != 2 || len(left) != 0 {
		t.Errorf("left over are %q and %q, want two folders that are set aside", aside, left)
	}
}

func TestAround(t *testing.T) {
	c := &changeRecord{Paths: []pathMove{
		{Path: "/s/p", Merge: true, OldInode: 1}, {Path: "/s/p/o", Rel: "p/o", OldInode: 2}, {Path: "/s/p/o/live", Stay: true},
		{Path: "/s/p/o/live/n", Rel: "p/o/live/n", OldInode: 3},
	}}
	for at, want := range map[string]string{
		"/s/p/x": " false", "/s/p/o": " false", "/s/p/o/in": "p/o true", "/s/p/o/live/x": "p/o false", "/s/p/o/live/n": "p/o false",
		"/s/p/o/live/n/x": "p/o/live/n true", "/s/p/other": " false",
	} {
		outer, inside := c.around(at)
		got := fmt.Sprint(inside)
		if outer != nil {
			got = outer.Rel + " " + got
		} else {
			got = " " + got
		}
		if got != want {
			t.Errorf("around(%q) = %q, want %q", at, got, want)
		}
	}
}
