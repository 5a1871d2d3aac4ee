package dentropycmd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dentropy/dentropycloud/backup"
)

// fakeAPI is the part of the admin API that the verbs about backups use.
type fakeAPI struct {
	t   *testing.T
	mux *http.ServeMux
	dir string // data folder with its socket

	mu       sync.Mutex
	requests []string
	views    map[string][]backup.JobView // by job; the last one is repeated
	cancels  map[string]chan struct{}
	key      map[string]any
}

func newFakeAPI(t *testing.T) *fakeAPI {
	t.Helper()
	t.Setenv("DENTROPY_ADMIN", "")
	a := &fakeAPI{t: t, mux: http.NewServeMux(), views: map[string][]backup.JobView{}, cancels: map[string]chan struct{}{},
		key: map[string]any{"recipients": []string{"age1example"}, "private": true, "stored": true, "configured": []string{}}}
	a.mux.HandleFunc("GET /dentropy/backup/key", func(w http.ResponseWriter, _ *http.Request) { a.answer(w, http.StatusOK, a.key) })
	a.mux.HandleFunc("GET /dentropy/jobs/{id}/events", a.events)
	a.mux.HandleFunc("DELETE /dentropy/jobs/{id}", func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		a.mu.Lock()
		defer a.mu.Unlock()
		if c := a.cancels[id]; c != nil {
			close(c)
			a.cancels[id] = nil
		}
		a.answer(w, http.StatusAccepted, map[string]string{"job": id})
	})
	a.dir = adminServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		uri := r.RequestURI
		if job := r.URL.Query().Get("job"); job != "" {
			uri = strings.ReplaceAll(uri, job, "JOB")
		}
		if !strings.Contains(uri, "/jobs/") && !strings.Contains(uri, "/backup/key") {
			a.requests = append(a.requests, r.Method+" "+uri)
		}
		a.mu.Unlock()
		a.mux.ServeHTTP(w, r)
	}))
	return a
}

func (a *fakeAPI) answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		a.t.Error(err)
	}
}

// job makes a job known, as it will be seen. Its end waits for a cancel where
// untilCancelled is set.
func (a *fakeAPI) job(id string, untilCancelled bool, views ...backup.JobView) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.views[id] = views
	if untilCancelled {
		a.cancels[id] = make(chan struct{})
	}
}

func (a *fakeAPI) events(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	a.mu.Lock()
	views, cancelled := a.views[id], a.cancels[id]
	a.mu.Unlock()
	if views == nil {
		a.answer(w, http.StatusNotFound, map[string]string{"error": "there is no such job"})
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, ": still here\n\n")
	for i, v := range views {
		if i == len(views)-1 && cancelled != nil {
			select {
			case <-cancelled:
			case <-r.Context().Done():
				return
			}
		}
		raw, err := json.Marshal(v)
		if err != nil {
			a.t.Error(err)
		}
		_, _ = fmt.Fprintf(w, "data: %s\n\n", raw)
		_ = http.NewResponseController(w).Flush()
	}
}

func (a *fakeAPI) asked() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.requests)
}

// dryRun answers a dry run, and reports whether the request was one.
func (a *fakeAPI) dryRun(w http.ResponseWriter, r *http.Request) bool {
	var req backup.BackupRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		a.t.Error(err)
	}
	if req.DryRun {
		a.answer(w, http.StatusOK, map[string]any{"app": backup.App{Name: "shop", Platform: "docker"}, "warnings": []string{},
			"estimate": backup.Estimate{Bytes: 2e6, Files: 21, Downtime: 9 * time.Second, Stops: []string{"shop-web-1", "shop-db-1"}}})
	}
	return req.DryRun
}

// fakeTTY is somebody who types.
type fakeTTY struct{ io.Reader }

func (fakeTTY) Talks() bool { return true }

