package docker_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
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
}

func newSSHD(t *testing.T) *sshd {
	t.Helper()
	bin := os.Getenv("DENTROPY_SSHD")
	if bin == "" {
		t.Skip("DENTROPY_SSHD names no OpenSSH server")
	}
	s := &sshd{t: t, dir: t.TempDir(), bin: bin}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	s.port = l.Addr().(*net.TCPAddr).Port
	s.must(l.Close())
	for _, key := range []string{"host", "client"} {
		out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", s.path(key)).CombinedOutput()
		if err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	s.write("sshd_config", 0o600, fmt.Sprintf("ListenAddress 127.0.0.1:%d\nHostKey %s\nAuthorizedKeysFile %s\nPidFile none\nStrictModes no\nUsePAM no\nSetEnv DOCKER_HOST=%s PATH=%s\n",
		s.port, s.path("host"), s.path("client.pub"), os.Getenv("DOCKER_TEST_HOST"), os.Getenv("PATH")))
	s.write("ssh_config", 0o600, fmt.Sprintf("Host *\n IdentityFile %s\n UserKnownHostsFile /dev/null\n StrictHostKeyChecking no\n LogLevel ERROR\n", s.path("client")))
	real, err := exec.LookPath("ssh")
	s.must(err)
	s.must(os.Mkdir(s.path("bin"), 0o755))
	s.write("bin/ssh", 0o755, fmt.Sprintf("#!/bin/sh\necho $$ >>%s\nexec %s -F %s \"$@\"\n", s.path("clients"), real, s.path("ssh_config")))
	t.Setenv("PATH", s.path("bin")+":"+os.Getenv("PATH"))
	return s
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
		c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", s.port))
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

// cut ends the connections that the clients have.
func (s *sshd) cut() {
	s.t.Helper()
	b, err := os.ReadFile(s.path("clients"))
	s.must(err)
	for _, text := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(text)
		s.must(err)
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	}
}

func TestRealSSH(t *testing.T) {
	e := newRealEngine(t)
	s := newSSHD(t)
	s.start()
	me, err := user.Current()
	s.must(err)
	src, err := docker.New(docker.Config{Endpoint: fmt.Sprintf("ssh://%s@127.0.0.1:%d", me.Username, s.port)},
		discovery.SourceOptions{Name: "docker:far", Dialects: []discovery.Dialect{sourcetest.Labels{}}})
	s.must(err)
	rec, _ := sourcetest.Watch(t, src.Quick())
	rec.Wait(t, "the first list", func() bool { return rec.Count("replace") == 1 })

	one := e.create("one", map[string]string{"test.host": "one.example.com"}, nil)
	e.start(one)
	rec.WaitState(t, e.tag+"one", discovery.Running)
	(&bench{t: t, rec: rec}).waitAddress(e.tag+"one", e.ip(one, "bridge")) // 127.0.0.1 is this machine

	s.stop()
	s.cut()
	rec.Wait(t, "the engine is unknown", func() bool { return rec.Stale() != nil })
	e.start(e.create("two", map[string]string{"test.host": "two.example.com"}, nil))
	s.start()
	rec.WaitState(t, e.tag+"two", discovery.Running)
	rec.Wait(t, "the engine is known again", func() bool { return rec.Stale() == nil })
}
