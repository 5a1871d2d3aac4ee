package caddymodule

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/backuptest"
)

func TestBackupOff(t *testing.T) {
	b := &backupWorld{}
	b.world = newWorld(t, func(app map[string]any) { app["backup"] = map[string]any{"off": true} })
	b.api = adminServer(t)
	var failed failure
	if got := b.call("GET", "apps", nil, &failed); got != 503 || !strings.Contains(failed.Error, "turned off") || failed.Hint == "" {
		t.Errorf("apps = %d %+v", got, failed)
	}
}

// A folder that cannot be made keeps no site from being served, and the API says so.
func TestBackupFolderCannotBeMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := &backupWorld{}
	b.world = newWorld(t, func(app map[string]any) { app["backup"] = map[string]any{"dir": file + "/x"} })
	b.api = adminServer(t)
	b.up().Set(object("app", off("app.test"), backend(t, "app")))
	eventually(t, "it serves", func() bool { status, _ := b.get("http://app.test/"); return status == 200 })
	var failed failure
	if got := b.call("GET", "apps", nil, &failed); got != 503 || failed.Error == "" {
		t.Errorf("apps = %d %+v", got, failed)
	}
	if status := b.reload(map[string]any{}); status != nil {
		t.Fatal(status)
	}
	if got := b.call("GET", "apps", nil, nil); got != 200 {
		t.Errorf("apps after a good config = %d", got)
	}
}

// reload loads the same config with other backups.
func (b *backupWorld) reload(cfg map[string]any) error {
	b.config["apps"].(map[string]any)["dentropy"].(map[string]any)["backup"] = cfg
	raw, err := json.Marshal(b.config)
	if err != nil {
		return err
	}
	return caddy.Load(raw, true)
}

// A reload neither ends a job nor forgets the last ones, and what the config says
// counts from then on.
func TestBackupSurvivesReload(t *testing.T) {
	b := newBackupWorld(t)
	goOn := make(chan struct{})
	inside := make(chan struct{})
	b.platform.Step = func(step string) error {
		if step == "read:data" {
			close(inside)
			<-goOn
		}
		return nil
	}
	if got := b.call("POST", "backups?job=00000000000e", backup.BackupRequest{App: "shop", Encryption: "none"}, nil); got != 202 {
		t.Fatal(got)
	}
	<-inside
	to := "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
	stores := b.config["apps"].(map[string]any)["dentropy"].(map[string]any)["backup"].(map[string]any)["stores"]
	if err := b.reload(map[string]any{"stores": stores, "recipients": []string{to}}); err != nil {
		t.Fatal(err)
	}
	var key keyAnswer
	if got := b.call("GET", "backup/key", nil, &key); got != 200 || !slices.Equal(key.Configured, []string{to}) {
		t.Errorf("key = %d %+v", got, key)
	}
	if got := b.call("GET", "jobs/00000000000e", nil, nil); got != 200 {
		t.Errorf("the job after a reload: %d", got)
	}
	close(goOn)
	if v := b.job("00000000000e"); v.State != "done" {
		t.Errorf("job = %+v", v)
	}
	b.platform.Step = nil
	if got := b.call("POST", "backups?job=0000000000ee", backup.BackupRequest{App: "shop"}, nil); got != 202 {
		t.Errorf("with a recipient in the config: %d", got)
	}
	if v := b.job("0000000000ee"); v.State != "done" {
		t.Errorf("job = %+v", v)
	}
	if err := b.reload(map[string]any{"recipients": []string{"age1nonsense"}}); err == nil {
		t.Error("a recipient that is none is loaded")
	}
	if err := b.reload(map[string]any{"stores": map[string]any{"x": map[string]any{}}}); err == nil {
		t.Error("a store of no kind is loaded")
	}
	if got := b.call("GET", "backup/key", nil, &key); got != 200 || len(key.Configured) != 1 {
		t.Errorf("after configs that failed: %d %+v", got, key)
	}
}

// What an earlier process left behind is finished at start.
func TestBackupRecoversAtStart(t *testing.T) {
	b := newBackupWorld(t)
	root := b.config["storage"].(map[string]any)["root"].(string)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := b.engine.Remove("shop"); err != nil {
		t.Fatal(err)
	}
	if err := b.engine.Add(backuptest.App{Name: "shop", Containers: []backuptest.Container{{Name: "db"}, {Name: "web"}}}, nil); err != nil {
		t.Fatal(err)
	}
	op, _ := json.Marshal(backup.Operation{ID: "0123456789ab", Kind: "backup", Platform: b.name, App: "shop", Time: time.Now()})
	text := string(op) + "\n" + `{"step":"stop","data":{"App":"shop","Names":["db","web"]}}` + "\n" + `{"step":"to`
	if err := os.WriteFile(filepath.Join(root, "backup", "journal", "0123456789ab.ndjson"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.load()
	eventually(t, "both run", func() bool { r, err := b.engine.Running("shop"); return err == nil && len(r) == 2 })
}

func TestBackupMetrics(t *testing.T) {
	b := newBackupWorld(t)
	if got := b.call("POST", "backups?job=00000000000f", backup.BackupRequest{App: "shop", Encryption: "none"}, nil); got != 202 {
		t.Fatal(got)
	}
	b.job("00000000000f")
	s, _ := current()
	app := s.newest.Load()
	families, err := app.ctx.GetMetricsRegistry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			if strings.Contains(f.GetName(), "backup_last") || strings.Contains(f.GetName(), "left_stopped") || strings.Contains(f.GetName(), "jobs_running") {
				got[f.GetName()] = m.GetGauge().GetValue()
			}
		}
	}
	if got["dentropy_apps_left_stopped"] != 0 || got["dentropy_jobs_running"] != 0 || len(got) != 7 {
		t.Errorf("metrics = %v", got)
	}
	if at := got["dentropy_backup_last_success_timestamp_seconds"]; time.Since(time.UnixMilli(int64(at*1000))) > time.Minute || got["dentropy_backup_last_size_bytes"] == 0 {
		t.Errorf("metrics = %v", got)
	}
}
