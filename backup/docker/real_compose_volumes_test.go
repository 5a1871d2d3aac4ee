package docker

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/volume"

	"github.com/dentropy/dentropycloud/backup"
)

// volumesFile is a project with volumes of all kinds. HOST is a folder of the host, TAG the
// project.
const volumesFile = `
services:
  one:
    image: IMAGE
    environment: { NOTE: /plain/note }
    volumes: [ "plain:/plain", "opts:/opts", "named:/named", "other:/other", "ext:/ext", "./conf:/conf", "nfs:/nfs", "kept:/kept" ]
volumes:
  plain: {}
  opts: { driver_opts: { type: none, o: bind, device: HOST/opts }, labels: { a: b } }
  named: { name: TAG_named }
  other: { driver: local, driver_opts: { type: none, o: bind, device: HOST/other } }
  ext: { external: true, name: TAGext }
  nfs: {}
  kept: {}
`

// mounts gives what a container has at its targets, by target.
func (b *bed) mounts(id string) map[string]string {
	b.t.Helper()
	out := map[string]string{}
	for _, m := range b.inspect(id).Mounts {
		if out[m.Destination] = m.Name; m.Name == "" {
			out[m.Destination] = m.Source
		}
	}
	return out
}

// upQuietly runs "up" twice, says yes to all that it asks, and fails the test where it
// makes a volume anew, or has something to say about one.
func (f *folder) upQuietly(project string, files ...string) {
	f.t.Helper()
	args := append(files, "up", "-d", "--yes")
	for range 2 {
		out := f.compose(project, args...)
		for _, bad := range []string{"olume", "ecreate (", "data will be lost", "external"} {
			if strings.Contains(out, bad) {
				f.t.Errorf("compose says\n%s\nwant nothing about volumes", out)
				break
			}
		}
	}
}

