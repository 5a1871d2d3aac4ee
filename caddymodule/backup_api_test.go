package caddymodule

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
)

func TestBackupAPI(t *testing.T) {
	b := newBackupWorld(t)
	var apps struct {
		Apps     []backup.AppInfo
		Problems []platformProblem
	}
	if got := b.call("GET", "apps", nil, &apps); got != 200 || len(apps.Apps) != 2 || apps.Apps[0].Name != "shop" || apps.Apps[1].Name != "dentropy" || len(apps.Problems) > 0 {
		t.Errorf("apps: %d %+v", got, apps)
	}
	var app backup.App
	if got := b.call("GET", "apps/shop", nil, &app); got != 200 || app.Name != "shop" {
		t.Errorf("app: %d %+v", got, app)
	}
	var failed failure
	if got := b.call("GET", "apps/nobody", nil, &failed); got != 404 || failed.Hint == "" {
		t.Errorf("no such app: %d %+v", got, failed)
	}

	// without a key nothing is written, and it says what to do
	if got := b.call("POST", "backups", backup.BackupRequest{App: "shop"}, &failed); got != 409 || !strings.Contains(failed.Hint, "dentropy backup key") {
		t.Errorf("without a key: %d %+v", got, failed)
	}
	var key keyAnswer
	if got := b.call("POST", "backup/key", nil, &key); got != 200 || !key.Created || len(key.Recipients) != 1 {
		t.Errorf("key: %d %+v", got, key)
	}
	key = keyAnswer{}
	if got := b.call("GET", "backup/key", nil, &key); got != 200 || key.Created || !key.Private || key.Stored {
		t.Errorf("key: %d %+v", got, key)
	}
	var dry struct {
		App      *backup.App
		Estimate *backup.Estimate
		Warnings []string
	}
	if got := b.call("POST", "backups", backup.BackupRequest{App: "shop", DryRun: true}, &dry); got != 200 || dry.Estimate == nil || dry.App == nil || dry.Warnings == nil {
		t.Errorf("dry run: %d %+v", got, dry)
	}
	if got := b.call("POST", "backups", map[string]string{"app": "shop", "encyption": "none"}, &failed); got != 400 {
		t.Errorf("a misspelt option: %d", got)
	}
	var begun struct{ Job string }
	if got := b.call("POST", "backups?job=00000000000a", backup.BackupRequest{App: "shop"}, &begun); got != 202 || begun.Job != "00000000000a" {
		t.Fatalf("backup: %d %+v", got, begun)
	}
	if v := b.job(begun.Job); v.State != "done" || v.App != "shop" || v.Kind != "backup" {
		t.Fatalf("job = %+v", v)
	}
	b.running()
	if got := b.call("POST", "backups?job=00000000000a", backup.BackupRequest{App: "shop"}, &failed); got != 409 {
		t.Errorf("an id that is taken: %d", got)
	}
	var runs struct{ Backups []backup.LastRun }
	if got := b.call("GET", "backups", nil, &runs); got != 200 || len(runs.Backups) != 1 || runs.Backups[0].LastSuccess.IsZero() {
		t.Errorf("backups: %d %+v", got, runs)
	}
	var archives struct {
		Archives map[string][]backup.Entity
		Problems []platformProblem
	}
	if got := b.call("GET", "archives", nil, &archives); got != 200 || len(archives.Archives["local"]) != 1 || archives.Problems == nil {
		t.Fatalf("archives: %d %+v", got, archives)
	}
	name := archives.Archives["local"][0].Name
	var one archiveAnswer
	if got := b.call("GET", "archives/local/"+name, nil, &one); got != 200 || one.Manifest == nil || one.Manifest.App.Name != "shop" || one.Size == 0 {
		t.Errorf("archive: %d %+v", got, one)
	}
	if got := b.call("GET", "archives/local/none.dentropy.tar", nil, &failed); got != 404 {
		t.Errorf("no such archive: %d", got)
	}
	b.restore(name)
	if got := b.call("DELETE", "archives/local/"+name, nil, &failed); got != 409 {
		t.Errorf("delete without yes: %d", got)
	}
	if got := b.call("DELETE", "archives/local/"+name+"?yes=1", nil, nil); got != 200 {
		t.Errorf("delete: %d", got)
	}
	var jobs struct{ Jobs []backup.JobView }
	if got := b.call("GET", "jobs", nil, &jobs); got != 200 || len(jobs.Jobs) < 4 {
		t.Errorf("jobs: %d %+v", got, jobs)
	}
	var job backup.JobView
	if got := b.call("GET", "jobs/00000000000a", nil, &job); got != 200 || job.State != "done" {
		t.Errorf("job: %d %+v", got, job)
	}
	if got := b.call("GET", "jobs/ffffffffffff", nil, &failed); got != 404 || failed.Hint == "" {
		t.Errorf("no such job: %d %+v", got, failed)
	}
	s, _ := current()
	var kinds []string
	for _, e := range s.journal.last(0) {
		if e.Kind == "backup" || e.Kind == "restore" {
			kinds = append(kinds, e.Text)
		}
	}
	for _, want := range []string{"running again", "backup done", "restore done", "undo done"} {
		if !slices.Contains(kinds, want) {
			t.Errorf("events = %q, want %q among them", kinds, want)
		}
	}
}

