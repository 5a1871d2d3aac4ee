package backup_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/local"
)

func TestDiskOf(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	here := backup.DiskOf(dir)
	if here == "" || backup.DiskOf(filepath.Join(dir, "sub")) != here {
		t.Errorf("DiskOf = %q, and %q of a folder in it", here, backup.DiskOf(filepath.Join(dir, "sub")))
	}
	if got := backup.DiskOf("/proc"); got == here {
		t.Errorf("DiskOf(/proc) = %q, the same", got)
	}
	if got := backup.DiskOf(filepath.Join(dir, "none")); got != "" {
		t.Errorf("DiskOf of nothing = %q", got)
	}
	s, err := local.New(filepath.Join(dir, "sub", "not", "made"))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Disk(); got != here {
		t.Errorf("Disk of a store that is not made yet = %q, want %q", got, here)
	}
}
