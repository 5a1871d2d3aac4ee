package dentropycmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"golang.org/x/tools/txtar"
)

// adminServer answers like the admin API on a unix socket, which it gives.
func adminServer(t *testing.T, h http.Handler) (dataDir string) {
	t.Helper()
	dir := shortDir(t)
	ln, err := net.Listen("unix", filepath.Join(dir, adminSocket))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: pollMost}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	return dir
}

// runVerb runs one command line and gives what it prints.
func runVerb(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	root := &cobra.Command{Use: "dentropy"}
	for _, v := range append(verbs(), verb{"reload", setUpReload}) {
		c := &cobra.Command{Use: v.name}
		v.setUp(c)
		finish(c)
		root.AddCommand(c)
	}
	var out, errOut bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errOut)
	root.SetArgs(args)
	err = root.ExecuteContext(ctx)
	return out.String(), errOut.String(), err
}

// TestVerbs holds what the verbs print against testdata/verbs: each file has the
// words after "dentropy", the request that is wanted, the status and body of the
// answer, and then "stdout" and "stderr".
func TestVerbs(t *testing.T) {
	t.Setenv("DENTROPY_ADMIN", "")
	paths, err := filepath.Glob("testdata/verbs/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			in := map[string]string{}
			for _, f := range ar.Files {
				in[f.Name] = strings.TrimSuffix(string(f.Data), "\n")
			}
			var request string
			dir := adminServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				request = r.Method + " " + r.RequestURI
				status := http.StatusOK
				if in["status"] != "" {
					if _, err := fmt.Sscan(in["status"], &status); err != nil {
						t.Errorf("status %q: %v", in["status"], err)
					}
				}
				w.WriteHeader(status)
				_, _ = io.WriteString(w, in["answer"])
			}))
			out, errOut, err := runVerb(t.Context(), append(strings.Fields(in["args"]), "--data-dir", dir)...)
			got := map[string]string{"request": request, "stdout": out, "stderr": strings.ReplaceAll(errOut, dir, "DIR"), "exit": "0\n"}
			if err != nil {
				got["exit"] = "1\n"
			}
			if request != "" {
				got["request"] += "\n"
			}
			if *update {
				var files []txtar.File
				for _, f := range ar.Files {
					if _, ours := got[f.Name]; !ours {
						files = append(files, f)
					}
				}
				for _, name := range []string{"request", "stdout", "stderr", "exit"} {
					files = append(files, txtar.File{Name: name, Data: []byte(got[name])})
				}
				ar.Files = files
				if err := os.WriteFile(path, txtar.Format(ar), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			want := map[string]string{}
			for name := range got {
				if want[name] = in[name]; want[name] != "" {
					want[name] += "\n"
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("output differs (-want +got); -update writes it:\n%s", diff)
			}
		})
	}
}

func TestFindAdmin(t *testing.T) {
	other := adminServer(t, http.NotFoundHandler())
	home := t.TempDir()
	t.Setenv("XDG_DATA_HOME", home)
	for _, tt := range []struct {
		name, env, want string
		args            []string
	}{
		{"flag", "unix//env.sock", "/flag.sock", []string{"--address", "/flag.sock"}},
		{"environment", "unix//env.sock", "unix//env.sock", nil},
		{"data folder", "", "unix/" + filepath.Join(other, adminSocket), []string{"--data-dir", other}},
		{"Caddy's default", "", "localhost:2019", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want == "localhost:2019" {
				if _, err := os.Stat(filepath.Join(systemDataDir, adminSocket)); err == nil {
					t.Skip("a dentropy runs on this machine")
				}
			}
			c := new(cobra.Command)
			addressFlags(c.Flags())
			if err := c.ParseFlags(tt.args); err != nil {
				t.Fatal(err)
			}
			got, _, err := findAdmin(c.Flags(), func(k string) string {
				if k == "DENTROPY_ADMIN" {
					return tt.env
				}
				return os.Getenv(k)
			})
			if err != nil || got != tt.want {
				t.Errorf("findAdmin(%q) = %q, %v, want %q", tt.args, got, err, tt.want)
			}
		})
	}
}

func TestNobodyAnswers(t *testing.T) {
	t.Setenv("DENTROPY_ADMIN", "")
	dir := t.TempDir()
	_, errOut, err := runVerb(t.Context(), "routes", "--data-dir", dir)
	if err == nil || !strings.Contains(errOut, "nothing runs on data folder "+dir) {
		t.Errorf("routes without an instance: %v %q", err, errOut)
	}
	_, errOut, err = runVerb(t.Context(), "routes", "--address", "unix//nowhere/admin.sock")
	if err == nil || !strings.Contains(errOut, "no running dentropy found (looked at unix//nowhere/admin.sock)") {
		t.Errorf("routes with a wrong address: %v %q", err, errOut)
	}
	if strings.Count(errOut, "\n") != 1 {
		t.Errorf("the message is not one line: %q", errOut)
	}
}

func TestEventsGoOnAfterReload(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var uris []string
	dir := adminServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		uris = append(uris, r.RequestURI) // one request at a time
		w.Header().Set("Content-Type", "text/event-stream")
		if r.URL.Query().Get("since") == "" {
			_, _ = io.WriteString(w, ": still here\n\nid: 7\ndata: {\"seq\":7,\"time\":\"2026-11-24T10:00:00Z\",\"kind\":\"route\",\"host\":\"a.test\",\"text\":\"is served\"}\n\n")
			return // as when the configuration is replaced
		}
		_, _ = io.WriteString(w, "id: 8\ndata: {\"seq\":8,\"kind\":\"certificate\",\"host\":\"a.test\",\"text\":\"was refused\",\"error\":\"no \\u001b[31m\",\"tries\":2}\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	c, err := newClient(setUp(t, setUpEvents, "--data-dir", dir).Flags(), func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	p := newPrinter(&out, os.Getenv)
	n := 0
	if err := follow(ctx, c, func(data []byte) error {
		if n++; n == 2 {
			defer cancel()
		}
		return showEvent(p, data, false)
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/dentropy/events", "/dentropy/events?since=7"}, uris); diff != "" {
		t.Errorf("requests differ (-want +got):\n%s", diff)
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 3 || !strings.HasSuffix(lines[0], "  route        a.test  is served") ||
		lines[1] != "  certificate  a.test  was refused  error: no ·[31m  tries=2" {
		t.Errorf("events print %q", lines)
	}
}

func TestEventsStopWithTheirReader(t *testing.T) {
	dir := adminServer(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "data: {}\n\n")
	}))
	c, err := newClient(setUp(t, setUpEvents, "--data-dir", dir).Flags(), func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	want := errors.New("pipe is closed")
	if err := follow(t.Context(), c, func([]byte) error { return want }); !errors.Is(err, want) {
		t.Errorf("follow() = %v, want %v", err, want)
	}
}

func TestWhyNeedsAHost(t *testing.T) {
	for _, args := range [][]string{nil, {""}, {" "}, {"a.test", "b.test"}} {
		if err := oneHost(new(cobra.Command), args); err == nil {
			t.Errorf("oneHost(%q) takes it", args)
		}
	}
}

func setUp(t *testing.T, f func(*cobra.Command), args ...string) *cobra.Command {
	t.Helper()
	c := new(cobra.Command)
	f(c)
	if err := c.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return c
}
