package dentropycmd

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/frame"
	"github.com/dentropy/dentropycloud/backup/tarx"
)

// place is VOLUME[:PATH] of an archive.
type place struct {
	volume string // its id
	path   string // relative, "." for all
	text   string // as it was given
}

// findPlace reads VOLUME[:PATH]. The volume is named by its name or its id; either may
// hold colons.
func findPlace(m *backup.Manifest, text string) (place, error) {
	best, found := -1, place{text: text}
	for _, v := range m.App.Volumes {
		if m.Trees[v.ID] == nil {
			continue
		}
		for _, name := range nonEmpty(v.ID, v.Name) {
			rest, ok := strings.CutPrefix(text, name)
			if !ok || rest != "" && rest[0] != ':' || len(name) <= best {
				continue
			}
			p := path.Clean("/" + strings.TrimPrefix(rest, ":"))[1:]
			if p == "" {
				p = "."
			}
			best, found.volume, found.path = len(name), v.ID, p
		}
	}
	if best >= 0 {
		return found, nil
	}
	var names []string
	for _, v := range volumesInOrder(m.App.Volumes) {
		if m.Trees[v.ID] != nil {
			names = append(names, v.Name)
		}
	}
	if len(names) == 0 {
		return found, errors.New("the archive holds no volumes")
	}
	return found, fmt.Errorf("the archive holds no volume %q: it holds %s", text, strings.Join(names, ", "))
}

// holds reports whether the place is at or above a path.
func (p place) holds(name string) bool {
	return p.path == "." || name == p.path || strings.HasPrefix(name, p.path+"/")
}

func setUpArchiveLs(cmd *cobra.Command) {
	cmd.Use = "ls [<archive> [<volume>[:<path>]]] [flags]"
	cmd.Short = "Lists archives, the volumes in one, or the files in a volume"
	cmd.Long = `
Without words, lists the archives in the stores. With an archive, lists the volumes in
it; with a volume, the files in that, one folder at a time or with -r all below.
` + archiveExit
	cmd.Flags().BoolP("recursive", "r", false, "all files below the path")
	cmd.Flags().Bool("json", false, "print a list as JSON")
	cmd.Args = archiveArgs(0, 2, "give an archive and at most one VOLUME[:PATH] in it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return listArchives(cmd)
		}
		a, err := openArchive(cmd, args[0])
		if err != nil {
			return err
		}
		defer func() { _ = a.Close() }()
		asJSON, _ := cmd.Flags().GetBool("json")
		if len(args) == 1 {
			return listVolumes(cmd, a.Manifest(), asJSON)
		}
		at, err := findPlace(a.Manifest(), args[1])
		if err != nil {
			return err
		}
		all, _ := cmd.Flags().GetBool("recursive")
		return listFiles(cmd, a, at, all, asJSON)
	}
}

func listVolumes(cmd *cobra.Command, m *backup.Manifest, asJSON bool) error {
	type line struct {
		ID     string            `json:"id"`
		Name   string            `json:"name"`
		Kind   backup.VolumeKind `json:"kind"`
		Inside bool              `json:"inside"`
		Bytes  int64             `json:"bytes"`
		Files  int64             `json:"files"`
		Reason string            `json:"reason,omitempty"`
	}
	lines := []line{}
	var rows [][]string
	for _, v := range volumesInOrder(m.App.Volumes) {
		l := line{ID: v.ID, Name: v.Name, Kind: v.Kind}
		row := []string{dash(v.Name), dash(v.ID), dash(string(v.Kind)), "-", "-"}
		if t := m.Trees[v.ID]; t != nil {
			l.Inside, l.Bytes, l.Files = true, t.Bytes, t.Files
			row[3], row[4] = backup.FormatBytes(t.Bytes), fmt.Sprint(t.Files)
		} else {
			l.Reason = v.Reason
			row = append(row, dash("not inside: "+v.Reason))
		}
		lines = append(lines, l)
		rows = append(rows, row)
	}
	p := newPrinter(cmd.OutOrStdout(), os.Getenv)
	if asJSON {
		return writeJSON(p.w, map[string]any{"volumes": lines})
	}
	p.table([]string{"VOLUME", "ID", "KIND", "SIZE", "FILES"}, rows, nil)
	return p.err
}

