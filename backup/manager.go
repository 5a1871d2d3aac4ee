package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"filippo.io/age"
)

// Config is what a Manager works with.
type Config struct {
	// Dir holds journal, locks, undo records and the record of past runs; private.
	Dir string
	// Platforms in order of preference.
	Platforms []Platform
	// Stores by name; "local" is used where none is named.
	Stores map[string]Store
	Keys   *Keys
	// Recipients are encrypted to in addition to Keys'.
	Recipients []age.Recipient
	// Tool is the program's name and version, for the manifest.
	Tool string
	Log  *slog.Logger
	// HealthTimeout is used where a request names none. Default: the platform's.
	HealthTimeout time.Duration
	// Resting is told about apps that are about to stop (see FreezeOptions), and again,
	// with Over set, when they run. May be nil.
	Resting func(*Resting)
	// Drain is called after Resting has told of an app that is about to stop, and returns
	// when the requests that are under way to it have ended or need not be waited for any
	// more; at once when its context is over. May be nil.
	Drain func(context.Context, *Resting)
	// Probe asks a restored site (see ApplyOptions). May be nil.
	Probe func(ctx context.Context, host string) error
	// Ended is told about each job that has ended. May be nil.
	Ended func(JobView)
}

// Folders in Config.Dir.
const (
	dirJournal = "journal"
	dirLocks   = "locks"
	dirUndo    = "undo"
	dirTemp    = "tmp"
)

// LocalStore is the name of the store that is used where none is named.
const LocalStore = "local"

// Manager runs backups and restores: one at a time for each app, across processes.
type Manager struct {
	// ctx ends with the Manager, and with it what it does on its own.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // jobs, and recovery on its own

	mu     sync.Mutex // guards all below
	cfg    Config
	jobs   []*Job // oldest first
	closed bool
	// dead are the journals that have yet to be worked off, by path.
	dead map[string]deadOp
	// recovering says that recovery runs on its own.
	recovering bool
}

var errClosed = errors.New("the program is ending")

// NewManager makes a manager. It makes Dir, and contacts nobody.
func NewManager(cfg Config) (*Manager, error) {
	m := &Manager{dead: map[string]deadOp{}}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	if err := m.Configure(cfg); err != nil {
		m.cancel()
		return nil, err
	}
	return m, nil
}

