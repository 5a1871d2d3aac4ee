package backup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The folders whose names have to be brought to the disk are those that were made.
func TestMissingFolders(t *testing.T) {
	dir := t.TempDir()
	deep := filepath.Join(dir, "a", "b", "c")
	if diff := cmp.Diff([]string{deep, filepath.Join(dir, "a", "b"), filepath.Join(dir, "a")}, missing(deep)); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
	if err := MakeFolder(deep); err != nil {
		t.Fatal(err)
	}
	if got := missing(deep); got != nil {
		t.Errorf("missing = %v after they were made", got)
	}
	info, err := os.Stat(deep)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("made %v, %v, want it private", info, err)
	}
	if err := MakeFolder(deep); err != nil {
		t.Errorf("MakeFolder again = %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := MakeFolder(filepath.Join(file, "x")); err == nil {
		t.Error("a folder in a file")
	}
}
