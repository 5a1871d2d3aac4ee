package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/dentropy/dentropycloud/backup"
)

// backupRoutes are the routes of the API that are about backups and restores.
func backupRoutes() []caddy.AdminRoute {
	handle := func(f func(*State, *backup.Manager, http.ResponseWriter, *http.Request) error) caddy.AdminHandler {
		return guarded(func(w http.ResponseWriter, r *http.Request) error {
			s, err := current()
			var m *backup.Manager
			if err == nil {
				m, err = s.backups.get()
			}
			var problem apiProblem
			if errors.As(err, &problem) {
				return fail(w, http.StatusServiceUnavailable, problem, "")
			}
			return f(s, m, w, r)
		})
	}
	return []caddy.AdminRoute{
		{Pattern: "GET /dentropy/apps", Handler: handle(getApps)},
		{Pattern: "GET /dentropy/apps/{name}", Handler: handle(getApp)},
		{Pattern: "GET /dentropy/backups", Handler: handle(getBackups)},
		{Pattern: "POST /dentropy/backups", Handler: handle(postBackup)},
		{Pattern: "GET /dentropy/archives", Handler: handle(getArchives)},
		{Pattern: "GET /dentropy/archives/{store}/{name}", Handler: handle(getArchive)},
		{Pattern: "GET /dentropy/archives/{store}/{name}/download", Handler: handle(getArchiveFile)},
		{Pattern: "DELETE /dentropy/archives/{store}/{name}", Handler: handle(deleteArchive)},
		{Pattern: "GET /dentropy/restores", Handler: handle(getRestores)},
		{Pattern: "POST /dentropy/restores", Handler: handle(postRestore)},
		{Pattern: "POST /dentropy/restores/undo", Handler: handle(postUndo)},
		{Pattern: "GET /dentropy/jobs", Handler: handle(getJobs)},
		{Pattern: "GET /dentropy/jobs/{id}", Handler: handle(getJob)},
		{Pattern: "GET /dentropy/jobs/{id}/events", Handler: handle(getJobEvents)},
		{Pattern: "DELETE /dentropy/jobs/{id}", Handler: handle(deleteJob)},
		{Pattern: "GET /dentropy/backup/key", Handler: handle(getKey)},
		{Pattern: "POST /dentropy/backup/key", Handler: handle(postKey)},
	}
}

// mostRequest bounds the JSON of a request: settings and answers, never data.
const mostRequest = 4 << 20

