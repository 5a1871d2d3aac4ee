package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/dentropy/dentropycloud/backup"
)

// written is what the helper tells about a tree that it has written.
type written struct {
	Done      bool          `json:"done"`
	Entries   int64         `json:"entries"`
	Files     int64         `json:"files"`
	Bytes     int64         `json:"bytes"`
	SetID     int64         `json:"setid"`
	Devices   int64         `json:"devices"`
	Hash      string        `json:"hash"`
	Contents  string        `json:"contents"`
	Notes     []backup.Note `json:"notes"`
	NotesLost int           `json:"notes_lost"`
}

// filler writes the data of one volume.
type filler struct {
	v      *volumePlan
	pw     *io.PipeWriter
	done   chan struct{} // closed when the helper has ended
	result written
	err    error // once done
	next   int   // the segment that must come next
}

// target is where the data of a volume is written to, as a helper sees it.
func (r *restore) target(v *volumePlan, write bool) helperMount {
	m := helperMount{target: volumeRoot + v.ID, write: write}
	switch {
	case v.Kind != backup.Named:
		m.bind = r.c.rec.path(v.Name).staged()
	case v.Swap:
		m.volume = v.Name + ".pre-restore-" + r.c.op
	default:
		m.volume = v.Name
	}
	return m
}

// fill begins to write a volume.
func (r *restore) fill(ctx context.Context, v *volumePlan, done *atomic.Int64) *filler {
	pr, pw := io.Pipe()
	f := &filler{v: v, pw: pw, done: make(chan struct{})}
	tree := r.m.Trees[v.ID]
	var before int64
	task := helperTask{
		op: r.c.op, name: "write", caps: writeCaps, stdin: pr, mounts: []helperMount{r.target(v, true)},
		input: map[string]any{
			"path": volumeRoot + v.ID, "file": v.Kind == backup.BindFile, "total": tree.Bytes,
			// What the manifest says is held against what came afterwards; these keep a lie
			// from filling the disk first.
			"max_entries": tree.Entries + 1, "max_bytes": tree.Bytes + 1, "max_stored": tree.Stored + 1<<20,
			"no_sums": r.rereads(), // the segments' own hashes are checked on their way
		},
		line: func(line []byte) {
			var p struct {
				Done json.RawMessage `json:"done"` // bytes, or true at the end
			}
			var n int64
			if json.Unmarshal(line, &p) != nil || json.Unmarshal(p.Done, &n) != nil {
				return
			}
			all := done.Add(n - before)
			before = n
			r.opts.Report(backup.Progress{Phase: "fill", Text: v.ID, Done: all, Total: r.total})
		},
	}
	go func() {
		defer close(f.done)
		f.err = r.p.helperResult(ctx, task, &f.result)
		_ = pr.CloseWithError(errors.Join(f.err, io.ErrClosedPipe)) // whoever still writes is told
	}()
	return f
}

