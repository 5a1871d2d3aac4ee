package self_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/backuptest"
	"github.com/dentropy/dentropycloud/backup/self"
)

// replace accepts that the state that is there is put aside.
var replace = backup.Answers{OnConflict: "replace"}

// home is a data folder with a manager on it.
type home struct {
	t     *testing.T
	data  string
	m     *backup.Manager
	store *backuptest.Store
}

func newHome(t *testing.T) *home {
	t.Helper()
	h := &home{t: t, data: t.TempDir(), store: new(backuptest.Store)}
	h.write("certificates/acme/a.example.com/a.example.com.key", "key a")
	h.write("dentropy/owners/00.json", "{}")
	h.write("backups/shop.dentropy.tar", "an archive")
	h.write("locks/issue.lock", "a lock")
	h.m = h.manager(h.store)
	return h
}

func (h *home) manager(store backup.Store) *backup.Manager {
	h.t.Helper()
	dir := filepath.Join(h.data, "backup")
	keys, err := backup.OpenKeys(filepath.Join(dir, "keys"))
	if err == nil {
		_, err = keys.Ensure()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	p := self.New(self.Options{
		Data: h.data, Dir: dir, Lock: filepath.Join(h.data, "up.lock"), Avoid: []string{filepath.Join(h.data, "backups")},
	})
	m, err := backup.NewManager(backup.Config{Dir: dir, Platforms: []backup.Platform{p}, Stores: map[string]backup.Store{"local": store}, Keys: keys})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = m.Close() })
	return m
}

