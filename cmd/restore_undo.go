package dentropycmd

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/dentropy/dentropycloud/backup"
)

func listUndos(cmd *cobra.Command, f *restoreFlags) error {
	w, err := findWorker(cmd, "")
	if err != nil {
		return err
	}
	defer func() { _ = w.close() }() // has no jobs
	undos, err := w.undos(cmd.Context())
	if err != nil {
		return err
	}
	if f.app != "" {
		undos = undosOf(undos, f.app)
	}
	p := newPrinter(cmd.OutOrStdout(), os.Getenv)
	if f.asJSON {
		return writeJSON(p.w, map[string]any{"undos": undoLines(undos)})
	}
	showUndos(p, undos)
	return p.err
}

func undosOf(undos []backup.Undo, app string) []backup.Undo {
	var out []backup.Undo
	for _, u := range undos {
		if u.App == app {
			out = append(out, u)
		}
	}
	return out
}

// undoLines leaves out the platform's own record, which holds secrets.
func undoLines(undos []backup.Undo) []map[string]any {
	out := []map[string]any{}
	for _, u := range undos {
		out = append(out, map[string]any{"id": u.ID, "platform": u.Platform, "app": u.App,
			"archive": u.Archive, "time": u.Time, "summary": u.Summary})
	}
	return out
}

func runUndo(cmd *cobra.Command, f *restoreFlags, id string) error {
	w, err := findWorker(cmd, "")
	if err != nil {
		return err
	}
	defer func() { _ = w.close() }() // its job has been waited for
	undos, err := w.undos(cmd.Context())
	if err != nil {
		return err
	}
	if f.app != "" {
		undos = undosOf(undos, f.app)
	}
	var u *backup.Undo
	for i := range undos {
		if id == "" || undos[i].ID == id {
			u = &undos[i] // the newest comes first
			break
		}
	}
	if u == nil {
		return fmt.Errorf("there is no such restore to take back: `%s restore --list` shows those that there are", verbPrefix())
	}
	talk := newPrinter(cmd.ErrOrStderr(), os.Getenv)
	talk.printf("Undo of %s: %s, restored %s from %s\n", dash(u.ID), dash(u.App), u.Time.Local().Format("2006-01-02 15:04:05"), dash(u.Archive))
	if u.Summary != "" {
		talk.printf("  %s\n", clean(u.Summary))
	}
	if !f.yes {
		who, done := newAsker(cmd, false)
		defer done()
		if who == nil {
			return errors.New("nothing was changed: there is nobody to ask here; add --yes")
		}
		ok, err := who.yes("Take it back?", true)
		if err != nil {
			return err
		}
		if !ok {
			return errors.New("not taken back, as you said: nothing was changed")
		}
	}
	bar := newProgress(cmd.ErrOrStderr(), os.Getenv)
	ctx, done := patience(cmd.Context(), cmd.ErrOrStderr(), bar.waiting)
	defer done()
	err = w.undo(ctx, u.ID, u.App, bar.show)
	bar.end(err == nil)
	if err != nil {
		return err
	}
	p := newPrinter(cmd.OutOrStdout(), os.Getenv)
	if f.asJSON {
		return writeJSON(p.w, undoLines([]backup.Undo{*u})[0])
	}
	p.printf("%s: the restore is taken back\n", dash(u.App))
	return p.err
}