// restore restores the archive in the ways there are, and takes it back.
func (b *backupWorld) restore(name string) {
	t := b.t
	t.Helper()
	if err := b.engine.Write("data", "rows", "changed"); err != nil {
		t.Fatal(err)
	}
	type planAnswer struct {
		failure
		Plan     *backup.Plan
		Manifest *backup.Manifest
		Result   *backup.RestoreResult
	}
	replace := backup.Answers{OnConflict: "replace"}
	var ans planAnswer
	if got := b.call("POST", "restores", restoreBody{Archive: name, DryRun: true}, &ans); got != 200 || ans.Plan == nil || ans.Plan.Ready() || ans.Manifest == nil {
		t.Errorf("plan: %d %+v", got, ans)
	}
	var begun struct{ Job string }
	if got := b.call("POST", "restores", restoreBody{Archive: name, Answers: replace}, &begun); got != 202 {
		t.Fatalf("restore: %d", got)
	}
	if v := b.job(begun.Job); v.State != "done" {
		t.Fatalf("restore = %+v", v)
	}
	if files, err := b.engine.Files("data"); err != nil || files["rows"] == "changed" {
		t.Errorf("data = %v, %v, want what is in the archive", files, err)
	}
	var undos struct{ Undos []map[string]any }
	if got := b.call("GET", "restores", nil, &undos); got != 200 || len(undos.Undos) != 1 || undos.Undos[0]["detail"] != nil {
		t.Errorf("undos: %d %+v", got, undos)
	}
	if got := b.call("POST", "restores/undo", map[string]string{"app": "shop"}, &begun); got != 202 {
		t.Fatalf("undo: %d", got)
	}
	if v := b.job(begun.Job); v.State != "done" {
		t.Errorf("undo = %+v", v)
	}
	if got := b.call("POST", "restores/undo", map[string]string{}, &ans); got != 404 || ans.Hint == "" {
		t.Errorf("nothing to undo: %d %+v", got, ans)
	}

	// the same with the archive as the request
	resp, err := http.Get(b.api.URL + "/dentropy/archives/local/" + name + "/download")
	if err != nil {
		t.Fatal(err)
	}
	archive, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.Header.Get("Content-Type") != "application/age" {
		t.Fatalf("download: %v, %v", resp.Header, err)
	}
	replacing := func(archive []byte) form { return form{`{"on_conflict":"replace"}`, archive} }
	ans = planAnswer{}
	if got := b.call("POST", "restores?dry_run=1", replacing(archive), &ans); got != 200 || ans.Plan == nil || !ans.Plan.Ready() {
		t.Errorf("plan: %d %+v", got, ans)
	}
	if got := b.call("POST", "restores", archive, &ans); got != 409 || ans.Plan == nil || ans.Plan.Ready() || ans.Hint == "" {
		t.Errorf("a conflict: %d %+v", got, ans)
	}
	if got := b.call("POST", "restores", replacing(archive[:len(archive)-100]), &ans); got != 422 {
		t.Errorf("an archive that is cut off: %d", got)
	}
	if files, err := b.engine.Files("data"); err != nil || files["rows"] != "changed" {
		t.Errorf("data = %v, %v, want it untouched", files, err)
	}
	if got := b.call("POST", "restores", replacing([]byte("no archive")), &ans); got != 422 {
		t.Errorf("no archive: %d", got)
	}
	ans = planAnswer{}
	if got := b.call("POST", "restores?job=0000000000aa", replacing(archive), &ans); got != 200 || ans.Result == nil || ans.Result.Undo != "0000000000aa" {
		t.Errorf("restore: %d %+v", got, ans)
	}
	if files, err := b.engine.Files("data"); err != nil || files["rows"] == "changed" {
		t.Errorf("data = %v, %v, want what is in the archive", files, err)
	}
	b.running()
	for _, answers := range []string{`{"on_conflict":"replace"}x`, "x", `{"on_conflicts":"replace"}`, ""} {
		if got := b.call("POST", "restores", form{answers, archive}, &ans); got != 400 {
			t.Errorf("answers %q: %d, want 400", answers, got)
		}
	}
}

