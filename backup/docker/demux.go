package docker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	// mostLine bounds a line of what a helper says.
	mostLine = 1 << 20
	// mostTail bounds what is kept of a helper's words for an error.
	mostTail = 2 << 10
)

// demux takes apart the output of a container without a terminal: frames of standard
// output and standard error, each with eight bytes before it. Reading gives standard
// output, where raw; everything else is read as lines.
type demux struct {
	r    io.Reader
	raw  bool
	line func([]byte)

	left   uint32 // of the current frame
	kind   byte   // and which it is
	out    lines
	err    lines
	words  []byte // the end of lines that are no JSON
	failed error
}

// The kinds of frames.
const (
	frameStdout = 1
	frameStderr = 2
)

// Read gives standard output.
func (d *demux) Read(b []byte) (int, error) {
	for d.failed == nil {
		if d.left == 0 {
			d.failed = d.next()
			continue
		}
		part := b[:min(len(b), int(d.left))]
		if d.kind != frameStdout || !d.raw {
			var buf [4096]byte
			part = buf[:min(len(buf), int(d.left))]
		}
		n, err := d.r.Read(part)
		d.left -= uint32(n)
		if err != nil {
			d.failed = err
		}
		switch {
		case d.kind == frameStdout && d.raw:
			if n > 0 {
				return n, nil
			}
		case d.kind == frameStdout:
			d.out.add(part[:n], d.said)
		default:
			d.err.add(part[:n], d.said)
		}
	}
	d.out.end(d.said)
	d.err.end(d.said)
	return 0, d.failed
}

// next reads the head of a frame.
func (d *demux) next() error {
	var head [8]byte
	if _, err := io.ReadFull(d.r, head[:]); err != nil {
		return err
	}
	if head[0] > frameStderr || head[1]|head[2]|head[3] != 0 {
		return errors.New("the engine's answer makes no sense")
	}
	d.kind, d.left = head[0], binary.BigEndian.Uint32(head[4:])
	if d.kind == 0 { // standard input, echoed; nothing does
		return fmt.Errorf("the engine's answer makes no sense: frame of kind %d", d.kind)
	}
	return nil
}

// said takes one line.
func (d *demux) said(line []byte) {
	line = bytes.TrimSpace(line)
	switch {
	case len(line) == 0:
	case line[0] == '{' && d.line != nil:
		d.line(line)
	default:
		d.words = append(append(d.words, line...), '\n')
		if extra := len(d.words) - mostTail; extra > 0 {
			d.words = append(d.words[:0], d.words[extra:]...)
		}
	}
}

// tail is the end of what was said beside JSON.
func (d *demux) tail() string { return string(bytes.TrimSpace(d.words)) }

// lost reports whether a line was too long to be kept.
func (d *demux) lost() bool { return d.out.lost || d.err.lost }

// lines cuts bytes into lines. What is too long for one is dropped.
type lines struct {
	buf  []byte
	skip bool
	lost bool // one was dropped
}

func (l *lines) add(p []byte, said func([]byte)) {
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			if len(l.buf)+len(p) > mostLine {
				l.buf, l.skip, l.lost = l.buf[:0], true, true
			}
			if !l.skip {
				l.buf = append(l.buf, p...)
			}
			return
		}
		if !l.skip {
			l.buf = append(l.buf, p[:i]...)
			said(l.buf)
		}
		l.buf, l.skip = l.buf[:0], false
		p = p[i+1:]
	}
}

func (l *lines) end(said func([]byte)) {
	if len(l.buf) > 0 {
		said(l.buf)
		l.buf = l.buf[:0]
	}
}
