package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"
)

// serverImage is made from the static test server, once.
const serverImage = "e2e-server:1"

// engine speaks to the private Docker Engine as a user of it.
type engine struct {
	t *testing.T
	c *client.Client
}

var makeServerImage = sync.OnceValue(func() error { return importImage(serverImage, "server", config.server) })

func newEngine(t *testing.T) *engine {
	t.Helper()
	c, err := client.NewClientWithOpts(client.WithHost(os.Getenv("DOCKER_TEST_HOST")), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := makeServerImage(); err != nil {
		t.Fatal(err)
	}
	return &engine{t, c}
}

// importImage makes an image that holds one static program and nothing else.
func importImage(ref, name, path string) error {
	program, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, dir := range []string{"tmp/", "data/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o777}); err != nil {
			return err
		}
	}
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(program))}); err != nil {
		return err
	}
	if _, err := w.Write(program); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	c, err := client.NewClientWithOpts(client.WithHost(os.Getenv("DOCKER_TEST_HOST")), client.WithAPIVersionNegotiation())
	if err != nil {
		return err
	}
	defer c.Close()
	answer, err := c.ImageImport(context.Background(), image.ImportSource{Source: &archive, SourceName: "-"}, ref,
		image.ImportOptions{Changes: []string{fmt.Sprintf("ENTRYPOINT [%q]", "/"+name), "EXPOSE 8080"}})
	if err != nil {
		return err
	}
	return answer.Close()
}

// spec is how a container is to be.
type spec struct {
	name    string
	image   string // default: serverImage
	args    []string
	labels  map[string]string
	network string // a network, or host, none, container:<x>; default: the default bridge
	publish bool   // publishes port 8080 on a port of the engine's choice
	binds   []string
	health  bool // with a health check that asks the server
}

// site is a spec with the labels of one host.
func site(name, host string, labels ...string) spec {
	s := spec{name: name, labels: map[string]string{"dentropy.host": host}}
	for _, l := range labels {
		key, value, _ := strings.Cut(l, "=")
		s.labels[key] = value
	}
	return s
}

// compose gives the labels that Compose would give.
func (s spec) compose(project, service string) spec {
	s.labels = maps.Clone(s.labels)
	s.labels["com.docker.compose.project"] = project
	s.labels["com.docker.compose.service"] = service
	return s
}

// create makes a container, to be removed at the end of the test.
func (e *engine) create(s spec) {
	e.t.Helper()
	if s.image == "" {
		s.image = serverImage
		s.args = append([]string{"-name", s.name}, s.args...)
	}
	cfg := &container.Config{Image: s.image, Cmd: s.args, Labels: s.labels}
	host := &container.HostConfig{NetworkMode: container.NetworkMode(s.network), Binds: s.binds}
	if s.publish {
		host.PortBindings = nat.PortMap{"8080/tcp": {{HostIP: "127.0.0.1"}}}
	}
	if s.health {
		cfg.Healthcheck = &container.HealthConfig{
			Test: []string{"CMD", "/server", "health"}, Interval: 200 * time.Millisecond, Timeout: 5 * time.Second, Retries: 1,
		}
	}
	if _, err := e.c.ContainerCreate(e.t.Context(), cfg, host, nil, nil, s.name); err != nil {
		e.t.Fatalf("create %s: %v", s.name, err)
	}
	e.t.Cleanup(func() {
		ctx := context.WithoutCancel(e.t.Context())
		if err := e.c.ContainerRemove(ctx, s.name, container.RemoveOptions{Force: true}); err != nil && !errdefs.IsNotFound(err) {
			e.t.Logf("remove %s: %v", s.name, err)
		}
	})
}

// run makes a container and starts it.
func (e *engine) run(s spec) {
	e.t.Helper()
	e.create(s)
	e.start(s.name)
}

func (e *engine) start(name string) {
	e.t.Helper()
	e.must("start "+name, e.c.ContainerStart(e.t.Context(), name, container.StartOptions{}))
}

func (e *engine) stop(name string) {
	e.t.Helper()
	e.must("stop "+name, e.c.ContainerStop(e.t.Context(), name, container.StopOptions{}))
}

func (e *engine) restart(name string) {
	e.t.Helper()
	e.must("restart "+name, e.c.ContainerRestart(e.t.Context(), name, container.StopOptions{}))
}

func (e *engine) kill(name string) {
	e.t.Helper()
	e.must("kill "+name, e.c.ContainerKill(e.t.Context(), name, "KILL"))
}

func (e *engine) remove(name string) {
	e.t.Helper()
	e.must("remove "+name, e.c.ContainerRemove(e.t.Context(), name, container.RemoveOptions{Force: true}))
}

func (e *engine) must(what string, err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatalf("%s: %v", what, err)
	}
}

// network makes a bridge network, to be removed at the end of the test, after the
// containers that are made later.
func (e *engine) network(name string) {
	e.t.Helper()
	_, err := e.c.NetworkCreate(e.t.Context(), name, network.CreateOptions{Driver: "bridge"})
	e.must("create network "+name, err)
	e.t.Cleanup(func() {
		if err := e.c.NetworkRemove(context.WithoutCancel(e.t.Context()), name); err != nil {
			e.t.Logf("remove network %s: %v", name, err)
		}
	})
}

// ip gives the address of a container on its first network.
func (e *engine) ip(name string) string {
	e.t.Helper()
	info, err := e.c.ContainerInspect(e.t.Context(), name)
	e.must("inspect "+name, err)
	for _, n := range info.NetworkSettings.Networks {
		if n.IPAddress != "" {
			return n.IPAddress
		}
	}
	e.t.Fatalf("%s has no address", name)
	return ""
}

// post asks a container's server directly.
func (e *engine) post(name, path string) {
	e.t.Helper()
	resp, err := http.Post("http://"+e.ip(name)+":8080"+path, "text/plain", nil)
	e.must("post "+path+" to "+name, err)
	resp.Body.Close()
}

// daemon runs a verb of scripts/docker-engine: daemon-start, daemon-stop, daemon-kill.
func (e *engine) daemon(verb string) {
	e.t.Helper()
	out, err := exec.Command(config.script, verb, config.engine).CombinedOutput()
	if err != nil {
		e.t.Fatalf("docker-engine %s: %v\n%s", verb, err, out)
	}
}
