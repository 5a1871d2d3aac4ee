package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// manifestJSON is the manifest as it stands in an archive: the app is in its settings, so
// that no two places can say different things of it, and segments are without frames,
// which are in the index.
type manifestJSON struct {
	Manifest
	App appName `json:"app"`
	// Head are size and hash of the settings and the secrets, by their members' names.
	Head map[string]Blob `json:"head"`
}

// appName is what the manifest itself says of the app, for people.
type appName struct {
	Name     string `json:"name"`
	Kind     string `json:"kind"`
	Platform string `json:"platform"`
	Format   string `json:"format"`
}

// encodeManifest is the text of a manifest.
func encodeManifest(m *Manifest, head map[string]Blob) ([]byte, error) {
	mj := manifestJSON{Manifest: *m, Head: head}
	mj.App = appName{Name: m.App.Name, Kind: m.App.Kind, Platform: m.App.Platform, Format: m.App.Format}
	mj.Trees = make(map[string]*Tree, len(m.Trees))
	for id, t := range m.Trees {
		lean := *t
		lean.Segments = slices.Clone(t.Segments)
		for i := range lean.Segments {
			lean.Segments[i].Frames = nil
		}
		mj.Trees[id] = &lean
	}
	text, err := marshalPlain(&mj)
	if err != nil {
		return nil, fmt.Errorf("write the manifest: %w", err)
	}
	if len(text) >= maxHead {
		return nil, fmt.Errorf("write the manifest: %d bytes are more than fit: the volumes are too large for one archive", len(text))
	}
	return append(text, '\n'), nil
}

// decodeManifest reads a manifest and checks all that it says about the archive.
func decodeManifest(text []byte) (*manifestJSON, error) {
	if err := checkJSON(text, jsonLimits{depth: 64, objects: 600_000, values: 4_000_000}); err != nil {
		return nil, fmt.Errorf("%w: the manifest: %w", ErrCorrupt, err)
	}
	var m manifestJSON
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("%w: the manifest: %w", ErrCorrupt, err)
	}
	if err := checkManifest(&m.Manifest); err != nil {
		return nil, fmt.Errorf("%w: the manifest: %w", ErrCorrupt, err)
	}
	for id := range m.Trees {
		for i := range m.Trees[id].Segments {
			m.Trees[id].Segments[i].Frames = nil // only the index knows
		}
	}
	return &m, nil
}

// checkManifest checks what the rest of an archive is held against.
func checkManifest(m *Manifest) error {
	switch {
	case m.Format != FormatVersion:
		return fmt.Errorf("format %d is not that of the archive", m.Format)
	case !archiveID.MatchString(m.ID):
		return errors.New("the id is no UUID")
	case m.Encryption != EncryptAll && m.Encryption != EncryptSecrets && m.Encryption != EncryptNone:
		return fmt.Errorf("encryption %q is not known", m.Encryption)
	case m.Status != StatusComplete && m.Status != StatusWarnings:
		return fmt.Errorf("status %q is not known", m.Status)
	case len(m.Trees) > maxVolumes:
		return fmt.Errorf("%d volumes are more than %d", len(m.Trees), maxVolumes)
	case m.Created.Year() < 1970 || m.Created.Year() > 9999:
		return errors.New("the time is out of range")
	}
	segments := 0
	for _, id := range slices.Sorted(maps.Keys(m.Trees)) {
		t := m.Trees[id]
		if err := checkVolumeID(id); err != nil {
			return err
		}
		if t == nil || t.Volume != id {
			return fmt.Errorf("volume %q has another's tree", id)
		}
		if err := checkTree(t); err != nil {
			return fmt.Errorf("volume %q: %w", id, err)
		}
		segments += len(t.Segments)
	}
	if segments > maxMembers {
		return fmt.Errorf("%d segments are more than %d", segments, maxMembers)
	}
	return nil
}

