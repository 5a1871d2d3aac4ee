package backup_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
	"golang.org/x/sys/unix"
)

// ageTool finds age, or builds a program that decrypts as it does.
func ageTool(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("age"); err == nil {
		return path
	}
	path := filepath.Join(t.TempDir(), "age")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./testdata/age")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build age: %v\n%s", err, out)
	}
	return path
}

// readmeCommands are the indented lines of a README; a line that ends in | goes on.
func readmeCommands(text string) []string {
	var out []string
	more := false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		cmd, ok := strings.CutPrefix(line, "  ")
		if !ok {
			continue
		}
		cmd = strings.TrimSpace(cmd)
		if more {
			out[len(out)-1] += " " + cmd
		} else {
			out = append(out, cmd)
		}
		more = strings.HasSuffix(cmd, "|")
	}
	return out
}

// The commands of the README are run as they stand, with GNU tar, zstd, sha256sum and age.
func TestReadmeCommands(t *testing.T) {
	for _, tool := range []string{"tar", "zstd", "sha256sum", "sh"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("there is no %s", tool)
		}
	}
	age := ageTool(t)
	for _, enc := range []string{"all", "secrets", "none"} {
		t.Run(enc, func(t *testing.T) {
			dir := t.TempDir()
			made := makeArchive(t, archiveOptions{encryption: enc})
			run := func(script string) string {
				t.Helper()
				cmd := exec.CommandContext(t.Context(), "sh", "-ec", script)
				cmd.Dir = dir
				cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(age)+":"+os.Getenv("PATH"), "LC_ALL=C")
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				out, err := cmd.Output()
				if err != nil {
					t.Fatalf("%s\n%v\n%s", script, err, stderr.String())
				}
				return string(out)
			}
			write := func(name string, data []byte) {
				t.Helper()
				if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("key.txt", []byte("# a comment\n"+testKey+"\n"))
			file := backup.ArchiveName("shop", made.manifest.Created, made.manifest.ID, false)
			if enc == "all" {
				// As the recovery kit says.
				write(file+".age", made.bytes)
				run("age -d -i key.txt " + file + ".age > " + file)
			} else {
				write(file, made.bytes)
			}
			text := run("tar -xOf " + file + " dentropy/00-README.txt")
			if max := longest(text); max > 100 {
				t.Errorf("the README has a line of %d characters", max)
			}
			outputs := make(map[string]string)
			prefix := ""
			for _, cmd := range readmeCommands(text) {
				switch {
				case strings.HasPrefix(cmd, "FILE="):
					prefix = cmd + "\n"
					continue
				case strings.HasPrefix(cmd, "age -d -i key.txt FILE.age"):
					continue // done above
				case strings.Contains(cmd, "docker load"):
					cmd = strings.Replace(cmd, "docker load", "tar -t", 1)
				}
				if _, rest, ok := strings.Cut(cmd, "dentropy/50-volumes/"); ok {
					volume, _, _ := strings.Cut(rest, ".tar.zst")
					if err := os.Mkdir(filepath.Join(dir, volume), 0o700); err != nil {
						t.Fatal(err)
					}
					cmd = strings.Replace(cmd, "-C DIR", "-C "+volume, 1)
				}
				outputs[cmd] = run(prefix + cmd)
			}
			checkReadmeOutputs(t, dir, outputs)
		})
	}
}

func longest(text string) int {
	n := 0
	for line := range strings.Lines(text) {
		n = max(n, len(line))
	}
	return n
}

func checkReadmeOutputs(t *testing.T, dir string, outputs map[string]string) {
	t.Helper()
	seen := make(map[string]bool)
	for cmd, out := range outputs {
		switch {
		case strings.Contains(cmd, "sha256sum -c"):
			seen["sums"] = strings.Count(out, ": OK\n") > 10 && !strings.Contains(out, "FAILED")
		case strings.Contains(cmd, "20-settings"):
			var app backup.App
			err := json.Unmarshal([]byte(out), &app)
			seen["settings"] = err == nil && app.Name == "shop" && strings.Contains(out, "{dentropy-secret:")
		case strings.Contains(cmd, "25-secrets"):
			var secrets map[string]string
			err := json.Unmarshal([]byte(out), &secrets)
			seen["secrets"] = err == nil && strings.Contains(out, "hunter2-hunter2")
		case strings.Contains(cmd, "images . | tar -t"):
			seen["images"] = strings.Contains(out, "./oci-layout\n") && strings.Contains(out, "./blobs/sha256/")
		case strings.Contains(cmd, "90-files/db"):
			seen["files"] = strings.Count(out, "\n") == len(testFiles())
		}
	}
	for _, what := range []string{"sums", "settings", "secrets", "images", "files"} {
		if !seen[what] {
			t.Errorf("the commands for %s did not give what they should; all outputs: %q", what, outputs)
		}
	}
	if got, err := os.ReadFile(filepath.Join(dir, "db", "big")); err != nil || !bytes.Equal(got, noise(90_000)) {
		t.Errorf("db/big has %d bytes, %v", len(got), err)
	}
	var a, b unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "db", "big"), &a); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(filepath.Join(dir, "db", "dir", "link"), &b); err != nil || a.Ino != b.Ino {
		t.Errorf("the hard link is another file: %v", err)
	}
	if os.Getuid() == 0 && (a.Uid != 1000 || a.Gid != 70) {
		t.Errorf("db/big belongs to %d:%d, want 1000:70", a.Uid, a.Gid)
	}
	if a.Mtim.Nsec != 123456789 {
		t.Errorf("db/big has the time %v", a.Mtim)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "db", "holes")); err != nil || len(got) != 100_000 || got[4096] != 'x' || got[0] != 0 {
		t.Errorf("db/holes has %d bytes, %v", len(got), err)
	}
}
