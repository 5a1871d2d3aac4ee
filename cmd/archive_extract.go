package dentropycmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/frame"
	"github.com/dentropy/dentropycloud/backup/tarx"
	"github.com/dentropy/dentropycloud/backup/volume"
)

func setUpArchiveExtract(cmd *cobra.Command) {
	cmd.Use = "extract <archive> [<volume>[:<path>]…] -C <folder> [flags]"
	cmd.Short = "Writes volumes, or parts of them, into a folder"
	cmd.Long = `
Writes the named volumes, or the files and folders named in them, into a folder: each
volume into a folder of its own, named by its id, which must not be there yet. Without a
volume, all of them.

Owners and attributes are kept as far as the rights of this process reach: run it as
root for all of them. Nothing is ever written outside the folder, whatever the archive
says. Of a damaged archive, all that comes before the damage is written.

EXIT STATUS

	0  all that was asked for is there
	1  something is not: the reason is on standard error
`
	cmd.Flags().StringP("directory", "C", "", "`folder` to write into (required)")
	cmd.Flags().Bool("no-devices", false, "leave device nodes out")
	cmd.Args = archiveArgs(1, -1, "give an archive")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dir, _ := cmd.Flags().GetString("directory")
		if dir == "" {
			return errors.New("say where to: -C FOLDER")
		}
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return fmt.Errorf("-C %s: make the folder first", dir)
		}
		a, err := openArchive(cmd, args[0])
		if err != nil {
			return err
		}
		defer func() { _ = a.Close() }()
		x := &extraction{a: a, dir: dir, talk: newPrinter(cmd.ErrOrStderr(), os.Getenv), wanted: map[string][]place{}, found: map[string]bool{}}
		x.opts.NoDevices, _ = cmd.Flags().GetBool("no-devices")
		for _, text := range args[1:] {
			at, err := findPlace(a.Manifest(), text)
			if err != nil {
				return err
			}
			x.wanted[at.volume] = append(x.wanted[at.volume], at)
		}
		if len(args) == 1 {
			for id := range a.Manifest().Trees {
				x.wanted[id] = []place{{volume: id, path: ".", text: id}}
			}
		}
		ctx, done := patience(cmd.Context(), cmd.ErrOrStderr(), func() string { return "the file that is being written" })
		defer done()
		return x.run(ctx)
	}
}

// extraction writes volumes into a folder.
type extraction struct {
	a      *openedArchive
	dir    string
	talk   *printer
	opts   volume.WriteOptions
	wanted map[string][]place // by volume
	found  map[string]bool    // places by their text
	missed []string           // hard links to what is not taken
	failed []error            // of volumes
}

func (x *extraction) run(ctx context.Context) error {
	for _, id := range sortedKeys(x.wanted) {
		if _, err := os.Lstat(filepath.Join(x.dir, id)); err == nil {
			return fmt.Errorf("%s is there already: name an empty folder with -C", filepath.Join(x.dir, id))
		}
	}
	if x.a.rand != nil {
		for _, id := range sortedKeys(x.wanted) {
			raw, parted, err := x.tarOf(id)
			if errors.Is(err, fs.ErrNotExist) {
				continue // the verdict says what
			}
			if err != nil {
				return err
			}
			err = x.volume(ctx, id, &countingReader{r: raw, ctx: ctx}, parted)
			_ = raw.Close()
			if err != nil {
				x.failed = append(x.failed, x.damaged(err))
			}
			if ctx.Err() != nil {
				return errCancelled
			}
		}
		return x.verdict()
	}
	return x.streamed(ctx)
}

// tarOf gives the tar of a volume; parted says that it holds only what is wanted.
func (x *extraction) tarOf(id string) (raw io.ReadCloser, parted bool, err error) {
	if !x.whole(id) && x.a.rand.Salvaged() == nil {
		raw, err = x.a.rand.TarOf(id, func(path string) bool {
			take := false
			for _, p := range x.wanted[id] {
				if p.holds(path) {
					x.found[p.text], take = true, true
				}
			}
			return take
		})
		return raw, true, err
	}
	raw, err = x.a.rand.TarStream(id)
	return raw, false, err
}

// whole reports whether all of a volume is wanted.
func (x *extraction) whole(id string) bool {
	return slices.ContainsFunc(x.wanted[id], func(p place) bool { return p.path == "." })
}

// streamed takes volumes as they come.
func (x *extraction) streamed(ctx context.Context) error {
	var m *backup.Member
	var err error
	done := map[string]bool{}
	for {
		m, err = nextVolume(x.a.seq, m, func(v string) bool { return x.wanted[v] != nil && !done[v] })
		if errors.Is(err, io.EOF) {
			return x.verdict()
		}
		if err != nil {
			return x.damaged(err)
		}
		done[m.Volume] = true
		stream := x.a.seq.VolumeStream(ctx, m.Volume)
		raw := frame.NewReader(stream, 0)
		err = x.volume(ctx, m.Volume, raw, false)
		_ = raw.Close() // nothing reads the stream after this
		if cause := stream.Err(); cause != nil {
			err = cause
		}
		if err != nil {
			return x.damaged(err)
		}
		if m, err = stream.After(); errors.Is(err, io.EOF) {
			return x.verdict()
		} else if err != nil {
			return x.damaged(err)
		}
	}
}

