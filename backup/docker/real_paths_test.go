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

// folder is an app that keeps its data in its project's folder.
type folder struct {
	*bed
	dir string
	id  string
}

func newFolder(t *testing.T) *folder {
	b := newBed(t)
	f := &folder{bed: b, dir: filepath.Join(t.TempDir(), "shop")}
	f.write("compose.yaml", "services: {}\n")
	f.write(".env", "A=1\n")
	f.write("conf/app.conf", "as in the archive\n")
	f.write("data/kept", "as in the archive\n")
	f.id = f.start()
	return f
}

func (f *folder) start() string {
	return f.run(spec{
		name: "one", binds: []string{f.dir + "/data:/data", f.dir + "/conf/app.conf:/app.conf:ro"}, env: []string{"NOTE=/data/note"},
		labels: map[string]string{labelWorkingDir: f.dir, labelConfigFiles: f.dir + "/compose.yaml"},
	})
}

func (f *folder) write(name, text string) {
	f.t.Helper()
	p := filepath.Join(f.dir, name)
	f.must(os.MkdirAll(filepath.Dir(p), 0o755))
	f.must(os.WriteFile(p, []byte(text), 0o600))
}

func (f *folder) read(name string) string {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join(f.dir, name))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// tree lists all files below the folder's parent.
func (f *folder) tree() string {
	f.t.Helper()
	var out []string
	top := filepath.Dir(f.dir)
	f.must(filepath.WalkDir(top, func(p string, d os.DirEntry, err error) error {
		if err == nil && p != top {
			out = append(out, strings.TrimPrefix(p, top))
		}
		return err
	}))
	return strings.Join(out, "\n")
}

var allowPaths = []string{riskPath}

