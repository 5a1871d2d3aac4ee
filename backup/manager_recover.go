package backup

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

const (
	// recoverFirst and recoverMost bound the pauses between attempts: soon at first,
	// since an app may be down, then often enough that it is back within a minute of its
	// engine.
	recoverFirst = time.Second
	recoverMost  = 30 * time.Second
	// lookEvery is how often Keep looks for what another process has left behind.
	lookEvery = time.Minute
	// staleTemp is the age from which a folder of temporary files without a journal
	// belongs to nobody.
	staleTemp = 24 * time.Hour
)

// Recover finishes what a dead process left behind, and returns when nothing is left to
// do or ctx is over. Platforms that do not answer are tried again. What cannot ever be
// finished here, such as that of a platform which is configured no more, is in the
// error.
func (m *Manager) Recover(ctx context.Context) error {
	pause := recoverFirst
	for {
		again, hopeless := m.recoverOnce(ctx)
		if again == nil || ctx.Err() != nil {
			return errors.Join(hopeless, again, ctx.Err())
		}
		t := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return errors.Join(hopeless, again, ctx.Err())
		}
		pause = min(2*pause, recoverMost)
	}
}

// RecoverOnce makes one attempt at what dead processes left behind. What is in the error
// stays, and is tried again by whoever recovers next.
func (m *Manager) RecoverOnce(ctx context.Context) error {
	again, hopeless := m.recoverOnce(ctx)
	return errors.Join(hopeless, again)
}

// Leftovers are the operations that dead processes have begun and nobody has finished yet.
// Journals that cannot be read are left out: RecoverOnce tells of them.
func (m *Manager) Leftovers() ([]Operation, error) {
	paths, err := journals(filepath.Join(m.config().Dir, dirJournal))
	if err != nil {
		return nil, err
	}
	var out []Operation
	for _, path := range paths {
		d, err := openDead(path)
		if err != nil {
			continue // it is alive, or makes no sense
		}
		out = append(out, d.op)
		d.abandon()
	}
	return out, nil
}

// Keep recovers at once and then whenever there is something, until ctx is over. It lets
// platforms remove what processes that are gone have left without a journal, too.
func (m *Manager) Keep(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { m.keepSwept(ctx) })
	defer wg.Wait()
	told := ""
	for {
		err := m.Recover(ctx)
		if ctx.Err() != nil {
			return
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != told && err != nil {
			m.config().Log.Error("what an earlier process left behind cannot be finished", "error", err)
		}
		told = text
		t := time.NewTimer(lookEvery)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// deadOp is what a journal that has yet to be worked off is about.
type deadOp struct {
	Operation
	// runs says that the app is known to run: only what is beside it has to be cleared.
	runs bool
}

// LeftStopped counts the apps with an operation that was cut off and is not finished
// yet: they may be stopped.
func (m *Manager) LeftStopped() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	apps := map[string]bool{}
	for _, op := range m.dead {
		if !op.runs {
			apps[op.Platform+"\x00"+op.App] = true
		}
	}
	return len(apps)
}

// recoverSoon lets recovery run on its own, where there is something to recover.
func (m *Manager) recoverSoon() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.recovering || len(m.dead) == 0 {
		return
	}
	m.recovering = true
	m.wg.Go(func() {
		err := m.Recover(m.ctx)
		m.mu.Lock()
		m.recovering = false
		m.mu.Unlock()
		if err != nil && m.ctx.Err() == nil {
			m.config().Log.Error("what an operation left behind cannot be finished", "error", err)
		}
	})
}

// recoverOnce works off all journals of dead processes. again is set where another
// attempt may help, hopeless where it does not.
func (m *Manager) recoverOnce(ctx context.Context) (again, hopeless error) {
	cfg := m.config()
	paths, err := journals(filepath.Join(cfg.Dir, dirJournal))
	if err != nil {
		return nil, err
	}
	sweepJournals(filepath.Join(cfg.Dir, dirJournal))
	sweepTemp(cfg.Dir)
	m.forgetDead(paths)
	for _, path := range paths {
		switch err := m.recoverOne(ctx, &cfg, path, true); {
		case err == nil || errors.Is(err, errAlive):
		case errors.Is(err, errHopeless):
			hopeless = errors.Join(hopeless, err)
		default:
			again = errors.Join(again, err)
		}
	}
	return again, hopeless
}

