package docker

import (
	"slices"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
)

// What measured for a process that was killed goes; what somebody may be about to read
// stays, and so does what is at work.
func TestRealSweep(t *testing.T) {
	b := newBed(t)
	ctx := t.Context()
	data := b.vol("data")
	img, err := b.p.EnsureHelper(ctx)
	b.must(err)
	b.must(b.p.ensureTransit(ctx))
	// start makes a helper as a process does that is killed then.
	start := func(task string, input any, stdin bool) string {
		t.Helper()
		op := randomOp()
		cfg, host, err := helperConfig(img, helperTask{
			op: op, name: task, caps: writeCaps, input: input,
			mounts: []helperMount{{target: volumeRoot + "d", volume: data, write: true}, b.p.transitMount(false)},
		})
		b.must(err)
		cfg.OpenStdin = stdin
		made, err := b.cli.ContainerCreate(ctx, cfg, host, nil, nil, "dentropy-"+op+"-"+task+"-"+randomHex())
		b.must(err)
		b.must(b.cli.ContainerStart(ctx, made.ID, container.StartOptions{}))
		t.Cleanup(func() { _ = b.p.removeContainer(ctx, made.ID) })
		return made.ID
	}
	writes := start("write", map[string]any{"path": volumeRoot + "d"}, true) // waits for its input
	measures := start("measure", map[string]any{"volumes": []any{map[string]any{"id": "d", "path": volumeRoot + "d"}}, "transit": transitDir}, false)
	b.until("it has measured", func() bool { return !b.inspect(measures).State.Running })

	there := func(id string) bool {
		list, err := b.cli.ContainerList(ctx, container.ListOptions{All: true})
		b.must(err)
		return slices.ContainsFunc(list, func(s container.Summary) bool { return s.ID == id })
	}
	again, err := b.p.Sweep(ctx)
	b.must(err)
	if !there(measures) || again <= 0 || again > orphanedFor {
		t.Errorf("at once: it is there: %v, again in %v; want it left until it is certainly nobody's", there(measures), again)
	}
	b.until("it is nobody's", func() bool {
		_, err := b.p.Sweep(ctx)
		b.must(err)
		return !there(measures)
	})
	if st := b.inspect(writes).State; time.Since(engineTime(st.StartedAt)) < orphanedFor || !st.Running {
		t.Errorf("the helper that is at work is %s since %s, want it running, and for longer than %v", st.Status, st.StartedAt, orphanedFor)
	}
}
