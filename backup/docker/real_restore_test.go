package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"

	"github.com/dentropy/dentropycloud/backup"
)

var errSpoilt = errors.New("the test wants it so")

// packed is an archive in memory.
type packed struct {
	m       *backup.Manifest
	app     *backup.App
	members []backup.Member
	data    [][]byte
	// finish is what Finish returns.
	finish error

	next int
	cur  *bytes.Reader
}

func (p *packed) Manifest() *backup.Manifest { return p.m }

func (p *packed) App() (*backup.App, error) { return p.app, nil }

func (p *packed) Next() (*backup.Member, error) {
	if p.next == len(p.members) {
		return nil, io.EOF
	}
	m := p.members[p.next]
	p.cur = bytes.NewReader(p.data[p.next])
	p.next++
	return &m, nil
}

func (p *packed) Read(b []byte) (int, error) {
	if p.cur == nil {
		return 0, io.EOF
	}
	return p.cur.Read(b)
}

func (p *packed) Finish(context.Context) error { return p.finish }

// again is the same archive from its start.
func (p *packed) again() *packed {
	q := *p
	q.next, q.cur = 0, nil
	return &q
}

// pack freezes the app of a bed into memory.
func (b *bed) pack(opts backup.CaptureOptions) *packed {
	b.t.Helper()
	ctx := b.t.Context()
	app := b.capture(opts)
	fopts := b.options()
	est, err := b.p.Estimate(ctx, app, fopts)
	b.must(err)
	z, err := b.p.Freeze(ctx, app, est, fopts, b.journal())
	b.must(err)
	defer func() { b.must(z.Close(context.WithoutCancel(ctx))) }()
	p := &packed{app: app, m: &backup.Manifest{Format: backup.FormatVersion, ID: "archive-" + b.tag, App: app, Trees: z.Trees()}}
	b.resting = nil
	if r, err := z.Images(ctx); err == nil {
		p.m.ImagesInside = true
		tr := tar.NewReader(r)
		for {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			b.must(err)
			text, err := io.ReadAll(tr)
			b.must(err)
			if h.Typeflag == tar.TypeReg {
				p.add(backup.Member{Name: "dentropy/30-images/" + h.Name, Kind: backup.MemberImage, Path: h.Name}, text)
			}
		}
		_ = r.Close()
	}
	for _, v := range app.Volumes {
		tree := p.m.Trees[v.ID]
		if tree == nil {
			continue
		}
		r, err := z.Segments(ctx, v.ID)
		b.must(err)
		for n, s := range tree.Segments {
			text, err := io.ReadAll(io.LimitReader(r, s.Size))
			b.must(err)
			p.add(backup.Member{Kind: backup.MemberSegment, Volume: v.ID, Segment: n}, text)
		}
		_ = r.Close()
	}
	return p
}

func (p *packed) add(m backup.Member, text []byte) {
	m.Size = int64(len(text))
	p.members, p.data = append(p.members, m), append(p.data, text)
}

// shop is an app of two services on a network of its own.
type shop struct {
	*bed
	db, web string
	volume  string
	net     string
	host    string // that web asks for
}

