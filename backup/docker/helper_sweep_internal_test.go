package docker

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
)

func TestFateOf(t *testing.T) {
	now := time.Now()
	at := func(ago time.Duration) string { return now.Add(-ago).UTC().Format(time.RFC3339Nano) }
	const never = "0001-01-01T00:00:00Z"
	ended := func(ago time.Duration) *container.State {
		return &container.State{Status: "exited", StartedAt: at(ago + time.Second), FinishedAt: at(ago)}
	}
	unstarted := &container.State{Status: "created", StartedAt: never, FinishedAt: never}
	for _, tt := range []struct {
		name    string
		task    string
		made    time.Duration // ago
		state   *container.State
		nobodys bool
		again   time.Duration // at most; 0 for never
	}{
		{"it measures", "measure", time.Second, &container.State{Running: true, StartedAt: at(time.Second), FinishedAt: never}, false, sweepRunning},
		{"it measures for hours", "measure", 5 * time.Hour, &container.State{Running: true, StartedAt: at(5 * time.Hour), FinishedAt: never}, false, sweepRunning},
		{"it reads", "read", time.Second, &container.State{Running: true, StartedAt: at(time.Second), FinishedAt: never}, false, 0},
		{"it has just measured", "measure", time.Minute, ended(time.Second), false, orphanedFor},
		{"it has measured", "measure", time.Minute, ended(orphanedFor + time.Second), true, 0},
		{"it has read", "read", time.Minute, ended(orphanedFor + time.Second), false, forgotten},
		{"it has read for hours", "read", 5 * time.Hour, ended(time.Second), false, forgotten},
		{"it has read long ago", "read", 2 * forgotten, ended(forgotten + time.Minute), true, 0},
		{"it is about to be started", "read", time.Second, unstarted, false, unstartedFor},
		{"nobody has started it", "read", unstartedFor + time.Second, unstarted, true, 0},
		{"the engine's clock is ahead", "measure", -time.Hour, ended(-time.Hour), false, orphanedFor},
		{"the task is not known", "", time.Minute, ended(time.Minute), false, forgotten},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nobodys, again := fateOf(tt.task, now.Add(-tt.made), tt.state, now)
			if nobodys != tt.nobodys || again > tt.again || again <= 0 && tt.again > 0 {
				t.Errorf("fateOf = %v, again in %v; want %v, in at most %v", nobodys, again, tt.nobodys, tt.again)
			}
		})
	}
}
