package docker

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/docker/docker/client"

	"github.com/dentropy/dentropycloud/backup"
)

const (
	// mostImageJSON bounds the parts of an image that are read as JSON.
	mostImageJSON = 4 << 20
	// mostLoaded bounds the images of one archive, and the layers of one image.
	mostLoaded = 1000
)

var (
	blobMember = regexp.MustCompile(`^blobs/sha256/[0-9a-f]{64}$`)
	imageHash  = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	// platformWord is what the parts of a platform are made of.
	platformWord = regexp.MustCompile(`^[A-Za-z0-9._-]{0,64}$`)
	// imageTypes are what the index of a layout may point to.
	imageTypes = []string{
		typeManifest, typeIndex, "application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json",
	}
)

// loader hands the image members of an archive to the engine as one tar.
type loader struct {
	pw   *io.PipeWriter
	tw   *tar.Writer
	done chan error
	// same are digests that are the same image: an engine knows it by its configuration or
	// by its manifest.
	same map[string][]string
	seen map[string]bool // members
	n    int64
}

// startLoad begins to load images.
func (r *restore) startLoad(ctx context.Context) (*loader, error) {
	conn, err := r.p.api(ctx)
	if err != nil {
		return nil, err
	}
	pr, pw := io.Pipe()
	l := newLoader(pw)
	go func() {
		// It must not be closed by the client: who writes is to hear the cause.
		resp, err := conn.ImageLoad(ctx, struct{ io.Reader }{pr}, client.ImageLoadWithQuiet(true))
		if err == nil {
			err = importAnswer(resp.Body)
			_ = resp.Body.Close()
		}
		if err == nil { // it has all that it wants: what is left is read for nobody
			_, err = io.Copy(io.Discard, pr)
		}
		_ = pr.CloseWithError(cmp.Or(err, io.ErrClosedPipe))
		l.done <- err
	}()
	return l, nil
}

func newLoader(pw *io.PipeWriter) *loader {
	return &loader{pw: pw, tw: tar.NewWriter(pw), done: make(chan error, 1), same: map[string][]string{}, seen: map[string]bool{}}
}

// badImages says that images of an archive are not as a backup writes them.
func badImages(format string, args ...any) error {
	return fmt.Errorf("%w: its images: "+format, append([]any{backup.ErrCorrupt}, args...)...)
}

// add hands on one member. An engine believes an archive's list of images, and gives the
// names in it to whatever it likes, also those of other apps' images: the lists are made
// anew, without names. Blobs are called by their content, and are held against it.
func (l *loader) add(m *backup.Member, in io.Reader) error {
	if l.seen[m.Path] {
		return badImages("%q is there twice", m.Path)
	}
	l.seen[m.Path] = true
	var remake func([]byte) ([]byte, error)
	switch {
	case m.Path == "repositories": // names, and nothing else
		return nil
	case m.Path == "manifest.json":
		remake = plainList
	case m.Path == "index.json":
		remake = plainIndex
	case m.Path == "oci-layout":
		remake = func([]byte) ([]byte, error) { return []byte(layoutVersion), nil }
	case !blobMember.MatchString(m.Path):
		return badImages("%q is not known", m.Path)
	case m.Size > mostImageJSON:
		return l.blob(m, in)
	}
	text, err := readSmall(m, in)
	if err != nil {
		return err
	}
	if remake == nil {
		if err := l.blob(m, bytes.NewReader(text)); err != nil {
			return err
		}
		l.index("sha256:"+strings.TrimPrefix(m.Path, "blobs/sha256/"), text)
		return nil
	}
	if text, err = remake(text); err != nil {
		return badImages("%s: %w", m.Path, err)
	}
	return l.write(m.Path, int64(len(text)), bytes.NewReader(text))
}

// readSmall reads a member that must be small.
func readSmall(m *backup.Member, in io.Reader) ([]byte, error) {
	if m.Size > mostImageJSON {
		return nil, badImages("%s is too long", m.Path)
	}
	text, err := io.ReadAll(io.LimitReader(in, mostImageJSON+1))
	if err == nil && len(text) > mostImageJSON {
		err = badImages("%s is too long", m.Path)
	}
	return text, err
}

// blob hands on a blob, and holds it against its name.
func (l *loader) blob(m *backup.Member, in io.Reader) error {
	sum := sha256.New()
	if err := l.write(m.Path, m.Size, io.TeeReader(in, sum)); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); "blobs/sha256/"+got != m.Path {
		return badImages("%s has the content %s", m.Path, got)
	}
	return nil
}

func (l *loader) write(name string, size int64, in io.Reader) error {
	if err := l.tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	n, err := io.Copy(l.tw, in)
	l.n += n
	return err
}

