package storetest

import (
	"context"
	"errors"
	"io"

	"github.com/dentropy/dentropycloud/backup"
)

// ErrFault is what a Faulty gives where nothing else was asked for.
var ErrFault = errors.New("the store failed, as the test wanted")

// Faulty is a store that fails on demand. Its fields are set before it is used.
type Faulty struct {
	backup.Store
	// Fail is asked before each step: "check", "create", "write", "commit", "abort",
	// "open", "read", "list", "remove". Its error is that step's. It may also wait, to
	// stall; ctx is that of the archive, or of the call.
	Fail func(ctx context.Context, step string) error
	// WriteLimit is how many bytes of an archive are taken; the write that goes beyond is
	// short and fails with ErrFault. 0: no limit.
	WriteLimit int64
	// LoseFrom drops all bytes from there on and tells nobody. 0: none.
	LoseFrom int64
	// ReadLimit is how many bytes of an archive can be read; then it ends, as a file
	// that is cut off. Size still tells the truth. 0: no limit.
	ReadLimit int64
	// CommitTwice does each Commit twice, as after an answer that was lost; the second
	// one's error counts.
	CommitTwice bool
	// ShortReads gives one byte for each Read.
	ShortReads bool
}

func (f *Faulty) fail(ctx context.Context, step string) error {
	if f.Fail == nil {
		return nil
	}
	return f.Fail(ctx, step)
}

// Check is the store's, if it does not fail.
func (f *Faulty) Check(ctx context.Context, need int64) error {
	if err := f.fail(ctx, "check"); err != nil {
		return err
	}
	return f.Store.Check(ctx, need)
}

// List is the store's, if it does not fail.
func (f *Faulty) List(ctx context.Context) ([]backup.Entity, error) {
	if err := f.fail(ctx, "list"); err != nil {
		return nil, err
	}
	return f.Store.List(ctx)
}

// Remove is the store's, if it does not fail.
func (f *Faulty) Remove(ctx context.Context, name string) error {
	if err := f.fail(ctx, "remove"); err != nil {
		return err
	}
	return f.Store.Remove(ctx, name)
}

// Create begins an archive whose writing may fail.
func (f *Faulty) Create(ctx context.Context, name string) (backup.Upload, error) {
	if err := f.fail(ctx, "create"); err != nil {
		return nil, err
	}
	u, err := f.Store.Create(ctx, name)
	if err != nil {
		return nil, err
	}
	return &faultyUpload{Upload: u, f: f, ctx: ctx}, nil
}

type faultyUpload struct {
	backup.Upload
	f   *Faulty
	ctx context.Context // for its lifetime
	n   int64
}

func (u *faultyUpload) Write(p []byte) (int, error) {
	if err := u.f.fail(u.ctx, "write"); err != nil {
		return 0, err
	}
	if limit := u.f.WriteLimit; limit > 0 && u.n+int64(len(p)) > limit {
		n, err := u.Upload.Write(p[:max(0, limit-u.n)])
		u.n += int64(n)
		return n, errors.Join(ErrFault, err)
	}
	if lose := u.f.LoseFrom; lose > 0 && u.n+int64(len(p)) > lose {
		_, err := u.Upload.Write(p[:max(0, lose-u.n)])
		u.n += int64(len(p))
		return len(p), err
	}
	n, err := u.Upload.Write(p)
	u.n += int64(n)
	return n, err
}

func (u *faultyUpload) Commit() error {
	if err := u.f.fail(u.ctx, "commit"); err != nil {
		return err
	}
	err := u.Upload.Commit()
	if u.f.CommitTwice {
		err = u.Upload.Commit()
	}
	return err
}

func (u *faultyUpload) Abort() error {
	if err := u.f.fail(u.ctx, "abort"); err != nil {
		return err
	}
	return u.Upload.Abort()
}

// Open reads an archive, which may fail or end early.
func (f *Faulty) Open(ctx context.Context, name string) (backup.Object, error) {
	if err := f.fail(ctx, "open"); err != nil {
		return nil, err
	}
	o, err := f.Store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &faultyObject{Object: o, f: f, ctx: ctx}, nil
}

type faultyObject struct {
	backup.Object
	f   *Faulty
	ctx context.Context // for its lifetime
	n   int64
}

func (o *faultyObject) Read(p []byte) (int, error) {
	if err := o.f.fail(o.ctx, "read"); err != nil {
		return 0, err
	}
	if o.f.ShortReads && len(p) > 1 {
		p = p[:1]
	}
	if limit := o.f.ReadLimit; limit > 0 {
		if o.n >= limit {
			return 0, io.EOF
		}
		p = p[:min(int64(len(p)), limit-o.n)]
	}
	n, err := o.Object.Read(p)
	o.n += int64(n)
	return n, err
}

func (o *faultyObject) ReadAt(p []byte, off int64) (int, error) {
	if err := o.f.fail(o.ctx, "read"); err != nil {
		return 0, err
	}
	limit := o.f.ReadLimit
	if limit == 0 || off+int64(len(p)) <= limit {
		return o.Object.ReadAt(p, off)
	}
	n, err := o.Object.ReadAt(p[:max(0, limit-off)], off)
	if err == nil {
		err = io.EOF
	}
	return n, err
}
