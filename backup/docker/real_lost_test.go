package docker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
)

// lose makes the engine lose track of a container that runs, as an engine does whose
// daemon is killed while it starts it: either only the daemon takes it for stopped, or
// containerd, too, knows its task alone.
func (b *bed) lose(id string, task bool) {
	b.t.Helper()
	b.daemon("daemon-kill")
	defer b.daemon("daemon-start")
	dir := os.Getenv("DENTROPY_ENGINE")
	if !task {
		b.asRoot("sed", "-i", `s/"Running":true/"Running":false/; s/"Pid":[0-9]*/"Pid":0/`, filepath.Join(dir, "data", "containers", id, "config.v2.json"))
		return
	}
	socket := filepath.Join(dir, "containerd.sock")
	b.asRoot("chmod", "666", socket)
	forget(b.t, socket, id)
}

// asRoot runs a command on what belongs to the test's engine.
func (b *bed) asRoot(args ...string) {
	b.t.Helper()
	if out, err := rootCommand(b.t.Context(), args...).CombinedOutput(); err != nil {
		b.t.Fatalf("%s: %v\n%s", args, err, out)
	}
}

func rootCommand(ctx context.Context, args ...string) *exec.Cmd {
	if os.Getuid() != 0 {
		args = append([]string{"sudo"}, args...)
	}
	return exec.CommandContext(ctx, args[0], args[1:]...)
}

// forget makes containerd forget a container, and not its task.
func forget(t *testing.T, socket, id string) {
	t.Helper()
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: &h2c, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer tr.CloseIdleConnections()
	// A message of gRPC with the id as its first field.
	body := append([]byte{0, 0, 0, 0, byte(len(id) + 2), 0x0a, byte(len(id))}, id...)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://containerd/containerd.services.containers.v1.Containers/Delete", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Containerd-Namespace": {"moby"}}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.Trailer.Get("Grpc-Status") != "0" {
		t.Fatalf("forget: %v %v", err, resp.Trailer)
	}
}

// A container that the engine has lost track of is brought back as it was, and what ran of
// it meanwhile is ended as it wants to be: nothing else writes to its data.
func TestRealLost(t *testing.T) {
	b := newBedAlone(t)
	for _, task := range []bool{false, true} {
		for _, stubborn := range []string{"", "1"} {
			t.Run(map[bool]string{false: "in use", true: "task"}[task]+" "+stubborn, func(t *testing.T) {
				one := 1
				name := "db" + randomHex()
				data := b.vol(name)
				id := b.run(spec{name: name, binds: []string{data + ":/data"}, env: []string{"NOTE=/data/note", "WRITE=/kept", "STUBBORN=" + stubborn}, edit: func(c *container.Config, _ *container.HostConfig) { c.StopTimeout = &one }})
				b.until("it runs", func() bool { return b.file(id, "/data/note") != "" })
				b.lose(id, task)
				if st := b.inspect(id).State; st.Running {
					t.Fatalf("the engine says %+v: the test shows nothing", st)
				}
				for range lostAfter {
					refused := b.cli.ContainerStart(t.Context(), id, container.StartOptions{})
					if refused == nil {
						t.Skip("this engine finds it again by itself")
					}
					if !isLost(refused, id) {
						t.Errorf("the engine refuses with %v, which is not recognised", refused)
					}
				}
				var said []string
				h := halted{ID: id, Name: b.tag + name, Mode: backup.Stop, State: backup.Running, StartedAt: engineTime(b.inspect(id).State.StartedAt)}
				back, err := b.p.bringBack(t.Context(), []halted{h}, 20*time.Second, func(pr backup.Progress) { said = append(said, pr.Warning) })
				if err != nil || !strings.Contains(strings.Join(said, " "), "lost track of "+h.Name) {
					t.Fatalf("brought back: %v, said %q", err, said)
				}
				b.running(id)
				want := "start\nend\nstart\n"
				if stubborn != "" {
					want = "start\nstart\n" // killed
				}
				b.until("it has begun anew", func() bool { return b.file(id, "/data/note") == want })
				if back.First.IsZero() || b.file(id, "/kept") == "" {
					t.Errorf("first start %v, what it had written %q", back.First, b.file(id, "/kept"))
				}
				if n := shims(t, id); n != 1 {
					t.Errorf("%d shims of it run, want 1", n)
				}
				b.must(b.cli.ContainerRemove(t.Context(), id, container.RemoveOptions{Force: true}))
			})
		}
	}
}

// A restored container that the engine has lost track of goes on with the data, unless what
// runs of it is ended before it is removed.
func TestRealLostRestored(t *testing.T) {
	b := newBedAlone(t)
	one := 1
	data := b.vol("data")
	old := b.run(spec{name: "db", binds: []string{data + ":/data"}, env: []string{"NOTE=/data/note"}, edit: func(c *container.Config, _ *container.HostConfig) { c.StopTimeout = &one }})
	b.until("it runs", func() bool { return b.file(old, "/data/note") != "" })
	p := b.pack(backup.CaptureOptions{})
	j := b.journal()
	j.at = func(_ int, step string) error {
		if step == backup.StepUndo {
			return errSpoilt // all has started
		}
		return nil
	}
	r, err := b.p.newRestore(b.plan(p, replaceAll), p.again(), b.applyOptions(), j)
	b.must(err)
	if _, err := r.run(t.Context()); !errors.Is(err, errSpoilt) {
		t.Fatalf("run = %v", err)
	}
	restored := b.byName(b.tag + "db").ID
	b.lose(restored, true)
	if b.inspect(restored).State.Running || shims(t, restored) == 0 {
		t.Fatal("it is not lost: the test shows nothing")
	}
	b.must(b.p.Recover(t.Context(), backup.Operation{ID: j.op, Kind: "restore", App: b.tag}, j.list(), nil))
	b.running(old)
	if n := shims(t, restored); n != 0 {
		t.Errorf("%d shims of the restored container run, want none", n)
	}
}

// shims counts the processes that containerd runs a container by.
func shims(t *testing.T, id string) int {
	t.Helper()
	pids, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range pids {
		if text, err := os.ReadFile("/proc/" + p.Name() + "/cmdline"); err == nil && bytes.Contains(text, []byte("\x00"+id+"\x00")) {
			n++
		}
	}
	return n
}

// Nothing is ended of a container that is not lost.
func TestRealNotLost(t *testing.T) {
	b := newBed(t)
	id := b.run(spec{name: "db"})
	b.must(b.p.endLost(t.Context(), id))
	b.running(id)
	b.must(b.cli.ContainerStop(t.Context(), id, container.StopOptions{}))
	if err := b.p.endLost(t.Context(), id); err == nil || !strings.Contains(err.Error(), errNothingLost.Error()) {
		t.Errorf("endLost of a stopped container = %v, want %v", err, errNothingLost)
	}
}
