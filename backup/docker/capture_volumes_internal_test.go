package docker

import (
	"fmt"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"

	"github.com/dentropy/dentropycloud/backup"
)

func TestIsSystem(t *testing.T) {
	tests := []struct {
		path string
		want bool
	}{
		{"/var/run/docker.sock", true}, {"/srv/app/run/php.sock", true}, {"/etc/localtime", true}, {"/etc/timezone", true},
		{"/dev", true}, {"/dev/dri", true}, {"/proc", true}, {"/sys/fs/cgroup", true}, {"/run/dbus", true}, {"/lib/modules", true},
		{"/", true}, {"/usr", true}, {"/usr/share/zoneinfo", true}, {"/boot", true}, {"/etc", true}, {"/home", true}, {"/var/lib", true},
		{"/mnt/docker", true}, {"/mnt/docker/volumes/x/_data", true}, {"/var/lib/docker/containers", true},
		{"/etc/ssl/certs", true}, {"/root", true},
		{"/etc/nginx", false}, {"/home/me/app", false}, {"/opt/app", false}, {"/srv/data", false}, {"/var/lib/postgres", false},
		{"/usr/local/share/app", false}, {"/usr/local", true}, {"/root/app", false}, {"/device", false}, {"/mnt/dockerish", false}, {"/mnt/media", false},
	}
	for _, tt := range tests {
		reason, got := isSystem(tt.path, "/mnt/docker")
		if got != tt.want || got && reason == "" {
			t.Errorf("isSystem(%q) = %q, %v, want %v", tt.path, reason, got, tt.want)
		}
	}
}

// line is a volume in one line.
func line(v backup.Volume) string {
	s := fmt.Sprintf("%s %s %s %s %s", v.ID, v.Kind, v.Name, v.Class, v.Action)
	for _, ex := range sortedKeysOf(v.Exclude) {
		s += " -" + ex
	}
	for _, o := range v.Only {
		s += " +" + o
	}
	return s
}

func sortedKeysOf(m map[string]string) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	if len(out) == 2 && out[0] > out[1] {
		out[0], out[1] = out[1], out[0]
	}
	return out
}

