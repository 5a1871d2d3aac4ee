package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
)

// project is an application in a folder of its own, run by Docker Compose.
type project struct {
	t    *testing.T
	name string
	dir  string
	host string // the engine's endpoint
}

// shopFiles are a project with real software: PostgreSQL, Redis, nginx with content, an
// application on SQLite, and one on PostgreSQL. $NAME is the project's name.
var shopFiles = map[string]string{
	".env": "POSTGRES_PASSWORD=correct-horse-battery\nSHOP_HOST=$NAME.localhost\n",
	"compose.yaml": `
services:
  db:
    image: ` + postgresImage + `
    environment:
      POSTGRES_PASSWORD: ${POSTGRES_PASSWORD}
    volumes: [pgdata:/var/lib/postgresql/data]
    networks: [inner]
    healthcheck:
      test: [CMD, pg_isready, -h, 127.0.0.1, -U, postgres]
      interval: 300ms
      timeout: 5s
      retries: 100
  cache:
    image: ` + redisImage + `
    volumes: [redis:/data]
    networks: [inner]
  shop:
    image: ` + shopImage + `
    command: [-db, psql, -name, shop]
    environment: {PGHOST: db, PGUSER: postgres, PGPASSWORD: "${POSTGRES_PASSWORD}"}
    depends_on: {db: {condition: service_healthy}, cache: {condition: service_started}}
    networks: [default, inner]
    restart: unless-stopped
    labels:
      dentropy.host: ${SHOP_HOST}
      dentropy.hold: 60s
  notes:
    image: ` + shopImage + `
    command: [-db, sqlite, -name, notes]
    volumes: [notes:/data, /scratch]
    labels:
      dentropy.host: notes.${SHOP_HOST}
      dentropy.hold: 60s
  web:
    image: ` + nginxImage + `
    ports: ["127.0.0.1:28080:80"]
    volumes:
      - ./site:/site:ro
      - ./nginx.conf:/etc/nginx/nginx.conf:ro
      - files:/site/files
    depends_on: [shop]
    labels:
      dentropy.host: www.${SHOP_HOST}
      dentropy.hold: 60s
networks:
  default:
    ipam: {config: [{subnet: 10.99.7.0/24}]}
  inner: {internal: true}
volumes:
  pgdata: {}
  redis: {}
  notes: {labels: {kept: for-ever}}
  files: {}
`,
	"nginx.conf": `
worker_processes 1;
pid /tmp/nginx.pid;
events {}
http {
	access_log off;
	server {
		listen 80;
		root /site;
	}
}
`,
	"site/index.html":     "<h1>shop</h1>\n",
	"site/files/.keep":    "",
	"site/more/page.html": "page\n",
}

// newProject writes the files of a project. What Compose makes of it is removed at the
// end of the test, whatever its name is then.
func (e *engine) newProject(name string, files map[string]string) *project {
	e.t.Helper()
	dir, err := os.MkdirTemp("", "e2e-"+name)
	e.must("make a folder", err)
	e.t.Cleanup(func() { os.RemoveAll(dir) })
	for file, text := range files {
		path := filepath.Join(dir, file)
		e.must("make a folder", os.MkdirAll(filepath.Dir(path), 0o755))
		e.must("write "+file, os.WriteFile(path, []byte(strings.ReplaceAll(text, "$NAME", name)), 0o644))
	}
	return &project{t: e.t, name: name, dir: dir, host: e.c.DaemonHost()}
}

