//go:build !linux

package dentropycmd

// portOwner names the program that holds a port, "" where it cannot be told.
func portOwner(string, int) string { return "" }
