package backup

import (
	"context"
	"errors"
	"io"
	"log/slog"
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
	// Resting is told about apps that are about to stop (see FreezeOptions). May be nil.
	Resting func(*Resting)
	// Probe asks a restored site (see ApplyOptions). May be nil.
	Probe func(ctx context.Context, host string) error
}

// Manager runs backups and restores: one at a time for each app, across processes.
type Manager struct{}

// NewManager makes a manager. It makes Dir, and contacts nobody.
func NewManager(cfg Config) (*Manager, error) { return nil, errors.ErrUnsupported }

// Recover finishes what a dead process left behind, and returns when nothing is left to
// do or ctx is over. Platforms that do not answer are tried again.
func (m *Manager) Recover(ctx context.Context) error { return errors.ErrUnsupported }

// Close cancels all jobs and waits until their apps run again.
func (m *Manager) Close() error { return nil }

// Apps lists the apps of all platforms; errs are those of platforms that cannot be asked.
func (m *Manager) Apps(ctx context.Context) (apps []AppInfo, errs []error) { return nil, nil }

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
	// Confirm is asked before anything stops, with what is expected. May be nil.
	Confirm func(*App, *Estimate) error `json:"-"`
}

// BackupResult is what a backup came to.
type BackupResult struct {
	Archive   string        `json:"archive,omitempty"` // name in the store
	Store     string        `json:"store,omitempty"`
	ID        string        `json:"id"`
	Size      int64         `json:"size"`
	SHA256    string        `json:"sha256"`
	Took      time.Duration `json:"took"`
	Quiesce   QuiesceReport `json:"quiesce"`
	Estimate  *Estimate     `json:"estimate,omitempty"`
	Encrypted string        `json:"encryption"`
	Warnings  []string      `json:"warnings,omitempty"`
}

// Backup makes one archive. The job is known to Jobs from the moment that it is called.
func (m *Manager) Backup(ctx context.Context, job *Job, req BackupRequest) (*BackupResult, error) {
	return nil, errors.ErrUnsupported
}

// Plan says what restoring an archive would do. in stands behind its head and is not
// read further.
func (m *Manager) Plan(ctx context.Context, in *Reader, answers Answers) (*Plan, error) {
	return nil, errors.ErrUnsupported
}

// RestoreResult is what a restore came to.
type RestoreResult struct {
	App      string   `json:"app"`
	Platform string   `json:"platform"`
	Undo     string   `json:"undo"` // id for Undo
	Plan     *Plan    `json:"plan"`
	Warnings []string `json:"warnings,omitempty"`
}

// Restore restores an archive. It plans again, and refuses where the plan is not ready.
func (m *Manager) Restore(ctx context.Context, job *Job, in *Reader, answers Answers, opts ApplyOptions) (*RestoreResult, error) {
	return nil, errors.ErrUnsupported
}

// Undos lists the restores that can be undone, newest first.
func (m *Manager) Undos() ([]Undo, error) { return nil, errors.ErrUnsupported }

// Undo takes a restore back; id "" is the newest (of app, where that is not "").
func (m *Manager) Undo(ctx context.Context, job *Job, id, app string) error {
	return errors.ErrUnsupported
}

// Archives lists the archives of a store; "" is all stores.
func (m *Manager) Archives(ctx context.Context, store string) (map[string][]Entity, error) {
	return nil, errors.ErrUnsupported
}
