package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

const (
	// healthTimeout bounds the wait for each container to be healthy.
	healthTimeout = 2 * time.Minute
	// lookEvery is how often a container's state is asked for while it is waited for.
	lookEvery = 250 * time.Millisecond
	// restartGrace is how long a container may end and be started again before that counts
	// as how it is.
	restartGrace = 15 * time.Second
	// startAttempts is how often a start that the engine refuses is tried: an address or a
	// port is given back a moment after the container that had it has ended.
	startAttempts = 4
)

// halted is a container that is brought to rest, and all that is needed to bring it
// back. It is in the journal, and the guard gets it; it holds no secrets.
type halted struct {
	ID   string      `json:"id"`
	Name string      `json:"name"`
	Mode backup.Mode `json:"mode"` // stop or pause
	// State is the one before: running or restarting.
	State backup.State `json:"state"`
	// StartedAt is when it was started before it came to rest. Another time means that
	// somebody has started it since.
	StartedAt time.Time `json:"started_at,omitzero"`
	// Ours says that it came to rest by our hand, whenever it was started before.
	Ours      bool `json:"ours,omitempty"`
	NoRestart bool `json:"no_restart,omitempty"`
	// Unhealthy says that it was not healthy before: its health is not waited for.
	Unhealthy bool `json:"unhealthy,omitempty"`
	// Grace is how long it may take to end.
	Grace     time.Duration       `json:"grace,omitempty"`
	DependsOn []backup.Dependency `json:"depends_on,omitempty"`
}

// comeback is how containers came back.
type comeback struct {
	// First is when the first start was called, Last when the last container ran, and was
	// healthy if it has a check. Zero where nothing was started.
	First, Last time.Time
	// Warnings are what did not go as it should, and yet leaves nothing stopped.
	Warnings []string
}

// starter brings containers back, in order.
type starter struct {
	p      *Platform
	health time.Duration
	// report takes progress. May be nil.
	report func(backup.Progress)
	turn   map[string]*turn // by name
	// left is when the one who brought them to rest was last there; zero where that is us.
	// A stop of his may be under way.
	left time.Time

	mu   sync.Mutex // guards what follows
	back comeback
	errs []error
}

// bringBack starts and unpauses what has been brought to rest, each after those that it
// depends on. list is in the order in which they start. What somebody else has removed or
// started since is left alone. The error wraps backup.ErrLeftStopped.
func (p *Platform) bringBack(ctx context.Context, list []halted, health time.Duration, report func(backup.Progress)) (comeback, error) {
	return p.bringBackAfter(ctx, time.Time{}, list, health, report)
}

// bringBackAfter does the same for one who is gone since left: what he was about to stop
// may still run, and end any moment.
func (p *Platform) bringBackAfter(ctx context.Context, left time.Time, list []halted, health time.Duration, report func(backup.Progress)) (comeback, error) {
	s := &starter{p: p, health: cmp.Or(health, healthTimeout), report: report, turn: make(map[string]*turn, len(list)), left: left}
	for _, h := range list {
		s.turn[h.Name] = &turn{started: make(chan struct{}), settled: make(chan struct{})}
	}
	var wg sync.WaitGroup
	for _, h := range list {
		wg.Go(func() { s.one(ctx, h) })
	}
	wg.Wait()
	if len(s.errs) > 0 {
		return s.back, fmt.Errorf("%w: %w", backup.ErrLeftStopped, errors.Join(s.errs...))
	}
	return s.back, nil
}

// turn says how far a container is; others wait for it.
type turn struct {
	started chan struct{} // closed when it runs, or will not
	settled chan struct{} // closed when it is healthy, or will not be
}

func (s *starter) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.mu.Lock()
	s.back.Warnings = append(s.back.Warnings, text)
	s.mu.Unlock()
	if s.report != nil {
		s.report(backup.Progress{Phase: "start", Warning: text})
	}
}

// one brings one container back, when it is its turn.
func (s *starter) one(ctx context.Context, h halted) {
	me := s.turn[h.Name]
	defer close(me.settled)
	woken := s.wake(ctx, h)
	close(me.started)
	if !woken {
		return
	}
	if h.State != backup.Restarting && !h.Unhealthy { // else it would not settle before either
		if text := s.p.settle(ctx, h.ID, h.Name, s.health, false); text != "" {
			s.warn("%s", text)
		}
	}
	s.mu.Lock()
	s.back.Last = time.Now()
	s.mu.Unlock()
}

