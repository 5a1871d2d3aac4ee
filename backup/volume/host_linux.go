package volume

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// HostArgs are the arguments of the task host, which moves files and folders of the
// engine's host around below Root. Paths are relative to it, and no symbolic link is
// followed on the way.
type HostArgs struct {
	Root string     `json:"root"`
	Do   []HostStep `json:"do"`
}

// HostStep is one step of the task host.
type HostStep struct {
	// Op is "stat" (A), "mkdir" (A, and what is missing above it), "touch" (A, empty, if it
	// is missing), "rename" (A to B, which must not be there), "exchange" (A and B),
	// "remove" (A, with all in it), "rmdir" (A, if it is empty), "merge" (says which entries of the folder A the folder B
	// lacks, and which it has; changes nothing), "put" (Text into the file A), "mounts" (what
	// is mounted below the root).
	Op   string `json:"op"`
	A    string `json:"a"`
	B    string `json:"b,omitempty"`
	Text string `json:"text,omitempty"`
}

// HostStat is what stat tells.
type HostStat struct {
	Exists bool   `json:"exists,omitempty"`
	Dir    bool   `json:"dir,omitempty"`
	Empty  bool   `json:"empty,omitempty"` // a folder with nothing in it
	Link   bool   `json:"link,omitempty"`  // a symbolic link, or something below one
	Inode  uint64 `json:"inode,omitempty"`
	Dev    uint64 `json:"dev,omitempty"`
}

// HostMerge is one entry that merge tells of.
type HostMerge struct {
	Path string `json:"path"`
	// There says that the other folder has one of that name, with other content.
	There bool   `json:"there,omitempty"`
	Inode uint64 `json:"inode"` // of the entry in A
}

// HostResult is what the task host tells: Stats for each step stat, in order.
type HostResult struct {
	Done  bool        `json:"done"`
	Stats []HostStat  `json:"stats,omitempty"`
	Merge []HostMerge `json:"merge,omitempty"`
	// Mounts are where something is mounted below the root, relative to it.
	Mounts []string `json:"mounts,omitempty"`
}

// Bounds of what merge tells of: a project's folder that differs in more is not the same
// project. What it says is one line of JSON, which has a bound as well. Folders that lie
// deeper are no project's, and each level costs memory.
const (
	mostMerged     = 5000
	mostMergedText = 256 << 10
	deepestMerge   = 100
)

// hostWork is the task host at work.
type hostWork struct {
	root int
	said int    // bytes of paths in Merge, as JSON
	at   string // where the root is
	HostResult
}

func (h *helper) host(ctx context.Context, args HostArgs) error {
	root, err := unix.Open(args.Root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", args.Root, err)
	}
	defer closeFD(root)
	w := &hostWork{root: root, at: args.Root, HostResult: HostResult{Done: true}}
	for _, s := range args.Do {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := w.step(s); err != nil {
			return fmt.Errorf("%s %q %q: %w", s.Op, s.A, s.B, err)
		}
	}
	return h.say(w.HostResult)
}

func (w *hostWork) step(s HostStep) error {
	switch s.Op {
	case "stat":
		st, err := w.look(s.A)
		w.Stats = append(w.Stats, st)
		return err
	case "mkdir":
		fd, err := w.walk(s.A, true)
		if err == nil {
			closeFD(fd)
		}
		return err
	case "touch":
		return w.touch(s.A, nil)
	case "put":
		return w.touch(s.A, []byte(s.Text))
	case "rename":
		return w.rename(s.A, s.B, unix.RENAME_NOREPLACE)
	case "exchange":
		return w.rename(s.A, s.B, unix.RENAME_EXCHANGE)
	case "remove":
		return w.remove(s.A)
	case "rmdir":
		return w.rmdir(s.A)
	case "mounts":
		return w.mounts()
	case "merge":
		a, err := w.walk(s.A, false)
		if err != nil {
			return err
		}
		defer closeFD(a)
		b, err := w.walk(s.B, false)
		if err != nil {
			return err
		}
		defer closeFD(b)
		return w.merge(a, b, "")
	}
	return usageError{errors.New("there is no such step")}
}

