// Package volume reads and writes one tree of files: the data of a volume. It runs in
// a helper container made of our own static binary, next to the data, and in no other
// place; Main is that helper's command line.
//
// # Use
//
//	tree, err := volume.Read(ctx, "/v", volume.NewTransit("/transit/op", "db", reserve), opts)
//	result, err := volume.Write(ctx, "/v", tarStream, opts)
//	sums, err := volume.Hash(ctx, "/v", opts)
//
// # Reading
//
//	walker: one goroutine, folders in order, names sorted by their bytes
//	  ▸ jobs of some entries each, in order, to a pool of readers
//	      open, stat, attributes, content (whole, or in chunks), hash of the content
//	  ▸ framer: one goroutine, takes the chunks of the jobs in order, decides on hard
//	    links, feeds the frame writer, the index of files and the tree hash
//
// Everything is relative to the descriptor of a folder and follows no symbolic link.
// What a file holds is exactly as long as its size was when it was opened: a file that
// shrinks is filled up with zeros, and both are noted. The first name of a file in path
// order carries its content, further names are hard links to it.
//
// # Writing
//
// Tar streams are hostile. Each component of a name is opened by itself, below the
// folder before it, as a folder and never through a symbolic link. Files are made anew
// (O_EXCL); whatever exists already, folders aside, is an error. Symbolic links are made
// as they are and never followed. Folders get owner, mode and time when nothing more
// will be written into them.
//
// # Tree hash
//
// The tree hash is the SHA-256 of these lines, each ended by a newline:
//
//	dentropy-tree 1
//	PATH TYPE MODE UID GID SIZE MTIME DEVICE LINK CONTENT XATTRS
//	…
//
// one line for each entry in path order, fields parted by one space. A field without
// a value is "-".
//
//   - Path order compares paths component by component by their bytes, as if "/" were
//     less than any other byte. The root comes first.
//   - PATH is relative, without "./" and without a slash at its end; "." is the root. In
//     PATH, LINK and names of attributes each byte below 0x21 or above 0x7e, and
//     "%", "=" and ",", is written %XX in upper-case hex. A PATH or LINK that is just
//     "-" is written %2D.
//   - TYPE is tar's letter: 0 file, 1 hard link, 2 symbolic link, 3 character device,
//     4 block device, 5 folder, 6 FIFO. The first name of a file in path order has type
//     0, further names type 1 and LINK the first name; all their other fields are "-".
//   - MODE is four octal digits (permissions, setuid, setgid, sticky), "-" for symbolic
//     links.
//   - UID, GID, SIZE (files only, apparent size) are decimal.
//   - MTIME is whole seconds since 1970 (rounded down), a dot and nine digits of
//     nanoseconds; "-" for symbolic links, whose time some file systems do not keep.
//   - DEVICE is major:minor of a device.
//   - LINK is the target of a symbolic link.
//   - CONTENT is the content hash of a file, below.
//   - XATTRS are name=HEX, sorted by name, parted by commas: user.*,
//     security.capability, system.posix_acl_access and system.posix_acl_default, in the
//     kernel's binary form. Labels and trusted.* are not part of the hash: they belong to
//     a host, or need rights that the helper does not have.
//
// Sockets, and a folder lost+found in the root that is empty, have no line. Holes are
// no part of the hash: a file system may have none. They are kept where they can be.
//
// The content hash of a file is the SHA-256 of its bytes, in hex, as sha256sum prints
// it. A file in which whole blocks of 4 MiB (at multiples of 4 MiB) are zero, as the
// holes of large sparse files are, has another one, since a hole of a terabyte takes
// ten minutes to hash: "z:" and the SHA-256 of
//
//	the SHA-256 (32 bytes) of the file without those blocks, then for each run of
//	such blocks "FIRST+COUNT\n", block numbers in decimal
//
// The contents hash is made in the same way of the first line "dentropy-contents 1" and of
// lines PATH TYPE SIZE LINK CONTENT without folders: it is equal where a file system
// could not take owners, modes, times or attributes, yet all data is there.
//
// # Not guaranteed
//
// What something else writes while a tree is read is read as it comes. File flags
// (chattr) are noted and not set again. Access and change times are not kept. A target
// that Write left with an error is to be thrown away.
package volume
