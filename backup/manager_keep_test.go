package backup_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dentropy/dentropycloud/backup"
)

// A restore whose undo record cannot be kept is done, says so in its result, and can be
// undone once the record can be kept.
func TestUndoRecordCannotBeKept(t *testing.T) {
	b, archive := changed(t)
	folder := filepath.Join(b.dir, "backup", "undo")
	b.platform.Step = func(step string) error {
		if step != "journal:undo" {
			return nil
		}
		if err := os.Remove(folder); err != nil {
			return err
		}
		return os.WriteFile(folder, nil, 0o600)
	}
	res, err := b.m.Restore(t.Context(), nil, b.open(archive), backup.Answers{OnConflict: "replace"}, backup.ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b.running("shop")
	b.data()
	if res.Undo != "" || !strings.Contains(res.NoUndo, "undo record") || !strings.Contains(res.NoUndo, "tried again") {
		t.Errorf("Undo %q, NoUndo %q, want why there is none, and that it is tried again", res.Undo, res.NoUndo)
	}
	if !slices.ContainsFunc(res.Warnings, func(w string) bool { return strings.Contains(w, "cannot be undone") }) {
		t.Errorf("warnings %v, want that it cannot be undone", res.Warnings)
	}
	if n := b.m.LeftStopped(); n != 0 {
		t.Errorf("LeftStopped = %d, want 0: the app runs", n)
	}

	b.heals()
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for { // recovery may be at it on its own
		if err := b.m.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		undos, err := b.m.Undos()
		if err == nil && len(undos) == 1 {
			break
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("the record is never kept")
		}
	}
	b.clean()
	b.data()
	if err := b.m.Undo(t.Context(), nil, "", "shop"); err != nil {
		t.Fatal(err)
	}
	if files, err := b.engine.Files("data"); err != nil || files["rows"] != "changed" {
		t.Errorf("data = %v, %v, want what was there before the restore", files, err)
	}
}
