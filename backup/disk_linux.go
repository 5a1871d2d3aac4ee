package backup

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// DiskOf names the file system that a path is on, the same in each container of one
// machine, and another on each machine; "" where that cannot be known. Two paths with one
// name share their free space.
func DiskOf(path string) string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	machine := strings.TrimSpace(string(boot))
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil || machine == "" {
		return ""
	}
	if fs.Type == unix.BTRFS_SUPER_MAGIC { // each subvolume has a device of its own
		return fmt.Sprintf("%s/btrfs-%d", machine, fs.Blocks)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ""
	}
	return fmt.Sprintf("%s/%d:%d", machine, unix.Major(st.Dev), unix.Minor(st.Dev))
}
