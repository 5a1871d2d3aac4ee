package backup

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"

	"filippo.io/age"
)

// SalvageArchive opens what is left of an archive that is cut off or damaged: its head,
// which must be whole, and each member behind it that has its right hash, up to where the
// members cannot be told apart any more. Salvaged says what is wrong with it. Of a volume
// with missing segments TarStream gives what comes before, and then that error. Reading it
// reads the archive from the front, more than once.
func SalvageArchive(ra io.ReaderAt, size int64, identities ...age.Identity) (*Archive, error) {
	whole := func() (io.Reader, error) {
		return decrypted(io.NewSectionReader(ra, 0, size), identities)
	}
	plain, err := whole()
	if err != nil {
		return nil, err
	}
	a := &Archive{ra: ra, size: size, identities: identities, byName: make(map[string]int), checked: make(map[string]bool)}
	if _, encrypted := plain.(*plainReader); encrypted {
		// age's own random access wants the end to be whole.
		a.ra = &rewindReaderAt{open: whole}
	}
	r, err := newReader(plain, identities)
	if err != nil {
		return nil, err
	}
	a.manifest, a.secretsAs, a.sealed = r.manifest, r.secretsAs, r.sealed
	a.salvaged = a.collect(r.tar)
	if a.salvaged == nil {
		// The data is whole, and what lists it too.
		a.salvaged = a.proveTail(whole)
	}
	return a, nil
}

// proveTail reads all once more, as an archive that should be whole.
func (a *Archive) proveTail(whole func() (io.Reader, error)) error {
	plain, err := whole()
	if err != nil {
		return err
	}
	r, err := newReader(plain, a.identities)
	if err != nil {
		return err
	}
	for {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// collect takes in the members behind the head, and returns the first thing wrong.
func (a *Archive) collect(t *outerTar) error {
	var wrong error
	note := func(err error) {
		if wrong == nil {
			wrong = err
		}
	}
	for n := 0; n < maxMembers; n++ {
		name, size, err := t.next()
		if errors.Is(err, io.EOF) {
			return wrong
		}
		if err != nil {
			note(err)
			return wrong
		}
		im := indexMember{Name: name, Offset: t.pos, Size: size}
		sum := sha256.New()
		if _, err := io.Copy(sum, t); err != nil {
			note(err)
			return wrong
		}
		im.SHA256 = hexSum(sum)
		m, err := parseMember(name)
		if err != nil {
			note(fmt.Errorf("%w at offset %d: %w", ErrCorrupt, im.Offset, err))
			continue
		}
		if m.Kind == MemberTail || m.Kind == MemberUnknown {
			continue
		}
		if _, twice := a.byName[name]; twice || !a.expected(&m, &im) {
			note(fmt.Errorf("%w: %s, at offset %d, is not what the manifest says", ErrCorrupt, name, im.Offset))
			continue
		}
		a.byName[name] = len(a.members)
		a.members = append(a.members, im)
	}
	note(fmt.Errorf("%w: it has more than %d members", ErrCorrupt, maxMembers))
	return wrong
}

// expected reports whether a member is what the manifest says.
func (a *Archive) expected(m *Member, im *indexMember) bool {
	t := a.manifest.Trees[m.Volume]
	switch m.Kind {
	case MemberImage:
		blob := blobRE.FindStringSubmatch(m.Path)
		return blob == nil || blob[1] == im.SHA256
	case MemberSegment:
		return t != nil && m.Segment < len(t.Segments) && t.Segments[m.Segment].Blob == Blob{Size: im.Size, SHA256: im.SHA256}
	case MemberIndex:
		return t != nil && t.Index == Blob{Size: im.Size, SHA256: im.SHA256}
	}
	return false
}

// rewindReaderAt reads a stream in any order, as long as that is mostly forward: to go
// back it begins anew.
type rewindReaderAt struct {
	open func() (io.Reader, error)

	mu  sync.Mutex // guards all below
	r   io.Reader
	pos int64
}

func (w *rewindReaderAt) ReadAt(p []byte, off int64) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.r == nil || off < w.pos {
		r, err := w.open()
		if err != nil {
			return 0, err
		}
		w.r, w.pos = r, 0
	}
	n, err := io.CopyN(io.Discard, w.r, off-w.pos)
	if w.pos += n; err != nil {
		w.r = nil
		return 0, err
	}
	var b bytes.Buffer
	n, err = io.CopyN(&b, w.r, int64(len(p)))
	if w.pos += n; err != nil {
		w.r = nil
	}
	return copy(p, b.Bytes()), err
}