func newShop(t *testing.T) *shop {
	b := newBed(t)
	s := &shop{bed: b, volume: b.vol("data"), net: b.tag + "_default", host: b.tag + ".example.com"}
	s.network()
	ends := &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{s.net: {Aliases: []string{"db"}}}}
	s.db = b.run(spec{
		name: "db", labels: map[string]string{"com.docker.compose.image": "sha256:of-compose"},
		env: []string{"NOTE=/data/note", "WRITE=/data/ticks", "PASSWORD=hunter2"}, binds: []string{s.volume + ":/data"}, net: ends,
		edit: func(c *container.Config, h *container.HostConfig) {
			h.NetworkMode = container.NetworkMode(s.net)
			c.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "/app", "healthy"}, Interval: time.Second, Timeout: 5 * time.Second}
			c.Volumes = map[string]struct{}{"/anon": {}}
		},
	})
	s.web = b.run(spec{
		name: "web", labels: map[string]string{labelDependsOn: "db:service_healthy:false", "dentropy.host": s.host, "dentropy.port": "80"},
		env: []string{"NOTE=/tmp/note"}, binds: []string{s.volume + ":/data:ro"},
		net: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{s.net: {Aliases: []string{"web"}}}},
		edit: func(_ *container.Config, h *container.HostConfig) {
			h.NetworkMode = container.NetworkMode(s.net)
			h.RestartPolicy = container.RestartPolicy{Name: "unless-stopped"}
			h.Tmpfs = map[string]string{"/scratch": ""} // the engine makes an empty folder for it
		},
	})
	b.until("the database writes", func() bool { return strings.Contains(b.file(s.db, "/data/note"), "start") })
	b.exec(s.db, "/app", "note", "/anon/kept", "anonymous")
	return s
}

func (s *shop) network() {
	s.t.Helper()
	var err error
	for range 5 { // of its own: what the engine chose, another test would get while it is away
		subnet := fmt.Sprintf("198.%d.%d.0/24", 18+rand.IntN(2), rand.IntN(256))
		_, err = s.cli.NetworkCreate(s.t.Context(), s.net, network.CreateOptions{
			Driver: "bridge", Labels: map[string]string{labelProject: s.tag, labelComposeNetwork: "default"},
			IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: subnet}}},
		})
		if err == nil {
			return
		}
	}
	s.must(err)
}

func (b *bed) exec(id string, cmd ...string) {
	b.t.Helper()
	ctx := context.Background()
	made, err := b.cli.ContainerExecCreate(ctx, id, container.ExecOptions{Cmd: cmd})
	b.must(err)
	b.must(b.cli.ContainerExecStart(ctx, made.ID, container.ExecStartOptions{}))
	b.until("the command ended", func() bool {
		in, err := b.cli.ContainerExecInspect(ctx, made.ID)
		b.must(err)
		if !in.Running && in.ExitCode != 0 {
			b.t.Fatalf("%v ended with %d", cmd, in.ExitCode)
		}
		return !in.Running
	})
}

// remove takes the app away entirely.
func (s *shop) remove() {
	s.t.Helper()
	ctx := context.Background()
	for _, id := range []string{s.web, s.db} {
		s.must(s.cli.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true}))
	}
	s.must(s.cli.VolumeRemove(ctx, s.volume, true))
	s.must(s.cli.NetworkRemove(ctx, s.net))
}

// byName inspects a container of the bed.
func (b *bed) byName(name string) container.InspectResponse { return b.inspect(name) }

func (b *bed) plan(p *packed, a backup.Answers) *backup.Plan {
	b.t.Helper()
	plan, err := b.p.Plan(b.t.Context(), p.m, p.app, a)
	b.must(err)
	return plan
}

func (b *bed) applyOptions() backup.ApplyOptions {
	f := b.options()
	return backup.ApplyOptions{HealthTimeout: 30 * time.Second, Report: f.Report, Resting: f.Resting}
}

// names lists what of the bed is on the engine.
func (b *bed) names() []string {
	b.t.Helper()
	ctx := context.Background()
	var out []string
	cs, err := b.cli.ContainerList(ctx, container.ListOptions{All: true})
	b.must(err)
	for _, c := range cs {
		if b.ofOurs(c) {
			out = append(out, "container "+containerName(c)+" "+c.State)
		}
	}
	vs, err := b.cli.VolumeList(ctx, volume.ListOptions{})
	b.must(err)
	for _, v := range vs.Volumes {
		if strings.HasPrefix(v.Name, b.tag) && v.Name != b.tag+"transit" {
			out = append(out, "volume "+v.Name)
		}
	}
	ns, err := b.cli.NetworkList(ctx, network.ListOptions{})
	b.must(err)
	for _, n := range ns {
		if strings.HasPrefix(n.Name, b.tag) {
			out = append(out, "network "+n.Name)
		}
	}
	slices.Sort(out)
	return out
}

