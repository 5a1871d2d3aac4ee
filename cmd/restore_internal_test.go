package dentropycmd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dentropy/dentropycloud/backup"
)

const storedName = "shop-20261124T101500Z-1f2e3d4c.dentropy.tar.age"

// testManifest is what the archive of a small shop says about itself.
func testManifest() *backup.Manifest {
	return &backup.Manifest{
		Format: 1, ID: "019", Created: time.Date(2026, 11, 24, 10, 15, 0, 0, time.UTC), Tool: "dentropy v0.2.0", Encryption: "all",
		App: &backup.App{
			Name: "shop", Kind: "compose", Platform: "docker", Format: "docker",
			Source:  backup.Source{Engine: "docker 20.10.24", OS: "linux", Arch: "amd64"},
			Project: &backup.Project{Name: "shop", Dir: "/srv/shop"},
			Containers: []backup.Container{
				{Name: "shop-db-1", Image: "postgres:17", State: backup.Running},
				{Name: "shop-web-1", Image: "shop:1", State: backup.Exited, Routes: map[string]string{"dentropy.host": "shop.example.com\x1b[2J"}},
			},
			Volumes: []backup.Volume{
				{ID: "db", Kind: backup.Named, Name: "shop_db", Action: backup.Include},
				{ID: "media", Kind: backup.Bind, Name: "/srv/media", Action: backup.Reference, Reason: "another app uses it too"},
			},
		},
		Trees: map[string]*backup.Tree{"db": {Volume: "db", Bytes: 2e9, Files: 21, Notes: []backup.Note{{Path: "x", Kind: "changed"}}}},
	}
}

// restoreAPI plans and restores as a running dentropy does: a port is taken, and one
// setting is a risk.
func restoreAPI(t *testing.T) (a *fakeAPI, restored *backup.Answers) {
	a = newFakeAPI(t)
	restored = new(backup.Answers)
	plan := func(ans backup.Answers) *backup.Plan {
		p := &backup.Plan{
			Platform: "docker", App: "shop", Answers: ans, Bytes: 2e9, Free: 5e9,
			Steps: []string{"make volume shop_db", "start shop-db-1", "start shop-web-1"},
			Questions: []backup.Question{
				{Key: "routes.web.host", Topic: "route", Text: "Host of web", Default: "shop.example.com", Flag: "--route web=…"},
				{Key: "volumes.db.name", Topic: "store", Text: "Volume shop_db (2.0 GB)", Default: "shop_db", Flag: "--volume db=…"},
			},
			Conflicts: []backup.Conflict{{Kind: "port", Name: "80/tcp", Text: "port 80 is used by nginx",
				Choices: []string{"--port web:80=auto", "--port web:80=PORT"}, Hint: "stop nginx, or use another port"}},
			Risks: []backup.Risk{{Kind: "privileged", Container: "shop-web-1", Text: "has all rights on the host"},
				{Kind: "setuid", Text: "2 files run as root", Allowed: true}},
			Hosts: []string{"shop.example.com"},
		}
		if v := ans.Ports["web:80"]; v != "" {
			p.Conflicts[0].Resolved, p.Conflicts[0].Resolution = true, "port "+v
		}
		for _, k := range ans.Allow {
			p.Risks[0].Allowed = p.Risks[0].Allowed || k == "privileged"
		}
		return p
	}
	a.mux.HandleFunc("GET /dentropy/archives/{store}/{name}", func(w http.ResponseWriter, _ *http.Request) {
		a.answer(w, http.StatusOK, map[string]any{"store": "local", "name": storedName, "manifest": testManifest()})
	})
	a.mux.HandleFunc("POST /dentropy/restores", func(w http.ResponseWriter, r *http.Request) {
		var req struct {
			Store, Archive string
			Answers        backup.Answers
			DryRun         bool `json:"dry_run"`
		}
		if r.Header.Get("Content-Type") != "application/json" || json.NewDecoder(r.Body).Decode(&req) != nil || req.Archive != storedName {
			t.Errorf("the request is of type %q for %q", r.Header.Get("Content-Type"), req.Archive)
		}
		p := plan(req.Answers)
		switch {
		case req.DryRun:
			a.answer(w, http.StatusOK, map[string]any{"plan": p, "manifest": testManifest()})
		case !p.Ready():
			a.answer(w, http.StatusConflict, map[string]any{"error": "not ready", "plan": p})
		default:
			*restored = req.Answers
			id := r.URL.Query().Get("job")
			a.job(id, false, running("fill", "volume shop_db"), backup.JobView{State: "done",
				Result: backup.RestoreResult{App: "shop", Platform: "docker", Undo: "0123456789ab", Plan: p}})
			a.answer(w, http.StatusAccepted, map[string]string{"job": id})
		}
	})
	return a, restored
}

