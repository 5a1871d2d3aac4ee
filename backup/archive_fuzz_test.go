package backup_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"regexp"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
)

// fuzzSeeds are archives of few KiB and parts of them.
func fuzzSeeds(f *testing.F) [][]byte {
	f.Helper()
	small := map[string]*testVolume{"db": makeVolume(f, "db", testFiles()[:1])}
	whole := makeArchive(f, archiveOptions{encryption: "none", volumes: small, noImages: true}).bytes
	images := makeArchive(f, archiveOptions{encryption: "secrets", volumes: small}).bytes
	seeds := [][]byte{whole, images, whole[:len(whole)-2048], whole[:5000], makeArchive(f, archiveOptions{volumes: small}).bytes, nil}
	swapped := bytes.Clone(whole)
	copy(swapped[2048:2560], swapped[512:1024])
	return append(seeds, swapped)
}

var idRE = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)

// checkManifest is what whoever reads a manifest may rely on.
func checkManifest(t *testing.T, m *backup.Manifest) {
	t.Helper()
	for id, tree := range m.Trees {
		if !idRE.MatchString(id) || tree == nil || tree.Volume != id {
			t.Errorf("the manifest has a volume %q", id)
		}
	}
	for _, v := range m.App.Volumes {
		if !idRE.MatchString(v.ID) {
			t.Errorf("the app has a volume %q", v.ID)
		}
	}
}

// FuzzReader: whatever comes in, there is an error or a whole archive, which then can be
// opened from its end as well.
func FuzzReader(f *testing.F) {
	for _, s := range fuzzSeeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := backup.NewReader(bytes.NewReader(b), testIdentity(t))
		if err != nil {
			return
		}
		checkManifest(t, r.Manifest())
		if _, err := r.App(); err != nil && !errors.Is(err, backup.ErrCorrupt) && !errors.Is(err, backup.ErrNoKey) {
			t.Errorf("App = %v", err)
		}
		if r.Finish(context.Background()) != nil {
			return
		}
		if _, err := backup.OpenArchive(bytes.NewReader(b), int64(len(b)), testIdentity(t)); err != nil {
			t.Errorf("read from the front it is whole; OpenArchive = %v", err)
		}
	})
}

// FuzzOpenArchive: random access panics at nothing, and reads nothing that is not there.
func FuzzOpenArchive(f *testing.F) {
	for _, s := range fuzzSeeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, open := range []func(io.ReaderAt, int64) (*backup.Archive, error){
			func(r io.ReaderAt, n int64) (*backup.Archive, error) {
				return backup.OpenArchive(r, n, testIdentity(t))
			},
			func(r io.ReaderAt, n int64) (*backup.Archive, error) {
				return backup.SalvageArchive(r, n, testIdentity(t))
			},
		} {
			a, err := open(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				continue
			}
			checkManifest(t, a.Manifest())
			_ = a.Verify(t.Context(), nil) // damage behind the index may be there
			for id := range a.Manifest().Trees {
				for e, err := range a.Files(id) {
					if err != nil {
						break
					}
					if r, _, err := a.OpenFile(id, e.Name()); err == nil {
						_, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20)) // as above
						r.Close()
					}
				}
				if r, err := a.TarOf(id, func(string) bool { return true }); err == nil {
					_, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20)) // as above
					r.Close()
				}
			}
		}
	})
}

// FuzzManifest puts a manifest and settings into an archive that is otherwise whole.
func FuzzManifest(f *testing.F) {
	small := map[string]*testVolume{"db": makeVolume(f, "db", testFiles()[:1])}
	made := makeArchive(f, archiveOptions{encryption: "none", volumes: small, noImages: true})
	parts := takeApart(f, made.bytes)
	mi, si := find(f, parts, "dentropy/10-manifest.json"), find(f, parts, "dentropy/20-settings.json")
	f.Add(parts[mi].data, parts[si].data)
	f.Add([]byte(`{}`), []byte(`null`))
	f.Add(bytes.ReplaceAll(parts[mi].data, []byte(`"db"`), []byte(`"../db"`)), parts[si].data)
	f.Fuzz(func(t *testing.T, manifest, settings []byte) {
		p := takeApart(t, made.bytes)
		p[mi].data, p[si].data = manifest, settings
		b := seal(t, p, made.manifest.ID)
		r, err := backup.NewReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		checkManifest(t, r.Manifest())
		if r.Finish(t.Context()) == nil {
			if _, err := backup.OpenArchive(bytes.NewReader(b), int64(len(b))); err != nil {
				t.Errorf("read from the front it is whole; OpenArchive = %v", err)
			}
		}
	})
}
