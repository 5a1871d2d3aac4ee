package docker_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dentropy/dentropycloud/discovery"
	"github.com/dentropy/dentropycloud/discovery/docker"
	"github.com/dentropy/dentropycloud/discovery/sourcetest"
)

// sshd is a real OpenSSH server on loopback, with keys of its own, on whose side the
// engine at DOCKER_TEST_HOST is the local one. A wrapper before the ssh command in
// PATH makes the client trust it, and notes the clients' process ids.
type sshd struct {
	t    *testing.T
	dir  string
	bin  string
	port int
	cmd  *exec.Cmd

	// To be changed before start.
	far  map[string]string // the environment over there
	near []string          // settings of the client, before its usual ones
	more []string          // settings of the server
}

func newSSHD(t *testing.T) *sshd {
	t.Helper()
	s := &sshd{t: t, dir: t.TempDir(), bin: os.Getenv("DENTROPY_SSHD")}
	s.far = map[string]string{"DOCKER_HOST": os.Getenv("DOCKER_TEST_HOST"), "PATH": os.Getenv("PATH")}
	if s.bin == "" || s.far["DOCKER_HOST"] == "" {
		t.Skip("DENTROPY_SSHD names no OpenSSH server, or DOCKER_TEST_HOST no engine")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	s.port = l.Addr().(*net.TCPAddr).Port
	s.must(l.Close())
	for _, key := range []string{"host", "client", "stranger"} {
		out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", s.path(key)).CombinedOutput()
		if err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	ssh, err := exec.LookPath("ssh")
	s.must(err)
	s.must(os.Mkdir(s.path("bin"), 0o755))
	s.write("clients", 0o600, "")
	s.write("bin/ssh", 0o755, fmt.Sprintf("#!/bin/sh\necho $$ >>%s\nexec %s -F %s \"$@\"\n", s.path("clients"), ssh, s.path("ssh_config")))
	t.Setenv("PATH", s.path("bin")+":"+os.Getenv("PATH"))
	return s
}

// configure writes the settings of both sides; of a setting that is there twice the
// first counts.
func (s *sshd) configure() {
	s.t.Helper()
	server := append(slices.Clone(s.more), fmt.Sprint("ListenAddress ", s.addr()), "HostKey "+s.path("host"),
		"AuthorizedKeysFile "+s.path("client.pub"), "PidFile none", "StrictModes no", "UsePAM no")
	var env []string
	for _, name := range slices.Sorted(maps.Keys(s.far)) {
		env = append(env, name+"="+s.far[name])
	}
	server = append(server, "SetEnv "+strings.Join(env, " "))
	s.write("sshd_config", 0o600, strings.Join(server, "\n")+"\n")
	client := append(slices.Clone(s.near), "IdentityFile "+s.path("client"), "IdentitiesOnly yes",
		"UserKnownHostsFile /dev/null", "StrictHostKeyChecking no", "LogLevel ERROR")
	s.write("ssh_config", 0o600, strings.Join(client, "\n")+"\n")
}

// addr is where the server listens.
func (s *sshd) addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: s.port} }

// watch makes a source of the engine over there, reached at an address.
func (s *sshd) watch(at net.Addr) *docker.Source {
	s.t.Helper()
	me, err := user.Current()
	s.must(err)
	src, err := docker.New(docker.Config{Endpoint: fmt.Sprintf("ssh://%s@%s", me.Username, at)},
		discovery.SourceOptions{Name: "docker:far", Dialects: []discovery.Dialect{sourcetest.Labels{}}})
	s.must(err)
	return src.Quick()
}

// clients are the process ids of all ssh commands that were ever started.
func (s *sshd) clients() (pids []int) {
	s.t.Helper()
	b, err := os.ReadFile(s.path("clients"))
	s.must(err)
	for _, text := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(text)
		s.must(err)
		pids = append(pids, pid)
	}
	return pids
}

// signal reaches the clients that still run.
func (s *sshd) signal(sig syscall.Signal) {
	s.t.Helper()
	for _, pid := range s.clients() {
		_ = syscall.Kill(pid, sig) // it may have ended
	}
}

func (s *sshd) path(name string) string { return filepath.Join(s.dir, name) }

func (s *sshd) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *sshd) write(name string, mode os.FileMode, text string) {
	s.t.Helper()
	s.must(os.WriteFile(s.path(name), []byte(text), mode))
}

func (s *sshd) start() {
	s.t.Helper()
	s.configure()
	if os.Getuid() == 0 { // sshd gives up its rights in there
		s.must(os.MkdirAll("/run/sshd", 0o755))
	}
	s.cmd = exec.Command(s.bin, "-D", "-e", "-f", s.path("sshd_config"))
	s.cmd.Stderr = os.Stderr
	s.must(s.cmd.Start())
	s.t.Cleanup(s.stop)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-tick.C {
		c, err := net.Dial("tcp", s.addr().String())
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("sshd does not listen: %v", err)
		}
	}
}

func (s *sshd) stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// waitGone waits until no ssh command is left.
func (s *sshd) waitGone(rec *sourcetest.Recorder) {
	s.t.Helper()
	rec.Wait(s.t, "the ssh commands to end", func() bool {
		return !slices.ContainsFunc(s.clients(), func(pid int) bool { return syscall.Kill(pid, 0) == nil })
	})
}

