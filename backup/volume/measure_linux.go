package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/frame"
)

// probeTime is how long the rate of reading and compressing is measured.
const probeTime = 700 * time.Millisecond

// Measure tells how much is in the tree at root: what it takes on disk, and how many
// entries there are. What cannot be looked at is not counted.
func Measure(ctx context.Context, root string, opts ReadOptions) (backup.VolumeSize, error) {
	r := newReading(opts)
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return backup.VolumeSize{}, fmt.Errorf("open %s: %w", root, err)
	}
	top := &folder{fd: fd}
	top.refs.Store(1)
	if err := r.stat(fd, emptyName, &top.st); err != nil {
		top.release()
		return backup.VolumeSize{}, fmt.Errorf("look at %s: %w", root, err)
	}
	r.root = top.st
	// Unreadable folders are the business of Read.
	r.opts.AllowMissing = true
	if top.st.Mode&unix.S_IFMT != unix.S_IFDIR {
		top.release()
		return backup.VolumeSize{Bytes: int64(top.st.Blocks) * 512, Files: 1}, nil
	}
	var bytes, files atomic.Int64
	var several sync.Map // fileKey
	count := func(st *unix.Statx_t) {
		files.Add(1)
		if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
			if _, seen := several.LoadOrStore(keyOf(st), true); seen {
				return
			}
		}
		bytes.Add(int64(st.Blocks) * 512)
	}
	var wg sync.WaitGroup
	for range r.opts.Readers {
		wg.Go(func() {
			for j := range r.work {
				for i := range j.items {
					it := &j.items[i]
					if it.self != nil {
						count(&it.self.st)
					} else {
						var st unix.Statx_t
						if r.stat(it.dir.fd, it.name, &st) == nil {
							count(&st)
						}
					}
					it.release()
				}
			}
		})
	}
	// The order does not matter here, so nobody waits for it.
	wg.Go(func() {
		for range r.order { // nothing is done with them
			continue
		}
	})
	w := &walker{reading: r, ctx: ctx, buf: make([]byte, 64<<10)}
	err = w.walk(top)
	close(r.order)
	close(r.work)
	wg.Wait()
	if err != nil {
		return backup.VolumeSize{}, err
	}
	return backup.VolumeSize{Bytes: bytes.Load(), Files: files.Load()}, nil
}

// errProbed ends a probe that has seen enough.
var errProbed = errors.New("enough was read")

// probe measures how many bytes of tar are read and compressed in a second; 0 where
// there is too little to tell.
func probe(ctx context.Context, roots []string, opts []ReadOptions) int64 {
	var total atomic.Int64
	begin := time.Now()
	deadline, cancel := context.WithTimeoutCause(ctx, probeTime, errProbed)
	defer cancel()
	for i, root := range roots {
		fw, err := frame.NewWriter(frame.Options{Create: func(int) (io.WriteCloser, error) { return nowhere{}, nil }})
		if err != nil {
			return 0
		}
		o := opts[i]
		o.AllowMissing = true
		_, err = newReading(o).run(deadline, root, &counted{fw, &total}, nil)
		fw.Abort()
		if err != nil && deadline.Err() != nil {
			break
		}
	}
	const enough = 1 << 20
	if total.Load() < enough {
		return 0
	}
	return int64(float64(total.Load()) / time.Since(begin).Seconds())
}

type counted struct {
	w io.Writer
	n *atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n.Add(int64(n))
	return n, err
}

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) Close() error                { return nil }