// compose runs a verb of Docker Compose in a folder.
func compose(t *testing.T, host, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tool(t, "DENTROPY_COMPOSE"), append([]string{"--ansi", "never", "--progress", "plain"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+host, "DOCKER_CONFIG="+filepath.Join(dir, ".docker"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("docker compose %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (p *project) compose(args ...string) string {
	p.t.Helper()
	return compose(p.t, p.host, p.dir, append([]string{"--project-name", p.name}, args...)...)
}

func (p *project) up() { p.t.Helper(); p.compose("up", "--detach", "--wait") }

// down removes the application entirely.
func (p *project) down() {
	p.t.Helper()
	p.compose("down", "--volumes", "--timeout", "5")
}

// ids gives the container ids of a compose project, by service, with when they started.
func (e *engine) ids(projectName string) map[string]string {
	e.t.Helper()
	list, err := e.c.ContainerList(e.t.Context(), container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", "com.docker.compose.project="+projectName)),
	})
	e.must("list containers", err)
	out := make(map[string]string)
	for _, c := range list {
		info, err := e.c.ContainerInspect(e.t.Context(), c.ID)
		e.must("inspect "+c.ID, err)
		out[c.Labels["com.docker.compose.service"]] = c.ID + " " + info.State.Status + " since " + info.State.StartedAt
	}
	return out
}

// writer adds rows to a shop as fast as it answers, and knows those that it said were
// committed.
type writer struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex // guards what follows
	acked    []string
	statuses map[int]int
	errs     []error
	slowest  time.Duration
}

func (d *dentropy) startWriter(host, prefix string, workers int) *writer {
	d.t.Helper()
	ctx, cancel := context.WithCancel(d.t.Context())
	w := &writer{cancel: cancel, statuses: make(map[int]int)}
	d.t.Cleanup(func() { w.end() })
	for n := range workers {
		c, err := d.client(true)
		if err != nil {
			d.t.Fatal(err)
		}
		c.Timeout = 2 * time.Minute // a request is held while the app is stopped
		w.wg.Go(func() { w.work(ctx, c, d.url(host, "/rows/"), fmt.Sprint(prefix, "-", n)) })
	}
	return w
}

func (w *writer) work(ctx context.Context, c *http.Client, url, prefix string) {
	defer c.CloseIdleConnections()
	for n := 0; ctx.Err() == nil; n++ {
		key := fmt.Sprintf("%s-%06d", prefix, n)
		began := time.Now()
		req, err := http.NewRequest(http.MethodPut, url+key, strings.NewReader("v"+key))
		if err != nil {
			panic(err) // the address is ours
		}
		resp, err := c.Do(req)
		w.mu.Lock()
		w.slowest = max(w.slowest, time.Since(began))
		if err != nil {
			w.errs = append(w.errs, err)
		} else {
			resp.Body.Close()
			w.statuses[resp.StatusCode]++
			if resp.StatusCode == http.StatusOK {
				w.acked = append(w.acked, key+" v"+key)
			}
		}
		w.mu.Unlock()
		select { // there are two cores for all of us
		case <-ctx.Done():
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// end stops writing and gives the rows that are committed for sure.
func (w *writer) end() []string {
	w.cancel()
	w.wg.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acked
}

// count gives the number of committed rows so far.
func (w *writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

// committed gives the rows that are committed by now.
func (w *writer) committed() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.acked)
}

// onlyHeld ends the writer: no request may have come to anything but success, or the
// page that says that the site is under maintenance. Those under way when a container is
// about to stop are answered by it, and those that come then wait.
func (w *writer) onlyHeld(t *testing.T) {
	t.Helper()
	w.end()
	for status, n := range w.statuses {
		if status != http.StatusOK && status != http.StatusServiceUnavailable {
			t.Errorf("%d requests were answered %d, want only 200 and 503", n, status)
		}
	}
	if len(w.errs) > 0 {
		t.Errorf("%d requests failed; the first: %v", len(w.errs), w.errs[0])
	}
	t.Logf("%d rows, answers %v, the slowest took %v", len(w.acked), w.statuses, w.slowest)
}

// rows asks a shop for its rows.
func (d *dentropy) rows(host string) []string {
	d.t.Helper()
	var rows []string
	eventually(d.t, host+" lists its rows", func() error {
		a, err := d.get(host, "/rows")
		if err != nil {
			return err
		}
		if a.status != http.StatusOK {
			return fmt.Errorf("status %d: %.200s", a.status, a.body)
		}
		rows = sorted(strings.Split(strings.TrimSuffix(a.body, "\n"), "\n"))
		return nil
	})
	return rows
}

// sorted sorts rows: each database has an order of its own.
func sorted(rows []string) []string {
	slices.Sort(rows)
	return rows
}

// haveAll fails where a row is missing.
func haveAll(t *testing.T, what string, rows, want []string) {
	t.Helper()
	if len(want) == 0 {
		t.Errorf("%s: no row was written, that proves nothing", what)
	}
	var lost []string
	for _, row := range want {
		if _, ok := slices.BinarySearch(rows, row); !ok {
			lost = append(lost, row)
		}
	}
	if len(lost) > 0 {
		t.Errorf("%s: %d of %d committed rows are lost, among them %q", what, len(lost), len(want), lost[0])
	}
}
