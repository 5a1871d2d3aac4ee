package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"

	"github.com/dentropy/dentropycloud/backup"
)

// programs is where the programs of the tests are.
var programs = filepath.Join(os.TempDir(), fmt.Sprintf("dentropy-docker-test-%d", os.Getpid()))

// testsAtOnce is how many tests use the engine at a time: they wait more than they work.
const testsAtOnce = 6

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv("DOCKER_TEST_HOST") != "" {
		_ = flag.Set("test.parallel", strconv.Itoa(testsAtOnce))
	}
	m.Run()
	_ = os.RemoveAll(programs)
}

// built are the programs of the tests, built once.
var built = sync.OnceValues(func() (map[string]string, error) {
	dir := programs
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, name := range []string{"helper", "app"} {
		out[name] = filepath.Join(dir, name)
		build := exec.Command("go", "build", "-o", out[name], "./testdata/"+name)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w\n%s", name, err, text)
		}
	}
	return out, nil
})

// bed is a real engine, with a platform on it and an image of the app.
type bed struct {
	t       *testing.T
	cli     *client.Client
	p       *Platform
	tag     string // begins the names of all that a test makes
	image   string
	warned  []string
	warnMu  sync.Mutex
	resting []*backup.Resting
	ops     []string // of the operations of journal
}

// newBed makes a bed for a test that runs beside others.
func newBed(t *testing.T) *bed {
	t.Helper()
	t.Parallel()
	return newBedAlone(t)
}

// newBedAlone makes a bed for a test that does something to the engine, or to this process.
func newBedAlone(t *testing.T) *bed {
	t.Helper()
	host := os.Getenv("DOCKER_TEST_HOST")
	if host == "" {
		t.Skip("DOCKER_TEST_HOST names no Docker Engine")
	}
	programs, err := built()
	if err != nil {
		t.Fatal(err)
	}
	cli, err := client.NewClientWithOpts(client.WithHost(host), client.WithVersion(os.Getenv("DOCKER_MIN_API_VERSION")), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, cli: cli, tag: fmt.Sprintf("bt%d", time.Now().UnixNano())}
	b.image = b.tag + "img:1"
	b.importImage(b.image, programs["app"])
	log := slog.DiscardHandler
	if testing.Verbose() {
		log = slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})
	}
	b.p, err = New(Options{
		Endpoint: host, HelperBinary: programs["helper"], HelperArgs: []string{"helper"},
		TransitVolume: b.tag + "transit", Log: slog.New(log),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.sweep(); _ = cli.Close(); _ = b.p.Close() })
	return b
}

// importImage makes an image of the app, with a shell that is the app as well.
func (b *bed) importImage(ref, program string) {
	b.t.Helper()
	text, err := os.ReadFile(program)
	b.must(err)
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	b.must(w.WriteHeader(&tar.Header{Name: "app", Mode: 0o755, Size: int64(len(text))}))
	_, err = w.Write(text)
	b.must(err)
	for _, dir := range []string{"bin/", "tmp/", "etc/"} {
		b.must(w.WriteHeader(&tar.Header{Name: dir, Mode: 0o777, Typeflag: tar.TypeDir}))
	}
	b.must(w.WriteHeader(&tar.Header{Name: "bin/sh", Mode: 0o755, Linkname: "app", Typeflag: tar.TypeLink}))
	b.must(w.Close())
	out, err := b.cli.ImageImport(b.t.Context(), image.ImportSource{Source: &files, SourceName: "-"}, ref, image.ImportOptions{Changes: []string{`CMD ["/app", "run"]`}})
	b.must(err)
	_, err = io.Copy(io.Discard, out)
	b.must(err)
	_ = out.Close()
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// sweep removes all that a test has made.
func (b *bed) sweep() {
	ctx := context.Background()
	list, err := b.cli.ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		b.t.Error(err)
		return
	}
	for _, s := range list {
		if strings.HasPrefix(containerName(s), b.tag) || s.Labels[labelRole] != "" && strings.Contains(fmt.Sprint(s.Mounts), b.tag) {
			_ = b.cli.ContainerRemove(ctx, s.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
		}
	}
	vols, err := b.cli.VolumeList(ctx, volume.ListOptions{})
	if err == nil {
		for _, v := range vols.Volumes {
			if strings.HasPrefix(v.Name, b.tag) {
				_ = b.cli.VolumeRemove(ctx, v.Name, true)
			}
		}
	}
	nets, err := b.cli.NetworkList(ctx, network.ListOptions{})
	if err == nil {
		for _, n := range nets {
			if strings.HasPrefix(n.Name, b.tag) {
				_ = b.cli.NetworkRemove(ctx, n.ID)
			}
		}
	}
	_, _ = b.cli.ImageRemove(ctx, b.image, image.RemoveOptions{Force: true})
}

// spec is a container of a test.
type spec struct {
	name   string // after the tag
	labels map[string]string
	env    []string
	cmd    []string
	binds  []string
	edit   func(*container.Config, *container.HostConfig)
	net    *network.NetworkingConfig
	create bool // and do not start it
}

// run makes a container of a compose project named after the tag.
func (b *bed) run(s spec) string {
	b.t.Helper()
	labels := map[string]string{labelProject: b.tag, labelService: s.name, labelNumber: "1"}
	for k, v := range s.labels {
		labels[k] = v
	}
	cfg := &container.Config{Image: b.image, Labels: labels, Env: s.env, Cmd: s.cmd}
	hc := &container.HostConfig{Binds: s.binds}
	if s.edit != nil {
		s.edit(cfg, hc)
	}
	made, err := b.cli.ContainerCreate(b.t.Context(), cfg, hc, s.net, nil, b.tag+s.name)
	b.must(err)
	if !s.create {
		b.must(b.cli.ContainerStart(b.t.Context(), made.ID, container.StartOptions{}))
	}
	return made.ID
}

// vol makes a named volume, as compose would.
func (b *bed) vol(name string) string {
	b.t.Helper()
	v, err := b.cli.VolumeCreate(b.t.Context(), volume.CreateOptions{Name: b.tag + name, Labels: map[string]string{labelProject: b.tag, labelComposeVolume: name}})
	b.must(err)
	return v.Name
}

func (b *bed) inspect(id string) container.InspectResponse {
	b.t.Helper()
	in, err := b.cli.ContainerInspect(context.Background(), id)
	b.must(err)
	return in
}

// running fails the test unless a container runs.
func (b *bed) running(ids ...string) {
	b.t.Helper()
	for _, id := range ids {
		if st := b.inspect(id).State; !st.Running || st.Paused {
			b.t.Errorf("%s is %s, want it running", b.inspect(id).Name, st.Status)
		}
	}
}

// until waits for a condition.
func (b *bed) until(what string, ok func() bool) {
	b.t.Helper()
	limit := time.After(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			b.t.Fatalf("waited a minute for: %s", what)
		}
	}
}