// wake starts a container, and reports whether it did.
func (s *starter) wake(ctx context.Context, h halted) bool {
	for _, d := range h.DependsOn {
		limit := s.health
		// They come to an end: dependencies hold no circle, see startOrder.
		if t := s.turn[d.Container]; t != nil && d.Condition == condStarted {
			<-t.started
		} else if t != nil {
			<-t.settled
			limit = time.Second // its health was waited for
		}
		if st, err := s.p.state(ctx, h.ID); err == nil && (st == nil || !h.mine(st)) {
			break // it does not start, so nothing is waited for
		}
		if text := s.p.await(ctx, d, limit); text != "" {
			s.warn("%s starts although %s", h.Name, text)
		}
	}
	st, err := s.atRest(ctx, h)
	switch {
	case err != nil:
	case st == nil:
		s.warn("%s was removed meanwhile, and is left so", h.Name)
		return false
	case !h.mine(st):
		return false
	default:
		s.mu.Lock()
		if s.back.First.IsZero() {
			s.back.First = time.Now()
		}
		s.mu.Unlock()
		if s.report != nil {
			s.report(backup.Progress{Phase: "start", Text: h.Name})
		}
		err = s.p.wake(ctx, h, st, s.warn)
	}
	if err != nil {
		s.mu.Lock()
		s.errs = append(s.errs, fmt.Errorf("start %s: %w", h.Name, err))
		s.mu.Unlock()
	}
	return err == nil
}

// atRest gives a container's state, nil where there is none. One that may be about to come
// to rest is waited for.
func (s *starter) atRest(ctx context.Context, h halted) (*container.State, error) {
	st, err := s.p.state(ctx, h.ID)
	if s.left.IsZero() || err != nil || st == nil || !h.untouched(st) {
		return st, err
	}
	limit := time.Until(s.left.Add(h.Grace + slack))
	if limit <= 0 {
		return st, nil
	}
	s.p.watch(ctx, h.ID, limit, func(st *container.State) bool { return !h.untouched(st) })
	return s.p.state(ctx, h.ID)
}

// slack is between what an engine was asked and what it has done.
const slack = 5 * time.Second

// untouched reports whether a container runs as it did before anybody brought it to rest.
func (h halted) untouched(st *container.State) bool {
	return st.Running && !st.Paused && !h.Ours && (h.StartedAt.IsZero() || engineTime(st.StartedAt).Equal(h.StartedAt))
}

// mine reports whether a container is as we left it, so that it is for us to bring it
// back.
func (h halted) mine(st *container.State) bool {
	switch {
	case h.NoRestart:
		return false
	case st.Paused:
		return h.Mode == backup.Pause
	case st.Running, st.Restarting:
		return false
	}
	started := engineTime(st.StartedAt)
	// A container that kept ending and being started again changes the time by itself.
	return h.Ours || h.State == backup.Restarting || h.StartedAt.IsZero() || started.Equal(h.StartedAt)
}

// state asks for a container's state; nil means that there is no such container.
func (p *Platform) state(ctx context.Context, id string) (*container.State, error) {
	var st *container.State
	err := p.insist(ctx, "inspect container", func(ctx context.Context, c *dockerengine.Conn) error {
		in, err := c.ContainerInspect(ctx, id)
		if errdefs.IsNotFound(err) {
			st = nil
			return nil
		}
		if err == nil && (in.ContainerJSONBase == nil || in.State == nil) {
			err = errors.New("the engine does not tell the container's state")
		}
		if err == nil {
			st = in.State
		}
		return err
	})
	return st, err
}

// wake starts or unpauses a container. warn takes what had to be done for that.
func (p *Platform) wake(ctx context.Context, h halted, st *container.State, warn func(format string, args ...any)) error {
	if st.Paused {
		return p.insist(ctx, "unpause", func(ctx context.Context, c *dockerengine.Conn) error {
			err := c.ContainerUnpause(ctx, h.ID)
			if err != nil {
				if in, e := c.ContainerInspect(ctx, h.ID); e == nil && in.State != nil && in.State.Running && !in.State.Paused {
					return nil // somebody was faster
				}
			}
			return err
		})
	}
	return p.startContainer(ctx, h.ID, h.Name, warn)
}

