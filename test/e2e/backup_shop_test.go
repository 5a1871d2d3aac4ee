package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/volume"
)

var shopImages = []string{postgresImage, redisImage, nginxImage, shopImage}

// fillShop gives each part of the shop data that can be told again.
func (e *engine) fillShop(p *project) {
	e.t.Helper()
	e.fill(p.name + "_files")
	for n := range 50 {
		if _, err := e.exec(p.name+"-cache-1", "redis-cli", "set", fmt.Sprint("key-", n), fmt.Sprint("value-", n)); err != nil {
			e.t.Fatal(err)
		}
	}
}

// checkCache looks for what fillShop has put into Redis.
func (e *engine) checkCache(name string) {
	e.t.Helper()
	for _, n := range []int{0, 49} {
		out, err := e.exec(name, "redis-cli", "get", fmt.Sprint("key-", n))
		if err != nil || strings.TrimSpace(out) != fmt.Sprint("value-", n) {
			e.t.Errorf("key-%d in Redis is %q, %v", n, out, err)
		}
	}
}

// writeRows writes until there are some rows.
func writeRows(t *testing.T, writers ...*writer) {
	t.Helper()
	sofar := make([]int, len(writers))
	for n, w := range writers {
		sofar[n] = w.count()
	}
	eventuallyWithin(t, time.Minute, "rows are written", func() error {
		for n, w := range writers {
			if c := w.count(); c < sofar[n]+20 {
				return fmt.Errorf("%d rows", c-sofar[n])
			}
		}
		return nil
	})
}

// A whole application with real software is backed up under load, removed entirely, and
// restored under other names, ports and hosts and on other volumes.
func TestBackupShop(t *testing.T) {
	e := newEngine(t)
	e.realApps()
	before := e.inventory()
	d := up(t)
	t.Cleanup(func() { e.clear(before) })
	p := e.newProject("shop", shopFiles)
	p.up()
	e.fillShop(p)
	files, site := e.tree("shop_files"), e.tree(p.dir+"/site")

	pg, notes := d.startWriter("shop.localhost", "pg", 2), d.startWriter("notes.shop.localhost", "lite", 1)
	writeRows(t, pg, notes)
	inPG, inNotes := pg.committed(), notes.committed()
	ids := e.ids("shop")
	archive := d.backup("shop")
	writeRows(t, pg, notes) // the app runs again, and takes what was held
	pg.onlyHeld(t)
	notes.onlyHeld(t)
	for service, was := range ids {
		if now := e.ids("shop")[service]; now[:64] != was[:64] || !strings.Contains(now, "running") {
			t.Errorf("%s is %s after the backup, was %s", service, now, was)
		}
	}
	m := d.manifest(archive)
	t.Logf("downtime %v, of data %v; stopped %v", time.Duration(m.Quiesce.Downtime), time.Duration(m.Quiesce.DataDowntime), m.Quiesce.Stopped)
	d.must("archive", "verify", archive)
	t.Log(d.must("archive", "show", archive, "--json").stdout)
	text := d.must("archive", "show", archive).stdout
	if strings.Contains(text, "correct-horse") {
		t.Errorf("archive show prints a password:\n%s", text)
	}

	p.down()
	e.removeImages(shopImages...)
	if err := os.RemoveAll(p.dir); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the site is gone", d.status("shop.localhost", "/", http.StatusNotFound))

	other := t.TempDir()
	e.restoreElsewhere(d, archive, other)
	haveAll(t, "PostgreSQL", d.rows("new.localhost"), inPG)
	haveAll(t, "SQLite", d.rows("notes.new.localhost"), inNotes)
	e.checkCache("shop2-cache-1")
	sameTree(t, "the volume with all kinds of files", e.tree(filepath.Join(other, "files")), files)
	sameTree(t, "the folder with the site", e.tree(filepath.Join(other, "shop2", "site")), site)
	eventually(t, "nginx answers at its new name", d.status("www.new.localhost", "/more/page.html", http.StatusOK))
	resp, err := http.Get("http://127.0.0.1:28081/")
	if err != nil {
		t.Error(err)
	} else if resp.Body.Close(); resp.StatusCode != http.StatusOK {
		t.Errorf("the new port answers %d", resp.StatusCode)
	}
	if v, err := e.c.VolumeInspect(t.Context(), "notes-here"); err != nil || v.Labels["kept"] != "for-ever" {
		t.Errorf("the volume of notes is %+v, %v", v, err)
	}
	// Compose takes it over under its new name. It makes anew what differs from its file,
	// with the same data.
	made := e.ids("shop2")
	q := &project{t: t, name: "shop2", dir: filepath.Join(other, "shop2"), host: p.host}
	out := q.compose("--file", "compose.yaml", "--file", "compose.dentropy.yaml", "up", "--detach", "--wait")
	for _, service := range []string{"cache", "db"} {
		if now := e.ids("shop2")[service]; now != made[service] {
			t.Errorf("docker compose up changes %s: %v, was %v\n%s", service, now, made[service], out)
		}
	}
	eventually(t, "the site answers after docker compose up", d.status("new.localhost", "/", http.StatusOK))
	haveAll(t, "PostgreSQL", d.rows("new.localhost"), inPG)
	haveAll(t, "SQLite", d.rows("notes.new.localhost"), inNotes)

	d.must("restore", "--undo", "--yes")
	for _, left := range e.inventory().left(before) {
		if !strings.HasPrefix(left, "volume ") { // data is kept
			t.Errorf("the undone restore leaves %s", left)
		}
	}
}

