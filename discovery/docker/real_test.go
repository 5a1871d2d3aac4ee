package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"

	"github.com/dentropy/dentropycloud/discovery"
	"github.com/dentropy/dentropycloud/discovery/docker"
	"github.com/dentropy/dentropycloud/discovery/sourcetest"
)

// realEngine is a client of the engine at DOCKER_TEST_HOST, and an image there that
// serves on port 80. "scripts/docker-engine start DIR" starts one.
type realEngine struct {
	t   *testing.T
	cli *client.Client
	tag string // of the image; begins the names of all containers
}

func newRealEngine(t *testing.T) *realEngine {
	t.Helper()
	host := os.Getenv("DOCKER_TEST_HOST")
	if host == "" {
		t.Skip("DOCKER_TEST_HOST names no Docker Engine")
	}
	// An engine may want more than this client would offer by itself.
	cli, err := client.NewClientWithOpts(client.WithHost(host), client.WithVersion(os.Getenv("DOCKER_MIN_API_VERSION")), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	e := &realEngine{t: t, cli: cli, tag: fmt.Sprintf("watchtest%d", time.Now().UnixNano())}
	bin := filepath.Join(t.TempDir(), "serve")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./testdata/serve")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the server: %v\n%s", err, out)
	}
	text, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	if err := w.WriteHeader(&tar.Header{Name: "serve", Mode: 0o755, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := cli.ImageImport(t.Context(), image.ImportSource{Source: &files, SourceName: "-"}, e.tag, image.ImportOptions{Changes: []string{`CMD ["/serve", "80"]`, "EXPOSE 80"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, out); err != nil {
		t.Fatal(err)
	}
	_ = out.Close()
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		_, err := cli.ImageRemove(ctx, e.tag, image.RemoveOptions{Force: true})
		if err != nil {
			t.Error(err)
		}
		_ = cli.Close()
	})
	return e
}

// create makes a container that ends with the test.
func (e *realEngine) create(name string, labels map[string]string, edit func(*container.Config, *container.HostConfig)) string {
	e.t.Helper()
	cfg := &container.Config{Image: e.tag, Labels: labels}
	hc := &container.HostConfig{}
	if edit != nil {
		edit(cfg, hc)
	}
	made, err := e.cli.ContainerCreate(e.t.Context(), cfg, hc, nil, nil, e.tag+name)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		// It may be gone already.
		_ = e.cli.ContainerRemove(context.WithoutCancel(e.t.Context()), made.ID, container.RemoveOptions{Force: true})
	})
	return made.ID
}

