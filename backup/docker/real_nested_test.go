package docker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
)

// nestedBinds is an app with a folder, and a folder and a file in that which are mounted
// as well.
func nestedBinds(t *testing.T) *folder {
	b := newBed(t)
	f := &folder{bed: b, dir: filepath.Join(t.TempDir(), "shop")}
	f.write("outer/a", "archive")
	f.write("outer/inner/b", "archive")
	f.write("outer/x.conf", "archive")
	f.id = f.run(spec{
		name: "one", env: []string{"NOTE=/tmp/note"},
		binds: []string{f.dir + "/outer:/outer", f.dir + "/outer/inner:/outer/inner", f.dir + "/outer/x.conf:/outer/x.conf"},
	})
	return f
}

func (f *folder) holds(want map[string]string) {
	f.t.Helper()
	for name, text := range want {
		if got := f.read(name); got != text {
			f.t.Errorf("%s holds %q, want %q", name, got, text)
		}
	}
}

func (f *folder) allLive() map[string]string {
	out := map[string]string{"outer/a": "live", "outer/inner/b": "live", "outer/x.conf": "live"}
	for name, text := range out {
		f.write(name, text)
	}
	return out
}

var replaceAll = backup.Answers{OnConflict: "replace", Allow: []string{"all"}}

// TestRealNestedReplace: all that lies in each other is in the archive.
func TestRealNestedReplace(t *testing.T) {
	f := nestedBinds(t)
	p := f.pack(backup.CaptureOptions{})
	live := f.allLive()
	before := f.tree()
	plan := f.plan(p, replaceAll)
	for _, at := range []string{stepPath, stepHalted, stepMade, backup.StepUndo} {
		j := f.journal()
		j.at = func(_ int, step string) error {
			if step == at {
				return errSpoilt
			}
			return nil
		}
		r, err := f.p.newRestore(plan, p.again(), f.applyOptions(), j)
		f.must(err)
		if _, err = r.run(t.Context()); !errors.Is(err, errSpoilt) {
			t.Fatalf("run = %v, want it cut off at %s", err, at)
		}
		r.c.leaveGuard(t.Context())
		f.must(f.p.Recover(t.Context(), backup.Operation{ID: j.op, Kind: "restore", App: f.tag}, j.list(), nil))
		f.holds(live)
		if got := f.tree(); got != before {
			t.Errorf("after the recovery from %s there are\n%s\nwant\n%s", at, got, before)
		}
		f.until("the old one runs", func() bool { return f.inspect(f.id).State.Running })
	}
	undo, err := f.p.apply(t.Context(), plan, p.again(), f.applyOptions(), f.journal())
	f.must(err)
	f.holds(map[string]string{"outer/a": "archive", "outer/inner/b": "archive", "outer/x.conf": "archive"})
	if got := f.file(f.byName(f.tag+"one").ID, "/outer/inner/b"); got != "archive" {
		t.Errorf("the container sees %q, want what is in the archive", got)
	}
	f.must(f.p.Undo(t.Context(), undo, f.applyOptions(), f.journal()))
	f.holds(live)
	f.must(f.p.Forget(t.Context(), undo))
	f.holds(live)
	if got := f.tree(); got != before {
		t.Errorf("after it is forgotten there are\n%s\nwant\n%s", got, before)
	}
}

