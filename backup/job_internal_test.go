package backup

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func newJobManager() *Manager {
	m := &Manager{dead: map[string]deadOp{}}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// wait lets time pass in a bubble of synctest.
func wait(d time.Duration) { <-time.After(d) }

func TestJobRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, err := newJobManager().NewJob(kindBackup, "")
		if err != nil {
			t.Fatal(err)
		}
		const total = 1000
		for done := int64(0); done <= 100; done += 10 { // 10 bytes a second
			j.report(Progress{Phase: "write", Done: done, Total: total})
			wait(time.Second)
		}
		// eleven seconds have passed since it began, one since the last report
		v := j.View()
		if v.Rate < 8 || v.Rate > 11 {
			t.Errorf("rate = %v, want about 10", v.Rate)
		}
		if left := v.Left.Seconds(); left < 80 || left > 115 {
			t.Errorf("left = %v, want about 90s", v.Left)
		}
		wait(time.Minute) // it has come to a halt: nobody can say when it ends
		if v := j.View(); v.Rate != 0 || v.Left != 0 {
			t.Errorf("after a minute of nothing: rate %v, left %v, want unknown", v.Rate, v.Left)
		}
		j.report(Progress{Phase: "verify", Done: 0, Total: total})
		if v := j.View(); v.Rate != 0 || v.Left != 0 {
			t.Errorf("a new phase begins with rate %v, left %v, want unknown", v.Rate, v.Left)
		}
		j.end(nil, nil)
	})
}

func TestJobFollowShowsNotTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, err := newJobManager().NewJob(kindBackup, "")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for i := range 1000 { // one second
				j.report(Progress{Phase: "write", Done: int64(i)})
				wait(time.Millisecond)
			}
			j.end("result", nil)
		}()
		var views []JobView
		if err := j.Follow(t.Context(), func(v JobView) error { views = append(views, v); return nil }); err != nil {
			t.Fatal(err)
		}
		last := views[len(views)-1]
		if n := len(views); n < 5 || n > 12 {
			t.Errorf("shown %d times in a second, want about 10", n)
		}
		if last.State != jobDone || last.Result != "result" || last.Progress.Done != 999 {
			t.Errorf("last view = %+v, want it done", last)
		}
		// one that is over is shown once
		n := 0
		if err := j.Follow(t.Context(), func(JobView) error { n++; return nil }); err != nil || n != 1 {
			t.Errorf("Follow of an ended job shows it %d times, %v", n, err)
		}
	})
}

func TestJobFollowEndsWithItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, err := newJobManager().NewJob(kindBackup, "")
		if err != nil {
			t.Fatal(err)
		}
		gone := errors.New("the client has gone")
		if err := j.Follow(t.Context(), func(JobView) error { return gone }); !errors.Is(err, gone) {
			t.Errorf("Follow = %v, want what show returned", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := j.Follow(ctx, func(JobView) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Follow = %v, want the end of its context", err)
		}
		j.end(nil, nil)
	})
}

func TestJobStates(t *testing.T) {
	tests := []struct {
		name   string
		cancel bool
		err    error
		want   string
	}{
		{"good", false, nil, jobDone},
		{"cancelled too late", true, nil, jobDone},
		{"failed", false, errors.New("no space"), jobFailed},
		{"cancelled", true, fmt.Errorf("read: %w", context.Canceled), jobCancelled},
		{"cancelled and left stopped", true, errors.Join(ErrLeftStopped, context.Canceled), jobFailed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j, err := newJobManager().NewJob(kindBackup, "")
			if err != nil {
				t.Fatal(err)
			}
			if tt.cancel {
				j.Cancel()
			}
			j.end(nil, tt.err)
			j.end(nil, errors.New("a second end"))
			j.report(Progress{Phase: "late"})
			if v := j.View(); v.State != tt.want || v.Progress.Phase == "late" || v.Ended.IsZero() {
				t.Errorf("job = %+v, want state %s", v, tt.want)
			}
		})
	}
}

func TestJobsAreForgotten(t *testing.T) {
	m := newJobManager()
	running, err := m.NewJob(kindBackup, "")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 * keptJobs {
		j, err := m.NewJob(kindBackup, "")
		if err != nil {
			t.Fatal(err)
		}
		j.end(nil, nil)
	}
	m.mu.Lock()
	m.dropJobsLocked()
	m.mu.Unlock()
	jobs := m.Jobs()
	if len(jobs) != keptJobs+1 || jobs[len(jobs)-1].ID != running.ID() {
		t.Errorf("%d jobs, the oldest %s, want %d and the one that runs", len(jobs), jobs[len(jobs)-1].ID, keptJobs+1)
	}
	if m.RunningJobs() != 1 {
		t.Errorf("RunningJobs = %d, want 1", m.RunningJobs())
	}
}

func TestNewJobRefusesIDs(t *testing.T) {
	m := newJobManager()
	if _, err := m.NewJob(kindBackup, "0123456789ab"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"0123456789ab", "x", "0123456789AB", "../../../../", "0123456789abc"} {
		if _, err := m.NewJob(kindBackup, id); HintOf(err) == "" {
			t.Errorf("NewJob(%q) = %v, want an error with a hint", id, err)
		}
	}
}

func TestJobWarningsAreBounded(t *testing.T) {
	j, err := newJobManager().NewJob(kindBackup, "")
	if err != nil {
		t.Fatal(err)
	}
	j.report(Progress{Phase: "write", Done: 5, Warning: "first"})
	j.report(Progress{Warning: "first"})
	if v := j.View(); len(v.Warnings) != 1 || v.Progress.Done != 5 || v.Progress.Warning != "" {
		t.Errorf("job = %+v, want one warning and the progress as it was", v)
	}
	for i := range 3 * mostWarnings {
		j.report(Progress{Warning: fmt.Sprint(i)})
	}
	if n := len(j.View().Warnings); n != mostWarnings+1 {
		t.Errorf("%d warnings, want %d", n, mostWarnings+1)
	}
}
