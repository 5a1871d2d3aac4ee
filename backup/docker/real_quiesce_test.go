package docker

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"github.com/dentropy/dentropycloud/backup"
)

// freeze captures, estimates and freezes the app of the bed.
func (b *bed) freeze(opts backup.FreezeOptions, j backup.Journal) (*backup.App, backup.Frozen, error) {
	b.t.Helper()
	app := b.capture(backup.CaptureOptions{})
	est, err := b.p.Estimate(b.t.Context(), app, opts)
	b.must(err)
	z, err := b.p.Freeze(b.t.Context(), app, est, opts, j)
	return app, z, err
}

// frozenNow freezes, fails the test if that does not work, and clears up.
func (b *bed) frozenNow(opts backup.FreezeOptions) (*backup.App, backup.QuiesceReport) {
	b.t.Helper()
	j := newJournal()
	app, z, err := b.freeze(opts, j)
	b.must(err)
	b.must(z.Close(b.t.Context()))
	b.clean(j.op)
	return app, z.Report()
}

func TestRealOrderAndHealth(t *testing.T) {
	b := newBed(t)
	shared := b.vol("shared")
	bind := []string{shared + ":/data"}
	b.run(spec{name: "init", cmd: []string{"/app", "once"}})
	db := b.run(spec{name: "db", env: []string{"NOTE=/data/note", "HEALTHY_AFTER=1500ms"}, binds: bind, edit: func(c *container.Config, _ *container.HostConfig) {
		c.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "/app", "healthy"}, Interval: 200 * time.Millisecond, Retries: 100}
	}})
	b.until("db is healthy", func() bool { return b.inspect(db).State.Health.Status == container.Healthy })
	web := b.run(spec{name: "web", env: []string{"NOTE=/data/note"}, binds: bind, labels: map[string]string{labelDependsOn: "db:service_healthy:true,init:service_completed_successfully:false"}})
	idle := b.run(spec{name: "idle", create: true})
	paused := b.run(spec{name: "asleep"})
	b.must(b.cli.ContainerPause(t.Context(), paused))
	loop := b.run(spec{name: "loop", cmd: []string{"/app", "fail", "x"}, edit: func(_ *container.Config, h *container.HostConfig) {
		h.RestartPolicy.Name = "always"
	}})
	b.until("the loop restarts", func() bool { return b.inspect(loop).RestartCount > 1 })

	app, report := b.frozenNow(b.options())
	var order []string
	for _, c := range app.Containers {
		order = append(order, strings.TrimPrefix(c.Name, b.tag))
	}
	if w := slices.Index(order, "web"); w < slices.Index(order, "db") || w < slices.Index(order, "init") {
		t.Errorf("start order %v, want web after db and init", order)
	}
	var stopped []string
	for _, s := range report.Stopped {
		stopped = append(stopped, strings.TrimPrefix(s.Name, b.tag))
	}
	got := " " + strings.Join(stopped, " ") + " "
	if strings.Index(got, " web ") > strings.Index(got, " db ") || strings.Contains(got, "idle") || strings.Contains(got, "asleep") || strings.Contains(got, "init") {
		t.Errorf("stopped%swant web before db, and not idle, asleep, init", got)
	}
	b.running(db, web)
	if st := b.inspect(paused).State; !st.Paused {
		t.Errorf("the paused container is %s", st.Status)
	}
	if st := b.inspect(idle).State; st.Status != "created" {
		t.Errorf("the created container is %s", st.Status)
	}
	if st := b.inspect(loop).State; !st.Running && !st.Restarting {
		t.Errorf("the restarting container is %s, want it to go on", st.Status)
	}
	dbStart, webStart := engineTime(b.inspect(db).State.StartedAt), engineTime(b.inspect(web).State.StartedAt)
	if d := webStart.Sub(dbStart); d < time.Second {
		t.Errorf("web started %v after db, want it to wait until db was healthy", d)
	}
	if report.Downtime < time.Second || report.DataDowntime <= 0 || report.DataDowntime > report.Downtime {
		t.Errorf("downtime %v, of the data %v: makes no sense", report.Downtime, report.DataDowntime)
	}
}

