package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup/tarx"
)

const (
	// batchBytes and batchItems bound what goes to a writer at once. A file larger than
	// batchBytes is written while it is read.
	batchBytes = 512 << 10
	batchItems = 32
)

// writing is one tree that is being written.
type writing struct {
	statter
	ctx    context.Context
	cancel context.CancelCauseFunc
	opts   WriteOptions
	root   string
	notes  notes
	result Result
	tar    *tarx.Reader

	stack   []*target // folders from the root to the current one
	lag     int       // folders far above that were still open when they should have been closed
	cur     *batch
	order   chan *batch // to the collector
	work    chan *batch // to the writers
	free    chan []byte
	pending sync.WaitGroup // batches that are not written yet

	noOpenat2 atomic.Bool

	// The collector's.
	sums      *treeSums
	mapped    *treeSums
	last      string // path of the last entry
	unordered bool
	written   atomic.Int64
	entries   atomic.Int64
}

// Write writes the tar r as a tree below root, a folder with nothing in it. After an
// error the tree is of no use.
func Write(ctx context.Context, root string, r io.Reader, opts WriteOptions) (Result, error) {
	if opts.Writers <= 0 {
		opts.Writers = min(2*runtime.GOMAXPROCS(0), 8)
	}
	w := &writing{
		opts: opts, root: root, tar: tarx.NewReader(r),
		order: make(chan *batch, 4*opts.Writers),
		work:  make(chan *batch, opts.Writers),
		free:  make(chan []byte, 4*opts.Writers),
		sums:  newTreeSums(),
	}
	w.noOpenat2.Store(opts.noOpenat2)
	if len(opts.Map) > 0 {
		w.mapped = newTreeSums()
	}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	defer w.cancel(nil)
	var err error
	if opts.File {
		err = w.single()
	} else {
		err = w.run()
	}
	if err != nil {
		return w.result, err
	}
	w.result.Notes, w.result.NotesLost = w.notes.take()
	return w.result, nil
}

// run writes a tree.
func (w *writing) run() error {
	if err := w.open(); err != nil {
		return err
	}
	var writers, collector sync.WaitGroup
	for range w.opts.Writers {
		writers.Go(func() {
			for b := range w.work {
				w.write(b)
				close(b.done)
				w.pending.Done()
			}
		})
	}
	collector.Go(w.collect)

	err := w.all()
	if err != nil {
		w.cancel(err)
	}
	close(w.work)
	writers.Wait()
	close(w.order)
	collector.Wait()
	w.pending.Wait()
	if w.cur != nil {
		w.cur.release(w)
	}
	for len(w.stack) > 0 {
		w.pop(err == nil && w.ctx.Err() == nil)
	}
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	return w.finish()
}

// all takes all entries of the stream.
func (w *writing) all() error {
	for {
		h, err := w.tar.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := w.entry(h); err != nil {
			return fmt.Errorf("entry %d, %q: %w", w.result.Entries, h.Name, err)
		}
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
	}
	// Folders far above are closed meanwhile: the way back opens them, so that each is
	// finished.
	if err := w.enter(nil, false); err != nil {
		return err
	}
	return w.flush()
}

// finish brings everything to disk and computes the hashes.
func (w *writing) finish() error {
	fd, err := unix.Open(w.root, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", w.root, err)
	}
	err = unix.Syncfs(fd)
	closeFD(fd)
	if err != nil {
		return fmt.Errorf("bring %s to disk: %w", w.root, w.explain(err))
	}
	if w.opts.Progress != nil {
		w.opts.Progress(Progress{Bytes: w.written.Load(), Files: w.entries.Load()})
	}
	if w.opts.NoSums {
		return nil
	}
	if w.unordered {
		// Another program's tar: it has no root, or another order than that of the hash.
		w.result.Sums, _, err = Hash(w.ctx, w.root, ReadOptions{})
		return err
	}
	w.result.Sums = w.sums.sums()
	if w.mapped != nil {
		w.result.Mapped = w.mapped.sums().Hash
	}
	return nil
}

