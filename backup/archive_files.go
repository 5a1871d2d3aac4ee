package backup

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/dentropy/dentropycloud/backup/frame"
	"github.com/dentropy/dentropycloud/backup/tarx"
)

// Name is the path of the entry in raw bytes; "." for the volume itself.
func (e *FileEntry) Name() string {
	if e.PathBytes != nil {
		return string(e.PathBytes)
	}
	return e.Path
}

// Target is the target of a link in raw bytes.
func (e *FileEntry) Target() string {
	if e.LinkBytes != nil {
		return string(e.LinkBytes)
	}
	return e.Link
}

// Files lists the files of a volume in their order in it. The list is proven before its
// first entry is given. Of a volume whose list was lost, see SalvageArchive, it lists what
// of the data is there, without hashes.
func (a *Archive) Files(volume string) iter.Seq2[FileEntry, error] {
	return func(yield func(FileEntry, error) bool) {
		t, err := a.tree(volume)
		if err == nil {
			if i, ok := a.byName[filesName(volume)]; ok {
				err = a.listed(&a.members[i], t, yield)
			} else {
				err = a.unlisted(t, yield)
			}
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(FileEntry{}, err)
		}
	}
}

// errStop ends a listing that nobody wants more of.
var errStop = errors.New("stop")

// listed gives the entries of an index of files.
func (a *Archive) listed(m *indexMember, t *Tree, yield func(FileEntry, error) bool) error {
	if err := a.prove(m); err != nil {
		return err
	}
	return readFiles(io.NewSectionReader(a.ra, m.Offset, m.Size), t, func(e *FileEntry) error {
		if err := a.over(); err != nil {
			return err
		}
		if !yield(*e, nil) {
			return errStop
		}
		return nil
	})
}

// prove holds a member against its hash, once.
func (a *Archive) prove(m *indexMember) error {
	a.mu.Lock()
	ok := a.checked[m.Name]
	a.mu.Unlock()
	if ok {
		return nil
	}
	if _, err := io.Copy(io.Discard, a.open(m)); err != nil {
		return err
	}
	a.mu.Lock()
	a.checked[m.Name] = true
	a.mu.Unlock()
	return nil
}

// unlisted gives the entries of the tar itself.
func (a *Archive) unlisted(t *Tree, yield func(FileEntry, error) bool) error {
	s := newTarStream(&segmentsReader{a: a, tree: t}, t)
	defer s.Close()
	tr := tarx.NewReader(s)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = a.over()
		}
		if err != nil {
			return err
		}
		if !yield(entryOf(h, tr.Offset()), nil) {
			return nil
		}
	}
}

// entryOf is a header as the index of files has it, but for the hash.
func entryOf(h *tarx.Header, offset int64) FileEntry {
	e := FileEntry{
		Path: cleanPath(h.Name), Type: string(h.Type), Mode: h.Mode, UID: h.UID, GID: h.GID,
		MTime: h.ModTime.UnixNano(), Link: h.Link, Offset: offset,
	}
	if h.Type == tarx.TypeFile {
		e.Size = h.Size
	}
	if strings.ToValidUTF8(e.Path, "") != e.Path {
		e.Path, e.PathBytes = "", []byte(e.Path)
	}
	if strings.ToValidUTF8(e.Link, "") != e.Link {
		e.Link, e.LinkBytes = "", []byte(e.Link)
	}
	return e
}

// cleanPath is a path as the index of files has it: relative, "." for the volume itself.
func cleanPath(path string) string {
	path = strings.Trim(path, "/")
	for strings.HasPrefix(path, "./") {
		path = strings.TrimLeft(path[2:], "/")
	}
	if path == "" {
		return "."
	}
	return path
}

// readFiles reads the index of files of a volume. It has as many lines as the volume has
// entries, in the order of the tar.
func readFiles(r io.Reader, t *Tree, each func(*FileEntry) error) error {
	bad := func(err error) error { return fmt.Errorf("%w: an index of files: %w", ErrCorrupt, err) }
	dec := frame.NewReader(r, 1)
	defer dec.Close()
	sc := bufio.NewScanner(dec)
	sc.Buffer(make([]byte, 0, 64<<10), maxLine)
	lines, next := int64(0), int64(0)
	for sc.Scan() {
		var e FileEntry
		line := sc.Bytes()
		if err := checkJSON(line, jsonLimits{depth: 2, objects: 2, values: 64}); err != nil {
			return bad(err)
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return bad(err)
		}
		if len(e.Type) != 1 || e.Size < 0 || e.Offset < 0 || e.Name() == "" {
			return bad(errors.New("a line of no sense"))
		}
		if lines++; lines > t.Entries {
			return bad(fmt.Errorf("it has more lines than the volume has entries, %d", t.Entries))
		}
		if e.Offset < next || e.Offset > t.TarSize-int64(len(tarx.Trailer)) {
			return bad(fmt.Errorf("line %d is not in the order of the tar, or points out of it", lines))
		}
		next = e.Offset + blockSize
		if err := each(&e); err != nil {
			return err
		}
	}
	err := sc.Err()
	if errors.Is(err, frame.ErrCorrupt) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, bufio.ErrTooLong) {
		return bad(err)
	}
	return err
}

