package dentropycmd

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/dentropy/dentropycloud/backup"
)

func setUpArchiveVerify(cmd *cobra.Command) {
	cmd.Use = "verify <archive> [flags]"
	cmd.Short = "Proves that an archive is complete and undamaged"
	cmd.Long = `
Reads an archive to its end and holds every byte against the hashes in it. Where it is
cut off or damaged, says where, and which volumes are whole all the same: 'extract' gets
those.

EXIT STATUS

	0  the archive is complete and undamaged
	1  it is not, or could not be read: the reason is on standard error
`
	cmd.Flags().Bool("json", false, "print the result as JSON")
	cmd.Args = archiveArgs(1, 1, "give one archive")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := sourceOf(cmd, args[0])
		if err != nil {
			return err
		}
		defer func() { _ = a.Close() }()
		bar := newProgress(cmd.ErrOrStderr(), os.Getenv)
		res := verify(cmd.Context(), a, bar)
		bar.end(res.err == nil)
		p := newPrinter(cmd.OutOrStdout(), os.Getenv)
		if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
			if err := writeJSON(p.w, res); err != nil {
				return err
			}
			return res.err
		}
		showVerified(p, args[0], res)
		return res.err
	}
}

// verified is what verifying an archive came to.
type verified struct {
	Good bool   `json:"good"`
	App  string `json:"app,omitempty"`
	// Whole are the volumes all of whose data is there and undamaged, Lost the others.
	// Both are empty where that was not, or could not be, found out.
	Whole []string `json:"whole"`
	Lost  []string `json:"lost"`
	Error string   `json:"error,omitempty"`
	err   error
	// damaged says that the error is the archive's own.
	damaged bool
}

// verify reads all of an archive, and where it is not whole looks for what is.
func verify(ctx context.Context, a *openedArchive, bar *progress) *verified {
	res := &verified{Whole: []string{}, Lost: []string{}}
	began := time.Now()
	report := func(pr backup.Progress) {
		v := backup.JobView{State: "running", Progress: pr}
		v.Progress.Phase = "check"
		if d := time.Since(began); d >= time.Second && pr.Done > 0 {
			v.Rate = float64(pr.Done) / d.Seconds()
			v.Left = time.Duration(float64(pr.Total-pr.Done) / v.Rate * float64(time.Second))
		}
		bar.showSome(v)
	}
	var m *backup.Manifest
	if a.at == nil {
		m, res.err = backup.VerifyStream(ctx, a.stream, report, a.keys.ids...)
	} else if a.rand, res.err = backup.OpenArchive(a.at, a.size, a.keys.ids...); res.err == nil {
		m, res.err = a.rand.Manifest(), a.rand.Verify(ctx, report)
	}
	if m != nil {
		res.App = m.App.Name
	}
	res.damaged = errors.Is(res.err, backup.ErrCorrupt) || errors.Is(res.err, backup.ErrIncomplete)
	if res.damaged && a.at != nil {
		bar.end(false)
		salvageable(ctx, a, res, bar)
	}
	res.Good = res.err == nil
	if res.err != nil {
		res.err = explainArchive(res.err, a.keys)
		res.Error = res.err.Error()
	}
	return res
}

// salvageable finds out which volumes are whole in an archive that is not.
func salvageable(ctx context.Context, a *openedArchive, res *verified, bar *progress) {
	if a.rand == nil {
		var err error
		if a.rand, err = backup.SalvageArchive(a.at, a.size, a.keys.ids...); err != nil {
			return // not even the head
		}
	}
	m := a.rand.Manifest()
	res.App = m.App.Name
	for _, id := range sortedKeys(m.Trees) {
		if ctx.Err() != nil {
			return
		}
		bar.show(backup.JobView{State: "running", Progress: backup.Progress{Phase: "salvage", Text: "volume " + id}})
		r, err := a.rand.TarStream(id)
		if err == nil {
			_, err = io.CopyBuffer(io.Discard, onlyReader{&countingReader{r: r, ctx: ctx}}, make([]byte, copyBuffer))
			_ = r.Close()
		}
		if err == nil {
			res.Whole = append(res.Whole, id)
		} else {
			res.Lost = append(res.Lost, id)
		}
	}
}

func showVerified(p *printer, label string, res *verified) {
	if res.Good {
		p.printf("%s the archive of %s is complete and undamaged\n", p.paint(green, "✓"), dash(res.App))
		return
	}
	if !res.damaged {
		return // it could not be looked at
	}
	p.printf("%s this archive is not whole\n", p.paint(red, "✗"))
	for _, id := range res.Whole {
		p.printf("  %s volume %s is whole\n", p.paint(green, "✓"), dash(id))
	}
	for _, id := range res.Lost {
		p.printf("  %s volume %s is not: what comes before the damage can be had\n", p.paint(red, "✗"), dash(id))
	}
	if len(res.Whole)+len(res.Lost) > 0 {
		p.printf("  → %s archive extract %s VOLUME… -C FOLDER\n", verbPrefix(), clean(label))
	}
}
