package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"filippo.io/age"
)

// Archive is an archive that is read in any order: only what is asked for is read, and
// decrypted. Its methods may be called from any goroutine.
type Archive struct {
	ra         io.ReaderAt // decrypted
	size       int64
	identities []age.Identity
	manifest   *Manifest
	secretsAs  string
	sealed     []byte
	members    []indexMember
	byName     map[string]int
	salvaged   error // why it is not complete; nil where it is

	mu      sync.Mutex      // guards all below
	checked map[string]bool // members whose hash was found right
	ctx     context.Context // see Until; nil: for ever
}

// OpenArchive reads the end of an archive, its index and its head. size is the length of
// ra. Age encryption is recognised by itself; identities are then needed. The error wraps
// ErrIncomplete where there is no end marker: see SalvageArchive.
func OpenArchive(ra io.ReaderAt, size int64, identities ...age.Identity) (*Archive, error) {
	a := &Archive{ra: ra, size: size, identities: identities, checked: make(map[string]bool)}
	if err := a.decrypt(); err != nil {
		return nil, err
	}
	index, err := a.readEnd()
	if err != nil {
		return nil, err
	}
	if err := a.readIndex(index); err != nil {
		return nil, err
	}
	head, err := a.readHead()
	if err != nil {
		return nil, err
	}
	if err := a.checkOrder(index, head); err != nil {
		return nil, err
	}
	return a, nil
}

// decrypt takes the encryption off, if there is one.
func (a *Archive) decrypt() error {
	intro := make([]byte, len(ageArmor))
	n, err := a.ra.ReadAt(intro, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the archive: %w", err)
	}
	switch intro = intro[:n]; {
	case bytes.HasPrefix(intro, []byte(ageArmor)):
		return &Problem{
			Message: "the archive is encrypted as text and cannot be read in any order",
			Hint:    "decrypt it first: age -d -i key.txt FILE > PLAIN",
		}
	case !bytes.HasPrefix(intro, []byte(ageMagic)):
		return nil
	case len(a.identities) == 0:
		return errNoKeyGiven()
	}
	src := &faultReaderAt{r: a.ra}
	ra, size, err := age.DecryptReaderAt(src, a.size, slices.Clone(a.identities)...)
	if err != nil {
		if src.fault() != nil {
			return fmt.Errorf("read the archive: %w", src.fault())
		}
		if err := keyError(err); errors.Is(err, ErrNoKey) {
			return err
		}
		// The last piece is looked at first: age proves the length with it.
		return fmt.Errorf("%w: the encryption ends too early, or its last 64 KiB are damaged", ErrIncomplete)
	}
	a.ra, a.size = &plainReaderAt{r: ra, src: src}, size
	return nil
}

// faultReaderAt remembers errors of a store, which age may take for damage.
type faultReaderAt struct {
	r   io.ReaderAt
	mu  sync.Mutex // guards err
	err error
}

func (f *faultReaderAt) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.r.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		f.mu.Lock()
		f.err = err
		f.mu.Unlock()
	}
	return n, err
}

func (f *faultReaderAt) fault() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// plainReaderAt is decrypted data with errors that say what they mean.
type plainReaderAt struct {
	r   io.ReaderAt
	src *faultReaderAt
}

func (p *plainReaderAt) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.r.ReadAt(b, off)
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	if fault := p.src.fault(); fault != nil {
		return n, fmt.Errorf("read the archive: %w", fault)
	}
	return n, fmt.Errorf("%w: it cannot be decrypted at offset %d: %w", ErrCorrupt, off, err)
}

// section reads the outer tar from an offset on.
func (a *Archive) section(from int64) *outerTar {
	return newOuterTar(io.NewSectionReader(a.ra, from, a.size-from), from)
}

// readEnd reads the end marker.
func (a *Archive) readEnd() (endMarker, error) {
	var e endMarker
	from := a.size - tailSize
	if from < 0 || from%blockSize != 0 {
		return e, fmt.Errorf("%w: it has no end marker", ErrIncomplete)
	}
	tail := make([]byte, tailSize)
	if _, err := a.ra.ReadAt(tail, from); err != nil && !errors.Is(err, io.EOF) {
		return e, err
	}
	t := newOuterTar(bytes.NewReader(tail), from)
	name, size, err := t.next()
	if err != nil || name != nameEnd || size != endSize {
		return e, fmt.Errorf("%w: it has no end marker", ErrIncomplete)
	}
	text, err := io.ReadAll(t)
	if err != nil {
		return e, err
	}
	if e, err = parseEnd(text); err != nil {
		return e, err
	}
	if _, _, err := t.next(); !errors.Is(err, io.EOF) {
		return e, fmt.Errorf("%w: there is something behind the end marker", ErrCorrupt)
	}
	switch {
	case e.Total != a.size:
		return e, fmt.Errorf("%w: the end marker is of an archive of %d bytes, and this one has %d", ErrCorrupt, e.Total, a.size)
	case e.IndexSize > maxIndex || e.IndexOffset%blockSize != 0 || e.IndexOffset < 2*blockSize || e.IndexOffset > from || e.IndexSize > from-e.IndexOffset:
		return e, fmt.Errorf("%w: the end marker says that the index is where it cannot be", ErrCorrupt)
	}
	return e, nil
}

