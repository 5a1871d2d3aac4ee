package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"filippo.io/age"
)

// Reader reads an archive from front to end. It takes nothing on trust: names, order and
// sizes are held against the manifest, and all content against its hash.
type Reader struct {
	tar        *outerTar
	source     *endable // what the archive comes from; nil where that never stalls
	identities []age.Identity
	manifest   *Manifest
	head       map[string]Blob
	secretsAs  string // the member's name
	sealed     []byte // its content
	app        *App   // with secrets, once they were asked for
	appErr     error
	end        *endMarker // the tail

	cur   *Member // nil between members
	want  string  // its hash, if it is known already
	sum   hash.Hash
	at    int64  // where its content begins
	order *order // what may come next; without a manifest until that is read
	err   error  // final

	sums    hash.Hash         // of the checksums as they must be
	lines   hash.Hash         // of the index as it must be
	unsure  map[string]string // hashes of members that only the checksums prove, by name
	members int
	last    indexMember   // the member before
	front   []indexMember // those of the head
}

// NewReader reads the head of an archive: manifest, settings, secrets. Age encryption is
// recognised by itself; identities are then needed.
func NewReader(r io.Reader, identities ...age.Identity) (*Reader, error) {
	return openReader(&endable{r: r}, identities)
}

// OpenReader is NewReader for a stream that may stall: the head is read, or ctx is over.
// Until says how that is for what comes after it.
func OpenReader(ctx context.Context, r io.Reader, identities ...age.Identity) (*Reader, error) {
	src := &endable{r: r}
	defer src.until(ctx)()
	return openReader(src, identities)
}

func openReader(src *endable, identities []age.Identity) (*Reader, error) {
	plain, err := decrypted(src, identities)
	if err != nil {
		return nil, err
	}
	ar, err := newReader(plain, identities)
	if err != nil {
		return nil, err
	}
	ar.source = src
	return ar, nil
}

// Until lets all reading end with ctx, until back is called: Next, Read and Finish then
// return its error, also while they wait for the stream, and the Reader is of no use any
// more. What they were waiting for is read all the same, and lost.
func (r *Reader) Until(ctx context.Context) (back func()) {
	if r.source == nil {
		return func() {}
	}
	return r.source.until(ctx)
}

// newReader reads the head of a decrypted archive.
func newReader(plain io.Reader, identities []age.Identity) (*Reader, error) {
	ar := &Reader{
		tar: newOuterTar(plain, 0), identities: identities,
		sums: sha256.New(), lines: sha256.New(), unsure: make(map[string]string), order: newOrder(nil),
	}
	if err := ar.readHead(); err != nil {
		return nil, err
	}
	return ar, nil
}

// Manifest is what the archive says about itself, with the app without its secrets.
func (r *Reader) Manifest() *Manifest { return r.manifest }

// App is the captured app with its secrets. The error wraps ErrNoKey where the secrets are
// encrypted and none of the identities opens them.
func (r *Reader) App() (*App, error) {
	if r.app == nil && r.appErr == nil {
		r.app, r.appErr = openApp(r.manifest.App, r.secretsAs, r.sealed, r.identities)
	}
	return r.app, r.appErr
}

// openApp puts the secrets back into an app.
func openApp(public *App, name string, sealed []byte, identities []age.Identity) (*App, error) {
	text := sealed
	if name == nameSecretsAge {
		src := newBytesEOF(sealed)
		plain, err := openAge(src, identities)
		if err != nil {
			return nil, src.explain(err)
		}
		if text, err = readAtMost(plain, maxHead); err != nil {
			return nil, fmt.Errorf("%w: the secrets cannot be decrypted: %w", ErrCorrupt, err)
		}
	}
	secrets, err := decodeSecrets(text)
	if err != nil {
		return nil, err
	}
	return Unredact(public, secrets)
}

// readAtMost reads all, which may not be more than limit.
func readAtMost(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	return b, err
}

// readHead reads the members before the data.
func (r *Reader) readHead() error {
	text, err := r.headMember(nameFormat, maxFormat)
	if err != nil {
		return notAnArchive(r.tar, err)
	}
	manifestSum, err := parseFormat(text)
	if err != nil {
		return err
	}
	if _, err := r.headMember(nameReadme, maxReadme); err != nil {
		return err
	}
	if text, err = r.headMember(nameManifest, maxHead); err != nil {
		return err
	}
	if blobOf(text).SHA256 != manifestSum {
		return fmt.Errorf("%w: %s does not have the hash that it should", ErrCorrupt, nameManifest)
	}
	m, err := decodeManifest(text)
	if err != nil {
		return err
	}
	r.manifest, r.head = &m.Manifest, m.Head
	r.order.m = r.manifest
	if r.head == nil {
		r.head = map[string]Blob{}
	}
	if text, err = r.headMember(nameSettings, maxHead); err != nil {
		return err
	}
	if r.manifest.App, err = decodeSettings(text); err != nil {
		return err
	}
	if err := checkApp(r.manifest, r.manifest.App); err != nil {
		return fmt.Errorf("%w: the settings: %w", ErrCorrupt, err)
	}
	if err := sameApp(m.App, r.manifest.App); err != nil {
		return err
	}
	r.secretsAs = secretsName(r.manifest.Encryption)
	if r.sealed, err = r.headMember(r.secretsAs, maxHead); err != nil {
		return err
	}
	delete(r.unsure, nameManifest)
	return nil
}

// secretsName is the member that holds the secrets.
func secretsName(encryption string) string {
	if encryption == EncryptNone {
		return nameSecretsJSON
	}
	return nameSecretsAge
}

