package backup

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/dentropy/dentropycloud/backup/tarx"
)

// selected is a run of a volume's tar that goes into a tar of a part of it.
type selected struct {
	offset, end int64
	name        string // of its only entry, if that is not copied as it is
	// from is set for a hard link whose file was not chosen: it becomes that file.
	from *selected
	// link is set for one whose file has become another's.
	link string
}

// plain reports whether it is copied as it is.
func (s *selected) plain() bool { return s.from == nil && s.link == "" }

// TarOf gives a tar of a part of a volume: the entries that match, with the folders that
// they are in. match gets paths as Files has them; whoever wants all below a folder
// matches that too. Only what is chosen is read and decompressed. It is as safe or unsafe
// as the archive is: whoever unpacks it must mind that. The error wraps fs.ErrNotExist
// where there is no such volume, or nothing matches.
//
// What it gives was found at the places that the proven index of files says, and checked
// frame by frame (zstd's own checksums), not against the hashes of the segments.
func (a *Archive) TarOf(volume string, match func(path string) bool) (io.ReadCloser, error) {
	t, err := a.tree(volume)
	if err != nil {
		return nil, err
	}
	if !hasFrames(t) {
		return nil, &Problem{
			Message: "single files cannot be taken out of an archive without its end",
			Hint:    "take the whole volume out", Object: volume, Err: a.salvaged,
		}
	}
	list, err := a.choose(t, match)
	if err != nil {
		return nil, err
	}
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		pw.CloseWithError(a.writeSelected(pw, t, list))
	}()
	return &selectedTar{PipeReader: pr, done: done}, nil
}

// selectedTar is a tar of a part that is being made.
type selectedTar struct {
	*io.PipeReader
	done chan struct{}
}

// Close ends it, and waits until nothing is read from the archive any more.
func (s *selectedTar) Close() error {
	err := s.PipeReader.Close()
	<-s.done
	return err
}

// choose finds what goes into a tar of a part.
func (a *Archive) choose(t *Tree, match func(string) bool) ([]selected, error) {
	want, err := a.wanted(t.Volume, match)
	if err != nil {
		return nil, err
	}
	if !want.any {
		return nil, notThere(fmt.Sprintf("volume %q", t.Volume), "what was asked for")
	}
	var list []selected
	files := make(map[string]*selected) // files that links were chosen of, but they were not
	moved := make(map[string]string)    // where they are instead
	var open *selected                  // whose end is not known yet
	for e, err := range a.Files(t.Volume) {
		if err != nil {
			return nil, err
		}
		if open != nil {
			open.end, open = e.Offset, nil
		}
		path := e.Name()
		chosen := match(path) || e.Type == string(tarx.TypeFolder) && want.parents[path]
		s := selected{offset: e.Offset, end: t.TarSize - int64(len(tarx.Trailer)), name: path}
		if !chosen {
			if want.targets[path] && e.Type == string(tarx.TypeFile) {
				open = &s
				files[path] = open
			}
			continue
		}
		if e.Type == string(tarx.TypeHardLink) {
			target := e.Target()
			if to, ok := moved[target]; ok {
				s.link = to
			} else if s.from = files[target]; s.from != nil {
				moved[target] = path
			}
		}
		// Neighbours are one run.
		if n := len(list); n > 0 && s.plain() && list[n-1].plain() && list[n-1].end == s.offset {
			list[n-1].end = s.end
		} else {
			if err := want.keep(path); err != nil {
				return nil, err
			}
			list = append(list, s)
		}
		open = &list[len(list)-1]
	}
	return list, nil
}

// maxKept bounds the paths that are kept of an index of files, in bytes: a few kilobytes
// of an archive can hold millions of long ones.
const maxKept = 512 << 20

// wish is what is wanted of a volume.
type wish struct {
	any     bool            // there is something
	parents map[string]bool // folders that it is in
	targets map[string]bool // files that hard links of it are names of
	kept    int64           // bytes of paths
}

// keep counts a path that is kept.
func (w *wish) keep(path string) error {
	if w.kept += int64(len(path)); w.kept > maxKept {
		return &Problem{
			Message: "the paths of what was asked for are more than can be kept in memory",
			Hint:    "ask for less, or take the whole volume out",
		}
	}
	return nil
}

// wanted looks through the index once: which folders the matches are in, and which files
// matching hard links are names of.
func (a *Archive) wanted(volume string, match func(string) bool) (*wish, error) {
	// Folders have lines of their own: more of them than these and the lines so far make no
	// sense, and each costs a look at the whole path.
	const spareFolders = 4096
	w := &wish{parents: map[string]bool{".": true}, targets: map[string]bool{}}
	lines := 0
	for e, err := range a.Files(volume) {
		if err != nil {
			return nil, err
		}
		lines++
		path := e.Name()
		if !match(path) {
			continue
		}
		w.any = true
		before := len(w.parents)
		for i := strings.LastIndexByte(path, '/'); i > 0 && !w.parents[path[:i]]; i = strings.LastIndexByte(path[:i], '/') {
			w.parents[path[:i]] = true
			if len(w.parents) > lines+spareFolders {
				return nil, fmt.Errorf("%w: the index of files of volume %q names files in folders that it does not have", ErrCorrupt, volume)
			}
		}
		if len(w.parents) > before {
			err = w.keep(path)
		}
		if e.Type == string(tarx.TypeHardLink) {
			w.targets[e.Target()] = true
			err = errors.Join(err, w.keep(e.Target()))
		}
		if err != nil {
			return nil, err
		}
	}
	return w, nil
}

// writeSelected writes the tar.
func (a *Archive) writeSelected(w io.Writer, t *Tree, list []selected) error {
	in := &frameStream{a: a, tree: t}
	for i := range list {
		err := a.over()
		if err == nil {
			err = writeRun(w, in, &list[i])
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tarx.ErrHeader) {
			err = fmt.Errorf("%w: it is not where the index of files says: %w", ErrCorrupt, err)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", list[i].name, err)
		}
	}
	_, err := w.Write(tarx.Trailer[:])
	return err
}

// writeRun copies entries, or makes the file of a link.
func writeRun(w io.Writer, in *frameStream, s *selected) error {
	in.seek(s.offset)
	if s.plain() {
		_, err := io.CopyN(w, in, s.end-s.offset)
		return err
	}
	src := s
	if s.from != nil {
		src = s.from
		in.seek(src.offset)
	}
	tr := tarx.NewReader(io.LimitReader(in, src.end-src.offset))
	h, err := tr.Next()
	if err != nil {
		return err
	}
	h.Name = s.name
	if s.link != "" {
		h.Link = s.link
	}
	head, err := tarx.AppendHeader(nil, h)
	if err != nil {
		return err
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	if _, err := io.CopyN(w, tr, h.PayloadSize()); err != nil {
		return err
	}
	_, err = w.Write(make([]byte, tarx.Padding(h)))
	return err
}
