package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
)

// packedFile is an archive on its way to another process.
type packedFile struct {
	M       *backup.Manifest
	App     *backup.App
	Members []backup.Member
	Data    [][]byte
}

// save writes an archive to a file, for a process that is going to be killed.
func (b *bed) save(p *packed) string {
	b.t.Helper()
	text, err := json.Marshal(packedFile{p.m, p.app, p.members, p.data})
	b.must(err)
	path := filepath.Join(b.t.TempDir(), "archive")
	b.must(os.WriteFile(path, text, 0o600))
	return path
}

// restore is what a process does that is killed while it restores.
func (v victim) restore(t *testing.T, p *Platform) error {
	t.Helper()
	text, err := os.ReadFile(v.Archive)
	if err != nil {
		return err
	}
	var f packedFile
	if err := json.Unmarshal(text, &f); err != nil {
		return err
	}
	plan, err := p.Plan(t.Context(), f.M, f.App, backup.Answers{OnConflict: "replace"})
	if err != nil {
		return err
	}
	_, err = p.apply(t.Context(), plan, &packed{m: f.M, app: f.App, members: f.Members, data: f.Data},
		backup.ApplyOptions{HealthTimeout: 30 * time.Second, TempDir: v.Temp}, &fileJournal{v: v})
	return err
}

// isBack reports whether the old containers run under their names, with their policies.
func (s *shop) isBack(old ...container.InspectResponse) bool {
	for _, o := range old {
		now, err := s.cli.ContainerInspect(s.t.Context(), o.ID)
		if err != nil || now.Name != o.Name || !now.State.Running || now.HostConfig.RestartPolicy != o.HostConfig.RestartPolicy {
			return false
		}
	}
	return true
}

// guardsOver waits until no guard of an operation runs.
func (b *bed) guardsOver(op string) {
	b.t.Helper()
	b.until("the guard ends", func() bool {
		return !slices.ContainsFunc(b.ours(op), func(c container.Summary) bool { return c.State == "running" })
	})
}

// A process that is killed while it stops what it is about to replace, and never comes
// back: the guard brings the old set back, and Recover clears away the rest.
func TestRealGuardRestore(t *testing.T) {
	s := newShop(t)
	p := s.pack(backup.CaptureOptions{})
	s.mark("before the restore")
	file, old := s.save(p), s.names()
	web, db := s.byName(s.tag+"web"), s.byName(s.tag+"db")
	for _, v := range []victim{
		{Step: stepHalt},
		{Step: stepHalted},
		{Step: stepHalted, At: 1},
	} {
		t.Run(fmt.Sprint(v.Step, v.At), func(t *testing.T) {
			v.Archive, v.Op = file, randomOp()
			entries, over := s.kill(v)
			if over {
				t.Fatal("the restore had ended before it was killed")
			}
			begun := time.Now()
			if v.Step == stepHalted && s.isBack(web, db) {
				t.Error("all runs: the test shows nothing")
			}
			s.until("the guard brings the old set back", func() bool { return s.isBack(web, db) })
			t.Logf("killed after %s: back after %v", entries[len(entries)-1].Step, time.Since(begun))
			s.guardsOver(v.Op)
			s.must(s.p.Recover(t.Context(), backup.Operation{ID: v.Op, Kind: "restore", App: s.tag}, entries, nil))
			s.asBefore(t, old, web, db)
			s.clean(v.Op)
		})
	}
}

// A restore that is killed while a container takes its time to end, without a guard:
// Recover waits until it has ended, and starts it.
func TestRealRestoreKilledInStop(t *testing.T) {
	for _, guarded := range []bool{true, false} {
		t.Run(map[bool]string{true: "guard", false: "recover"}[guarded], func(t *testing.T) {
			b := newBed(t)
			id := b.run(spec{name: "db", env: []string{"SLOW_END=7s", "NOTE=/tmp/note"}})
			b.until("it runs", func() bool { return b.file(id, "/tmp/note") != "" })
			p := b.pack(backup.CaptureOptions{})
			before := b.inspect(id)
			if !guarded {
				b.p.opts.GuardSocket = "/nowhere/docker.sock"
			}
			v := victim{Archive: b.save(p), Op: randomOp(), Step: stepHalt, After: time.Second}
			entries, _ := b.kill(v)
			if !b.inspect(id).State.Running {
				t.Error("it has ended already: the test shows nothing")
			}
			if guarded {
				b.guardsOver(v.Op)
				b.running(id)
			}
			b.must(b.p.Recover(t.Context(), backup.Operation{ID: v.Op, Kind: "restore", App: b.tag}, entries, nil))
			b.running(id)
			if now := b.inspect(id); now.State.StartedAt == before.State.StartedAt || now.Name != before.Name {
				t.Errorf("%s was started at %s, want it under its name, and stopped and started again", now.Name, now.State.StartedAt)
			}
			b.clean(v.Op)
		})
	}
}

