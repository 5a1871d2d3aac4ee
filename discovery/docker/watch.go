package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"

	"github.com/dentropy/dentropycloud/discovery"
	"github.com/dentropy/dentropycloud/internal/backoff"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// record is what a watcher keeps of one container: those that ask for routes, and
// those whose network such a one uses.
type record struct {
	// Never changed, only replaced: what was reported looks at it.
	*facts
	routed bool
	// partial says that the answer so far does not suffice to read the labels: it is
	// not reported before it has been inspected.
	partial bool
	// killed says that somebody sent it a signal in this life: no restart follows.
	killed bool
	// lives and healths count the events that changed its state and its health: an
	// inspection that was under way meanwhile may be older than they are.
	lives, healths uint64
}

// watcher is one run of Watch. A single goroutine owns it; others hand their
// results over through channels.
type watcher struct {
	*Source
	up      discovery.Updater
	known   map[string]*record
	sharers map[string]map[string]bool // container → those that use its network

	// Of the current connection:
	conn     *connection
	at       place
	networks map[string]networkInfo // replaced, never changed
	queue    *queue
	work     *inspector
	touched  map[string]bool // while a list is under way: what changed since it began
	wg       sync.WaitGroup
	results  chan func() // what other goroutines found out, to be run by the owner
	failed   error       // set by one of those: the connection is of no use
}

// session connects, lists and follows until something fails. listed says that it
// came as far as a Replace.
func (w *watcher) session(ctx context.Context, version string) (listed bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer w.wg.Wait()
	defer cancel()

	err = w.within(ctx, w.timing.call, "connect", func(ctx context.Context) error {
		w.conn, err = dial(ctx, w.ep, version)
		return err
	})
	if err != nil {
		return false, err
	}
	defer w.conn.close()

	w.results, w.failed = make(chan func()), nil
	w.touched = nil
	w.work = newInspector(w)
	defer w.work.stop()
	broken := make(chan error, 1)
	if err := w.subscribe(ctx, broken); err != nil {
		return false, err
	}
	if err := w.lookAround(ctx); err != nil {
		return false, err
	}
	list, err := w.firstList(ctx, broken)
	if err != nil {
		return false, err
	}
	w.adopt(list, nil)
	// What came before the list was read may be older than the list: ask.
	w.applyAll(ctx, w.queue.take(), true)
	return true, w.follow(ctx, broken)
}

// within runs one call with a time limit and names it in the error.
func (w *watcher) within(ctx context.Context, limit time.Duration, what string, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errTimeout)
	defer cancel()
	err := call(ctx)
	if err == nil {
		return nil
	}
	if errors.Is(context.Cause(ctx), errTimeout) {
		err = fmt.Errorf("no answer within %v (is the engine overloaded?)", limit)
	}
	return fmt.Errorf("docker engine at %s: %s: %w", w.ep, what, err)
}

var errTimeout = errors.New("timeout")

