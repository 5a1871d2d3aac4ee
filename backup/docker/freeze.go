package docker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

const (
	// transitReserve must stay free in the transit volume: it is on the disk that the
	// engine itself, and everything that runs, writes to.
	transitReserve = 256 << 20
	// backTimeout bounds bringing an app back where nobody waits any more.
	backTimeout = 15 * time.Minute
	// readAttempts is how often the data is read where somebody starts what was stopped.
	readAttempts = 2
)

// freeze is one app on its way to rest and back.
type freeze struct {
	p    *Platform
	app  *backup.App
	est  *backup.Estimate
	opts backup.FreezeOptions
	j    backup.Journal
	dir  string // in the helper: /transit/<op>

	plan   restPlan
	guards *guards
	layers []string
	report backup.QuiesceReport

	// journalMu lets one entry be written at a time.
	journalMu sync.Mutex
	// hooked says that hooks were begun, so that those at the end are due.
	hooked bool
	// firstStop, lastStop, firstStart and lastStart are when.
	firstStop, lastStop, firstStart, lastStart time.Time
	resting                                    bool
	read                                       int64 // bytes, of volumes that are done
}

// Freeze implements backup.Platform.
func (p *Platform) Freeze(ctx context.Context, app *backup.App, est *backup.Estimate, opts backup.FreezeOptions, j backup.Journal) (backup.Frozen, error) {
	if opts.Report == nil {
		opts.Report = func(backup.Progress) {}
	}
	f := &freeze{p: p, app: app, est: est, opts: opts, j: j, dir: path.Join(transitDir, j.Op())}
	out, err := f.run(ctx)
	if err != nil {
		if !errors.Is(err, backup.ErrLeftStopped) { // else a guard is at work: Recover clears up
			f.clean(context.WithoutCancel(ctx))
		}
		return nil, err
	}
	return out, nil
}

func (f *freeze) append(step string, data any) error {
	f.journalMu.Lock()
	defer f.journalMu.Unlock()
	return f.j.Append(step, data)
}

func (f *freeze) warn(format string, args ...any) {
	f.opts.Report(backup.Progress{Phase: "quiesce", Warning: fmt.Sprintf(format, args...)})
}

// run does all of it. Whatever happens, what ran before runs when it returns, or the
// error says so.
func (f *freeze) run(ctx context.Context) (*frozen, error) {
	if err := f.prepare(ctx); err != nil {
		return nil, err
	}
	err := f.hooks(ctx, f.plan.pre)
	if err == nil {
		err = f.rest(ctx)
	}
	if err == nil {
		err = f.readVolumes(ctx, f.running())
	}
	// Hooks at the end are run whatever has happened.
	if post := f.posts(context.WithoutCancel(ctx)); err == nil {
		err = post
	}
	if err != nil {
		return nil, err
	}
	return f.thaw(ctx)
}

// prepare does all that can fail before anything is touched.
func (f *freeze) prepare(ctx context.Context) (err error) {
	f.opts.Report(backup.Progress{Phase: "prepare"})
	if err := f.p.refresh(ctx, f.app); err != nil {
		return err
	}
	if f.plan, err = planRest(f.app, f.opts.Mode); err != nil {
		return err
	}
	for _, w := range f.plan.warnings {
		f.warn("%s", w)
	}
	for i := range f.app.Volumes {
		if v := &f.app.Volumes[i]; v.Action == backup.Include {
			v.Consistency = consistencyOf(f.app, v, f.opts.Mode)
		}
	}
	if _, err := f.p.EnsureHelper(ctx); err != nil {
		return err
	}
	return f.p.ensureTransit(ctx)
}

// hooks runs hooks one after the other, to the first that fails.
func (f *freeze) hooks(ctx context.Context, list []hookRun) error {
	if len(f.plan.pre)+len(f.plan.post) == 0 || len(list) == 0 && f.hooked {
		return nil
	}
	if !f.hooked {
		f.hooked = true
		if err := f.append(stepHooks, journalHooks{Post: f.plan.post}); err != nil {
			return err
		}
	}
	for _, h := range list {
		f.opts.Report(backup.Progress{Phase: "quiesce", Text: h.Name + ": " + h.Hook.Label})
		report, err := f.p.runHook(ctx, h)
		f.report.Hooks = append(f.report.Hooks, report)
		if err != nil {
			return err
		}
	}
	return nil
}

