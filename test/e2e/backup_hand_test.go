package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// readme gives the README of an archive, read with tar alone.
func readme(t *testing.T, archive string) string {
	t.Helper()
	out, err := exec.Command("tar", "-xOf", archive, "dentropy/00-README.txt").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// An archive is opened with what Debian has, by the commands of the README in it.
func TestArchiveByHand(t *testing.T) {
	e := newEngine(t)
	a := e.smallApp("byhand")
	d := up(t)
	archive := d.backup("byhand", "--encrypt", "none")
	text := readme(t, archive)
	t.Logf("README:\n%s", text)
	// Names that need no quotes, as the README has them.
	dir := t.TempDir()
	file := filepath.Join(dir, filepath.Base(archive))
	if err := os.Link(archive, file); err != nil {
		if err := os.Rename(keepCopy(t, archive), file); err != nil {
			t.Fatal(err)
		}
	}
	unpacked := filepath.Join(dir, "unpacked")
	if err := os.Mkdir(unpacked, 0o755); err != nil {
		t.Fatal(err)
	}
	script := "set -euxo pipefail\n" + strings.ReplaceAll(shellCommands(text), "-C DIR", "-C "+unpacked)
	for _, word := range []string{"sha256sum -c", "zstd -d", "--acls", "docker load"} {
		if !strings.Contains(script, word) {
			t.Errorf("no command of the README has %q", word)
		}
	}
	readIt := exec.Command("bash", "-c", script)
	readIt.Dir = dir
	readIt.Env = append(os.Environ(), "DOCKER_HOST="+e.c.DaemonHost())
	said, err := readIt.CombinedOutput()
	if err != nil {
		t.Fatalf("by the commands of the README: %v\n%s\n%s", err, script, said)
	}
	if !strings.Contains(string(said), "dentropy/99-END: OK") && !strings.Contains(string(said), ": OK") || !strings.Contains(string(said), "Loaded image") {
		t.Errorf("the commands of the README say:\n%s", said)
	}
	var out bytes.Buffer
	cmd := exec.Command(tool(t, "DENTROPY_E2E_APPS"), "tree", "list", unpacked)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	got := strings.Split(strings.TrimSpace(out.String()), "\n")
	want := slices.Clone(a.tree)
	if os.Getuid() != 0 { // owners and devices are not for us
		t.Skip("only root can unpack owners")
	}
	sameTree(t, "what tar has unpacked", got, want)
}

// shellCommands gives the commands of a text: its indented lines.
func shellCommands(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "  ") {
			out.WriteString(line)
		}
	}
	return out.String()
}

// What tar and zstd of Debian wrote is taken as it comes: the archive's volume is
// replaced by theirs, by hand, and refused, since its hashes are others.
func TestForeignSegmentIsRefused(t *testing.T) {
	e := newEngine(t)
	a := e.smallApp("foreign")
	d := up(t)
	archive := d.backup("foreign", "--encrypt", "none")
	dir := t.TempDir()
	script := fmt.Sprintf(`set -euo pipefail
cd %q
tar -xf %q
first=$(ls dentropy/50-volumes/*.00000 | head -n 1)
mkdir empty; echo hello > empty/file
tar -C empty -c . | zstd -q -o new.zst
cp new.zst "$first"
tar -cf changed.dentropy.tar $(tar -tf %q)
`, dir, archive, archive)
	if out, err := exec.Command("bash", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	changed := filepath.Join(dir, "changed.dentropy.tar")
	d.refuses(nil, "archive", "verify", changed)
	d.refuses(nil, "restore", changed, "--yes", "--as", "foreign2", "--route", "web=foreign2.localhost")
	a.check(t, d)
}