func TestRealSSH(t *testing.T) {
	e := newRealEngine(t)
	s := newSSHD(t)
	s.start()
	e.start(e.create("early", map[string]string{"test.host": "early.example.com"}, nil))
	rec, stop := sourcetest.Watch(t, s.watch(s.addr()))
	rec.WaitState(t, e.tag+"early", discovery.Running)

	one := e.create("one", map[string]string{"test.host": "one.example.com"}, nil)
	e.start(one)
	rec.WaitState(t, e.tag+"one", discovery.Running)
	(&bench{t: t, rec: rec}).waitAddress(e.tag+"one", e.ip(one, "bridge")) // 127.0.0.1 is this machine

	s.signal(syscall.SIGKILL) // the connection breaks, and can be made again at once
	rec.Wait(t, "it to be unknown and known again", func() bool {
		return rec.Count("unknown") == 1 && rec.Count("replace") == 2 && rec.Stale() == nil
	})

	s.stop()
	s.signal(syscall.SIGKILL)
	rec.Wait(t, "the engine to be unknown", func() bool { return rec.Stale() != nil })
	if got := len(rec.Objects()); got < 2 {
		t.Errorf("%d containers are left of those that were known, want 2", got)
	}
	e.start(e.create("two", map[string]string{"test.host": "two.example.com"}, nil))
	s.start()
	rec.WaitState(t, e.tag+"two", discovery.Running)
	rec.Wait(t, "the engine to be known again", func() bool { return rec.Stale() == nil })
	stop()
	s.waitGone(rec)
}

// TestRealSSHMute breaks the way to the server without ending a connection.
func TestRealSSHMute(t *testing.T) {
	e := newRealEngine(t)
	s := newSSHD(t)
	s.start()
	to := s.addr().String()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	f := newFront(t, l, func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", to) })
	src := s.watch(l.Addr()).Timing(2*time.Second, 0, 300*time.Millisecond, 0)
	rec, stop := sourcetest.Watch(t, src)
	rec.Wait(t, "the first list", func() bool { return rec.Count("replace") == 1 })
	f.mute()
	e.start(e.create("meanwhile", map[string]string{"test.host": "meanwhile.example.com"}, nil))
	rec.WaitState(t, e.tag+"meanwhile", discovery.Running)
	if rec.Count("unknown") == 0 {
		t.Error("the engine was never unknown")
	}
	stop()
	s.waitGone(rec)
}

// TestRealSSHBurst holds a first list against sshd's own limit: by default it turns
// logins away once ten are under way (MaxStartups), anybody's.
func TestRealSSHBurst(t *testing.T) {
	const containers = 40
	// Six at a time, and two before that, where the engine first had to say which
	// version of its API it wants.
	const connections = 6 + 2
	e := newRealEngine(t)
	s := newSSHD(t)
	s.start()
	for i := range containers { // of what has never run, the list does not tell the ports
		e.create(fmt.Sprint("c", i), map[string]string{"test.host": fmt.Sprintf("c%d.example.com", i)}, nil)
	}
	rec, _ := sourcetest.Watch(t, s.watch(s.addr()))
	for i := range containers {
		rec.WaitState(t, fmt.Sprint(e.tag, "c", i), discovery.Created)
	}
	if got := len(s.clients()); got > connections {
		t.Errorf("%d ssh connections were made to look at %d containers, want %d at most", got, containers, connections)
	}
}

func TestRealSSHTrouble(t *testing.T) {
	tests := []struct {
		name string
		edit func(s *sshd)
		want []string
	}{
		{"key not accepted", func(s *sshd) { s.more = []string{"AuthorizedKeysFile " + s.path("stranger.pub")} },
			[]string{"Permission denied (publickey", "without a passphrase"}},
		{"host not known", func(s *sshd) { s.near = []string{"StrictHostKeyChecking yes"} },
			[]string{"Host key verification failed", "connect once by hand"}},
		{"no docker command there", func(s *sshd) { s.far["PATH"] = "/nonexistent" },
			[]string{"docker: command not found", "is installed on the remote host"}},
		{"no engine there", func(s *sshd) { s.far["DOCKER_HOST"] = "unix:///nonexistent/docker.sock" },
			[]string{"Cannot connect to the Docker daemon at http://127.0.0.1", "start Docker"}},
		{"no ssh command here", func(s *sshd) { s.t.Setenv("PATH", "/nonexistent") },
			[]string{`"ssh": executable file not found`, "install the OpenSSH client"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newSSHD(t)
			test.edit(s)
			s.start()
			rec, stop := sourcetest.Watch(t, s.watch(s.addr()))
			rec.Wait(t, "the trouble", func() bool { return rec.Stale() != nil })
			stop()
			got := rec.Stale().Error()
			for _, want := range test.want {
				if !strings.Contains(got, want) {
					t.Errorf("says %q, want it to contain %q", got, want)
				}
			}
			if strings.Contains(got, "docker.example.com") {
				t.Errorf("says %q, which names a host that nobody knows", got)
			}
			if rec.Count("replace") != 0 {
				t.Error("there was a list")
			}
		})
	}
}