// posts runs the hooks at the end. All are run, even where one fails.
func (f *freeze) posts(ctx context.Context) error {
	if !f.hooked {
		return nil
	}
	var errs []error
	for _, h := range f.plan.post {
		f.opts.Report(backup.Progress{Phase: "start", Text: h.Name + ": " + h.Hook.Label})
		limited, cancel := context.WithTimeout(ctx, backTimeout)
		report, err := f.p.runHook(limited, h)
		cancel()
		f.report.Hooks = append(f.report.Hooks, report)
		if err != nil { // the data is good all the same
			f.warn("%v", err)
		}
	}
	errs = append(errs, f.append(stepPosted, nil))
	return errors.Join(errs...)
}

// rest brings the app to rest, reads what rests, and brings it back.
func (f *freeze) rest(ctx context.Context) error {
	if len(f.plan.halt) == 0 {
		return f.readResting(ctx)
	}
	err := f.standBy(ctx)
	if err == nil {
		err = f.readAtRest(ctx)
	}
	if back := f.comeBack(ctx); back != nil {
		err = errors.Join(err, back)
	}
	return err
}

func (f *freeze) health() time.Duration { return cmp.Or(f.opts.HealthTimeout, healthTimeout) }

// standBy sets a guard and takes the plan down, before the first stop.
func (f *freeze) standBy(ctx context.Context) (err error) {
	// Hooks may have taken their time, and containers may have been started again: what is
	// guarded is what runs now.
	for i := range f.plan.halt {
		h := &f.plan.halt[i]
		st, err := f.p.state(ctx, h.ID)
		if err != nil {
			return err
		}
		if st != nil && st.Running {
			h.StartedAt = engineTime(st.StartedAt)
		}
	}
	if f.guards, err = f.p.keepGuard(ctx, f.j.Op(), f.plan.halt, f.health()); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.opts.Report(guardWarning(err))
	}
	id := ""
	if f.guards != nil {
		id = f.guards.id()
	}
	return f.append(stepPlan, journalPlan{Halt: f.plan.halt, Guard: id, Transit: f.j.Op(), Health: f.health()})
}

// readAtRest stops, reads and looks whether all rested the while; once more where not.
func (f *freeze) readAtRest(ctx context.Context) error {
	f.say(true)
	for attempt := 1; ; attempt++ {
		if err := f.halt(ctx); err != nil {
			return err
		}
		err := f.readResting(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		names, lookErr := f.p.intruders(ctx, f.plan.halt)
		if lookErr != nil {
			return errors.Join(err, lookErr)
		}
		if len(names) == 0 {
			return err
		}
		if attempt == readAttempts {
			return errIntruders(names)
		}
		f.warn("somebody started %s while the data was read: it is read again", strings.Join(names, ", "))
		if err := f.again(ctx, names); err != nil {
			return err
		}
		f.resting = false // what was started may have requests again
		f.say(true)
	}
}

// readResting takes what changes only while the app runs.
func (f *freeze) readResting(ctx context.Context) error {
	if err := f.layersOf(ctx); err != nil {
		return err
	}
	return f.readVolumes(ctx, f.atRest())
}

// halt brings the containers of the plan to rest.
func (f *freeze) halt(ctx context.Context) error {
	if f.firstStop.IsZero() {
		f.firstStop = time.Now()
	}
	h := &halter{p: f.p, list: f.plan.halt, report: f.opts.Report, noted: func(c halted, st *container.State) error {
		return f.append(stepRest, journalRest{
			ID: c.ID, StartedAt: engineTime(st.StartedAt), FinishedAt: engineTime(st.FinishedAt), ExitCode: st.ExitCode,
		})
	}}
	err := h.halt(ctx)
	f.report.Stopped, f.lastStop = h.stopped, h.last
	return err
}

// again prepares a second reading: what somebody started is to be stopped again, and what
// was read is not good.
func (f *freeze) again(ctx context.Context, names []string) error {
	for i := range f.plan.halt {
		h := &f.plan.halt[i]
		if !slices.Contains(names, h.Name) {
			continue
		}
		st, err := f.p.state(ctx, h.ID)
		if err != nil {
			return err
		}
		if st != nil {
			h.StartedAt = engineTime(st.StartedAt)
		}
	}
	// What was started is ours to bring back, with its new time.
	if f.guards != nil {
		f.guards.release(ctx, true)
	}
	f.dropLayers(ctx)
	f.read = 0
	// Before the new guard, whose marker is in there too.
	if err := f.p.cleanTransit(ctx, f.j.Op()); err != nil {
		return err
	}
	return f.standBy(ctx)
}

// comeBack brings the app back, also where ctx is over.
func (f *freeze) comeBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), backTimeout)
	defer cancel()
	f.opts.Report(backup.Progress{Phase: "start"})
	back, err := f.p.bringBack(ctx, f.plan.halt, f.health(), f.opts.Report)
	f.firstStart, f.lastStart = back.First, back.Last
	if f.guards != nil {
		f.guards.release(ctx, err == nil)
		f.guards = nil
	}
	if err != nil {
		return err
	}
	f.say(false)
	if !f.lastStart.IsZero() {
		f.report.Downtime = f.lastStart.Sub(f.firstStop)
		if f.lastStop.Before(f.firstStart) {
			f.report.DataDowntime = f.firstStart.Sub(f.lastStop)
		}
	}
	return f.append(stepBack, nil)
}