func TestRealModes(t *testing.T) {
	b := newBed(t)
	mode := func(m string) map[string]string { return map[string]string{labelMode: m} }
	vols := map[string]string{}
	ids := map[string]string{}
	for _, m := range []string{"stop", "pause", "hot"} {
		vols[m] = b.vol(m)
		ids[m] = b.run(spec{name: m, labels: mode(m), binds: []string{vols[m] + ":/data"}, env: []string{"NOTE=/data/note"}})
	}
	ids["dump"] = b.run(spec{name: "dump", binds: []string{b.vol("dump") + ":/data"}, env: []string{"NOTE=/data/note"}, labels: map[string]string{
		offen + "archive-pre": "/app note /data/dumped 'a b'", offen + "archive-post": "/app note /data/undumped x",
	}})
	ids["down"] = b.run(spec{name: "down", labels: map[string]string{labelOffenNoBack: "true"}})
	started := map[string]string{}
	for m, id := range ids {
		started[m] = b.inspect(id).State.StartedAt
	}
	app, report := b.frozenNow(b.options())
	for m, id := range ids {
		st := b.inspect(id).State
		again := st.StartedAt != started[m]
		switch {
		case m == "down":
			if st.Running {
				t.Error("down runs, want it left stopped")
			}
		case !st.Running || st.Paused:
			t.Errorf("%s is %s, want it running", m, st.Status)
		case again != (m == "stop"):
			t.Errorf("%s was started again: %v", m, again)
		}
	}
	want := map[string]string{"stop": "stopped", "pause": "paused", "hot": "hot", "dump": "hook"}
	for _, v := range app.Volumes {
		if w := want[strings.TrimPrefix(v.Name, b.tag)]; v.Consistency != w {
			t.Errorf("%s was read %s, want %s", v.Name, v.Consistency, w)
		}
	}
	if len(report.Hooks) != 2 || report.Hooks[0].ExitCode != 0 || report.Hooks[1].ExitCode != 0 {
		t.Errorf("hooks %+v, want two that ended well", report.Hooks)
	}
	if got := b.file(ids["dump"], "/data/dumped"); got != "a b\n" {
		t.Errorf("the hook wrote %q, want \"a b\"", got)
	}
	// and by the option for all
	for m, id := range ids {
		started[m] = b.inspect(id).State.StartedAt
	}
	opts := b.options()
	opts.Mode = backup.Hot
	b.frozenNow(opts)
	for m, id := range ids {
		if b.inspect(id).State.StartedAt != started[m] {
			t.Errorf("%s was started again with mode hot", m)
		}
	}
}

func TestRealHooks(t *testing.T) {
	b := newBed(t)
	id := b.run(spec{name: "db", binds: []string{b.vol("data") + ":/data"}, env: []string{"NOTE=/data/note"}, labels: map[string]string{
		labelPre: "dump it", labelPost: `["/app","note","/data/post","done"]`, // the text is for the shell
	}})
	b.frozenNow(b.options())
	if got := b.file(id, "/data/shell"); got != "dump it\n" {
		t.Errorf("the shell was given %q, want %q", got, "dump it\n")
	}
	if got := b.file(id, "/data/post"); got != "done\n" {
		t.Errorf("the hook at the end wrote %q", got)
	}

	bad := b.run(spec{name: "bad", binds: []string{b.vol("bad") + ":/data"}, labels: map[string]string{
		labelPre: `["/app","fail","secret words"]`, labelPost: `["/app","note","/data/post","done"]`,
	}})
	before := b.inspect(id).State.StartedAt
	j := newJournal()
	_, _, err := b.freeze(b.options(), j)
	if err == nil || !strings.Contains(err.Error(), "code 3") || !strings.Contains(err.Error(), labelPre) {
		t.Errorf("error %v, want the hook and its exit code", err)
	}
	if b.inspect(id).State.StartedAt != before {
		t.Error("a container was stopped although a hook failed")
	}
	if got := b.file(bad, "/data/post"); got != "done\n" {
		t.Error("the hook at the end was not run after a failure")
	}
	b.clean(j.op)
}

