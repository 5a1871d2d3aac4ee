package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dentropy/dentropycloud/backup"
)

const (
	// Reserve is what Check wants to be free beside what is needed: other programs write
	// to the disk too, and a full one hurts them all.
	Reserve = 64 << 20

	partialPrefix = "."
	partialSuffix = ".partial"
)

// Store keeps archives in a folder.
type Store struct {
	dir string
}

var _ backup.Store = (*Store)(nil)

// New gives the store of a folder, which is made when it is first needed.
func New(dir string) (*Store, error) {
	if dir == "" {
		return nil, errors.New("open the store: the folder has no name")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	return &Store{dir: abs}, nil
}

// String is the folder.
func (s *Store) String() string { return s.dir }

// Dir is the folder.
func (s *Store) Dir() string { return s.dir }

// Disk is the file system that the folder is on, or will be; see backup.DiskOf.
func (s *Store) Disk() string {
	for dir := s.dir; ; dir = filepath.Dir(dir) {
		if disk := backup.DiskOf(dir); disk != "" || dir == filepath.Dir(dir) {
			return disk
		}
	}
}

// root opens the folder; make makes it first.
func (s *Store) root(mk bool) (*os.Root, error) {
	if mk {
		if err := backup.MakeFolder(s.dir); err != nil {
			return nil, explain(fmt.Errorf("make the folder of archives: %w", err))
		}
	}
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return nil, fmt.Errorf("open the folder of archives: %w", err)
	}
	return root, nil
}

// checkName refuses what is no archive's name.
func checkName(name string) error {
	if _, err := backup.ParseArchiveName(name); err != nil {
		return err
	}
	return nil
}

// Check proves that the folder can be written, and that need more bytes fit. It removes
// what dead processes left.
func (s *Store) Check(ctx context.Context, need int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	root, err := s.root(true)
	if err != nil {
		return err
	}
	defer closeRead(root)
	removeDead(root)
	name := partialPrefix + "check-" + suffix() + partialSuffix
	f, err := createLocked(root, name)
	if err != nil {
		return fmt.Errorf("try to write to %s: %w", s.dir, explain(err))
	}
	_, err = f.Write(make([]byte, 4096))
	err = errors.Join(err, f.Sync(), root.Remove(name), f.Close())
	if err != nil {
		return fmt.Errorf("try to write to %s: %w", s.dir, explain(err))
	}
	return s.checkSpace(need)
}

// checkSpace holds the free space against what is needed.
func (s *Store) checkSpace(need int64) error {
	free, ok := backup.FreeSpace(s.dir)
	if !ok || need <= 0 && free >= Reserve || free-Reserve >= need {
		return nil
	}
	return &backup.Problem{
		Message: fmt.Sprintf("%s has %s free, and the archive may need %s and %s to spare", s.dir, backup.FormatBytes(free), backup.FormatBytes(need), backup.FormatBytes(Reserve)),
		Hint:    "remove old archives, or use another folder",
		Object:  s.dir, Err: errNoSpace,
	}
}

// Create begins an archive.
func (s *Store) Create(ctx context.Context, name string) (backup.Upload, error) {
	if err := errors.Join(ctx.Err(), checkName(name)); err != nil {
		return nil, err
	}
	root, err := s.root(true)
	if err != nil {
		return nil, err
	}
	removeDead(root)
	if _, err := root.Lstat(name); err == nil {
		return nil, errors.Join(fmt.Errorf("create %s: %w", name, fs.ErrExist), root.Close())
	}
	partial := partialPrefix + name + partialSuffix
	f, err := createLocked(root, partial)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create %s: %w", name, explain(err)), root.Close())
	}
	return &upload{ctx: ctx, dir: s.dir, root: root, f: f, partial: partial, name: name}, nil
}

// Open reads an archive.
func (s *Store) Open(ctx context.Context, name string) (backup.Object, error) {
	if err := errors.Join(ctx.Err(), checkName(name)); err != nil {
		return nil, err
	}
	root, err := s.root(false)
	if err != nil {
		return nil, err
	}
	defer closeRead(root)
	info, err := root.Lstat(name)
	if err != nil {
		return nil, fmt.Errorf("open the archive: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("open the archive: %s is no file: %w", name, fs.ErrNotExist)
	}
	f, err := openFile(root, name)
	if err != nil {
		return nil, fmt.Errorf("open the archive: %w", err)
	}
	if now, err := f.Stat(); err != nil || !os.SameFile(info, now) {
		return nil, errors.Join(fmt.Errorf("open the archive: %s was replaced meanwhile", name), err, f.Close())
	}
	return &object{File: f, ctx: ctx, size: info.Size()}, nil
}

// object is an archive that is being read.
type object struct {
	*os.File
	ctx  context.Context // for its lifetime: io.Reader has none
	size int64
}

func (o *object) Size() int64 { return o.size }

func (o *object) Read(p []byte) (int, error) {
	if err := o.ctx.Err(); err != nil {
		return 0, err
	}
	return o.File.Read(p)
}

func (o *object) ReadAt(p []byte, off int64) (int, error) {
	if err := o.ctx.Err(); err != nil {
		return 0, err
	}
	return o.File.ReadAt(p, off)
}

// closeRead closes what nothing was written to.
func closeRead(c io.Closer) { _ = c.Close() }

// List gives the archives. A folder that is not there has none.
func (s *Store) List(ctx context.Context) ([]backup.Entity, error) {
	out := []backup.Entity{}
	entries, err := os.ReadDir(s.dir) // sorted by name
	if errors.Is(err, fs.ErrNotExist) {
		return out, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("list the archives: %w", err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if checkName(e.Name()) != nil || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("list the archives: %w", err)
		}
		out = append(out, backup.Entity{Name: e.Name(), Size: info.Size(), Modified: info.ModTime()})
	}
	return out, nil
}

// Remove deletes an archive.
func (s *Store) Remove(ctx context.Context, name string) error {
	if err := errors.Join(ctx.Err(), checkName(name)); err != nil {
		return err
	}
	root, err := s.root(false)
	if err != nil {
		return err
	}
	defer closeRead(root)
	info, err := root.Lstat(name)
	if err == nil && info.IsDir() {
		err = fs.ErrNotExist
	}
	if err == nil {
		err = root.Remove(name)
	}
	if err != nil {
		return fmt.Errorf("remove the archive: %w", err)
	}
	return syncRoot(root)
}

// removeDead removes the unfinished archives of processes that are gone.
func removeDead(root *os.Root) {
	dir, err := root.Open(".")
	if err != nil {
		return
	}
	defer closeRead(dir)
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return
	}
	for _, name := range names {
		inner, ok := strings.CutSuffix(strings.TrimPrefix(name, partialPrefix), partialSuffix)
		if !ok || !strings.HasPrefix(name, partialPrefix) || !strings.HasPrefix(inner, "check-") && checkName(inner) != nil {
			continue
		}
		removeIfDead(root, name)
	}
}