// say tells that the app is about to rest, or runs again.
func (f *freeze) say(rests bool) {
	if f.opts.Resting == nil || rests == f.resting {
		return
	}
	f.resting = rests
	if !rests {
		f.opts.Resting(nil)
		return
	}
	r := &backup.Resting{Platform: f.p.Name(), App: f.app.Name, Why: "backup", Back: time.Now()}
	if f.est != nil {
		r.Back = r.Back.Add(f.est.Downtime)
	}
	for _, h := range f.plan.halt {
		r.Containers = append(r.Containers, h.ID)
	}
	f.opts.Resting(r)
}

// atRest are the volumes that are read while the app rests; running are the others,
// which are read when it runs again: those that nothing at rest writes to.
func (f *freeze) atRest() []*backup.Volume { return f.pick(true) }

func (f *freeze) running() []*backup.Volume { return f.pick(false) }

func (f *freeze) pick(resting bool) []*backup.Volume {
	var out []*backup.Volume
	for i := range f.app.Volumes {
		v := &f.app.Volumes[i]
		if v.Action != backup.Include {
			continue
		}
		still := v.Consistency == "stopped" || v.Consistency == "paused"
		if still == resting {
			out = append(out, v)
		}
	}
	return out
}

// clean removes what a freeze has left on the engine; what cannot be removed is logged.
func (f *freeze) clean(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, backTimeout)
	defer cancel()
	f.dropLayers(ctx)
	if err := f.p.cleanTransit(ctx, f.j.Op()); err != nil {
		f.p.log.Warn("transit is not cleared", "operation", f.j.Op(), "error", err)
	}
	f.p.sweepHelpers(ctx)
}

// cleanTransit clears all that an operation has in the transit volume.
func (p *Platform) cleanTransit(ctx context.Context, op string) error {
	there := false
	err := p.call(ctx, "look for the transit volume", func(ctx context.Context, c *dockerengine.Conn) error {
		_, err := c.VolumeInspect(ctx, p.opts.TransitVolume)
		there = err == nil
		return ignoreNotFound(err)
	})
	if err != nil || !there {
		return err
	}
	for _, name := range []string{op, op + ".guard"} {
		err := p.runHelper(ctx, helperTask{
			op: op, name: "clean", input: map[string]string{"dir": path.Join(transitDir, name)},
			mounts: []helperMount{p.transitMount(true)}, line: func([]byte) {},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// progressLine is what a helper says while it works.
type progressLine struct {
	Done  json.RawMessage `json:"done"` // bytes, or true at the end
	Files int64           `json:"files"`
}

// bytes is how far it is; false for other lines.
func (l progressLine) bytes() (int64, bool) {
	var n int64
	return n, json.Unmarshal(l.Done, &n) == nil
}
