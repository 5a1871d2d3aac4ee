package self

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/volume"
)

const (
	// Name is the platform's.
	Name = "self"
	// AppName is that of its only app.
	AppName = "dentropy"
	// Format is the shape of the app's settings: it has none.
	Format = "dentropy"
	// volumeID is the only volume's.
	volumeID = "data"
)

// Names in the data folder while and after something is restored; an operation's id
// follows.
const (
	newPrefix    = ".restore-" // what is being filled
	beforePrefix = ".before-"  // what was there, for an undo
	goneSuffix   = ".gone"     // behind that: all that is left to do is to remove it
)

// Options say where this program's state is.
type Options struct {
	// Data is the data folder.
	Data string
	// Dir is the folder of backup's own state: backup.Config.Dir.
	Dir string
	// Lock is the file that is locked while a dentropy runs on Data. "": none is.
	Lock string
	// Avoid are folders that do not belong to the state: those of stores.
	Avoid []string
}

// Platform has one app: this program's state.
type Platform struct{ opts Options }

// New makes the platform. It touches nothing.
func New(opts Options) *Platform { return &Platform{opts: opts} }

// Name is "self".
func (p *Platform) Name() string { return Name }

// Format says which apps can be restored here.
func (p *Platform) Format() string { return Format }

// Apps lists the one app.
func (p *Platform) Apps(context.Context) ([]backup.AppInfo, error) {
	if _, err := os.Stat(p.opts.Data); errors.Is(err, fs.ErrNotExist) {
		return nil, nil // nothing has been kept yet
	}
	return []backup.AppInfo{{
		Name: AppName, Kind: "self", Platform: Name, Containers: []string{}, Volumes: []string{p.opts.Data}, Self: true,
	}}, nil
}

// Capture gives the one app.
func (p *Platform) Capture(_ context.Context, app string, _ backup.CaptureOptions) (*backup.App, error) {
	if app != AppName {
		return nil, &backup.Problem{Message: fmt.Sprintf("there is no app %q", app), Hint: "dentropy apps lists them", Object: app, Err: fs.ErrNotExist}
	}
	if _, err := os.Stat(p.opts.Data); err != nil {
		return nil, fmt.Errorf("look at the data folder: %w", err)
	}
	exclude, err := p.exclude()
	if err != nil {
		return nil, err
	}
	var warnings []string
	if rel, err := filepath.Rel(p.opts.Data, p.opts.Dir); err != nil || !filepath.IsLocal(rel) {
		warnings = append(warnings, "the folder "+p.opts.Dir+" with the key and the records of backups is outside the data folder, and not part of this")
	}
	return &backup.App{
		Warnings: warnings,
		Name:     AppName, Kind: "self", Platform: Name, Format: Format, Self: true,
		Source:     backup.Source{Engine: "dentropy", OS: runtime.GOOS, Arch: runtime.GOARCH},
		Containers: []backup.Container{}, Networks: []backup.Network{}, Images: []backup.Image{},
		Volumes: []backup.Volume{{
			ID: volumeID, Kind: backup.Bind, Name: p.opts.Data, Class: "data", Action: backup.Include,
			Reason: "the data folder of dentropy", Exclude: exclude,
		}},
	}, nil
}

// exclude are the paths in the data folder that are not part of the state.
func (p *Platform) exclude() (map[string]string, error) {
	out := map[string]string{"locks": "locks of running processes"}
	put := func(path, reason string) {
		rel, err := filepath.Rel(p.opts.Data, path)
		if err == nil && filepath.IsLocal(rel) && rel != "." {
			out[filepath.ToSlash(rel)] = reason
		}
	}
	for _, name := range []string{"journal", "locks", "tmp"} {
		put(filepath.Join(p.opts.Dir, name), "belongs to running operations")
	}
	put(filepath.Join(p.opts.Dir, "undo"), "what is kept on the engines of this machine")
	if p.opts.Lock != "" {
		put(p.opts.Lock, "lock of the running process")
	}
	for _, dir := range p.opts.Avoid {
		put(dir, "holds archives")
	}
	list, err := os.ReadDir(p.opts.Data)
	if err != nil {
		return nil, fmt.Errorf("read the data folder: %w", err)
	}
	for _, e := range list {
		if strings.HasPrefix(e.Name(), newPrefix) || strings.HasPrefix(e.Name(), beforePrefix) {
			out[e.Name()] = "kept for an undo"
		}
	}
	return out, nil
}

// Estimate measures the data folder, and checks that what is read of it can wait.
func (p *Platform) Estimate(ctx context.Context, app *backup.App, opts backup.FreezeOptions) (*backup.Estimate, error) {
	est := &backup.Estimate{Volumes: map[string]backup.VolumeSize{}, Basis: "nothing stops"}
	for _, v := range app.Volumes {
		var size backup.VolumeSize
		err := filepath.WalkDir(v.Name, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // it changes while we look
			}
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(v.Name, path)
			if err != nil {
				return err
			}
			if _, out := v.Exclude[filepath.ToSlash(rel)]; out {
				if d.IsDir() {
					return fs.SkipDir
				}
				return nil
			}
			size.Files++
			if fi, err := d.Info(); err == nil && fi.Mode().IsRegular() {
				size.Bytes += fi.Size()
			}
			return ctx.Err()
		})
		if err != nil {
			return nil, fmt.Errorf("measure the data folder: %w", err)
		}
		est.Volumes[v.ID] = size
		est.Bytes += size.Bytes
		est.Files += size.Files
	}
	return est, room(est, opts.TempDir)
}