// The same for an undo, in this process: all that it has is let go.
func TestRealGuardUndo(t *testing.T) {
	s := newShop(t)
	p := s.pack(backup.CaptureOptions{})
	undo, err := s.p.apply(t.Context(), s.plan(p, backup.Answers{OnConflict: "replace"}), p.again(), s.applyOptions(), s.journal())
	s.must(err)
	names := s.names()
	web, db := s.byName(s.tag+"web"), s.byName(s.tag+"db")
	j := s.journal()
	j.at = func(_ int, step string) error {
		if step == stepHalted {
			return errSpoilt
		}
		return nil
	}
	d, err := decode[undoDetail](undo.Detail)
	s.must(err)
	z := &undoing{d: d, c: &changeover{p: s.p, op: j.op, j: j, opts: s.applyOptions(), why: "undo"}}
	z.c.create = z.create
	if err := z.run(t.Context()); !errors.Is(err, errSpoilt) {
		t.Fatalf("the undo = %v, want it cut off", err)
	}
	if s.isBack(web, db) {
		t.Error("all runs: the test shows nothing")
	}
	z.c.leaveGuard(t.Context())
	s.until("the guard brings the restored set back", func() bool { return s.isBack(web, db) })
	s.guardsOver(j.op)
	s.must(s.p.Recover(t.Context(), backup.Operation{ID: j.op, Kind: "undo", App: s.tag}, j.list(), nil))
	if got := s.names(); !slices.Equal(got, names) {
		t.Errorf("there are %v, want %v", got, names)
	}
	s.clean(j.op)
}

// A guard that is lost while the old set is stopped may be starting it: nothing is
// exchanged, and the app runs as before. So it is where somebody else has started a part.
func TestRealGuardLost(t *testing.T) {
	s := newShop(t)
	p := s.pack(backup.CaptureOptions{})
	s.mark("before the restore")
	old := s.names()
	web, db := s.byName(s.tag+"web"), s.byName(s.tag+"db")
	plan := s.plan(p, backup.Answers{OnConflict: "replace"})
	for _, tt := range []struct {
		name, at, want string
		do             func(op string)
	}{
		{"killed", stepHalt, "was lost", func(op string) {
			i := slices.IndexFunc(s.ours(op), func(c container.Summary) bool { return c.Labels[labelRole] == roleGuard })
			if i < 0 {
				t.Fatal("there is no guard")
			}
			s.must(syscall.Kill(s.inspect(s.ours(op)[i].ID).State.Pid, syscall.SIGKILL))
		}},
		{"removed", stepHalt, "was lost", func(op string) { s.must(s.p.removeOurs(t.Context(), op, roleGuard)) }},
		{"started by somebody", stepHalted, "somebody started", func(string) {
			if !s.inspect(db.ID).State.Running { // the last to stop
				s.must(s.cli.ContainerStart(t.Context(), db.ID, container.StartOptions{}))
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := s.journal()
			j.at = func(_ int, step string) error {
				if step == tt.at {
					tt.do(j.op)
				}
				return nil
			}
			_, err := s.p.apply(t.Context(), plan, p.again(), s.applyOptions(), j)
			if err == nil || errors.Is(err, backup.ErrLeftStopped) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("apply = %v, want one that says %q, with everything as it was", err, tt.want)
			}
			if slices.ContainsFunc(j.list(), func(e backup.Entry) bool { return e.Step == stepSwap }) {
				t.Error("data was about to be exchanged")
			}
			s.asBefore(t, old, web, db)
			s.clean(j.op)
		})
	}
}

