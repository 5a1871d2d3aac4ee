package dentropycmd

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write what is got into the golden files")

func TestMain(m *testing.M) {
	home, err := os.MkdirTemp("", "dentropycmd")
	if err != nil {
		panic(err)
	}
	// Neither the person who runs the tests nor their dentropy may be touched.
	for k, v := range map[string]string{"HOME": home, "XDG_DATA_HOME": filepath.Join(home, "data"),
		"XDG_CONFIG_HOME": filepath.Join(home, "config"), "DOCKER_HOST": ""} {
		if os.Getenv("DENTROPY_TEST_KEEP_ENV") == "" {
			if err := os.Setenv(k, v); err != nil {
				panic(err)
			}
		}
	}
	caddy.DefaultStorage.Path = filepath.Join(home, "storage")
	// Main registers commands with Caddy, so it runs in processes of its own only.
	testscript.Main(cleanUp{m, home}, map[string]func(){
		"dentropy": func() { os.Exit(Main()) }, //nolint:forbidigo // the exit status is what is tested
	})
}

type cleanUp struct {
	*testing.M
	dir string
}

func (c cleanUp) Run() int {
	defer func() { _ = os.RemoveAll(c.dir) }()
	return c.M.Run()
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			for _, name := range []string{"HTTP", "HTTPS", "ADMIN"} {
				e.Setenv(name, strconv.Itoa(freePort(t)))
			}
			e.Setenv("DATA", shortDir(t))
			e.Setenv("XDG_DATA_HOME", filepath.Join(e.WorkDir, "xdg"))
			e.Setenv("DENTROPY_TEST_KEEP_ENV", "1")
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Geteuid() == 0, nil
			case "linux":
				return runtime.GOOS == "linux", nil
			}
			return false, fmt.Errorf("condition %q is not known", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"listen":  cmdListen,
			"answers": cmdAnswers,
			"mode":    cmdMode,
			"term":    cmdTerm,
			"archive": cmdArchive,
			"prove":   cmdProve,
		},
	})
}

// cmdListen holds a TCP port of 127.0.0.1 to the end of the script.
func cmdListen(ts *testscript.TestScript, _ bool, args []string) {
	ln, err := net.Listen("tcp", "127.0.0.1:"+args[0])
	ts.Check(err)
	ts.Defer(func() { _ = ln.Close() })
}

// cmdAnswers waits until something accepts connections: answers unix PATH.
func cmdAnswers(ts *testscript.TestScript, _ bool, args []string) {
	if err := poll(func() bool {
		c, err := net.Dial(args[0], args[1])
		if err != nil {
			return false
		}
		return c.Close() == nil
	}); err != nil {
		ts.Fatalf("%s %s does not answer: %v", args[0], args[1], err)
	}
}

// cmdMode checks the permissions of a file: mode 0600 PATH.
func cmdMode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(args[1])
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("mode of %s = %s, want %s", args[1], got, args[0])
	}
}

// cmdTerm sends SIGTERM to whoever holds a data folder: term DIR.
func cmdTerm(ts *testscript.TestScript, _ bool, args []string) {
	pid, err := strconv.Atoi(strings.TrimSpace(ts.ReadFile(filepath.Join(args[0], lockFile))))
	ts.Check(err)
	p, err := os.FindProcess(pid)
	ts.Check(err)
	ts.Check(p.Signal(syscall.SIGTERM))
}

// cmdArchive sets $ARCHIVE to the only archive in a folder: archive DIR.
func cmdArchive(ts *testscript.TestScript, _ bool, args []string) {
	list, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "*"))
	ts.Check(err)
	if len(list) != 1 {
		ts.Fatalf("%s holds %q, want one archive", args[0], list)
	}
	ts.Setenv("ARCHIVE", list[0])
}

// cmdProve proves that the recovery kit in a file is stored: prove KIT DATA-DIR.
func cmdProve(ts *testscript.TestScript, _ bool, args []string) {
	key := regexp.MustCompile(`AGE-SECRET-KEY-1[0-9A-Z]{20,}`).FindString(ts.ReadFile(args[0]))
	ts.Check(ts.Exec("dentropy", "backup", "key", "--confirm", key[len(key)-8:], "--data-dir", args[1]))
}

const (
	pollEvery = 5 * time.Millisecond
	pollMost  = 30 * time.Second
)

// poll waits for a condition.
func poll(ok func() bool) error {
	deadline := time.NewTimer(pollMost)
	defer deadline.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			return fmt.Errorf("still not so after %v", pollMost)
		}
	}
	return nil
}

// shortDir is a folder with a path that leaves room for that of a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dd") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		// below the range from which the system gives ports to outgoing
		// connections, or one of those takes it before we do
		port := 20_000 + rand.IntN(12_000)
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
		return port
	}
	t.Fatal("no free port")
	return 0
}
