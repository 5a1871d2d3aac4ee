//go:build linux || darwin || freebsd

package backup

import "golang.org/x/sys/unix"

// FreeSpace is what the user may still write in a folder; ok is false where that cannot be
// known.
func FreeSpace(dir string) (free int64, ok bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, false
	}
	return int64(st.Bavail) * int64(st.Bsize), true //nolint:unconvert // the types differ from system to system
}