func TestRestoreAsks(t *testing.T) {
	a, restored := restoreAPI(t)
	typed := strings.Join([]string{
		"yes",           // the risk
		"/srv/db=x", "", // no: a path with "=" is fine; Enter is for the next question
		"2", "70000", // a port of one's own, which is none
		"2", "8081", // and one that is
		"", // restore now
	}, "\n") + "\n"
	out, errOut, err := runTalk(t.Context(), fakeTTY{strings.NewReader(typed)}, "restore", "local:"+storedName, "--data-dir", a.dir)
	if err != nil {
		t.Fatalf("restore = %v\n%s", err, errOut)
	}
	want := backup.Answers{Allow: []string{"privileged"}, Ports: map[string]string{"web:80": "8081"},
		Volumes: map[string]backup.VolumeAnswer{"db": {Path: "/srv/db=x"}}}
	if diff := cmp.Diff(want, *restored); diff != "" {
		t.Errorf("answers differ (-want +got):\n%s\n%s", diff, errOut)
	}
	if want := "shop runs again on docker\n  site       https://shop.example.com\n  undo       dentropy restore --undo 0123456789ab\n"; out != strings.Replace(want, "dentropy restore", verbPrefix()+" restore", 1) {
		t.Errorf("stdout = %q, want %q", out, want)
	}
	golden(t, "testdata/restore/asks.txt", regexp.MustCompile(`made        .*, by`).ReplaceAllString(errOut, "made        TIME, by"))
}

func TestRestoreWithoutAnybody(t *testing.T) {
	a, restored := restoreAPI(t)
	for _, tt := range []struct {
		name string
		args []string
		err  string
	}{
		{"nothing accepted", []string{"--yes"}, "dentropy: nothing was changed: 2 points of the plan must be settled first, see ✗\n"},
		{"no --yes", []string{"--port", "web:80=8081", "--allow", "privileged"}, "dentropy: nothing was changed: there is nobody to ask here; --yes does what the plan says\n"},
		{"all said", []string{"--port", "web:80=8081", "--allow", "privileged", "--yes"}, ""},
	} {
		_, errOut, err := runTalk(t.Context(), nil, append([]string{"restore", "local:" + storedName, "--data-dir", a.dir}, tt.args...)...)
		if tt.err == "" && err != nil || !strings.HasSuffix(errOut, tt.err) {
			t.Errorf("%s: %v\n%s", tt.name, err, errOut)
		}
		if !strings.Contains(errOut, "1. make volume shop_db") {
			t.Errorf("%s: the plan is not shown:\n%s", tt.name, errOut)
		}
		if (tt.err == "") != (len(restored.Ports) > 0) {
			t.Errorf("%s: restored with %+v", tt.name, *restored)
		}
	}
}

func TestRestoreDryRunAndAnswers(t *testing.T) {
	a, restored := restoreAPI(t)
	file := filepath.Join(t.TempDir(), "answers.yaml")
	out, errOut, err := runTalk(t.Context(), nil, "restore", "local:"+storedName, "--data-dir", a.dir, "--dry-run", "--json",
		"--port", "web:80=auto", "--write-answers", file)
	var got struct {
		Plan  backup.Plan
		Ready bool
	}
	if jerr := json.Unmarshal([]byte(out), &got); jerr != nil || got.Ready || len(got.Plan.Steps) != 3 {
		t.Errorf("--dry-run --json = %v, %v, %s", jerr, err, out)
	}
	if err == nil || !strings.Contains(errOut, "accept it with --allow privileged") {
		t.Errorf("a plan that is not ready = %v, %s", err, errOut)
	}
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), "web:80: auto") || !strings.Contains(string(text), "#   volumes.db.name: shop_db") {
		t.Errorf("--write-answers wrote %q, %v", text, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the answers = %v, %v, want 0600", info.Mode(), err)
	}
	_, errOut, err = runTalk(t.Context(), nil, "restore", "local:"+storedName, "--data-dir", a.dir, "--answers", file, "--allow", "privileged", "--yes")
	if err != nil || restored.Ports["web:80"] != "auto" {
		t.Errorf("--answers = %v, restored with %+v\n%s", err, *restored, errOut)
	}
	_, errOut, err = runTalk(t.Context(), nil, "restore", "local:"+storedName, "--data-dir", a.dir, "--dry-run", "--write-answers", file)
	if err == nil || !strings.Contains(errOut, "is there already: name a new file") {
		t.Errorf("--write-answers over a file = %v, %s", err, errOut)
	}
}

func TestAskerStops(t *testing.T) {
	a, restored := restoreAPI(t)
	for _, tt := range []struct{ name, typed, err string }{
		{"end of input", "", "no answer: nothing was changed"},
		{"risk not accepted", "\n", `nothing was changed: the app asks for "privileged"; --allow privileged accepts it`},
		{"a dot accepts no risk", ".\n", `nothing was changed: the app asks for "privileged"; --allow privileged accepts it`},
		{"conflict left open", "y\n.\nq\n", "nothing was changed: port 80 is used by nginx: stop nginx, or use another port"},
		{"declined", "y\n.\n1\nno\n", "not restored, as you said: nothing was changed"},
	} {
		_, errOut, err := runTalk(t.Context(), fakeTTY{strings.NewReader(tt.typed)}, "restore", "local:"+storedName, "--data-dir", a.dir)
		if err == nil || !strings.HasSuffix(errOut, "dentropy: "+tt.err+"\n") {
			t.Errorf("%s: %v, want %q\n%s", tt.name, err, tt.err, errOut)
		}
	}
	if restored.Ports != nil {
		t.Errorf("restored with %+v", *restored)
	}
}

