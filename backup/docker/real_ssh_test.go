package docker

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
)

// An engine over ssh: what attaches goes the same way. The ssh command is one that stays
// on this machine.
func TestRealSSH(t *testing.T) {
	b := newBedAlone(t)
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("there is no docker command")
	}
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nexec %s -H %s system dial-stdio\n", docker, os.Getenv("DOCKER_TEST_HOST"))
	b.must(os.WriteFile(filepath.Join(dir, "ssh"), []byte(script), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	opts := b.p.opts
	opts.GuardSocket = b.p.ep.Socket()
	opts.Endpoint = "ssh://me@nas.example.com"
	b.p, err = New(opts)
	b.must(err)

	data := b.vol("data")
	id := b.run(spec{name: "db", binds: []string{data + ":/data"}, env: []string{"NOTE=/data/note"}, labels: map[string]string{labelPre: `["/app","note","/data/pre","x"]`}})
	b.fill(data, 20)
	before := b.inspect(id).State.StartedAt
	j := newJournal()
	app, z, err := b.freeze(b.options(), j)
	b.must(err)
	b.running(id)
	if b.inspect(id).State.StartedAt == before {
		t.Error("it was not stopped")
	}
	r, err := z.Segments(t.Context(), app.Volumes[0].ID)
	b.must(err)
	n, err := io.Copy(io.Discard, r)
	b.must(err)
	b.must(r.Close())
	if n < 20<<20 {
		t.Errorf("%d bytes came over, want 20 MB", n)
	}
	if w := b.warnings(); w != "" {
		t.Errorf("warnings %q", w)
	}
	b.must(z.Close(t.Context()))
	b.clean(j.op)
	if _, err := b.p.Capture(t.Context(), b.tag, backup.CaptureOptions{}); err != nil {
		t.Error(err)
	}
}
