package docker

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/dentropy/dentropycloud/backup"
)

// A restored container that says that it is unhealthy is not waited for any longer: all is
// taken back at once, and why it is unhealthy is told.
func TestRealRestoreUnhealthy(t *testing.T) {
	s := newShop(t)
	p := s.pack(backup.CaptureOptions{})
	s.mark("before the restore")
	old := s.names()
	web, db := s.byName(s.tag+"web"), s.byName(s.tag+"db")
	for i := range p.app.Containers {
		c := &p.app.Containers[i]
		c.Settings = []byte(strings.Replace(string(c.Settings), `"/app","healthy"`, `"/app","fail","no rows\nfor hunter2"`, 1))
	}
	plan := s.plan(p, backup.Answers{OnConflict: "replace"})
	opts := s.applyOptions()
	opts.HealthTimeout = 10 * time.Minute
	begun := time.Now()
	_, err := s.p.apply(t.Context(), plan, p, opts, s.journal())
	if err == nil || errors.Is(err, backup.ErrLeftStopped) {
		t.Fatalf("apply = %v, want it taken back", err)
	}
	if took := time.Since(begun); took > 2*time.Minute {
		t.Errorf("it took %v to give up", took)
	}
	for _, want := range []string{"db is unhealthy", "its health check says: no rows for …;", "everything is as it was"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("apply = %v, want %q in it", err, want)
		}
	}
	if strings.Contains(err.Error(), "hunter2") || !strings.Contains(backup.HintOf(err), "start_period") {
		t.Errorf("apply = %v (%s), want no secret, and what to do", err, backup.HintOf(err))
	}
	s.asBefore(t, old, web, db)
}

// An undo brings back what was unhealthy before, too, and waits for it as long as it may
// take.
func TestRealUndoWaitsForHealth(t *testing.T) {
	s := newShop(t)
	p := s.pack(backup.CaptureOptions{})
	plan := s.plan(p, backup.Answers{OnConflict: "replace"})
	undo, err := s.p.apply(t.Context(), plan, p, s.applyOptions(), s.journal())
	s.must(err)
	// What ran before is healthy only a while after its check has given up.
	slow := strings.Replace(string(undo.Detail), `"WRITE=/data/ticks"`, `"HEALTHY_AFTER=6s"`, 1)
	if slow == string(undo.Detail) {
		t.Fatal("the record has no such environment")
	}
	undo.Detail = []byte(slow)
	s.must(s.p.Undo(t.Context(), undo, s.applyOptions(), s.journal()))
	s.running(s.byName(s.tag+"db").ID, s.byName(s.tag+"web").ID)
}