// runTalk runs one command line with somebody in front of it, where typed is not nil.
func runTalk(ctx context.Context, typed io.Reader, args ...string) (stdout, stderr string, err error) {
	root := &cobra.Command{Use: "dentropy"}
	for _, v := range verbs() {
		c := &cobra.Command{Use: v.name}
		v.setUp(c)
		finish(c)
		root.AddCommand(c)
	}
	var out, errOut bytes.Buffer
	root.SetIn(strings.NewReader(""))
	if typed != nil {
		root.SetIn(typed)
	}
	root.SetOut(&out)
	root.SetErr(&errOut)
	root.SetArgs(args)
	err = root.ExecuteContext(ctx)
	return out.String(), errOut.String(), err
}

func running(phase, text string) backup.JobView {
	return backup.JobView{State: "running", Progress: backup.Progress{Phase: phase, Text: text}}
}

func TestBackupIsHandedOver(t *testing.T) {
	a := newFakeAPI(t)
	var body map[string]any
	a.mux.HandleFunc("POST /dentropy/backups", func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		id := r.URL.Query().Get("job")
		a.job(id, false, running("quiesce", "stopping shop-db-1"), backup.JobView{State: "done",
			Result: backup.BackupResult{Archive: "shop-20261124T101500Z-1f2e3d4c.dentropy.tar.age", Store: "local", Size: 1.2e9, Took: 31 * time.Second,
				Encrypted: "all", Quiesce: backup.QuiesceReport{Stopped: []backup.StoppedContainer{{Name: "shop-db-1"}}, Downtime: 12 * time.Second, DataDowntime: 3 * time.Second}}})
		a.answer(w, http.StatusAccepted, map[string]string{"job": id})
	})
	out, errOut, err := runTalk(t.Context(), nil, "backup", "shop", "--data-dir", a.dir, "--mode", "stop", "--max-downtime", "1m", "--exclude", "cache")
	if err != nil {
		t.Fatalf("backup = %v, %s", err, errOut)
	}
	want := "shop is backed up\n  archive    local:shop-20261124T101500Z-1f2e3d4c.dentropy.tar.age\n  size       1.2 GB\n" +
		"  downtime   12 s (3.0 s of it reading)\n  took       31 s\n  encrypted  all of it\n"
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("stdout differs (-want +got):\n%s", diff)
	}
	if want := "bringing the app to rest: stopping shop-db-1\n"; errOut != want {
		t.Errorf("stderr = %q, want %q", errOut, want)
	}
	if diff := cmp.Diff([]string{"POST /dentropy/backups?job=JOB"}, a.asked()); diff != "" {
		t.Errorf("requests differ (-want +got):\n%s", diff)
	}
	wantBody := map[string]any{"app": "shop", "max_downtime": float64(time.Minute), "capture": map[string]any{"exclude": []any{"cache"}}, "freeze": map[string]any{"mode": "stop"}}
	if diff := cmp.Diff(wantBody, body); diff != "" {
		t.Errorf("the request differs (-want +got):\n%s", diff)
	}
}

func TestQuietBackupTellsWarnings(t *testing.T) {
	a := newFakeAPI(t)
	a.mux.HandleFunc("POST /dentropy/backups", func(w http.ResponseWriter, r *http.Request) {
		id := r.URL.Query().Get("job")
		warnings := []string{"hook dentropy.backup.post of shop-db-1 ended with code 9"}
		a.job(id, false, running("read", ""), backup.JobView{State: "done", Warnings: warnings, Result: backup.BackupResult{Warnings: warnings}})
		a.answer(w, http.StatusAccepted, map[string]string{"job": id})
	})
	out, errOut, err := runTalk(t.Context(), nil, "backup", "shop", "--data-dir", a.dir, "--quiet")
	if want := "dentropy: shop: hook dentropy.backup.post of shop-db-1 ended with code 9\n"; err != nil || out != "" || errOut != want {
		t.Errorf("backup --quiet = %q, %q, %v, want %q on standard error", out, errOut, err, want)
	}
}