func TestRealRestoreFolder(t *testing.T) {
	f := newFolder(t)
	p := f.pack(backup.CaptureOptions{})
	f.must(f.cli.ContainerRemove(t.Context(), f.id, container.RemoveOptions{Force: true}))
	f.must(os.RemoveAll(f.dir))

	// A folder below a temporary one is none that an archive may choose.
	if plan := f.plan(p, backup.Answers{}); plan.Ready() {
		t.Error("an archive may write anywhere on the host")
	}
	plan := f.plan(p, backup.Answers{Allow: allowPaths})
	if !plan.Ready() {
		t.Fatalf("plan is not ready: %+v %+v", plan.Conflicts, plan.Risks)
	}
	undo, err := f.p.apply(t.Context(), plan, p, f.applyOptions(), f.journal())
	f.must(err)
	f.running(f.byName(f.tag + "one").ID)
	for name, want := range map[string]string{
		"compose.yaml": "services: {}\n", ".env": "A=1\n", "conf/app.conf": "as in the archive\n", "data/kept": "as in the archive\n",
	} {
		if got := f.read(name); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	if tree := f.tree(); strings.Contains(tree, "restore") {
		t.Errorf("something is left:\n%s", tree)
	}
	f.must(f.p.Undo(t.Context(), undo, f.applyOptions(), f.journal()))
}

func TestRealRestoreFolderElsewhere(t *testing.T) {
	f := newFolder(t)
	p := f.pack(backup.CaptureOptions{})
	there := f.dir + "-2/deep"
	plan := f.plan(p, backup.Answers{
		Name: f.tag + "b", ProjectDir: there, Allow: allowPaths, Containers: map[string]string{f.tag + "one": f.tag + "b-one-1"},
	})
	if !plan.Ready() {
		t.Fatalf("plan is not ready: %+v %+v", plan.Conflicts, plan.Risks)
	}
	_, err := f.p.apply(t.Context(), plan, p, f.applyOptions(), f.journal())
	f.must(err)
	f.running(f.id, f.byName(f.tag+"b-one-1").ID)
	in := f.byName(f.tag + "b-one-1")
	if len(in.Mounts) != 2 || !strings.HasPrefix(in.Mounts[0].Source, there+"/") || in.Config.Labels[labelWorkingDir] != there {
		t.Errorf("mounts %v in %s, want all below %s", in.Mounts, in.Config.Labels[labelWorkingDir], there)
	}
	text, err := os.ReadFile(filepath.Join(there, overrideFile))
	if err != nil || !strings.Contains(string(text), f.tag+"b-one-1") {
		t.Errorf("adapted compose file %q, %v: want the new name in it", text, err)
	}
}

func TestRealReplaceFolder(t *testing.T) {
	f := newFolder(t)
	p := f.pack(backup.CaptureOptions{})
	f.write("conf/app.conf", "changed since\n")
	f.write(".env", "A=2\n")
	f.write("data/kept", "changed since\n")
	f.write("data/new", "made since\n")
	before := f.tree()
	changed := func() {
		t.Helper()
		for name, want := range map[string]string{".env": "A=2\n", "conf/app.conf": "changed since\n", "data/kept": "changed since\n", "data/new": "made since\n"} {
			if got := f.read(name); got != want {
				t.Errorf("%s holds %q, want %q", name, got, want)
			}
		}
	}
	// Another host, so that an adapted compose file is written.
	answers := backup.Answers{OnConflict: "replace", Allow: allowPaths, Routes: map[string]backup.RouteAnswer{"one": {Host: "a.example.com"}}}
	plan := f.plan(p, answers)
	if !plan.Ready() {
		t.Fatalf("plan is not ready: %+v %+v", plan.Conflicts, plan.Risks)
	}

	opts := f.applyOptions()
	opts.Probe = func(context.Context, string) error { return nil }
	j := f.journal()
	j.at = func(_ int, step string) error {
		if step == backup.StepUndo {
			return errSpoilt // all is done, and taken back
		}
		return nil
	}
	if _, err := f.p.apply(t.Context(), plan, p.again(), opts, j); !errors.Is(err, errSpoilt) || errors.Is(err, backup.ErrLeftStopped) {
		t.Fatalf("apply = %v, want it taken back", err)
	}
	changed()
	if got := f.tree(); got != before {
		t.Errorf("after it was taken back there are\n%s\nwant\n%s", got, before)
	}
	f.running(f.id)

	// The same, with the process gone.
	j = f.journal()
	j.at = func(_ int, step string) error {
		if step == stepMade {
			return errSpoilt
		}
		return nil
	}
	r, err := f.p.newRestore(plan, p.again(), opts, j)
	f.must(err)
	if _, err = r.run(t.Context()); !errors.Is(err, errSpoilt) {
		t.Fatalf("run = %v", err)
	}
	f.must(f.p.Recover(t.Context(), backup.Operation{ID: j.op, Kind: "restore", App: f.tag}, j.list(), nil))
	changed()
	if got := f.tree(); got != before {
		t.Errorf("after the recovery there are\n%s\nwant\n%s", got, before)
	}

	undo, err := f.p.apply(t.Context(), plan, p.again(), opts, f.journal())
	f.must(err)
	for name, want := range map[string]string{".env": "A=1\n", "conf/app.conf": "as in the archive\n", "data/kept": "as in the archive\n"} {
		if got := f.read(name); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	if got := f.read("data/new"); got == "made since\n" {
		t.Error("a file that is not in the archive is in the restored folder")
	}
	if got := f.read(overrideFile); !strings.Contains(got, "a.example.com") {
		t.Errorf("%s holds %q, want the new host", overrideFile, got)
	}
	f.must(f.p.Undo(t.Context(), undo, opts, f.journal()))
	changed()
	f.running(f.byName(f.tag + "one").ID)
	if _, err := os.Stat(filepath.Join(f.dir, overrideFile)); !os.IsNotExist(err) {
		t.Errorf("the adapted compose file is there after the undo: %v", err)
	}
	if w := f.warnings(); strings.Contains(w, f.dir+",") || strings.Contains(w, f.dir+";") || !strings.Contains(w, f.dir+".pre-restore-") {
		t.Errorf("warnings %q, want what was set aside to be removed, and not the project's folder", w)
	}
	f.must(f.p.Forget(t.Context(), undo))
	if got := f.tree(); got != before {
		t.Errorf("after it is forgotten there are\n%s\nwant\n%s", got, before)
	}
}

// TestRealRestoreLinkOut: an archive brings a symbolic link in its project's folder, and
// a mount that goes through it.
func TestRealRestoreLinkOut(t *testing.T) {
	f := newFolder(t)
	f.must(os.Symlink("/etc", filepath.Join(f.dir, "way")))
	p := f.pack(backup.CaptureOptions{})
	f.must(f.cli.ContainerRemove(t.Context(), f.id, container.RemoveOptions{Force: true}))
	f.must(os.RemoveAll(f.dir))
	for i := range p.app.Volumes {
		v := &p.app.Volumes[i]
		if v.Name == f.dir+"/data" {
			v.Name, v.Action = f.dir+"/way/ssl", backup.Reference
			delete(p.m.Trees, v.ID)
		}
	}
	p.app.Containers[0].Settings = []byte(strings.ReplaceAll(string(p.app.Containers[0].Settings), f.dir+"/data", f.dir+"/way/ssl"))
	answers := backup.Answers{ProjectDir: f.dir, Volumes: map[string]backup.VolumeAnswer{f.dir + "/way/ssl": {Existing: true}}}
	plan := f.plan(p, answers)
	for i := range plan.Conflicts { // it is not there before the restore
		plan.Conflicts[i].Resolved = true
	}
	if !plan.Ready() {
		t.Fatalf("plan is not ready: %+v", plan.Risks)
	}
	before := f.tree()
	_, err := f.p.apply(t.Context(), plan, p, f.applyOptions(), f.journal())
	if err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("apply = %v, want that a mount does not leave the project's folder", err)
	}
	if got := f.tree(); got != before {
		t.Errorf("there are\n%s\nwant\n%s", got, before)
	}
}
