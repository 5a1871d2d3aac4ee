package backup

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ErrLocked says that another operation works on the app.
var ErrLocked = errors.New("another operation works on the app")

// appLock keeps all others, in this process and in others, off one app.
type appLock struct{ f *os.File }

// lockHolder is what a lock file says about who has it.
type lockHolder struct {
	PID  int       `json:"pid"`
	Op   string    `json:"op"`
	Kind string    `json:"kind"`
	Time time.Time `json:"time"`
}

// recovery is the kind of operation that finishes what another left behind.
const recovery = "recovery"

// lockedError says who has a lock.
type lockedError struct {
	*Problem
	holder lockHolder
}

func (e *lockedError) Unwrap() error { return e.Problem }

// lockApp takes an app, or returns an error that wraps ErrLocked and says who has it.
// The file stays when the lock ends: removing it would let a third lock a new one
// while a second waits for the old.
func lockApp(dir, platform, app string, me lockHolder) (*appLock, error) {
	path := filepath.Join(dir, lockName(platform, app))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", app, err)
	}
	if err := flock(f); err != nil {
		defer func() { _ = f.Close() }()
		if !errors.Is(err, errHeld) {
			return nil, fmt.Errorf("lock %s: %w", app, err)
		}
		return nil, lockedBy(f, app)
	}
	// what it says is for people only: the lock is held whether or not it can be written
	if b, err := json.Marshal(me); err == nil && f.Truncate(0) == nil {
		_, _ = f.WriteAt(append(b, '\n'), 0)
	}
	return &appLock{f}, nil
}

func (l *appLock) release() {
	_ = l.f.Truncate(0)
	_ = l.f.Close()
}

func lockedBy(f *os.File, app string) error {
	const most = 4096
	b, _ := io.ReadAll(io.LimitReader(f, most))
	p := &Problem{Object: app, Err: ErrLocked, Message: "another operation works on " + app, Hint: "wait for it to end"}
	var h lockHolder
	if json.Unmarshal(b, &h) != nil || h.PID == 0 {
		return &lockedError{p, lockHolder{}}
	}
	p.Message = fmt.Sprintf("a %s of %s is under way (process %d, operation %s, since %s)", h.Kind, app, h.PID, h.Op, h.Time.Format(time.RFC3339))
	p.Hint = "wait for it to end; dentropy jobs shows it"
	return &lockedError{p, h}
}

// lockName is the file of an app's lock. Names of apps come from labels and may be
// anything.
func lockName(platform, app string) string {
	plain := func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '_' {
			return r
		}
		return '_'
	}
	const shown = 40
	cut := func(s string) string { return strings.Map(plain, s[:min(len(s), shown)]) }
	name := cut(platform) + "-" + cut(app)
	if name != platform+"-"+app {
		sum := sha256.Sum256([]byte(platform + "\x00" + app)) // keeps apart what looks alike now
		name += "-" + hex.EncodeToString(sum[:6])
	}
	return name + ".lock"
}

// LockFile takes the file at path, which it makes where it is missing, until release is
// called or the process ends. The error wraps ErrLocked where somebody has it.
func LockFile(path string) (release func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := flock(f); err != nil {
		_ = f.Close()
		if errors.Is(err, errHeld) {
			err = ErrLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}
