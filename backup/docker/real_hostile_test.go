package docker

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/image"

	"github.com/dentropy/dentropycloud/backup"
)

// An archive cannot give its image the name of another app's, or of our helper: whatever its
// list of images says, of an engine that takes the list at its word.
func TestRealRetag(t *testing.T) {
	s := newShop(t)
	p := s.pack(backup.CaptureOptions{Images: "always"})
	programs, err := built()
	s.must(err)
	victim := s.tag + "victim:1"
	s.importImage(victim, programs["helper"])
	t.Cleanup(func() { _, _ = s.cli.ImageRemove(t.Context(), victim, image.RemoveOptions{Force: true}) })
	idOf := func() string {
		in, err := s.cli.ImageInspect(t.Context(), victim)
		s.must(err)
		return in.ID
	}
	before := idOf()
	s.remove()
	_, err = s.cli.ImageRemove(t.Context(), s.image, image.RemoveOptions{Force: true})
	s.must(err)
	quoted, err := json.Marshal(s.image)
	s.must(err)
	for _, test := range []struct {
		name string
		edit func(path string, text []byte) []byte
		ok   bool
	}{
		{"small letters", func(path string, text []byte) []byte {
			text = bytes.ReplaceAll(text, []byte(`"RepoTags":[`+string(quoted)), []byte(`"repotags":["`+victim+`"`))
			return bytes.ReplaceAll(text, []byte(`"annotations":{`), []byte(`"Annotations":{"io.containerd.image.name":"docker.io/library/`+victim+`",`))
		}, false},
		{"padded", func(_ string, text []byte) []byte {
			text = bytes.ReplaceAll(text, quoted, []byte(`"`+victim+`"`))
			return append(text, bytes.Repeat([]byte(" "), mostImageJSON)...)
		}, false},
		{"another name", func(_ string, text []byte) []byte {
			return bytes.ReplaceAll(text, quoted, []byte(`"`+victim+`"`))
		}, true},
	} {
		q := p.again()
		q.data, q.members = append([][]byte(nil), p.data...), append([]backup.Member(nil), p.members...)
		for i, m := range q.members {
			if m.Path == "manifest.json" || m.Path == "index.json" {
				q.data[i] = test.edit(m.Path, q.data[i])
				q.members[i].Size = int64(len(q.data[i]))
			}
		}
		plan := s.plan(q, backup.Answers{NoStart: true})
		_, err := s.p.apply(t.Context(), plan, q.again(), s.applyOptions(), s.journal())
		if (err == nil) != test.ok {
			t.Errorf("%s: apply = %v, want it taken: %v", test.name, err, test.ok)
		}
		if after := idOf(); after != before {
			t.Errorf("%s: %s is the archive's image now", test.name, victim)
		}
	}
}

// An image that has the helper's name is not run as the helper.
func TestRealForeignHelper(t *testing.T) {
	b := newBed(t)
	ctx := t.Context()
	b.p.opts.HelperArgs = []string{"helper", "--", b.tag} // its image is this test's own
	bin, err := b.p.inspectBinary()
	b.must(err)
	t.Cleanup(func() { _, _ = b.cli.ImageRemove(ctx, bin.image, image.RemoveOptions{Force: true}) })
	programs, err := built()
	b.must(err)
	b.importImage(bin.image, programs["app"])
	foreign, err := b.cli.ImageInspect(ctx, bin.image)
	b.must(err)
	got, err := b.p.EnsureHelper(ctx)
	b.must(err)
	in, err := b.cli.ImageInspect(ctx, got)
	b.must(err)
	if got == foreign.ID || !strings.HasPrefix(got, "sha256:") || len(in.Config.Entrypoint) != 4 {
		t.Errorf("EnsureHelper = %s (%v), with %s under its name; want an id of its own image", got, in.Config.Entrypoint, foreign.ID)
	}
	if again, err := b.p.EnsureHelper(ctx); err != nil || again != got {
		t.Errorf("EnsureHelper again = %s, %v, want %s: it is not imported twice", again, err, got)
	}
	// The same files, run another way.
	body, err := b.cli.ImageInspect(ctx, got)
	b.must(err)
	for _, odd := range []func(*image.InspectResponse){
		func(r *image.InspectResponse) { r.Config.Entrypoint = []string{"/dentropy", "sh"} },
		func(r *image.InspectResponse) { r.Config.Env = []string{"A=b"} },
		func(r *image.InspectResponse) { r.Config.Cmd = []string{"x"} },
		func(r *image.InspectResponse) { r.Config.User = "7" },
		func(r *image.InspectResponse) { r.RootFS.Layers = append(r.RootFS.Layers, imageA) },
		func(r *image.InspectResponse) { r.Config = nil },
	} {
		x := body
		if body.Config != nil {
			c := *body.Config
			x.Config = &c
		}
		if why := bin.unlike(&x, b.p.opts.HelperArgs); why != "" {
			t.Errorf("the helper's image is not itself: %s", why)
		}
		if odd(&x); bin.unlike(&x, b.p.opts.HelperArgs) == "" {
			t.Errorf("%+v, %+v is taken for the helper's image", x.RootFS, x.Config)
		}
	}
}
