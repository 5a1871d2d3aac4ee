package dentropycmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dentropy/dentropycloud/backup"
)

const archiveHelp = `
Looks into archives without restoring them. An archive is a file, - for standard input,
or STORE:NAME for one in a store.

	$ dentropy archive ls                          the archives in the stores
	$ dentropy archive ls FILE                     the volumes in one
	$ dentropy archive ls FILE shop_db:base -r     the files in a volume, below base
	$ dentropy archive cat FILE shop_web:etc/nginx.conf
	$ dentropy archive extract FILE shop_web -C /tmp/look
	$ dentropy archive verify FILE

An encrypted archive is opened with the key in the data folder, or with --identity or
--passphrase.

EXIT STATUS

	0  it worked; 'verify': the archive is complete and undamaged
	1  it did not: the reason is on standard error
`

func setUpArchive(cmd *cobra.Command) {
	cmd.Use = "archive ls|show|cat|extract|verify [flags]"
	cmd.Short = "Looks into archives: ls, show, cat, extract, verify"
	cmd.Long = archiveHelp
	cmd.Args = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError(c, fmt.Errorf("there is no verb %q", args[0]))
		}
		return nil
	}
	cmd.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	for _, v := range []verb{
		{"ls", setUpArchiveLs}, {"show", setUpArchiveShow}, {"cat", setUpArchiveCat},
		{"extract", setUpArchiveExtract}, {"verify", setUpArchiveVerify},
	} {
		sub := &cobra.Command{Use: v.name}
		workerFlags(sub.Flags())
		keyFlags(sub.Flags())
		v.setUp(sub)
		finish(sub)
		cmd.AddCommand(sub)
	}
}

const archiveExit = `
EXIT STATUS

	0  it worked
	1  it did not: the reason is on standard error
`

// archiveArgs checks the number of words behind a verb.
func archiveArgs(least, most int, wanted string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return usageError(c, errors.New(wanted))
		}
		return nil
	}
}

// openedArchive is an archive with its head read: at any place (rand) where it is a file,
// from its front to its end (seq) where it is a stream.
type openedArchive struct {
	rand *backup.Archive
	seq  *backup.Reader
	keys archiveKeys
	file io.Closer
	// at and size are set where it can be read at any place, stream where it cannot.
	at     io.ReaderAt
	size   int64
	stream io.Reader
}

// sourceOf opens what holds an archive, and collects the keys.
func sourceOf(cmd *cobra.Command, arg string) (*openedArchive, error) {
	var w worker
	var folders []string
	var err error
	if _, _, inStore := storeArchive(arg); inStore {
		if w, err = findWorker(cmd, ""); err != nil {
			return nil, err
		}
		if keys, err := keyFolder(cmd, w); err == nil {
			folders = append(folders, keys)
		}
	} else if folders, err = keyFolders(cmd); err != nil {
		return nil, err
	}
	keys, err := openKeys(cmd, os.Getenv, folders...)
	if err != nil {
		return nil, err
	}
	rc, err := openStream(cmd.Context(), cmd, w, arg)
	if err != nil {
		return nil, err
	}
	a := &openedArchive{keys: keys, file: rc, stream: &countingReader{r: rc, ctx: cmd.Context()}}
	switch f := rc.(type) {
	case *os.File:
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			a.at, a.size = f, info.Size()
		}
	case backup.Object:
		a.at, a.size = f, f.Size()
	}
	return a, nil
}

// keyFolders are where keys may be that open a file: in the data folder, and where a
// dentropy that runs here keeps its own.
func keyFolders(cmd *cobra.Command) ([]string, error) {
	dir, err := workDir(cmd)
	if err != nil {
		return nil, err
	}
	folders := []string{keysDir(dir)}
	const patience = 2 * time.Second // it is asked for a help, and a file can be read without it
	ctx, cancel := context.WithTimeout(cmd.Context(), patience)
	defer cancel()
	if c, err := findRunning(ctx, cmd.Flags(), os.Getenv); err == nil && c != nil {
		if st, err := (&remote{c: c}).key(ctx); err == nil {
			folders = append(folders, st.Folder)
		}
	}
	return folders, nil
}

// openArchive opens an archive for one of the verbs. Of one that is not complete, what
// there is can be read; talk says so.
func openArchive(cmd *cobra.Command, arg string) (*openedArchive, error) {
	a, err := sourceOf(cmd, arg)
	if err != nil {
		return nil, err
	}
	if a.at == nil {
		if a.seq, err = backup.OpenReader(cmd.Context(), a.stream, a.keys.ids...); err != nil {
			return nil, errors.Join(explainArchive(err, a.keys), a.file.Close())
		}
		a.seq.Until(cmd.Context())
		return a, nil
	}
	a.rand, err = backup.OpenArchive(a.at, a.size, a.keys.ids...)
	if errors.Is(err, backup.ErrIncomplete) || errors.Is(err, backup.ErrCorrupt) {
		whole := err
		if a.rand, err = backup.SalvageArchive(a.at, a.size, a.keys.ids...); err != nil {
			return nil, errors.Join(explainArchive(whole, a.keys), a.file.Close())
		}
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "dentropy: %s; this is what there is of it\n", clean(whole.Error()))
	}
	if err != nil {
		return nil, errors.Join(explainArchive(err, a.keys), a.file.Close())
	}
	a.rand.Until(cmd.Context())
	return a, nil
}

