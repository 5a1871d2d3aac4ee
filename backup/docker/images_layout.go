package docker

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/dentropy/dentropycloud/backup"
)

// layoutVersion is the file oci-layout.
const layoutVersion = `{"imageLayoutVersion":"1.0.0"}`

// layout makes an OCI layout of the saved set. list are the images that were asked for.
func (s *stager) layout(list []backup.Image) (*layout, error) {
	var saved []savedImage
	if err := json.Unmarshal(s.json["manifest.json"], &saved); err != nil || len(saved) == 0 {
		return nil, fmt.Errorf("%w: it has no manifest.json", errOddImages)
	}
	l := &layout{small: map[string][]byte{"oci-layout": []byte(layoutVersion)}, files: map[string]staged{}}
	var index []descriptor
	var docker []savedImage
	seen := map[string]bool{}
	for _, im := range saved {
		d, entry, err := s.image(l, im)
		if err != nil {
			return nil, err
		}
		docker = append(docker, entry)
		config := "sha256:" + path.Base(entry.Config)
		id := s.idOf(config, im.RepoTags, list)
		seen[id] = true
		index = append(index, tagged(d, im.RepoTags, id)...)
	}
	for _, im := range list {
		if !seen[im.ID] {
			return nil, fmt.Errorf("%w: the image %s is not in it", errOddImages, im.ID)
		}
	}
	for name, v := range map[string]any{
		"index.json":    imageManifest{SchemaVersion: 2, MediaType: typeIndex, Manifests: index},
		"manifest.json": docker,
	} {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		l.small[name] = b
	}
	return l, nil
}

// image puts one image into a layout.
func (s *stager) image(l *layout, im savedImage) (descriptor, savedImage, error) {
	var none descriptor
	config := s.json[path.Clean(im.Config)]
	var cfg struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
		Variant      string `json:"variant,omitempty"`
		RootFS       struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if config == nil || json.Unmarshal(config, &cfg) != nil {
		return none, im, fmt.Errorf("%w: the configuration %q is not in it", errOddImages, im.Config)
	}
	if len(cfg.RootFS.DiffIDs) != len(im.Layers) {
		return none, im, fmt.Errorf("%w: %q has %d layers and wants %d", errOddImages, im.Config, len(im.Layers), len(cfg.RootFS.DiffIDs))
	}
	m := imageManifest{SchemaVersion: 2, MediaType: typeManifest, Config: &descriptor{MediaType: typeConfig, Digest: digestOf(config), Size: int64(len(config))}}
	entry := savedImage{Config: blobName(m.Config.Digest), RepoTags: im.RepoTags}
	l.small[entry.Config] = config
	same := true // as they were saved
	for i, name := range im.Layers {
		b, ok := s.find(name)
		if !ok {
			return none, im, fmt.Errorf("%w: the layer %q is not in it", errOddImages, name)
		}
		if b.raw != b.digest {
			same = false
			if b.raw != cfg.RootFS.DiffIDs[i] {
				return none, im, fmt.Errorf("%w: the layer %q is not the one that its image wants", errOddImages, name)
			}
		}
		l.files[blobName(b.digest)] = b.staged
		m.Layers = append(m.Layers, descriptor{MediaType: b.media, Digest: b.digest, Size: b.size})
		entry.Layers = append(entry.Layers, blobName(b.digest))
	}
	text, err := json.Marshal(m)
	if err != nil {
		return none, im, err
	}
	if original := s.manifestOf(m.Config.Digest); same && original != nil {
		text = original // its digest is the image's name in registries
	}
	d := descriptor{MediaType: typeManifest, Digest: digestOf(text), Size: int64(len(text))}
	var kept imageManifest
	if json.Unmarshal(text, &kept) == nil && kept.MediaType != "" {
		d.MediaType = kept.MediaType
	}
	platform, err := json.Marshal(map[string]string{"architecture": cfg.Architecture, "os": cfg.OS, "variant": cfg.Variant})
	if err != nil {
		return none, im, err
	}
	if cfg.Variant == "" {
		platform, err = json.Marshal(map[string]string{"architecture": cfg.Architecture, "os": cfg.OS})
	}
	d.Platform = platform
	l.small[blobName(d.Digest)] = text
	return d, entry, err
}

// manifestOf gives the manifest that was saved for a configuration, nil without one.
func (s *stager) manifestOf(config string) []byte {
	for name, b := range s.json {
		var m imageManifest
		if strings.HasPrefix(name, "blobs/sha256/") && json.Unmarshal(b, &m) == nil && m.Config != nil && m.Config.Digest == config && len(m.Layers) > 0 {
			return b
		}
	}
	return nil
}

// idOf finds which image of the engine a configuration belongs to. An engine's id is the
// configuration's digest, or that of a manifest or an index that leads to it.
func (s *stager) idOf(config string, tags []string, list []backup.Image) string {
	for _, im := range list {
		if im.ID == config || s.leads(im.ID, config, 0) {
			return im.ID
		}
	}
	for _, im := range list {
		if slices.ContainsFunc(tags, func(t string) bool { return slices.Contains(im.Refs, t) }) {
			return im.ID
		}
	}
	return config
}

// leads reports whether a digest is that of a manifest or an index with a configuration
// behind it.
func (s *stager) leads(digest, config string, depth int) bool {
	const deepest = 4
	b := s.json[blobName(digest)]
	var m imageManifest
	if b == nil || depth == deepest || json.Unmarshal(b, &m) != nil {
		return false
	}
	if m.Config != nil && m.Config.Digest == config {
		return true
	}
	return slices.ContainsFunc(m.Manifests, func(d descriptor) bool { return s.leads(d.Digest, config, depth+1) })
}

// tagged gives a descriptor for each name of an image.
func tagged(d descriptor, tags []string, id string) []descriptor {
	d.Annotations = map[string]string{"dentropy.image.id": id}
	if len(tags) == 0 {
		return []descriptor{d}
	}
	var out []descriptor
	for _, tag := range tags {
		one := d
		one.Annotations = map[string]string{"dentropy.image.id": id, "io.containerd.image.name": fullName(tag)}
		if i := strings.LastIndexByte(tag, ':'); i > strings.LastIndexByte(tag, '/') {
			one.Annotations["org.opencontainers.image.ref.name"] = tag[i+1:]
		}
		out = append(out, one)
	}
	return out
}

// fullName is an image's name with the registry that is meant where none is named.
func fullName(ref string) string {
	first, _, more := strings.Cut(ref, "/")
	switch {
	case !more:
		return "docker.io/library/" + ref
	case strings.ContainsAny(first, ".:") || first == "localhost":
		return ref
	}
	return "docker.io/" + ref
}
