package volume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup/tarx"
)

// batch is some entries that follow each other.
type batch struct {
	items []entry
	buf   []byte // content of files
	big   bool   // one file that is written elsewhere
	lines lineSet
	// mapped are the lines as they are on disk, where owners are changed.
	mapped lineSet
	done   chan struct{}
}

// entry is one entry of a batch.
type entry struct {
	h      *tarx.Header
	dir    *target // nil where nothing is left to do but the lines
	name   cname
	from   int // of the content in buf
	digest []byte
}

// batch gives the batch that is being filled.
func (w *writing) batch() *batch {
	if w.cur == nil {
		w.cur = &batch{done: make(chan struct{}), items: make([]entry, 0, batchItems)}
		select {
		case w.cur.buf = <-w.free:
		default:
			w.cur.buf = make([]byte, 0, batchBytes)
		}
	}
	return w.cur
}

// put adds an entry to the batch.
func (w *writing) put(e entry) error {
	b := w.batch()
	if e.dir != nil {
		e.dir.refs.Add(1)
	}
	b.items = append(b.items, e)
	if len(b.items) == batchItems {
		return w.flush()
	}
	return nil
}

// line adds an entry for which nothing is left to do.
func (w *writing) line(h *tarx.Header) error { return w.put(entry{h: h}) }

// flush hands over the batch.
func (w *writing) flush() error {
	b := w.cur
	if w.cur = nil; b == nil {
		return nil
	}
	return w.hand(b)
}

func (w *writing) hand(b *batch) error {
	w.pending.Add(1)
	select {
	case w.order <- b:
	case <-w.ctx.Done():
		w.pending.Done()
		b.release(w)
		return context.Cause(w.ctx)
	}
	if b.big {
		return nil
	}
	select {
	case w.work <- b:
		return nil
	case <-w.ctx.Done():
		w.pending.Done()
		b.release(w)
		close(b.done)
		return context.Cause(w.ctx)
	}
}

// release gives up the folders of a batch that is not written.
func (b *batch) release(w *writing) {
	for i := range b.items {
		if dir := b.items[i].dir; dir != nil {
			dir.release(w)
		}
	}
}

// drain waits until all that came so far is on disk.
func (w *writing) drain() error {
	err := w.flush()
	w.pending.Wait()
	return err
}

// write writes the entries of a batch, and makes the lines.
func (w *writing) write(b *batch) {
	for i := range b.items {
		e := &b.items[i]
		if e.dir != nil {
			if w.ctx.Err() == nil {
				if err := w.small(b, e); err != nil {
					w.fail(fmt.Errorf("write %q: %w", e.h.Name, w.explain(err)))
				}
			}
			e.dir.release(w)
		}
		b.addLines(w, e)
	}
}

func (b *batch) addLines(w *writing, e *entry) {
	if w.opts.NoSums {
		return
	}
	b.lines.add(e.h, e.digest, false)
	if w.mapped != nil {
		h := *e.h
		w.mapOwner(&h)
		b.mapped.add(&h, e.digest, false)
	}
}

// fail ends everything with the first error.
func (w *writing) fail(err error) { w.cancel(err) }

// explain makes a full disk understandable.
func (w *writing) explain(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w in the target: %w; make room where the volume is kept", ErrSpace, err)
	}
	return err
}

// collect puts the lines of all batches in order.
func (w *writing) collect() {
	reported := time.Now()
	for b := range w.order {
		select {
		case <-b.done:
		case <-w.ctx.Done():
			continue
		}
		for i := range b.items {
			path := entryPath(b.items[i].h.Name)
			if w.last == "" && path != "." || w.last != "" && comparePaths(w.last, path) >= 0 {
				w.unordered = true
			}
			w.last = path
		}
		w.sums.tree.Write(b.lines.tree)
		w.sums.contents.Write(b.lines.contents)
		if w.mapped != nil {
			w.mapped.tree.Write(b.mapped.tree)
		}
		w.entries.Add(int64(len(b.items)))
		if b.buf != nil {
			select {
			case w.free <- b.buf[:0]:
			default:
			}
		}
		if t := time.Now(); w.opts.Progress != nil && t.Sub(reported) >= progressEvery {
			reported = t
			w.opts.Progress(Progress{Bytes: w.written.Load(), Files: w.entries.Load()})
		}
	}
}