// TestRealNestedLive: what lies in a folder that is replaced, and is not in the archive,
// stays.
func TestRealNestedLive(t *testing.T) {
	f := nestedBinds(t)
	p := f.pack(backup.CaptureOptions{ExcludePaths: []string{f.dir + "/outer/inner", f.dir + "/outer/x.conf"}})
	live := f.allLive()
	plan := f.plan(p, replaceAll)
	if w := strings.Join(plan.Warnings, " "); !strings.Contains(w, f.dir+"/outer/inner lies in") {
		t.Errorf("warnings %q, want one about what stays", w)
	}
	opts := f.applyOptions()
	j := f.journal()
	j.at = func(_ int, step string) error {
		if step == backup.StepUndo {
			return errSpoilt
		}
		return nil
	}
	before := f.tree()
	if _, err := f.p.apply(t.Context(), plan, p.again(), opts, j); !errors.Is(err, errSpoilt) || errors.Is(err, backup.ErrLeftStopped) {
		t.Fatalf("apply = %v, want it taken back", err)
	}
	f.holds(live)
	if got := f.tree(); got != before {
		t.Errorf("after it was taken back there are\n%s\nwant\n%s", got, before)
	}
	undo, err := f.p.apply(t.Context(), plan, p.again(), opts, f.journal())
	f.must(err)
	restored := map[string]string{"outer/a": "archive", "outer/inner/b": "live", "outer/x.conf": "live"}
	f.holds(restored)
	if got := f.file(f.byName(f.tag+"one").ID, "/outer/inner/b"); got != "live" {
		t.Errorf("the container sees %q, want the live data", got)
	}
	f.must(f.p.Forget(t.Context(), undo))
	f.holds(restored)
}

// TestRealNestedMount: another file system is mounted where a folder is to be replaced.
func TestRealNestedMount(t *testing.T) {
	for _, at := range []string{"outer/inner", "outer", "outer/a dir/deep"} {
		t.Run(at, func(t *testing.T) {
			b := newBed(t)
			f := &folder{bed: b, dir: filepath.Join(t.TempDir(), "shop")}
			f.write("outer/a", "archive")
			f.id = f.run(spec{name: "one", env: []string{"NOTE=/tmp/note"}, binds: []string{f.dir + "/outer:/outer"}})
			p := f.pack(backup.CaptureOptions{})
			f.must(f.cli.ContainerRemove(t.Context(), f.id, container.RemoveOptions{Force: true}))
			if at == "outer" {
				f.must(os.Remove(filepath.Join(f.dir, "outer/a")))
			}
			point := filepath.Join(f.dir, at)
			f.must(os.MkdirAll(point, 0o755))
			f.asRoot("mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "tmpfs", point)
			t.Cleanup(func() { b.asRootNow("umount", point) })
			f.write(at+"/kept", "live")
			f.run(spec{name: "one", env: []string{"NOTE=/tmp/note"}, binds: []string{f.dir + "/outer:/outer"}})
			before := f.tree()
			plan := f.plan(p, replaceAll)
			_, err := f.p.apply(t.Context(), plan, p.again(), f.applyOptions(), f.journal())
			if err == nil || !strings.Contains(err.Error(), "another file system is mounted at "+point) && !strings.Contains(err.Error(), point+" is where another file system is mounted") {
				t.Errorf("apply = %v, want that %s is in the way", err, point)
			}
			f.holds(map[string]string{at + "/kept": "live"})
			if got := f.tree(); got != before {
				t.Errorf("there are\n%s\nwant\n%s", got, before)
			}
		})
	}
}

// TestRealForgetMount: something was mounted in what an undo keeps.
func TestRealForgetMount(t *testing.T) {
	f := nestedBinds(t)
	p := f.pack(backup.CaptureOptions{})
	f.allLive()
	undo, err := f.p.apply(t.Context(), f.plan(p, replaceAll), p.again(), f.applyOptions(), f.journal())
	f.must(err)
	kept, err := filepath.Glob(f.dir + "/outer.pre-restore-*")
	f.must(err)
	point := filepath.Join(kept[0], "inner")
	f.asRoot("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", point)
	t.Cleanup(func() { f.asRootNow("umount", point) })
	for what, err := range map[string]error{
		"Forget": f.p.Forget(t.Context(), undo), "Undo": f.p.Undo(t.Context(), undo, f.applyOptions(), f.journal()),
	} {
		if err == nil || !strings.Contains(err.Error(), point) {
			t.Errorf("%s = %v, want that %s is in the way", what, err, point)
		}
	}
	f.holds(map[string]string{"outer/a": "archive"})
}

// asRootNow is asRoot where the test's context is over.
func (b *bed) asRootNow(args ...string) {
	b.t.Helper()
	if out, err := rootCommand(context.Background(), args...).CombinedOutput(); err != nil {
		b.t.Errorf("%s: %v\n%s", args, err, out)
	}
}
