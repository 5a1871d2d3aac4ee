package volume_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dentropy/dentropycloud/backup/frame"
	"github.com/dentropy/dentropycloud/backup/volume"
)

func needTools(t *testing.T) {
	t.Helper()
	needRoot(t)
	for _, tool := range []string{"tar", "zstd", "bash"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
}

func shell(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("bash", "-c", "set -euo pipefail; "+script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// GNU tar and zstd extract what we wrote.
func TestInteropExtract(t *testing.T) {
	needTools(t)
	root := t.TempDir()
	oddTree(t, root)
	tree, dir := read(t, root, volume.ReadOptions{})
	to := t.TempDir()
	shell(t, dir, "cat v.tar.zst.* | zstd -dc | tar --acls --xattrs --xattrs-include='*' --numeric-owner -xpf - -C "+to)
	if diff := cmp.Diff(describe(t, root), describe(t, to)); diff != "" {
		t.Errorf("the trees differ (-source +extracted):\n%s", diff)
	}
	sums, _, err := volume.Hash(t.Context(), to, volume.ReadOptions{})
	must(t, err)
	if sums.Hash != tree.Hash {
		t.Errorf("hash of what GNU tar extracted: %s, want %s", sums.Hash, tree.Hash)
	}
	if got := blocks(t, filepath.Join(to, "sparse")); got > 200 {
		t.Errorf("sparse file takes %d blocks", got)
	}
}

// We extract what GNU tar and zstd wrote, in its formats.
func TestInteropWrite(t *testing.T) {
	needTools(t)
	root := t.TempDir()
	oddTree(t, root)
	for name, flags := range map[string]string{
		"pax":        "--format=pax --acls --xattrs --xattrs-include='*' --sparse",
		"pax sorted": "--format=pax --acls --xattrs --xattrs-include='*' --sparse --sort=name",
		"pax 0.1":    "--format=pax --acls --xattrs --xattrs-include='*' --sparse --sparse-version=0.1",
	} {
		t.Run(name, func(t *testing.T) {
			work, to := t.TempDir(), t.TempDir()
			shell(t, root, "tar "+flags+" --numeric-owner -cf - . | zstd -q -1 -T0 -o "+work+"/x.tar.zst")
			f, err := os.Open(filepath.Join(work, "x.tar.zst"))
			must(t, err)
			defer f.Close()
			in := frame.NewReader(f, 0)
			defer in.Close()
			result, err := volume.Write(t.Context(), to, in, volume.WriteOptions{Strict: true})
			must(t, err)
			_, err = io.Copy(io.Discard, in)
			must(t, err)
			if diff := cmp.Diff(describe(t, root), describe(t, to)); diff != "" {
				t.Errorf("the trees differ (-source +target):\n%s", diff)
			}
			want, _, err := volume.Hash(t.Context(), root, volume.ReadOptions{})
			must(t, err)
			if result.Sums != want {
				t.Errorf("sums: write %+v, source %+v", result.Sums, want)
			}
		})
	}
	t.Run("gnu", func(t *testing.T) {
		work, to := t.TempDir(), t.TempDir()
		shell(t, root, "tar --format=gnu --sparse --numeric-owner --exclude=./up -cf "+work+"/x.tar .")
		f, err := os.Open(filepath.Join(work, "x.tar"))
		must(t, err)
		defer f.Close()
		_, err = volume.Write(t.Context(), to, f, volume.WriteOptions{Strict: true})
		must(t, err)
		want, _, err := volume.Hash(t.Context(), root, volume.ReadOptions{Exclude: map[string]string{"up": ""}})
		must(t, err)
		got, _, err := volume.Hash(t.Context(), to, volume.ReadOptions{})
		must(t, err)
		if got.Contents != want.Contents {
			t.Errorf("contents: %s, want %s", got.Contents, want.Contents)
		}
	})
}

// The task write takes a stream of zstd, of several frames, or a plain tar, and refuses what
// follows it.
func TestWriteTaskStreams(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "f"), []byte(strings.Repeat("text ", 1000)), 0o644))
	tree, dir := read(t, root, volume.ReadOptions{})
	plain, err := io.ReadAll(stream(t, dir, tree))
	must(t, err)
	zst, err := io.ReadAll(packed(t, dir, tree))
	must(t, err)
	for name, tc := range map[string]struct {
		data []byte
		want string
	}{
		"zstd":              {zst, ""},
		"plain":             {plain, ""},
		"padded":            {append(plain[:len(plain):len(plain)], make([]byte, 9000)...), ""},
		"skippable first":   {append([]byte("\x5a\x2a\x4d\x18\x03\x00\x00\x00abc"), zst...), ""},
		"text behind":       {append(plain[:len(plain):len(plain)], "text"...), "follows"},
		"garbage behind":    {append(zst[:len(zst):len(zst)], "garbage"...), "zstd"},
		"cut off":           {zst[:len(zst)-1], "EOF"},
		"bit flipped":       {flip(zst, len(zst)/2), ""},
		"checksum flipped":  {flip(zst, len(zst)-1), ""},
		"nothing":           {nil, "EOF"},
		"twice":             {append(zst[:len(zst):len(zst)], zst...), "follows"},
		"no end of the tar": {plain[:len(plain)-1024], "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := helper(t.Context(), bytes.NewReader(tc.data), "write", volume.WriteArgs{Path: t.TempDir()})
			bad := tc.want != "" || strings.HasSuffix(name, "flipped")
			if bad != (code == 1) || !strings.Contains(errs, tc.want) {
				t.Fatalf("write = %d, %q, want an error with %q: %v", code, errs, tc.want, bad)
			}
			if bad && bytes.Contains(out, []byte(`"done":true`)) {
				t.Errorf("a failed task says that it is done: %s", out)
			}
			if !bad {
				var result volume.WriteResult
				lastLine(t, out, &result)
				if !result.Done || result.Hash != tree.Hash {
					t.Errorf("result %+v, want hash %s", result, tree.Hash)
				}
			}
		})
	}
}

func flip(data []byte, at int) []byte {
	data = bytes.Clone(data)
	data[at] ^= 4
	return data
}