// Configure replaces the configuration. Jobs that are under way go on with the one
// that they began with.
func (m *Manager) Configure(cfg Config) error {
	if cfg.Dir == "" {
		return errors.New("configure backups: no folder for journals is given")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := m.mayMove(cfg.Dir); err != nil {
		return err
	}
	for _, dir := range []string{"", dirJournal, dirLocks, dirUndo, dirTemp} {
		if err := MakeFolder(filepath.Join(cfg.Dir, dir)); err != nil {
			return &Problem{
				Message: fmt.Sprintf("the folder %s of backups cannot be made: %v", cfg.Dir, err),
				Hint:    "make it writable, or use another data folder", Object: cfg.Dir, Err: err,
			}
		}
	}
	cfg.Platforms, cfg.Stores = slices.Clone(cfg.Platforms), maps.Clone(cfg.Stores)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cfg = cfg
	return nil
}

// mayMove refuses another folder while there are journals in the one before: nobody would
// find them there, and the apps that they are of would stay stopped.
func (m *Manager) mayMove(to string) error {
	from := m.config().Dir
	if from == "" || filepath.Clean(from) == filepath.Clean(to) {
		return nil
	}
	if there, err := os.Stat(from); err == nil {
		if here, err := os.Stat(to); err == nil && os.SameFile(there, here) {
			return nil
		}
	}
	open, err := journals(filepath.Join(from, dirJournal))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(open) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	return &Problem{
		Message: fmt.Sprintf("the folder of backups cannot become %s: %d operations that have a journal in %s are not finished", to, len(open), from),
		Hint:    "wait until dentropy jobs shows none that runs, and load the configuration again; what cannot be finished is in the log", Object: from,
	}
}

func (m *Manager) config() Config {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cfg
}

// Close cancels all jobs and waits until their apps run again.
func (m *Manager) Close() error {
	m.mu.Lock()
	m.closed = true
	jobs := slices.Clone(m.jobs)
	m.mu.Unlock()
	m.cancel()
	for _, j := range jobs {
		j.Cancel()
	}
	m.wg.Wait()
	if n := m.LeftStopped(); n > 0 {
		return fmt.Errorf("close: %d apps: %w; they are brought back when this program starts again", n, ErrLeftStopped)
	}
	return nil
}

// Apps lists the apps of all platforms; errs are those of platforms that cannot be
// asked, or that can be asked and not backed up.
func (m *Manager) Apps(ctx context.Context) (apps []AppInfo, errs []error) {
	cfg := m.config()
	for _, l := range cfg.lists(ctx, true) {
		apps = append(apps, l.apps...)
		if l.err != nil {
			errs = append(errs, &PlatformError{Platform: l.platform.Name(), Err: l.err})
		}
	}
	return apps, errs
}

// listing is what one platform says about its apps.
type listing struct {
	platform Platform
	apps     []AppInfo
	err      error
}

// lists asks all platforms at the same time: one that stalls must not hold up the
// others for longer than itself. try asks as well whether they can be written to.
func (c *Config) lists(ctx context.Context, try bool) []listing {
	out := make([]listing, len(c.Platforms))
	var wg sync.WaitGroup
	for i, p := range c.Platforms {
		wg.Go(func() {
			l := listing{platform: p}
			l.apps, l.err = p.Apps(ctx)
			if w, ok := p.(writable); ok && try && l.err == nil && len(l.apps) > 0 {
				l.err = w.Writable(ctx)
			}
			out[i] = l
		})
	}
	wg.Wait()
	return out
}

// writable is a Platform that can tell whether it may do more than read.
type writable interface {
	Writable(ctx context.Context) error
}

// PlatformError says which platform cannot be asked.
type PlatformError struct {
	Platform string
	Err      error
}

func (e *PlatformError) Error() string { return e.Platform + ": " + e.Err.Error() }

func (e *PlatformError) Unwrap() error { return e.Err }

// Capture reads all about one app. It holds secrets: Redact it before it is shown.
func (m *Manager) Capture(ctx context.Context, app, platform string, opts CaptureOptions) (*App, error) {
	cfg := m.config()
	p, err := cfg.platformOf(ctx, app, platform)
	if err != nil {
		return nil, err
	}
	return p.Capture(ctx, app, opts)
}

// platform gives the platform of that name.
func (c *Config) platform(name string) (Platform, error) {
	var names []string
	for _, p := range c.Platforms {
		if p.Name() == name {
			return p, nil
		}
		names = append(names, p.Name())
	}
	hint := "there is none configured"
	if len(names) > 0 {
		hint = "there is " + strings.Join(names, ", ")
	}
	return nil, &Problem{Message: fmt.Sprintf("there is no engine %q", name), Hint: hint, Object: name, Err: fs.ErrNotExist}
}

// platformOf finds the platform that an app runs on; name may be "".
func (c *Config) platformOf(ctx context.Context, app, name string) (Platform, error) {
	if app == "" {
		return nil, &Problem{Message: "no app is named", Hint: "dentropy apps lists them"}
	}
	if name != "" {
		return c.platform(name)
	}
	if len(c.Platforms) == 1 {
		return c.Platforms[0], nil // it says itself if there is none of that name
	}
	var found []Platform
	var names []string
	var errs []error
	for _, l := range c.lists(ctx, false) {
		if l.err != nil {
			errs = append(errs, &PlatformError{Platform: l.platform.Name(), Err: l.err})
		}
		if slices.ContainsFunc(l.apps, func(a AppInfo) bool { return a.Name == app }) {
			found, names = append(found, l.platform), append(names, l.platform.Name())
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, &Problem{
			Message: fmt.Sprintf("there is an app %q on each of %s", app, strings.Join(names, ", ")),
			Hint:    "say which with --engine", Object: app, Err: ErrAmbiguous,
		}
	case len(errs) > 0: // it may be there
		return nil, fmt.Errorf("find app %q: %w", app, errors.Join(errs...))
	}
	return nil, &Problem{Message: fmt.Sprintf("there is no app %q", app), Hint: "dentropy apps lists them", Object: app, Err: fs.ErrNotExist}
}

// ErrAmbiguous says that several platforms have an app of that name.
var ErrAmbiguous = errors.New("several platforms have an app of that name")

// formatted is a Platform for apps of a format of its own (App.Format).
type formatted interface{ Format() string }

// platformFor finds the platform to restore to.
func (c *Config) platformFor(app *App, name string) (Platform, error) {
	if name != "" {
		return c.platform(name)
	}
	for _, p := range c.Platforms {
		if f, ok := p.(formatted); ok && f.Format() == app.Format {
			return p, nil
		}
	}
	for _, p := range c.Platforms {
		if _, ok := p.(formatted); !ok {
			return p, nil
		}
	}
	return nil, &Problem{Message: "there is nowhere to restore to", Hint: "configure an engine: see dentropy sources", Err: fs.ErrNotExist}
}

// store gives a store by name, "" being the local one.
func (c *Config) store(name string) (Store, string, error) {
	if name == "" {
		name = LocalStore
	}
	if s, ok := c.Stores[name]; ok {
		return s, name, nil
	}
	hint := "there is none configured"
	if len(c.Stores) > 0 {
		hint = "there is " + strings.Join(slices.Sorted(maps.Keys(c.Stores)), ", ")
	}
	return nil, "", &Problem{Message: fmt.Sprintf("there is no store %q", name), Hint: hint, Object: name, Err: fs.ErrNotExist}
}

// avoid are the local folders that must not be inside a volume that is read.
func (c *Config) avoid() []string {
	out := []string{c.Dir}
	for _, name := range slices.Sorted(maps.Keys(c.Stores)) {
		// of a store that is a folder, its name for people is the folder
		if dir := c.Stores[name].String(); filepath.IsAbs(dir) {
			out = append(out, dir)
		}
	}
	return out
}

// Archives lists the archives of a store; "" is all stores. What can be listed is
// given beside the error of what cannot.
func (m *Manager) Archives(ctx context.Context, store string) (map[string][]Entity, error) {
	cfg := m.config()
	stores := cfg.Stores
	if store != "" {
		s, name, err := cfg.store(store)
		if err != nil {
			return nil, err
		}
		stores = map[string]Store{name: s}
	}
	out := map[string][]Entity{}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(stores)) {
		list, err := stores[name].List(ctx)
		if err != nil {
			errs = append(errs, &StoreError{Store: name, Err: err})
			continue
		}
		if list == nil {
			list = []Entity{}
		}
		out[name] = list
	}
	return out, errors.Join(errs...)
}

// StoreError says which store cannot be used.
type StoreError struct {
	Store string
	Err   error
}

func (e *StoreError) Error() string { return "store " + e.Store + ": " + e.Err.Error() }

func (e *StoreError) Unwrap() error { return e.Err }

// OpenArchive opens an archive of a store; "" is the local one. The error wraps
// fs.ErrNotExist where there is none.
func (m *Manager) OpenArchive(ctx context.Context, store, name string) (Object, error) {
	cfg := m.config()
	s, store, err := cfg.store(store)
	if err != nil {
		return nil, err
	}
	if _, err := ParseArchiveName(name); err != nil {
		return nil, noArchive(store, name, fs.ErrNotExist) // no store has one of such a name
	}
	o, err := s.Open(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noArchive(store, name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open archive %q: %w", name, err)
	}
	return o, nil
}

// RemoveArchive deletes an archive of a store; "" is the local one.
func (m *Manager) RemoveArchive(ctx context.Context, store, name string) error {
	cfg := m.config()
	s, store, err := cfg.store(store)
	if err != nil {
		return err
	}
	if _, err := ParseArchiveName(name); err != nil {
		return noArchive(store, name, fs.ErrNotExist)
	}
	err = s.Remove(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return noArchive(store, name, err)
	}
	if err != nil {
		return fmt.Errorf("remove archive %q: %w", name, err)
	}
	cfg.Log.Info("archive removed", "store", store, "archive", name)
	return nil
}

func noArchive(store, name string, err error) error {
	return &Problem{
		Message: fmt.Sprintf("there is no archive %q in store %s", name, store),
		Hint:    "dentropy archive ls lists them", Object: name, Err: err,
	}
}

// BackupRequest says what is backed up, how and whither.
type BackupRequest struct {
	App string `json:"app"`
	// Platform is needed where two have an app of that name.
	Platform string         `json:"platform,omitempty"`
	Store    string         `json:"store,omitempty"` // default: local
	Capture  CaptureOptions `json:"capture,omitzero"`
	Freeze   FreezeOptions  `json:"freeze,omitzero"`
	// MaxDowntime refuses if more is expected. 0: no limit.
	MaxDowntime time.Duration `json:"max_downtime,omitempty"`
	// Encryption is "all" (default), "secrets" or "none".
	Encryption string `json:"encryption,omitempty"`
	// Recipients replace the configured ones ("age1…", "ssh-ed25519 …").
	Recipients []string `json:"recipients,omitempty"`
	// Passphrase encrypts instead of recipients.
	Passphrase string `json:"-"`
	// DryRun stops before anything is touched.
	DryRun bool `json:"dry_run,omitempty"`
	// Out takes the archive instead of a store.
	Out io.Writer `json:"-"`
	// Named is called with the archive's name before the first byte goes to Out. May be nil.
	Named func(name string) `json:"-"`
	// Confirm is asked before anything stops, with what is expected. May be nil.
	Confirm func(*App, *Estimate) error `json:"-"`
}

// BackupResult is what a backup came to.
type BackupResult struct {
	Archive   string        `json:"archive,omitempty"` // its name, in the store too
	Store     string        `json:"store,omitempty"`
	ID        string        `json:"id"`
	Size      int64         `json:"size"`
	SHA256    string        `json:"sha256"`
	Took      time.Duration `json:"took"`
	Quiesce   QuiesceReport `json:"quiesce"`
	Estimate  *Estimate     `json:"estimate,omitempty"`
	Encrypted string        `json:"encryption"`
	Warnings  []string      `json:"warnings,omitempty"`
	// App is what was captured, with its secrets: not for show as it is.
	App *App `json:"-"`
}

// RestoreResult is what a restore came to.
type RestoreResult struct {
	App      string `json:"app"`
	Platform string `json:"platform"`
	Undo     string `json:"undo"` // id for Undo
	// NoUndo says why the restore cannot be undone now, where it should be: then Undo is
	// "", and Kept are what of the app from before is still there, see Undo.Kept.
	NoUndo   string   `json:"no_undo,omitempty"`
	Kept     []string `json:"kept,omitempty"`
	Plan     *Plan    `json:"plan"`
	Warnings []string `json:"warnings,omitempty"`
}
