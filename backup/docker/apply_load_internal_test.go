package docker

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
)

// loadMembers gives what an engine would get of some members, by name.
func loadMembers(t *testing.T, members []backup.Member, texts []string) (map[string]string, error) {
	t.Helper()
	pr, pw := io.Pipe()
	l := newLoader(pw)
	got := make(chan map[string]string, 1)
	go func() {
		out := map[string]string{}
		tr := tar.NewReader(pr)
		for {
			h, err := tr.Next()
			if err != nil {
				break
			}
			text, _ := io.ReadAll(tr)
			out[h.Name] += string(text)
		}
		_, _ = io.Copy(io.Discard, pr)
		got <- out
		l.done <- nil
	}()
	var err error
	for i := range members {
		if err = l.add(&members[i], strings.NewReader(texts[i])); err != nil {
			break
		}
	}
	err = errors.Join(err, l.end(err))
	return <-got, err
}

// TestHostileImages are lists of images that would give names on the engine to what the
// archive likes.
func TestHostileImages(t *testing.T) {
	config := `{"os":"linux"}`
	digest := digestOf([]byte(config))
	blob := blobName(digest)
	entry := func(more string) string {
		return fmt.Sprintf(`[{"Config":%q,"Layers":[%q]%s}]`, blob, blob, more)
	}
	desc := func(more string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":9%s}]}`, typeManifest, digest, more)
	}
	wantList := fmt.Sprintf(`[{"Config":%q,"RepoTags":null,"Layers":[%q]}]`, blob, blob)
	wantIndex := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":9}]}`, typeIndex, typeManifest, digest)
	for _, test := range []struct {
		name, path, text string
		want             string // what the engine gets; "" is that it is refused
	}{
		{"as it is written", "manifest.json", entry(`,"RepoTags":["a:1"]`), wantList},
		{"tags in small letters", "manifest.json", entry(`,"repotags":["victim:1"]`), ""},
		{"tags twice", "manifest.json", entry(`,"RepoTags":null,"repoTags":["victim:1"]`), ""},
		{"tags in other letters", "manifest.json", entry(`,"RepoTagſ":["victim:1"]`), ""},
		{"tags twice, the same", "manifest.json", entry(`,"RepoTags":null,"RepoTags":["victim:1"]`), wantList},
		{"padded", "manifest.json", entry(`,"RepoTags":["victim:1"]`) + strings.Repeat(" ", mostImageJSON), ""},
		{"path of the host", "manifest.json", `[{"Config":"../../etc/passwd","Layers":[]}]`, ""},
		{"layer of the host", "manifest.json", strings.Replace(entry(""), `"Layers":["blobs`, `"Layers":["/blobs`, 1), ""},
		{"no list", "manifest.json", `{}`, ""},
		{"many images", "manifest.json", "[" + strings.Repeat("{},", mostLoaded) + "{}]", ""},
		{"unknown fields", "manifest.json", entry(`,"Parent":"x","LayerSources":{},"new":1`), wantList},

		{"index as it is written", "index.json", desc(`,"annotations":{"io.containerd.image.name":"a:1","org.opencontainers.image.ref.name":"1"}`), wantIndex},
		{"annotations in capitals", "index.json", desc(`,"Annotations":{"io.containerd.image.name":"victim:1"}`), ""},
		{"annotations in other letters", "index.json", desc(`,"annotationſ":{"io.containerd.image.name":"victim:1"}`), ""},
		{"manifests in capitals", "index.json", strings.Replace(desc(""), `"manifests"`, `"Manifests"`, 1), ""},
		{"index padded", "index.json", desc("") + strings.Repeat(" ", mostImageJSON), ""},
		{"one for each name", "index.json", strings.Replace(desc(""), `"manifests":[`, fmt.Sprintf(`"manifests":[{"mediaType":%q,"digest":%q,"size":9,"annotations":{"a":"b"}},`, typeManifest, digest), 1), wantIndex},
		{"digest that is a path", "index.json", strings.Replace(desc(""), digest, "../x", 1), ""},
		{"unknown type", "index.json", strings.Replace(desc(""), typeManifest, "text/html", 1), ""},
		{"elsewhere", "index.json", desc(`,"urls":["http://169.254.169.254/"]`), wantIndex},
		{
			"platform", "index.json", desc(`,"platform":{"os":"linux","architecture":"arm","variant":"v7","os.features":["x"]}`),
			strings.Replace(wantIndex, `"size":9`, `"size":9,"platform":{"architecture":"arm","os":"linux","variant":"v7"}`, 1),
		},
		{"odd platform", "index.json", desc(`,"platform":{"os":"linux\u0000"}`), ""},

		{"blob", blob, config, config},
		{"blob with other content", blob, `{"config":{"digest":"` + imageA + `"}}`, ""},
		{"layout", "oci-layout", strings.Repeat("x", 100), layoutVersion},
		{"unknown member", "x/layer.tar", "x", ""},
		{"blob with a longer name", blob + "/x", config, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := loadMembers(t, []backup.Member{{Path: test.path, Size: int64(len(test.text))}}, []string{test.text})
			switch {
			case test.want == "" && !errors.Is(err, backup.ErrCorrupt):
				t.Errorf("error %v, the engine gets %q; want it refused", err, got[test.path])
			case test.want != "" && (err != nil || got[test.path] != test.want):
				t.Errorf("the engine gets %q, %v, want %q", got[test.path], err, test.want)
			}
		})
	}
	t.Run("names", func(t *testing.T) {
		got, err := loadMembers(t, []backup.Member{{Path: "repositories", Size: 40 << 20}}, []string{`{"victim":{"1":"x"}}`})
		if err != nil || len(got) > 0 {
			t.Errorf("the engine gets %v, %v, want nothing", got, err)
		}
	})
	t.Run("twice", func(t *testing.T) {
		m := backup.Member{Path: "manifest.json", Size: 2}
		if _, err := loadMembers(t, []backup.Member{m, m}, []string{"[]", "[]"}); !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("error %v, want it refused", err)
		}
	})
	t.Run("large blob", func(t *testing.T) {
		text := bytes.Repeat([]byte("0123456789abcdef"), mostImageJSON/8)
		m := backup.Member{Path: blobName(digestOf(text)), Size: int64(len(text))}
		if got, err := loadMembers(t, []backup.Member{m}, []string{string(text)}); err != nil || got[m.Path] != string(text) {
			t.Errorf("the engine gets %d bytes, %v", len(got[m.Path]), err)
		}
		text[7]++
		if _, err := loadMembers(t, []backup.Member{m}, []string{string(text)}); !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("error %v, want a blob with other content refused", err)
		}
	})
}