func TestRealRestoreUnchanged(t *testing.T) {
	s := newShop(t)
	p := s.pack(backup.CaptureOptions{})
	before := s.byName(s.tag + "web")
	s.remove()
	_, err := s.cli.ImageRemove(t.Context(), s.image, image.RemoveOptions{Force: true})
	s.must(err)

	plan := s.plan(p, backup.Answers{})
	if !plan.Ready() {
		t.Fatalf("plan is not ready: %+v", plan)
	}
	if got := fmt.Sprint(plan.Hosts); got != "["+s.host+"]" {
		t.Errorf("hosts %v, want the web's", got)
	}
	if strings.Contains(string(plan.Detail)+fmt.Sprint(plan.Steps), "hunter2") {
		t.Error("the plan holds a secret")
	}
	var probed []string
	opts := s.applyOptions()
	opts.Probe = func(_ context.Context, host string) error { probed = append(probed, host); return nil }
	j := s.journal()
	undo, err := s.p.apply(t.Context(), plan, p, opts, j)
	s.must(err)
	web, db := s.byName(s.tag+"web"), s.byName(s.tag+"db")
	s.running(web.ID, db.ID)
	if len(probed) != 1 {
		t.Errorf("probed %v, want one host", probed)
	}
	if got := s.file(db.ID, "/data/note"); !strings.HasPrefix(got, "start\nend\nstart") {
		t.Errorf("the restored note is %q, want what was written before and a new start", got)
	}
	if got := s.file(db.ID, "/anon/kept"); got != "anonymous\n" {
		t.Errorf("the anonymous volume holds %q", got)
	}
	if web.Config.Hostname == before.Config.Hostname {
		t.Error("the host name is the old container's")
	}
	for k, v := range before.Config.Labels {
		if web.Config.Labels[k] != v {
			t.Errorf("label %s is %q, want %q", k, web.Config.Labels[k], v)
		}
	}
	if len(web.Config.Labels) != len(before.Config.Labels) || web.Config.Image != s.image {
		t.Errorf("labels %v of image %s, want those before", web.Config.Labels, web.Config.Image)
	}
	if ep := web.NetworkSettings.Networks[s.net]; ep == nil || !slices.Contains(ep.Aliases, "web") {
		t.Errorf("networks %v, want %s with its alias", web.NetworkSettings.Networks, s.net)
	}
	for _, n := range s.names() {
		if strings.Contains(n, j.op) {
			t.Errorf("%s is left", n)
		}
	}

	// There was nothing before: an undo removes the containers and keeps the data.
	uj := s.journal()
	s.must(s.p.Undo(t.Context(), undo, s.applyOptions(), uj))
	for _, n := range s.names() {
		if strings.HasPrefix(n, "container") || strings.HasPrefix(n, "network") {
			t.Errorf("%s is there after the undo", n)
		}
	}
	if _, err := s.cli.VolumeInspect(t.Context(), s.volume); err != nil {
		t.Errorf("the restored volume is gone: %v", err)
	}
}

func TestRealRestoreRenamed(t *testing.T) {
	s := newShop(t)
	p := s.pack(backup.CaptureOptions{})
	name := s.tag + "new"
	plan := s.plan(p, backup.Answers{
		Name: name, Routes: map[string]backup.RouteAnswer{"web": {Host: "new.example.com"}},
		Containers: map[string]string{s.tag + "web": name + "-web-1", s.tag + "db": name + "-db-1"},
		Volumes:    map[string]backup.VolumeAnswer{s.volume: {Name: name + "_data"}},
	})
	if !plan.Ready() {
		t.Fatalf("plan is not ready: %+v", plan)
	}
	_, err := s.p.apply(t.Context(), plan, p, s.applyOptions(), s.journal())
	s.must(err)
	web := s.byName(name + "-web-1")
	s.running(web.ID, s.byName(name+"-db-1").ID, s.web, s.db)
	if web.Config.Labels["dentropy.host"] != "new.example.com" || web.Config.Labels[labelProject] != name {
		t.Errorf("labels %v, want the new host and project", web.Config.Labels)
	}
	if web.NetworkSettings.Networks[name+"_default"] == nil {
		t.Errorf("networks %v, want %s_default", web.NetworkSettings.Networks, name)
	}
}

