package backuptest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/dentropy/dentropycloud/backup"
)

// packed is a volume as it travels.
type packed struct{ segments, index []byte }

// segmentSize is far smaller than in earnest, so that small volumes have several.
const segmentSize = 4096

// pack makes of a volume what the helper makes of a real one.
func pack(id string, files Files) (*backup.Tree, packed, error) {
	var raw, index bytes.Buffer
	t := &backup.Tree{Volume: id}
	w := tar.NewWriter(&raw)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755, Format: tar.FormatPAX}); err != nil {
		return nil, packed{}, err
	}
	t.Entries = 1
	lines := json.NewEncoder(&index)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text := files[name]
		h := &tar.Header{Typeflag: tar.TypeReg, Name: "./" + name, Size: int64(len(text)), Mode: 0o644, Format: tar.FormatPAX}
		at := raw.Len()
		err := errors.Join(w.WriteHeader(h), second(io.WriteString(w, text)), w.Flush())
		if err != nil {
			return nil, packed{}, err
		}
		sum := sha256.Sum256([]byte(text))
		err = lines.Encode(backup.FileEntry{Path: name, Type: "0", Mode: 0o644, Size: h.Size, SHA256: hex.EncodeToString(sum[:]), Offset: int64(at)})
		if err != nil {
			return nil, packed{}, err
		}
		t.Entries++
		t.Files++
		t.Bytes += h.Size
		t.Stored += h.Size
	}
	if err := w.Close(); err != nil {
		return nil, packed{}, err
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		return nil, packed{}, err
	}
	defer func() { _ = enc.Close() }()
	var out packed
	t.TarSize = int64(raw.Len())
	hash := sha256.Sum256(raw.Bytes())
	t.Hash = "sha256:" + hex.EncodeToString(hash[:])
	for raw.Len() > 0 {
		part := raw.Next(segmentSize)
		frame := enc.EncodeAll(part, nil)
		t.Segments = append(t.Segments, backup.Segment{
			Blob: blob(frame), Raw: int64(len(part)), Frames: []backup.Frame{{Size: int64(len(frame)), Raw: int64(len(part))}},
		})
		out.segments = append(out.segments, frame...)
	}
	out.index = enc.EncodeAll(index.Bytes(), nil)
	t.Index = blob(out.index)
	return t, out, nil
}

func second(_ int, err error) error { return err }

func blob(b []byte) backup.Blob {
	sum := sha256.Sum256(b)
	return backup.Blob{Size: int64(len(b)), SHA256: hex.EncodeToString(sum[:])}
}

// unpack reads the segments of one volume.
func unpack(segments []byte) (Files, error) {
	dec, err := zstd.NewReader(bytes.NewReader(segments))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	files := Files{}
	for r := tar.NewReader(dec); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read volume: %w", err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		text, err := io.ReadAll(r)
		if err != nil {
			return nil, fmt.Errorf("read volume: %w", err)
		}
		files[strings.TrimPrefix(h.Name, "./")] = string(text)
	}
}
