// Package local keeps archives in a folder.
//
//	s, err := local.New("/srv/backups")
//
// # Files
//
// An archive is written as .<name>.partial, under an flock, and gets its name once it is
// on the disk:
//
//	open O_EXCL ▸ flock ▸ write ▸ fsync ▸ rename without replacing ▸ fsync the folder
//
// A .partial that nobody has locked is what a dead process left. Create and Check remove
// it; List never shows one. The folder is made when something is first written, for its
// owner only; files are for their owner only, and symbolic links in it are not followed.
// Other files in the folder are left alone.
//
// # Not guaranteed
//
// On file systems without flock (some network mounts) leftovers are never taken for dead,
// and stay. Two machines that share a folder rely on its flock and rename.
package local
