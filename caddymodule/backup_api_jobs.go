package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/dentropy/dentropycloud/backup"
)

func getJobs(_ *State, m *backup.Manager, w http.ResponseWriter, _ *http.Request) error {
	return answer(w, map[string]any{"jobs": m.Jobs()})
}

// jobOf finds the job that a request is about. That there is none has been answered when
// job is nil.
func jobOf(m *backup.Manager, w http.ResponseWriter, r *http.Request) (job *backup.Job, err error) {
	id := r.PathValue("id")
	job, ok := m.Job(id)
	if !ok {
		return nil, fail(w, http.StatusNotFound, apiProblem{"there is no job " + id, "only the last jobs are kept: dentropy jobs lists them"}, id)
	}
	return job, nil
}

func getJob(_ *State, m *backup.Manager, w http.ResponseWriter, r *http.Request) error {
	job, err := jobOf(m, w, r)
	if job == nil {
		return err
	}
	return answer(w, job.View())
}

func deleteJob(_ *State, m *backup.Manager, w http.ResponseWriter, r *http.Request) error {
	job, err := jobOf(m, w, r)
	if job == nil {
		return err
	}
	job.Cancel()
	return accepted(w, job)
}

// getJobEvents streams a job's views as server-sent events, the last of which shows it
// ended.
func getJobEvents(s *State, m *backup.Manager, w http.ResponseWriter, r *http.Request) error {
	job, err := jobOf(m, w, r)
	if job == nil {
		return err
	}
	if err := noDeadlines(w); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	rc := http.NewResponseController(w)
	var mu sync.Mutex // guards w
	send := func(format string, a ...any) error {
		mu.Lock()
		defer mu.Unlock()
		if _, err := fmt.Fprintf(w, format, a...); err != nil {
			return err
		}
		return rc.Flush()
	}
	var beats sync.WaitGroup
	beats.Go(func() {
		tick := time.NewTicker(heartbeat)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if send(": still here\n\n") != nil {
					cancel()
				}
			case <-s.ended:
				// the jobs end as well; what that comes to can be seen when it starts again
				cancel()
				return
			case <-ctx.Done():
				return
			}
		}
	})
	_ = job.Follow(ctx, func(v backup.JobView) error {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return send("data: %s\n\n", b)
	})
	// however it ended: the client has gone, or has seen the end
	cancel()
	beats.Wait()
	return nil
}