// failBackup answers with an error of package backup: its hint, what it is about, and a
// status by its kind; 500 where nothing says otherwise.
func failBackup(w http.ResponseWriter, err error) error {
	status := http.StatusInternalServerError
	var ready *backup.NotReadyError
	var problem *backup.Problem
	switch {
	case errors.As(err, &ready), errors.Is(err, backup.ErrLocked), errors.Is(err, backup.ErrNoRecipient),
		errors.Is(err, backup.ErrAmbiguous), errors.Is(err, backup.ErrDowntime), errors.Is(err, fs.ErrExist):
		status = http.StatusConflict
	case errors.Is(err, backup.ErrLeftStopped): // whatever else: this is the news
	case errors.Is(err, fs.ErrNotExist):
		status = http.StatusNotFound
	case errors.Is(err, backup.ErrIncomplete), errors.Is(err, backup.ErrCorrupt), errors.Is(err, backup.ErrNoKey):
		status = http.StatusUnprocessableEntity
	case errors.As(err, &problem):
		status = http.StatusBadRequest
	}
	body := map[string]any{"error": err.Error(), "hint": backup.HintOf(err), "object": backup.ObjectOf(err)}
	if ready != nil {
		body["plan"] = ready.Plan.Shown()
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(body)
}

// platformProblem tells of a platform or store that cannot be used.
type platformProblem struct {
	Platform string `json:"platform,omitempty"`
	Store    string `json:"store,omitempty"`
	Error    string `json:"error"`
	Hint     string `json:"hint"`
}

func problemsOf(errs []error) []platformProblem {
	out := []platformProblem{}
	for _, err := range errs {
		p := platformProblem{Error: err.Error(), Hint: backup.HintOf(err)}
		var platform *backup.PlatformError
		var store *backup.StoreError
		switch {
		case errors.As(err, &platform):
			p.Platform, p.Error = platform.Platform, platform.Err.Error()
		case errors.As(err, &store):
			p.Store, p.Error = store.Store, store.Err.Error()
		}
		out = append(out, p)
	}
	return out
}

func getApps(_ *State, m *backup.Manager, w http.ResponseWriter, r *http.Request) error {
	apps, errs := m.Apps(r.Context())
	if apps == nil {
		apps = []backup.AppInfo{}
	}
	return answer(w, map[string]any{"apps": apps, "problems": problemsOf(errs)})
}

func getApp(_ *State, m *backup.Manager, w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	app, err := m.Capture(r.Context(), r.PathValue("name"), q.Get("platform"), backup.CaptureOptions{
		Images: q.Get("images"), Layers: q.Get("layers"), IncludePaths: q["include"], ExcludePaths: q["exclude"],
	})
	if err != nil {
		return failBackup(w, err)
	}
	public, _ := backup.Redact(app)
	return answer(w, public)
}

func getBackups(_ *State, m *backup.Manager, w http.ResponseWriter, _ *http.Request) error {
	runs, err := m.LastRuns()
	if err != nil {
		return failBackup(w, err)
	}
	return answer(w, map[string]any{"backups": runs})
}

// readJSON reads the body of a request. What is wrong with it has been answered when ok
// is false.
func readJSON(w http.ResponseWriter, r *http.Request, into any) (ok bool, err error) {
	// what a form on some website sends is no request
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		return false, fail(w, http.StatusUnsupportedMediaType, apiProblem{"the content type does not say that this is JSON", "send it as application/json"}, kind)
	}
	if err := decodeStrict(http.MaxBytesReader(w, r.Body, mostRequest), into); err != nil {
		return false, fail(w, http.StatusBadRequest, apiProblem{"the request cannot be read: " + err.Error(), "GET /dentropy/openapi.json says what it looks like"}, "")
	}
	return true, nil
}

// decodeStrict reads one JSON document: a misspelt option must not be passed over in
// silence.
func decodeStrict(r io.Reader, into any) error {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something behind it")
	}
	return nil
}

// isOn reads a switch of a query.
func isOn(r *http.Request, key string) bool {
	on, err := strconv.ParseBool(r.URL.Query().Get(key))
	return err == nil && on
}

// newJob registers a job under the id that the client has chosen, if it has. What is
// wrong with that has been answered when job is nil.
func newJob(m *backup.Manager, kind string, w http.ResponseWriter, r *http.Request) (*backup.Job, error) {
	job, err := m.NewJob(kind, r.URL.Query().Get("job"))
	if err != nil {
		return nil, fail(w, http.StatusConflict, apiProblem{err.Error(), backup.HintOf(err)}, r.URL.Query().Get("job"))
	}
	w.Header().Set("Dentropy-Job", job.ID())
	return job, nil
}

// accepted answers that a job goes on by itself.
func accepted(w http.ResponseWriter, job *backup.Job) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusAccepted)
	return json.NewEncoder(w).Encode(map[string]string{"job": job.ID()})
}

// backupBody is a BackupRequest as it comes.
type backupBody struct {
	backup.BackupRequest
	Passphrase string `json:"passphrase,omitempty"`
}