func TestBackupDownloadRange(t *testing.T) {
	b := newBackupWorld(t)
	var begun struct{ Job string }
	if got := b.call("POST", "backups", backup.BackupRequest{App: "shop", Encryption: "none"}, &begun); got != 202 {
		t.Fatal(got)
	}
	b.job(begun.Job)
	list, err := b.store.List(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	req, _ := http.NewRequestWithContext(t.Context(), "GET", b.api.URL+"/dentropy/archives/local/"+list[0].Name+"/download", nil)
	req.Header.Set("Range", "bytes=512-1023")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if raw, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 206 || len(raw) != 512 || !bytes.HasPrefix(raw, []byte("dentropy")) {
		t.Errorf("range: %d %q, %v", resp.StatusCode, raw, err)
	}
}

// stream asks for a backup as the answer.
func (b *backupWorld) stream(body any) (*http.Response, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		b.t.Fatal(err)
	}
	return http.Post(b.api.URL+"/dentropy/backups?to=-&job=00000000000b", "application/json", bytes.NewReader(raw))
}

func TestBackupStream(t *testing.T) {
	b := newBackupWorld(t)
	resp, err := b.stream(backup.BackupRequest{App: "shop", Encryption: "none"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != 200 || resp.Header.Get("Dentropy-Job") != "00000000000b" || resp.Header.Get("Content-Type") != "application/x-tar" {
		t.Errorf("answer = %d %v", resp.StatusCode, resp.Header)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	in, err := backup.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Finish(t.Context()); err != nil {
		t.Error(err)
	}
	var planned struct{ Plan *backup.Plan }
	if got := b.call("POST", "restores?dry_run=1", raw[:len(raw)-4096], &planned); got != 200 || planned.Plan == nil {
		t.Errorf("plan of an archive without its end: %d", got)
	}
	if got := resp.Trailer.Get("Dentropy-Size"); got != fmt.Sprint(len(raw)) || resp.Trailer.Get("Dentropy-Sha256") == "" {
		t.Errorf("trailer = %v, and %d bytes came", resp.Trailer, len(raw))
	}
	b.running()
}

// An archive that fails on its way does not end like a whole one.
func TestBackupStreamBreaksOff(t *testing.T) {
	b := newBackupWorld(t)
	b.platform.Step = func(step string) error {
		if step == "index" {
			return errWrong
		}
		return nil
	}
	resp, err := b.stream(backup.BackupRequest{App: "shop", Encryption: "none"})
	if err == nil {
		defer func() { _ = resp.Body.Close() }()
		switch resp.StatusCode {
		case 200:
			_, err = io.ReadAll(resp.Body)
		default: // nothing had been sent
			err = errWrong
		}
	}
	if err == nil {
		t.Error("the answer ends as if it were whole")
	}
	eventually(t, "the job has failed", func() bool { return b.job("00000000000b").State == "failed" })
	b.running()

	b.platform.Step = func(step string) error {
		if step == "estimate" {
			return errWrong
		}
		return nil
	}
	var failed failure
	if got := b.call("POST", "backups?to=-", backup.BackupRequest{App: "shop", Encryption: "none"}, &failed); got != 500 || failed.Error == "" {
		t.Errorf("an error before the first byte: %d %+v", got, failed)
	}
}

func TestBackupCancelByAPI(t *testing.T) {
	b := newBackupWorld(t)
	inside := make(chan struct{})
	b.platform.Step = func(step string) error {
		if step == "read:data" {
			close(inside)
			// as a slow disk: until somebody cancels
			eventually(t, "it is cancelled", func() bool { return b.call("DELETE", "jobs/00000000000c", nil, nil) == 202 })
		}
		return nil
	}
	if got := b.call("POST", "backups?job=00000000000c", backup.BackupRequest{App: "shop", Encryption: "none"}, nil); got != 202 {
		t.Fatal(got)
	}
	<-inside
	if v := b.job("00000000000c"); v.State != "cancelled" {
		t.Errorf("job = %+v, want it cancelled", v)
	}
	b.running()
	if list, err := b.store.List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("archives = %v, %v, want none", list, err)
	}
}

func TestBackupAPIAgreesWithOpenAPI(t *testing.T) {
	b := newBackupWorld(t)
	doc := readAPIDoc(t)
	const job = "0000000000d0"
	if got := b.call("POST", "backup/key", nil, nil); got != 200 {
		t.Fatal(got)
	}
	if got := b.call("POST", "backups?job="+job, backup.BackupRequest{App: "shop"}, nil); got != 202 {
		t.Fatal(got)
	}
	b.job(job)
	list, err := b.store.List(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	name := list[0].Name
	tests := []struct {
		method, path, url, body string
		status                  int
	}{
		{"post", "/dentropy/restores", "restores?job=0000000000d1", `{"archive":"` + name + `","answers":{"on_conflict":"replace"}}`, 202},
		{"get", "/dentropy/jobs/{id}/events", "jobs/0000000000d1/events", "", 200},
		{"get", "/dentropy/apps", "apps", "", 200},
		{"get", "/dentropy/apps/{name}", "apps/shop", "", 200},
		{"get", "/dentropy/apps/{name}", "apps/nobody", "", 404},
		{"get", "/dentropy/backups", "backups", "", 200},
		{"post", "/dentropy/backups", "backups", `{"app":"shop","dry_run":true}`, 200},
		{"post", "/dentropy/backups", "backups", `{"app":"nobody","dry_run":true}`, 404},
		{"post", "/dentropy/backups", "backups", `{`, 400},
		{"post", "/dentropy/backups", "backups", `{"app":"shop","max_downtime":1,"dry_run":true}`, 200},
		{"get", "/dentropy/backup/key", "backup/key", "", 200},
		{"post", "/dentropy/backup/key", "backup/key", "", 200},
		{"get", "/dentropy/archives", "archives", "", 200},
		{"get", "/dentropy/archives", "archives?store=none", "", 404},
		{"get", "/dentropy/archives/{store}/{name}", "archives/local/" + name, "", 200},
		{"get", "/dentropy/archives/{store}/{name}/download", "archives/local/none/download", "", 404},
		{"delete", "/dentropy/archives/{store}/{name}", "archives/local/" + name, "", 409},
		{"get", "/dentropy/restores", "restores", "", 200},
		{"post", "/dentropy/restores", "restores", `{"archive":"` + name + `","dry_run":true,"answers":{}}`, 200},
		{"post", "/dentropy/restores", "restores", `{"archive":"none"}`, 404},
		{"post", "/dentropy/restores/undo", "restores/undo", `{"app":"nobody"}`, 404},
		{"get", "/dentropy/jobs", "jobs", "", 200},
		{"get", "/dentropy/jobs/{id}", "jobs/" + job, "", 200},
		{"get", "/dentropy/jobs/{id}", "jobs/none", "", 404},
		{"delete", "/dentropy/jobs/{id}", "jobs/" + job, "", 202},
		{"delete", "/dentropy/archives/{store}/{name}", "archives/local/" + name + "?yes=1", "", 200},
		{"get", "/dentropy/events", "events?follow=false", "", 200},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.url, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), strings.ToUpper(tt.method), b.api.URL+"/dentropy/"+tt.url, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			if resp.StatusCode != tt.status {
				t.Fatalf("status = %d, want %d", resp.StatusCode, tt.status)
			}
			doc.check(t, tt.method, tt.path, resp)
		})
	}
}
