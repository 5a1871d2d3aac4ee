package docker

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
)

// hostileApp is the app of archived whose web has other settings, and mounts what the
// archive says.
func hostileApp(host string, mounts ...backup.Mount) (*backup.Manifest, *backup.App) {
	m, app := archived("")
	app.Containers[1].Settings = json.RawMessage(`{"Config":{},"HostConfig":{` + host + `},"Networks":{}}`)
	app.Containers[1].Mounts = mounts
	return m, app
}

const driverOfRoot = `"Type":"volume","Target":"/h","VolumeOptions":{"DriverConfig":{"Name":"local","Options":{"type":"none","o":"bind","device":"/"}}}`

// TestHostileMounts are archives that lie about what their containers mount.
func TestHostileMounts(t *testing.T) {
	at := func(volume string) []backup.Mount { return []backup.Mount{{Volume: volume, Target: "/h"}} }
	lie := func(_ *backup.Manifest, app *backup.App) {
		app.Volumes = append(app.Volumes, backup.Volume{ID: "lie", Kind: backup.Tmpfs, Name: "/h", Action: backup.Skip})
	}
	noProject := func(m *backup.Manifest, app *backup.App) {
		app.Project = nil
		app.Volumes = slices.DeleteFunc(app.Volumes, func(v backup.Volume) bool { return v.Kind == backup.ProjectTree })
		delete(m.Trees, "project")
	}
	volume := func(edit func(*backup.Volume)) func(*backup.Manifest, *backup.App) {
		return func(_ *backup.Manifest, app *backup.App) { edit(&app.Volumes[0]) }
	}
	for _, test := range []struct {
		name   string
		host   string
		mounts []backup.Mount
		edit   func(*backup.Manifest, *backup.App)
		ans    backup.Answers
		risk   string // a kind that needs acceptance
		text   string // of the risk, or of the refusal without one
	}{
		{name: "a bind is said to be in memory", host: `"Binds":["/:/h"]`, mounts: at("lie"), edit: lie, text: "of the kind"},
		{name: "a mount is said to be in memory", host: `"Mounts":[{"Type":"bind","Source":"/","Target":"/h"}]`, mounts: at("lie"), edit: lie, text: "of the kind"},
		{name: "a volume is said to be in memory", host: `"Mounts":[{` + driverOfRoot + `}]`, mounts: at("lie"), edit: lie, text: "of the kind"},
		{name: "a bind of the project's folder, and no project", host: `"Binds":["/:/h"]`, mounts: at("project"), ans: backup.Answers{ProjectDir: "none"}, risk: riskPath, text: "it sees / of the host at /h"},
		{name: "a project's folder without a project", edit: func(_ *backup.Manifest, app *backup.App) { app.Project = nil }, text: "cannot be a volume"},
		{name: "a path that is not listed", host: `"Binds":["/:/h"]`, edit: noProject, risk: riskPath, text: "it sees / of the host at /h"},
		{name: "fields in other letters", host: `"Bind` + "ſ" + `":["/:/h"]`, text: "other letters"},
		{name: "an unlisted volume", host: `"Binds":["bank_data:/h"]`, text: "does not list"},
		{name: "an unlisted volume, as a mount", host: `"Mounts":[{"Type":"volume","Source":"bank_data","Target":"/h"}]`, text: "does not list"},
		{name: "a listed target that becomes anonymous", host: `"Mounts":[{"Type":"volume","Target":"/h"}]`, mounts: at("lie"), edit: lie, text: "of the kind"},
		{name: "an anonymous volume that is the host", host: `"Mounts":[{` + driverOfRoot + `}]`, risk: riskPath, text: "is / of the host"},
		{name: "bind with too much", host: `"Binds":["/:/h:ro:x"]`, text: "has the bind"},
		{name: "bind at no path", host: `"Binds":["/:h"]`, text: "has the bind"},
		{name: "mount at no path", host: `"Mounts":[{"Type":"tmpfs","Target":"h"}]`, text: "has a mount at"},
		{name: "relative path", host: `"Mounts":[{"Type":"bind","Source":"..","Target":"/h"}]`, text: "of the host"},
		{name: "unknown type", host: `"Mounts":[{"Type":"host","Source":"/","Target":"/h"}]`, text: "of the type"},
		{name: "another image's files", host: `"Mounts":[{"Type":"image","Source":"bank:1","Target":"/h"}]`, risk: riskVolume, text: "it sees the image bank:1"},
		{name: "the cluster's volume", host: `"Mounts":[{"Type":"cluster","Source":"bank","Target":"/h"}]`, risk: riskVolume, text: "cluster's volume bank"},
		{name: "another container's link", host: `"Links":["/bank:/shop-web-1/b"]`, risk: riskNetwork, text: `linked to the container "bank"`},
		{name: "fields of the host in Config", edit: func(_ *backup.Manifest, app *backup.App) {
			app.Containers[1].Settings = json.RawMessage(`{"Config":{"volumedriver":"x"},"HostConfig":{}}`)
		}, text: "Config holds"},
		{name: "volume of an unknown kind", edit: volume(func(v *backup.Volume) { v.Kind = "host" }), text: "is not known"},
		{name: "volume whose name is a path", edit: volume(func(v *backup.Volume) { v.Name = "/etc" }), text: "cannot be a volume"},
		{name: "path that is a name", edit: volume(func(v *backup.Volume) { v.Kind = backup.Bind }), text: "cannot be a volume"},
		{name: "path with dots", edit: volume(func(v *backup.Volume) { v.Kind, v.Name = backup.Bind, "/srv/shop/../bank" }), text: "cannot be a volume"},
		{name: "memory with data", edit: volume(func(v *backup.Volume) { v.Kind, v.Name = backup.Tmpfs, "/data" }), text: "cannot be a volume"},
		{name: "relative project", edit: func(m *backup.Manifest, app *backup.App) {
			noProject(m, app)
			app.Project = &backup.Project{Name: "shop", Dir: "../etc"}
		}, text: "folder of a project"},
		{name: "overlay of the host's files", edit: volume(func(v *backup.Volume) {
			v.Options = map[string]string{"type": "overlay", "device": "", "o": "lowerdir=/etc:/root"}
		}), risk: riskPath, text: "overlay"},
		{name: "bind that calls itself NFS", edit: volume(func(v *backup.Volume) {
			v.Options = map[string]string{"type": "nfs", "device": "/", "o": "bind"}
		}), risk: riskPath, text: "is / of the host"},
		{name: "bind that calls itself memory", edit: volume(func(v *backup.Volume) {
			v.Options = map[string]string{"type": "tmpfs", "device": "/", "o": "rbind"}
		}), risk: riskPath, text: "is / of the host"},
		{name: "driver of a path", edit: volume(func(v *backup.Volume) {
			v.Driver, v.Options = "persist", map[string]string{"mountpoint": "/etc"}
		}), risk: riskVolume, text: "/etc"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, app := hostileApp(test.host, test.mounts...)
			if test.edit != nil {
				test.edit(m, app)
			}
			p, _, err := planRestore(m, app, test.ans, bare())
			if test.risk == "" {
				if err == nil || !strings.Contains(err.Error(), test.text) {
					t.Errorf("planRestore = %v, want it refused with %q", err, test.text)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(p.Risks, func(r backup.Risk) bool {
				return r.Kind == test.risk && !r.Allowed && strings.Contains(r.Text, test.text)
			}) {
				t.Errorf("risks %+v, want %s with %q, to be accepted", p.Risks, test.risk, test.text)
			}
		})
	}
}

// TestForeignNetwork: a network of another app is not joined without a question.
func TestForeignNetwork(t *testing.T) {
	for _, settings := range []string{
		`{"Config":{},"HostConfig":{"NetworkMode":"bank_default"},"Networks":{}}`,
		`{"Config":{},"HostConfig":{"NetworkMode":"shop_default"},"Networks":{"shop_default":{},"bank_default":{}}}`,
		`{"Config":{},"HostConfig":{"NetworkMode":"0123456789ab"},"Networks":{}}`,
	} {
		for _, api := range []string{"1.41", "1.48"} {
			m, app := archived("")
			app.Containers[1].Settings = json.RawMessage(settings)
			f := bare()
			f.api = api
			f.networks = []netFact{{id: strings.Repeat("0123456789ab", 5), name: "bank_default", driver: "bridge"}}
			p, _, err := planRestore(m, app, backup.Answers{}, f)
			if err != nil {
				t.Fatal(err)
			}
			if got := open(p); got != "risk host-network" {
				t.Errorf("API %s, %s: open are %q, want the network to be accepted", api, settings, got)
			}
		}
	}
}

// TestForeignFolder: a folder that is there already is not the app's since an archive says
// so.
func TestForeignFolder(t *testing.T) {
	const dir = "/home/alice/documents"
	for _, test := range []struct {
		name string
		ans  backup.Answers
		have *pathFact // of the folder
		tree bool      // the folder is in the archive
		here string    // the folder of the app that is here
		open string
	}{
		{name: "it is there", have: &pathFact{exists: true, dir: true}, open: "risk host-path"},
		{name: "it is there, and files are added", have: &pathFact{exists: true, dir: true}, tree: true, open: "risk host-path"},
		{name: "it is a file", have: &pathFact{exists: true, empty: true}, open: "risk host-path"},
		{name: "nobody knows", open: "risk host-path"},
		{name: "it is empty", have: &pathFact{exists: true, dir: true, empty: true}},
		{name: "it is not there", have: &pathFact{}},
		{name: "it is made", have: &pathFact{}, tree: true},
		{name: "the user has named it", have: &pathFact{exists: true, dir: true}, ans: backup.Answers{ProjectDir: dir + "/"}},
		{name: "it is the folder of the app that is replaced", have: &pathFact{exists: true, dir: true}, here: dir, ans: backup.Answers{OnConflict: "replace"}},
		{name: "the app that is replaced has another", have: &pathFact{exists: true, dir: true}, here: "/srv/shop", ans: backup.Answers{OnConflict: "replace"}, open: "risk host-path"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, app := hostileApp(`"Binds":["` + dir + `:/h"]`)
			app.Project.Dir = dir
			app.Volumes[2].Name = dir
			app.Volumes = slices.Delete(app.Volumes, 1, 2)
			app.Containers[0].Mounts = app.Containers[0].Mounts[:1]
			app.Containers[0].Settings = json.RawMessage(`{"Config":{},"HostConfig":{"Binds":["shop_data:/data"]},"Networks":{}}`)
			delete(m.Trees, "conf")
			if !test.tree {
				app.Volumes = app.Volumes[:1]
				delete(m.Trees, "project")
			}
			f := bare()
			f.paths = map[string]pathFact{}
			if test.have != nil {
				f.paths[dir] = *test.have
			}
			if test.here != "" {
				f.containers = []contFact{{id: "1", name: "shop-db-1", app: "shop", dir: test.here}}
			}
			p, _, err := planRestore(m, app, test.ans, f)
			if err != nil {
				t.Fatal(err)
			}
			if got := open(p); got != test.open {
				t.Errorf("open are %q, want %q (%+v)", got, test.open, p.Risks)
			}
		})
	}
}

// TestNamedDriverIsDropped: from a named volume that is gone by the time it is mounted, an
// engine must not make what the archive says.
func TestNamedDriverIsDropped(t *testing.T) {
	m, app := hostileApp(`"Mounts":[{`+strings.Replace(driverOfRoot, `"Target"`, `"Source":"shop_data","Target"`, 1)+`}]`, backup.Mount{Volume: "data", Target: "/h"})
	_, d, err := planRestore(m, app, backup.Answers{}, bare())
	if err != nil {
		t.Fatal(err)
	}
	got, _ := oneContainer(t, app, d, "shop-web-1", "1.41", nil)
	if len(got.HostConfig.Mounts) != 1 || got.HostConfig.Mounts[0].Source != "shop_data" || got.HostConfig.Mounts[0].VolumeOptions.DriverConfig != nil {
		t.Errorf("mounts %+v, want shop_data without a driver", got.HostConfig.Mounts)
	}
}