func TestRealKilledAtStop(t *testing.T) {
	b := newBed(t)
	one := 1
	id := b.run(spec{name: "db", env: []string{"STUBBORN=1"}, edit: func(c *container.Config, _ *container.HostConfig) { c.StopTimeout = &one }})
	_, report := b.frozenNow(b.options())
	if len(report.Stopped) != 1 || report.Stopped[0].ExitCode != exitKilled || report.Stopped[0].Took > 8*time.Second {
		t.Errorf("stopped %+v, want code 137 after one second", report.Stopped)
	}
	if !strings.Contains(b.warnings(), "was killed") {
		t.Errorf("warnings %q, want that it was killed", b.warnings())
	}
	b.running(id)
}

func TestRealIntruder(t *testing.T) {
	b := newBed(t)
	vol := b.vol("data")
	id := b.run(spec{name: "db", binds: []string{vol + ":/data"}, env: []string{"NOTE=/data/note"}})
	starts := 0
	j := newJournal()
	j.at = func(_ int, step string) error {
		if step == stepRest && starts < 1 {
			starts++
			return b.cli.ContainerStart(context.Background(), id, container.StartOptions{})
		}
		return nil
	}
	_, z, err := b.freeze(b.options(), j)
	b.must(err)
	if !strings.Contains(b.warnings(), "somebody started") {
		t.Errorf("warnings %q, want that somebody started it", b.warnings())
	}
	b.must(z.Close(t.Context()))
	b.running(id)

	j = newJournal() // who does it again and again
	j.at = func(_ int, step string) error {
		if step == stepRest {
			return b.cli.ContainerStart(context.Background(), id, container.StartOptions{})
		}
		return nil
	}
	if _, _, err = b.freeze(b.options(), j); err == nil || !strings.Contains(backup.HintOf(err), "watchtower") {
		t.Errorf("error %v, want who could have done it", err)
	}
	b.running(id)
	b.clean(j.op)
}

func TestRealCancelled(t *testing.T) {
	b := newBed(t)
	id := b.run(spec{name: "db", binds: []string{b.vol("data") + ":/data"}, env: []string{"NOTE=/data/note"}})
	before := b.inspect(id).State.StartedAt
	app := b.capture(backup.CaptureOptions{})
	opts := b.options()
	est, err := b.p.Estimate(t.Context(), app, opts)
	b.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	j := newJournal()
	j.at = func(_ int, step string) error {
		if step == stepRest {
			cancel()
		}
		return nil
	}
	if _, err := b.p.Freeze(ctx, app, est, opts, j); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	b.running(id)
	if b.inspect(id).State.StartedAt == before {
		t.Error("it was not stopped: the test shows nothing")
	}
	b.clean(j.op)
}

func TestRealHelperKilled(t *testing.T) {
	b := newBed(t)
	data := b.vol("data")
	id := b.run(spec{name: "db", binds: []string{data + ":/data"}, env: []string{"NOTE=/data/note"}})
	b.fill(data, 400) // it takes a second to read
	j := newJournal()
	opts := b.options()
	report := opts.Report
	opts.Report = func(p backup.Progress) {
		report(p)
		if p.Phase != "read" || p.Done == 0 {
			return
		}
		for _, s := range b.ours(j.op) {
			if s.Labels[labelRole] == roleHelper {
				_ = b.cli.ContainerKill(context.Background(), s.ID, "KILL") // it may have ended
			}
		}
	}
	_, _, err := b.freeze(opts, j)
	if err == nil || errors.Is(err, backup.ErrLeftStopped) || !strings.Contains(err.Error(), "read the data") {
		t.Errorf("error %v, want that the data was not read", err)
	}
	b.running(id)
	b.clean(j.op)
}

func TestRealSelf(t *testing.T) {
	b := newBed(t)
	id := b.run(spec{name: "db", binds: []string{b.vol("data") + ":/data"}, env: []string{"NOTE=/data/note"}})
	before := b.inspect(id).State.StartedAt
	app := b.capture(backup.CaptureOptions{})
	app.Self = true
	est, err := b.p.Estimate(t.Context(), app, b.options())
	b.must(err)
	if est.Downtime != 0 || len(est.Stops) != 0 {
		t.Errorf("estimate %+v, want no downtime", est)
	}
	opts := b.options()
	opts.Mode = backup.Stop
	z, err := b.p.Freeze(t.Context(), app, est, opts, newJournal())
	b.must(err)
	b.must(z.Close(t.Context()))
	if b.inspect(id).State.StartedAt != before {
		t.Error("the app that this program runs in was stopped")
	}
}