func postBackup(_ *State, m *backup.Manager, w http.ResponseWriter, r *http.Request) error {
	var body backupBody
	if ok, err := readJSON(w, r, &body); !ok {
		return err
	}
	req := body.BackupRequest
	req.Passphrase = body.Passphrase
	for _, to := range req.Recipients {
		if strings.HasPrefix(strings.TrimSpace(to), "@") { // the verbs read theirs themselves
			return fail(w, http.StatusBadRequest, apiProblem{"a recipient is given as a file", "give the recipients themselves"}, "")
		}
	}
	to := r.URL.Query().Get("to")
	if to != "" && to != "-" {
		return fail(w, http.StatusBadRequest, apiProblem{"to can only be -", "name a store in the request instead"}, to)
	}
	if err := m.CheckRecipients(req); err != nil {
		return failBackup(w, err)
	}
	kind := "backup"
	if req.DryRun {
		kind = "estimate"
	}
	job, err := newJob(m, kind, w, r)
	if job == nil {
		return err
	}
	switch {
	case req.DryRun:
		if to == "-" {
			req.Out = io.Discard
		}
		res, err := m.Backup(r.Context(), job, req)
		if err != nil {
			return failBackup(w, err)
		}
		public, _ := backup.Redact(res.App)
		return answer(w, map[string]any{"app": public, "estimate": res.Estimate, "warnings": nonNil(res.Warnings)})
	case to == "-":
		return streamBackup(m, job, req, w, r)
	}
	go func() {
		// its error is the job's; the client may go, and the job ends with the manager
		_, _ = m.Backup(context.WithoutCancel(r.Context()), job, req)
	}()
	return accepted(w, job)
}

func nonNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// noDeadlines takes the admin server's read timeout off a request that lasts.
func noDeadlines(w http.ResponseWriter) error {
	rc := http.NewResponseController(w)
	for _, set := range []func(time.Time) error{rc.SetReadDeadline, rc.SetWriteDeadline} {
		if err := set(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
	}
	return nil
}

// streamBackup sends the archive as the answer. An error after its first byte breaks the
// connection off, so that no client takes what it has for the whole.
func streamBackup(m *backup.Manager, job *backup.Job, req backup.BackupRequest, w http.ResponseWriter, r *http.Request) error {
	if err := noDeadlines(w); err != nil {
		job.End(err)
		return err
	}
	kind := "application/x-tar"
	if req.Encryption == "" || req.Encryption == "all" {
		kind = "application/age"
	}
	out := newArchiveWriter(w, job, kind)
	req.Out = out
	stop := endWith(job, out.rc.SetWriteDeadline)
	req.Named = func(name string) {
		w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
	}
	res, err := m.Backup(r.Context(), job, req)
	stop()
	begun := out.end()
	if err != nil {
		if !begun {
			return failBackup(w, err)
		}
		panic(http.ErrAbortHandler) // net/http's own way to end a response
	}
	w.Header().Set("Dentropy-Sha256", res.SHA256)
	w.Header().Set("Dentropy-Size", strconv.FormatInt(res.Size, 10))
	return nil
}

// keyAnswer is what can be shown of the keys.
type keyAnswer struct {
	backup.KeyStatus
	Configured []string `json:"configured"`
	Created    bool     `json:"created,omitempty"`
}

func getKey(s *State, m *backup.Manager, w http.ResponseWriter, _ *http.Request) error {
	st, err := m.KeyStatus()
	if err != nil {
		return failBackup(w, err)
	}
	return answer(w, keyAnswer{KeyStatus: st, Configured: s.backups.recipients()})
}

// postKey makes this installation's key where there is none. The private half never
// comes through the API: the recovery kit is printed by a verb that reads the file.
func postKey(s *State, m *backup.Manager, w http.ResponseWriter, _ *http.Request) error {
	created, err := m.EnsureKey()
	if err != nil {
		return failBackup(w, err)
	}
	st, err := m.KeyStatus()
	if err != nil {
		return failBackup(w, err)
	}
	return answer(w, keyAnswer{KeyStatus: st, Configured: s.backups.recipients(), Created: created})
}

// recipients are those of the config, as they are written there.
func (b *backups) recipients() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string{}, b.extra...)
}
