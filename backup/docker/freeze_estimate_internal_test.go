package docker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
)

func TestReckon(t *testing.T) {
	app := &backup.App{
		Containers: []backup.Container{
			{Name: "db", State: backup.Running, Quiesce: backup.Quiesce{Mode: backup.Stop}, Mounts: []backup.Mount{{Volume: "a"}}, Layer: backup.Layer{Include: true, Bytes: 5}},
			{Name: "web", State: backup.Running, Quiesce: backup.Quiesce{Mode: backup.Stop}, DependsOn: []backup.Dependency{{Container: "db"}}},
			{Name: "log", State: backup.Running, Quiesce: backup.Quiesce{Mode: backup.Hot}, Mounts: []backup.Mount{{Volume: "b"}}},
		},
		Volumes: []backup.Volume{{ID: "a", Action: backup.Include}, {ID: "b", Action: backup.Include}, {ID: "c", Action: backup.Skip}},
		Images:  []backup.Image{{Size: 70, Include: true}, {Size: 1000}},
	}
	plan, err := planRest(app, "")
	if err != nil {
		t.Fatal(err)
	}
	m := measured{Rate: 100 << 20, TransitFree: 1 << 40, Volumes: map[string]backup.VolumeSize{"a": {Bytes: 1000 << 20, Files: 3}, "b": {Bytes: 500 << 20, Files: 2}, "c": {Bytes: 1}}}
	est := reckon(app, plan, m, "")
	if est.Bytes != 1500<<20 || est.Files != 5 || est.ImageBytes != 75 {
		t.Errorf("estimate %+v", est)
	}
	// 10 s for what rests, 1 s more, and 3 s for each of two that follow each other
	if want := 17 * time.Second; est.Downtime != want {
		t.Errorf("downtime %v, want %v", est.Downtime, want)
	}
	if strings.Join(est.Stops, " ") != "web db" {
		t.Errorf("stops %v, want web db", est.Stops)
	}
	hot, err := planRest(app, backup.Hot)
	if err != nil {
		t.Fatal(err)
	}
	if est := reckon(app, hot, m, backup.Hot); est.Downtime != 0 || len(est.Stops) != 0 {
		t.Errorf("estimate of mode hot: %+v, want no downtime", est)
	}
}

func TestRoom(t *testing.T) {
	const gb = 1 << 30
	if err := room(&backup.Estimate{Bytes: 10 * gb, TransitFree: 11 * gb}); err != nil {
		t.Errorf("11 GB for 10: %v", err)
	}
	if err := room(&backup.Estimate{Bytes: 10 * gb, TransitFree: -1}); err != nil {
		t.Errorf("space that is not known: %v", err)
	}
	err := room(&backup.Estimate{Bytes: 10 * gb, TransitFree: 10 * gb})
	if err == nil || !strings.Contains(err.Error(), "11 GB") || !strings.Contains(err.Error(), "12 GB") || backup.HintOf(err) == "" {
		t.Errorf("10 GB for 10: %v, want both figures and what to do", err)
	}
	if err := roomForImages(&backup.Estimate{ImageBytes: 1 << 60}, t.TempDir()); err == nil {
		t.Error("an exabyte of images fits")
	}
	if err := roomForImages(&backup.Estimate{ImageBytes: 1}, ""); err != nil {
		t.Error(err)
	}
}

func TestHolds(t *testing.T) {
	own := []container.MountPoint{
		{Source: "/srv", Destination: "/srv"}, {Source: "/mnt/disk/backups", Destination: "/srv/backups"},
		{Name: "dentropy", Source: "/var/lib/docker/volumes/dentropy/_data", Destination: "/data"},
	}
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/srv", link); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		folder string
		own    []container.MountPoint
		v      backup.Volume
		at     string
		want   bool
	}{
		{name: "inside", folder: "/srv/app/backups", at: "/srv/app", want: true},
		{name: "itself", folder: "/srv/app", at: "/srv/app", want: true},
		{name: "beside", folder: "/srv/app2", at: "/srv/app", want: false},
		{name: "around", folder: "/srv", at: "/srv/app", want: false},
		{name: "taken out", folder: "/srv/app/b/c", at: "/srv/app", v: backup.Volume{Exclude: map[string]string{"b": ""}}, want: false},
		{name: "through a link", folder: link, at: "/srv", want: true},
		{name: "from a container, by path", folder: "/srv/x", own: own, at: "/srv", want: true},
		{name: "from a container, by the nearest mount", folder: "/srv/backups/x", own: own, at: "/mnt/disk", want: true},
		{name: "from a container, not by a farther one", folder: "/srv/backups", own: own, at: "/srv", want: false},
		{name: "from a container, by the volume", folder: "/data/backups", own: own, v: backup.Volume{Name: "dentropy"}, at: "", want: true},
		{name: "from a container, in itself", folder: "/root/x", own: own, at: "/", want: false},
	}
	for _, tt := range tests {
		if got := holds(&tt.v, tt.at, onHost(tt.folder, tt.own)); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestSizeText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 1_500_000: "1.5 MB", 1 << 62: "4.6 EB"} {
		if got := backup.FormatBytes(n); got != want {
			t.Errorf("backup.FormatBytes(%d) = %q, want %q", n, got, want)
		}
	}
}
