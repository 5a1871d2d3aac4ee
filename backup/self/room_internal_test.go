package self

import (
	"testing"

	"github.com/dentropy/dentropycloud/backup"
)

// What is read waits on a disk of this machine: that must hold it, and the store there both.
func TestRoom(t *testing.T) {
	dir := t.TempDir()
	if _, ok := backup.FreeSpace(dir); !ok {
		t.Skip("free space cannot be known here")
	}
	est := &backup.Estimate{Bytes: 1 << 10, Files: 3}
	if err := room(est, dir); err != nil {
		t.Errorf("room for a kilobyte: %v", err)
	}
	if got := est.Beside[backup.DiskOf(dir)]; got != 4<<10 || est.TransitFree <= 0 {
		t.Errorf("beside the archive: %d bytes, free %d; want 4096, and what is free", got, est.TransitFree)
	}
	for _, est := range []*backup.Estimate{{Bytes: 1 << 60}, {Files: 1 << 50}} {
		if err := room(est, dir); backup.HintOf(err) == "" {
			t.Errorf("room for %+v = %v, want a refusal", est, err)
		}
	}
}