func TestReplaceMaySettleOtherConflicts(t *testing.T) {
	var out bytes.Buffer
	a := &asker{in: bufio.NewReader(strings.NewReader("1\n")), out: &out, p: newPrinter(&out, os.Getenv)}
	ans, err := a.askConflicts([]backup.Conflict{
		{Text: "shop is here", Choices: []string{"--on-conflict replace"}},
		{Text: "there is a volume shop_db", Choices: []string{"--volume shop_db=existing"}},
	}, backup.Answers{})
	if err != nil || ans.OnConflict != "replace" || strings.Contains(out.String(), "shop_db") {
		t.Errorf("askConflicts = %+v, %v; the second conflict waits for the next plan:\n%s", ans, err, out.String())
	}
}

func TestSetAnswer(t *testing.T) {
	for _, tt := range []struct {
		key, value string
		want       backup.Answers
	}{
		{"platform", "nas", backup.Answers{Platform: "docker:nas"}},
		{"name", "shop2", backup.Answers{Name: "shop2"}},
		{"project_dir", "none", backup.Answers{ProjectDir: "none"}},
		{"volumes.a.b.name", "c", backup.Answers{Volumes: map[string]backup.VolumeAnswer{"a.b": {Name: "c"}}}},
		{"volumes.db.name", "nfs:nas:/x", backup.Answers{Volumes: map[string]backup.VolumeAnswer{"db": {Driver: "local", Options: map[string]string{"type": "nfs", "o": "addr=nas,rw", "device": ":/x"}}}}},
		{"volumes.db.name", "empty", backup.Answers{Volumes: map[string]backup.VolumeAnswer{"db": {Empty: true}}}},
		{"networks.front.name", "lan", backup.Answers{Networks: map[string]backup.NetworkAnswer{"front": {Name: "lan"}}}},
		{"networks.front.subnet", "10.9.0.0/24", backup.Answers{Networks: map[string]backup.NetworkAnswer{"front": {Subnet: "10.9.0.0/24"}}}},
		{"ports.web:80/tcp", "8081", backup.Answers{Ports: map[string]string{"web:80/tcp": "8081"}}},
		{"containers.shop.web", "x", backup.Answers{Containers: map[string]string{"shop.web": "x"}}},
		{"routes.web.host", "a.example.com/x,tls=internal", backup.Answers{Routes: map[string]backup.RouteAnswer{"web": {Host: "a.example.com", Path: "/x", TLS: "internal"}}}},
		{"routes.web.api.host", "none", backup.Answers{Routes: map[string]backup.RouteAnswer{"web.api": {None: true}}}},
		{"routes.web.path", "/x", backup.Answers{Routes: map[string]backup.RouteAnswer{"web": {Path: "/x"}}}},
	} {
		got, err := setAnswer(backup.Answers{}, tt.key, tt.value)
		if err != nil {
			t.Errorf("setAnswer(%q, %q) = %v", tt.key, tt.value, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("setAnswer(%q, %q) differs (-want +got):\n%s", tt.key, tt.value, diff)
		}
	}
	for _, key := range []string{"", "volumes", "nothing", "nothing.db.name"} {
		if _, err := setAnswer(backup.Answers{}, key, "x"); err == nil {
			t.Errorf("setAnswer(%q) takes it", key)
		}
	}
}

func TestChooseFillsIn(t *testing.T) {
	var out bytes.Buffer
	a := &asker{in: bufio.NewReader(strings.NewReader("db2\n10.9.0.0/24\n")), out: &out, p: newPrinter(&out, os.Getenv)}
	ans, err := a.choose("--volume shop_db=name:NEW", backup.Answers{})
	if err == nil {
		ans, err = a.choose("--network front=subnet:SUBNET", ans)
	}
	if err == nil {
		ans, err = a.choose("--on-conflict replace   the old one is kept for undo", ans)
	}
	want := backup.Answers{OnConflict: "replace", Volumes: map[string]backup.VolumeAnswer{"shop_db": {Name: "db2"}},
		Networks: map[string]backup.NetworkAnswer{"front": {Subnet: "10.9.0.0/24"}}}
	if diff := cmp.Diff(want, ans); err != nil || diff != "" {
		t.Errorf("choose: %v (-want +got):\n%s", err, diff)
	}
	if _, err := a.choose("stop the other app", ans); err == nil {
		t.Error("words that are no flags are taken")
	}
}

// golden holds text against a file; -update writes it.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got); -update writes it:\n%s", path, diff)
	}
}

func TestQuestionEndsWithItsContext(t *testing.T) {
	r, w := io.Pipe() // somebody who never types
	defer func() { _ = w.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	a := &asker{in: bufio.NewReader(r), out: &out, p: newPrinter(&out, os.Getenv), ctx: ctx}
	cancel()
	if _, err := a.yes("Go on?", true); !errors.Is(err, errCancelled) {
		t.Errorf("yes() = %v, want %v", err, errCancelled)
	}
}