// index notes which digests belong together.
func (l *loader) index(digest string, text []byte) {
	var m struct {
		Config    struct{ Digest string }
		Manifests []struct{ Digest string }
	}
	if len(text) == 0 || text[0] != '{' || json.Unmarshal(text, &m) != nil {
		return
	}
	join := func(other string) {
		if imageHash.MatchString(other) {
			l.same[digest] = append(l.same[digest], other)
			l.same[other] = append(l.same[other], digest)
		}
	}
	join(m.Config.Digest)
	if len(m.Manifests) == 1 { // of several, each is another image
		join(m.Manifests[0].Digest)
	}
}

// all gives the digests that are the same image as id.
func (l *loader) all(id string) []string {
	out, have := []string{id}, map[string]bool{id: true}
	for i := 0; i < len(out); i++ {
		for _, o := range l.same[out[i]] {
			if !have[o] {
				have[o] = true
				out = append(out, o)
			}
		}
	}
	return out
}

// end waits until the engine has taken all.
func (l *loader) end(failed error) error {
	if failed == nil {
		failed = l.tw.Close()
	}
	_ = l.pw.CloseWithError(failed) // nil is io.EOF
	err := <-l.done
	if failed != nil {
		return failed
	}
	return err
}

// exactly refuses an object in which a field that counts is there in another case of
// letters: Go's decoders, and so engines, would take it.
func exactly(o object, fields ...string) error {
	for k := range o {
		for _, f := range fields {
			if k != f && strings.EqualFold(k, f) {
				return fmt.Errorf("field %q should be %q", k, f)
			}
		}
	}
	return nil
}

// plainList makes docker's list of images anew, without their names.
func plainList(text []byte) ([]byte, error) {
	var list []object
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	if len(list) > mostLoaded {
		return nil, fmt.Errorf("it has %d images", len(list))
	}
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	out := []entry{}
	for _, o := range list {
		var e entry
		if err := exactly(o, "Config", "RepoTags", "Layers", "Parent", "LayerSources"); err != nil {
			return nil, err
		}
		if err := o.get("Config", &e.Config); err != nil {
			return nil, err
		}
		if err := o.get("Layers", &e.Layers); err != nil {
			return nil, err
		}
		if len(e.Layers) > mostLoaded {
			return nil, fmt.Errorf("an image has %d layers", len(e.Layers))
		}
		for _, p := range append([]string{e.Config}, e.Layers...) {
			if !blobMember.MatchString(p) {
				return nil, fmt.Errorf("it points to %q", p)
			}
		}
		out = append(out, e)
	}
	return json.Marshal(out)
}

// plainIndex makes the index of a layout anew, without names.
func plainIndex(text []byte) ([]byte, error) {
	var index object
	if err := json.Unmarshal(text, &index); err != nil {
		return nil, err
	}
	if err := exactly(index, "schemaVersion", "mediaType", "manifests", "annotations", "subject", "artifactType"); err != nil {
		return nil, err
	}
	var list []object
	if err := index.get("manifests", &list); err != nil {
		return nil, err
	}
	if len(list) > mostLoaded {
		return nil, fmt.Errorf("it has %d images", len(list))
	}
	out := imageManifest{SchemaVersion: 2, MediaType: typeIndex}
	for _, o := range list {
		d, err := plainDescriptor(o)
		if err != nil {
			return nil, err
		}
		// One for each name that the image had.
		if !slices.ContainsFunc(out.Manifests, func(have descriptor) bool { return have.Digest == d.Digest }) {
			out.Manifests = append(out.Manifests, d)
		}
	}
	return json.Marshal(out)
}

// plainDescriptor keeps of a descriptor what says which image it is.
func plainDescriptor(o object) (descriptor, error) {
	var d descriptor
	if err := exactly(o, "mediaType", "digest", "size", "platform", "annotations", "urls", "data", "artifactType"); err != nil {
		return d, err
	}
	for key, v := range map[string]any{"mediaType": &d.MediaType, "digest": &d.Digest, "size": &d.Size} {
		if err := o.get(key, v); err != nil {
			return d, err
		}
	}
	if !imageHash.MatchString(d.Digest) || d.Size < 0 || !slices.Contains(imageTypes, d.MediaType) {
		return d, fmt.Errorf("it points to %q of the type %q", d.Digest, d.MediaType)
	}
	var platform struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
		Variant      string `json:"variant,omitempty"`
	}
	if o["platform"] == nil || emptyNull(o["platform"]) {
		return d, nil
	}
	if err := o.get("platform", &platform); err != nil {
		return d, err
	}
	for _, word := range []string{platform.Architecture, platform.OS, platform.Variant} {
		if !platformWord.MatchString(word) {
			return d, fmt.Errorf("it is for %q", word)
		}
	}
	raw, err := json.Marshal(platform)
	d.Platform = raw
	return d, err
}
