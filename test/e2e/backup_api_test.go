package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// call asks the admin API and gives status and body.
func (d *dentropy) call(method, path, body string) (status int, answer []byte) {
	d.t.Helper()
	resp := d.open(method, path, body)
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		d.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, b.Bytes()
}

func (d *dentropy) open(method, path, body string) *http.Response {
	d.t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(d.data, "admin.sock"))
		},
	}}
	req, err := http.NewRequestWithContext(d.t.Context(), method, "http://dentropy"+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		d.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp
}

// job is what the API says of a job.
type job struct {
	ID, Kind, App, State, Error, Hint string
	Progress                          struct {
		Phase       string
		Done, Total int64
	}
	Result json.RawMessage
}

// follow reads a job's events until it has ended.
func (d *dentropy) follow(id string, each func(job)) job {
	d.t.Helper()
	resp := d.open(http.MethodGet, "/dentropy/jobs/"+id+"/events", "")
	defer resp.Body.Close()
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(kind, "text/event-stream") {
		d.t.Fatalf("events: status %d, type %s", resp.StatusCode, kind)
	}
	var last job
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		last = job{}
		if err := json.Unmarshal([]byte(data), &last); err != nil {
			d.t.Fatalf("event %q: %v", data, err)
		}
		if each != nil {
			each(last)
		}
	}
	if err := lines.Err(); err != nil {
		d.t.Fatal(err)
	}
	if last.State == "running" || last.State == "" {
		d.t.Errorf("the events end with a job that is %q", last.State)
	}
	return last
}

// The API does what the verbs do, and a job can be followed and cancelled.
func TestBackupAPI(t *testing.T) {
	e := newEngine(t)
	a := e.smallApp("byapi")
	d := up(t)
	d.must("backup", "key") // makes one
	var apps struct {
		Apps []struct {
			Name, Kind string
			Running    int
		}
	}
	if _, b := d.call(http.MethodGet, "/dentropy/apps", ""); json.Unmarshal(b, &apps) != nil || !strings.Contains(string(b), `"byapi"`) {
		t.Errorf("apps: %s", b)
	}
	status, b := d.call(http.MethodPost, "/dentropy/backups?job=0123456789ab", `{"app":"byapi"}`)
	if status != http.StatusAccepted {
		t.Fatalf("backup: %d %s", status, b)
	}
	if status, b := d.call(http.MethodPost, "/dentropy/backups?job=0123456789ab", `{"app":"byapi"}`); status != http.StatusConflict {
		t.Errorf("the same job again: %d %s, want 409", status, b)
	}
	phases := make(map[string]bool)
	end := d.follow("0123456789ab", func(j job) { phases[j.Progress.Phase] = true })
	if end.State != "done" || len(phases) < 2 {
		t.Fatalf("the job is %+v, phases %v", end, phases)
	}
	var result struct {
		Archive string
		Size    int64
	}
	if err := json.Unmarshal(end.Result, &result); err != nil || result.Archive == "" {
		t.Fatalf("result %s: %v", end.Result, err)
	}
	a.check(t, d)

	if status, b := d.call(http.MethodGet, "/dentropy/archives/local/"+result.Archive, ""); status != http.StatusOK || !strings.Contains(string(b), "manifest") {
		t.Errorf("archive: %d %.300s", status, b)
	}
	status, b = d.call(http.MethodGet, "/dentropy/archives/local/"+result.Archive+"/download", "")
	if status != http.StatusOK || int64(len(b)) != result.Size {
		t.Errorf("download: %d, %d bytes, want %d", status, len(b), result.Size)
	}
	for _, path := range []string{"/dentropy/jobs/0123456789ab", "/dentropy/jobs", "/dentropy/backups", "/dentropy/restores"} {
		if status, b := d.call(http.MethodGet, path, ""); status != http.StatusOK {
			t.Errorf("%s: %d %s", path, status, b)
		}
	}
	metrics, err := d.admin(http.MethodGet, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"dentropy_apps_left_stopped 0", "dentropy_backup_"} {
		if !strings.Contains(string(metrics), name) {
			t.Errorf("no %s in /metrics", name)
		}
	}
	d.restoresByAPI(t, a, result.Archive)
}

