package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"
)

// operation is one job at work.
type operation struct {
	m   *Manager
	cfg Config // as it was when the job began
	job *Job
	ctx context.Context // over once the job is cancelled

	kind    string
	lock    *appLock
	journal *fileJournal
	temp    string

	restMu  sync.Mutex
	resting *Resting // what was said to rest last; nil once it runs
}

// run does one job, and ends it. A nil job is made here.
func (m *Manager) run(ctx context.Context, job *Job, kind string, work func(*operation) (any, error)) (err error) {
	if job == nil {
		if job, err = m.NewJob(kind, ""); err != nil {
			return err
		}
	}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		job.end(nil, errClosed)
		return errClosed
	}
	m.wg.Add(1)
	m.mu.Unlock()
	defer m.wg.Done()

	// either ends both: a caller that has gone cancels its job
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(job.ctx, cancel)()
	stop := context.AfterFunc(ctx, job.cancel)

	op := &operation{m: m, cfg: m.config(), job: job, ctx: ctx, kind: kind}
	var result any
	ended := false
	defer func() {
		// a panic ends the job, not the program: sites are served by it
		if p := recover(); p != nil || !ended {
			op.cfg.Log.Error("a job panicked", "kind", kind, "operation", job.ID(), "panic", p, "stack", string(debug.Stack()))
			result, err = nil, fmt.Errorf("%s: %w", kind, errPanicked)
		}
		op.close()
		stop()
		job.end(result, err)
		m.mu.Lock()
		m.dropJobsLocked()
		m.mu.Unlock()
		if op.cfg.Ended != nil {
			op.cfg.Ended(job.View())
		}
	}()
	result, err = work(op)
	if err != nil && op.over() != nil && !errors.Is(err, context.Canceled) {
		err = errors.Join(err, context.Canceled) // whatever broke first when it was cancelled
	}
	ended = true
	return op.concealed(err)
}

var errPanicked = errors.New("the program has a bug: it panicked, see its log; what is left to do is in the journal")

// over is not nil once the operation is cancelled. ctx learns of that a moment later.
func (op *operation) over() error { return errors.Join(op.job.ctx.Err(), op.ctx.Err()) }

// close lets go of all that the operation still has.
func (op *operation) close() {
	op.rest(nil)
	if op.journal != nil {
		op.leave(false)
	}
	if op.temp != "" {
		_ = os.RemoveAll(op.temp) // the next sweep takes it
	}
	if op.lock != nil {
		op.lock.release()
	}
	op.m.recoverSoon()
}

// take locks the app, and first finishes what a dead process left behind of it.
func (op *operation) take(platform, app string) error {
	op.job.about(platform, app)
	if op.lock != nil {
		op.lock.release()
		op.lock = nil
	}
	lock, err := op.lockApp(platform, app)
	if err != nil {
		return err
	}
	op.lock = lock
	if err := op.m.recoverApp(op.ctx, platform, app); err != nil {
		return &Problem{
			Message: fmt.Sprintf("an earlier operation on %s was cut off, and cannot be finished: %v", app, err),
			Hint:    cmp.Or(HintOf(err), "see that its engine can be reached"), Object: app, Err: err,
		}
	}
	return nil
}

// lockApp locks an app. Recovery is waited for: it ends soon, or it fails and goes on
// later. So is a holder without a name: it has only just taken the lock, or lets go of it.
func (op *operation) lockApp(platform, app string) (*appLock, error) {
	const (
		patience = 10 * time.Second
		every    = 50 * time.Millisecond
	)
	for until := time.Now().Add(patience); ; {
		lock, err := lockApp(filepath.Join(op.cfg.Dir, dirLocks), platform, app, lockHolder{
			PID: os.Getpid(), Op: op.job.ID(), Kind: op.kind, Time: time.Now().UTC(),
		})
		var held *lockedError
		if !errors.As(err, &held) || held.holder.PID != 0 && held.holder.Kind != recovery || time.Now().After(until) {
			return lock, err
		}
		t := time.NewTimer(every)
		select {
		case <-t.C:
		case <-op.ctx.Done():
			t.Stop()
			return nil, op.ctx.Err()
		}
	}
}

// begin opens the journal: from here on a crash leaves something to recover.
func (op *operation) begin(platform, app string) error {
	temp := filepath.Join(op.cfg.Dir, dirTemp, op.job.ID())
	if err := os.Mkdir(temp, 0o700); err != nil {
		return fmt.Errorf("make folder for temporary files: %w", err)
	}
	op.temp = temp
	j, err := createJournal(filepath.Join(op.cfg.Dir, dirJournal), Operation{
		ID: op.job.ID(), Kind: op.kind, Platform: platform, App: app, Time: time.Now().UTC(),
	})
	if err != nil {
		return err
	}
	op.journal = j
	return nil
}

// finish closes the journal, if nothing is left to do; err is what the operation came
// to. Otherwise the journal stays, and recovery goes on trying.
func (op *operation) finish(err error) {
	if op.journal == nil {
		return
	}
	if errors.Is(err, ErrLeftStopped) {
		op.leave(false)
		return
	}
	if err := op.journal.finish(); err != nil {
		op.cfg.Log.Warn("journal of an ended operation stays", "operation", op.job.ID(), "error", err)
	}
	op.journal = nil
}

// leave lets go of the journal, for recovery to work it off; runs says that the app is
// known to run.
func (op *operation) leave(runs bool) {
	op.m.mu.Lock()
	op.m.dead[op.journal.path] = deadOp{op.journal.op, runs}
	op.m.mu.Unlock()
	op.journal.abandon()
	op.journal = nil
}

// rest passes on what rests; nil means that it runs again. It returns when the app may be
// stopped.
func (op *operation) rest(r *Resting) {
	op.tellRest(r)
	if r != nil && op.cfg.Drain != nil {
		op.cfg.Drain(op.ctx, r)
	}
}

func (op *operation) tellRest(r *Resting) {
	if op.cfg.Resting == nil {
		return
	}
	op.restMu.Lock()
	defer op.restMu.Unlock()
	if op.resting != nil && (r == nil || r.App != op.resting.App || r.Platform != op.resting.Platform) {
		over := *op.resting
		over.Over = true
		op.cfg.Resting(&over)
	}
	op.resting = r
	if r != nil {
		op.cfg.Resting(r)
	}
}