// Compose takes restored volumes as they are, whatever they have become: it makes none
// anew, even where all its questions are answered with yes.
func TestRealComposeVolumes(t *testing.T) {
	b := newBed(t)
	f := &folder{bed: b, dir: filepath.Join(t.TempDir(), b.tag)}
	host := t.TempDir()
	for _, name := range []string{"opts", "other", "elsewhere"} {
		f.must(os.Mkdir(filepath.Join(host, name), 0o755))
	}
	text := strings.NewReplacer("IMAGE", b.image, "HOST", host, "TAG", b.tag).Replace(volumesFile)
	f.write("compose.yaml", text)
	f.write("conf/x", "x\n")
	for _, name := range []string{"ext", "mine"} {
		_, err := f.cli.VolumeCreate(t.Context(), volume.CreateOptions{Name: b.tag + name})
		f.must(err)
	}
	f.compose(b.tag, "up", "-d")
	t.Cleanup(func() { f.compose(b.tag, "down", "-v") })
	id := f.members(b.tag)["one"]
	for _, target := range []string{"opts", "named", "other", "ext", "nfs", "kept"} {
		f.exec(id, "/app", "note", "/"+target+"/is", target)
	}
	p := f.pack(backup.CaptureOptions{IncludePaths: []string{b.tag + "ext", host + "/opts", host + "/other"}})
	f.compose(b.tag, "down", "-v")
	f.must(f.cli.VolumeRemove(context.WithoutCancel(t.Context()), b.tag+"ext", true))
	f.must(os.RemoveAll(f.dir))
	f.must(os.Remove(filepath.Join(host, "opts", "is")))
	f.must(os.Remove(filepath.Join(host, "other", "is")))

	t.Run("unchanged", func(t *testing.T) {
		plan := f.plan(p, backup.Answers{Allow: allowPaths})
		if !plan.Ready() {
			t.Fatalf("plan is not ready: %+v %+v", plan.Conflicts, plan.Risks)
		}
		_, err := f.p.apply(t.Context(), plan, p.again(), f.applyOptions(), newJournal())
		f.must(err)
		before := f.members(b.tag)["one"]
		f.upQuietly(b.tag)
		now := f.members(b.tag)["one"]
		if now != before {
			t.Error("compose made the container anew")
		}
		for _, target := range []string{"opts", "named", "other", "ext", "nfs", "kept"} {
			if got := f.file(now, "/"+target+"/is"); got != target+"\n" {
				t.Errorf("/%s holds %q, want what was restored", target, got)
			}
		}
	})

	t.Run("changed", func(t *testing.T) {
		f.must(os.Remove(filepath.Join(host, "opts", "is")))
		name := b.tag + "new"
		answers := backup.Answers{
			Name: name, Allow: allowPaths,
			Volumes: map[string]backup.VolumeAnswer{
				b.tag + "ext":    {Name: name + "ext"},
				f.dir + "/conf":  {Name: name + "conf"},
				b.tag + "_other": {Driver: "local", Options: map[string]string{"type": "none", "o": "bind", "device": host + "/elsewhere"}},
				b.tag + "_kept":  {Name: b.tag + "mine", Existing: true},
				b.tag + "_nfs":   {Path: host + "/path"},
			},
		}
		f.compose(b.tag, "down", "-v")
		for _, old := range []string{"opts", "other"} {
			_ = os.Remove(filepath.Join(host, old, "is"))
		}
		plan := f.plan(p, answers)
		if !plan.Ready() {
			t.Fatalf("plan is not ready: %+v %+v", plan.Conflicts, plan.Risks)
		}
		_, err := f.p.apply(t.Context(), plan, p.again(), f.applyOptions(), newJournal())
		f.must(err)
		g := &folder{bed: b, dir: filepath.Join(filepath.Dir(f.dir), name)}
		files := []string{"-f", "compose.yaml", "-f", overrideFile}
		t.Cleanup(func() { g.compose(name, append(files, "down", "-v")...) })
		restored := g.mounts(g.members(name)["one"])
		g.upQuietly(name, files...)
		now := g.members(name)["one"]
		for target, want := range restored {
			if got := g.mounts(now)[target]; got != want {
				t.Errorf("%s is %s, want %s as restored", target, got, want)
			}
		}
		for _, target := range []string{"opts", "named", "other", "ext", "nfs"} {
			if got := g.file(now, "/"+target+"/is"); got != target+"\n" {
				t.Errorf("/%s holds %q, want what was restored", target, got)
			}
		}
		if got := g.file(now, "/conf/x"); got != "x\n" {
			t.Errorf("the folder that became a volume holds %q", got)
		}

		// What Compose makes anew by itself is as it was restored.
		g.compose(name, append(files, "down", "-v")...)
		g.compose(name, append(files, "up", "-d")...)
		now = g.members(name)["one"]
		for target, want := range restored {
			if got := g.mounts(now)[target]; got != want {
				t.Errorf("after down and up %s is %s, want %s", target, got, want)
			}
		}
		for _, target := range []string{"opts", "other", "ext", "nfs"} { // named, of the local driver, was the project's to remove
			if got := g.file(now, "/"+target+"/is"); got != target+"\n" {
				t.Errorf("after down and up /%s holds %q, want what was restored", target, got)
			}
		}
	})

	t.Run("NFS", func(t *testing.T) {
		options := map[string]string{"type": "nfs", "o": "addr=192.0.2.1,rw", "device": ":/export"}
		name := b.tag + "nas"
		plan := f.plan(p, backup.Answers{Name: name, Allow: allowPaths, NoStart: true, Volumes: map[string]backup.VolumeAnswer{
			b.tag + "_plain": {Driver: "local", Options: options, Empty: true}, b.tag + "ext": {Name: name + "ext"},
			b.tag + "_opts": {Empty: true, Driver: "local"}, b.tag + "_other": {Empty: true, Driver: "local"},
		}})
		if !plan.Ready() {
			t.Fatalf("plan is not ready: %+v %+v", plan.Conflicts, plan.Risks)
		}
		_, err := f.p.apply(t.Context(), plan, p.again(), f.applyOptions(), newJournal())
		f.must(err)
		g := &folder{bed: b, dir: filepath.Join(filepath.Dir(f.dir), name)}
		files := []string{"-f", "compose.yaml", "-f", overrideFile}
		t.Cleanup(func() { g.compose(name, append(files, "down", "-v")...) })
		g.compose(name, append(files, "up", "--no-start", "--yes")...)
		v, err := f.cli.VolumeInspect(t.Context(), name+"_plain")
		f.must(err)
		if v.Options["device"] != ":/export" || v.Labels[labelRestore] == "" {
			t.Errorf("the volume has options %v and labels %v: want it as it was restored", v.Options, v.Labels)
		}
		g.compose(name, append(files, "down", "-v")...)
		g.compose(name, append(files, "up", "--no-start")...)
		if v, err = f.cli.VolumeInspect(t.Context(), name+"_plain"); err != nil || v.Options["o"] != options["o"] || v.Options["device"] != ":/export" {
			t.Errorf("the volume that compose makes has options %v, %v, want %v", v.Options, err, options)
		}
		if v, err = f.cli.VolumeInspect(t.Context(), name+"_other"); err != nil || len(v.Options) > 0 {
			t.Errorf("the volume that compose makes has options %v, %v, want none", v.Options, err)
		}
	})
}