// sameApp holds what the manifest says of the app against the settings.
func sameApp(in appName, app *App) error {
	if in != (appName{Name: app.Name, Kind: app.Kind, Platform: app.Platform, Format: app.Format}) {
		return fmt.Errorf("%w: the manifest is of the app %q, the settings are of %q", ErrCorrupt, in.Name, app.Name)
	}
	return nil
}

// notAnArchive says so where the very first member is not ours. What is cut off within
// it might have been one.
func notAnArchive(t *outerTar, err error) error {
	if errors.Is(err, ErrCorrupt) && t.pos <= 2*blockSize {
		return fmt.Errorf("this is no archive of an app, or it is damaged at its very start: %w", err)
	}
	return err
}

// headMember reads a member that must come next, skipping those of later versions.
func (r *Reader) headMember(name string, limit int64) ([]byte, error) {
	for {
		m, err := r.begin()
		if err != nil {
			return nil, err
		}
		if m.Kind == MemberUnknown && name != nameFormat {
			if _, err := r.order.admit(m); err != nil {
				return nil, fmt.Errorf("%w at offset %d: %w", ErrCorrupt, r.at, err)
			}
			if err := r.finishHead(); err != nil {
				return nil, err
			}
			continue
		}
		if m.Name != name {
			return nil, fmt.Errorf("%w at offset %d: there is %s where %s should be", ErrCorrupt, r.tar.pos, m.Name, name)
		}
		if m.Size > limit {
			return nil, fmt.Errorf("%w: %s has %d bytes, more than the %d that it may have", ErrCorrupt, name, m.Size, limit)
		}
		if r.head != nil {
			b := r.head[name]
			if b.Size != m.Size || !sha256RE.MatchString(b.SHA256) {
				return nil, fmt.Errorf("%w: %s is not the one that the manifest names", ErrCorrupt, name)
			}
			r.want = b.SHA256
		}
		text, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		return text, r.finishHead()
	}
}

// finishHead notes down a member of the head.
func (r *Reader) finishHead() error {
	if err := r.finishMember(); err != nil {
		return err
	}
	r.front = append(r.front, r.last)
	return nil
}

// begin reads the header of the next member and makes it the current one.
func (r *Reader) begin() (*Member, error) {
	name, size, err := r.tar.next()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: it has no end marker", ErrIncomplete)
		}
		return nil, err
	}
	m, err := parseMember(name)
	if err != nil {
		return nil, fmt.Errorf("%w at offset %d: %w", ErrCorrupt, r.tar.pos, err)
	}
	if r.members++; r.members > maxMembers {
		return nil, fmt.Errorf("%w: it has more than %d members", ErrCorrupt, maxMembers)
	}
	m.Size = size
	r.cur, r.want, r.sum, r.at = &m, "", sha256.New(), r.tar.pos
	return &m, nil
}

// Next moves on to the next member, past what was not read of this one. What it returns
// are images, segments and indexes of files, and members of a later version. It returns
// io.EOF only behind a complete and undamaged archive.
//
// Each byte that Read gives has been held against its hash by the time Read returns io.EOF
// or Next returns; ErrCorrupt is then the answer for the member before. Two exceptions are
// proven by the checksums at the end only: members of an image layout that are no blobs,
// and those of a later version. Whoever uses data before that must be able to throw away
// what came of it.
func (r *Reader) Next() (*Member, error) {
	if r.err != nil {
		return nil, r.err
	}
	m, err := r.next()
	if err != nil {
		r.err, r.cur = err, nil
		return nil, err
	}
	return m, nil
}

func (r *Reader) next() (*Member, error) {
	if err := r.finishMember(); err != nil {
		return nil, err
	}
	m, err := r.begin()
	if err != nil {
		return nil, err
	}
	if m.Name == nameIndex {
		if err := r.order.complete(); err != nil {
			return nil, err
		}
		if err := r.readTail(); err != nil {
			return nil, err
		}
		return nil, io.EOF
	}
	r.want, err = r.order.admit(m)
	if err != nil {
		return nil, fmt.Errorf("%w at offset %d: %w", ErrCorrupt, r.at, err)
	}
	shown := *m
	return &shown, nil
}

// Read reads the current member. It returns io.EOF only if all of it has its right hash.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.cur == nil {
		return 0, io.EOF
	}
	n, err := r.tar.Read(p)
	r.sum.Write(p[:n])
	if errors.Is(err, io.EOF) {
		if bad := r.check(); bad != nil {
			r.err = bad
			return n, bad
		}
	} else if err != nil {
		r.err = err
	}
	return n, err
}

// check holds the hash of a member that was read against the one that it should have.
func (r *Reader) check() error {
	if r.want != "" && hex.EncodeToString(r.sum.Sum(nil)) != r.want {
		return fmt.Errorf("%w: %s, at offset %d, does not have the hash that it should", ErrCorrupt, r.cur.Name, r.at)
	}
	return nil
}

// finishMember reads what is left of the current member and notes it down.
func (r *Reader) finishMember() error {
	if r.cur == nil {
		return nil
	}
	buf := make([]byte, min(hashBuffer, r.tar.left))
	for r.tar.left > 0 {
		if _, err := r.Read(buf); err != nil {
			return err
		}
	}
	if err := r.check(); err != nil {
		return err
	}
	m := indexMember{Name: r.cur.Name, Offset: r.at, Size: r.cur.Size, SHA256: hex.EncodeToString(r.sum.Sum(nil))}
	if r.want == "" && r.cur.Kind != MemberTail {
		r.unsure[m.Name] = m.SHA256
	}
	if m.Name != nameSums && m.Name != nameEnd {
		hashLine(r.sums, m.sumLine())
		if m.Name != nameIndex {
			hashLine(r.lines, m.line())
		}
	}
	r.last = m
	r.cur = nil
	return nil
}

// Finish reads what is left, and returns nil only for a complete and undamaged archive.
func (r *Reader) Finish(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
