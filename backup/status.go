package backup

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// LastRun is what is remembered of the backups of one app.
type LastRun struct {
	Platform string `json:"platform"`
	App      string `json:"app"`
	// LastAttempt is when the last backup ended, well or not.
	LastAttempt time.Time `json:"last_attempt"`
	// LastSuccess is when the last good one ended; what follows is about that one.
	LastSuccess time.Time     `json:"last_success,omitzero"`
	Archive     string        `json:"archive,omitempty"`
	Store       string        `json:"store,omitempty"` // "" for one that went to the client
	Size        int64         `json:"size"`
	Took        time.Duration `json:"took"`
	Downtime    time.Duration `json:"downtime"`
	Encryption  string        `json:"encryption,omitempty"`
	Warnings    int           `json:"warnings"`
	// LastError is why the last backup failed; "" if it did not.
	LastError string `json:"last_error,omitempty"`
}

const (
	statusFile = "status.json"
	statusLock = "status.lock"
)

// LastRuns tells of the backups of all apps, those of other processes too, sorted by
// platform and app.
func (m *Manager) LastRuns() ([]LastRun, error) {
	cfg := m.config()
	return cfg.lastRuns()
}

func (c *Config) lastRuns() ([]LastRun, error) {
	b, err := os.ReadFile(filepath.Join(c.Dir, statusFile))
	if errors.Is(err, fs.ErrNotExist) {
		return []LastRun{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read past runs: %w", err)
	}
	runs := []LastRun{}
	if err := json.Unmarshal(b, &runs); err != nil {
		return nil, fmt.Errorf("read past runs: %s: %w", filepath.Join(c.Dir, statusFile), err)
	}
	return runs, nil
}

// noteRun remembers how a backup ended.
func (c *Config) noteRun(platform, app string, change func(*LastRun)) error {
	lock, err := os.OpenFile(filepath.Join(c.Dir, dirLocks, statusLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("note run: %w", err)
	}
	defer func() { _ = lock.Close() }()
	if err := flockWait(lock); err != nil {
		return fmt.Errorf("note run: %w", err)
	}
	runs, err := c.lastRuns()
	if err != nil {
		// garbage does not get better: what can be told is told anew
		c.Log.Warn("record of past runs is begun anew", "error", err)
		runs = nil
	}
	same := func(r LastRun) bool { return r.Platform == platform && r.App == app }
	i := slices.IndexFunc(runs, same)
	if i < 0 {
		i = len(runs)
		runs = append(runs, LastRun{Platform: platform, App: app})
	}
	runs[i].LastAttempt = time.Now().UTC()
	change(&runs[i])
	slices.SortFunc(runs, func(a, b LastRun) int {
		return cmp.Or(cmp.Compare(a.Platform, b.Platform), cmp.Compare(a.App, b.App))
	})
	b, err := json.MarshalIndent(runs, "", " ")
	if err != nil {
		return fmt.Errorf("note run: %w", err)
	}
	if err := writeFile(filepath.Join(c.Dir, statusFile), append(b, '\n')); err != nil {
		return fmt.Errorf("note run: %w", err)
	}
	return nil
}