// limits counts an entry and refuses what is more than was promised.
func (w *writing) limits(h *tarx.Header) error {
	o, r := &w.opts, &w.result
	r.Entries++
	if o.MaxEntries > 0 && r.Entries > o.MaxEntries {
		return fmt.Errorf("%w: more than %d entries", ErrTooMuch, o.MaxEntries)
	}
	for name, value := range h.Xattrs {
		if len(name) > tarx.MaxXattrName || len(value) > tarx.MaxXattr {
			return fmt.Errorf("%w: attribute %.64q of %d bytes", ErrUnsafe, name, len(value))
		}
	}
	for _, text := range h.Notes {
		w.notes.add(entryPath(h.Name), "unsupported", text)
	}
	if h.Type != tarx.TypeFile {
		return nil
	}
	r.Files++
	stored := h.PayloadSize()
	if h.Size < 0 || r.Bytes+h.Size < 0 {
		return fmt.Errorf("%w: size %d", ErrUnsafe, h.Size)
	}
	r.Bytes += h.Size
	r.Stored += stored
	if o.MaxBytes > 0 && r.Bytes > o.MaxBytes {
		return fmt.Errorf("%w: files of more than %d bytes", ErrTooMuch, o.MaxBytes)
	}
	if o.MaxStored > 0 && r.Stored > o.MaxStored {
		return fmt.Errorf("%w: data of more than %d bytes", ErrTooMuch, o.MaxStored)
	}
	if setID(h) {
		r.SetID++
	}
	return nil
}

// entry takes one entry of the stream.
func (w *writing) entry(h *tarx.Header) error {
	if err := w.limits(h); err != nil {
		return err
	}
	parts, err := splitName(h.Name)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		if h.Type != tarx.TypeFolder {
			return fmt.Errorf("%w: the root is no folder", ErrUnsafe)
		}
		if err := w.enter(nil, false); err != nil {
			return err
		}
		w.stack[0].header = h
		return w.line(h)
	}
	base := toCname(parts[len(parts)-1])
	if h.Type == tarx.TypeFolder {
		if err := w.enter(parts, true); err != nil {
			return err
		}
		w.stack[len(w.stack)-1].header = h
		return w.line(h)
	}
	if err := w.enter(parts[:len(parts)-1], false); err != nil {
		return err
	}
	dir := w.stack[len(w.stack)-1]
	switch h.Type {
	case tarx.TypeFile:
		return w.file(h, dir, base)
	case tarx.TypeHardLink:
		return w.hardLink(h, dir, base)
	case tarx.TypeSymlink:
		return w.symlink(h, dir, base)
	case tarx.TypeChar, tarx.TypeBlock, tarx.TypeFIFO:
		return w.device(h, dir, base)
	}
	return fmt.Errorf("%w: type %q", ErrUnsafe, h.Type)
}

// splitName parts a name into its components and refuses those that lead elsewhere.
func splitName(name string) ([]string, error) {
	if name == "./" || name == "." {
		return nil, nil
	}
	switch {
	case name == "":
		return nil, fmt.Errorf("%w: the name is empty", ErrUnsafe)
	case name[0] == '/':
		return nil, fmt.Errorf("%w: the name is absolute", ErrUnsafe)
	case len(name) > maxPath:
		return nil, fmt.Errorf("%w: the name is %d bytes long", ErrUnsafe, len(name))
	case strings.IndexByte(name, 0) >= 0:
		return nil, fmt.Errorf("%w: the name has a NUL", ErrUnsafe)
	}
	parts := strings.Split(strings.TrimSuffix(name, "/"), "/")
	for _, part := range parts {
		switch {
		case part == "" || part == ".":
			return nil, fmt.Errorf("%w: the name has an empty component", ErrUnsafe)
		case part == "..":
			return nil, fmt.Errorf("%w: the name leads out of the tree", ErrUnsafe)
		case len(part) > unix.NAME_MAX:
			return nil, fmt.Errorf("%w: the name has a component of %d bytes", ErrUnsafe, len(part))
		}
	}
	return parts, nil
}
