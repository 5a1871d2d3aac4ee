package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"filippo.io/age"
)

// Writer writes an archive, in this order: Start, Images, then for each volume Volume
// and FileIndex, Finish. After an error it can only be thrown away, with all that it wrote.
type Writer struct {
	opts WriterOptions
	file *fileWriter    // what goes to the file
	buf  *bufio.Writer  // before it
	age  io.WriteCloser // before that; nil without encryption of all
	pos  *counter       // of the outer tar
	tw   *tar.Writer

	manifest *Manifest
	members  []indexMember
	blobs    map[string]bool // image members
	done     map[string]bool // volumes whose segments are written
	indexed  map[string]bool
	err      error
}

// fileBuffer is what is collected before it is written to the file: age gives 64 KiB at
// a time, tar headers are 512 bytes.
const fileBuffer = 1 << 20

// NewWriter begins an archive on w.
func NewWriter(w io.Writer, opts WriterOptions) (*Writer, error) {
	if opts.Encryption == "" {
		opts.Encryption = EncryptAll
	}
	switch opts.Encryption {
	case EncryptAll, EncryptSecrets:
		if len(opts.Recipients) == 0 {
			return nil, &Problem{
				Message: "there is nobody to encrypt the archive to",
				Hint:    "make a key with dentropy backup key, or name a recipient or a passphrase",
			}
		}
	case EncryptNone:
	default:
		return nil, fmt.Errorf("encryption %q is not one of all, secrets, none", opts.Encryption)
	}
	aw := &Writer{
		opts: opts, file: &fileWriter{w: w, hash: sha256.New()},
		blobs: make(map[string]bool), done: make(map[string]bool), indexed: make(map[string]bool),
	}
	aw.buf = bufio.NewWriterSize(aw.file, fileBuffer)
	out := io.Writer(aw.buf)
	if opts.Encryption == EncryptAll {
		var err error
		if aw.age, err = age.Encrypt(aw.buf, opts.Recipients...); err != nil {
			return nil, fmt.Errorf("begin the encryption: %w", err)
		}
		out = aw.age
	}
	aw.pos = &counter{w: out}
	aw.tw = tar.NewWriter(aw.pos)
	return aw, nil
}

// Start writes the head. app is the app with its secrets; m.App and what the Writer knows
// better (Format, Encryption) are filled in by Start, as are ID, Created and Status where
// they are empty.
func (w *Writer) Start(m *Manifest, app *App) error {
	if w.err != nil {
		return w.err
	}
	if w.manifest != nil {
		return w.fail(errors.New("the archive has begun already"))
	}
	return w.fail(w.start(m, app))
}

func (w *Writer) start(m *Manifest, app *App) error {
	m.Format, m.Encryption = FormatVersion, w.opts.Encryption
	if m.Created.IsZero() {
		m.Created = time.Now()
	}
	m.Created = m.Created.UTC()
	if m.ID == "" {
		m.ID = NewArchiveID(m.Created)
	}
	if m.Status == "" {
		m.Status = StatusComplete
		if len(m.Warnings) > 0 {
			m.Status = StatusWarnings
		}
	}
	if app == nil {
		return errors.New("write the manifest: there is no app")
	}
	public, secrets := Redact(app)
	m.App = public
	if err := errors.Join(checkManifest(m), checkApp(m, app), checkRoom(m)); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	settings, err := encodeSettings(public)
	if err != nil {
		return err
	}
	secretsName, sealed, err := w.seal(secrets)
	if err != nil {
		return err
	}
	manifest, err := encodeManifest(m, map[string]Blob{nameSettings: blobOf(settings), secretsName: blobOf(sealed)})
	if err != nil {
		return err
	}
	w.manifest = m
	for _, part := range []struct {
		name string
		data []byte
	}{
		{nameFormat, []byte(formatText(blobOf(manifest).SHA256))},
		{nameReadme, readme(m)},
		{nameManifest, manifest},
		{nameSettings, settings},
		{secretsName, sealed},
	} {
		if err := w.bytes(part.name, part.data); err != nil {
			return err
		}
	}
	return nil
}

// tailMembers are index, checksums and end marker, headMembers what is before the data.
const (
	headMembers = 5
	tailMembers = 3
)

