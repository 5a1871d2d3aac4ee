package docker

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	"github.com/google/go-cmp/cmp"

	"github.com/dentropy/dentropycloud/backup"
)

func TestRealCapture(t *testing.T) {
	b := newBed(t)
	ctx := t.Context()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"compose.yaml": "services: {}\n", ".env": "SECRET=x\n", "data/rows": "1\n", "one.conf": "a=b\n", "notes.txt": "n\n",
	} {
		b.must(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		b.must(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	project := map[string]string{labelWorkingDir: dir, labelConfigFiles: filepath.Join(dir, "compose.yaml"), labelEnvFiles: filepath.Join(dir, ".env")}
	with := func(more map[string]string) map[string]string {
		out := map[string]string{"traefik.enable": "true", "dentropy.host": "shop.example.com", "other": "x"}
		for k, v := range project {
			out[k] = v
		}
		for k, v := range more {
			out[k] = v
		}
		return out
	}
	net, err := b.cli.NetworkCreate(ctx, b.tag+"front", network.CreateOptions{
		Driver: "bridge", Internal: true, Attachable: true, Labels: map[string]string{labelProject: b.tag, "n": "1"},
		Options: map[string]string{"com.docker.network.bridge.enable_icc": "true"},
		IPAM:    &network.IPAM{Config: []network.IPAMConfig{{Subnet: "10.213.250.0/24", Gateway: "10.213.250.9"}}},
	})
	b.must(err)
	options := map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=4m"}
	_, err = b.cli.VolumeCreate(ctx, volume.CreateOptions{Name: b.tag + "fast", DriverOpts: options, Labels: map[string]string{"v": "2"}})
	b.must(err)
	shared := b.vol("shared")
	other := b.run(spec{name: "other", labels: map[string]string{labelProject: "x" + b.tag}, binds: []string{shared + ":/s"}})
	timeout := 7
	db := b.run(spec{
		name: "db", labels: with(map[string]string{labelDependsOn: ""}), env: []string{"PASSWORD=very secret"}, cmd: []string{"/app", "run"},
		binds: []string{filepath.Join(dir, "data") + ":/data", filepath.Join(dir, "one.conf") + ":/etc/one.conf:ro", "/etc/hostname:/host/name:ro", shared + ":/s"},
		edit: func(c *container.Config, h *container.HostConfig) {
			c.Volumes = map[string]struct{}{"/anon": {}}
			c.StopTimeout, c.StopSignal, c.Hostname = &timeout, "SIGTERM", "dbhost"
			c.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "/app", "healthy"}, Interval: time.Second}
			h.Mounts = []mount.Mount{{Type: mount.TypeVolume, Source: b.tag + "fast", Target: "/fast"}, {Type: mount.TypeTmpfs, Target: "/scratch2"}}
			h.Tmpfs = map[string]string{"/scratch": "size=1m"}
			h.ExtraHosts, h.Sysctls, h.CapAdd = []string{"a:10.0.0.1"}, map[string]string{"net.ipv4.ip_forward": "1"}, []string{"NET_ADMIN"}
			h.RestartPolicy.Name, h.ShmSize, h.NetworkMode = "unless-stopped", 1<<21, container.NetworkMode(b.tag+"front")
		},
		net: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{b.tag + "front": {
			Aliases: []string{"database"}, IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: "10.213.250.77"},
		}}},
	})
	side := b.run(spec{name: "side", labels: with(nil), edit: func(_ *container.Config, h *container.HostConfig) {
		h.NetworkMode = container.NetworkMode("container:" + db)
	}})
	app := b.capture(backup.CaptureOptions{})

	b.checkSettings(app.Containers[0], db)
	var settings settingsOf
	b.must(json.Unmarshal(app.Containers[1].Settings, &settings))
	if app.Containers[1].ID != side || string(settings.HostConfig.NetworkMode) != "container:"+b.tag+"db" || len(app.Containers[1].DependsOn) != 1 || settings.Config.Hostname != "" {
		t.Errorf("side: mode %s, depends on %v, host name %q", settings.HostConfig.NetworkMode, app.Containers[1].DependsOn, settings.Config.Hostname)
	}
	if r := app.Containers[0].Routes; len(r) != 2 {
		t.Errorf("routes %v, want two labels", r)
	}
	if app.Source.Arch == "" || app.Source.HostID == "" || !strings.HasPrefix(app.Source.Engine, "docker ") {
		t.Errorf("source %+v", app.Source)
	}
	if len(app.Networks) != 1 {
		t.Fatalf("networks %+v, want one", app.Networks)
	}
	b.checkNetwork(app.Networks[0], net.ID)
	b.checkVolumes(app, options, other)
	b.checkTrees(app)

	if _, err := b.p.Capture(ctx, "nothing", backup.CaptureOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want fs.ErrNotExist", err)
	}
	list, err := b.p.Apps(ctx)
	b.must(err)
	for _, a := range list {
		if a.Name == b.tag && (a.Kind != kindCompose || a.Running != 2 || len(a.Containers) != 2 || len(a.Volumes) < 6) {
			t.Errorf("app %+v", a)
		}
	}
}