// find looks a file up.
func (a *Archive) find(volume, path string) (FileEntry, error) {
	path = cleanPath(path)
	for e, err := range a.Files(volume) {
		if err != nil {
			return FileEntry{}, err
		}
		if e.Name() == path {
			return e, nil
		}
	}
	return FileEntry{}, notThere(fmt.Sprintf("volume %q", volume), path)
}

// OpenFile reads one file of a volume, holes as zeros. Only what the file is in is read
// and decompressed. What it reads is held against the file's hash at the end: ErrCorrupt
// comes instead of io.EOF. The entry is that of the file, of the first of its names where
// it has more. The error wraps fs.ErrNotExist where there is no such file.
func (a *Archive) OpenFile(volume, path string) (io.ReadCloser, FileEntry, error) {
	none := FileEntry{}
	t, err := a.tree(volume)
	if err != nil {
		return nil, none, err
	}
	e, err := a.find(volume, path)
	if err == nil && e.Type == string(tarx.TypeHardLink) {
		e, err = a.find(volume, e.Target())
	}
	if err != nil {
		return nil, none, err
	}
	if e.Type != string(tarx.TypeFile) {
		return nil, none, &Problem{Message: fmt.Sprintf("%q is no file: %s", e.Name(), typeWord(e.Type)), Object: e.Name()}
	}
	stream, err := a.tarFrom(t, e.Offset)
	if err != nil {
		return nil, none, err
	}
	f, err := newFileReader(stream, &e)
	if err != nil {
		return nil, none, errors.Join(err, stream.Close())
	}
	return f, e, nil
}

// typeWord says what is not a file.
func typeWord(letter string) string {
	switch letter {
	case string(tarx.TypeFolder):
		return "it is a folder"
	case string(tarx.TypeSymlink):
		return "it is a symbolic link"
	case string(tarx.TypeHardLink):
		return "it is a link to a link"
	}
	return "it is a device or a pipe"
}

// fileReader reads the content of a file with its holes.
type fileReader struct {
	stream io.Closer
	tr     *tarx.Reader
	entry  *FileEntry
	data   []tarx.Extent // still to come
	pos    int64
	hash   *contentHash
	err    error
}

// newFileReader reads the header at the start of stream, which must be that of e.
func newFileReader(stream io.ReadCloser, e *FileEntry) (*fileReader, error) {
	tr := tarx.NewReader(stream)
	h, err := tr.Next()
	if err != nil {
		return nil, fmt.Errorf("%w: %q is not where the index of files says: %w", ErrCorrupt, e.Name(), err)
	}
	if cleanPath(h.Name) != e.Name() || h.Type != tarx.TypeFile || h.Size != e.Size {
		return nil, fmt.Errorf("%w: %q is not where the index of files says", ErrCorrupt, e.Name())
	}
	f := &fileReader{stream: stream, tr: tr, entry: e, data: h.Data, hash: newContentHash()}
	if h.Data == nil && h.Size > 0 {
		f.data = []tarx.Extent{{Offset: 0, Length: h.Size}}
	}
	return f, nil
}

func (f *fileReader) Read(p []byte) (int, error) {
	if f.err != nil || len(p) == 0 {
		return 0, f.err
	}
	for len(f.data) > 0 && f.data[0].Length == 0 {
		f.data = f.data[1:]
	}
	if f.pos == f.entry.Size {
		f.err = f.check()
		return 0, f.err
	}
	hole := f.entry.Size - f.pos
	if len(f.data) > 0 {
		hole = f.data[0].Offset - f.pos
	}
	if hole > 0 {
		n := int(min(int64(len(p)), hole))
		clear(p[:n])
		f.hash.Zeros(int64(n))
		f.pos += int64(n)
		return n, nil
	}
	x := &f.data[0]
	n, err := f.tr.Read(p[:min(int64(len(p)), x.Length)])
	_, _ = f.hash.Write(p[:n])
	f.pos += int64(n)
	x.Offset += int64(n)
	x.Length -= int64(n)
	if err != nil && x.Length > 0 {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		f.err = fmt.Errorf("%w: %q: %w", ErrCorrupt, f.entry.Name(), err)
	}
	return n, f.err
}

// check is io.EOF if what was read has its right hash.
func (f *fileReader) check() error {
	plain, zero := f.hash.sums()
	e := f.entry
	if e.SHA256 == "" && e.ZeroSHA256 == "" { // from no index
		return io.EOF
	}
	if plain != e.SHA256 || zero != e.ZeroSHA256 {
		return fmt.Errorf("%w: %q does not have the hash that the index of files says", ErrCorrupt, e.Name())
	}
	return io.EOF
}

func (f *fileReader) Close() error { return f.stream.Close() }

// entryLine is what an entry of the tar and its line in the index of files must agree in.
func entryLine(e *FileEntry) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d %q %s %o %d %d %d %q %s %s\n",
		e.Offset, e.Name(), e.Type, e.Mode, e.UID, e.GID, e.Size, e.Target(), e.SHA256, e.ZeroSHA256)
	return b.Bytes()
}