// damaged says what was written all the same.
func (x *extraction) damaged(err error) error {
	if errors.Is(err, backup.ErrCorrupt) || errors.Is(err, backup.ErrIncomplete) {
		return fmt.Errorf("%w: what comes before that is in %s", err, x.dir)
	}
	if errors.Is(err, context.Canceled) {
		return errCancelled
	}
	return err
}

// volume writes one volume, or the parts of it that are wanted.
func (x *extraction) volume(ctx context.Context, id string, raw io.Reader, parted bool) error {
	tree := x.a.Manifest().Trees[id]
	root := filepath.Join(x.dir, id)
	const mode = 0o700
	if err := os.Mkdir(root, mode); err != nil {
		return fmt.Errorf("extract: %w", err)
	}
	opts := x.opts
	if name := x.singleFile(id); name != "" && x.whole(id) {
		opts.File = true
		root = filepath.Join(root, name)
		if err := os.WriteFile(root, nil, mode&^0o100); err != nil {
			return fmt.Errorf("extract: %w", err)
		}
	}
	// An archive must not fill the disk with more than it owns up to.
	opts.MaxEntries, opts.MaxBytes, opts.MaxStored = tree.Entries, tree.Bytes, tree.Stored
	var res volume.Result
	var err error
	places, whole := x.wanted[id], x.whole(id)
	if whole || parted {
		res, err = volume.Write(ctx, root, raw, opts)
		for _, p := range places {
			x.found[p.text] = x.found[p.text] || whole
		}
	} else {
		pr, pw := io.Pipe()
		filtered := make(chan struct{})
		go func() {
			defer close(filtered)
			_ = pw.CloseWithError(x.filter(pw, raw, places))
		}()
		res, err = volume.Write(ctx, root, pr, opts)
		_ = pr.CloseWithError(errEnded)
		<-filtered
	}
	if err != nil {
		return fmt.Errorf("extract volume %s: %w", id, err)
	}
	if whole && tree.Hash != "" && res.Hash != tree.Hash {
		return fmt.Errorf("%w: volume %s is not what the manifest says", backup.ErrCorrupt, id)
	}
	x.talk.printf("%s %s: %s in %s\n", x.talk.paint(green, "✓"), clean(root), backup.FormatBytes(res.Bytes), count(res.Files, "file"))
	const most = 10
	for i, n := range res.Notes {
		if i == most {
			x.talk.printf("  · %d more\n", len(res.Notes)-most+res.NotesLost)
			break
		}
		x.talk.printf("  · %s: %s\n", clean(n.Path), clean(hinted(n.Kind, n.Text)))
	}
	return nil
}

// singleFile is the name of a volume that is one file, which its tar does not know; "" for
// others.
func (x *extraction) singleFile(id string) string {
	for _, v := range x.a.Manifest().App.Volumes {
		if v.ID != id || v.Kind != backup.BindFile {
			continue
		}
		name := path.Base(filepath.ToSlash(v.Name))
		if name == "." || name == "/" || name == ".." || strings.ContainsAny(name, "\x00\\") {
			return "file"
		}
		return name
	}
	return ""
}

// errEnded ends a filter whose reader has all that it wanted.
var errEnded = errors.New("writing has ended")

// filter copies the entries of a tar that are wanted, with the folders above them.
func (x *extraction) filter(w io.Writer, r io.Reader, places []place) error {
	tr := tarx.NewReader(r)
	var head []byte
	taken := map[string]bool{} // files that links may lead to
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			_, err = w.Write(tarx.Trailer[:])
			return err
		}
		if err != nil {
			return err
		}
		name := entryPath(h.Name)
		if !x.takes(name, h.Type == tarx.TypeFolder, places) {
			continue
		}
		if h.Type == tarx.TypeHardLink && !taken[entryPath(h.Link)] {
			x.missed = append(x.missed, fmt.Sprintf("%s is one more name of %s", name, entryPath(h.Link)))
			continue
		}
		if h.Type == tarx.TypeFile {
			taken[name] = true
		}
		if head, err = tarx.AppendHeader(head[:0], h); err != nil {
			return fmt.Errorf("copy %s: %w", name, err)
		}
		if _, err := w.Write(head); err != nil {
			return err
		}
		if _, err := io.Copy(w, tr); err != nil {
			return err
		}
		if _, err := w.Write(make([]byte, tarx.Padding(h))); err != nil {
			return err
		}
	}
}

// takes reports whether an entry is wanted, or is a folder above one.
func (x *extraction) takes(name string, folder bool, places []place) bool {
	take := name == "."
	for _, p := range places {
		if p.holds(name) {
			x.found[p.text] = true
			take = true
		}
		if folder && strings.HasPrefix(p.path, name+"/") {
			take = true
		}
	}
	return take
}

// verdict says what was asked for and is not there.
func (x *extraction) verdict() error {
	errs := x.failed
	for _, id := range sortedKeys(x.wanted) {
		if len(x.failed) > 0 {
			break // what was not found may have been lost
		}
		for _, p := range x.wanted[id] {
			if !x.found[p.text] {
				errs = append(errs, fmt.Errorf("there is no %s in volume %s", path.Clean(p.path), id))
			}
		}
	}
	for _, m := range x.missed {
		errs = append(errs, fmt.Errorf("%s, which was not asked for: name it too", m))
	}
	return errors.Join(errs...)
}
