package dentropycmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dentropy/dentropycloud/backup"
)

const backupHelp = `
Puts each application into one file: its containers with all their settings, images that
cannot be pulled again, volumes, networks, compose files, routes. 'dentropy restore' makes
it run again from that file alone.

	$ dentropy backup blog                    into the store "local", <data folder>/backups
	$ dentropy backup blog -o /mnt/usb        into a folder of this machine
	$ dentropy backup blog -o - | ssh nas 'cat >blog.dentropy.tar.age'

An app is stopped while its data is read, unless labels or --mode say otherwise, and is
started again before the archive is written. What stops, and for how long, is shown
before; on a terminal you are asked. Ctrl-C stops the backup and waits until the app runs
again; if this process is killed, 'dentropy up', the next backup or a guard container
brings the app back.

Archives are encrypted to a key that the first backup makes. It lies on this machine
only until you have kept it elsewhere: 'dentropy backup key' prints it.

The work is done by a running dentropy, and by this process where none runs.

EXIT STATUS

	0  each app is backed up
	1  one is not, or it was stopped: the reason is on standard error. No file looks
	   complete that is not
`

type backupFlags struct {
	out    output
	req    backup.BackupRequest
	yes    bool
	quiet  bool
	dryRun bool
	asJSON bool
	tell   bool // that the key is not kept elsewhere
}

func setUpBackup(cmd *cobra.Command) {
	cmd.Use = "backup <app>… [flags]"
	cmd.Short = "Puts whole applications into one file each"
	cmd.Long = backupHelp
	workerFlags(cmd.Flags())
	captureFlags(cmd)
	passphraseFlags(cmd.Flags())
	fs := cmd.Flags()
	fs.StringP("output", "o", "", "`folder` of this machine for the archive, or - for standard output")
	fs.String("store", "", "`name` of the store for the archive (default: local)")
	fs.String("engine", "", "`name` of the app's engine, where two have one of that name")
	fs.String("mode", "", "`how` all its containers come to rest: stop, pause or hot (default: as their labels say)")
	fs.Duration("max-downtime", 0, "refuse if the app would be stopped for longer")
	fs.Duration("health-timeout", 0, "how long to wait for each container to be healthy again (default 2m)")
	fs.StringArray("recipient", nil, "encrypt to this `key` instead of the own one (age1…, ssh-ed25519 …, @file); may be repeated [DENTROPY_RECIPIENT]")
	fs.String("encrypt", "", "`what` is encrypted: all (default), secrets or none")
	fs.Bool("allow-missing", false, "go on where files cannot be read, with a warning")
	fs.Bool("dry-run", false, "say what would be done, and change nothing")
	fs.Bool("yes", false, "do not ask")
	fs.Bool("quiet", false, "say nothing unless something is wrong, or must be known; for cron")
	fs.Bool("json", false, "print the result as JSON")
	cmd.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError(c, errors.New("name an app: `"+verbPrefix()+" apps` lists them"))
		}
		return nil
	}
	fs.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "encryption" { // as manifests and the API call it
			name = "encrypt"
		}
		return pflag.NormalizedName(name)
	})
	cmd.RunE = runBackup
	key := &cobra.Command{Use: "key"}
	setUpBackupKey(key)
	finish(key)
	cmd.AddCommand(key)
}

func runBackup(cmd *cobra.Command, args []string) error {
	f, err := readBackupFlags(cmd, args)
	if err != nil {
		return err
	}
	w, err := findWorker(cmd, f.out.folder)
	if err != nil {
		return err
	}
	defer func() { _ = w.close() }() // each job has been waited for
	talk := cmd.ErrOrStderr()
	if err := f.ensureKey(cmd, w, talk); err != nil {
		return err
	}
	var results []backupLine
	var errs []error
	for _, app := range args {
		req := f.req
		req.App = app
		res, err := f.one(cmd, w, req)
		if err != nil {
			if len(args) > 1 {
				err = fmt.Errorf("%s: %w", app, err)
			}
			errs = append(errs, err)
		}
		line := backupLine{App: app, BackupResult: res}
		if err != nil {
			line.Error, line.Hint, line.BackupResult = err.Error(), backup.HintOf(err), nil
		}
		results = append(results, line)
		if errors.Is(err, errCancelled) || errors.Is(err, errNoAnswer) || errors.Is(err, errDeclined) {
			break
		}
	}
	if f.asJSON {
		if err := writeJSON(cmd.OutOrStdout(), map[string]any{"backups": results}); err != nil {
			errs = append(errs, err)
		}
	}
	done := func(l backupLine) bool { return l.Error == "" }
	if f.tell && slices.ContainsFunc(results, done) && !f.dryRun {
		tellKey(newPrinter(talk, os.Getenv))
	}
	return errors.Join(errs...)
}

// backupLine is one app of the JSON result.
type backupLine struct {
	App string `json:"app"`
	*backup.BackupResult
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
}

// ensureKey makes the key at the first backup that needs it.
func (f *backupFlags) ensureKey(cmd *cobra.Command, w worker, talk io.Writer) error {
	if f.req.Encryption == "none" || f.req.Passphrase != "" || len(f.req.Recipients) > 0 {
		return nil
	}
	st, err := w.key(cmd.Context())
	if err != nil {
		return err
	}
	none := len(st.Recipients)+len(st.Configured) == 0
	if none && f.dryRun {
		_, _ = fmt.Fprintln(talk, "dentropy: the backup will make a key for archives: there is none yet")
		f.req.Encryption = "none" // nothing is written
		return nil
	}
	if none {
		if st, err = w.makeKey(cmd.Context()); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(talk, "dentropy: a key for archives was made in %s\n", clean(st.Folder))
	}
	f.tell = st.Private && !st.Stored
	return nil
}

