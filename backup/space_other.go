//go:build !linux && !darwin && !freebsd

package backup

// FreeSpace is what the user may still write in a folder. Here it cannot be known.
func FreeSpace(string) (free int64, ok bool) { return 0, false }