// room checks the space of the transit folder.
func room(est *backup.Estimate, dir string) error {
	const (
		perFile = 1 << 10 // headers of small files are longer than what is in them
		spare   = 64 << 20
	)
	if dir == "" {
		return nil
	}
	data := est.Bytes + est.Files*perFile
	est.Beside = map[string]int64{backup.DiskOf(dir): data}
	free, ok := backup.FreeSpace(dir)
	if !ok {
		return nil
	}
	est.TransitFree = free
	if free >= data+spare {
		return nil
	}
	return &backup.Problem{
		Message: fmt.Sprintf("%s has %s left, and this backup may need %s there until its archive is complete", dir, backup.FormatBytes(free), backup.FormatBytes(data+spare)),
		Hint:    "make room there", Object: dir,
	}
}

// Freeze reads the data folder while the program runs on.
func (p *Platform) Freeze(ctx context.Context, app *backup.App, _ *backup.Estimate, opts backup.FreezeOptions, _ backup.Journal) (backup.Frozen, error) {
	if opts.TempDir == "" {
		return nil, errors.New("freeze: no folder for temporary files is given")
	}
	dir, err := os.MkdirTemp(opts.TempDir, "transit-")
	if err != nil {
		return nil, fmt.Errorf("freeze: %w", err)
	}
	f := &frozen{dir: dir, trees: map[string]*backup.Tree{}}
	for i := range app.Volumes {
		v := &app.Volumes[i]
		v.Consistency = "hot"
		tree, err := volume.Read(ctx, v.Name, transit{dir, v.ID}, volume.ReadOptions{
			Volume: v.ID, Exclude: v.Exclude, AllowMissing: opts.AllowMissing,
			Progress: func(at volume.Progress) {
				if opts.Report != nil {
					opts.Report(backup.Progress{Phase: "read", Text: v.Name, Done: at.Bytes, Files: at.Files})
				}
			},
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("read %s: %w", v.Name, err), f.Close(ctx))
		}
		f.trees[v.ID] = tree
	}
	return f, nil
}

// transit is where what was read waits.
type transit struct{ dir, volume string }

func (t transit) Segment(n int) (io.WriteCloser, error) {
	return os.OpenFile(t.segment(n), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

func (t transit) segment(n int) string {
	return filepath.Join(t.dir, fmt.Sprintf("%s.%05d", t.volume, n))
}

func (t transit) Index() (io.WriteCloser, error) {
	return os.OpenFile(t.index(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

func (t transit) index() string { return filepath.Join(t.dir, t.volume+".index") }

// frozen is the data in transit.
type frozen struct {
	dir   string
	trees map[string]*backup.Tree
}

func (f *frozen) Trees() map[string]*backup.Tree { return f.trees }

func (f *frozen) Report() backup.QuiesceReport { return backup.QuiesceReport{} }

func (f *frozen) Segments(_ context.Context, id string) (io.ReadCloser, error) {
	t := f.trees[id]
	if t == nil {
		return nil, fmt.Errorf("volume %q: %w", id, fs.ErrNotExist)
	}
	return &segments{at: transit{f.dir, id}, left: len(t.Segments)}, nil
}

func (f *frozen) Index(_ context.Context, id string) (io.ReadCloser, error) {
	return os.Open(transit{f.dir, id}.index())
}

func (f *frozen) Images(context.Context) (io.ReadCloser, error) { return nil, fs.ErrNotExist }

func (f *frozen) Close(context.Context) error { return os.RemoveAll(f.dir) }

// segments reads the segments of a volume, one after the other.
type segments struct {
	at   transit
	next int
	left int
	f    *os.File
}

func (s *segments) Read(b []byte) (int, error) {
	for {
		if s.f == nil {
			if s.left == 0 {
				return 0, io.EOF
			}
			f, err := os.Open(s.at.segment(s.next))
			if err != nil {
				return 0, err
			}
			s.f = f
			s.next++
			s.left--
		}
		n, err := s.f.Read(b)
		if n > 0 || err == nil {
			return n, nil
		}
		_ = s.f.Close()
		s.f = nil
		if !errors.Is(err, io.EOF) {
			return 0, err
		}
	}
}

func (s *segments) Close() error {
	if s.f == nil {
		return nil
	}
	return s.f.Close()
}

// Forget removes what is kept for an undo.
func (p *Platform) Forget(_ context.Context, u *backup.Undo) error {
	d, err := p.detail(u)
	if err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(p.opts.Data, beforePrefix+d.Op))
}

// now is when something was done, in an undo record.
func now() time.Time { return time.Now().UTC() }

// Interface guards
var (
	_ backup.Platform = (*Platform)(nil)
	_ backup.Frozen   = (*frozen)(nil)
	_ volume.Sink     = transit{}
)