// tellKey says loudly what is missing as long as the key lies on this machine only.
func tellKey(p *printer) {
	p.printf("\n%s\n", p.paint(red, "!! The key to your archives is on this machine only."))
	p.printf("   If the machine is lost, no archive can be opened. Run now:  %s backup key\n", verbPrefix())
	p.printf("   It prints the recovery kit; keep it in another place.\n")
}

var errDeclined = errors.New("not backed up, as you said: nothing was stopped")

// one backs up one app.
func (f *backupFlags) one(cmd *cobra.Command, w worker, req backup.BackupRequest) (*backup.BackupResult, error) {
	talk := cmd.ErrOrStderr()
	if f.dryRun {
		res, err := w.estimate(cmd.Context(), req)
		if err != nil {
			return nil, err
		}
		if !f.asJSON {
			p := newPrinter(cmd.OutOrStdout(), os.Getenv)
			if f.out.w != nil {
				p = newPrinter(talk, os.Getenv)
			}
			showEstimate(p, res.App, res.Estimate, res.Warnings)
		}
		res.App = nil
		return res, nil
	}
	var who *asker
	if !f.yes {
		a, done := newAsker(cmd, false)
		defer done()
		who = a
	}
	bar := newProgress(f.shown(talk), os.Getenv)
	ctx, done := patience(cmd.Context(), talk, bar.waiting)
	defer done()
	var confirm confirmer
	if who != nil || bar.screen != nil {
		confirm = func(app *backup.App, est *backup.Estimate) error {
			bar.pause()
			defer bar.resume()
			showEstimate(newPrinter(talk, os.Getenv), app, est, nil)
			if who == nil {
				return nil
			}
			who.ctx = ctx
			ok, err := who.yes("Go on?", true)
			if err == nil && !ok {
				err = errDeclined
			}
			return err
		}
	}
	res, err := w.backup(ctx, req, f.out, confirm, bar.show)
	bar.end(err == nil)
	if err != nil {
		return nil, err
	}
	res.App = nil
	if f.quiet { // no progress has shown them
		for _, w := range res.Warnings {
			_, _ = fmt.Fprintf(talk, "dentropy: %s: %s\n", clean(req.App), clean(w))
		}
	}
	if f.asJSON || f.quiet {
		return res, nil
	}
	p := newPrinter(cmd.OutOrStdout(), os.Getenv)
	if f.out.w != nil {
		p = newPrinter(talk, os.Getenv)
	}
	showBackup(p, req.App, res)
	return res, p.err
}

// shown is where progress is shown: nowhere with --quiet.
func (f *backupFlags) shown(talk io.Writer) io.Writer {
	if f.quiet {
		return io.Discard
	}
	return talk
}

// showEstimate says what a backup will take, before anything stops.
func showEstimate(p *printer, app *backup.App, est *backup.Estimate, warnings []string) {
	p.printf("%s on %s: %s in %s to read", dash(app.Name), dash(app.Platform), backup.FormatBytes(est.Bytes), count(est.Files, "file"))
	if est.ImageBytes > 0 {
		p.printf(", images of %s", backup.FormatBytes(est.ImageBytes))
	}
	p.printf("\n")
	if len(est.Stops) > 0 {
		p.printf("  stops     %s\n", clean(strings.Join(est.Stops, ", ")))
	}
	if len(est.Pauses) > 0 {
		p.printf("  pauses    %s\n", clean(strings.Join(est.Pauses, ", ")))
	}
	if len(est.Stops)+len(est.Pauses) == 0 {
		p.printf("  downtime  none: nothing is stopped\n")
	} else {
		basis := ""
		if est.Basis != "" {
			basis = " (" + clean(est.Basis) + ")"
		}
		p.printf("  downtime  about %s%s\n", took(est.Downtime.Round(100*time.Millisecond)), basis)
	}
	for _, w := range warnings {
		p.printf("  %s %s\n", p.paint(yellow, "!"), clean(w))
	}
}

func showBackup(p *printer, app string, r *backup.BackupResult) {
	line := func(what, value string) { p.printf("  %-10s %s\n", what, clean(value)) }
	p.printf("%s is backed up\n", dash(app))
	switch {
	case r.Archive == "":
	case filepath.IsAbs(r.Store):
		line("archive", filepath.Join(r.Store, r.Archive))
	default:
		line("archive", r.Store+":"+r.Archive)
	}
	line("size", backup.FormatBytes(r.Size))
	if n := len(r.Quiesce.Stopped); n > 0 {
		line("downtime", fmt.Sprintf("%s (%s of it reading)", took(r.Quiesce.Downtime), took(r.Quiesce.DataDowntime)))
	} else {
		line("downtime", "none")
	}
	line("took", took(r.Took))
	switch r.Encrypted {
	case "none":
		line("encrypted", "no: whoever has the file can read all of it, passwords included")
	case "secrets":
		line("encrypted", "its secrets; data and settings are in clear")
	default:
		line("encrypted", "all of it")
	}
}
