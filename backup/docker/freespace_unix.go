//go:build unix

package docker

import "golang.org/x/sys/unix"

// freeSpace is how much room there is in a folder of this machine, in bytes; false where
// that cannot be known.
func freeSpace(dir string) (int64, bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, false
	}
	return int64(st.Bavail) * int64(st.Bsize), true //nolint:unconvert // its type differs between systems
}