// parts takes a path apart, and refuses those that leave the root.
func parts(p string) ([]string, error) {
	if p == "" || p == "." {
		return nil, nil
	}
	if strings.HasPrefix(p, "/") || path.Clean(p) != p || p == ".." || strings.HasPrefix(p, "../") || strings.Contains(p, "\x00") {
		return nil, usageError{fmt.Errorf("path %q: want a plain relative one", p)}
	}
	return strings.Split(p, "/"), nil
}

// walk opens the folder p. The caller closes it.
func (w *hostWork) walk(p string, make bool) (int, error) {
	names, err := parts(p)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Dup(w.root)
	if err != nil {
		return -1, err
	}
	for _, name := range names {
		if make {
			err := unix.Mkdirat(fd, name, 0o755)
			if err == nil {
				err = unix.Fsync(fd)
			}
			if err != nil && !errors.Is(err, unix.EEXIST) {
				closeFD(fd)
				return -1, err
			}
		}
		next, err := openat(fd, toCname(name), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		closeFD(fd)
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

// parent opens the folder that p is in.
func (w *hostWork) parent(p string) (fd int, name string, err error) {
	if _, err := parts(p); err != nil {
		return -1, "", err
	}
	if p == "" || p == "." {
		return -1, "", usageError{errors.New("the root itself stays as it is")}
	}
	dir := path.Dir(p)
	fd, err = w.walk(dir, false)
	return fd, path.Base(p), err
}

// lookRoot looks at the root itself.
func (w *hostWork) lookRoot() (HostStat, error) {
	var st unix.Stat_t
	if err := unix.Fstat(w.root, &st); err != nil {
		return HostStat{}, err
	}
	return HostStat{Exists: true, Dir: true, Inode: uint64(widen(st.Ino)), Dev: uint64(widen(st.Dev))}, nil
}

// mounts finds what is mounted below the root.
func (w *hostWork) mounts() error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	w.Mounts = append(w.Mounts, mountsBelow(string(text), w.at)...)
	return nil
}

// mountsBelow reads from the kernel's list of mounts which are below dir, relative to it.
func mountsBelow(mountinfo, dir string) []string {
	var out []string
	for line := range strings.Lines(mountinfo) {
		const point = 4 // which field it is
		fields := strings.Fields(line)
		if len(fields) <= point {
			continue
		}
		at := unescapeMount(fields[point])
		if rel, ok := strings.CutPrefix(at, strings.TrimSuffix(dir, "/")+"/"); ok && rel != "" && !slices.Contains(out, rel) {
			out = append(out, rel)
		}
	}
	return out
}

// unescapeMount reads a path of the kernel's list, in which blanks and the like are octal.
func unescapeMount(s string) string {
	const digits = 3
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+digits < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+1+digits], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += digits
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func (w *hostWork) look(p string) (HostStat, error) {
	if p == "." {
		return w.lookRoot()
	}
	dir, name, err := w.parent(p)
	switch {
	case errors.Is(err, unix.ENOENT):
		return HostStat{}, nil
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		return HostStat{Link: true}, nil
	case err != nil:
		return HostStat{}, err
	}
	defer closeFD(dir)
	var st unix.Stat_t
	err = unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return HostStat{}, nil
	}
	if err != nil {
		return HostStat{}, err
	}
	out := HostStat{Exists: true, Inode: uint64(widen(st.Ino)), Dev: uint64(widen(st.Dev))}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		out.Link = true
	case unix.S_IFDIR:
		out.Dir = true
		fd, err := openat(dir, toCname(name), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return out, err
		}
		defer closeFD(fd)
		out.Empty, err = emptyFolder(fd)
		return out, err
	}
	return out, nil
}

// touch makes a file; text nil leaves one that is there as it is.
func (w *hostWork) touch(p string, text []byte) error {
	dir, name, err := w.parent(p)
	if err != nil {
		return err
	}
	defer closeFD(dir)
	// A FIFO of that name would make it wait for ever.
	flags := unix.O_WRONLY | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_NONBLOCK
	if text != nil {
		flags |= unix.O_EXCL
	}
	fd, err := openat(dir, toCname(name), flags, 0o644)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.Join(err, f.Close(), errors.New("something that is no file has that name"))
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close(), unix.Fsync(dir))
}

