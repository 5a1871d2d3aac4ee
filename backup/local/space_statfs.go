//go:build linux || darwin || freebsd

package local

import "golang.org/x/sys/unix"

// freeSpace is what the user may still write in the folder.
func freeSpace(dir string) (int64, bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, false
	}
	return int64(st.Bavail) * int64(st.Bsize), true //nolint:unconvert // the types differ from system to system
}