// TestSameImage: what a blob says of other images counts for itself only.
func TestSameImage(t *testing.T) {
	l := newLoader(nil)
	other := digestOf([]byte("x"))
	l.index(imageA, []byte(`{"config":{"digest":"`+other+`"}}`))
	l.index(imageA, []byte(`{"config":{"digest":"postgres:17"}}`))
	if got := l.all(imageA); len(got) != 2 || got[1] != other {
		t.Errorf("all(%s) = %v, want it and %s", imageA, got, other)
	}
}

func TestHostileImagePlans(t *testing.T) {
	for _, test := range []struct {
		name string
		edit func(*backup.App)
	}{
		{"id that is a name", func(a *backup.App) { a.Images[0].ID = "postgres:17" }},
		{"id that looks like one", func(a *backup.App) { a.Images[0].ID = "sha256:" + strings.Repeat("x", 64) }},
		{"container's id that is a name", func(a *backup.App) { a.Containers[0].ImageID = "bank:1" }},
		{"layer's id that is a name", func(a *backup.App) { a.Containers[0].Layer.ImageID = "bank:1" }},
		{"digest that is a tag", func(a *backup.App) { a.Images[0].Digests = []string{"postgres:17"} }},
		{"digest without a name", func(a *backup.App) { a.Images[0].Digests = []string{"@" + imageA} }},
	} {
		m, app := archived("")
		test.edit(app)
		if _, _, err := planRestore(m, app, backup.Answers{}, bare()); err == nil || !strings.Contains(err.Error(), "make no sense") {
			t.Errorf("%s: planRestore = %v, want it refused", test.name, err)
		}
	}
	for _, ref := range []string{
		"dentropy-helper:0123456789ab", "docker.io/library/dentropy-helper:x", "index.docker.io/library/dentropy-layer:x", "docker.io/dentropy-undo", "dentropy-helper", "library/dentropy-helper:1",
	} {
		m, app := archived("")
		app.Images[0].Refs = []string{ref, "postgres:17"}
		app.Containers[0].Image = ref
		f := bare()
		f.imageRefs[ref] = "sha256:other"
		p, d, err := planRestore(m, app, backup.Answers{}, f)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(d.Images[0].Refs, " "); got != "postgres:17" || d.Containers[0].Image != imageA || !strings.Contains(strings.Join(p.Warnings, "\n"), ref) {
			t.Errorf("%s: names %s, container of %s, warnings %v; want it left out", ref, got, d.Containers[0].Image, p.Warnings)
		}
	}
	for _, ref := range []string{"example.com/dentropy-helper:1", "me/dentropy-helper", "dentropy-helper2:1", "example.com:5000/x"} {
		if ownRef(ref) {
			t.Errorf("ownRef(%q) = true", ref)
		}
	}
}

// TestNameThatIsAnID: an engine takes a name for the id of a container of another app.
func TestNameThatIsAnID(t *testing.T) {
	m, app := archived("")
	app.Containers[0].Name = strings.Repeat("ab", 12)
	app.Containers[1].DependsOn = nil
	f := bare()
	f.containers = []contFact{{id: strings.Repeat("ab", 32), name: "bank", app: "bank"}}
	p, _, err := planRestore(m, app, backup.Answers{}, f)
	if err != nil || open(p) != "container "+app.Containers[0].Name {
		t.Errorf("open are %q, %v; want the container's name", open(p), err)
	}
}
