package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
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
		return restoreFromBody(m, w, r, backup.Answers{})
	case "multipart/form-data":
		return restoreFromForm(m, w, r)
	}
	return fail(w, http.StatusUnsupportedMediaType, apiProblem{
		"the content type says neither that this is an archive nor that it names one",
		"send an archive as application/x-tar, as a form with answers and archive, or JSON",
	}, kind)
}

// restoreFromForm restores the archive that is the second part of a form, with the answers
// that are the first: they hold passwords (of a network share, say), and URLs are logged.
func restoreFromForm(m *backup.Manager, w http.ResponseWriter, r *http.Request) error {
	bad := func(err error) error {
		return fail(w, http.StatusBadRequest, apiProblem{"the form cannot be read: " + err.Error(), `send a part "answers" (JSON), then a part "archive"`}, "")
	}
	form, err := r.MultipartReader()
	if err != nil {
		return bad(err)
	}
	part := func(name string) (*multipart.Part, error) {
		p, err := form.NextRawPart()
		if err == nil && p.FormName() != name {
			err = fmt.Errorf("there is another part in the place of %q", name)
		}
		return p, err
	}
	p, err := part("answers")
	if err != nil {
		return bad(err)
	}
	var answers backup.Answers
	if err := decodeStrict(http.MaxBytesReader(w, p, mostRequest), &answers); err != nil {
		return fail(w, http.StatusBadRequest, apiProblem{"answers cannot be read: " + err.Error(), "give them as JSON"}, "")
	}
	if p, err = part("archive"); err != nil {
		return bad(err)
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{p, r.Body}
	return restoreFromBody(m, w, r, answers)
}

// restoreFromBody restores the archive that is the request. The answer comes at the end.
func restoreFromBody(m *backup.Manager, w http.ResponseWriter, r *http.Request, answers backup.Answers) error {
	if err := noDeadlines(w); err != nil {
		return err
	}
	rc := http.NewResponseController(w)
	if isOn(r, "dry_run") {
		// no job that could be cancelled, and only the head is read
		if err := rc.SetReadDeadline(time.Now().Add(headPatience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		return plan(m, w, r, r.Body, "", answers)
	}
	job, err := newJob(m, "restore", w, r)
	if job == nil {
		return err
	}
	// Without the deadline the connection could not be closed while somebody reads it.
	stop := endWith(job, rc.SetReadDeadline)
	in, err := openReader(job.Context(), m, r.Body, "")
	if err != nil {
		stop()
		noMore(rc)
		job.End(err)
		return failArchive(w, "", err)
	}
	res, err := m.Restore(r.Context(), job, in, answers, backup.ApplyOptions{})
	stop()
	if err != nil {
		noMore(rc)
		return failBackup(w, err)
	}
	return answer(w, map[string]any{"result": res})
}

func plan(m *backup.Manager, w http.ResponseWriter, r *http.Request, archive io.Reader, passphrase string, answers backup.Answers) error {
	in, err := openReader(r.Context(), m, archive, passphrase)
	if err != nil {
		return failArchive(w, "", err)
	}
	plan, err := m.Plan(r.Context(), in, answers)
	if err != nil {
		return failBackup(w, err)
	}
	return answer(w, map[string]any{"plan": plan.Shown(), "manifest": in.Manifest()})
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
	in, err := openReader(r.Context(), m, o, body.Passphrase)
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
