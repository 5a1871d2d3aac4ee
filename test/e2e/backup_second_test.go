package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/docker/docker/client"
)

// secondEngine starts a modern Docker Engine with its own data root in its own network
// namespace, whose name it gives.
func secondEngine(t *testing.T) (e *engine, netns string) {
	t.Helper()
	// The paths of its sockets must be short.
	dir, err := os.MkdirTemp("", "e2e-engine")
	if err != nil {
		t.Fatal(err)
	}
	return startEngine(t, dir, tool(t, "DENTROPY_MODERN_ENGINE"))
}

// startEngine starts an engine below dir, of the programs in bin or of Debian's.
func startEngine(t *testing.T, dir, bin string) (e *engine, netns string) {
	t.Helper()
	script := func(verb string) (string, error) {
		cmd := exec.Command(config.script, verb, dir)
		cmd.Env = append(os.Environ(), "DENTROPY_ENGINE_BIN="+bin)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("docker-engine %s: %w\n%s", verb, err, errs.String())
		}
		return out.String(), nil
	}
	t.Cleanup(func() {
		if _, err := script("stop"); err != nil {
			t.Error(err)
		}
	})
	variables, err := script("start")
	if err != nil {
		t.Fatal(err)
	}
	var host string
	for line := range strings.Lines(variables) {
		name, value, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		switch name {
		case "DENTROPY_ENGINE_NETNS":
			netns = value
		case "DOCKER_HOST":
			host = value
		}
	}
	c, err := client.NewClientWithOpts(client.WithHost(host), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &engine{t: t, c: c}, netns
}

// inNamespace gives a command that runs in a network namespace as who we are.
func inNamespace(netns string, args ...string) []string {
	enter := []string{"nsenter", "--net=/var/run/netns/" + netns}
	if uid := os.Getuid(); uid != 0 {
		enter = append([]string{"sudo", "--preserve-env"}, append(enter, "--setuid="+strconv.Itoa(uid), "--setgid="+strconv.Itoa(os.Getgid()))...)
	}
	return append(enter, args...)
}

// An app moves to another host: a newer engine with its own data, in a network of its
// own, with a dentropy of its own. The archive is all that goes there, through a pipe.
func TestRestoreOnSecondEngine(t *testing.T) {
	e := newEngine(t)
	e.realApps()
	before := e.inventory()
	t.Cleanup(func() { e.clear(before) })
	d := up(t)
	p := e.newProject("moved", strippedShop())
	p.up()
	e.fillShop(p)
	files := e.tree("moved_files")
	pg, notes := d.startWriter("moved.localhost", "pg", 1), d.startWriter("notes.moved.localhost", "lite", 1)
	writeRows(t, pg, notes)
	inPG, inNotes := pg.end(), notes.end()
	r := d.must("backup", "moved", "--yes", "--encryption", "none", "--output", "-")
	archive := r.stdout
	p.down()

	second, netns := secondEngine(t)
	away := prepare(t)
	away.docker = second.c.DaemonHost()
	away.enter = inNamespace(netns)
	away.start()
	other := t.TempDir()
	r = away.verbIn([]byte(archive), "restore", "-", "--yes", "--allow", "host-path", "--project-dir", filepath.Join(other, "moved"))
	if r.exit != 0 {
		t.Fatalf("restore: %v", r)
	}
	rows := func(host string) []string {
		t.Helper()
		var lines []string
		eventually(t, host+" lists its rows over HTTPS", func() error {
			out, err := away.curl(host, "/rows")
			lines = strings.Split(strings.TrimSpace(out), "\n")
			return err
		})
		return lines
	}
	haveAll(t, "PostgreSQL", sorted(rows("moved.localhost")), inPG)
	haveAll(t, "SQLite", sorted(rows("notes.moved.localhost")), inNotes)
	if out, err := away.curl("www.moved.localhost", "/more/page.html"); err != nil || out != "page\n" {
		t.Errorf("nginx serves %q, %v", out, err)
	}
	second.checkCache("moved-cache-1")
	// The lister comes there by the archive too, as every image has to.
	second.loadImage(e, treeImage)
	sameTree(t, "the volume with all kinds of files", second.tree("moved_files"), files)
}

// loadImage copies an image from another engine.
func (e *engine) loadImage(from *engine, ref string) {
	e.t.Helper()
	r, err := from.c.ImageSave(e.t.Context(), []string{ref})
	e.must("save "+ref, err)
	defer r.Close()
	answer, err := e.c.ImageLoad(e.t.Context(), r)
	e.must("load "+ref, err)
	answer.Body.Close()
}

// curl asks a host over HTTPS from where this dentropy is.
func (d *dentropy) curl(host, path string) (string, error) {
	args := []string{
		"curl", "-sS", "--fail", "--max-time", "20", "--cacert", filepath.Join(d.data, "pki", "authorities", "local", "root.crt"),
		"--resolve", fmt.Sprintf("%s:%d:127.0.0.1", host, d.https), d.url(host, path),
	}
	args = append(append([]string{}, d.enter...), args...)
	cmd := exec.Command(args[0], args[1:]...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, errs.String())
	}
	return string(out), err
}
