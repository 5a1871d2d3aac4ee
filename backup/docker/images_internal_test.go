package docker

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"github.com/dentropy/dentropycloud/backup"
)

// member is one member of a tar.
type member struct {
	name, text, link string
	hard             bool
}

func tarOf(t *testing.T, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Size: int64(len(m.text)), Mode: 0o644, Typeflag: tar.TypeReg}
		switch {
		case m.link != "" && m.hard:
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, m.link, 0
		case m.link != "":
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, m.link, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, m.text); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// config is an image's configuration with these layers.
func config(t *testing.T, layers ...string) string {
	t.Helper()
	ids := []string{}
	for _, l := range layers {
		ids = append(ids, digestOf([]byte(l)))
	}
	return jsonOf(t, map[string]any{"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
}

// stage takes a saved set apart and puts it together as a layout.
func stage(t *testing.T, saved []byte, list []backup.Image) (map[string]string, error) {
	t.Helper()
	s := newStager(t.TempDir(), func(int64) {})
	if err := s.read(bytes.NewReader(saved)); err != nil {
		return nil, err
	}
	l, err := s.layout(list)
	if err != nil {
		return nil, err
	}
	r := l.open()
	defer r.Close()
	out := map[string]string{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if _, again := out[h.Name]; again {
			t.Errorf("member %s comes twice", h.Name)
		}
		out[h.Name] = string(text)
		if err := checkBlobName(h.Name, digestOf(text)); err != nil {
			t.Errorf("%s: %v", h.Name, err)
		}
	}
}

// layersIn gives the layers of each image of a layout, unpacked.
func layersIn(t *testing.T, l map[string]string) map[string]string {
	t.Helper()
	var index imageManifest
	if err := json.Unmarshal([]byte(l["index.json"]), &index); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, d := range index.Manifests {
		var m imageManifest
		if err := json.Unmarshal([]byte(l[blobName(d.Digest)]), &m); err != nil {
			t.Fatal(err)
		}
		var texts []string
		for _, layer := range m.Layers {
			r, err := gzip.NewReader(strings.NewReader(l[blobName(layer.Digest)]))
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, string(text[:1]))
		}
		out[d.Annotations["dentropy.image.id"]+" "+d.Annotations["io.containerd.image.name"]] = strings.Join(texts, "")
	}
	return out
}

func TestStageDockerArchive(t *testing.T) {
	// what 20.10 saves: uncompressed, with links between images
	one, two := "1"+strings.Repeat("layer", 1000), "2"+strings.Repeat("layer", 1000)
	a, b := config(t, one, two), config(t, one)
	idA, idB := digestOf([]byte(a)), digestOf([]byte(b))
	saved := tarOf(t,
		member{name: "x1/VERSION", text: "1.0"}, member{name: "x1/json", text: "{}"}, member{name: "x1/layer.tar", text: one},
		member{name: "x2/layer.tar", text: two}, member{name: "y1/layer.tar", link: "../x1/layer.tar"},
		member{name: strings.TrimPrefix(idA, "sha256:") + ".json", text: a}, member{name: strings.TrimPrefix(idB, "sha256:") + ".json", text: b},
		member{name: "repositories", text: "{}"},
		member{name: "manifest.json", text: jsonOf(t, []savedImage{
			{Config: strings.TrimPrefix(idA, "sha256:") + ".json", RepoTags: []string{"shop:1", "reg.example:5000/shop:2"}, Layers: []string{"x1/layer.tar", "x2/layer.tar"}},
			{Config: strings.TrimPrefix(idB, "sha256:") + ".json", Layers: []string{"y1/layer.tar"}},
		})},
	)
	l, err := stage(t, saved, []backup.Image{{ID: idA}, {ID: idB}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{idA + " docker.io/library/shop:1": "12", idA + " reg.example:5000/shop:2": "12", idB + " ": "1"}
	if got := layersIn(t, l); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("layers %v, want %v", got, want)
	}
	var docker []savedImage
	if err := json.Unmarshal([]byte(l["manifest.json"]), &docker); err != nil || len(docker) != 2 || len(docker[0].RepoTags) != 2 || l[docker[0].Layers[1]] == "" || l[docker[1].Config] != b {
		t.Errorf("manifest.json %s, %v; want what docker load takes", l["manifest.json"], err)
	}
	if len(l) != 3+2+2+2 { // a layer that two images have is there once
		t.Errorf("%d members, want 9", len(l))
	}
}

func TestStageLayout(t *testing.T) {
	// what newer engines save: a layout, with layers as they were pulled
	layer := "1" + strings.Repeat("layer", 100)
	packed := gzipped(t, layer)
	cfg := config(t, layer)
	man := jsonOf(t, map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "note": "kept as it is",
		"config": descriptor{Digest: digestOf([]byte(cfg)), Size: int64(len(cfg))}, "layers": []descriptor{{Digest: digestOf([]byte(packed)), Size: int64(len(packed))}},
	})
	index := jsonOf(t, imageManifest{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{{Digest: digestOf([]byte(man)), Size: int64(len(man))}}})
	blob := func(s string) member { return member{name: blobName(digestOf([]byte(s))), text: s} }
	members := []member{
		blob(layerOf(packed)), blob(cfg), blob(man), blob(index),
		{name: "index.json", text: jsonOf(t, imageManifest{SchemaVersion: 2, Manifests: []descriptor{{Digest: digestOf([]byte(index))}}})},
		{name: "oci-layout", text: `{"imageLayoutVersion":"1.0.0"}`},
		{name: "manifest.json", text: jsonOf(t, []savedImage{{Config: blobName(digestOf([]byte(cfg))), RepoTags: []string{"me/shop:1"}, Layers: []string{blobName(digestOf([]byte(packed)))}}})},
	}
	for _, id := range []string{digestOf([]byte(cfg)), digestOf([]byte(man)), digestOf([]byte(index))} { // engines differ in what an id is
		l, err := stage(t, tarOf(t, members...), []backup.Image{{ID: id}})
		if err != nil {
			t.Fatal(err)
		}
		if got := layersIn(t, l)[id+" docker.io/me/shop:1"]; got != "1" {
			t.Errorf("layers %v of id %s", layersIn(t, l), id)
		}
		if l[blobName(digestOf([]byte(man)))] != man {
			t.Error("the manifest was made anew although nothing had changed")
		}
	}
}

func layerOf(s string) string { return s }

func TestStageHostile(t *testing.T) {
	layer := "1" + strings.Repeat("x", 600)
	cfg := config(t, layer)
	id := digestOf([]byte(cfg))
	manifest := func(im savedImage) member { return member{name: "manifest.json", text: jsonOf(t, []savedImage{im})} }
	good := savedImage{Config: "c.json", Layers: []string{"l/layer.tar"}}
	cut := tarOf(t, member{name: "l/layer.tar", text: strings.Repeat("y", 5000)})
	tests := map[string][]byte{
		"nothing":                  tarOf(t),
		"no tar":                   []byte(strings.Repeat("no tar ", 1000)),
		"cut off":                  cut[:2000],
		"no manifest":              tarOf(t, member{name: "c.json", text: cfg}),
		"no configuration":         tarOf(t, manifest(good), member{name: "l/layer.tar", text: layer}),
		"no layer":                 tarOf(t, manifest(good), member{name: "c.json", text: cfg}),
		"another layer":            tarOf(t, manifest(good), member{name: "c.json", text: cfg}, member{name: "l/layer.tar", text: "2" + layer}),
		"too few layers":           tarOf(t, manifest(savedImage{Config: "c.json"}), member{name: "c.json", text: cfg}),
		"a link to itself":         tarOf(t, manifest(good), member{name: "c.json", text: cfg}, member{name: "l/layer.tar", link: "layer.tar"}),
		"a link out":               tarOf(t, manifest(good), member{name: "c.json", text: cfg}, member{name: "l/layer.tar", link: "../../../../etc/passwd"}),
		"a hard link out":          tarOf(t, manifest(good), member{name: "c.json", text: cfg}, member{name: "l/layer.tar", link: "/etc/passwd", hard: true}),
		"a name out":               tarOf(t, member{name: "../x", text: "x"}),
		"an absolute name":         tarOf(t, member{name: "/x", text: "x"}),
		"a member twice":           tarOf(t, manifest(good), manifest(good)),
		"a blob that is another":   tarOf(t, member{name: blobName(id), text: cfg + " "}),
		"a layer that is another":  tarOf(t, member{name: blobName(digestOf([]byte("a"))), text: layer}),
		"an image that is missing": tarOf(t, manifest(savedImage{Config: "d.json"}), member{name: "d.json", text: config(t)}),
	}
	for name, saved := range tests {
		if _, err := stage(t, saved, []backup.Image{{ID: id}}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	ok := tarOf(t, manifest(good), member{name: "c.json", text: cfg}, member{name: "l/layer.tar", text: layer})
	if _, err := stage(t, ok, []backup.Image{{ID: id}}); err != nil {
		t.Errorf("what is good: %v", err)
	}
}