// readIndex reads index and checksums, which must agree with each other and with the end
// marker.
func (a *Archive) readIndex(e endMarker) error {
	t := a.section(e.IndexOffset - blockSize)
	name, size, err := t.next()
	if err != nil {
		return err
	}
	if name != nameIndex || size != e.IndexSize {
		return fmt.Errorf("%w: there is no index at offset %d", ErrCorrupt, e.IndexOffset)
	}
	sums, sum := sha256.New(), sha256.New()
	at := int64(0)
	err = readIndex(io.TeeReader(t, sum), e.ID, func(m *indexMember) error {
		// What is in the index is not there twice, and in order.
		if m.Offset < at+blockSize || m.Offset > e.IndexOffset-blockSize || m.Size > e.IndexOffset-blockSize-m.Offset {
			return fmt.Errorf("%w: the index says that %s is where it cannot be", ErrCorrupt, m.Name)
		}
		at = m.Offset + m.Size
		hashLine(sums, m.sumLine())
		a.members = append(a.members, *m)
		return nil
	})
	if err != nil {
		return err
	}
	index := indexMember{Name: nameIndex, SHA256: hexSum(sum)}
	hashLine(sums, index.sumLine())
	if name, size, err = t.next(); err != nil {
		return err
	}
	if name != nameSums || size > maxSums {
		return fmt.Errorf("%w: there are no checksums behind the index", ErrCorrupt)
	}
	sum.Reset()
	if _, err := io.Copy(sum, t); err != nil {
		return err
	}
	if hexSum(sum) != e.SumsSHA256 || hexSum(sums) != e.SumsSHA256 {
		return fmt.Errorf("%w: index, checksums and end marker do not agree", ErrCorrupt)
	}
	a.byName = make(map[string]int, len(a.members))
	for i := range a.members {
		if _, ok := a.byName[a.members[i].Name]; ok {
			return fmt.Errorf("%w: %s is there twice", ErrCorrupt, a.members[i].Name)
		}
		a.byName[a.members[i].Name] = i
	}
	return nil
}

// readHead reads manifest, settings and secrets where a Reader finds them too: at the
// front of the file. The index must list just these, in their places, or whoever reads from
// the front would see another archive than whoever goes by the index.
func (a *Archive) readHead() (*Reader, error) {
	r, err := newReader(io.NewSectionReader(a.ra, 0, a.size), a.identities)
	if err != nil {
		return nil, err
	}
	same := func(x, y indexMember) bool { return x.line() == y.line() }
	if len(a.members) < len(r.front) || !slices.EqualFunc(a.members[:len(r.front)], r.front, same) {
		return nil, fmt.Errorf("%w: the index is not of the members at the front", ErrCorrupt)
	}
	a.manifest, a.secretsAs, a.sealed = r.manifest, r.secretsAs, r.sealed
	return r, nil
}

// checkOrder holds the index against the manifest, and takes the frames from it.
func (a *Archive) checkOrder(e endMarker, head *Reader) error {
	if e.ID != a.manifest.ID || e.Status != a.manifest.Status {
		return fmt.Errorf("%w: the end marker is that of another archive", ErrCorrupt)
	}
	o := head.order
	for i := len(head.front); i < len(a.members); i++ {
		im := &a.members[i]
		m := a.member(im)
		want, err := o.admit(&m)
		if err != nil {
			return fmt.Errorf("%w: the index of members: %w", ErrCorrupt, err)
		}
		if want != "" && want != im.SHA256 {
			return fmt.Errorf("%w: the index has another hash of %s than the manifest", ErrCorrupt, im.Name)
		}
		if m.Kind == MemberSegment {
			s := &a.manifest.Trees[m.Volume].Segments[m.Segment]
			if err := im.checkFrames(s); err != nil {
				return err
			}
			s.Frames = im.frames()
		}
	}
	return o.complete()
}

// Until lets listings and tars of a part end with ctx. The archive has it for all who use
// it.
func (a *Archive) Until(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ctx = ctx
}

// over is not nil once the context of Until is.
func (a *Archive) over() error {
	a.mu.Lock()
	ctx := a.ctx
	a.mu.Unlock()
	if ctx == nil {
		return nil
	}
	return ctx.Err()
}

// Manifest is what the archive says about itself, with the app without its secrets and,
// where it has an index, the frames of the segments.
func (a *Archive) Manifest() *Manifest { return a.manifest }

// App is the captured app with its secrets, see Reader.App.
func (a *Archive) App() (*App, error) {
	return openApp(a.manifest.App, a.secretsAs, a.sealed, a.identities)
}

// Salvaged says why the archive is not complete; nil where it is.
func (a *Archive) Salvaged() error { return a.salvaged }

// Members are the members of the archive in their order, without those that only list the
// others.
func (a *Archive) Members() []Member {
	out := make([]Member, len(a.members))
	for i := range a.members {
		out[i] = a.member(&a.members[i])
	}
	return out
}

// member is a line of the index as others see it.
func (a *Archive) member(im *indexMember) Member {
	m, err := parseMember(im.Name)
	if err != nil { // its line was checked
		m = Member{Name: im.Name, Kind: MemberUnknown}
	}
	m.Size = im.Size
	return m
}

// Open reads one member. What it reads is held against its hash at the end: ErrCorrupt
// comes instead of io.EOF. The error wraps fs.ErrNotExist where there is none.
func (a *Archive) Open(name string) (io.Reader, error) {
	i, ok := a.byName[name]
	if !ok {
		return nil, notThere("the archive", name)
	}
	return a.open(&a.members[i]), nil
}

func (a *Archive) open(m *indexMember) io.Reader {
	return &hashedReader{r: io.NewSectionReader(a.ra, m.Offset, m.Size), left: m.Size, want: m.SHA256, name: m.Name, sum: sha256.New()}
}
