package backup

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
)

// Images writes an OCI layout, given as a tar (Frozen.Images). A blob that is there twice
// is written once.
func (w *Writer) Images(layout io.Reader) error {
	if err := w.ready(); err != nil {
		return err
	}
	if !w.manifest.ImagesInside || len(w.blobs) > 0 || len(w.done) > 0 {
		return w.fail(errors.New("write the images: this is not their place"))
	}
	w.file.start()
	err := w.images(tar.NewReader(layout))
	w.file.stop()
	return w.fail(err)
}

func (w *Writer) images(tr *tar.Reader) error {
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			if !w.blobs["oci-layout"] || !w.blobs["index.json"] {
				return errors.New("write the images: the layout is not complete")
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("write the images: read the layout: %w", err)
		}
		path := cleanImagePath(hdr.Name)
		switch {
		case hdr.Typeflag == tar.TypeDir:
			continue
		case hdr.Typeflag != tar.TypeReg || !imagePath(path):
			return fmt.Errorf("write the images: %q has no place in an OCI layout", hdr.Name)
		case w.blobs[path]:
			continue
		case len(w.blobs) >= maxImages:
			return fmt.Errorf("write the images: more than %d files", maxImages)
		}
		w.blobs[path] = true
		want := Blob{Size: hdr.Size}
		if m := blobRE.FindStringSubmatch(path); m != nil {
			want.SHA256 = m[1]
		} else if hdr.Size > maxHead {
			return fmt.Errorf("write the images: %s has %d bytes, more than the %d that it may have", path, hdr.Size, maxHead)
		}
		if err := w.member(prefixImages+path, tr, want, nil); err != nil {
			return err
		}
	}
}

// cleanImagePath takes off what tar programs put in front.
func cleanImagePath(name string) string {
	for len(name) > 2 && name[:2] == "./" {
		name = name[2:]
	}
	return name
}