func TestVolumesOf(t *testing.T) {
	anon := strings.Repeat("0a", 32)
	vol := func(by, name, target string) use {
		return use{by: by, label: by, mount: container.MountPoint{Type: mount.TypeVolume, Name: name, Driver: "local", Destination: target, RW: true}}
	}
	bind := func(by, source, target string, rw bool) use {
		return use{by: by, label: by, mount: container.MountPoint{Type: mount.TypeBind, Source: source, Destination: target, RW: rw}}
	}
	shop := &backup.Project{Name: "shop", Dir: "/srv/shop", ConfigFiles: []string{"/srv/shop/compose.yaml", "/srv/shop/prod/more.yaml", "/etc/base.yaml"}, EnvFiles: []string{"/srv/shop/.env.prod"}}
	tests := []struct {
		name    string
		uses    []use
		project *backup.Project
		others  map[string][]otherUse
		include []string
		exclude []string
		want    []string
		warn    string
	}{
		{
			name: "kinds", uses: []use{
				vol("db", "shop_data", "/var/lib/db"), vol("web", "shop_data", "/ro"), vol("db", anon, "/cache"),
				bind("db", "/srv/conf", "/etc/conf", false), bind("db", "/var/run/docker.sock", "/var/run/docker.sock", true), bind("db", "/srv/one.conf", "/one", false),
				{by: "db", label: "db", mount: container.MountPoint{Type: mount.TypeTmpfs, Destination: "/scratch", RW: true}},
				{by: "db", label: "db", mount: container.MountPoint{Type: "image", Destination: "/img"}},
			},
			want: []string{
				"shop_data named shop_data data include",
				"db-cache anonymous " + anon + " data include",
				"conf bind /srv/conf data include",
				"docker.sock file /var/run/docker.sock system reference",
				"one.conf file /srv/one.conf data include",
				"db-scratch tmpfs /scratch system skip",
				"db-img tmpfs /img system reference",
			},
		},
		{
			name: "ids that clash or are odd", uses: []use{bind("a", "/srv/a/Data Dir", "/x", true), bind("a", "/srv/b/data dir", "/y", true), bind("a", "/srv/ö", "/z", true), bind("a", "/srv/..hidden", "/w", true)},
			want: []string{"data-dir bind /srv/a/Data Dir data include", "data-dir-2 bind /srv/b/data dir data include", "volume bind /srv/ö data include", "hidden bind /srv/..hidden data include"},
		},
		{
			name: "project", project: shop, uses: []use{bind("web", "/srv/shop/data", "/data", true), bind("web", "/srv/shop/nginx.conf", "/etc/nginx.conf", false), bind("web", "/etc/base.yaml", "/b", false)},
			want: []string{
				"data bind /srv/shop/data data include", "nginx.conf file /srv/shop/nginx.conf data include", "base.yaml bind /etc/base.yaml data include",
				"project project /srv/shop project include -data -nginx.conf",
			},
		},
		{
			name: "a compose file elsewhere", project: shop,
			want: []string{"project project /srv/shop project include", "project-base.yaml file /etc/base.yaml project include"},
		},
		{
			name: "the project's folder is mounted", project: &backup.Project{Dir: "/srv/shop"}, uses: []use{bind("web", "/srv/shop", "/app", true)},
			want: []string{"shop bind /srv/shop data include", "project project /srv/shop project skip"},
		},
		{
			name: "a project in a system folder", project: &backup.Project{Dir: "/root", ConfigFiles: []string{"/root/shop.yml"}},
			want: []string{"project project /root project include +.dockerignore +.env +Dockerfile +Makefile +README.md +compose.override.yaml +compose.override.yml +compose.yaml +compose.yml +docker-compose.override.yaml +docker-compose.override.yml +docker-compose.yaml +docker-compose.yml +shop.yml"},
		},
		{
			name: "nested binds", uses: []use{bind("a", "/srv/a", "/a", true), bind("a", "/srv/a/b", "/b", true), bind("a", "/srv/a/b/c", "/c", true)},
			want: []string{"a bind /srv/a data include -b -b/c", "b bind /srv/a/b data include -c", "c bind /srv/a/b/c data include"},
		},
		{
			name: "shared", uses: []use{vol("a", "v", "/v"), bind("a", "/media/film", "/film", false), bind("a", "/srv/mine", "/mine", true)},
			others: map[string][]otherUse{"v": {{"mail", true}}, "/media/film": {{"tv", true}, {"music", false}}, "/srv/mine": {{"browser", false}}},
			want:   []string{"v named v shared include", "film bind /media/film shared reference", "mine bind /srv/mine data include"},
			warn:   "also used by",
		},
		{
			name: "the user decides", uses: []use{vol("a", "v", "/v"), bind("a", "/media/film", "/film", false), bind("a", "/srv/big", "/big", true), vol("a", anon, "/c")},
			others: map[string][]otherUse{"/media/film": {{"tv", true}}}, include: []string{"/media/film/"}, exclude: []string{"v", "/srv/big", "a:/c"},
			want: []string{"v named v data skip", "film bind /media/film shared include", "big bind /srv/big data skip", "a-c anonymous " + anon + " data skip"},
			warn: "not in the backup",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			volumes, mounts, warnings := volumesOf(tt.uses, volumeFacts{
				project: tt.project, dataRoot: "/var/lib/docker", others: tt.others,
				opts: backup.CaptureOptions{IncludePaths: tt.include, ExcludePaths: tt.exclude},
				isFile: func(u use) bool {
					return strings.Contains(u.mount.Source, ".sock") || strings.HasSuffix(u.mount.Source, ".conf")
				},
			})
			nest(volumes)
			var got []string
			for _, v := range volumes {
				got = append(got, line(v))
				if v.Reason == "" {
					t.Errorf("%s has no reason", v.ID)
				}
			}
			if g, w := strings.Join(got, "\n"), strings.Join(tt.want, "\n"); g != w {
				t.Errorf("volumes:\n%s\nwant:\n%s", g, w)
			}
			n := 0
			for _, m := range mounts {
				n += len(m)
			}
			if n != len(tt.uses) {
				t.Errorf("%d mounts, want %d", n, len(tt.uses))
			}
			if w := strings.Join(warnings, "\n"); !strings.Contains(w, tt.warn) || tt.warn == "" && w != "" {
				t.Errorf("warnings %q, want %q", w, tt.warn)
			}
		})
	}
}