func TestLostJobSaysWhoBringsTheAppBack(t *testing.T) {
	a := newFakeAPI(t)
	seen := make(chan struct{})
	go func() { // another one takes its place, which does not know the job
		<-seen
		a.mu.Lock()
		defer a.mu.Unlock()
		clear(a.views)
	}()
	c, err := newClient(addressOf(t, a.dir), os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	id := newJobID()
	a.job(id, false, running("read", "")) // its stream ends, and the job has not
	_, err = followJob(t.Context(), c, id, func(backup.JobView) {
		select {
		case <-seen:
		default:
			close(seen)
		}
	})
	if _, ok := errors.AsType[*lostJobError](err); !ok {
		t.Errorf("followJob = %v, want that the job is lost", err)
	}
}

// addressOf are the flags that lead to the API in a folder.
func addressOf(t *testing.T, dir string) *pflag.FlagSet {
	t.Helper()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	addressFlags(fs)
	if err := fs.Parse([]string{"--data-dir", dir}); err != nil {
		t.Fatal(err)
	}
	return fs
}

func TestBackupAsksFirst(t *testing.T) {
	a := newFakeAPI(t)
	a.key["stored"] = false
	a.mux.HandleFunc("POST /dentropy/backups", func(w http.ResponseWriter, r *http.Request) {
		if a.dryRun(w, r) {
			return
		}
		id := r.URL.Query().Get("job")
		a.job(id, false, backup.JobView{State: "done", Result: backup.BackupResult{Archive: "x", Store: "local"}})
		a.answer(w, http.StatusAccepted, map[string]string{"job": id})
	})
	_, errOut, err := runTalk(t.Context(), fakeTTY{strings.NewReader("n\n")}, "backup", "shop", "--data-dir", a.dir)
	if err == nil || !strings.Contains(errOut, "stops     shop-web-1, shop-db-1\n  downtime  about 9.0 s\n") ||
		!strings.HasSuffix(errOut, "dentropy: not backed up, as you said: nothing was stopped\n") {
		t.Errorf("with n: %v\n%s", err, errOut)
	}
	if got := a.asked(); len(got) != 1 {
		t.Errorf("with n, the requests are %q, want the dry run alone", got)
	}
	_, errOut, err = runTalk(t.Context(), fakeTTY{strings.NewReader("\n")}, "backup", "shop", "--data-dir", a.dir)
	if err != nil || !strings.Contains(errOut, "dentropy backup key") {
		t.Errorf("with Enter: %v, want a backup and a word about the key\n%s", err, errOut)
	}
}

// The kit is that of the key which the running dentropy encrypts to, wherever that is.
func TestBackupKeyIsTheirs(t *testing.T) {
	a := newFakeAPI(t)
	folder := filepath.Join(t.TempDir(), "elsewhere")
	theirs, err := backup.OpenKeys(folder)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := theirs.Ensure(); err != nil {
		t.Fatal(err)
	}
	a.key["folder"], a.key["recipients"] = folder, theirs.Status().Recipients
	kit, err := theirs.Kit()
	if err != nil {
		t.Fatal(err)
	}
	out, errOut, err := runTalk(t.Context(), nil, "backup", "key", "--data-dir", a.dir)
	if err != nil || out != kit {
		t.Errorf("backup key = %v, another kit\n%s", err, errOut)
	}
	a.key["folder"] = t.TempDir() // of another machine, or container
	out, errOut, err = runTalk(t.Context(), nil, "backup", "key", "--data-dir", a.dir)
	if err == nil || out != "" || !strings.Contains(errOut, "where that dentropy runs") {
		t.Errorf("backup key without their key = %v, %q\n%s", err, out, errOut)
	}
}

// sentName is the name that the API gives an archive which it streams.
const sentName = "shop-20261124T101500Z-0a1b2c3d.dentropy.tar.age"

// sendArchive streams an archive as the API does.
func sendArchive(w http.ResponseWriter, text string, whole bool) {
	w.Header().Set("Content-Type", "application/age")
	w.Header().Set("Content-Disposition", `attachment; filename="`+sentName+`"`)
	w.Header().Set("Trailer", "Dentropy-Sha256, Dentropy-Size")
	_, _ = io.WriteString(w, text)
	_ = http.NewResponseController(w).Flush()
	if !whole {
		panic(http.ErrAbortHandler)
	}
	sum := sha256.Sum256([]byte(text))
	w.Header().Set("Dentropy-Sha256", hex.EncodeToString(sum[:]))
	w.Header().Set("Dentropy-Size", strconv.Itoa(len(text)))
}

func TestBackupToHere(t *testing.T) {
	for _, whole := range []bool{true, false} {
		a := newFakeAPI(t)
		a.mux.HandleFunc("POST /dentropy/backups", func(w http.ResponseWriter, r *http.Request) {
			if a.dryRun(w, r) {
				return
			}
			if r.URL.Query().Get("to") != "-" {
				t.Errorf("to = %q, want -", r.URL.Query().Get("to"))
			}
			end := backup.JobView{State: "done", Result: backup.BackupResult{Size: 7, Encrypted: "all"}}
			if !whole {
				end = backup.JobView{State: "failed", Error: "the transit volume is gone", Hint: "try again"}
			}
			a.job(r.URL.Query().Get("job"), false, running("read", ""), end)
			sendArchive(w, "archive", whole)
		})
		out, errOut, err := runTalk(t.Context(), nil, "backup", "shop", "-o", "-", "--data-dir", a.dir)
		if whole != (err == nil) || out != "archive" {
			t.Errorf("-o - (whole: %v) = %v, %q, %s", whole, err, out, errOut)
		}
		folder := t.TempDir()
		out, errOut, err = runTalk(t.Context(), nil, "backup", "shop", "-o", folder, "--data-dir", a.dir)
		list, _ := filepath.Glob(filepath.Join(folder, "*"))
		if !whole {
			if err == nil || len(list) != 0 || !strings.HasSuffix(errOut, "dentropy: the transit volume is gone: try again\n") {
				t.Errorf("-o FOLDER of an archive that is not whole = %v, %q\n%s", err, list, errOut)
			}
			continue
		}
		if err != nil || len(list) != 1 {
			t.Fatalf("-o FOLDER = %v, %q\n%s", err, list, errOut)
		}
		if name := filepath.Base(list[0]); name != sentName {
			t.Errorf("the archive is called %q, want %q", name, sentName)
		}
		if text, err := os.ReadFile(list[0]); string(text) != "archive" || !strings.Contains(out, list[0]) {
			t.Errorf("%q holds %q, %v; stdout %q", list[0], text, err, out)
		}
	}
}

func TestWrongHashIsNoArchive(t *testing.T) {
	a := newFakeAPI(t)
	a.mux.HandleFunc("POST /dentropy/backups", func(w http.ResponseWriter, r *http.Request) {
		if a.dryRun(w, r) {
			return
		}
		a.job(r.URL.Query().Get("job"), false, backup.JobView{State: "done", Result: backup.BackupResult{}})
		w.Header().Set("Content-Disposition", `attachment; filename="`+sentName+`"`)
		w.Header().Set("Trailer", "Dentropy-Sha256, Dentropy-Size")
		_, _ = io.WriteString(w, "archive")
		w.Header().Set("Dentropy-Sha256", strings.Repeat("0", 64))
		w.Header().Set("Dentropy-Size", "7")
	})
	folder := t.TempDir()
	_, errOut, err := runTalk(t.Context(), nil, "backup", "shop", "-o", folder, "--data-dir", a.dir)
	list, _ := filepath.Glob(filepath.Join(folder, "*"))
	if err == nil || len(list) != 0 || !strings.Contains(errOut, "its hash is not the one") {
		t.Errorf("an archive with a wrong hash: %v, %q\n%s", err, list, errOut)
	}
}

func TestInterruptedBackupIsCancelledAndAwaited(t *testing.T) {
	a := newFakeAPI(t)
	ctx, cancel := context.WithCancel(t.Context())
	a.mux.HandleFunc("POST /dentropy/backups", func(w http.ResponseWriter, r *http.Request) {
		id := r.URL.Query().Get("job")
		a.job(id, true, running("read", ""), backup.JobView{State: "cancelled"})
		a.answer(w, http.StatusAccepted, map[string]string{"job": id})
		cancel() // as Ctrl-C does
	})
	_, errOut, err := runTalk(ctx, nil, "backup", "shop", "--data-dir", a.dir)
	if err == nil || !strings.HasSuffix(errOut, "dentropy: stopped on request\n") {
		t.Errorf("interrupted: %v\n%s", err, errOut)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, c := range a.cancels {
		if c != nil {
			t.Errorf("job %s was not cancelled", id)
		}
	}
}

func TestRefusalIsShown(t *testing.T) {
	a := newFakeAPI(t)
	a.mux.HandleFunc("POST /dentropy/backups", func(w http.ResponseWriter, _ *http.Request) {
		a.answer(w, http.StatusConflict, map[string]string{"error": "another backup of shop runs", "hint": "wait for it", "object": "shop"})
	})
	for _, args := range [][]string{nil, {"-o", "-"}} {
		_, errOut, err := runTalk(t.Context(), nil, append([]string{"backup", "shop", "--data-dir", a.dir}, args...)...)
		if err == nil || errOut != "dentropy: another backup of shop runs: wait for it\n" {
			t.Errorf("%q refused = %v, %q", args, err, errOut)
		}
	}
}

func TestJobs(t *testing.T) {
	a := newFakeAPI(t)
	began := time.Now().Add(-3 * time.Minute)
	failed := backup.JobView{ID: "0123456789ab", Kind: "backup", App: "shop", State: "failed", Started: began, Ended: began.Add(12 * time.Second), Error: "no space \x1b[31m"}
	a.mux.HandleFunc("GET /dentropy/jobs", func(w http.ResponseWriter, _ *http.Request) {
		a.answer(w, http.StatusOK, map[string]any{"jobs": []backup.JobView{failed}})
	})
	a.mux.HandleFunc("GET /dentropy/jobs/{id}", func(w http.ResponseWriter, r *http.Request) {
		v := failed
		if r.PathValue("id") == "aaaaaaaaaaaa" {
			v = running("read", "")
			v.ID = "aaaaaaaaaaaa"
		}
		a.answer(w, http.StatusOK, v)
	})
	out, _, err := runTalk(t.Context(), nil, "jobs", "--data-dir", a.dir)
	want := "JOB           KIND    APP   BEGAN  TOOK  STATE\n0123456789ab  backup  shop  3m     12 s  failed  no space ·[31m\n"
	if err != nil || out != want {
		t.Errorf("jobs = %q, %v, want %q", out, err, want)
	}
	_, errOut, err := runTalk(t.Context(), nil, "jobs", "0123456789ab", "--data-dir", a.dir)
	if err == nil || errOut != "dentropy: no space ·[31m\n" {
		t.Errorf("jobs of a failed one = %v, %q", err, errOut)
	}
	a.job("aaaaaaaaaaaa", true, running("read", ""), backup.JobView{ID: "aaaaaaaaaaaa", State: "cancelled"})
	if _, errOut, err := runTalk(t.Context(), nil, "jobs", "aaaaaaaaaaaa", "--cancel", "--data-dir", a.dir); err != nil {
		t.Errorf("jobs --cancel = %v, %s", err, errOut)
	}
}