func (d *dentropy) restoresByAPI(t *testing.T, a *smallApp, archive string) {
	t.Helper()
	body := fmt.Sprintf(`{"archive":%q,"dry_run":true}`, archive)
	if status, b := d.call(http.MethodPost, "/dentropy/restores", body); status != http.StatusOK || !strings.Contains(string(b), `"conflicts"`) {
		t.Errorf("plan: %d %.500s", status, b)
	}
	body = fmt.Sprintf(`{"archive":%q}`, archive)
	if status, b := d.call(http.MethodPost, "/dentropy/restores", body); status == http.StatusAccepted {
		var id struct{ Job string }
		json.Unmarshal(b, &id)
		if end := d.follow(id.Job, nil); end.State != "failed" {
			t.Errorf("a restore over what is there is %+v", end)
		}
	} else if status != http.StatusConflict {
		t.Errorf("a restore over what is there: %d %.500s, want 409", status, b)
	}
	a.check(t, d)
	// Cancelled in each of its phases a backup leaves the app running and no archive.
	sofar := len(d.archives())
	for n, phase := range []string{"prepare", "quiesce", "read", "write"} {
		id := fmt.Sprintf("%012x", n)
		if status, b := d.call(http.MethodPost, "/dentropy/backups?job="+id, `{"app":"byapi"}`); status != http.StatusAccepted {
			t.Fatalf("backup: %d %s", status, b)
		}
		asked := false
		end := d.follow(id, func(j job) {
			if !asked && j.Progress.Phase == phase {
				asked = true
				if status, b := d.call(http.MethodDelete, "/dentropy/jobs/"+id, ""); status != http.StatusAccepted {
					t.Errorf("cancel: %d %s", status, b)
				}
			}
		})
		t.Logf("cancelled in %s: asked %v, %s", phase, asked, end.State)
		if end.State == "done" {
			sofar++
		} else if end.State != "cancelled" {
			t.Errorf("cancelled in %s: %+v", phase, end)
		}
		a.check(t, d)
	}
	if n := len(d.archives()); n != sofar {
		t.Errorf("%d archives, want %d", n, sofar)
	}
	if status, _ := d.call(http.MethodDelete, "/dentropy/archives/local/"+archive, ""); status != http.StatusConflict {
		t.Errorf("an archive is removed without yes: %d", status)
	}
	if status, b := d.call(http.MethodDelete, "/dentropy/archives/local/"+archive+"?yes=1", ""); status != http.StatusOK {
		t.Errorf("remove: %d %s", status, b)
	}
	if _, err := os.Stat(filepath.Join(d.data, "backups", archive)); err == nil {
		t.Error("the removed archive is still there")
	}
}

// Dentropy's own state is an app: certificates and what it remembers come back.
func TestBackupOfOwnState(t *testing.T) {
	e, d := newEngine(t), up(t)
	e.run(site("app", "own.localhost"))
	eventually(t, "app answers", d.servedBy("own.localhost", "/", "app"))
	first, err := d.get("own.localhost", "/")
	if err != nil {
		t.Fatal(err)
	}
	if out := d.must("apps").stdout; !strings.Contains(out, "dentropy") {
		t.Errorf("apps does not list dentropy itself:\n%s", out)
	}
	kit := d.must("backup", "key").stdout
	archive := keepCopy(t, d.backup("dentropy"))
	d.must("archive", "verify", archive)

	// On a machine with nothing: another data folder, and the key from the kit.
	identity := filepath.Join(t.TempDir(), "kit.txt")
	if err := os.WriteFile(identity, []byte(kit), 0o600); err != nil {
		t.Fatal(err)
	}
	fresh := prepare(t)
	fresh.must("restore", archive, "--yes", "--identity", identity, "--docker", fresh.docker)
	fresh.start()
	eventually(t, "app answers there", fresh.servedBy("own.localhost", "/", "app"))
	second, err := fresh.get("own.localhost", "/")
	if err != nil {
		t.Fatal(err)
	}
	if first.cert.SerialNumber.Cmp(second.cert.SerialNumber) != 0 {
		t.Error("the restored dentropy has issued another certificate")
	}
}
