package backup

import (
	"errors"
	"io/fs"
)

// note remembers how the backup ended, also where it has not got as far as the app: who
// looks after backups by what is remembered must not see a healthy app when its engine is
// down each night.
func (b *backupRun) note(failed error) {
	if b.req.DryRun || b.declined || errors.Is(failed, ErrLocked) {
		return // another one works on the app, and its end is remembered
	}
	platform, app := b.noted(failed)
	if platform == "" {
		return
	}
	err := b.cfg.noteRun(platform, app, func(r *LastRun) {
		r.LastError = ""
		if failed != nil {
			r.LastError = b.concealed(failed).Error()
			return
		}
		r.LastSuccess, r.Archive, r.Store = r.LastAttempt, b.res.Archive, b.storeName
		r.Size, r.Took, r.Downtime = b.res.Size, b.res.Took, b.res.Quiesce.Downtime
		r.Encryption, r.Warnings = b.encryption, len(b.res.Warnings)
	})
	if err != nil {
		b.cfg.Log.Warn("the end of a backup is not remembered", "app", app, "error", err)
	}
}

// noted says whose end it was. An app that nobody has seen is remembered only if it is
// known from before: its name may be a slip.
func (b *backupRun) noted(failed error) (platform, app string) {
	platform = b.req.Platform
	if b.platform != nil {
		platform = b.platform.Name()
		if b.app != nil {
			return platform, b.app.Name
		}
		if b.req.App != "" && !errors.Is(failed, fs.ErrNotExist) {
			return platform, b.req.App
		}
	}
	runs, err := b.cfg.lastRuns()
	if err != nil {
		return "", ""
	}
	found := ""
	for _, r := range runs {
		if r.App != b.req.App || platform != "" && r.Platform != platform {
			continue
		}
		if found != "" {
			return "", "" // it could be either
		}
		found = r.Platform
	}
	return found, b.req.App
}
