package volume

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/frame"
)

// reading is one pass over a tree.
type reading struct {
	statter
	opts  ReadOptions
	notes notes
	root  unix.Statx_t
	sums  *treeSums
	// bare says that only the hashes are wanted: no tar is made.
	bare bool

	order chan *job // to the framer
	work  chan *job // to the readers
	free  chan *chunk
	// underWay are the jobs that readers have not ended yet.
	underWay sync.WaitGroup

	// claims are the files with several names whose content some job reads, and the
	// first such job. The framer forgets those that are complete.
	mu     sync.Mutex
	claims map[fileKey]int64

	noXattrs atomic.Bool
}

// Read reads the tree at root into sink. Notes about what did not go as it should are
// in the tree that it returns; with ErrTorn the tree is returned as well.
func Read(ctx context.Context, root string, sink Sink, opts ReadOptions) (*backup.Tree, error) {
	index, err := newIndexWriter(sink)
	if err != nil {
		return nil, err
	}
	defer index.abort()
	fw, err := frame.NewWriter(frame.Options{Workers: opts.Workers, Create: sink.Segment})
	if err != nil {
		return nil, err
	}
	r := newReading(opts)
	tree, err := r.run(ctx, root, fw, index)
	if err != nil {
		fw.Abort()
		return nil, err
	}
	segments, err := fw.Close()
	if err != nil {
		return nil, err
	}
	if tree.Index, err = index.close(); err != nil {
		return nil, err
	}
	for _, s := range segments {
		seg := backup.Segment{Raw: s.Raw, Frames: make([]backup.Frame, len(s.Frames))}
		seg.Blob = backup.Blob{Size: s.Size, SHA256: hex.EncodeToString(s.SHA256[:])}
		for i, f := range s.Frames {
			seg.Frames[i] = backup.Frame{Size: f.Size, Raw: f.Raw}
		}
		tree.Segments = append(tree.Segments, seg)
	}
	return tree, r.torn()
}

// torn is the error for a tree that changed although it should not have.
func (r *reading) torn() error {
	if note, ok := r.notes.torn(); ok && r.opts.Quiesced {
		return fmt.Errorf("%w: %s: %s", ErrTorn, note.Path, note.Text)
	}
	return nil
}

// Hash computes the hashes of the tree at root. Notes are what was left out.
func Hash(ctx context.Context, root string, opts ReadOptions) (Sums, []backup.Note, error) {
	r := newReading(opts)
	r.bare = true
	tree, err := r.run(ctx, root, io.Discard, nil)
	if err != nil {
		return Sums{}, nil, err
	}
	return Sums{Hash: tree.Hash, Contents: tree.Contents}, tree.Notes, r.torn()
}

func newReading(opts ReadOptions) *reading {
	if opts.Readers <= 0 {
		opts.Readers = min(4*runtime.GOMAXPROCS(0), 16)
	}
	return &reading{
		opts:   opts,
		sums:   newTreeSums(),
		claims: map[fileKey]int64{},
		order:  make(chan *job, opts.Readers),
		work:   make(chan *job, opts.Readers),
		free:   make(chan *chunk, 4*opts.Readers),
	}
}

// run reads the tree; the tar goes to out.
func (r *reading) run(ctx context.Context, root string, out io.Writer, index *indexWriter) (*backup.Tree, error) {
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", root, err)
	}
	top := &folder{fd: fd}
	top.refs.Store(1)
	if err := r.stat(fd, emptyName, &top.st); err != nil {
		top.release()
		return nil, fmt.Errorf("look at %s: %w", root, err)
	}
	r.root = top.st
	if !hasCapability(capSysAdmin) {
		r.notes.addOnce("unsupported", "attributes trusted.* are not read: that needs CAP_SYS_ADMIN")
	}

	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	walked := make(chan error, 1)
	switch top.st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		w := &walker{reading: r, ctx: ctx, buf: make([]byte, 64<<10)}
		wg.Go(func() {
			walked <- w.walk(top)
			close(r.order)
			close(r.work)
		})
	case unix.S_IFREG:
		walked <- nil
		j := &job{items: []item{{self: top, name: toCname(singleName), typ: unix.DT_REG}}, out: make(chan *chunk, 1)}
		r.underWay.Add(1)
		r.order <- j
		r.work <- j
		close(r.order)
		close(r.work)
	default:
		top.release()
		cancel(nil)
		return nil, fmt.Errorf("read %s: it is neither a folder nor a file", root)
	}
	for range r.opts.Readers {
		wg.Go(func() { newReader(r).jobs(ctx) })
	}

	f := newFramer(r, out, index)
	err = f.frames(ctx, cancel)
	if err != nil {
		cancel(err)
		for j := range r.order {
			drain(j)
		}
	}
	// The walker's error is what ended the others, where there is one.
	if werr := <-walked; werr != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = werr
	}
	wg.Wait()
	cancel(nil)
	if err != nil {
		return nil, err
	}
	f.tree.Volume = r.opts.Volume
	f.tree.Notes, f.tree.NotesLost = r.notes.take()
	s := r.sums.sums()
	f.tree.Hash, f.tree.Contents = s.Hash, s.Contents
	return &f.tree, nil
}

// drain takes what a job still has.
func drain(j *job) {
	for range j.out { // nothing is done with it
		continue
	}
}

// indexWriter writes the index of files and hashes it.
type indexWriter struct {
	to   io.WriteCloser
	enc  *zstd.Encoder
	sha  hash.Hash
	size int64
	done bool
}

func newIndexWriter(sink Sink) (*indexWriter, error) {
	to, err := sink.Index()
	if err != nil {
		return nil, fmt.Errorf("begin index of files: %w", err)
	}
	w := &indexWriter{to: to, sha: sha256.New()}
	// The window is small, as lines resemble their neighbours.
	w.enc, err = zstd.NewWriter(writerFunc(w.store), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(512<<10))
	if err != nil {
		return nil, errors.Join(err, to.Close())
	}
	return w, nil
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func (w *indexWriter) store(p []byte) (int, error) {
	n, err := w.to.Write(p)
	w.sha.Write(p[:n])
	w.size += int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return n, err
}

func (w *indexWriter) write(p []byte) error {
	if _, err := w.enc.Write(p); err != nil {
		return fmt.Errorf("write index of files: %w", err)
	}
	return nil
}

func (w *indexWriter) close() (backup.Blob, error) {
	w.done = true
	if err := errors.Join(w.enc.Close(), w.to.Close()); err != nil {
		return backup.Blob{}, fmt.Errorf("write index of files: %w", err)
	}
	return backup.Blob{Size: w.size, SHA256: hex.EncodeToString(w.sha.Sum(nil))}, nil
}

// abort ends a writer that was not closed.
func (w *indexWriter) abort() {
	if !w.done {
		w.done = true
		w.enc.Reset(nil)
		if a, ok := w.to.(frame.Aborter); ok {
			a.Abort()
		} else {
			_ = w.to.Close()
		}
	}
}
