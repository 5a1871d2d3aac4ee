package backup

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Job is one backup, restore or undo, running or over.
type Job struct {
	id     string
	cancel context.CancelFunc
	ctx    context.Context // done once the job is cancelled or over; its lifetime is the job's
	over   chan struct{}   // closed once the job has ended

	mu      sync.Mutex // guards all below
	view    JobView
	changed chan struct{}       // closed at the next change
	samples []sample            // of the current phase, oldest first
	hide    func(string) string // takes secrets out of texts; nil where none are known
}

// sample is how far a phase was at some time.
type sample struct {
	at   time.Time
	done int64
}

// JobView is what can be shown of a job.
type JobView struct {
	ID       string `json:"id"`   // the operation's: 12 hex digits
	Kind     string `json:"kind"` // backup, restore, undo, or estimate: a dry run
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

// The states of a job.
const (
	jobRunning   = "running"
	jobDone      = "done"
	jobFailed    = "failed"
	jobCancelled = "cancelled"
)

const (
	// keptJobs is how many ended jobs can still be looked at, and keptEstimates how many
	// estimates: each question on a terminal makes one, and they push out no others.
	keptJobs      = 50
	keptEstimates = 10
	// rateOver is the time over which a rate is reckoned: long enough that it does not
	// jump, short enough to show that something has become slow.
	rateOver = 5 * time.Second
	// sampleEvery bounds the samples that are kept.
	sampleEvery = 100 * time.Millisecond
	// showEvery is how often Follow shows a job at most.
	showEvery = 100 * time.Millisecond
	// mostWarnings bounds the warnings of one job.
	mostWarnings = 100
)

// NewJob registers a job; id "" makes one. An id that is taken is an error.
func (m *Manager) NewJob(kind, id string) (*Job, error) {
	if id == "" {
		id = newOp()
	}
	if !validOp(id) {
		return nil, &Problem{Message: fmt.Sprintf("%q is no id of a job", id), Hint: "give 12 lowercase hex digits, or none"}
	}
	ctx, cancel := context.WithCancel(context.Background())
	j := &Job{id: id, ctx: ctx, cancel: cancel, over: make(chan struct{}), changed: make(chan struct{}), view: JobView{
		ID: id, Kind: kind, State: jobRunning, Started: time.Now().UTC(), Warnings: []string{},
	}}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		cancel()
		return nil, errClosed
	}
	if slices.ContainsFunc(m.jobs, func(j *Job) bool { return j.id == id }) {
		cancel()
		return nil, &Problem{Message: "there is a job " + id + " already", Hint: "choose another id, or none", Object: id}
	}
	m.jobs = append(m.jobs, j)
	m.dropJobsLocked()
	return j, nil
}

// dropJobsLocked forgets the oldest of too many ended jobs.
func (m *Manager) dropJobsLocked() {
	most := map[bool]int{false: keptJobs, true: keptEstimates} // by: it is an estimate
	for _, j := range m.jobs {
		if v := j.View(); v.State != jobRunning {
			most[v.Kind == kindEstimate]--
		}
	}
	m.jobs = slices.DeleteFunc(m.jobs, func(j *Job) bool {
		v := j.View()
		if v.State == jobRunning || most[v.Kind == kindEstimate] >= 0 {
			return false
		}
		most[v.Kind == kindEstimate]++
		return true
	})
}

// newOp makes the id of an operation.
func newOp() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Jobs lists running jobs and the last that ended, newest first.
func (m *Manager) Jobs() []JobView {
	m.mu.Lock()
	jobs := slices.Clone(m.jobs)
	m.mu.Unlock()
	out := make([]JobView, 0, len(jobs))
	for _, j := range slices.Backward(jobs) {
		out = append(out, j.View())
	}
	return out
}

// RunningJobs counts the jobs that are under way.
func (m *Manager) RunningJobs() int {
	n := 0
	for _, v := range m.Jobs() {
		if v.State == jobRunning {
			n++
		}
	}
	return n
}

// Job gives one job.
func (m *Manager) Job(id string) (*Job, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, j := range m.jobs {
		if j.id == id {
			return j, true
		}
	}
	return nil, false
}

// ID is the job's id.
func (j *Job) ID() string { return j.id }

// View shows the job as it is.
func (j *Job) View() JobView {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.viewLocked()
}

func (j *Job) viewLocked() JobView {
	v := j.view
	v.Warnings = slices.Clone(v.Warnings)
	if v.State == jobRunning {
		v.Rate, v.Left = j.rateLocked(time.Now())
	}
	return v
}