func (w *hostWork) rename(a, b string, flags uint) error {
	from, old, err := w.parent(a)
	if err != nil {
		return err
	}
	defer closeFD(from)
	to, name, err := w.parent(b)
	if err != nil {
		return err
	}
	defer closeFD(to)
	if err := unix.Renameat2(from, old, to, name, flags); err != nil {
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EXDEV) {
			return fmt.Errorf("one of them is another file system: name a folder below it: %w", err)
		}
		return err
	}
	return errors.Join(unix.Fsync(from), unix.Fsync(to))
}

func (w *hostWork) remove(p string) error {
	dir, name, err := w.parent(p)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer closeFD(dir)
	return errors.Join(removeTree(dir, toCname(name)), unix.Fsync(dir))
}

// rmdir removes an empty folder; one that is not empty stays.
func (w *hostWork) rmdir(p string) error {
	dir, name, err := w.parent(p)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer closeFD(dir)
	err = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// merge compares the folder a with b.
func (w *hostWork) merge(a, b int, prefix string) error {
	names, err := readNames(a, make([]byte, 64<<10))
	if err != nil {
		return err
	}
	for i := range names.names {
		name := names.name(i)
		var sa, sb unix.Stat_t
		if err := unix.Fstatat(a, name.String(), &sa, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		p := path.Join(prefix, name.String())
		err := unix.Fstatat(b, name.String(), &sb, unix.AT_SYMLINK_NOFOLLOW)
		there := err == nil
		switch {
		case err != nil && !errors.Is(err, unix.ENOENT):
			return err
		case there && sa.Mode&unix.S_IFMT == unix.S_IFDIR && sb.Mode&unix.S_IFMT == unix.S_IFDIR:
			if err := w.mergeFolders(a, b, name, p); err != nil {
				return err
			}
			continue
		case there:
			same, err := sameContent(a, b, name, &sa, &sb)
			if err != nil {
				return err
			}
			if same {
				continue
			}
		}
		text, err := json.Marshal(p)
		if err != nil {
			return err
		}
		if w.said += len(text); len(w.Merge) == mostMerged || w.said > mostMergedText {
			return fmt.Errorf("the folder that is there differs in more than %d entries, or their names are too long", len(w.Merge))
		}
		w.Merge = append(w.Merge, HostMerge{Path: p, There: there, Inode: uint64(widen(sa.Ino))})
	}
	return nil
}

func (w *hostWork) mergeFolders(a, b int, name cname, p string) error {
	if strings.Count(p, "/") >= deepestMerge {
		return fmt.Errorf("the folders that are there lie more than %d deep", deepestMerge)
	}
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW
	fa, err := openat(a, name, flags, 0)
	if err != nil {
		return err
	}
	defer closeFD(fa)
	fb, err := openat(b, name, flags, 0)
	if err != nil {
		return err
	}
	defer closeFD(fb)
	return w.merge(fa, fb, p)
}

// mostCompared is how large a file may be to be compared; larger ones count as
// different.
const mostCompared = 4 << 20

// sameContent reports whether two entries say the same.
func sameContent(a, b int, name cname, sa, sb *unix.Stat_t) (bool, error) {
	if sa.Mode&unix.S_IFMT != sb.Mode&unix.S_IFMT || sa.Size != sb.Size {
		return false, nil
	}
	read := func(dir int) ([]byte, error) {
		if sa.Mode&unix.S_IFMT == unix.S_IFLNK {
			buf := make([]byte, unix.PathMax)
			n, err := unix.Readlinkat(dir, name.String(), buf)
			return buf[:max(n, 0)], err
		}
		fd, err := openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		f := os.NewFile(uintptr(fd), name.String())
		defer func() { _ = f.Close() }()
		var buf bytes.Buffer
		_, err = buf.ReadFrom(f)
		return buf.Bytes(), err
	}
	switch kind := sa.Mode & unix.S_IFMT; {
	case kind != unix.S_IFREG && kind != unix.S_IFLNK, sa.Size > mostCompared:
		return false, nil
	}
	x, err := read(a)
	if err != nil {
		return false, err
	}
	y, err := read(b)
	return bytes.Equal(x, y), err
}
