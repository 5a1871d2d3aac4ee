//go:build !linux

package backup

// DiskOf names the file system that a path is on. Here it cannot be known.
func DiskOf(string) string { return "" }