// checkRoom refuses before the first byte what the archive's reader would refuse.
func checkRoom(m *Manifest) error {
	members, frames := headMembers+tailMembers, 0
	if m.ImagesInside {
		members += 2 // at least
	}
	for _, t := range m.Trees {
		members += len(t.Segments) + 1
		for i := range t.Segments {
			frames += len(t.Segments[i].Frames)
		}
	}
	if members > maxMembers || frames > maxFrames {
		return fmt.Errorf("%d members and %d frames are more than the %d and %d that an archive can have", members, frames, maxMembers, maxFrames)
	}
	return nil
}

// seal gives the member that holds the secrets.
func (w *Writer) seal(secrets map[string]string) (name string, data []byte, err error) {
	text, err := marshalPlain(secrets)
	if err != nil {
		return "", nil, fmt.Errorf("write the secrets: %w", err)
	}
	text = append(text, '\n')
	if len(text) > maxHead/2 {
		return "", nil, fmt.Errorf("write the secrets: %d bytes are more than fit", len(text))
	}
	if w.opts.Encryption == EncryptNone {
		return nameSecretsJSON, text, nil
	}
	var b bytes.Buffer
	enc, err := age.Encrypt(&b, w.opts.Recipients...)
	if err != nil {
		return "", nil, fmt.Errorf("encrypt the secrets: %w", err)
	}
	if _, err := enc.Write(text); err != nil {
		return "", nil, fmt.Errorf("encrypt the secrets: %w", err)
	}
	if err := enc.Close(); err != nil {
		return "", nil, fmt.Errorf("encrypt the secrets: %w", err)
	}
	return nameSecretsAge, b.Bytes(), nil
}

// Volume writes the segments of a volume, which follow each other in r. They are held
// against the hashes in t.
func (w *Writer) Volume(t *Tree, r io.Reader) error {
	if err := w.ready(); err != nil {
		return err
	}
	if w.manifest.ImagesInside && len(w.blobs) == 0 {
		return w.fail(errors.New("write a volume: the images come before it"))
	}
	if !sameTree(w.manifest.Trees[t.Volume], t) || w.done[t.Volume] {
		return w.fail(fmt.Errorf("write the volume %q: the manifest does not have it, or it is written", t.Volume))
	}
	if len(w.done) > len(w.indexed) {
		return w.fail(fmt.Errorf("write the volume %q: the index of the volume before comes first", t.Volume))
	}
	w.done[t.Volume] = true
	w.file.start()
	err := w.volume(t, r)
	w.file.stop()
	return w.fail(err)
}

func (w *Writer) volume(t *Tree, r io.Reader) error {
	for i, s := range t.Segments {
		var raw int64
		for _, f := range s.Frames {
			raw += f.Raw
		}
		if len(s.Frames) > 0 && raw != s.Raw {
			return fmt.Errorf("write the volume %q: the frames of segment %d do not come to its size", t.Volume, i)
		}
		if err := w.member(segmentName(t.Volume, i), r, s.Blob, s.Frames); err != nil {
			return err
		}
	}
	return atEnd(r, fmt.Sprintf("the segments of the volume %q", t.Volume))
}

// FileIndex writes the index of files of a volume.
func (w *Writer) FileIndex(t *Tree, r io.Reader) error {
	if err := w.ready(); err != nil {
		return err
	}
	if !sameTree(w.manifest.Trees[t.Volume], t) || !w.done[t.Volume] || w.indexed[t.Volume] {
		return w.fail(fmt.Errorf("write the index of the volume %q: it comes once, behind the volume", t.Volume))
	}
	w.indexed[t.Volume] = true
	w.file.start()
	err := w.member(filesName(t.Volume), r, t.Index, nil)
	w.file.stop()
	if err == nil {
		err = atEnd(r, fmt.Sprintf("the index of the volume %q", t.Volume))
	}
	return w.fail(err)
}

// sameTree reports whether both are what one volume was read to.
func sameTree(a, b *Tree) bool {
	return a != nil && b != nil && a.Volume == b.Volume && a.Index == b.Index &&
		slices.EqualFunc(a.Segments, b.Segments, func(x, y Segment) bool { return x.Blob == y.Blob && x.Raw == y.Raw })
}

// atEnd makes sure that r holds no more than was asked for.
func atEnd(r io.Reader, what string) error {
	var one [1]byte
	n, err := io.ReadFull(r, one[:])
	if n > 0 {
		return fmt.Errorf("%w: there is more of %s than was promised", ErrCorrupt, what)
	}
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the end of %s: %w", what, err)
	}
	return nil
}

