package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"filippo.io/age"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/self"
	dentropycmd "github.com/dentropy/dentropycloud/cmd"
)

// Backup configures backups and restores of whole apps.
type Backup struct {
	// Off turns backups off. Default: false.
	Off bool `json:"off,omitempty"`
	// Dir is the folder of journals, keys and undo records. Default: `backup` in the data
	// folder.
	Dir string `json:"dir,omitempty"`
	// Stores are where archives are kept, by name. Default: `local`, the folder `backups`
	// in the data folder.
	Stores map[string]json.RawMessage `json:"stores,omitempty"`
	// PlatformsRaw are the engines whose apps are backed up. Default: those that are
	// watched for routes.
	PlatformsRaw []json.RawMessage `json:"platforms,omitempty" caddy:"namespace=dentropy.platforms inline_key=platform"`
	// Recipients are encrypted to beside this installation's own key: `age1…`,
	// `ssh-ed25519 …`. Default: none.
	Recipients []string `json:"recipients,omitempty"`
	// TransitVolume is the volume in which data waits until it is in the archive.
	// Default: one is made for each backup.
	TransitVolume string `json:"transit_volume,omitempty"`
	// Helper is the program that runs in containers beside the data; it must be static.
	// Default: this program.
	Helper string `json:"helper,omitempty"`
	// HealthTimeout is how long a container may take to become healthy. Default: 2m.
	HealthTimeout caddy.Duration `json:"health_timeout,omitempty"`

	config backup.Config // what is made of it
	data   string        // the data folder
	key    string        // tells whether a later config means the same
}

// storeModule is what a module of the namespace dentropy.stores gives.
type storeModule interface {
	NewStore() (backup.Store, error)
}

// platformModule is what a module of the namespace dentropy.platforms gives.
type platformModule interface {
	PlatformName() string
	NewPlatform(backup.PlatformOptions) (backup.Platform, error)
}

// selfLock is the file in the data folder that `dentropy up` holds.
const selfLock = "up.lock"

// provisionBackup prepares backups, offline.
func (a *App) provisionBackup() error {
	if a.Backup == nil {
		a.Backup = new(Backup)
	}
	b := a.Backup
	if b.Off {
		return nil
	}
	b.data = dataDir(a.ctx)
	if b.Dir == "" {
		b.Dir = filepath.Join(b.data, "backup")
	}
	if len(b.PlatformsRaw) == 0 {
		b.PlatformsRaw = platformsOf(a.SourcesRaw)
	}
	key, err := json.Marshal([]any{b.data, b}) // before the raw messages are emptied
	if err != nil {
		return err
	}
	b.key = string(key)
	b.config = backup.Config{Dir: b.Dir, Stores: map[string]backup.Store{}, Tool: tool(), HealthTimeout: time.Duration(b.HealthTimeout), Log: slog.New(lateLog{})}
	if b.config.Recipients, err = parseRecipients(b.Recipients); err != nil {
		return err
	}
	if err := b.provisionStores(a.ctx); err != nil {
		return err
	}
	return b.provisionPlatforms(a.ctx)
}

func parseRecipients(texts []string) ([]age.Recipient, error) {
	for _, text := range texts {
		if len(text) > 0 && text[0] == '@' { // a config may be anybody's who may load one
			return nil, fmt.Errorf("recipient %q: files are for the command line", text)
		}
	}
	return backup.ParseRecipients(texts)
}

// tool is what archives say that they were made by.
func tool() string {
	return "dentropy " + dentropycmd.Version()
}

// dataDir is where this program keeps its state: what `dentropy up --data-dir` says, and
// Caddy's own folder where the storage is none.
func dataDir(ctx caddy.Context) string {
	if fs, ok := ctx.Storage().(*certmagic.FileStorage); ok && fs.Path != "" {
		if abs, err := filepath.Abs(fs.Path); err == nil {
			return abs
		}
		return fs.Path
	}
	return caddy.AppDataDir()
}

