package docker_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/dentropy/dentropycloud/discovery"
	"github.com/dentropy/dentropycloud/discovery/docker"
	"github.com/dentropy/dentropycloud/discovery/sourcetest"
)

// TestRealRestart ends the daemon, kindly and not, below containers that run on.
func TestRealRestart(t *testing.T) {
	e := newRealEngine(t)
	engine := os.Getenv("DENTROPY_ENGINE")
	if engine == "" {
		t.Skip("DENTROPY_ENGINE names no folder of an engine that may be ended")
	}
	script := func(verb string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), filepath.FromSlash("../../scripts/docker-engine"), verb, engine).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", verb, err, out)
		}
	}
	src, err := docker.New(docker.Config{Endpoint: os.Getenv("DOCKER_TEST_HOST")}, discovery.SourceOptions{Name: "docker:real", Dialects: []discovery.Dialect{sourcetest.Labels{}}})
	e.must(err)
	rec, stop := sourcetest.Watch(t, src.Quick())
	kept := e.create("kept", map[string]string{"test.host": "kept.example.com"}, nil)
	e.start(kept)
	b := &bench{t: t, rec: rec}
	at := e.ip(kept, "bridge")
	b.waitAddress(e.tag+"kept", at)
	for _, verb := range []string{"daemon-stop", "daemon-kill"} {
		lists := rec.Count("replace")
		script(verb)
		rec.Wait(t, "the engine to be unknown", func() bool { return rec.Stale() != nil })
		script("daemon-start")
		rec.Wait(t, "the engine to be known again", func() bool { return rec.Stale() == nil && rec.Count("replace") > lists })
		rec.WaitState(t, e.tag+"kept", discovery.Running)
		b.waitAddress(e.tag+"kept", at)
		e.start(e.create(verb, map[string]string{"test.host": verb + ".example.com"}, nil)) // events flow
		rec.WaitState(t, e.tag+verb, discovery.Running)
	}
	stop()
}
