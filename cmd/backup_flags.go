package dentropycmd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/dentropy/dentropycloud/backup"
)

func readBackupFlags(cmd *cobra.Command, args []string) (backupFlags, error) {
	var f backupFlags
	var err error
	if f.req.Capture, err = captureOptions(cmd); err != nil {
		return f, err
	}
	mode, err := oneOf(cmd, "mode", []string{"stop", "pause", "hot"})
	if err != nil {
		return f, err
	}
	f.req.Freeze.Mode = backup.Mode(mode)
	if f.req.Encryption, err = oneOf(cmd, "encrypt", []string{"all", "secrets", "none"}); err != nil {
		return f, err
	}
	fs := cmd.Flags()
	f.req.Store, _ = fs.GetString("store")
	if f.req.Platform, _ = fs.GetString("engine"); f.req.Platform != "" {
		f.req.Platform = platformName(f.req.Platform)
	}
	f.req.MaxDowntime, _ = fs.GetDuration("max-downtime")
	f.req.Freeze.HealthTimeout, _ = fs.GetDuration("health-timeout")
	if f.req.MaxDowntime < 0 || f.req.Freeze.HealthTimeout < 0 {
		return f, errors.New("--max-downtime and --health-timeout: give durations such as 30s or 5m")
	}
	f.req.Freeze.AllowMissing, _ = fs.GetBool("allow-missing")
	f.yes, _ = fs.GetBool("yes")
	f.quiet, _ = fs.GetBool("quiet")
	f.dryRun, _ = fs.GetBool("dry-run")
	f.asJSON, _ = fs.GetBool("json")
	if err := f.readOutput(cmd, args); err != nil {
		return f, err
	}
	return f, f.readRecipients(cmd)
}

func (f *backupFlags) readOutput(cmd *cobra.Command, args []string) error {
	o, _ := cmd.Flags().GetString("output")
	if o != "" && f.req.Store != "" {
		return errors.New("--output and --store exclude each other: leave one of them out")
	}
	switch o {
	case "":
		return nil
	case "-":
		f.out.w = cmd.OutOrStdout()
		if out, ok := f.out.w.(*os.File); ok && term.IsTerminal(int(out.Fd())) {
			return errors.New("standard output is a terminal: send the archive to a file or a program (dentropy backup APP -o - > FILE)")
		}
		if len(args) > 1 {
			return errors.New("-o - takes one app: an archive holds one")
		}
		if f.asJSON {
			return errors.New("-o - and --json both want standard output: leave one of them out")
		}
		return nil
	}
	abs, err := filepath.Abs(o)
	if err != nil {
		return fmt.Errorf("--output %q: %w", o, err)
	}
	info, err := os.Stat(abs)
	if err != nil {
		return fmt.Errorf("--output: %s: %w: make the folder first, or is a disk not mounted?", abs, cause(err))
	}
	if !info.IsDir() {
		return fmt.Errorf("--output %s: this is no folder; the archive's name is made of app and time", abs)
	}
	f.out.folder = abs
	return nil
}

func (f *backupFlags) readRecipients(cmd *cobra.Command) (err error) {
	asked, _ := cmd.Flags().GetBool("passphrase")
	path, _ := cmd.Flags().GetString("passphrase-file")
	f.req.Recipients, _ = cmd.Flags().GetStringArray("recipient")
	explicit := asked || path != ""
	if len(f.req.Recipients) == 0 && !explicit && os.Getenv("DENTROPY_RECIPIENT") != "" {
		for r := range strings.SplitSeq(os.Getenv("DENTROPY_RECIPIENT"), ",") {
			f.req.Recipients = append(f.req.Recipients, strings.TrimSpace(r))
		}
	}
	switch {
	case len(f.req.Recipients) > 0 && explicit:
		return errors.New("--recipient and --passphrase exclude each other: an archive is opened by keys, or by a passphrase")
	case f.req.Encryption == "none" && (explicit || len(f.req.Recipients) > 0):
		return errors.New("--encrypt none needs neither --recipient nor --passphrase: leave one of them out")
	case len(f.req.Recipients) > 0:
		if f.req.Recipients, err = expandRecipients(f.req.Recipients); err != nil {
			return err
		}
		_, err = backup.ParseRecipients(f.req.Recipients) // before anybody is asked
		return err
	case f.req.Encryption == "none":
		return nil
	}
	f.req.Passphrase, err = passphrase(cmd, os.Getenv, true)
	return err
}

// expandRecipients replaces @file by the recipients in it: a running dentropy may not
// see the file.
func expandRecipients(list []string) ([]string, error) {
	var out []string
	for _, r := range list {
		path, isFile := strings.CutPrefix(r, "@")
		if !isFile {
			out = append(out, r)
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("--recipient: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				out = append(out, line)
			}
		}
	}
	return out, nil
}