// write something into the running app, so that the data before a restore differs from
// the archive's.
func (s *shop) mark(text string) { s.exec(s.db, "/app", "note", "/data/mark", text) }

func TestRealReplaceAndUndo(t *testing.T) {
	s := newShop(t)
	p := s.pack(backup.CaptureOptions{})
	s.mark("before the restore")
	s.exec(s.db, "/app", "note", "/etc/layer", "in the layer")
	old := s.names()

	if plan := s.plan(p, backup.Answers{}); plan.Ready() {
		t.Fatal("an app that is here is replaced without being asked")
	}
	plan := s.plan(p, backup.Answers{OnConflict: "replace"})
	if !plan.Ready() {
		t.Fatalf("plan is not ready: %+v", plan.Conflicts)
	}
	j := s.journal()
	undo, err := s.p.apply(t.Context(), plan, p.again(), s.applyOptions(), j)
	s.must(err)
	db := s.byName(s.tag + "db")
	s.running(db.ID, s.byName(s.tag+"web").ID)
	if db.ID == s.db {
		t.Fatal("the old container is still there")
	}
	if got := s.file(db.ID, "/data/mark"); got != "" {
		t.Errorf("the restored volume holds %q, which is not in the archive", got)
	}
	if len(s.resting) < 2 || s.resting[0] == nil || s.resting[len(s.resting)-1] != nil {
		t.Errorf("resting was told %v", s.resting)
	}
	for _, n := range s.names() {
		if strings.HasPrefix(n, "container") && strings.Contains(n, j.op) {
			t.Errorf("%s is left", n)
		}
	}
	if kept := strings.Join(undo.Kept, "\n"); !strings.Contains(kept, "the volume "+s.volume+".pre-restore-"+j.op) || !strings.Contains(kept, "the image dentropy-undo:"+j.op) {
		t.Errorf("what is kept: %s\nwant the old volume, and what the old container had written", kept)
	}

	s.must(s.p.Undo(t.Context(), undo, s.applyOptions(), s.journal()))
	db = s.byName(s.tag + "db")
	s.running(db.ID, s.byName(s.tag+"web").ID)
	if got := s.file(db.ID, "/data/mark"); got != "before the restore\n" {
		t.Errorf("after the undo the volume holds %q", got)
	}
	if web := s.byName(s.tag + "web"); web.Config.Image != s.image || db.Config.Labels["com.docker.compose.image"] != "sha256:of-compose" {
		t.Errorf("after the undo web is of %s, and db has labels %v: want its own image, and compose's label", web.Config.Image, db.Config.Labels)
	}
	if got := s.file(db.ID, "/etc/layer"); got != "in the layer\n" {
		t.Errorf("after the undo the layer holds %q", got)
	}
	if got := s.file(db.ID, "/anon/kept"); got != "anonymous\n" {
		t.Errorf("after the undo the anonymous volume holds %q", got)
	}
	s.must(s.p.Forget(t.Context(), undo))
	for _, n := range s.names() {
		if !slices.Contains(old, n) && !strings.Contains(n, "_anon") {
			t.Errorf("%s is left", n)
		}
	}
}