// startContainer starts a container, and tries a few times where the engine refuses. warn
// takes what had to be done about it.
func (p *Platform) startContainer(ctx context.Context, id, name string, warn func(format string, args ...any)) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var lost error // why nothing could be done about one that the engine has lost track of
	for attempt := 1; ; attempt++ {
		err := p.insist(ctx, "start container", func(ctx context.Context, c *dockerengine.Conn) error {
			// One that runs already is no error.
			return c.ContainerStart(ctx, id, container.StartOptions{})
		})
		switch {
		case err == nil, errdefs.IsNotFound(err), ctx.Err() != nil:
			return err
		case attempt == startAttempts && isLost(err, id):
			return lostProblem(name, err, lost)
		case attempt == startAttempts:
			return err
		}
		if st, e := p.state(ctx, id); e == nil && st != nil && st.Running {
			return nil // the answer was lost
		}
		if attempt >= lostAfter && isLost(err, id) {
			if lost = p.endLost(ctx, id); lost == nil {
				warn("the engine had lost track of %s, as it does when its daemon is killed in a start: what ran of it was ended, and it is started again", name)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// await waits until a dependency's condition holds. It returns why it does not, "" where
// it does or there is no such container.
func (p *Platform) await(ctx context.Context, d backup.Dependency, limit time.Duration) string {
	if d.Condition == condStarted {
		return ""
	}
	why := d.Container + " is not " + d.Condition
	ok := p.watch(ctx, d.Container, limit, func(st *container.State) bool {
		switch {
		case d.Condition == condCompleted:
			if st.Running || st.Restarting {
				why = d.Container + " is still running"
				return false
			}
			if st.ExitCode != 0 {
				why = fmt.Sprintf("%s ended with code %d", d.Container, st.ExitCode)
				return false
			}
			return true
		case !st.Running && !st.Restarting:
			why = d.Container + " does not run"
			return true // and it will not by itself
		case st.Health == nil || st.Health.Status == container.NoHealthcheck:
			return true
		}
		why = d.Container + " is " + st.Health.Status
		return st.Health.Status == container.Healthy
	})
	if ok && why != d.Container+" does not run" {
		return ""
	}
	return why
}

// settle waits until a container that was started is healthy, where it has a check. It
// returns what is wrong with it, "" where nothing is. giveUp says that one that says that
// it is unhealthy is not waited for any longer: it has had its start period and retries.
func (p *Platform) settle(ctx context.Context, id, name string, limit time.Duration, giveUp bool) string {
	wrong := ""
	begun := time.Now()
	ok := p.watch(ctx, id, limit, func(st *container.State) bool {
		switch {
		case !st.Running && !st.Restarting:
			if st.ExitCode != 0 {
				wrong = fmt.Sprintf("%s ended with code %d right after it was started", name, st.ExitCode)
			}
			return true
		case st.Restarting:
			wrong = name + " does not stay up: it keeps ending and being started again"
			return time.Since(begun) > restartGrace
		case st.Health == nil || st.Health.Status == container.NoHealthcheck:
			wrong = ""
			return true
		}
		wrong = name + " is " + st.Health.Status + " after it was started"
		if st.Health.Status == container.Healthy {
			wrong = ""
		}
		return wrong == "" || giveUp && st.Health.Status == container.Unhealthy
	})
	if !ok && wrong == "" {
		wrong = "it is not known how " + name + " is"
	}
	return wrong
}

// watch looks at a container again and again until over says so, or it is gone, or the
// time is up, or ctx: then it returns false.
func (p *Platform) watch(ctx context.Context, id string, limit time.Duration, over func(*container.State) bool) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		st, err := p.state(ctx, id)
		if err == nil && (st == nil || over(st)) {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

// names of containers that are brought to rest.
func haltedNames(list []halted, mode backup.Mode) []string {
	var out []string
	for _, h := range list {
		if h.Mode == mode {
			out = append(out, h.Name)
		}
	}
	return slices.Clip(out)
}