func (h *home) write(path, text string) {
	h.t.Helper()
	path = filepath.Join(h.data, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// files gives what is in the data folder: certificates, owners, and what lies beside.
func (h *home) files() map[string]string {
	h.t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(h.data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(h.data, path)
		if err != nil || strings.HasPrefix(rel, ".before-") || strings.HasPrefix(rel, "backup/") || rel == "up.lock" {
			return err
		}
		b, err := os.ReadFile(path)
		out[rel] = string(b)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

func (h *home) open(m *backup.Manager, archive string) *backup.Reader {
	h.t.Helper()
	o, err := h.store.Open(h.t.Context(), archive)
	if err != nil {
		h.t.Fatal(err)
	}
	ids, err := h.m.Identities()
	if err != nil {
		h.t.Fatal(err)
	}
	in, err := backup.NewReader(o, ids...)
	if err != nil {
		h.t.Fatal(err)
	}
	return in
}

func TestSelf(t *testing.T) {
	h := newHome(t)
	before := h.files()
	res, err := h.m.Backup(t.Context(), nil, backup.BackupRequest{App: self.AppName})
	if err != nil {
		t.Fatal(err)
	}
	h.write("certificates/acme/a.example.com/a.example.com.key", "another key")
	h.write("certificates/acme/b.example.com/b.example.com.key", "key b")
	h.write("instance.uuid", "new")
	h.write("backups/later.dentropy.tar", "another archive")
	if err := os.RemoveAll(filepath.Join(h.data, "dentropy")); err != nil {
		t.Fatal(err)
	}
	changed := h.files()

	_, err = h.m.Restore(t.Context(), nil, h.open(h.m, res.Archive), replace, backup.ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"backups/later.dentropy.tar": "another archive"}
	for k, v := range before {
		want[k] = v
	}
	if diff := cmp.Diff(want, h.files()); diff != "" {
		t.Errorf("after the restore (-want +got):\n%s", diff)
	}
	if err := h.m.Undo(t.Context(), nil, "", ""); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(changed, h.files()); diff != "" {
		t.Errorf("after the undo (-want +got):\n%s", diff)
	}
	if left, err := filepath.Glob(filepath.Join(h.data, ".*-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// On a bare machine the state comes into an empty folder, its key with it.
func TestSelfOntoBareMachine(t *testing.T) {
	h := newHome(t)
	res, err := h.m.Backup(t.Context(), nil, backup.BackupRequest{App: self.AppName})
	if err != nil {
		t.Fatal(err)
	}
	in := h.open(h.m, res.Archive)
	key, err := os.ReadFile(filepath.Join(h.data, "backup", "keys", "identity.txt"))
	if err != nil {
		t.Fatal(err)
	}
	bare := &home{t: t, data: t.TempDir(), store: h.store}
	m := bare.manager(h.store)
	if _, err := m.Restore(t.Context(), nil, in, replace, backup.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(bare.data, "backup", "keys", "identity.txt"))
	if err != nil || string(got) != string(key) {
		t.Errorf("identity = %q, %v, want that of the old machine", got, err)
	}
	if got := bare.files()["dentropy/owners/00.json"]; got != "{}" {
		t.Errorf("owners = %q", got)
	}
	if _, ok := bare.files()["backups/shop.dentropy.tar"]; ok {
		t.Error("archives are part of the state")
	}
	if err := m.Undo(t.Context(), nil, "", ""); err != nil {
		t.Errorf("Undo = %v", err)
	}
	if files := bare.files(); len(files) > 0 {
		t.Errorf("after the undo there is %v, want nothing as before", files)
	}
}

// A state is put aside only where that was asked for.
func TestSelfRefusesToReplace(t *testing.T) {
	h := newHome(t)
	res, err := h.m.Backup(t.Context(), nil, backup.BackupRequest{App: self.AppName})
	if err != nil {
		t.Fatal(err)
	}
	h.write("instance.uuid", "new")
	before := h.files()
	_, err = h.m.Restore(t.Context(), nil, h.open(h.m, res.Archive), backup.Answers{}, backup.ApplyOptions{})
	var ready *backup.NotReadyError
	if !errors.As(err, &ready) || !strings.Contains(backup.HintOf(err), "--on-conflict replace") {
		t.Errorf("Restore over a state = %v, want a refusal that names --on-conflict replace", err)
	}
	if diff := cmp.Diff(before, h.files()); diff != "" {
		t.Errorf("after the refusal (-want +got):\n%s", diff)
	}
}

// What can be undone is about the engines of one machine: a restore of the state neither
// brings nor loses any.
func TestSelfKeepsUndoRecords(t *testing.T) {
	h := newHome(t)
	h.write("backup/undo/00000000000a.json", `{"id":"00000000000a","platform":"docker","app":"old"}`)
	res, err := h.m.Backup(t.Context(), nil, backup.BackupRequest{App: self.AppName})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(h.data, "backup/undo/00000000000a.json")); err != nil {
		t.Fatal(err)
	}
	h.write("backup/undo/00000000000b.json", `{"id":"00000000000b","platform":"docker","app":"new"}`)
	if _, err := h.m.Restore(t.Context(), nil, h.open(h.m, res.Archive), replace, backup.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	undos, err := h.m.Undos()
	var apps []string
	for _, u := range undos {
		apps = append(apps, u.App)
	}
	if want := []string{self.AppName, "new"}; err != nil || !slices.Equal(apps, want) {
		t.Errorf("what can be undone = %v, %v, want %v", apps, err, want)
	}
}

// What came after something was taken back stays, though that is taken back again: the
// process may have been killed before it could note that all is done.
func TestSelfRecoverAgainTouchesNothing(t *testing.T) {
	h := newHome(t)
	p := self.New(self.Options{Data: h.data, Dir: filepath.Join(h.data, "backup")})
	h.write(".restore-0123456789ab/x", "")
	var entries []backup.Entry
	e, err := backuptest.Entry("self.swap", map[string]any{"op": "0123456789ab", "parts": []any{map[string]any{"path": "later", "has": true}}})
	if err != nil {
		t.Fatal(err)
	}
	entries = append(entries, e)
	op := backup.Operation{ID: "0123456789ab", Kind: "restore"}
	if err := p.Recover(t.Context(), op, entries, nil); err != nil {
		t.Fatal(err)
	}
	h.write("later", "by a dentropy that runs again")
	if err := p.Recover(t.Context(), op, entries, nil); err != nil {
		t.Fatal(err)
	}
	if h.files()["later"] == "" {
		t.Error("what came later is gone")
	}
}

// While a dentropy runs on the data nothing is restored, and the refusal says what to do.
func TestSelfRefusesWhileRunning(t *testing.T) {
	h := newHome(t)
	res, err := h.m.Backup(t.Context(), nil, backup.BackupRequest{App: self.AppName})
	if err != nil {
		t.Fatal(err)
	}
	release, err := backup.LockFile(filepath.Join(h.data, "up.lock"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.m.Backup(t.Context(), nil, backup.BackupRequest{App: self.AppName}); err != nil {
		t.Errorf("a backup while it runs: %v", err)
	}
	h.write("instance.uuid", "new")
	_, err = h.m.Restore(t.Context(), nil, h.open(h.m, res.Archive), replace, backup.ApplyOptions{})
	var ready *backup.NotReadyError
	if !errors.As(err, &ready) || !strings.Contains(backup.HintOf(err), "--data-dir") {
		t.Errorf("Restore = %v, want a refusal that names --data-dir", err)
	}
	if h.files()["instance.uuid"] != "new" {
		t.Error("the data was touched")
	}
	release()
	if _, err := h.m.Restore(t.Context(), nil, h.open(h.m, res.Archive), replace, backup.ApplyOptions{}); err != nil {
		t.Errorf("after it ended: %v", err)
	}
}

// A restore that is cut off anywhere is taken back, and an undo is finished.
func TestSelfRecover(t *testing.T) {
	for _, fail := range []string{"self.swap", "undo"} {
		t.Run(fail, func(t *testing.T) {
			h := newHome(t)
			res, err := h.m.Backup(t.Context(), nil, backup.BackupRequest{App: self.AppName})
			if err != nil {
				t.Fatal(err)
			}
			h.write("instance.uuid", "new")
			before := h.files()
			p := self.New(self.Options{Data: h.data, Dir: filepath.Join(h.data, "backup"), Avoid: []string{filepath.Join(h.data, "backups")}})
			in := h.open(h.m, res.Archive)
			app, err := in.App()
			if err != nil {
				t.Fatal(err)
			}
			plan, err := p.Plan(t.Context(), in.Manifest(), app, replace)
			if err != nil {
				t.Fatal(err)
			}
			j := &journal{die: fail}
			func() {
				defer func() { _ = recover() }() // as good as killed
				_, _ = p.Apply(t.Context(), plan, in, backup.ApplyOptions{}, j)
			}()
			for range 2 {
				if err := p.Recover(t.Context(), backup.Operation{ID: j.Op(), Kind: "restore"}, j.entries, nil); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(before, h.files()); diff != "" {
				t.Errorf("after recovery (-want +got):\n%s", diff)
			}
			if left, err := filepath.Glob(filepath.Join(h.data, ".*-*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// journal is a journal in memory that panics instead of taking down one step; for
// "self.swap" it does so after that.
type journal struct {
	die     string
	entries []backup.Entry
}

func (*journal) Op() string { return "0123456789ab" }

func (j *journal) Append(step string, data any) error {
	e, err := backuptest.Entry(step, data)
	if err != nil {
		return err
	}
	if step == j.die && step == backup.StepUndo {
		panic("killed")
	}
	j.entries = append(j.entries, e)
	if step == j.die {
		panic("killed")
	}
	return nil
}

func TestSelfTrustsNoRecord(t *testing.T) {
	h := newHome(t)
	p := self.New(self.Options{Data: h.data, Dir: filepath.Join(h.data, "backup")})
	for _, detail := range []string{
		`{"op":"../../etc","parts":[]}`, `{"op":"0123456789ab","parts":[{"path":"../x","had":true}]}`,
		`{"op":"0123456789ab","parts":[{"path":"/etc","has":true}]}`, `{"op":"0123456789ab","parts":[{"path":".","had":true}]}`, `[]`,
	} {
		u := &backup.Undo{ID: "0123456789ab", Detail: []byte(detail)}
		if err := p.Undo(context.Background(), u, backup.ApplyOptions{}, &journal{}); err == nil {
			t.Errorf("Undo with %s succeeds", detail)
		}
	}
}

func TestKeyStaysEncrypted(t *testing.T) {
	h := newHome(t)
	for _, how := range []string{backup.EncryptSecrets, backup.EncryptNone} {
		_, err := h.m.Backup(t.Context(), nil, backup.BackupRequest{App: self.AppName, Encryption: how})
		if err == nil || !strings.Contains(err.Error(), "private key") {
			t.Errorf("Backup with encryption %s = %v, want a refusal", how, err)
		}
	}
	if list, err := h.store.List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("archives = %v, %v, want none", list, err)
	}
}