// checkSettings holds captured settings against what the engine says.
func (b *bed) checkSettings(c backup.Container, id string) {
	b.t.Helper()
	var got settingsOf
	b.must(json.Unmarshal(c.Settings, &got))
	in := b.inspect(id)
	if diff := cmp.Diff(*in.Config, got.Config); diff != "" {
		b.t.Errorf("Config (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(*in.HostConfig, got.HostConfig); diff != "" {
		b.t.Errorf("HostConfig (-want +got):\n%s", diff)
	}
	ep := got.Networks[b.tag+"front"]
	if ep.IPAMConfig == nil || ep.IPAMConfig.IPv4Address != "10.213.250.77" || ep.NetworkID != "" || ep.MacAddress != "" || strings.Join(ep.Aliases, " ") != "database" {
		b.t.Errorf("network %+v, want the address and alias that were asked for, and nothing else", ep)
	}
}

func (b *bed) checkNetwork(n backup.Network, id string) {
	b.t.Helper()
	var opts network.CreateOptions
	b.must(json.Unmarshal(n.Settings, &opts))
	if !opts.Internal || !opts.Attachable || opts.Options["com.docker.network.bridge.enable_icc"] != "true" || opts.Labels["n"] != "1" ||
		len(opts.IPAM.Config) != 1 || opts.IPAM.Config[0].Gateway != "10.213.250.9" || n.External || n.Subnets[0] != "10.213.250.0/24" || strings.Contains(string(n.Settings), id) {
		b.t.Errorf("network %+v with %s", n, n.Settings)
	}
}

func (b *bed) checkVolumes(app *backup.App, options map[string]string, other string) {
	b.t.Helper()
	want := map[string]string{
		"fast": "named data include", "shared": "named shared include", "anon": "anonymous data include", "data": "bind data include", "one.conf": "file data include",
		"hostname": "file system reference", "scratch": "tmpfs system skip", "scratch2": "tmpfs system skip", "project": "project project include",
	}
	for _, v := range app.Volumes {
		name := strings.TrimPrefix(strings.TrimPrefix(v.ID, b.tag), "db-")
		if got := string(v.Kind) + " " + v.Class + " " + string(v.Action); want[name] != got {
			b.t.Errorf("volume %s is %s, want %s", v.ID, got, want[name])
		}
		delete(want, name)
		switch name {
		case "fast":
			if diff := cmp.Diff(options, v.Options); diff != "" || v.Labels["v"] != "2" || !v.External {
				b.t.Errorf("%+v", v)
			}
		case "shared":
			if len(v.UsedBy) != 1 || v.UsedBy[0] != "x"+b.tag {
				b.t.Errorf("shared is used by %v, want the app of %s", v.UsedBy, other)
			}
		case "project":
			if len(v.Exclude) != 2 {
				b.t.Errorf("the project excludes %v, want the folder and the file that are volumes", v.Exclude)
			}
		}
	}
	for name := range want {
		b.t.Errorf("there is no volume %s", name)
	}
	if !strings.Contains(strings.Join(app.Warnings, "\n"), "is also used by") {
		b.t.Errorf("warnings %q, want one about the shared volume", app.Warnings)
	}
}

// checkTrees reads the app and looks at what each volume held.
func (b *bed) checkTrees(app *backup.App) {
	b.t.Helper()
	opts := b.options()
	est, err := b.p.Estimate(b.t.Context(), app, opts)
	b.must(err)
	z, err := b.p.Freeze(b.t.Context(), app, est, opts, newJournal())
	b.must(err)
	files := map[string]int64{}
	for id, tree := range z.Trees() {
		files[strings.TrimPrefix(strings.TrimPrefix(id, b.tag), "db-")] = tree.Files
	}
	want := map[string]int64{"fast": 0, "shared": 0, "anon": 0, "data": 1, "one.conf": 1, "project": 3}
	if diff := cmp.Diff(want, files); diff != "" {
		b.t.Errorf("files (-want +got):\n%s", diff)
	}
	b.must(z.Close(b.t.Context()))
}

// A project's folder that is not on the engine's host, one that is too large, and a folder
// for archives inside a volume.
func TestRealProjectFolder(t *testing.T) {
	b := newBed(t)
	dir := t.TempDir()
	b.must(os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte("x"), 0o644))
	b.must(os.WriteFile(filepath.Join(dir, "video"), make([]byte, smallProject+1<<20), 0o644))
	id := b.run(spec{name: "a", labels: map[string]string{labelWorkingDir: dir, labelConfigFiles: filepath.Join(dir, "compose.yaml")}})
	app := b.capture(backup.CaptureOptions{})
	est, err := b.p.Estimate(t.Context(), app, b.options())
	b.must(err)
	if v := app.Volumes[0]; len(v.Only) == 0 || est.Bytes > 1<<20 || !strings.Contains(b.warnings(), "--include") {
		t.Errorf("%+v of %d bytes, warnings %q: want the compose files only", v, est.Bytes, b.warnings())
	}
	app = b.capture(backup.CaptureOptions{IncludePaths: []string{dir}})
	est, err = b.p.Estimate(t.Context(), app, b.options())
	b.must(err)
	if est.Bytes < smallProject {
		t.Errorf("%d bytes, want all of the folder", est.Bytes)
	}
	opts := b.options()
	opts.Avoid = []string{filepath.Join(dir, "backups")}
	if _, err = b.p.Estimate(t.Context(), app, opts); err == nil || !strings.Contains(err.Error(), "hold itself") {
		t.Errorf("error %v, want that the backup would hold itself", err)
	}
	b.must(b.cli.ContainerRemove(t.Context(), id, container.RemoveOptions{Force: true}))
	b.run(spec{name: "a", labels: map[string]string{labelWorkingDir: "/not/here", labelConfigFiles: "/not/here/compose.yaml"}})
	app = b.capture(backup.CaptureOptions{})
	_, err = b.p.Estimate(t.Context(), app, b.options())
	b.must(err)
	if v := app.Volumes[0]; v.Action != backup.Skip || !strings.Contains(b.warnings(), "not on the engine's host") {
		t.Errorf("%+v, warnings %q: want it left out", v, b.warnings())
	}
}