func (e *realEngine) must(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

func (e *realEngine) start(id string) {
	e.t.Helper()
	e.must(e.cli.ContainerStart(e.t.Context(), id, container.StartOptions{}))
}

func (e *realEngine) ip(id, network string) string {
	e.t.Helper()
	in, err := e.cli.ContainerInspect(e.t.Context(), id)
	e.must(err)
	if n := in.NetworkSettings.Networks[network]; n != nil {
		return n.IPAddress + ":80"
	}
	return ""
}

func TestRealEngine(t *testing.T) {
	e := newRealEngine(t)
	ctx := t.Context()
	src, err := docker.New(docker.Config{Endpoint: os.Getenv("DOCKER_TEST_HOST")}, discovery.SourceOptions{Name: "docker:real", Dialects: []discovery.Dialect{sourcetest.Labels{}}})
	if err != nil {
		t.Fatal(err)
	}
	e.start(e.create("early", map[string]string{"test.host": "early.example.com"}, nil))
	rec, _ := sourcetest.Watch(t, src.Quick())
	b := &bench{t: t, rec: rec}
	rec.WaitState(t, e.tag+"early", discovery.Running)

	shop := e.tag + "shop"
	id := e.create("shop", map[string]string{"test.host": "shop.example.com"}, func(_ *container.Config, hc *container.HostConfig) {
		hc.RestartPolicy.Name = "on-failure"
	})
	rec.WaitState(t, shop, discovery.Created)
	e.start(id)
	rec.WaitState(t, shop, discovery.Running)
	b.waitAddress(shop, e.ip(id, "bridge"))
	e.must(e.cli.ContainerPause(ctx, id))
	rec.WaitState(t, shop, discovery.Paused)
	e.must(e.cli.ContainerUnpause(ctx, id))
	rec.WaitState(t, shop, discovery.Running)
	e.must(e.cli.ContainerKill(ctx, id, "KILL"))
	rec.WaitState(t, shop, discovery.Stopped)
	if o, _ := rec.Named(shop); o.Detail != "exited with code 137" || o.Since.IsZero() {
		t.Errorf("detail %q since %v after a kill, want the exit code and a time", o.Detail, o.Since)
	}
	e.start(id)
	rec.WaitState(t, shop, discovery.Running)
	e.must(e.cli.ContainerRestart(ctx, id, container.StopOptions{}))
	b.waitAddress(shop, e.ip(id, "bridge"))
	rec.WaitState(t, shop, discovery.Running)

	net, err := e.cli.NetworkCreate(ctx, "a"+e.tag, network.CreateOptions{})
	e.must(err)
	t.Cleanup(func() { _ = e.cli.NetworkRemove(context.WithoutCancel(ctx), net.ID) })
	e.must(e.cli.NetworkConnect(ctx, net.ID, id, nil))
	b.waitAddress(shop, e.ip(id, "a"+e.tag)) // by name before bridge
	e.must(e.cli.NetworkDisconnect(ctx, net.ID, id, true))
	b.waitAddress(shop, e.ip(id, "bridge"))

	e.must(e.cli.ContainerRename(ctx, id, e.tag+"store"))
	rec.WaitState(t, e.tag+"store", discovery.Running)
	e.must(e.cli.ContainerStop(ctx, id, container.StopOptions{}))
	rec.WaitState(t, e.tag+"store", discovery.Stopped)
	e.must(e.cli.ContainerRemove(ctx, id, container.RemoveOptions{}))
	rec.WaitState(t, e.tag+"store", "")
	if got := rec.Count("replace"); got != 1 {
		t.Errorf("%d lists, want 1", got)
	}
}

func TestRealHealth(t *testing.T) {
	e := newRealEngine(t)
	src, err := docker.New(docker.Config{Endpoint: os.Getenv("DOCKER_TEST_HOST")}, discovery.SourceOptions{Name: "docker:real", Dialects: []discovery.Dialect{sourcetest.Labels{}}})
	if err != nil {
		t.Fatal(err)
	}
	rec, stop := sourcetest.Watch(t, src.Quick())
	rec.Wait(t, "the first list", func() bool { return rec.Count("replace") == 1 })
	id := e.create("app", map[string]string{"test.host": "app.example.com"}, func(cfg *container.Config, _ *container.HostConfig) {
		cfg.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "/serve", "healthy"}, Interval: time.Second, Retries: 1}
	})
	e.start(id)
	name := e.tag + "app"
	rec.WaitState(t, name, discovery.Starting)
	rec.WaitState(t, name, discovery.Running)
	var sick bytes.Buffer
	w := tar.NewWriter(&sick)
	e.must(w.WriteHeader(&tar.Header{Name: "sick", Mode: 0o644}))
	e.must(w.Close())
	e.must(e.cli.CopyToContainer(t.Context(), id, "/", &sick, container.CopyToContainerOptions{}))
	rec.WaitState(t, name, discovery.Unhealthy)
	stop()

	again, _ := sourcetest.Watch(t, src) // the list says it, too
	again.WaitState(t, name, discovery.Unhealthy)

	user := e.create("sidecar", map[string]string{"test.host": "side.example.com", "test.port": "81"}, func(cfg *container.Config, hc *container.HostConfig) {
		cfg.Cmd = []string{"/serve", "81"} // 80 is taken in there
		hc.NetworkMode = container.NetworkMode("container:" + name)
	})
	e.start(user)
	b := &bench{t: t, rec: again}
	b.waitAddress(e.tag+"sidecar", strings.TrimSuffix(e.ip(id, "bridge"), "80")+"81")
	host := e.create("host", map[string]string{"test.host": "h.example.com", "test.port": "8123"}, func(cfg *container.Config, hc *container.HostConfig) {
		cfg.Cmd = []string{"/serve", "8123"}
		hc.NetworkMode = "host"
	})
	e.start(host)
	b.waitAddress(e.tag+"host", "127.0.0.1:8123")
}