// Finish writes indexes, checksums and the end marker. It closes the encryption, not w.
func (w *Writer) Finish() (Summary, error) {
	if err := w.ready(); err != nil {
		return Summary{}, err
	}
	s, err := w.finish()
	if w.fail(err) != nil {
		return Summary{}, err
	}
	w.err = errors.New("the archive is finished")
	return s, nil
}

func (w *Writer) finish() (Summary, error) {
	for id := range w.manifest.Trees {
		if !w.done[id] || !w.indexed[id] {
			return Summary{}, fmt.Errorf("finish the archive: the volume %q is missing", id)
		}
	}
	if w.manifest.ImagesInside && len(w.blobs) == 0 {
		return Summary{}, errors.New("finish the archive: the images are missing")
	}
	if len(w.members)+tailMembers > maxMembers {
		return Summary{}, fmt.Errorf("finish the archive: more than %d members", maxMembers)
	}
	index, err := encodeIndex(w.manifest.ID, w.members)
	if err != nil {
		return Summary{}, err
	}
	if err := w.bytes(nameIndex, index); err != nil {
		return Summary{}, err
	}
	at := w.members[len(w.members)-1]
	var sums bytes.Buffer
	for i := range w.members {
		sums.WriteString(w.members[i].sumLine())
	}
	if err := w.bytes(nameSums, sums.Bytes()); err != nil {
		return Summary{}, err
	}
	end := endMarker{
		ID: w.manifest.ID, IndexOffset: at.Offset, IndexSize: at.Size,
		SumsSHA256: blobOf(sums.Bytes()).SHA256, Status: w.manifest.Status,
		Total: w.pos.n + padTo(w.pos.n) + tailSize,
	}
	if err := w.bytes(nameEnd, end.text()); err != nil {
		return Summary{}, err
	}
	if err := w.tw.Close(); err != nil {
		return Summary{}, fmt.Errorf("finish the archive: %w", err)
	}
	if w.pos.n != end.Total {
		return Summary{}, fmt.Errorf("finish the archive: it has %d bytes, not %d", w.pos.n, end.Total)
	}
	if w.age != nil {
		if err := w.age.Close(); err != nil {
			return Summary{}, fmt.Errorf("finish the encryption: %w", err)
		}
	}
	if err := w.buf.Flush(); err != nil {
		return Summary{}, fmt.Errorf("finish the archive: %w", err)
	}
	return Summary{Size: w.file.n, Members: len(w.members), SHA256: hex.EncodeToString(w.file.hash.Sum(nil))}, nil
}

// bytes writes a small member.
func (w *Writer) bytes(name string, data []byte) error {
	return w.member(name, bytes.NewReader(data), Blob{Size: int64(len(data))}, nil)
}

// member writes a member of known size. Its hash is held against want, if there is one.
func (w *Writer) member(name string, r io.Reader, want Blob, frames []Frame) error {
	hdr := &tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: want.Size, Mode: 0o600,
		// Whole seconds: a fraction would need records of its own on each member.
		ModTime: w.manifest.Created.Truncate(time.Second),
	}
	if err := w.tw.WriteHeader(hdr); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	m := indexMember{Name: name, Offset: w.pos.n, Size: want.Size}
	if len(frames) > 0 {
		m.Frames = zstdFrames(frames)
	}
	sum, err := copyHashed(w.tw, r, want.Size)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if want.SHA256 != "" && sum != want.SHA256 {
		return fmt.Errorf("%w: %s is not what was read from the volume: its hash is another", ErrCorrupt, name)
	}
	m.SHA256 = sum
	if err := m.check(); err != nil { // what a reader would refuse
		return fmt.Errorf("write %s: %w", name, err)
	}
	w.members = append(w.members, m)
	return nil
}

// ready reports whether members can be written.
func (w *Writer) ready() error {
	if w.err == nil && w.manifest == nil {
		return w.fail(errors.New("the archive has not begun"))
	}
	return w.err
}

// fail keeps the first error: what follows it would not be an archive.
func (w *Writer) fail(err error) error {
	if w.err == nil {
		w.err = err
	}
	return err
}

// padTo is what n lacks to whole blocks.
func padTo(n int64) int64 { return -n & (blockSize - 1) }