// subscribe opens the event stream and leaves a goroutine behind that drains it.
func (w *watcher) subscribe(ctx context.Context, broken chan<- error) error {
	since := time.Now().Add(-overlap)
	w.queue = newQueue(since)
	q, conn := w.queue, w.conn
	opened := make(chan struct{})
	fail := func(err error) { broken <- fmt.Errorf("docker engine at %s: event stream: %w", w.ep, err) }
	w.wg.Go(func() {
		messages, errs := conn.Events(ctx, events.ListOptions{Since: stamp(since.UnixNano()), Filters: eventFilter()})
		close(opened)
		for {
			// Nothing else happens here: an engine drops events for readers that let
			// them wait, and does not say so.
			select {
			case ev := <-messages:
				q.push(ev)
			case err := <-errs:
				if err == nil || errors.Is(err, io.EOF) {
					err = errors.New("it ended")
				}
				fail(hint(err))
				return
			}
		}
	})
	return w.within(ctx, w.timing.call, "subscribe to events", func(ctx context.Context) error {
		select {
		case <-opened:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// eventFilter is applied by the engine.
func eventFilter() filters.Args {
	args := filters.NewArgs(
		filters.Arg("type", string(events.ContainerEventType)),
		filters.Arg("type", string(events.NetworkEventType)),
	)
	for _, name := range wantedEvents {
		args.Add("event", name)
	}
	return args
}

// stamp writes a time as the API wants it.
func stamp(ns int64) string {
	return fmt.Sprintf("%d.%09d", ns/int64(time.Second), ns%int64(time.Second))
}

// lookAround finds out where we are and which networks there are.
func (w *watcher) lookAround(ctx context.Context) error {
	err := w.within(ctx, w.timing.call, "look for our own container", func(ctx context.Context) (err error) {
		w.at, err = findPlace(ctx, w.conn, dockerengine.OwnIDs(w.root, w.hostname), w.ep.Host())
		return err
	})
	if err != nil {
		return err
	}
	networks := map[string]networkInfo{}
	err = w.within(ctx, w.timing.call, "list networks", func(ctx context.Context) error {
		all, err := w.conn.NetworkList(ctx, network.ListOptions{})
		for _, n := range all {
			networks[n.ID] = networkInfo{driver: n.Driver, internal: n.Internal}
		}
		return err
	})
	w.networks = networks
	if dockerengine.WantedVersion(err) != "" {
		return err
	}
	if err != nil { // a proxy may refuse it; it only helps to choose
		w.log.Debug("networks are not known", "error", err)
	}
	return nil
}

func (w *watcher) list(ctx context.Context) (list []container.Summary, err error) {
	err = w.within(ctx, w.timing.list, "list containers", func(ctx context.Context) (err error) {
		list, err = w.conn.ContainerList(ctx, container.ListOptions{All: true})
		return hint(err)
	})
	return list, err
}

// firstList lists, and gives up when the event stream breaks meanwhile.
func (w *watcher) firstList(ctx context.Context, broken <-chan error) ([]container.Summary, error) {
	type answer struct {
		list []container.Summary
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan answer, 1)
	w.wg.Go(func() {
		list, err := w.list(ctx)
		done <- answer{list, err}
	})
	select {
	case a := <-done:
		return a.list, a.err
	case err := <-broken:
		return nil, err
	}
}

// follow applies what happens until the connection breaks.
func (w *watcher) follow(ctx context.Context, broken <-chan error) error {
	idle := time.NewTicker(backoff.Jitter(w.timing.idle))
	defer idle.Stop()
	resync := time.NewTicker(backoff.Jitter(w.timing.resync))
	defer resync.Stop()
	checking := false
	for {
		w.work.dispatch(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-broken:
			return err
		case <-w.queue.wake:
			w.applyAll(ctx, w.queue.take(), false)
		case f := <-w.results:
			if f(); w.failed != nil {
				return w.failed
			}
		case <-idle.C:
			if _, at := w.queue.newest(); checking || time.Since(at) < w.timing.idle/2 {
				continue
			}
			checking = true
			w.background(ctx, func() func() {
				err := w.checkStream(ctx)
				return func() { checking, w.failed = false, err }
			})
		case <-resync.C:
			w.resync(ctx)
		}
	}
}

// background runs f beside the loop and its result in it.
func (w *watcher) background(ctx context.Context, f func() func()) {
	w.wg.Go(func() {
		done := f()
		select {
		case w.results <- done:
		case <-ctx.Done():
		}
	})
}

// resync lists everything again, while events go on being applied.
func (w *watcher) resync(ctx context.Context) {
	if w.touched != nil {
		return // the last one is not done yet
	}
	w.touched = map[string]bool{}
	w.background(ctx, func() func() {
		list, err := w.list(ctx)
		return func() {
			touched := w.touched
			w.touched = nil
			if w.failed = err; err == nil {
				w.adopt(list, touched)
			}
		}
	})
}

// checkStream asks for the events since the last one that came. Where there are
// any, our stream is dead: the engine or something in between has stopped
// delivering without closing it. It doubles as a ping.
func (w *watcher) checkStream(ctx context.Context) error {
	q := w.queue
	seen, at := q.newest()
	until := max(seen+1, seen+int64(time.Since(at))) // by the engine's clock
	var missed int64
	err := w.within(ctx, w.timing.call, "check the event stream", func(ctx context.Context) error {
		messages, errs := w.conn.Events(ctx, events.ListOptions{Since: stamp(seen + 1), Until: stamp(until), Filters: eventFilter()})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for {
			select {
			case ev := <-messages:
				missed = max(missed, ev.TimeNano)
			case err := <-errs:
				if err == nil || errors.Is(err, io.EOF) || errors.Is(err, context.DeadlineExceeded) {
					return nil // the engine's clock is behind ours, but it answers
				}
				return err
			}
		}
	})
	if err != nil || missed == 0 {
		return err
	}
	// It may just have happened; give our stream the time to bring it.
	deadline := time.NewTimer(w.timing.lag)
	defer deadline.Stop()
	select {
	case <-deadline.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	if now, _ := q.newest(); now < missed {
		return fmt.Errorf("docker engine at %s: event stream: it went silent without ending", w.ep)
	}
	return nil
}
