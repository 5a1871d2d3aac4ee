package docker_test

import (
	"testing"
	"testing/fstest"

	"github.com/dentropy/dentropycloud/discovery"
	"github.com/dentropy/dentropycloud/discovery/docker"
	"github.com/dentropy/dentropycloud/discovery/sourcetest"
)

// newSource makes a source that watches an engine from its host.
func newSource(t testing.TB, e *sourcetest.Engine, cfg docker.Config) *docker.Source {
	t.Helper()
	cfg.Endpoint = e.Endpoint()
	src, err := docker.New(cfg, discovery.SourceOptions{Name: "docker:test", Dialects: []discovery.Dialect{sourcetest.Labels{}}})
	if err != nil {
		t.Fatal(err)
	}
	return src.Quick().Machine(fstest.MapFS{}, "host")
}

// web is a container that asks for name.example.com.
func web(name string) sourcetest.Container {
	return sourcetest.Container{Name: name, Labels: map[string]string{"test.host": name + ".example.com"}, Exposed: []int{80}}
}

// harness plays a Docker Engine to the suite.
type harness struct {
	t   *testing.T
	e   *sourcetest.Engine
	ids map[string]string
}

func (h *harness) Source() discovery.Source { return newSource(h.t, h.e, docker.Config{}) }
func (h *harness) Engine() string           { return "docker:test" }

func (h *harness) Put(name, host string) {
	c := web(name)
	c.Labels["test.host"] = host
	h.ids[name] = h.e.Run(c)
}

func (h *harness) Ignored(name string) {
	h.e.Run(sourcetest.Container{Name: name, Exposed: []int{5432}})
}
func (h *harness) Remove(name string) { h.e.Destroy(h.ids[name]) }
func (h *harness) Stop(name string)   { h.e.Stop(h.ids[name]) }
func (h *harness) Start(name string)  { h.e.Start(h.ids[name]) }
func (h *harness) Break()             { h.e.Down() }
func (h *harness) Heal() {
	if err := h.e.Up(); err != nil {
		h.t.Fatal(err)
	}
}

func TestSuite(t *testing.T) {
	engines := []struct {
		name string
		opts sourcetest.EngineOptions
	}{
		{"1.41", sourcetest.EngineOptions{API: "1.41", MinAPI: "1.12"}},
		{"1.51 over TCP", sourcetest.EngineOptions{API: "1.51", TCP: true}},
		{"minimum 1.44", sourcetest.EngineOptions{API: "1.52", MinAPI: "1.44"}},
		{"version hidden by a proxy", sourcetest.EngineOptions{API: "1.52", MinAPI: "1.44", HideAPI: true}},
		{"minimum above ours", sourcetest.EngineOptions{API: "1.54", MinAPI: "1.52"}},
	}
	for _, eng := range engines {
		t.Run(eng.name, func(t *testing.T) {
			sourcetest.Run(t, func(t *testing.T) sourcetest.Harness {
				return &harness{t: t, e: sourcetest.NewEngine(t, eng.opts), ids: map[string]string{}}
			})
		})
	}
}
