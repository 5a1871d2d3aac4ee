// Package tarx writes and reads tar entries with everything that a Linux file system
// knows about a file: holes, extended attributes, POSIX ACLs, capabilities, devices,
// times to the nanosecond and before 1970, ids of 32 bits, names of any bytes and any
// length. archive/tar of the standard library cannot write holes, and gives up on names
// and records that are no UTF-8.
//
// What it writes is a POSIX pax archive that GNU tar extracts in full with
//
//	tar --acls --xattrs --xattrs-include='*' --numeric-owner -xpf FILE
//
// # Use
//
//	for each file:
//		b, err = AppendHeader(b[:0], &h)  // all that stands before the content
//		write b, h.PayloadSize() bytes of content, Padding(&h) zeros
//	write Trailer
//
//	r := NewReader(in)
//	for h, err := r.Next(); err == nil; h, err = r.Next() {
//		read h.PayloadSize() bytes from r; they belong at h.Data, or at the start
//	}
//
// AppendHeader holds no state and may run in many goroutines. A Reader is for one.
//
// # Names
//
// A Header's name is relative and without "./" in front; "./" alone is the root of the
// tree. In the archive each name begins with "./", so that none can be taken for an
// option or an absolute path. The name of a folder ends in "/". The target of a hard
// link is such a name too; that of a symbolic link is text, taken as it is.
//
// A Reader does not judge names: "../x" and "/x" come out of it as they are in the
// archive. Whoever makes files of them must.
//
// # Mapping
//
//	Header        in the archive
//	Name          ustar name, or prefix and name, or record path
//	Link          ustar linkname, or record linkpath
//	Mode          ustar mode, 12 bits
//	UID, GID      ustar, above 2097151 records uid and gid; no names of users
//	ModTime       ustar mtime; a fraction, a time before 1970 or after 2242 in record
//	              mtime, as signed decimal
//	Size          ustar size, from 8 GiB on record size
//	Major, Minor  ustar devmajor and devminor
//	Data          GNU sparse format 1.0: records GNU.sparse.major, minor, name and
//	              realsize; the list of extents stands before the content
//	Xattrs        by name:
//	  system.posix_acl_access   SCHILY.acl.access, text with numeric ids
//	  system.posix_acl_default  SCHILY.acl.default
//	  security.selinux          RHT.security.selinux, without its final NUL
//	  any other                 SCHILY.xattr.<name>; "%" and "=" in the name are
//	                            written %25 and %3D, as GNU tar does
//
// An ACL or label that does not survive its translation byte for byte is written as
// SCHILY.xattr like the others. Records are there only where ustar falls short, sorted,
// and equal headers give equal bytes.
//
// The length of each extent but the last is a multiple of 512: GNU tar takes whole
// blocks for each of them. AlignExtents sees to that.
//
// # What is read
//
// All of the above; also v7, ustar with prefix, GNU format (long names and links,
// numbers in base 256, sparse files with their extensions), pax sparse formats 0.0 and
// 0.1, global pax headers. Volumes of a multi-volume archive are refused, labels are
// skipped, types that nobody knows are refused.
//
// # Hostile input
//
// Everything that an archive says is checked. Memory is bounded: by MaxRecords for what
// stands before an entry and MaxExtents for its map. Errors are ErrHeader, wrapped with
// the offset, or io.ErrUnexpectedEOF for an archive that ends too early.
//
// # Not guaranteed
//
// Times other than mtime, file flags (chattr) and names of users and groups are neither
// written nor read. Sockets have no place in a tar.
package tarx
