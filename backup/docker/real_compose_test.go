package docker

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/dentropy/dentropycloud/backup"
)

// composeFile is a project with what compose looks at when it decides what has changed.
const composeFile = `
services:
  db:
    image: IMAGE
    volumes: [ "data:/data", "./conf:/conf:ro", "/anon" ]
    environment: { NOTE: /data/note, PASSWORD: "$$secret" }
    healthcheck: { test: [ "CMD", "/app", "healthy" ], interval: 1s }
    networks: { back: { aliases: [ database ] }, default: {} }
  web:
    image: IMAGE
    depends_on: { db: { condition: service_healthy } }
    volumes: [ "data:/data:ro" ]
    ports: [ "127.0.0.1:18080:80" ]
    labels: { dentropy.host: a.example.com, dentropy.port: "80" }
    restart: unless-stopped
volumes: { data: {} }
networks: { back: { internal: true } }
`

// compose runs Docker Compose on a project.
func (f *folder) compose(project string, args ...string) string {
	f.t.Helper()
	program := os.Getenv("DENTROPY_COMPOSE")
	if program == "" {
		f.t.Skip("DENTROPY_COMPOSE names no Docker Compose")
	}
	cmd := exec.CommandContext(context.WithoutCancel(f.t.Context()), program, append([]string{"--ansi", "never", "--progress", "plain", "-p", project}, args...)...)
	cmd.Dir = f.dir
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+os.Getenv("DOCKER_TEST_HOST"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		f.t.Fatalf("compose %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// members lists the ids of a project's containers, by service.
func (f *folder) members(project string) map[string]string {
	f.t.Helper()
	list, err := f.cli.ContainerList(f.t.Context(), container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", labelProject+"="+project))})
	f.must(err)
	out := map[string]string{}
	for _, s := range list {
		out[s.Labels[labelService]] = s.ID
	}
	return out
}

func TestRealComposeAdopts(t *testing.T) {
	b := newBed(t)
	f := &folder{bed: b, dir: filepath.Join(t.TempDir(), b.tag)}
	f.write("compose.yaml", strings.ReplaceAll(composeFile, "IMAGE", b.image))
	f.write("conf/x", "x\n")
	f.compose(b.tag, "up", "-d")
	t.Cleanup(func() { f.compose(b.tag, "down") })
	p := f.pack(backup.CaptureOptions{})
	f.compose(b.tag, "down", "-v")
	f.must(os.RemoveAll(f.dir))

	plan := f.plan(p, backup.Answers{Allow: allowPaths})
	if !plan.Ready() {
		t.Fatalf("plan is not ready: %+v %+v", plan.Conflicts, plan.Risks)
	}
	_, err := f.p.apply(t.Context(), plan, p.again(), f.applyOptions(), newJournal())
	f.must(err)
	before := f.members(b.tag)
	out := f.compose(b.tag, "up", "-d")
	if after := f.members(b.tag); len(before) != 2 || after["db"] != before["db"] || after["web"] != before["web"] {
		t.Errorf("compose made containers anew: %v, want %v\n%s", after, before, out)
	}
	if strings.Contains(out, "ecreat") || strings.Contains(out, "Creat") || strings.Contains(out, "exist") {
		t.Errorf("compose says\n%s\nwant that all runs", out)
	}

	// Under another name, beside the first.
	name := b.tag + "new"
	plan = f.plan(p, backup.Answers{
		Name: name, Allow: allowPaths, Ports: map[string]string{"web:80": "127.0.0.1:18081"},
		Routes: map[string]backup.RouteAnswer{"web": {Host: "b.example.com"}}, Volumes: map[string]backup.VolumeAnswer{b.tag + "_data": {Name: name + "fresh"}},
	})
	if !plan.Ready() {
		t.Fatalf("plan is not ready: %+v %+v", plan.Conflicts, plan.Risks)
	}
	_, err = f.p.apply(t.Context(), plan, p.again(), f.applyOptions(), newJournal())
	f.must(err)
	if w := f.warnings(); !strings.Contains(w, overrideFile) {
		t.Errorf("warnings %q do not say how to go on with compose", w)
	}
	other := &folder{bed: b, dir: filepath.Join(filepath.Dir(f.dir), name)}
	t.Cleanup(func() { other.compose(name, "down", "-v") })
	other.compose(name, "-f", "compose.yaml", "-f", overrideFile, "up", "-d")
	ids := other.members(name)
	in := other.inspect(ids["web"])
	if in.Config.Labels["dentropy.host"] != "b.example.com" || in.HostConfig.PortBindings["80/tcp"][0].HostPort != "18081" || len(in.HostConfig.PortBindings["80/tcp"]) != 1 {
		t.Errorf("labels %v, ports %v: want those of the answers", in.Config.Labels, in.HostConfig.PortBindings)
	}
	if got := other.file(ids["db"], "/data/note"); strings.Count(got, "start") < 2 {
		t.Errorf("the volume holds %q, want what was restored", got)
	}
}
