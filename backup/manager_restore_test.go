package backup_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
)

// changed is a bench with an archive, and an app that has changed since.
func changed(t *testing.T) (b *bench, archive string) {
	t.Helper()
	b = newBench(t)
	res, err := b.backup(backup.BackupRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.engine.Write("data", "rows", "changed"); err != nil {
		t.Fatal(err)
	}
	return b, res.Archive
}

func TestRestoreRefusesConflict(t *testing.T) {
	b, archive := changed(t)
	_, err := b.m.Restore(t.Context(), nil, b.open(archive), backup.Answers{}, backup.ApplyOptions{})
	var ready *backup.NotReadyError
	if !errors.As(err, &ready) || len(ready.Plan.Conflicts) != 1 || backup.HintOf(err) == "" {
		t.Fatalf("Restore = %v, want NotReadyError with its plan and a hint", err)
	}
	if files, err := b.engine.Files("data"); err != nil || files["rows"] != "changed" {
		t.Errorf("data = %v, %v, want it untouched", files, err)
	}
	b.clean()
	plan, err := b.m.Plan(t.Context(), b.open(archive), backup.Answers{OnConflict: "replace"})
	if err != nil || !plan.Ready() {
		t.Errorf("Plan = %+v, %v, want it ready", plan, err)
	}
}

// Where no proxy runs that could ask a site, a plan does not promise that one is asked.
func TestPlanPromisesNoProbeWithoutProxy(t *testing.T) {
	b, archive := changed(t)
	keys, err := backup.OpenKeys(filepath.Join(b.dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	probe := func(context.Context, string) error { return nil }
	for _, tt := range []struct {
		probe         func(context.Context, string) error
		answer, wants bool
	}{{nil, false, true}, {nil, true, true}, {probe, false, false}, {probe, true, true}} {
		err := b.m.Configure(backup.Config{
			Dir: filepath.Join(b.dir, "backup"), Platforms: []backup.Platform{b.platform}, Stores: map[string]backup.Store{"local": b.store},
			Keys: keys, Probe: tt.probe,
		})
		if err != nil {
			t.Fatal(err)
		}
		plan, err := b.m.Plan(t.Context(), b.open(archive), backup.Answers{NoProbe: tt.answer})
		if err != nil || plan.Answers.NoProbe != tt.wants {
			t.Errorf("Plan with a proxy %v, answer %v: NoProbe = %v, %v, want %v", tt.probe != nil, tt.answer, plan.Answers.NoProbe, err, tt.wants)
		}
	}
}

func TestRestoreFailsAtEachStep(t *testing.T) {
	for _, step := range []string{"plan", "journal:fill", "fill:data", "finish", "journal:swap", "swap", "journal:undo"} {
		t.Run(step, func(t *testing.T) {
			b, archive := changed(t)
			in := b.open(archive)
			b.fails(step)
			_, err := b.m.Restore(t.Context(), nil, in, backup.Answers{OnConflict: "replace"}, backup.ApplyOptions{})
			if !errors.Is(err, errWrong) {
				t.Fatalf("Restore = %v, want %v", err, errWrong)
			}
			b.heals()
			b.running("shop")
			b.clean()
			if files, err := b.engine.Files("data"); err != nil || files["rows"] != "changed" {
				t.Errorf("data = %v, %v, want what was there", files, err)
			}
			if undos, err := b.m.Undos(); err != nil || len(undos) > 0 {
				t.Errorf("Undos = %v, %v, want none", undos, err)
			}
		})
	}
}

// Only the last restores of an app can be undone; each undo gives back what was there.
func TestRestoreKeepsSomeUndos(t *testing.T) {
	b, archive := changed(t)
	forgotten := 0
	b.platform.Step = func(step string) error {
		if step == "forget" {
			forgotten++
		}
		return nil
	}
	var ids []string
	for range 5 {
		res, err := b.m.Restore(t.Context(), nil, b.open(archive), backup.Answers{OnConflict: "replace"}, backup.ApplyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, res.Undo)
	}
	undos, err := b.m.Undos()
	if err != nil || len(undos) != 3 || forgotten != 2 || undos[0].ID != ids[4] {
		t.Errorf("%d undos, the newest %v, %d forgotten, %v; want 3, %s, 2", len(undos), undos, forgotten, err, ids[4])
	}
	fi, err := os.Stat(filepath.Join(b.dir, "backup", "undo", ids[4]+".json"))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("undo record = %v, %v, want mode 0600", fi, err)
	}
	if err := b.m.Undo(t.Context(), nil, ids[0], ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("undo of a forgotten restore = %v, want fs.ErrNotExist", err)
	}
}

func TestUndoFails(t *testing.T) {
	b, archive := changed(t)
	res, err := b.m.Restore(t.Context(), nil, b.open(archive), backup.Answers{OnConflict: "replace"}, backup.ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b.fails("undo")
	if err := b.m.Undo(t.Context(), nil, res.Undo, ""); !errors.Is(err, errWrong) {
		t.Fatalf("Undo = %v, want %v", err, errWrong)
	}
	b.heals()
	b.data() // still the restored
	b.clean()
	if err := b.m.Undo(t.Context(), nil, res.Undo, "shop"); err != nil {
		t.Fatal(err)
	}
	if files, err := b.engine.Files("data"); err != nil || files["rows"] != "changed" {
		t.Errorf("data = %v, %v, want what was there before the restore", files, err)
	}
}

// A record that makes no sense hides no other.
func TestUndosWithGarbage(t *testing.T) {
	b, archive := changed(t)
	if _, err := b.m.Restore(t.Context(), nil, b.open(archive), backup.Answers{OnConflict: "replace"}, backup.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "backup", "undo", "0123456789ab.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	undos, err := b.m.Undos()
	if len(undos) != 1 || err == nil {
		t.Errorf("Undos = %v, %v, want one and an error", undos, err)
	}
	if err := b.m.Undo(t.Context(), nil, "", "shop"); err != nil {
		t.Errorf("Undo = %v", err)
	}
}