// stream takes all of the archive: images go to the engine, data into new volumes. When it
// returns nil, the archive was complete and undamaged and all data came in.
func (r *restore) stream(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var load *loader
	var wg sync.WaitGroup
	fillers := map[string]*filler{}
	var done atomic.Int64
	defer func() {
		cancel()
		for _, f := range fillers {
			_ = f.pw.CloseWithError(context.Canceled)
			<-f.done
		}
		if load != nil {
			_ = load.end(errors.Join(err, context.Canceled))
		}
		wg.Wait()
	}()
	wantImages := slices.ContainsFunc(r.d.Images, func(im imagePlan) bool { return im.How == imageInside })
	for {
		m, err := r.in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return readArchive(err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if m.Kind == backup.MemberImage && wantImages {
			if load == nil {
				if load, err = r.startLoad(ctx); err != nil {
					return err
				}
			}
			if err := load.add(m, r.in); err != nil {
				return fmt.Errorf("load images: %w", err)
			}
			r.opts.Report(backup.Progress{Phase: "images", Done: load.n})
			continue
		}
		if m.Kind == backup.MemberSegment {
			if load != nil {
				if err := r.endLoad(ctx, &load); err != nil {
					return err
				}
			}
			if err := r.segment(ctx, m, fillers, &done); err != nil {
				return err
			}
		}
	}
	if load != nil {
		if err := r.endLoad(ctx, &load); err != nil {
			return err
		}
	}
	if err := r.in.Finish(ctx); err != nil {
		return readArchive(err)
	}
	return r.filled(fillers)
}

func (r *restore) endLoad(ctx context.Context, load **loader) error {
	l := *load
	*load = nil
	if err := l.end(nil); err != nil {
		return r.p.failed("load images", err)
	}
	return r.loaded(ctx, l)
}

func readArchive(err error) error { return fmt.Errorf("read the archive: %w", err) }

// segment hands on one segment.
func (r *restore) segment(ctx context.Context, m *backup.Member, fillers map[string]*filler, done *atomic.Int64) error {
	v := r.d.volume(m.Volume)
	if v == nil || !v.Fill {
		return nil // skipped by the next Next
	}
	f := fillers[v.ID]
	if f == nil {
		f = r.fill(ctx, v, done)
		fillers[v.ID] = f
	}
	if m.Segment != f.next {
		return readArchive(fmt.Errorf("%w: segment %d of volume %s comes where %d should", backup.ErrCorrupt, m.Segment, v.ID, f.next))
	}
	f.next++
	if _, err := io.Copy(f.pw, r.in); err != nil {
		select {
		case <-f.done: // what it says is the reason
			if f.err != nil {
				return fmt.Errorf("restore volume %s: %w", v.ID, f.err)
			}
		default:
		}
		return fmt.Errorf("restore volume %s: %w", v.ID, err)
	}
	if n := len(r.m.Trees[v.ID].Segments); n > 0 && f.next == n {
		return f.pw.Close() // its helper may end
	}
	return nil
}

// filled waits for all helpers, and holds what they have written against the manifest.
func (r *restore) filled(fillers map[string]*filler) error {
	for i := range r.d.Volumes {
		v := &r.d.Volumes[i]
		if !v.Fill {
			continue
		}
		f := fillers[v.ID]
		if f == nil {
			return readArchive(fmt.Errorf("%w: the data of volume %s is missing", backup.ErrCorrupt, v.ID))
		}
		_ = f.pw.Close() // the helper sees the end of its data
		<-f.done
		if f.err != nil {
			return fmt.Errorf("restore volume %s: %w", v.ID, f.err)
		}
		if err := r.came(v, &f.result); err != nil {
			return err
		}
	}
	return nil
}

// came holds what has been written of a volume against the manifest.
func (r *restore) came(v *volumePlan, w *written) error {
	tree := r.m.Trees[v.ID]
	if !r.rereads() && w.Hash != tree.Hash || w.Entries != tree.Entries || w.Files != tree.Files || w.Bytes != tree.Bytes {
		return readArchive(fmt.Errorf("%w: what came of volume %s is not what the manifest says: %d entries, %d bytes, hash %s; want %d, %d, %s",
			backup.ErrCorrupt, v.ID, w.Entries, w.Bytes, w.Hash, tree.Entries, tree.Bytes, tree.Hash))
	}
	if err := r.cameSpecial(v, tree.Special, w); err != nil {
		return err
	}
	const shown = 5
	for i, n := range w.Notes {
		if i == shown {
			r.warn("volume %s: there are %d more such notes", v.ID, len(w.Notes)-shown+w.NotesLost)
			break
		}
		r.warn("volume %s: %s: %s %s", v.ID, n.Path, n.Kind, n.Text)
	}
	return nil
}

// rereads reports whether what was written is read again, and hashed then.
func (r *restore) rereads() bool { return r.plan.Answers.Verify != verifyStream }

// verify reads what was written again.
func (r *restore) verify(ctx context.Context) error {
	if !r.rereads() {
		return nil
	}
	for i := range r.d.Volumes {
		v := &r.d.Volumes[i]
		if !v.Fill {
			continue
		}
		r.opts.Report(backup.Progress{Phase: "verify", Text: v.ID})
		var sums struct {
			Hash     string `json:"hash"`
			Contents string `json:"contents"`
		}
		err := r.p.helperResult(ctx, helperTask{
			op: r.c.op, name: "hash", caps: readCaps, mounts: []helperMount{r.target(v, false)},
			input: map[string]any{"path": volumeRoot + v.ID},
			line: func(line []byte) {
				var p struct {
					Done json.RawMessage `json:"done"`
				}
				var n int64
				if json.Unmarshal(line, &p) == nil && json.Unmarshal(p.Done, &n) == nil {
					r.opts.Report(backup.Progress{Phase: "verify", Text: v.ID, Done: n, Total: r.m.Trees[v.ID].Bytes})
				}
			},
		}, &sums)
		if err != nil {
			return fmt.Errorf("verify volume %s: %w", v.ID, err)
		}
		tree := r.m.Trees[v.ID]
		switch {
		case sums.Hash == tree.Hash:
		case tree.Contents != "" && sums.Contents == tree.Contents:
			r.warn("volume %s: all data is there, but its file system could not take all owners, rights, times or attributes", v.ID)
		default:
			return fmt.Errorf("verify volume %s: what is on disk is not what was written: hash %s, want %s", v.ID, sums.Hash, tree.Hash)
		}
	}
	return nil
}

// staged is the path on the host that data waits in.
func (m *pathMove) staged() string { return path.Join(m.Base, m.Stage) }

// path gives the move of a path.
func (c *changeRecord) path(p string) *pathMove {
	for i := range c.Paths {
		if c.Paths[i].Path == p && !c.Paths[i].Stay {
			return &c.Paths[i]
		}
	}
	return &pathMove{}
}