func TestRealRollback(t *testing.T) {
	s := newShop(t)
	p := s.pack(backup.CaptureOptions{})
	s.mark("before the restore")
	old := s.names()
	web, db := s.byName(s.tag+"web"), s.byName(s.tag+"db")
	plan := s.plan(p, backup.Answers{OnConflict: "replace"})

	for _, c := range []struct {
		name  string
		spoil func(*packed, *backup.ApplyOptions)
	}{
		{"the site does not answer", func(_ *packed, o *backup.ApplyOptions) {
			o.Probe = func(context.Context, string) error { return errSpoilt }
		}},
		{"the archive is incomplete", func(p *packed, _ *backup.ApplyOptions) { p.finish = backup.ErrIncomplete }},
		{"data is missing", func(p *packed, _ *backup.ApplyOptions) {
			p.members, p.data = p.members[:len(p.members)-1], p.data[:len(p.data)-1]
		}},
		{"data is damaged", func(p *packed, _ *backup.ApplyOptions) {
			last := len(p.data) - 1
			p.data = slices.Clone(p.data)
			p.data[last] = slices.Clone(p.data[last])
			p.data[last][len(p.data[last])/2] ^= 1
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			q, opts := p.again(), s.applyOptions()
			c.spoil(q, &opts)
			_, err := s.p.apply(t.Context(), plan, q, opts, s.journal())
			if err == nil || errors.Is(err, backup.ErrLeftStopped) {
				t.Fatalf("apply = %v, want an error with everything as it was", err)
			}
			t.Log(err)
			s.asBefore(t, old, web, db)
		})
	}
}

// asBefore fails the test unless everything is as it was.
func (s *shop) asBefore(t *testing.T, old []string, containers ...container.InspectResponse) {
	t.Helper()
	if got := s.names(); !slices.Equal(got, old) {
		t.Errorf("there are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(old, "\n"))
	}
	for _, c := range containers {
		now := s.byName(trimSlash(c.Name))
		if now.ID != c.ID || !now.State.Running || now.HostConfig.RestartPolicy.Name != c.HostConfig.RestartPolicy.Name {
			t.Errorf("%s is %s with restart %q, want it as it was", c.Name, now.State.Status, now.HostConfig.RestartPolicy.Name)
		}
	}
	if got := s.file(s.db, "/data/mark"); got != "before the restore\n" {
		t.Errorf("the volume holds %q, want what it held", got)
	}
}

// TestRealRecoverRestore ends the process at each entry of the journal.
func TestRealRecoverRestore(t *testing.T) {
	s := newShop(t)
	p := s.pack(backup.CaptureOptions{})
	s.mark("before the restore")
	old := s.names()
	web, db := s.byName(s.tag+"web"), s.byName(s.tag+"db")
	plan := s.plan(p, backup.Answers{OnConflict: "replace"})
	for n := 1; ; n++ {
		j := s.journal()
		var once sync.Once
		ctx, cancel := context.WithCancelCause(t.Context())
		j.at = func(at int, _ string) error {
			if at >= n {
				once.Do(func() { cancel(errSpoilt) })
				return errSpoilt
			}
			return nil
		}
		opts := s.applyOptions()
		r, err := s.p.newRestore(plan, p.again(), opts, j)
		s.must(err)
		_, err = r.run(ctx) // nothing is taken back
		cancel(nil)
		r.c.leaveGuard(t.Context())
		if err == nil { // it took no more entries; what is finished is not taken back
			s.must(s.p.Recover(t.Context(), backup.Operation{ID: j.op, Kind: "restore", App: s.tag}, j.list(), nil))
			break
		}
		op := backup.Operation{ID: j.op, Kind: "restore", Platform: "docker", App: s.tag}
		entries := j.list()
		last := entries[len(entries)-1].Step
		t.Logf("cut after %d entries, %s", len(entries), last)
		for range 2 { // it can be repeated
			s.must(s.p.Recover(t.Context(), op, entries, nil))
		}
		if last == backup.StepUndo {
			break
		}
		s.asBefore(t, old, web, db)
		if t.Failed() {
			return
		}
	}
	now := s.byName(s.tag + "db")
	s.running(now.ID, s.byName(s.tag+"web").ID)
	if now.ID == s.db || s.file(now.ID, "/data/mark") != "" {
		t.Error("the restore is not finished")
	}
}