// A guard that cannot be removed: nothing is exchanged, the app runs as before, and
// recovery goes on until the guard is gone.
func TestRealGuardStays(t *testing.T) {
	s := newShop(t)
	p := s.pack(backup.CaptureOptions{})
	s.mark("before the restore")
	old := s.names()
	web, db := s.byName(s.tag+"web"), s.byName(s.tag+"db")
	plan := s.plan(p, backup.Answers{OnConflict: "replace"})

	real := strings.TrimPrefix(os.Getenv("DOCKER_TEST_HOST"), "unix://")
	var refuses atomic.Bool
	refuses.Store(true)
	opts := s.p.opts
	opts.GuardSocket = real
	opts.Endpoint = "unix://" + between(t, real, func(r *http.Request) bool {
		_, rest, ok := strings.Cut(r.URL.Path, "/containers/")
		if r.Method != http.MethodDelete || !ok || !refuses.Load() {
			return false
		}
		in, err := s.cli.ContainerInspect(t.Context(), rest)
		return err == nil && in.Config.Labels[labelRole] == roleGuard
	})
	q, err := New(opts)
	s.must(err)
	defer func() { _ = q.Close() }()

	j := s.journal()
	_, err = q.apply(t.Context(), plan, p.again(), s.applyOptions(), j)
	if !errors.Is(err, backup.ErrLeftStopped) || !strings.Contains(err.Error(), "remove the guard") {
		t.Fatalf("apply = %v, want one that says that the guard cannot be removed, and keeps the journal", err)
	}
	t.Log(err)
	if slices.ContainsFunc(j.list(), func(e backup.Entry) bool { return e.Step == stepSwap }) {
		t.Error("data was about to be exchanged")
	}
	if !s.isBack(web, db) {
		t.Error("the old set does not run as before")
	}
	op := backup.Operation{ID: j.op, Kind: "restore", App: s.tag}
	if err := q.Recover(t.Context(), op, j.list(), nil); err == nil {
		t.Error("recovery has ended with a guard that is there")
	}
	refuses.Store(false)
	s.must(q.Recover(t.Context(), op, j.list(), nil))
	s.asBefore(t, old, web, db)
	s.clean(j.op)
}

// between is a socket in front of an engine's, which refuses some requests.
func between(t *testing.T, real string, refuse func(*http.Request) bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dial := func() (*net.UnixConn, error) {
		return net.DialUnix("unix", nil, &net.UnixAddr{Name: real, Net: "unix"})
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "docker"})
	proxy.Transport = &http.Transport{Dial: func(string, string) (net.Conn, error) { return dial() }}
	proxy.FlushInterval = -1
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case refuse(r):
			http.Error(w, `{"message":"it is stuck"}`, http.StatusInternalServerError)
		case r.Header.Get("Upgrade") == "":
			proxy.ServeHTTP(w, r)
		default:
			splice(w, r, dial)
		}
	}))
	_ = srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return path
}

// splice connects a client to an engine whose answer is no HTTP any more.
func splice(w http.ResponseWriter, r *http.Request, dial func() (*net.UnixConn, error)) {
	engine, err := dial()
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer engine.Close()
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	if r.Write(engine) != nil {
		return
	}
	go func() {
		_, _ = io.Copy(engine, buf)
		_ = engine.CloseWrite()
	}()
	_, _ = io.Copy(conn, engine)
}

// A guard that is lost is replaced by one that listens as well, and does nothing.
func TestRealGuardReplaced(t *testing.T) {
	b := newBed(t)
	id := b.run(spec{name: "db", cmd: []string{"/app", "once"}})
	b.until("it has ended", func() bool { return !b.inspect(id).State.Running })
	b.must(b.p.ensureTransit(t.Context()))
	op := randomOp()
	// One that acts starts it.
	halt := []halted{{ID: id, Name: b.tag + "db", Mode: backup.Stop, State: backup.Restarting}}
	k, err := b.p.keepGuard(t.Context(), op, halt, time.Second)
	b.must(err)
	began := b.inspect(id).State.StartedAt
	first := k.id()
	b.must(b.p.removeContainer(t.Context(), first))
	b.until("another stands by", func() bool { now := k.id(); return now != "" && now != first })
	if k.release(t.Context(), true) {
		t.Error("release says that no guard was lost")
	}
	b.must(b.p.endGuards(t.Context(), op))
	if b.inspect(id).State.StartedAt != began {
		t.Error("a guard has acted")
	}
	b.must(b.p.cleanTransit(t.Context(), op))
	b.clean(op)
}