// file reads a file of a container.
func (b *bed) file(id, path string) string {
	b.t.Helper()
	r, _, err := b.cli.CopyFromContainer(context.Background(), id, path)
	if err != nil {
		return ""
	}
	defer r.Close()
	tr := tar.NewReader(r)
	if _, err := tr.Next(); err != nil {
		return ""
	}
	text, err := io.ReadAll(tr)
	b.must(err)
	return string(text)
}

func (b *bed) capture(opts backup.CaptureOptions) *backup.App {
	b.t.Helper()
	app, err := b.p.Capture(b.t.Context(), b.tag, opts)
	b.must(err)
	return app
}

// options are those of a freeze, with what is reported kept.
func (b *bed) options() backup.FreezeOptions {
	return backup.FreezeOptions{
		HealthTimeout: 20 * time.Second, TempDir: b.t.TempDir(),
		Report: func(p backup.Progress) {
			b.warnMu.Lock()
			defer b.warnMu.Unlock()
			if p.Warning != "" {
				b.warned = append(b.warned, p.Warning)
			}
		},
		Resting: func(r *backup.Resting) {
			b.warnMu.Lock()
			defer b.warnMu.Unlock()
			b.resting = append(b.resting, r)
		},
	}
}

func (b *bed) warnings() string {
	b.warnMu.Lock()
	defer b.warnMu.Unlock()
	return strings.Join(b.warned, "\n")
}

// memJournal is a journal in memory.
type memJournal struct {
	op string
	mu sync.Mutex
	// at is called before an entry is taken; an error is Append's.
	at      func(n int, step string) error
	entries []backup.Entry
}

func newJournal() *memJournal { return &memJournal{op: randomOp()} }

// journal begins an operation whose helpers names lists.
func (b *bed) journal() *memJournal {
	j := newJournal()
	b.ops = append(b.ops, j.op)
	return j
}

// ofOurs reports whether a container is the bed's: part of its apps, or a helper of its
// operations.
func (b *bed) ofOurs(c container.Summary) bool {
	return strings.HasPrefix(containerName(c), b.tag) || slices.Contains(b.ops, c.Labels[labelJob])
}

func (j *memJournal) Op() string { return j.op }

func (j *memJournal) Append(step string, data any) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.at != nil {
		if err := j.at(len(j.entries), step); err != nil {
			return err
		}
	}
	raw, err := json.Marshal(data)
	j.entries = append(j.entries, backup.Entry{Time: time.Now(), Step: step, Data: raw})
	return err
}

func (j *memJournal) list() []backup.Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]backup.Entry(nil), j.entries...)
}

func (j *memJournal) operation(b *bed) backup.Operation {
	return backup.Operation{ID: j.op, Kind: "backup", Platform: "docker", App: b.tag}
}

// ours lists the helpers and guards of an operation.
func (b *bed) ours(op string) []container.Summary {
	b.t.Helper()
	list, err := b.cli.ContainerList(context.Background(), container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", labelJob+"="+op))})
	b.must(err)
	return list
}

// clean fails the test if an operation has left anything behind.
func (b *bed) clean(op string) {
	b.t.Helper()
	for _, s := range b.ours(op) {
		b.t.Errorf("%s is left", containerName(s))
	}
	var list struct {
		Files []struct{ Name string } `json:"files"`
	}
	err := b.p.helperResult(context.Background(), helperTask{op: "000000000000", name: "list", input: map[string]string{"dir": transitDir}, mounts: []helperMount{b.p.transitMount(false)}}, &list)
	b.must(err)
	for _, f := range list.Files {
		b.t.Errorf("transit still holds %s", f.Name)
	}
	images, err := b.cli.ImageList(context.Background(), image.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", layerRepo))})
	b.must(err)
	for _, im := range images {
		for _, tag := range im.RepoTags {
			if strings.HasPrefix(tag, layerRepo+":"+op) {
				b.t.Errorf("image %s is left", tag)
			}
		}
	}
}