// platformsOf makes a platform for each source that has one of its kind.
func platformsOf(sources []json.RawMessage) []json.RawMessage {
	var out []json.RawMessage
	for _, raw := range sources {
		var src struct {
			Source   string          `json:"source"`
			Name     string          `json:"name"`
			Endpoint string          `json:"endpoint"`
			TLS      json.RawMessage `json:"tls"`
		}
		if json.Unmarshal(raw, &src) != nil {
			continue
		}
		if _, err := caddy.GetModule("dentropy.platforms." + src.Source); err != nil {
			continue // it can be watched, and not backed up
		}
		p := map[string]any{"platform": src.Source}
		if src.Name != "" {
			p["name"] = src.Name
		}
		if src.Endpoint != "" {
			p["endpoint"] = src.Endpoint
		}
		if len(src.TLS) > 0 {
			p["tls"] = src.TLS
		}
		if b, err := json.Marshal(p); err == nil {
			out = append(out, b)
		}
	}
	return out
}

func (b *Backup) provisionStores(ctx caddy.Context) error {
	stores := maps.Clone(b.Stores)
	if stores == nil {
		stores = map[string]json.RawMessage{}
	}
	if _, err := caddy.GetModule("dentropy.stores.local"); err == nil && stores[backup.LocalStore] == nil {
		raw, err := json.Marshal(map[string]string{"store": "local", "dir": filepath.Join(b.data, "backups")})
		if err != nil {
			return err
		}
		stores[backup.LocalStore] = raw
	}
	for _, name := range slices.Sorted(maps.Keys(stores)) {
		var fields map[string]json.RawMessage
		var module string
		if json.Unmarshal(stores[name], &fields) != nil || json.Unmarshal(fields["store"], &module) != nil {
			return fmt.Errorf(`store %q: "store" is missing: name a kind of store such as "local"`, name)
		}
		delete(fields, "store")
		rest, err := json.Marshal(fields)
		if err != nil {
			return err
		}
		mod, err := ctx.LoadModuleByID("dentropy.stores."+module, rest)
		if err != nil {
			return fmt.Errorf("store %q: %w", name, err)
		}
		m, ok := mod.(storeModule)
		if !ok {
			return fmt.Errorf("store %q: %T is not a store", name, mod)
		}
		if b.config.Stores[name], err = m.NewStore(); err != nil {
			return fmt.Errorf("store %q: %w", name, err)
		}
	}
	return nil
}

func (b *Backup) provisionPlatforms(ctx caddy.Context) error {
	if len(b.PlatformsRaw) > 0 {
		mods, err := ctx.LoadModule(b, "PlatformsRaw")
		if err != nil {
			return fmt.Errorf("load platforms: %w", err)
		}
		for _, mod := range mods.([]any) {
			m, ok := mod.(platformModule)
			if !ok {
				return fmt.Errorf("%T is not a platform", mod)
			}
			name := m.PlatformName()
			if slices.ContainsFunc(b.config.Platforms, func(p backup.Platform) bool { return p.Name() == name }) {
				return fmt.Errorf("two platforms are called %q: give each a name of its own", name)
			}
			p, err := m.NewPlatform(backup.PlatformOptions{
				Name: name, Helper: b.Helper, HelperArgs: helperArgs(), TransitVolume: b.TransitVolume, Log: slog.New(lateLog{}),
			})
			if err != nil {
				return fmt.Errorf("platform %s: %w", name, err)
			}
			b.config.Platforms = append(b.config.Platforms, p)
		}
	}
	var avoid []string
	for _, s := range b.config.Stores {
		if dir := s.String(); filepath.IsAbs(dir) {
			avoid = append(avoid, dir)
		}
	}
	slices.Sort(avoid)
	b.config.Platforms = append(b.config.Platforms, self.New(self.Options{
		Data: b.data, Dir: b.Dir, Lock: filepath.Join(b.data, selfLock), Avoid: avoid,
	}))
	return nil
}