// maxIndexLine bounds a line of the index of files: two long paths, escaped.
const maxIndexLine = 1 << 20

// files goes through the files of a volume.
func (a *openedArchive) files(volume string) iter.Seq2[backup.FileEntry, error] {
	if a.rand != nil {
		return a.rand.Files(volume)
	}
	return func(yield func(backup.FileEntry, error) bool) {
		if err := streamedFiles(a.seq, volume, yield); err != nil {
			yield(backup.FileEntry{}, err)
		}
	}
}

// streamedFiles reads the index of a volume where it comes in the stream.
func streamedFiles(ar *backup.Reader, volume string, yield func(backup.FileEntry, error) bool) error {
	for {
		m, err := ar.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the archive has no list of the files in %s", volume)
		}
		if err != nil {
			return err
		}
		if m.Kind == backup.MemberIndex && m.Volume == volume {
			break
		}
	}
	dec := frame.NewReader(ar, 1)
	defer func() { _ = dec.Close() }()
	sc := bufio.NewScanner(dec)
	sc.Buffer(nil, maxIndexLine)
	for sc.Scan() {
		var e backup.FileEntry
		if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
			return fmt.Errorf("%w: the list of files in %s cannot be read: %w", backup.ErrCorrupt, volume, err)
		}
		if !yield(e, nil) {
			return nil
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("read the list of files in %s: %w", volume, err)
	}
	return nil
}

// listFiles lists files from the index of a volume.
func listFiles(cmd *cobra.Command, a *openedArchive, at place, all, asJSON bool) error {
	out := bufio.NewWriter(cmd.OutOrStdout())
	list := jsonList{w: out}
	found := 0
	for e, err := range a.files(at.volume) {
		if err != nil {
			return errors.Join(err, out.Flush())
		}
		if !at.holds(e.Name()) {
			continue
		}
		found++
		if !all && !childOf(e, at.path) {
			continue
		}
		if asJSON {
			err = list.add(e)
		} else {
			_, err = fmt.Fprintln(out, fileLine(e))
		}
		if err != nil {
			return err
		}
	}
	if found == 0 {
		return fmt.Errorf("there is no %s in volume %s", at.path, at.volume)
	}
	if asJSON {
		if err := list.end(); err != nil {
			return err
		}
	}
	return out.Flush()
}

// childOf reports whether an entry stands in a folder itself, or is the file that was
// asked for.
func childOf(e backup.FileEntry, folder string) bool {
	if e.Name() == folder {
		return e.Type != string(rune(tarx.TypeFolder))
	}
	return path.Dir(e.Name()) == folder
}

// fileLine shows an entry as ls -l does.
func fileLine(e backup.FileEntry) string {
	name := clean(e.Name())
	if link := e.Target(); link != "" {
		name += " -> " + clean(link)
	}
	when := time.Unix(0, e.MTime).Local().Format("2006-01-02 15:04")
	return fmt.Sprintf("%s %11s %8s %s %s", modeText(e), fmt.Sprintf("%d:%d", e.UID, e.GID), backup.FormatBytes(e.Size), when, name)
}

// modeText is "-rwxr-sr-t".
func modeText(e backup.FileEntry) string {
	kinds := map[string]byte{"0": '-', "1": 'h', "2": 'l', "3": 'c', "4": 'b', "5": 'd', "6": 'p'}
	out := []byte("?rwxrwxrwx")
	if k := kinds[e.Type]; k != 0 {
		out[0] = k
	}
	for i := range 9 {
		if e.Mode&(1<<(8-i)) == 0 {
			out[1+i] = '-'
		}
	}
	for _, s := range []struct {
		bit int64
		at  int
		set byte
	}{{0o4000, 3, 's'}, {0o2000, 6, 's'}, {0o1000, 9, 't'}} {
		if e.Mode&s.bit == 0 {
			continue
		}
		if out[s.at] == '-' {
			s.set -= 'a' - 'A' // without the right to run it, as ls shows it
		}
		out[s.at] = s.set
	}
	return string(out)
}