// A named volume that is a folder of the host lies in the project's folder.
func TestNestDevice(t *testing.T) {
	volumes := []backup.Volume{
		{ID: "data", Kind: backup.Named, Name: "x_data", Driver: "local", Options: map[string]string{"type": "none", "o": "rw,bind", "device": "/srv/x/data/"}, Action: backup.Include},
		{ID: "nfs", Kind: backup.Named, Name: "x_nfs", Driver: "local", Options: map[string]string{"type": "nfs", "o": "addr=10.0.0.1", "device": ":/srv/x/nfs"}, Action: backup.Include},
		{ID: "project", Kind: backup.ProjectTree, Name: "/srv/x", Action: backup.Include},
	}
	nest(volumes)
	if got := line(volumes[2]); got != "project project /srv/x  include -data" {
		t.Errorf("project: %s, want data taken out, and nothing else", got)
	}
}

func TestProjectOf(t *testing.T) {
	pr := projectOf([]map[string]string{{}, {
		labelProject: "shop", labelWorkingDir: "/srv/shop/", labelConfigFiles: "/srv/shop/compose.yaml,prod.yaml,-,/srv/shop/compose.yaml", labelEnvFiles: ".env.prod",
	}})
	want := &backup.Project{Name: "shop", Dir: "/srv/shop", ConfigFiles: []string{"/srv/shop/compose.yaml", "/srv/shop/prod.yaml"}, EnvFiles: []string{"/srv/shop/.env.prod"}}
	if fmt.Sprint(*pr) != fmt.Sprint(*want) {
		t.Errorf("project %+v, want %+v", *pr, *want)
	}
	if pr := projectOf([]map[string]string{{labelProject: "shop", labelWorkingDir: `C:\shop`, labelConfigFiles: `C:\shop\compose.yaml`}}); pr.Dir != "" || len(pr.ConfigFiles) != 0 {
		t.Errorf("project %+v, want nothing of a path that is not this kind of system's", *pr)
	}
}

func TestLayerChanges(t *testing.T) {
	changes := []container.FilesystemChange{
		{Kind: container.ChangeModify, Path: "/etc"}, {Kind: container.ChangeModify, Path: "/etc/nginx"}, {Kind: container.ChangeModify, Path: "/etc/nginx/nginx.conf"},
		{Kind: container.ChangeModify, Path: "/run"}, {Kind: container.ChangeAdd, Path: "/run/nginx.pid"}, {Kind: container.ChangeAdd, Path: "/var/cache/x/y"},
		{Kind: container.ChangeModify, Path: "/var"}, {Kind: container.ChangeModify, Path: "/var/log"}, {Kind: container.ChangeAdd, Path: "/srv/app.pid"},
		{Kind: container.ChangeAdd, Path: "/data"}, {Kind: container.ChangeAdd, Path: "/data/inside"}, {Kind: container.ChangeAdd, Path: "/a/deep/mount"}, {Kind: container.ChangeModify, Path: "/a/deep"}, {Kind: container.ChangeAdd, Path: "/a"},
		{Kind: container.ChangeAdd, Path: "/root/.ash_history"}, {Kind: container.ChangeModify, Path: "/root"}, {Kind: container.ChangeDelete, Path: "/usr/bin/tool"},
		{Kind: container.ChangeAdd, Path: "/app/__pycache__/x.pyc"}, {Kind: container.ChangeAdd, Path: "/new"}, {Kind: container.ChangeAdd, Path: "/datax"}, {Kind: container.ChangeModify, Path: "/tmp"},
	}
	got := strings.Join(layerChanges(changes, []string{"/data", "/a/deep/mount"}), " ")
	if want := "/datax /etc/nginx/nginx.conf /new /usr/bin/tool"; got != want {
		t.Errorf("changes %s, want %s", got, want)
	}
}