// checkTree checks the sizes of a tree against each other.
func checkTree(t *Tree) error {
	if t.TarSize < 0 || t.Entries < 0 || t.Files < 0 || t.Bytes < 0 || t.Stored < 0 || t.NotesLost < 0 || len(t.Notes) > MaxNotes {
		return errors.New("a count is out of range")
	}
	if s := t.Special; s != nil {
		long := func(path string) bool { return len(path) > MaxExample }
		if s.SetID < 0 || s.SetID > t.Files || s.Devices < 0 || s.Devices > t.Entries-t.Files || len(s.Examples) > MaxExamples || slices.ContainsFunc(s.Examples, long) {
			return errors.New("what it says about special files is out of range")
		}
	}
	if len(t.Segments) == 0 { // even the tar of an empty folder is none
		return errors.New("it has no segments")
	}
	var sum int64
	for i, s := range t.Segments {
		if s.Size <= 0 || s.Size > maxSegment || s.Raw <= 0 || s.Raw > maxSegment || !sha256RE.MatchString(s.SHA256) {
			return fmt.Errorf("segment %d has no right size or hash", i)
		}
		sum += s.Raw // at most 2^20 segments of 2^32 bytes
	}
	if sum != t.TarSize {
		return fmt.Errorf("the segments hold %d bytes of %d", sum, t.TarSize)
	}
	if t.Index.Size <= 0 || !sha256RE.MatchString(t.Index.SHA256) {
		return errors.New("the index of files has no right size or hash")
	}
	return nil
}

// checkApp holds the volumes of an app against the trees of the manifest.
func checkApp(m *Manifest, app *App) error {
	if app == nil {
		return errors.New("there is no app")
	}
	ids := make(map[string]bool, len(app.Volumes))
	for i := range app.Volumes {
		id := app.Volumes[i].ID
		if err := checkVolumeID(id); err != nil {
			return err
		}
		if ids[id] {
			return fmt.Errorf("the volume id %q is there twice", id)
		}
		ids[id] = true
	}
	for _, id := range slices.Sorted(maps.Keys(m.Trees)) {
		if !ids[id] {
			return fmt.Errorf("there is data of a volume %q that the app does not have", id)
		}
	}
	return nil
}

// jsonLimits bound what a JSON document of others may make this program hold: two bytes
// of text can become hundreds in memory.
type jsonLimits struct{ depth, objects, values int }

// checkJSON counts what is in a document before it is parsed.
func checkJSON(text []byte, max jsonLimits) error {
	var depth, objects, values int
	inString := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		if inString {
			switch c {
			case '\\':
				i++
			case '"':
				inString = false
			}
			continue
		}
		switch c {
		case '"':
			inString = true
		case '{', '[':
			depth++
			objects++
			values++
		case '}', ']':
			depth--
		case ',':
			values++
		}
		if depth > max.depth || objects > max.objects || values > max.values {
			return errors.New("it is too large or too deep")
		}
	}
	return nil
}

// blobOf is size and hash of some bytes.
func blobOf(data []byte) Blob {
	sum := sha256.Sum256(data)
	return Blob{Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}
}

// encodeSettings is the text of the settings: the app without its secrets.
func encodeSettings(public *App) ([]byte, error) {
	text, err := marshalPlain(public)
	if err != nil {
		return nil, fmt.Errorf("write the settings: %w", err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		return nil, fmt.Errorf("write the settings: %w", err)
	}
	b.WriteByte('\n')
	if b.Len() > maxHead {
		return nil, fmt.Errorf("write the settings: %d bytes are more than fit", b.Len())
	}
	return b.Bytes(), nil
}

// decodeSettings reads the settings, still without secrets.
func decodeSettings(text []byte) (*App, error) {
	if err := checkJSON(text, jsonLimits{depth: 256, objects: 600_000, values: 4_000_000}); err != nil {
		return nil, fmt.Errorf("%w: the settings: %w", ErrCorrupt, err)
	}
	var app *App
	if err := json.Unmarshal(text, &app); err != nil {
		return nil, fmt.Errorf("%w: the settings: %w", ErrCorrupt, err)
	}
	return app, nil
}

// decodeSecrets reads the secrets. Nothing of them is in the error.
func decodeSecrets(text []byte) (map[string]string, error) {
	var secrets map[string]string
	if checkJSON(text, jsonLimits{depth: 1, objects: 1, values: 1_000_000}) != nil || json.Unmarshal(text, &secrets) != nil {
		return nil, fmt.Errorf("%w: the secrets are not as this program writes them", ErrCorrupt)
	}
	return secrets, nil
}
