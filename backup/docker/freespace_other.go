//go:build !unix

package docker

// freeSpace is how much room there is in a folder of this machine; not known here.
func freeSpace(string) (int64, bool) { return 0, false }
