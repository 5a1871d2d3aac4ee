package dentropycmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/frame"
	"github.com/dentropy/dentropycloud/backup/tarx"
)

func setUpArchiveCat(cmd *cobra.Command) {
	cmd.Use = "cat <archive> <volume>:<path> [flags]"
	cmd.Short = "Prints a file of a volume"
	cmd.Long = "\nPrints one file of a volume to standard output.\n" + archiveExit
	cmd.Args = archiveArgs(2, 2, "give an archive and VOLUME:PATH in it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := openArchive(cmd, args[0])
		if err != nil {
			return err
		}
		defer func() { _ = a.Close() }()
		at, err := findPlace(a.Manifest(), args[1])
		if err != nil {
			return err
		}
		if at.path == "." {
			return errors.New("name a file: VOLUME:PATH")
		}
		if a.rand == nil {
			return catStreamed(cmd.Context(), cmd.OutOrStdout(), a.seq, at)
		}
		r, _, err := a.rand.OpenFile(at.volume, at.path)
		if err != nil {
			return err
		}
		_, err = io.Copy(cmd.OutOrStdout(), r)
		return errors.Join(err, r.Close())
	}
}

// nextVolume moves on to the first segment of one of the volumes.
func nextVolume(a *backup.Reader, m *backup.Member, wanted func(string) bool) (*backup.Member, error) {
	var err error
	for {
		if m != nil && m.Kind == backup.MemberSegment && wanted(m.Volume) {
			return m, nil
		}
		if m, err = a.Next(); err != nil {
			return nil, err
		}
	}
}

// catStreamed looks for a file while the archive passes.
func catStreamed(ctx context.Context, w io.Writer, a *backup.Reader, at place) error {
	_, err := nextVolume(a, nil, func(v string) bool { return v == at.volume })
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("volume %s is empty", at.volume)
	}
	if err != nil {
		return err
	}
	raw := frame.NewReader(a.VolumeStream(ctx, at.volume), 0)
	defer func() { _ = raw.Close() }()
	tr := tarx.NewReader(raw)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("there is no file %s in volume %s", at.path, at.volume)
		}
		if err != nil {
			return err
		}
		if entryPath(h.Name) != at.path {
			continue
		}
		switch h.Type {
		case tarx.TypeFile:
			return copyFile(w, tr, h)
		case tarx.TypeHardLink:
			return fmt.Errorf("%s is one more name of %s: ask for that", at.path, entryPath(h.Link))
		case tarx.TypeSymlink:
			return fmt.Errorf("%s is a symbolic link to %s", at.path, h.Link)
		}
		return fmt.Errorf("%s is no file: `%s archive ls` shows what it is", at.path, verbPrefix())
	}
}

// entryPath is a name in a tar as a path of the volume.
func entryPath(name string) string {
	return path.Clean(strings.TrimPrefix(name, "./"))
}

// copyFile writes the content of a file, with zeros for its holes.
func copyFile(w io.Writer, tr *tarx.Reader, h *tarx.Header) error {
	if len(h.Data) == 0 && h.PayloadSize() == h.Size { // not sparse
		_, err := io.Copy(w, tr)
		return err
	}
	at := int64(0)
	for _, e := range h.Data {
		if _, err := io.CopyN(w, zeros{}, e.Offset-at); err != nil {
			return err
		}
		if _, err := io.CopyN(w, tr, e.Length); err != nil {
			return err
		}
		at = e.Offset + e.Length
	}
	_, err := io.CopyN(w, zeros{}, h.Size-at)
	return err
}

// zeros is an endless hole.
type zeros struct{}

// Read gives zeros.
func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
