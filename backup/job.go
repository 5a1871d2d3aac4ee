package backup

import (
	"context"
	"time"
)

// Job is one backup, restore or undo, running or over.
type Job struct{}

// JobView is what can be shown of a job.
type JobView struct {
	ID       string `json:"id"` // the operation's: 12 hex digits
	Kind     string `json:"kind"`
	App      string `json:"app,omitempty"`
	Platform string `json:"platform,omitempty"`
	// State is "running", "done", "failed" or "cancelled".
	State    string    `json:"state"`
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended,omitzero"`
	Progress Progress  `json:"progress"`
	// Rate is in bytes per second over the last seconds, Left how long the phase will
	// still take; 0 is unknown.
	Rate     float64       `json:"rate,omitempty"`
	Left     time.Duration `json:"left,omitempty"`
	Warnings []string      `json:"warnings"`
	Error    string        `json:"error,omitempty"`
	Hint     string        `json:"hint,omitempty"`
	Result   any           `json:"result,omitempty"`
}

// NewJob registers a job; id "" makes one. An id that is taken is an error.
func (m *Manager) NewJob(kind, id string) (*Job, error) { return new(Job), nil }

// Jobs lists running jobs and the last that ended, newest first.
func (m *Manager) Jobs() []JobView { return nil }

// Job gives one job.
func (m *Manager) Job(id string) (*Job, bool) { return nil, false }

// View shows the job as it is.
func (j *Job) View() JobView { return JobView{} }

// Follow calls show with the job as it is, then after each change (not more often than
// every 100 ms), and returns after it was shown ended, or when ctx is over.
func (j *Job) Follow(ctx context.Context, show func(JobView) error) error { return nil }

// Cancel ends the job; its app is brought back first.
func (j *Job) Cancel() {}