// Manifest is what the archive says about itself.
func (a *openedArchive) Manifest() *backup.Manifest {
	if a.rand != nil {
		return a.rand.Manifest()
	}
	return a.seq.Manifest()
}

func (a *openedArchive) Close() error { return a.file.Close() }

// countingReader ends with its context.
type countingReader struct {
	r   io.Reader
	ctx context.Context // for its lifetime
}

// Read reads on.
func (c *countingReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

func setUpArchiveShow(cmd *cobra.Command) {
	cmd.Use = "show <archive> [flags]"
	cmd.Short = "Shows what an archive is: app, time, containers, volumes, how it came to rest"
	cmd.Long = `
Shows what an archive says about itself. Secrets are left out. Only the head is read:
'verify' says whether the rest is there.
` + archiveExit
	cmd.Flags().Bool("json", false, "print the manifest as JSON")
	cmd.Args = archiveArgs(1, 1, "give one archive")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := openArchive(cmd, args[0])
		if err != nil {
			return err
		}
		defer func() { _ = a.Close() }()
		p := newPrinter(cmd.OutOrStdout(), os.Getenv)
		if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
			return writeJSON(p.w, a.Manifest())
		}
		showInside(p, args[0], a.Manifest())
		showQuiesce(p, a.Manifest())
		return p.err
	}
}

// showQuiesce shows how the app came to rest, and what reading came upon.
func showQuiesce(p *printer, m *backup.Manifest) {
	q := m.Quiesce
	if len(q.Stopped) > 0 {
		p.printf("  at rest for %s (%s of it reading)\n", took(q.Downtime), took(q.DataDowntime))
	}
	for _, s := range q.Stopped {
		p.printf("    %s: %s in %s", dash(s.Name), dash(string(s.Mode)), took(s.Took))
		const killed = 137
		if s.Mode == backup.Stop {
			p.printf(", exit status %d", s.ExitCode)
		}
		if s.ExitCode == killed {
			p.printf(" %s", p.paint(yellow, "(killed: its data may not be clean)"))
		}
		p.printf("\n")
	}
	for _, h := range q.Hooks {
		p.printf("    %s: %s gave %d after %s\n", dash(h.Container), dash(h.Label), h.ExitCode, took(h.Took))
	}
	showNotes(p, m)
	p.printf("  status      %s\n", clean(m.Status))
}

// showNotes shows what reading came upon. What is true of whole volumes is said once.
func showNotes(p *printer, m *backup.Manifest) {
	whole := map[string][]string{} // by what is said
	for _, id := range sortedKeys(m.Trees) {
		for _, n := range m.Trees[id].Notes {
			text := hinted(n.Kind, n.Text)
			if n.Path == "." && !n.Severe() {
				whole[text] = append(whole[text], id)
				continue
			}
			mark := "·"
			if n.Severe() {
				mark = p.paint(yellow, "!")
			}
			p.printf("  %s %s:%s: %s\n", mark, clean(id), clean(n.Path), clean(text))
		}
		if lost := m.Trees[id].NotesLost; lost > 0 {
			p.printf("  · %s: %d more notes are not in the archive\n", clean(id), lost)
		}
	}
	for _, text := range sortedKeys(whole) {
		p.printf("  · %s: %s\n", clean(strings.Join(whole[text], ", ")), clean(text))
	}
}

// listArchives lists the archives in the stores.
func listArchives(cmd *cobra.Command) error {
	w, err := findWorker(cmd, "")
	if err != nil {
		return err
	}
	defer func() { _ = w.close() }() // has no jobs
	list, problems, err := w.archives(cmd.Context(), "")
	if err != nil {
		return err
	}
	p := newPrinter(cmd.OutOrStdout(), os.Getenv)
	var errs []error
	for _, pr := range problems {
		errs = append(errs, errors.New(pr))
	}
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		return errors.Join(append(errs, writeJSON(p.w, map[string]any{"archives": list}))...)
	}
	var rows [][]string
	for _, store := range sortedKeys(list) {
		for _, e := range list[store] {
			app := "-"
			if info, err := backup.ParseArchiveName(e.Name); err == nil {
				app = info.App
			}
			rows = append(rows, []string{dash(store + ":" + e.Name), dash(app), backup.FormatBytes(e.Size), p.ago(e.Modified) + " ago"})
		}
	}
	if len(rows) == 0 {
		p.printf("No archives yet: `%s backup APP` makes one.\n", verbPrefix())
	} else {
		p.table([]string{"ARCHIVE", "APP", "SIZE", "MADE"}, rows, nil)
	}
	return errors.Join(append(errs, p.err)...)
}

// jsonList writes a list whose entries come one after the other.
type jsonList struct {
	w io.Writer
	n int
}

func (l *jsonList) add(v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	sep := "[\n  "
	if l.n++; l.n > 1 {
		sep = ",\n  "
	}
	_, err = fmt.Fprintf(l.w, "%s%s", sep, raw)
	return err
}

func (l *jsonList) end() error {
	text := "\n]\n"
	if l.n == 0 {
		text = "[]\n"
	}
	_, err := io.WriteString(l.w, text)
	return err
}
