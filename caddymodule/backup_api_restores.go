package caddymodule

import (
	"context"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/dentropy/dentropycloud/backup"
)

// undoAnswer is an undo record without the platform's own, which holds secrets.
type undoAnswer struct {
	ID       string    `json:"id"`
	Platform string    `json:"platform"`
	App      string    `json:"app"`
	Archive  string    `json:"archive"`
	Time     time.Time `json:"time"`
	Summary  string    `json:"summary"`
}

func getRestores(s *State, m *backup.Manager, w http.ResponseWriter, _ *http.Request) error {
	undos, err := m.Undos()
	if undos == nil && err != nil {
		return failBackup(w, err)
	}
	if err != nil {
		s.log.Warn("undo records cannot be read", "error", err)
	}
	out := []undoAnswer{}
	for _, u := range undos {
		out = append(out, undoAnswer{u.ID, u.Platform, u.App, u.Archive, u.Time, u.Summary})
	}
	return answer(w, map[string]any{"undos": out})
}

// restoreBody is the request for an archive that is in a store.
type restoreBody struct {
	Store      string         `json:"store,omitempty"`
	Archive    string         `json:"archive"`
	Answers    backup.Answers `json:"answers"`
	DryRun     bool           `json:"dry_run,omitempty"`
	Passphrase string         `json:"passphrase,omitempty"`
}

func postRestore(_ *State, m *backup.Manager, w http.ResponseWriter, r *http.Request) error {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch kind {
	case "application/json":
		return restoreFromStore(m, w, r)
	case "application/x-tar", "application/octet-stream", "application/age":
		return restoreFromBody(m, w, r)
	}
	return fail(w, http.StatusUnsupportedMediaType, apiProblem{
		"the content type says neither that this is an archive nor that it names one",
		"send an archive as application/x-tar, or JSON",
	}, kind)
}

// restoreFromBody restores the archive that is the request. The answer comes at the end.
func restoreFromBody(m *backup.Manager, w http.ResponseWriter, r *http.Request) error {
	var answers backup.Answers
	if text := r.URL.Query().Get("answers"); text != "" {
		if err := decodeStrict(strings.NewReader(text), &answers); err != nil {
			return fail(w, http.StatusBadRequest, apiProblem{"answers cannot be read: " + err.Error(), "give them as JSON"}, "")
		}
	}
	if err := noDeadlines(w); err != nil {
		return err
	}
	if isOn(r, "dry_run") {
		return plan(m, w, r, r.Body, "", answers)
	}
	job, err := newJob(m, "restore", w, r)
	if job == nil {
		return err
	}
	in, err := openReader(m, r.Body, "")
	if err != nil {
		job.End(err)
		return failArchive(w, "", err)
	}
	res, err := m.Restore(r.Context(), job, in, answers, backup.ApplyOptions{})
	if err != nil {
		return failBackup(w, err)
	}
	return answer(w, map[string]any{"result": res})
}

func plan(m *backup.Manager, w http.ResponseWriter, r *http.Request, archive io.Reader, passphrase string, answers backup.Answers) error {
	in, err := openReader(m, archive, passphrase)
	if err != nil {
		return failArchive(w, "", err)
	}
	plan, err := m.Plan(r.Context(), in, answers)
	if err != nil {
		return failBackup(w, err)
	}
	return answer(w, map[string]any{"plan": shownPlan(plan), "manifest": in.Manifest()})
}

// restoreFromStore restores an archive of a store, as a job.
func restoreFromStore(m *backup.Manager, w http.ResponseWriter, r *http.Request) error {
	var body restoreBody
	if ok, err := readJSON(w, r, &body); !ok {
		return err
	}
	if err := noDeadlines(w); err != nil {
		return err
	}
	ctx := context.WithoutCancel(r.Context()) // the client may go; the job ends with the manager
	o, err := m.OpenArchive(ctx, body.Store, body.Archive)
	if err != nil {
		return failBackup(w, err)
	}
	if body.DryRun {
		defer func() { _ = o.Close() }()
		return plan(m, w, r, o, body.Passphrase, body.Answers)
	}
	in, err := openReader(m, o, body.Passphrase)
	if err != nil {
		_ = o.Close()
		return failArchive(w, body.Archive, err)
	}
	job, err := newJob(m, "restore", w, r)
	if job == nil {
		_ = o.Close()
		return err
	}
	go func() {
		defer func() { _ = o.Close() }()
		_, _ = m.Restore(ctx, job, in, body.Answers, backup.ApplyOptions{}) // its error is the job's
	}()
	return accepted(w, job)
}

func postUndo(_ *State, m *backup.Manager, w http.ResponseWriter, r *http.Request) error {
	var body struct {
		ID  string `json:"id"`
		App string `json:"app"`
	}
	if ok, err := readJSON(w, r, &body); !ok {
		return err
	}
	u, err := m.FindUndo(body.ID, body.App)
	if err != nil {
		return failBackup(w, err)
	}
	job, err := newJob(m, "undo", w, r)
	if job == nil {
		return err
	}
	ctx := context.WithoutCancel(r.Context())
	go func() { _ = m.Undo(ctx, job, u.ID, u.App) }() // its error is the job's
	return accepted(w, job)
}