func TestRealImagesAndLayers(t *testing.T) {
	b := newBed(t)
	id := b.run(spec{name: "db", cmd: []string{"/app", "run"}, env: []string{"NOTE=/etc/written"}})
	b.until("it has written", func() bool { return strings.Contains(b.file(id, "/etc/written"), "start") })
	j := newJournal()
	app, z, err := b.freeze(b.options(), j)
	b.must(err)
	if c := app.Containers[0]; !c.Layer.Include || c.Layer.Changes != 1 || c.Layer.ImageID == "" {
		t.Errorf("layer %+v, want one change and an image", c.Layer)
	}
	if len(app.Images) != 2 {
		t.Fatalf("images %+v, want the app's and the layer's", app.Images)
	}
	out, err := z.Images(t.Context())
	b.must(err)
	file, err := os.CreateTemp(t.TempDir(), "")
	b.must(err)
	defer file.Close()
	_, err = io.Copy(file, out)
	b.must(err)
	b.must(out.Close())
	layer := app.Containers[0].Layer.ImageID
	b.checkLayout(file, app)
	b.must(z.Close(t.Context()))
	b.clean(j.op)

	// What docker load makes of it is the same.
	b.must(b.cli.ContainerRemove(t.Context(), id, container.RemoveOptions{Force: true}))
	_, err = b.cli.ImageRemove(t.Context(), b.image, image.RemoveOptions{Force: true})
	b.must(err)
	_, err = file.Seek(0, io.SeekStart)
	b.must(err)
	res, err := b.cli.ImageLoad(t.Context(), file, client.ImageLoadWithQuiet(true))
	b.must(err)
	text, err := io.ReadAll(res.Body)
	b.must(err)
	_ = res.Body.Close()
	t.Logf("%s", text)
	for _, im := range app.Images {
		if _, err := b.cli.ImageInspect(t.Context(), im.Refs[0]); err != nil {
			t.Errorf("after the load: %v", err)
		}
	}
	made, err := b.cli.ContainerCreate(t.Context(), &container.Config{Image: app.Images[1].Refs[0]}, nil, nil, nil, b.tag+"again")
	b.must(err)
	if got := b.file(made.ID, "/etc/written"); !strings.Contains(got, "start") {
		t.Errorf("the layer holds %q", got)
	}
	b.must(b.cli.ContainerRemove(t.Context(), made.ID, container.RemoveOptions{Force: true}))
	_, _ = b.cli.ImageRemove(t.Context(), layer, image.RemoveOptions{Force: true})
	_, _ = b.cli.ImageRemove(t.Context(), app.Images[1].Refs[0], image.RemoveOptions{Force: true})
}

// checkLayout holds an OCI layout against what it should be.
func (b *bed) checkLayout(r io.ReadSeeker, app *backup.App) {
	b.t.Helper()
	_, err := r.Seek(0, io.SeekStart)
	b.must(err)
	members := map[string][]byte{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		b.must(err)
		text, err := io.ReadAll(tr)
		b.must(err)
		members[h.Name] = text
		if err := checkBlobName(h.Name, digestOf(text)); err != nil {
			b.t.Errorf("%s: %v", h.Name, err)
		}
	}
	var index imageManifest
	b.must(json.Unmarshal(members["index.json"], &index))
	ids := map[string]bool{}
	for _, d := range index.Manifests {
		ids[d.Annotations["dentropy.image.id"]] = true
		var m imageManifest
		b.must(json.Unmarshal(members[blobName(d.Digest)], &m))
		for _, l := range append(m.Layers, *m.Config) {
			if int64(len(members[blobName(l.Digest)])) != l.Size {
				b.t.Errorf("blob %s has %d bytes, want %d", l.Digest, len(members[blobName(l.Digest)]), l.Size)
			}
			if strings.HasSuffix(l.MediaType, ".tar") {
				b.t.Errorf("layer %s is not compressed", l.Digest)
			}
		}
	}
	for _, im := range app.Images {
		if !ids[im.ID] {
			b.t.Errorf("image %s is not in the layout", im.ID)
		}
	}
}
