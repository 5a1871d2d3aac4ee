package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"time"

	"github.com/dentropy/dentropycloud/backup"
)

func getArchives(_ *State, m *backup.Manager, w http.ResponseWriter, r *http.Request) error {
	archives, err := m.Archives(r.Context(), r.URL.Query().Get("store"))
	if archives == nil {
		return failBackup(w, err)
	}
	var errs []error
	if joined, ok := err.(interface{ Unwrap() []error }); ok { // that of errors.Join
		errs = joined.Unwrap()
	}
	return answer(w, map[string]any{"archives": archives, "problems": problemsOf(errs)})
}

// archiveAnswer is one archive with what it says about itself.
type archiveAnswer struct {
	backup.Entity
	Store    string           `json:"store"`
	Manifest *backup.Manifest `json:"manifest"`
}

func getArchive(_ *State, m *backup.Manager, w http.ResponseWriter, r *http.Request) error {
	store, name := r.PathValue("store"), r.PathValue("name")
	o, err := m.OpenArchive(r.Context(), store, name)
	if err != nil {
		return failBackup(w, err)
	}
	defer func() { _ = o.Close() }()
	in, err := openReader(r.Context(), m, o, "")
	if err != nil {
		return failArchive(w, name, err)
	}
	out := archiveAnswer{Entity: backup.Entity{Name: name, Size: o.Size()}, Store: store, Manifest: in.Manifest()}
	archives, err := m.Archives(r.Context(), store)
	for _, e := range archives[store] {
		if e.Name == name {
			out.Modified = e.Modified
		}
	}
	if err != nil {
		return failBackup(w, err)
	}
	return answer(w, out)
}

// openReader reads the head of an archive, with this installation's key and with a
// passphrase, where one is given.
func openReader(ctx context.Context, m *backup.Manager, r io.Reader, passphrase string) (*backup.Reader, error) {
	ids, err := m.Identities()
	if err != nil {
		return nil, err
	}
	if passphrase != "" {
		id, err := backup.PassphraseIdentity(passphrase)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return backup.OpenReader(ctx, r, ids...)
}

// failArchive answers that an archive cannot be read: that is the archive's fault, or
// that of whoever has its key.
func failArchive(w http.ResponseWriter, name string, err error) error {
	problem := apiProblem{err.Error(), backup.HintOf(err)}
	if problem.Hint == "" && errors.Is(err, backup.ErrNoKey) {
		problem.Hint = "the key that opens it is not on this machine: use dentropy restore --identity FILE"
	}
	return fail(w, http.StatusUnprocessableEntity, problem, name)
}

func getArchiveFile(_ *State, m *backup.Manager, w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	o, err := m.OpenArchive(r.Context(), r.PathValue("store"), name)
	if err != nil {
		return failBackup(w, err)
	}
	defer func() { _ = o.Close() }()
	if err := noDeadlines(w); err != nil {
		return err
	}
	kind := "application/x-tar"
	if path.Ext(name) == ".age" {
		kind = "application/age"
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name))
	// an archive never changes under its name
	h.Set("ETag", fmt.Sprintf("%q", name))
	http.ServeContent(w, r, name, time.Time{}, io.NewSectionReader(o, 0, o.Size()))
	return nil
}

func deleteArchive(_ *State, m *backup.Manager, w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	if !isOn(r, "yes") {
		return fail(w, http.StatusConflict, apiProblem{"removing an archive cannot be undone", "confirm it with ?yes=1"}, name)
	}
	if err := m.RemoveArchive(r.Context(), r.PathValue("store"), name); err != nil {
		return failBackup(w, err)
	}
	return answer(w, map[string]string{"removed": name})
}
