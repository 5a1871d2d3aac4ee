package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/dentropy/dentropycloud/backup"
)

// upload is an archive that is being written.
type upload struct {
	ctx           context.Context // for its lifetime: io.Writer has none
	dir           string
	root          *os.Root
	f             *os.File
	partial, name string

	mu   sync.Mutex // guards over
	over bool       // committed or aborted
}

func (u *upload) Write(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := u.f.Write(p)
	if err != nil {
		err = fmt.Errorf("write to %s: %w", u.dir, explain(err))
	}
	return n, err
}

// Commit brings the archive to the disk and then gives it its name.
func (u *upload) Commit() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.over {
		return errors.New("commit the archive: it is over already")
	}
	u.over = true
	defer closeRead(u.root)
	if err := u.commit(); err != nil {
		err = fmt.Errorf("commit %s: %w", u.name, explain(err))
		return errors.Join(err, ignoreGone(u.root.Remove(u.partial)), u.f.Close())
	}
	// The lock goes with the file: not before the name .partial is gone.
	return u.f.Close()
}

func (u *upload) commit() error {
	if err := u.ctx.Err(); err != nil {
		return err
	}
	if err := u.f.Sync(); err != nil {
		return err
	}
	if err := renameNew(u.root, u.partial, u.name); err != nil {
		return err
	}
	if err := syncRoot(u.root); err != nil {
		// Whether it would be there after a crash is not known: then it must not be.
		return errors.Join(err, u.root.Remove(u.name))
	}
	return nil
}

// Abort removes what was written.
func (u *upload) Abort() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.over {
		return nil
	}
	u.over = true
	return errors.Join(ignoreGone(u.root.Remove(u.partial)), u.f.Close(), u.root.Close())
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// syncRoot makes the names in the folder durable.
func syncRoot(root *os.Root) error {
	d, err := root.Open(".")
	if err != nil {
		return fmt.Errorf("sync the folder of archives: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync the folder of archives: %w", err)
	}
	return nil
}

// suffix is random text for a name.
func suffix() string { return rand.Text()[:8] }

// explain adds what to do to errors of the system.
func explain(err error) error {
	switch {
	case errors.Is(err, errNoSpace):
		return &backup.Problem{Message: err.Error(), Hint: "remove old archives, or use another folder", Err: err}
	case errors.Is(err, fs.ErrPermission):
		return &backup.Problem{Message: err.Error(), Hint: "make the folder writable for this user, or use another one", Err: err}
	}
	return err
}
