package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// listTree prints everything about a folder that a backup must bring back, in an order
// of its own: what the project's tree hash covers, told by somebody else.
func listTree(dir string, w io.Writer) error {
	out := bufio.NewWriter(w)
	first := make(map[[2]uint64]string) // hard links by device and inode
	var paths []string
	if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	}); err != nil {
		return err
	}
	sort.Strings(paths)
	for _, path := range paths {
		line, err := describe(dir, path, first)
		if err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
		fmt.Fprintln(out, line)
	}
	return out.Flush()
}

func describe(dir, path string, first map[[2]uint64]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	rel, err := filepath.Rel(dir, path)
	if err != nil {
		return "", err
	}
	parts := []string{fmt.Sprintf("%q mode=%o owner=%d:%d mtime=%d.%09d", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		key := [2]uint64{st.Dev, st.Ino}
		if _, ok := first[key]; !ok {
			first[key] = rel
		}
		parts = append(parts, fmt.Sprintf("nlink=%d same=%q", st.Nlink, first[key]))
	}
	switch kind {
	case unix.S_IFREG:
		sum, holes, err := content(path, st.Size)
		if err != nil {
			return "", err
		}
		parts = append(parts, fmt.Sprintf("size=%d sha256=%x data=%v", st.Size, sum, holes))
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		parts = append(parts, fmt.Sprintf("link=%q", target))
	case unix.S_IFCHR, unix.S_IFBLK:
		parts = append(parts, fmt.Sprintf("device=%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	}
	attrs, err := xattrs(path)
	return strings.Join(append(parts, attrs...), " "), err
}

// content gives the hash of a file's data, and where between its holes that is.
func content(path string, size int64) (sum []byte, extents [][2]int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	hash := sha256.New()
	for at := int64(0); at < size; {
		start, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		if at, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE); err != nil {
			return nil, nil, err
		}
		extents = append(extents, [2]int64{start, at})
		if _, err := io.Copy(hash, io.NewSectionReader(f, start, at-start)); err != nil {
			return nil, nil, err
		}
	}
	return hash.Sum(nil), extents, nil
}

func xattrs(path string) ([]string, error) {
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, names)
	if err != nil {
		return nil, err
	}
	var out []string
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, err
		}
		out = append(out, fmt.Sprintf("%s=%x", name, value[:n]))
	}
	sort.Strings(out)
	return out, nil
}