// rateLocked reckons bytes per second over the last seconds, and how long the phase
// will take at that rate.
func (j *Job) rateLocked(now time.Time) (rate float64, left time.Duration) {
	if len(j.samples) == 0 {
		return 0, 0
	}
	first := j.samples[0]
	for _, s := range j.samples[1:] {
		if now.Sub(s.at) < rateOver {
			break
		}
		first = s
	}
	over := now.Sub(first.at)
	p := j.view.Progress
	if over < sampleEvery || p.Done <= first.done {
		return 0, 0
	}
	rate = float64(p.Done-first.done) / over.Seconds()
	if p.Total > p.Done {
		const longest = 1000 * time.Hour
		left = time.Duration(min(float64(p.Total-p.Done)/rate, longest.Seconds()) * float64(time.Second)).Round(time.Second)
	}
	return rate, left
}

// report takes progress.
func (j *Job) report(p Progress) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.view.State != jobRunning {
		return
	}
	if j.hide != nil {
		p.Text, p.Warning = j.hide(p.Text), j.hide(p.Warning)
	}
	if p.Warning != "" {
		j.warnLocked(p.Warning)
		p.Warning = ""
	}
	if p.Phase == "" {
		if p.Text == "" && p.Total == 0 && p.Done == 0 { // a warning only
			j.wakeLocked()
			return
		}
		p.Phase = j.view.Progress.Phase
	}
	now := time.Now()
	// a phase that begins, or begins again with the next of several things
	if p.Phase != j.view.Progress.Phase || p.Done < j.view.Progress.Done {
		j.samples = j.samples[:0]
	}
	if n := len(j.samples); n == 0 || now.Sub(j.samples[n-1].at) >= sampleEvery {
		j.samples = append(j.samples, sample{now, p.Done})
		// one that is older than the span stays, to reckon from
		for len(j.samples) > 2 && now.Sub(j.samples[1].at) >= rateOver {
			j.samples = slices.Delete(j.samples, 0, 1)
		}
	}
	j.view.Progress = p
	j.wakeLocked()
}

func (j *Job) warnLocked(text string) {
	switch w := j.view.Warnings; {
	case slices.Contains(w, text):
	case len(w) < mostWarnings:
		j.view.Warnings = append(w, text)
	case len(w) == mostWarnings:
		j.view.Warnings = append(w, "there are more warnings, which are not shown")
	}
}

func (j *Job) wakeLocked() {
	close(j.changed)
	j.changed = make(chan struct{})
}

// about says what the job works on, once that is known.
func (j *Job) about(platform, app string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.view.Platform, j.view.App = platform, app
	j.wakeLocked()
}

// warnings are the warnings so far.
func (j *Job) warnings() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.view.Warnings)
}

// End ends a job that never got as far as Backup, Restore or Undo, which end theirs
// themselves. The first end counts.
func (j *Job) End(err error) { j.end(nil, err) }

func (j *Job) end(result any, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.view.State != jobRunning {
		return
	}
	v := j.viewLocked()
	v.Rate, v.Left = 0, 0
	v.Ended = time.Now().UTC()
	v.Result = result
	switch {
	case err == nil:
		v.State = jobDone
	case j.ctx.Err() != nil && errors.Is(err, context.Canceled) && !errors.Is(err, ErrLeftStopped):
		v.State = jobCancelled
	default:
		v.State, v.Error, v.Hint = jobFailed, strings.ToValidUTF8(err.Error(), "\uFFFD"), HintOf(err)
	}
	j.view = v
	j.samples = nil
	j.cancel()
	close(j.over)
	j.wakeLocked()
}

// Follow calls show with the job as it is, then after each change (not more often than
// every 100 ms), and returns after it was shown ended, or when ctx is over.
func (j *Job) Follow(ctx context.Context, show func(JobView) error) error {
	pace := time.NewTimer(0)
	defer pace.Stop()
	<-pace.C
	for {
		j.mu.Lock()
		v, changed := j.viewLocked(), j.changed
		j.mu.Unlock()
		if err := show(v); err != nil || v.State != jobRunning {
			return err
		}
		pace.Reset(showEvery)
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		select { // what changes meanwhile is shown together; the end at once
		case <-pace.C:
		case <-j.over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Context is over once the job is cancelled or has ended: for what belongs to it and is
// done before Backup, Restore or Undo.
func (j *Job) Context() context.Context { return j.ctx }

// Cancel ends the job; its app is brought back first.
func (j *Job) Cancel() { j.cancel() }
