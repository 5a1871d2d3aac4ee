package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/tarx"
)

// chunk is a run of tar, and the lines of the entries that are complete with it.
type chunk struct {
	buf []byte
	// starts are where in buf the headers of entries begin.
	starts []int
	lines  lineSet
	// entries, files and bytes are of the complete entries; data is how much was read.
	entries, files, bytes, data int64
	// special are those among them that a restore warns of.
	special backup.Special
	// link is set where the chunk begins with a file that has several names, and holds
	// nothing else; last says that the file ends with this chunk.
	link *linked
	last bool
}

// linked is a file with several names.
type linked struct {
	key    fileKey
	nlink  uint32
	header *tarx.Header
	// follows says that an earlier entry is known to carry the content.
	follows bool
}

func (c *chunk) reset() {
	c.buf, c.starts = c.buf[:0], c.starts[:0]
	c.lines.reset()
	c.entries, c.files, c.bytes, c.data = 0, 0, 0, 0
	c.special = backup.Special{}
	c.link, c.last = nil, false
}

// framer puts the chunks of all jobs in order.
type framer struct {
	*reading
	out   io.Writer
	index *indexWriter
	tree  backup.Tree

	pos    int64   // in the tar
	starts []int64 // of entries whose lines have not come yet
	line   []byte  // scratch
	// first holds, for files with several names, the first one and how many are to come.
	first map[fileKey]*firstName
	// skipping says that the content of a link is being dropped.
	skipping bool

	reported time.Time
}

type firstName struct {
	name string
	left uint32
}

func newFramer(r *reading, out io.Writer, index *indexWriter) *framer {
	f := &framer{reading: r, out: out, index: index, first: map[fileKey]*firstName{}, reported: time.Now()}
	f.tree.Special = new(backup.Special)
	return f
}

// frames takes all jobs and ends the tar. An error cancels those that are under way.
func (f *framer) frames(ctx context.Context, cancel context.CancelCauseFunc) error {
	for j := range f.order {
		for c := range j.out {
			if err := f.chunk(c); err != nil {
				cancel(err)
				drain(j)
				return err
			}
			select {
			case f.free <- c:
			default:
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if j.err != nil {
			return j.err
		}
	}
	if f.bare {
		return nil
	}
	if err := f.write(tarx.Trailer[:]); err != nil {
		return err
	}
	f.tree.TarSize = f.pos
	f.report(true)
	return nil
}

// chunk takes one chunk.
func (f *framer) chunk(c *chunk) error {
	if c.link != nil {
		if err := f.linked(c); err != nil {
			return err
		}
	}
	if f.skipping {
		f.skipping = !c.last
		return nil
	}
	if f.index != nil {
		for _, at := range c.starts {
			f.starts = append(f.starts, f.pos+int64(at))
		}
	}
	if err := f.write(c.buf); err != nil {
		return err
	}
	return f.complete(c)
}

// linked decides whether a file with several names is the first of them, and makes
// a hard link of it where it is not.
func (f *framer) linked(c *chunk) error {
	l := c.link
	first := f.first[l.key]
	if first == nil {
		if l.follows {
			// All names that it had when it was first seen have been.
			f.notes.add(entryPath(l.header.Name), "changed", "it was given this name while the tree was read")
			f.skipping = true
			return nil
		}
		f.first[l.key] = &firstName{name: l.header.Name, left: l.nlink - 1}
		return nil
	}
	f.skipping = true
	h := *l.header
	h.Type, h.Link, h.Size, h.Data, h.Xattrs = tarx.TypeHardLink, first.name, 0, nil, nil
	if first.left--; first.left == 0 {
		delete(f.first, l.key)
		f.mu.Lock()
		delete(f.claims, l.key)
		f.mu.Unlock()
	}
	own := &chunk{entries: 1}
	if !f.bare {
		var err error
		if own.buf, err = tarx.AppendHeader(nil, &h); err != nil {
			return err
		}
	}
	own.lines.add(&h, nil, f.index != nil)
	if f.index != nil {
		f.starts = append(f.starts, f.pos)
	}
	if err := f.write(own.buf); err != nil {
		return err
	}
	return f.complete(own)
}

// complete takes in what a chunk says about its entries.
func (f *framer) complete(c *chunk) error {
	f.sums.tree.Write(c.lines.tree)
	f.sums.contents.Write(c.lines.contents)
	f.tree.Entries += c.entries
	f.tree.Files += c.files
	f.tree.Bytes += c.bytes
	f.tree.Stored += c.data
	addSpecial(f.tree.Special, &c.special)
	if f.index != nil {
		from := 0
		for i, end := range c.lines.ends {
			f.line = append(f.line[:0], c.lines.index[from:end]...)
			f.line = append(strconv.AppendInt(f.line, f.starts[i], 10), "}\n"...)
			if err := f.index.write(f.line); err != nil {
				return err
			}
			from = end
		}
		// What is left are the entries that go on in the next chunk: one at most.
		f.starts = f.starts[:copy(f.starts, f.starts[c.entries:])]
	}
	f.report(false)
	return nil
}

func (f *framer) write(p []byte) error {
	if f.bare || len(p) == 0 {
		return nil
	}
	n, err := f.out.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	f.pos += int64(n)
	if err != nil && !errors.Is(err, ErrSpace) {
		err = fmt.Errorf("write tar: %w", err)
	}
	return err
}

// report tells how far the reading is, from time to time.
func (f *framer) report(now bool) {
	if f.opts.Progress == nil {
		return
	}
	if t := time.Now(); now || t.Sub(f.reported) >= progressEvery {
		f.reported = t
		f.opts.Progress(Progress{Bytes: f.tree.Stored, Files: f.tree.Entries})
	}
}
