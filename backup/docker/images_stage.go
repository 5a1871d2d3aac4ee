package docker

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// Bounds of what an engine's set of images may be.
const (
	mostSavedJSON    = 16 << 20 // one manifest or configuration
	mostSavedJSONs   = 128 << 20
	mostImageMembers = 200000
)

// The media types of OCI that are written here.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeGzip     = "application/vnd.oci.image.layer.v1.tar+gzip"
	typeZstd     = "application/vnd.oci.image.layer.v1.tar+zstd"
)

// descriptor points to a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    json.RawMessage   `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// imageManifest is an OCI manifest, or an index of some.
type imageManifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType,omitempty"`
	Config        *descriptor  `json:"config,omitempty"`
	Layers        []descriptor `json:"layers,omitempty"`
	Manifests     []descriptor `json:"manifests,omitempty"`
}

// savedImage is one entry of docker's manifest.json.
type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// savedBlob is a member of a saved set that is no JSON.
type savedBlob struct {
	staged
	raw    string // digest of the member as it was
	digest string // and as it is staged
	media  string
}

// stager takes apart what an engine saves: a docker archive, as old ones do, or an OCI
// layout. Layers that come uncompressed are compressed on their way to the disk.
type stager struct {
	dir      string
	progress func(int64)
	done     int64
	json     map[string][]byte // by member name
	jsons    int
	blobs    map[string]savedBlob
	links    map[string]string
}

func newStager(dir string, progress func(int64)) *stager {
	return &stager{dir: dir, progress: progress, json: map[string][]byte{}, blobs: map[string]savedBlob{}, links: map[string]string{}}
}

// read takes all members of a saved set.
func (s *stager) read(r io.Reader) error {
	tr := tar.NewReader(r)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if n == mostImageMembers {
			return fmt.Errorf("%w: too many members", errOddImages)
		}
		name := path.Clean(h.Name)
		if _, again := s.blobs[name]; again || s.json[name] != nil || strings.HasPrefix(name, "../") || path.IsAbs(name) {
			return fmt.Errorf("%w: member %q", errOddImages, h.Name)
		}
		switch h.Typeflag {
		case tar.TypeReg:
			err = s.file(name, tr, h.Size)
		case tar.TypeSymlink, tar.TypeLink: // an old engine's layer that another image has as well
			target := path.Join(path.Dir(name), h.Linkname) //nolint:gosec // it names a member; nothing is written there
			if h.Typeflag == tar.TypeLink {
				target = path.Clean(h.Linkname)
			}
			s.links[name] = target
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

// file takes one member.
func (s *stager) file(name string, r io.Reader, size int64) error {
	if base := path.Base(name); base == "VERSION" || base == "json" || base == "repositories" {
		return nil // of the oldest format; nothing in it is not elsewhere
	}
	br := bufio.NewReaderSize(r, 64<<10)
	magic, err := br.Peek(min(4, int(min(size, 4))))
	if err != nil {
		return err
	}
	text := len(magic) > 0 && (magic[0] == '{' || magic[0] == '[')
	if text && size <= mostSavedJSON {
		b, err := io.ReadAll(br)
		if err != nil {
			return err
		}
		if !json.Valid(b) { // a layer whose first file is called so
			return s.blob(name, bytes.NewReader(b), magic)
		}
		if s.jsons += len(b); s.jsons > mostSavedJSONs {
			return fmt.Errorf("%w: its descriptions are too long", errOddImages)
		}
		if err := checkBlobName(name, digestOf(b)); err != nil {
			return err
		}
		s.json[name] = b
		return nil
	}
	return s.blob(name, br, magic)
}

// blob stages one member that is no JSON: a layer.
func (s *stager) blob(name string, r io.Reader, magic []byte) error {
	st := savedBlob{staged: staged{path: blobFile(s.dir, len(s.blobs))}}
	f, err := os.OpenFile(st.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	raw, packed := sha256.New(), sha256.New()
	count := &countWriter{}
	out := bufio.NewWriterSize(io.MultiWriter(f, packed, count), 256<<10)
	in := io.TeeReader(&progressed{r: r, s: s}, raw)
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		st.media = typeGzip
		_, err = io.Copy(out, in)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		st.media = typeZstd
		_, err = io.Copy(out, in)
	default:
		st.media = typeGzip
		var zw *gzip.Writer
		if zw, err = gzip.NewWriterLevel(out, gzip.BestSpeed); err == nil {
			_, err = io.Copy(zw, in)
			err = errors.Join(err, zw.Close())
		}
	}
	err = errors.Join(err, out.Flush(), f.Close())
	if err != nil {
		return err
	}
	st.size = count.n
	st.raw, st.digest = "sha256:"+hex.EncodeToString(raw.Sum(nil)), "sha256:"+hex.EncodeToString(packed.Sum(nil))
	s.blobs[name] = st
	return checkBlobName(name, st.raw)
}

// checkBlobName holds a blob of a layout against its name.
func checkBlobName(name, digest string) error {
	want, ok := strings.CutPrefix(name, "blobs/sha256/")
	if ok && "sha256:"+want != digest {
		return errors.New("its content does not match its digest")
	}
	return nil
}

// find gives a blob by its member name.
func (s *stager) find(name string) (savedBlob, bool) {
	name = path.Clean(name)
	for range 32 { // links of links
		if b, ok := s.blobs[name]; ok {
			return b, true
		}
		next, ok := s.links[name]
		if !ok {
			return savedBlob{}, false
		}
		name = next
	}
	return savedBlob{}, false
}

// digestOf is the digest of some bytes.
func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// blobName is where a layout has the blob of a digest.
func blobName(digest string) string { return "blobs/sha256/" + strings.TrimPrefix(digest, "sha256:") }

type countWriter struct{ n int64 }

func (c *countWriter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// progressed tells how much was read, now and then.
type progressed struct {
	r io.Reader
	s *stager
}

func (p *progressed) Read(b []byte) (int, error) {
	const every = 4 << 20
	n, err := p.r.Read(b)
	before := p.s.done / every
	if p.s.done += int64(n); p.s.done/every != before {
		p.s.progress(p.s.done)
	}
	return n, err
}