// RecoverPlatform makes one attempt at what was left behind on one platform.
func (m *Manager) RecoverPlatform(ctx context.Context, platform string) error {
	cfg := m.config()
	paths, err := journals(filepath.Join(cfg.Dir, dirJournal))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range paths {
		if op, err := peekJournal(path); err != nil || op.Platform != platform {
			continue // Recover tells of those that make no sense
		}
		if err := m.recoverOne(ctx, &cfg, path, true); err != nil && !errors.Is(err, errAlive) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// errHopeless says that trying again does not help.
var errHopeless = errors.New("it cannot be finished here")

// recoverApp finishes what was left behind of one app, whose lock the caller holds.
func (m *Manager) recoverApp(ctx context.Context, platform, app string) error {
	cfg := m.config()
	paths, err := journals(filepath.Join(cfg.Dir, dirJournal))
	if err != nil {
		return err
	}
	for _, path := range paths {
		op, err := peekJournal(path)
		if err != nil || op.Platform != platform || op.App != app {
			continue // of no app: nothing that this one could be told by
		}
		// Nothing of this app is under way, since its lock is ours: a journal that is held
		// is held for the moment in which somebody else finds that out.
		for pause := 10 * time.Millisecond; ; pause *= 2 {
			if err = m.recoverOne(ctx, &cfg, path, false); !errors.Is(err, errAlive) || pause > time.Second {
				break
			}
			if _, gone := os.Lstat(path); errors.Is(gone, fs.ErrNotExist) {
				err = nil
				break
			}
			t := time.NewTimer(pause)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return ctx.Err()
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// peekJournal reads what a journal is about, whoever holds it.
func peekJournal(path string) (Operation, error) {
	f, err := os.Open(path)
	if err != nil {
		return Operation{}, err
	}
	defer func() { _ = f.Close() }()
	line, err := bufio.NewReader(io.LimitReader(f, mostJournal)).ReadBytes('\n')
	if err != nil {
		return Operation{}, fmt.Errorf("read journal: %w", err)
	}
	op, _, _, err := readJournal(bytes.NewReader(line))
	return op, err
}

// recoverOne works off one journal, or returns errAlive. lock says that the app is to be
// locked.
func (m *Manager) recoverOne(ctx context.Context, cfg *Config, path string, lock bool) error {
	d, err := openDead(path)
	if err != nil {
		if d == nil && !errors.Is(err, errAlive) {
			m.setDead(path, Operation{App: path})
			return errors.Join(errHopeless, fmt.Errorf("the journal %s makes no sense (remove it once its app runs): %w", path, err))
		}
		return err
	}
	defer d.abandon()
	m.setDead(path, d.op)
	if lock {
		l, err := lockApp(filepath.Join(cfg.Dir, dirLocks), d.op.Platform, d.op.App, lockHolder{
			PID: os.Getpid(), Op: d.op.ID, Kind: recovery, Time: time.Now().UTC(),
		})
		if err != nil {
			return err
		}
		defer l.release()
	}
	log := cfg.Log.With("app", d.op.App, "platform", d.op.Platform, "operation", d.op.ID, "kind", d.op.Kind)
	if !d.over() {
		p, err := cfg.platform(d.op.Platform)
		if err != nil {
			return errors.Join(errHopeless, fmt.Errorf("recover %s %s of %s: %w", d.op.Kind, d.op.ID, d.op.App, err))
		}
		if d.lost > 0 {
			log.Warn("lines of the journal make no sense", "lines", d.lost)
		}
		if err := recoverOn(ctx, p, d, log); err != nil {
			return fmt.Errorf("recover %s %s of %s: %w", d.op.Kind, d.op.ID, d.op.App, err)
		}
	}
	if err := cfg.settleUndo(d); err != nil {
		return fmt.Errorf("recover %s %s of %s: %w", d.op.Kind, d.op.ID, d.op.App, err)
	}
	_ = os.RemoveAll(filepath.Join(cfg.Dir, dirTemp, d.op.ID)) // the next sweep takes it
	if err := d.finish(); err != nil {
		return err
	}
	m.mu.Lock()
	delete(m.dead, path)
	m.mu.Unlock()
	log.Info("finished what an operation left behind")
	return nil
}

// recoverOn lets a platform work off a journal. A panic is an error like others: it would
// come again at each start, and sites are served by this program.
func recoverOn(ctx context.Context, p Platform, d *deadJournal, log *slog.Logger) (err error) {
	defer func() {
		if v := recover(); v != nil {
			log.Error("recovery panicked", "panic", v, "stack", string(debug.Stack()))
			err = errPanicked
		}
	}()
	return p.Recover(ctx, d.op, d.entries, func(pr Progress) {
		if pr.Warning != "" {
			log.Warn("recovery", "warning", pr.Warning)
		}
	})
}

// settleUndo brings the undo records in line with an operation that was cut off.
func (c *Config) settleUndo(d *deadJournal) error {
	if raw := d.find(StepUndo); raw != nil && d.op.Kind == kindRestore {
		var u Undo
		if json.Unmarshal(raw, &u) == nil && u.Platform == d.op.Platform && validOp(u.ID) {
			if err := c.saveUndo(&u); err != nil {
				return err
			}
		}
	}
	if raw := d.find(stepUndoes); raw != nil && (d.over() || d.has(StepUndone)) {
		var id string
		if json.Unmarshal(raw, &id) == nil && validOp(id) {
			return c.removeUndo(id)
		}
	}
	return nil
}

func (m *Manager) setDead(path string, op Operation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead[path] = deadOp{op, m.dead[path].runs}
}

// forgetDead forgets journals that another process has worked off.
func (m *Manager) forgetDead(paths []string) {
	there := map[string]bool{}
	for _, p := range paths {
		there[p] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for p := range m.dead {
		if !there[p] {
			delete(m.dead, p)
		}
	}
}

// sweepTemp removes folders of temporary files that belong to no operation.
func sweepTemp(dir string) {
	list, err := os.ReadDir(filepath.Join(dir, dirTemp))
	if err != nil {
		return
	}
	for _, e := range list {
		fi, err := e.Info()
		if err != nil || time.Since(fi.ModTime()) < staleTemp {
			continue
		}
		name := strings.TrimSuffix(e.Name(), filepath.Ext(e.Name()))
		if _, err := os.Lstat(filepath.Join(dir, dirJournal, name+journalSuffix)); errors.Is(err, fs.ErrNotExist) {
			_ = os.RemoveAll(filepath.Join(dir, dirTemp, e.Name())) // tried again the next time
		}
	}
}
