package caddymodule

import (
	"context"
	"errors"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/dentropy/dentropycloud/backup"
)

const (
	// streamPatience is how long a client may take nothing of an archive that is sent to it.
	streamPatience = 2 * time.Minute
	// headPatience is how long a client may take to send the head of an archive for a plan.
	headPatience = 5 * time.Minute
	// leftPatience is how long what is left of a request is waited for before it is refused.
	leftPatience = time.Second
)

// endWith ends what waits on a connection when a job is cancelled: set is one of the
// deadlines. That holds until stop is called.
func endWith(job *backup.Job, set func(time.Time) error) (stop func()) {
	var mu sync.Mutex // guards stopped
	stopped := false
	off := context.AfterFunc(job.Context(), func() {
		mu.Lock()
		defer mu.Unlock()
		// the context of a job that has ended is over as well
		if !stopped && job.View().State == "running" {
			_ = set(time.Unix(1, 0)) // long ago; where there are no deadlines, the client has to end it
		}
	})
	return func() {
		off()
		mu.Lock()
		defer mu.Unlock()
		stopped = true
	}
}

// noMore lets a request be answered whose body was not read to its end: net/http reads on
// before it answers, and what is left may never come.
func noMore(rc *http.ResponseController) {
	_ = rc.SetReadDeadline(time.Now().Add(leftPatience)) // without deadlines it is the client's to end it
}

// archiveWriter sends headers with the first byte. It gives up on a client that takes
// nothing, and when its job is cancelled.
type archiveWriter struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	ctx  context.Context // the job's
	kind string

	mu    sync.Mutex // guards begun; held while something is written
	begun bool
}

func newArchiveWriter(w http.ResponseWriter, job *backup.Job, kind string) *archiveWriter {
	return &archiveWriter{w: w, rc: http.NewResponseController(w), ctx: job.Context(), kind: kind}
}

func (a *archiveWriter) Write(b []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.patience(streamPatience); err != nil {
		return 0, err
	}
	if err := a.ctx.Err(); err != nil { // looked at behind the deadline: endWith may have set its own before
		return 0, err
	}
	if !a.begun {
		a.begun = true
		h := a.w.Header()
		h.Set("Content-Type", a.kind)
		h.Set("Cache-Control", "no-store")
		h.Set("Trailer", "Dentropy-Sha256, Dentropy-Size")
		a.w.WriteHeader(http.StatusOK)
	}
	n, err := a.w.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) && a.ctx.Err() == nil {
		err = &backup.Problem{
			Message: "the client has taken nothing for " + streamPatience.String(),
			Hint:    "see why it stalls, or let the archive go to a store", Err: err,
		}
	}
	return n, err
}

// patience sets how long the connection waits.
func (a *archiveWriter) patience(d time.Duration) error {
	err := a.rc.SetWriteDeadline(time.Now().Add(d))
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}

// end waits until nothing is written any more, and makes the connection ready for what
// else is to be said. It reports whether something was sent.
func (a *archiveWriter) end() (begun bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = a.patience(streamPatience) // of a connection that is gone, the answer is lost anyway
	return a.begun
}
