package docker

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
)

// A file that runs as its owner, on its way to a folder of the host: the review asks about
// it, and an archive that keeps it secret is found out before anything is in its place.
func TestRealSetID(t *testing.T) {
	f := newFolder(t)
	f.write("data/tool", "#!/bin/sh\n")
	f.must(os.Chmod(filepath.Join(f.dir, "data/tool"), 0o755|os.ModeSetuid))
	p := f.pack(backup.CaptureOptions{})
	f.must(f.cli.ContainerRemove(t.Context(), f.id, container.RemoveOptions{Force: true}))
	f.must(os.RemoveAll(f.dir))

	plan := f.plan(p, backup.Answers{Allow: allowPaths})
	if got := open(plan); got != "risk "+riskSetID {
		t.Errorf("open is %q, want the file that runs as its owner", got)
	}
	if i := len(plan.Risks) - 1; !strings.Contains(plan.Risks[i].Text, "1 file that runs") || !strings.HasSuffix(plan.Risks[i].Text, ", such as tool") {
		t.Errorf("the review says %q, want the file's name", plan.Risks[i].Text)
	}

	// The archive lies, and does not say.
	before := f.tree()
	said := map[string]*backup.Special{}
	for _, lie := range []struct {
		special *backup.Special
		corrupt bool
	}{{&backup.Special{}, true}, {nil, false}} {
		for id, tree := range p.m.Trees {
			if said[id] == nil {
				said[id] = tree.Special
			}
			tree.Special = lie.special
		}
		plan = f.plan(p, backup.Answers{Allow: allowPaths})
		if !plan.Ready() {
			t.Fatalf("plan is not ready: %+v %+v", plan.Conflicts, plan.Risks)
		}
		_, err := f.p.apply(t.Context(), plan, p.again(), f.applyOptions(), f.journal())
		if err == nil || errors.Is(err, backup.ErrCorrupt) != lie.corrupt || !strings.Contains(err.Error(), "rights of") {
			t.Errorf("with %+v in the manifest: apply = %v", lie.special, err)
		}
		if got := f.tree(); got != before {
			t.Errorf("there are\n%s\nwant\n%s", got, before)
		}
	}
	for id, tree := range p.m.Trees {
		tree.Special = said[id]
	}

	plan = f.plan(p, backup.Answers{Allow: append([]string{riskSetID}, allowPaths...)})
	_, err := f.p.apply(t.Context(), plan, p.again(), f.applyOptions(), f.journal())
	f.must(err)
	if st, err := os.Stat(filepath.Join(f.dir, "data/tool")); err != nil || st.Mode()&os.ModeSetuid == 0 {
		t.Errorf("the restored file: %v, %v, want it as it was", st, err)
	}
}
