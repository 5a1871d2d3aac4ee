package e2e

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"
)

// smallApp is an application of containers that start at once: a data base, a site
// that depends on it, one that is paused and one that was stopped, as Compose labels
// them. Their names are <name>-db-1 and so on.
type smallApp struct {
	e      *engine
	name   string
	host   string
	before inventory
	states map[string]string
	tree   []string
}

// smallApp makes and starts one; its volume <name>_data holds all kinds of files. Each
// label is given to all containers, and "db|key=value" to one of them. All that is made
// is removed at the end of the test.
func (e *engine) smallApp(name string, labels ...string) *smallApp {
	e.t.Helper()
	e.treeApp()
	a := &smallApp{e: e, name: name, host: name + ".localhost", before: e.inventory()}
	e.t.Cleanup(func() { e.clear(a.before) })
	_, err := e.c.VolumeCreate(e.t.Context(), volume.CreateOptions{
		Name: name + "_data", Labels: map[string]string{"com.docker.compose.project": name, "com.docker.compose.volume": "data"},
	})
	e.must("create volume", err)
	e.fill(name + "_data")
	_, err = e.c.NetworkCreate(e.t.Context(), name+"_default", network.CreateOptions{
		Driver: "bridge", Labels: map[string]string{"com.docker.compose.project": name, "com.docker.compose.network": "default"},
	})
	e.must("create network", err)
	a.create("db", nil, labels...)
	a.create("web", []string{"db"}, append([]string{"dentropy.host=" + a.host, "dentropy.hold=60s"}, labels...)...)
	a.create("paused", nil, labels...)
	a.create("idle", nil, labels...)
	for _, service := range []string{"db", "web", "paused"} {
		e.start(a.container(service))
	}
	e.must("pause", e.c.ContainerPause(e.t.Context(), a.container("paused")))
	a.tree = e.tree(name + "_data")
	a.states = maps.Clone(e.inventory().containers)
	return a
}

func (a *smallApp) container(service string) string { return a.name + "-" + service + "-1" }

func (a *smallApp) create(service string, dependsOn []string, labels ...string) {
	a.e.t.Helper()
	cfg := &container.Config{Image: serverImage, Cmd: []string{"-name", service}, Labels: map[string]string{
		"com.docker.compose.project": a.name, "com.docker.compose.service": service, "com.docker.compose.container-number": "1",
		"com.docker.compose.oneoff": "False", "com.docker.compose.depends_on": strings.Join(dependsOn, ",") + ":service_started:false",
	}}
	if len(dependsOn) == 0 {
		delete(cfg.Labels, "com.docker.compose.depends_on")
	}
	for _, l := range labels {
		if only, rest, ok := strings.Cut(l, "|"); ok {
			if only != service {
				continue
			}
			l = rest
		}
		key, value, _ := strings.Cut(l, "=")
		cfg.Labels[key] = value
	}
	host := &container.HostConfig{NetworkMode: container.NetworkMode(a.name + "_default")}
	if service == "db" {
		host.Binds = []string{a.name + "_data:/data"}
	}
	_, err := a.e.c.ContainerCreate(a.e.t.Context(), cfg, host, nil, nil, a.container(service))
	a.e.must("create "+service, err)
}

// asBefore is a check for eventually: what ran runs, what was paused or stopped is so,
// and nothing else is there.
func (a *smallApp) asBefore() error {
	c, err := client.NewClientWithOpts(client.WithHost(a.e.c.DaemonHost()), client.WithAPIVersionNegotiation())
	if err != nil {
		return err
	}
	defer c.Close()
	list, err := c.ContainerList(context.Background(), container.ListOptions{All: true})
	if err != nil {
		return err
	}
	now := make(map[string]string)
	for _, c := range list {
		now[strings.TrimPrefix(c.Names[0], "/")] = c.State
	}
	for name, state := range a.states {
		if now[name] != state {
			return fmt.Errorf("%s is %q, was %q; there is %v", name, now[name], state, now)
		}
	}
	return nil
}

// nothingLeft is a check for eventually: no helper, no guard, no transit, no journal.
func (a *smallApp) nothingLeft(d *dentropy) func() error {
	return func() error {
		now := a.e.inventory()
		then := inventory{containers: a.states, volumes: append([]string{a.name + "_data"}, a.before.volumes...), networks: append([]string{a.name + "_default"}, a.before.networks...)}
		if left := now.left(then); len(left) > 0 {
			return fmt.Errorf("there is still %q", left)
		}
		if j := d.journals(); len(j) > 0 {
			return fmt.Errorf("journals %q", j)
		}
		return nil
	}
}

// check fails where the application is not as it was.
func (a *smallApp) check(t *testing.T, d *dentropy) {
	t.Helper()
	began := time.Now()
	eventually(t, "the app is as it was", a.asBefore)
	runs := time.Since(began)
	eventually(t, "nothing is left over", a.nothingLeft(d))
	t.Logf("runs after %v, nothing is left after %v", runs, time.Since(began))
	a.e.transitIsEmpty(t)
	sameTree(t, "its data", a.e.tree(a.name+"_data"), a.tree)
	eventually(t, "its site answers", d.servedBy(a.host, "/", "web"))
}

// transitVolume stays, empty, for the next time.
const transitVolume = "dentropy-transit"

func (e *engine) transitIsEmpty(t *testing.T) {
	t.Helper()
	if _, err := e.c.VolumeInspect(t.Context(), transitVolume); err != nil {
		return // nor is it there
	}
	if list := e.tree(transitVolume); len(list) > 1 {
		t.Errorf("transit holds %d entries, among them %.200s", len(list)-1, list[1])
	}
}
