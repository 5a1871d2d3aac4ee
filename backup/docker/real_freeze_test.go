package docker

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/dentropy/dentropycloud/backup"
)

func TestRealFreeze(t *testing.T) {
	b := newBed(t)
	data := b.vol("data")
	db := b.run(spec{name: "db", env: []string{"NOTE=/data/note", "WRITE=/data/ticks"}, binds: []string{data + ":/data"}})
	web := b.run(spec{name: "web", labels: map[string]string{labelDependsOn: "db:service_started:false"}, binds: []string{data + ":/data:ro"}})
	b.until("the database writes", func() bool { return strings.Contains(b.file(db, "/data/note"), "start") })

	app := b.capture(backup.CaptureOptions{})
	opts := b.options()
	est, err := b.p.Estimate(t.Context(), app, opts)
	b.must(err)
	if est.Bytes == 0 || est.Downtime <= 0 || est.TransitFree <= 0 {
		t.Errorf("estimate %+v, want sizes and a downtime", est)
	}
	if got := strings.Join(est.Stops, " "); got != b.tag+"web "+b.tag+"db" {
		t.Errorf("stops %s, want web before db", got)
	}
	before := b.inspect(db).State.StartedAt
	j := newJournal()
	begun := time.Now()
	z, err := b.p.Freeze(t.Context(), app, est, opts, j)
	b.must(err)
	t.Logf("frozen in %v: %+v", time.Since(begun), z.Report())
	b.running(db, web)
	if b.inspect(db).State.StartedAt == before {
		t.Error("the database was not stopped")
	}
	if len(b.resting) != 2 || b.resting[0] == nil || b.resting[1] != nil {
		t.Errorf("resting was told %v, want once that it rests and once that it does not", b.resting)
	}
	for _, v := range app.Volumes {
		tree := z.Trees()[v.ID]
		if tree == nil {
			t.Fatalf("no tree of %s", v.ID)
		}
		r, err := z.Segments(t.Context(), v.ID)
		b.must(err)
		n, err := io.Copy(io.Discard, r)
		b.must(err)
		b.must(r.Close())
		var want int64
		for _, s := range tree.Segments {
			want += s.Size
		}
		if n != want || n == 0 {
			t.Errorf("segments of %s hold %d bytes, want %d", v.ID, n, want)
		}
		r, err = z.Index(t.Context(), v.ID)
		b.must(err)
		n, err = io.Copy(io.Discard, r)
		b.must(err)
		b.must(r.Close())
		if n != tree.Index.Size {
			t.Errorf("the index of %s holds %d bytes, want %d", v.ID, n, tree.Index.Size)
		}
	}
	b.must(z.Close(t.Context()))
	b.must(z.Close(t.Context()))
	b.clean(j.op)
	if w := b.warnings(); w != "" {
		t.Errorf("warnings: %s", w)
	}
}
