package volume

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// dataFolder is what the engine calls the folder of a volume's data.
const dataFolder = "_data"

// SwapArgs are the arguments of the task swap.
type SwapArgs struct {
	Root string `json:"root"`
	A    string `json:"a"`
	B    string `json:"b"`
}

// InodeArgs are the arguments of the task inode.
type InodeArgs struct {
	Root  string   `json:"root"`
	Names []string `json:"names"`
}

// InodeResult is what the tasks swap and inode tell: the inodes of the volumes' data
// folders, 0 where there is none.
type InodeResult struct {
	Done   bool              `json:"done"`
	Inodes map[string]uint64 `json:"inodes"`
}

// openVolume opens the folder of a volume.
func openVolume(root, name string) (int, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return -1, usageError{fmt.Errorf("volume %q: that is no name of a volume", name)}
	}
	dir, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", root, err)
	}
	defer closeFD(dir)
	fd, err := openat(dir, toCname(name), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, fmt.Errorf("open volume %q: %w", name, err)
	}
	return fd, nil
}

// swap exchanges the data of two volumes in one step.
func (h *helper) swap(ctx context.Context, args SwapArgs) error {
	a, err := openVolume(args.Root, args.A)
	if err != nil {
		return err
	}
	defer closeFD(a)
	b, err := openVolume(args.Root, args.B)
	if err != nil {
		return err
	}
	defer closeFD(b)
	if args.A == args.B {
		return usageError{errors.New("swap a volume with itself")}
	}
	for _, dir := range []int{a, b} {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, dataFolder, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("look at the data of a volume: %w", err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return errors.New("swap volumes: the data of one is no folder")
		}
	}
	if err := unix.Renameat2(a, dataFolder, b, dataFolder, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("swap the data of volumes %q and %q: %w", args.A, args.B, err)
	}
	for _, dir := range []int{a, b} {
		if err := unix.Fsync(dir); err != nil {
			return fmt.Errorf("bring the swap of volumes to disk: %w", err)
		}
	}
	return h.inode(ctx, InodeArgs{Root: args.Root, Names: []string{args.A, args.B}})
}

// inode tells which data folder is which.
func (h *helper) inode(_ context.Context, args InodeArgs) error {
	result := InodeResult{Done: true, Inodes: map[string]uint64{}}
	for _, name := range args.Names {
		ino, err := inodeOf(args.Root, name)
		if err != nil {
			return err
		}
		result.Inodes[name] = ino
	}
	return h.say(result)
}

func inodeOf(root, name string) (uint64, error) {
	dir, err := openVolume(root, name)
	if errors.Is(err, unix.ENOENT) {
		if _, err := os.Stat(root); err != nil {
			return 0, err
		}
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer closeFD(dir)
	var st unix.Stat_t
	err = unix.Fstatat(dir, dataFolder, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look at the data of volume %q: %w", name, err)
	}
	return uint64(widen(st.Ino)), nil
}

// DirArgs are the arguments of the tasks clean and list.
type DirArgs struct {
	Dir string `json:"dir"`
}

// below gives dir relative to the transit volume; "" is the volume itself.
func (h *helper) below(dir string) (string, error) {
	clean := filepath.Clean(dir)
	if clean == h.transit {
		return "", nil
	}
	rel, ok := strings.CutPrefix(clean, h.transit+"/")
	if !ok || strings.Contains(dir, "..") {
		return "", usageError{fmt.Errorf("folder %q: it is not below %s", dir, h.transit)}
	}
	return rel, nil
}

// clean removes a folder in transit.
func (h *helper) clean(_ context.Context, args DirArgs) error {
	rel, err := h.below(args.Dir)
	if err != nil {
		return err
	}
	if rel == "" {
		return usageError{fmt.Errorf("folder %q: the transit volume itself stays", args.Dir)}
	}
	root, err := os.OpenRoot(h.transit)
	if err != nil {
		return err
	}
	defer closeQuietly(root)
	if err := root.RemoveAll(rel); err != nil {
		return fmt.Errorf("clean transit: %w", err)
	}
	return h.say(map[string]bool{"done": true})
}

// ListedFile is one file that the task list tells of.
type ListedFile struct {
	Name     string    `json:"name"`
	Size     int64     `json:"size"`
	Dir      bool      `json:"dir,omitempty"`
	Modified time.Time `json:"modified"`
}

// ListResult is what the task list tells. A folder that is missing holds nothing, and
// Missing says so.
type ListResult struct {
	Done    bool         `json:"done"`
	Missing bool         `json:"missing,omitempty"`
	Files   []ListedFile `json:"files"`
}

func (h *helper) list(_ context.Context, args DirArgs) error {
	rel, err := h.below(args.Dir)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(h.transit)
	if err != nil {
		return err
	}
	defer closeQuietly(root)
	if rel == "" {
		rel = "."
	}
	result := ListResult{Done: true, Files: []ListedFile{}}
	dir, err := root.Open(rel)
	if errors.Is(err, os.ErrNotExist) {
		result.Missing = true
		return h.say(result)
	}
	if err != nil {
		return err
	}
	defer closeQuietly(dir)
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		result.Files = append(result.Files, ListedFile{e.Name(), info.Size(), info.IsDir(), info.ModTime().UTC()})
	}
	return h.say(result)
}

// PathArgs are the arguments of the task empty.
type PathArgs struct {
	Path string `json:"path"`
}

// EmptyResult is what the task empty tells.
type EmptyResult struct {
	Done  bool `json:"done"`
	Empty bool `json:"empty"`
}

func (h *helper) empty(_ context.Context, args PathArgs) error {
	fd, err := unix.Open(args.Path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", args.Path, err)
	}
	defer closeFD(fd)
	empty, err := emptyFolder(fd)
	if err != nil {
		return fmt.Errorf("list %s: %w", args.Path, err)
	}
	return h.say(EmptyResult{true, empty})
}

// serverName is the host of a header "Host", without its port.
func serverName(header string) string {
	if host, _, err := net.SplitHostPort(header); err == nil {
		return host
	}
	return strings.Trim(header, "[]")
}

// GetArgs are the arguments of the task get.
type GetArgs struct {
	URL        string `json:"url"`
	HostHeader string `json:"host_header,omitempty"`
	// Timeout as Go writes durations. Default: 10s.
	Timeout string `json:"timeout,omitempty"`
}

// GetResult is what the task get tells.
type GetResult struct {
	Done   bool `json:"done"`
	Status int  `json:"status"`
}

// get makes one request, to see whether something answers. Nothing secret is sent, so
// the certificate of the other side does not matter.
func (h *helper) get(ctx context.Context, args GetArgs) error {
	timeout := 10 * time.Second
	if args.Timeout != "" {
		var err error
		if timeout, err = time.ParseDuration(args.Timeout); err != nil || timeout <= 0 {
			return usageError{fmt.Errorf("timeout %q: want a duration like 5s", args.Timeout)}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, args.URL, nil)
	if err != nil {
		return usageError{err}
	}
	req.Host = args.HostHeader
	name := serverName(args.HostHeader)
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ServerName: name}, //nolint:gosec // see above
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	// A body that breaks off is the answer of a server that does not work.
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return h.say(GetResult{true, resp.StatusCode})
}
