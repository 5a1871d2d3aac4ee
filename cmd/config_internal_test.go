package dentropycmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

// TestBuildConfig holds what a command line and a Caddyfile become against
// testdata/config: each file has "args", perhaps "Caddyfile" or "config.json", and
// the wanted "config" or "error".
func TestBuildConfig(t *testing.T) {
	paths, err := filepath.Glob("testdata/config/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			args, want := "", map[string]string{}
			dir := t.TempDir()
			for _, f := range ar.Files {
				switch f.Name {
				case "args":
					args = string(f.Data)
				case "config", "error":
					want[f.Name] = string(f.Data)
				default:
					if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o600); err != nil {
						t.Fatal(err)
					}
					args += " --config " + filepath.Join(dir, f.Name)
				}
			}
			got := map[string]string{}
			if cfg, err := buildFrom(args); err != nil {
				got["error"] = strings.ReplaceAll(err.Error(), dir, "DIR") + "\n"
			} else {
				got["config"] = strings.ReplaceAll(string(cfg), dir, "DIR") + "\n"
			}
			if *update {
				writeGolden(t, path, ar, got)
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("configuration differs (-want +got); -update writes it:\n%s", diff)
			}
		})
	}
}

// buildFrom does what `up` does, with made-up descriptors.
func buildFrom(args string) ([]byte, error) {
	o, err := options(args, "")
	if err != nil {
		return nil, err
	}
	file, o, err := readConfig(o)
	if err != nil {
		return nil, err
	}
	var listeners []Listener
	for i, bind := range o.binds() {
		n := string(rune('1' + i))
		listeners = append(listeners, Listener{Bind: bind, HTTP: "fd/" + n + "1", HTTPS: "fd/" + n + "2", QUIC: "fdgram/" + n + "3"})
	}
	return buildConfig(o, file.cfg, listeners)
}

func writeGolden(t *testing.T, path string, ar *txtar.Archive, got map[string]string) {
	t.Helper()
	var files []txtar.File
	for _, f := range ar.Files {
		if f.Name != "config" && f.Name != "error" {
			files = append(files, f)
		}
	}
	for name, data := range got {
		files = append(files, txtar.File{Name: name, Data: []byte(data)})
	}
	ar.Files = files
	if err := os.WriteFile(path, txtar.Format(ar), 0o600); err != nil {
		t.Fatal(err)
	}
}