func (e *engine) restoreElsewhere(d *dentropy, archive, dir string) {
	e.t.Helper()
	d.refuses([]string{"host-path"}, "restore", archive, "--yes", "--as", "shop2",
		"--volume", "shop_files=path:"+filepath.Join(dir, "files"), "--port", "web:80=127.0.0.1:28081",
		"--route", "shop=new.localhost", "--route", "notes=notes.new.localhost", "--route", "web=www.new.localhost")
	if err := os.MkdirAll(filepath.Join(dir, "redis"), 0o755); err != nil {
		e.t.Fatal(err)
	}
	r := d.must("restore", archive, "--yes", "--as", "shop2", "--project-dir", filepath.Join(dir, "shop2"), "--allow", "host-path,volume-driver,setuid,device",
		"--volume", "shop_files=path:"+filepath.Join(dir, "files"),
		"--volume", "shop_redis=driver:local,type=none,o=bind,device="+filepath.Join(dir, "redis"),
		"--volume", "shop_notes=name:notes-here",
		"--port", "web:80=127.0.0.1:28081",
		"--network", "shop_default=subnet:10.99.8.0/24",
		"--route", "shop=new.localhost", "--route", "notes=notes.new.localhost", "--route", "web=www.new.localhost")
	e.t.Logf("restore says:\n%s", r.stderr)
	vs, err := e.c.VolumeList(e.t.Context(), volume.ListOptions{})
	e.must("list volumes", err)
	for _, v := range vs.Volumes {
		if strings.HasPrefix(v.Name, "shop_") {
			e.t.Errorf("there is a volume %s", v.Name)
		}
	}
}

// An unchanged restore looks to Compose as if nothing had happened.
func TestRestoreIsAdopted(t *testing.T) {
	e := newEngine(t)
	e.realApps()
	before := e.inventory()
	d := up(t)
	t.Cleanup(func() { e.clear(before) })
	p := e.newProject("kept", strippedShop())
	p.up()
	w := d.startWriter("kept.localhost", "row", 1)
	writeRows(t, w)
	rows := w.end()
	archive := d.backup("kept", "--image", "never")
	files := make(map[string][]byte)
	for _, name := range []string{"compose.yaml", ".env"} {
		b, err := os.ReadFile(filepath.Join(p.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = b
	}
	p.down()
	if err := os.RemoveAll(p.dir); err != nil {
		t.Fatal(err)
	}
	d.must("restore", archive, "--yes", "--allow", "host-path")
	for name, want := range files {
		if got, err := os.ReadFile(filepath.Join(p.dir, name)); err != nil || string(got) != string(want) {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
	made := e.ids("kept")
	if len(made) == 0 {
		t.Fatal("nothing was restored")
	}
	out := p.compose("up", "--detach", "--wait")
	if now := e.ids("kept"); fmt.Sprint(now) != fmt.Sprint(made) {
		t.Errorf("docker compose up changes the restored app:\n%v, was\n%v\n%s", now, made, out)
	}
	for _, word := range []string{"Recreat", "Creat", "Starting", "Pull"} {
		if strings.Contains(out, word) {
			t.Errorf("docker compose up says %q:\n%s", word, out)
		}
	}
	haveAll(t, "PostgreSQL", d.rows("kept.localhost"), rows)
	p.down() // and takes all of it down again
	// The anonymous volume has a name now, and is nobody's but ours to remove.
	if left := e.inventory().left(before); len(left) > 1 || len(left) == 1 && left[0] != "volume kept-notes-1_scratch" {
		t.Errorf("docker compose down leaves %q", left)
	}
}

// strippedShop is the shop on other ports and networks.
func strippedShop() map[string]string {
	out := make(map[string]string)
	for name, text := range shopFiles {
		out[name] = strings.NewReplacer("28080", "28090", "10.99.7", "10.99.17").Replace(text)
	}
	return out
}
