package docker

import (
	"context"
	"fmt"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
)

// TestRealRecoverBetween ends the process between two entries of the journal: at each
// thing that is reported, but for mere progress.
func TestRealRecoverBetween(t *testing.T) {
	s := newShop(t)
	p := s.pack(backup.CaptureOptions{})
	s.mark("before the restore")
	old := s.names()
	web, db := s.byName(s.tag+"web"), s.byName(s.tag+"db")
	plan := s.plan(p, backup.Answers{OnConflict: "replace"})
	seen := map[string]bool{}
	for {
		j := s.journal()
		ctx, cancel := context.WithCancelCause(t.Context())
		cut := ""
		opts := s.applyOptions()
		opts.Report = func(pr backup.Progress) {
			at := fmt.Sprint(pr.Phase, " ", pr.Text)
			if pr.Warning == "" && pr.Done == 0 && !seen[at] && cut == "" {
				seen[at], cut = true, at
				cancel(errSpoilt)
			}
		}
		r, err := s.p.newRestore(plan, p.again(), opts, j)
		s.must(err)
		_, err = r.run(ctx)
		cancel(nil)
		r.c.leaveGuard(t.Context())
		if cut == "" {
			s.must(err)
			break
		}
		if err == nil {
			t.Fatalf("cut at %s, and yet it went on", cut)
		}
		t.Logf("cut at %s: %v", cut, err)
		s.must(s.p.Recover(t.Context(), backup.Operation{ID: j.op, Kind: "restore", App: s.tag}, j.list(), nil))
		s.asBefore(t, old, web, db)
		if t.Failed() {
			return
		}
	}
}

// TestRealRecoverUndo ends the process at each entry of the journal of an undo.
func TestRealRecoverUndo(t *testing.T) {
	s := newShop(t)
	p := s.pack(backup.CaptureOptions{})
	s.mark("before the restore")
	undo, err := s.p.apply(t.Context(), s.plan(p, backup.Answers{OnConflict: "replace"}), p.again(), s.applyOptions(), s.journal())
	s.must(err)
	restored := s.byName(s.tag + "db")
	names := s.names()
	for n := 1; ; n++ {
		j := s.journal()
		j.at = func(at int, _ string) error {
			if at >= n {
				return errSpoilt
			}
			return nil
		}
		d, err := decode[undoDetail](undo.Detail)
		s.must(err)
		z := &undoing{d: d, c: &changeover{p: s.p, op: j.op, j: j, opts: s.applyOptions(), why: "undo"}}
		z.c.create = z.create
		err = z.run(t.Context()) // nothing is taken back
		z.c.leaveGuard(t.Context())
		s.must(s.p.Recover(t.Context(), backup.Operation{ID: j.op, Kind: "undo", App: s.tag}, j.list(), nil))
		if err == nil {
			break
		}
		now := s.byName(s.tag + "db")
		if s.running(now.ID); now.ID != restored.ID || s.file(now.ID, "/data/mark") != "" {
			t.Fatalf("after %d entries: %s runs, want the restored %s with its data", n, now.ID, restored.ID)
		}
		if got := fmt.Sprint(s.names()); got != fmt.Sprint(names) {
			t.Fatalf("after %d entries there are\n%s\nwant\n%s", n, got, names)
		}
	}
	now := s.byName(s.tag + "db")
	s.running(now.ID, s.byName(s.tag+"web").ID)
	if got := s.file(now.ID, "/data/mark"); got != "before the restore\n" {
		t.Errorf("the volume holds %q, want what it held before the restore", got)
	}
}