// helperArgs lead to the helper in this program, be it called dentropy or caddy.
func helperArgs() []string { return []string{"dentropy", "helper"} }

// backups is what the state keeps of backups: one Manager, which jobs under way hold on
// to while configs change.
type backups struct {
	state *State
	rest  *rests

	mu      sync.Mutex // guards all below
	manager *backup.Manager
	key     string // of the config in force
	off     *apiProblem
	extra   []string // recipients of the config
	cancel  context.CancelFunc
	kept    chan struct{} // closed when recovery has ended; nil before it began
}

func newBackups(s *State) *backups {
	return &backups{state: s, rest: newRests(), off: &apiProblem{"backups have not been set up yet", "try again in a moment"}}
}

// adopt puts a config into force. What is wrong with it is told by the API: that
// nothing can be backed up keeps no site from being served.
func (b *backups) adopt(app *App) {
	cfg := app.Backup
	b.mu.Lock()
	defer b.mu.Unlock()
	if cfg == nil || cfg.Off {
		b.key, b.off = "", &apiProblem{"backups are turned off", "take `backup off` out of the configuration"}
		return
	}
	if cfg.key == b.key && b.off == nil {
		return
	}
	if err := b.configureLocked(cfg); err != nil {
		b.off = &apiProblem{err.Error(), backup.HintOf(err)}
		b.state.log.Error("backups are not possible", "error", err)
		return
	}
	b.key, b.off, b.extra = cfg.key, nil, cfg.Recipients
}

func (b *backups) configureLocked(cfg *Backup) error {
	conf := cfg.config
	if err := backup.MakeFolder(conf.Dir); err != nil {
		return &backup.Problem{Message: err.Error(), Hint: "let backup { dir … } name a folder that can be made, or make it", Object: conf.Dir, Err: err}
	}
	keys, err := backup.OpenKeys(filepath.Join(conf.Dir, "keys"))
	if err != nil {
		return err
	}
	conf.Keys = keys
	conf.Resting, conf.Drain, conf.Probe, conf.Ended = b.resting, b.drain, b.state.probe, b.ended
	if b.manager != nil {
		return b.manager.Configure(conf)
	}
	m, err := backup.NewManager(conf)
	if err != nil {
		return err
	}
	b.manager = m
	ctx, cancel := context.WithCancel(context.Background())
	// our own state first, and at once: it is about to be used
	if err := m.RecoverPlatform(ctx, self.Name); err != nil {
		b.state.log.Error("a restore of our own state was cut off and cannot be taken back", "error", err)
	}
	b.cancel, b.kept = cancel, make(chan struct{})
	go func() {
		defer close(b.kept)
		m.Keep(ctx)
	}()
	return nil
}

// get gives the manager, or says why there is none. Its error is an apiProblem.
func (b *backups) get() (*backup.Manager, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.off != nil {
		return nil, *b.off
	}
	return b.manager, nil
}

// stop ends all jobs and waits until their apps run again.
func (b *backups) stop() {
	b.mu.Lock()
	m, cancel, kept := b.manager, b.cancel, b.kept
	b.off = &apiProblem{"the program is ending", "try again when it runs"}
	b.mu.Unlock()
	if m == nil {
		return
	}
	cancel()
	<-kept
	if err := m.Close(); err != nil && !errors.Is(err, context.Canceled) {
		b.state.log.Error("backups end", "error", err)
	}
}

// ended notes a job that has ended.
func (b *backups) ended(v backup.JobView) {
	if v.Kind == "estimate" { // nothing has changed
		return
	}
	e := Event{Kind: "backup", Object: v.App, Text: v.Kind + " " + v.State}
	if v.Kind != "backup" {
		e.Kind = "restore"
	}
	if v.State == "failed" {
		e.Error = v.Error
	}
	b.state.journal.add(e)
}
