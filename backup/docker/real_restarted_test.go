package docker

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
)

// A container that is started again between the look at it and its stop is ours to bring
// back all the same.
func TestRealFreezeRestarted(t *testing.T) {
	s := newShop(t)
	app := s.capture(backup.CaptureOptions{})
	est, err := s.p.Estimate(t.Context(), app, s.options())
	s.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	j := s.journal()
	j.at = func(_ int, step string) error {
		switch step {
		case stepPlan:
			s.must(s.cli.ContainerRestart(t.Context(), s.web, container.StopOptions{}))
		case stepRest:
			cancel()
		}
		return nil
	}
	if _, err := s.p.Freeze(ctx, app, est, s.options(), j); err == nil {
		t.Error("Freeze that was cancelled = nil, want an error")
	}
	for _, n := range []string{"web", "db"} {
		if got := s.byName(s.tag + n).State.Status; got != "running" {
			t.Errorf("%s is %s, want running", n, got)
		}
	}
}

// A container that is started again while data streams is ours to bring back all the same:
// by a rollback, by a recovery, by the guard.
func TestRealRollbackRestarted(t *testing.T) {
	s := newShop(t)
	p := s.pack(backup.CaptureOptions{})
	plan := s.plan(p, backup.Answers{OnConflict: "replace"})
	opts := s.applyOptions()
	opts.Probe = func(context.Context, string) error { return errSpoilt }
	restart := func(step, at string, then error) func(int, string) error {
		return func(_ int, now string) error {
			switch now {
			case step:
				s.must(s.cli.ContainerRestart(t.Context(), s.web, container.StopOptions{}))
			case at:
				return then
			}
			return nil
		}
	}
	for _, step := range []string{stepChange, stepHalt} {
		t.Run(step+" rolled back", func(t *testing.T) {
			j := s.journal()
			j.at = restart(step, "", nil)
			if _, err := s.p.apply(t.Context(), plan, p.again(), opts, j); !errors.Is(err, errSpoilt) || errors.Is(err, backup.ErrLeftStopped) {
				t.Errorf("apply = %v, want it taken back", err)
			}
			s.running(s.web, s.db)
		})
		t.Run(step+" recovered", func(t *testing.T) {
			j := s.journal()
			j.at = restart(step, stepSwap, errSpoilt) // all has stopped by then
			r, err := s.p.newRestore(plan, p.again(), opts, j)
			s.must(err)
			if _, err := r.run(t.Context()); !errors.Is(err, errSpoilt) {
				t.Fatalf("run = %v", err)
			}
			s.must(s.p.Recover(t.Context(), backup.Operation{ID: j.op, Kind: "restore", App: s.tag}, j.list(), nil))
			s.running(s.web, s.db)
		})
	}
	t.Run("guarded", func(t *testing.T) {
		j := s.journal()
		stops := 0
		j.at = func(_ int, now string) error {
			switch now {
			case stepChange:
				s.must(s.cli.ContainerRestart(t.Context(), s.web, container.StopOptions{}))
			case stepHalted:
				if stops++; stops == 2 {
					return errSpoilt // both have stopped
				}
			}
			return nil
		}
		r, err := s.p.newRestore(plan, p.again(), opts, j)
		s.must(err)
		if _, err := r.run(t.Context()); !errors.Is(err, errSpoilt) {
			t.Fatalf("run = %v", err)
		}
		r.c.leaveGuard(t.Context())
		s.until("the guard brings them back", func() bool {
			return s.inspect(s.web).State.Running && s.inspect(s.db).State.Running
		})
		s.guardsOver(j.op)
		s.must(s.p.Recover(t.Context(), backup.Operation{ID: j.op, Kind: "restore", App: s.tag}, j.list(), nil))
	})
}

// What a person stops while data streams stays stopped where the restore fails.
func TestRealRollbackStoppedByHand(t *testing.T) {
	s := newShop(t)
	p := s.pack(backup.CaptureOptions{})
	plan := s.plan(p, backup.Answers{OnConflict: "replace"})
	for _, until := range []string{stepOld, stepMade} {
		j := s.journal()
		j.at = func(_ int, now string) error {
			switch now {
			case stepChange:
				s.must(s.cli.ContainerStop(t.Context(), s.web, container.StopOptions{}))
			case until:
				return errSpoilt
			}
			return nil
		}
		if _, err := s.p.apply(t.Context(), plan, p.again(), s.applyOptions(), j); !errors.Is(err, errSpoilt) {
			t.Errorf("apply = %v, want it taken back", err)
		}
		if st := s.inspect(s.web).State; st.Running {
			t.Errorf("taken back from %s, web is %s, want it stopped as it was left", until, st.Status)
		}
		s.running(s.db)
		s.must(s.cli.ContainerStart(t.Context(), s.web, container.StartOptions{}))
	}
}

// A container that removes itself when it stops is not stopped.
func TestRealFreezeRemovesItself(t *testing.T) {
	b := newBed(t)
	id := b.run(spec{name: "one", env: []string{"NOTE=/anon/note"}, edit: func(c *container.Config, h *container.HostConfig) {
		h.AutoRemove = true
		c.Volumes = map[string]struct{}{"/anon": {}}
	}})
	app := b.capture(backup.CaptureOptions{})
	est, err := b.p.Estimate(t.Context(), app, b.options())
	b.must(err)
	z, err := b.p.Freeze(t.Context(), app, est, b.options(), b.journal())
	b.must(err)
	defer func() { b.must(z.Close(context.Background())) }()
	in, err := b.cli.ContainerInspect(t.Context(), id)
	b.must(err)
	if in.State.Status != "running" {
		t.Errorf("it is %s, want running", in.State.Status)
	}
	if v := app.Volumes[0]; v.Consistency != "paused" || z.Trees()[v.ID] == nil {
		t.Errorf("volume %s was read %s, want paused", v.Name, v.Consistency)
	}
	if w := b.warnings(); !strings.Contains(w, "removes itself") {
		t.Errorf("warnings = %q, want one that says so", w)
	}
}
