package volume

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/frame"
)

// VolumeArg names a volume in the arguments of tasks.
type VolumeArg struct {
	ID      string            `json:"id"`
	Path    string            `json:"path"`
	Exclude map[string]string `json:"exclude,omitempty"`
	Only    []string          `json:"only,omitempty"`
	// Bytes is what measure said, for progress.
	Bytes int64 `json:"bytes,omitempty"`
}

// volumeID is what may be part of a file name in transit.
var volumeID = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)

func (v VolumeArg) check() error {
	if !volumeID.MatchString(v.ID) || v.Path == "" {
		return usageError{fmt.Errorf("volume %q at %q: both must be set, the id in lower case", v.ID, v.Path)}
	}
	return nil
}

func (v VolumeArg) options() ReadOptions {
	return ReadOptions{Volume: v.ID, Exclude: v.Exclude, Only: v.Only}
}

// MeasureArgs are the arguments of the task measure.
type MeasureArgs struct {
	Volumes []VolumeArg `json:"volumes"`
	Transit string      `json:"transit,omitempty"`
}

// MeasureResult is what the task measure tells.
type MeasureResult struct {
	Done    bool                         `json:"done"`
	Volumes map[string]backup.VolumeSize `json:"volumes"`
	// TransitFree is -1 where there is no transit.
	TransitFree int64 `json:"transit_free"`
	// TransitDisk is what backup.DiskOf says of it.
	TransitDisk string `json:"transit_disk,omitempty"`
	// Rate is how many bytes are read and compressed in a second; 0 where it is not known.
	Rate int64 `json:"rate"`
}

func (h *helper) measure(ctx context.Context, args MeasureArgs) error {
	result := MeasureResult{Done: true, Volumes: map[string]backup.VolumeSize{}, TransitFree: -1}
	var roots []string
	var opts []ReadOptions
	for _, v := range args.Volumes {
		if err := v.check(); err != nil {
			return err
		}
		size, err := Measure(ctx, v.Path, v.options())
		if err != nil {
			return fmt.Errorf("measure volume %s: %w", v.ID, err)
		}
		result.Volumes[v.ID] = size
		roots, opts = append(roots, v.Path), append(opts, v.options())
	}
	if args.Transit != "" {
		free, err := freeSpace(args.Transit)
		if err != nil {
			return fmt.Errorf("ask for free space in %s: %w", args.Transit, err)
		}
		result.TransitFree, result.TransitDisk = free, backup.DiskOf(args.Transit)
	}
	result.Rate = probe(ctx, roots, opts)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return h.say(result)
}

// ReadArgs are the arguments of the task read.
type ReadArgs struct {
	Volumes []VolumeArg `json:"volumes"`
	// Transit is a folder, which is made where it is missing.
	Transit      string `json:"transit"`
	AllowMissing bool   `json:"allow_missing,omitempty"`
	Quiesced     bool   `json:"quiesced,omitempty"`
	// Reserve must stay free in transit.
	Reserve int64 `json:"reserve,omitempty"`
}

// VolumeRead is what the task read tells about one volume. All about it is in its file
// <id>.tree.json in transit, whose size and hash are in File.
type VolumeRead struct {
	Tree backup.Tree `json:"tree"` // without segments
	File backup.Blob `json:"file"`
	// Segments is how many there are, Packed their size.
	Segments int   `json:"segments"`
	Packed   int64 `json:"packed"`
}

// ReadResult is what the task read tells at its end.
type ReadResult struct {
	Done    bool                  `json:"done"`
	Volumes map[string]VolumeRead `json:"volumes"`
}

// ProgressLine is what tasks tell while they work.
type ProgressLine struct {
	Volume string `json:"volume,omitempty"`
	Bytes  int64  `json:"done"`
	Total  int64  `json:"total,omitempty"`
	Files  int64  `json:"files"`
}

func (h *helper) read(ctx context.Context, args ReadArgs) error {
	if args.Transit == "" {
		return usageError{errors.New("transit must be set")}
	}
	for _, v := range args.Volumes {
		if err := v.check(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(args.Transit, 0o700); err != nil {
		return fmt.Errorf("make transit folder: %w", err)
	}
	result := ReadResult{Done: true, Volumes: map[string]VolumeRead{}}
	for _, v := range args.Volumes {
		opts := v.options()
		opts.AllowMissing, opts.Quiesced = args.AllowMissing, args.Quiesced
		opts.Progress = h.progress(v.ID, v.Bytes)
		transit := NewTransit(args.Transit, v.ID, args.Reserve)
		tree, err := Read(ctx, v.Path, transit, opts)
		if tree == nil || err != nil && !errors.Is(err, ErrTorn) {
			transit.Wait()
			return fmt.Errorf("read volume %s: %w", v.ID, errors.Join(err, transit.failed()))
		}
		file, cerr := transit.Commit(tree)
		if err = errors.Join(err, cerr); err != nil {
			return fmt.Errorf("read volume %s: %w", v.ID, err)
		}
		result.Volumes[v.ID] = summary(tree, file)
	}
	return h.say(result)
}

func summary(tree *backup.Tree, file backup.Blob) VolumeRead {
	r := VolumeRead{Tree: *tree, File: file, Segments: len(tree.Segments)}
	r.Tree.Segments = []backup.Segment{}
	for _, s := range tree.Segments {
		r.Packed += s.Size
	}
	return r
}

// progress makes a function that tells progress. An error of stdout shows at the end.
func (h *helper) progress(volume string, total int64) func(Progress) {
	return func(p Progress) {
		_ = h.say(ProgressLine{Volume: volume, Bytes: p.Bytes, Total: total, Files: p.Files})
	}
}

// SendArgs are the arguments of the task send.
type SendArgs struct {
	Dir   string   `json:"dir"`
	Files []string `json:"files"`
}

func (h *helper) send(ctx context.Context, args SendArgs) error {
	root, err := os.OpenRoot(args.Dir)
	if err != nil {
		return err
	}
	defer closeQuietly(root)
	for _, name := range args.Files {
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { closeQuietly(f) })
		_, err = io.Copy(h.stdout, f)
		if stop() {
			closeQuietly(f)
		}
		if err != nil {
			return fmt.Errorf("send %s: %w", name, err)
		}
	}
	return nil
}

// WriteArgs are the arguments of the task write, and of copy.
type WriteArgs struct {
	Path       string   `json:"path,omitempty"`
	MaxEntries int64    `json:"max_entries,omitempty"`
	MaxBytes   int64    `json:"max_bytes,omitempty"`
	MaxStored  int64    `json:"max_stored,omitempty"`
	NoDevices  bool     `json:"no_devices,omitempty"`
	Strict     bool     `json:"strict,omitempty"`
	Labels     bool     `json:"labels,omitempty"`
	ChownMap   []string `json:"chown_map,omitempty"`
	// File says that the target is a single file.
	File bool `json:"file,omitempty"`
	// NoSums leaves out the hashes of the stream.
	NoSums bool `json:"no_sums,omitempty"`
	// Total is for progress.
	Total int64 `json:"total,omitempty"`
}

func (a WriteArgs) options() (WriteOptions, error) {
	opts := WriteOptions{
		MaxEntries: a.MaxEntries, MaxBytes: a.MaxBytes, MaxStored: a.MaxStored,
		NoDevices: a.NoDevices, Strict: a.Strict, Labels: a.Labels, File: a.File, NoSums: a.NoSums,
	}
	for _, text := range a.ChownMap {
		r, err := ParseIDRange(text)
		if err != nil {
			return opts, usageError{err}
		}
		opts.Map = append(opts.Map, r)
	}
	return opts, nil
}

// WriteResult is what the tasks write and copy tell at their end.
type WriteResult struct {
	Done bool `json:"done"`
	Result
}

// zstdMagic begins a zstd frame, or a skippable one with any last nibble of its first
// byte.
const (
	zstdMagic      = "\x28\xb5\x2f\xfd"
	skippableMagic = "\x2a\x4d\x18"
)

func (h *helper) write(ctx context.Context, args WriteArgs) error {
	opts, err := args.options()
	if err != nil {
		return err
	}
	if h.stdin == nil || args.Path == "" {
		return usageError{errors.New("path and data on stdin are needed")}
	}
	opts.Progress = h.progress("", args.Total)
	stdin, stop := interruptible(ctx, h.stdin)
	defer stop()
	in := bufio.NewReaderSize(stdin, 256<<10)
	var data io.Reader = in
	if magic, err := in.Peek(4); err == nil &&
		(string(magic) == zstdMagic || magic[0]&0xf0 == 0x50 && string(magic[1:]) == skippableMagic) {
		fr := frame.NewReader(in, 0)
		defer closeQuietly(fr)
		data = fr
	}
	result, err := Write(ctx, args.Path, data, opts)
	if err != nil {
		return err
	}
	if err := rest(data); err != nil {
		return err
	}
	return h.say(WriteResult{true, result})
}

// interruptible makes reads of r end when ctx does, or when stop is called. The read of
// r that is under way then goes on: that of a pipe ends with the process.
func interruptible(ctx context.Context, r io.Reader) (_ io.Reader, stop func()) {
	pr, pw := io.Pipe()
	go func() {
		_, err := io.CopyBuffer(pw, struct{ io.Reader }{r}, make([]byte, 256<<10))
		pw.CloseWithError(err)
	}()
	off := context.AfterFunc(ctx, func() { pr.CloseWithError(context.Cause(ctx)) })
	return pr, func() {
		off()
		pr.CloseWithError(errStopped)
	}
}

// rest reads what follows the end of a tar: zeros that fill up a block of tape, and the
// end of the compressed stream, which may turn out to be damaged.
func rest(r io.Reader) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if zeroPrefix(buf[:n]) < n {
			return errors.New("something follows the end of the data")
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the end of the data: %w", err)
		}
	}
}

// HashArgs are the arguments of the task hash.
type HashArgs struct {
	Path    string            `json:"path"`
	Exclude map[string]string `json:"exclude,omitempty"`
	Only    []string          `json:"only,omitempty"`
}

// HashResult is what the task hash tells.
type HashResult struct {
	Done bool `json:"done"`
	Sums
	Notes []backup.Note `json:"notes,omitempty"`
}

func (h *helper) hash(ctx context.Context, args HashArgs) error {
	sums, list, err := Hash(ctx, args.Path, ReadOptions{
		Exclude: args.Exclude, Only: args.Only, Progress: h.progress("", 0),
	})
	if err != nil {
		return err
	}
	return h.say(HashResult{Done: true, Sums: sums, Notes: list})
}

// CopyArgs are the arguments of the task copy.
type CopyArgs struct {
	From string `json:"from"`
	To   string `json:"to"`
	WriteArgs
}

func (h *helper) copy(ctx context.Context, args CopyArgs) error {
	opts, err := args.options()
	if err != nil {
		return err
	}
	from, to := filepath.Clean(args.From), filepath.Clean(args.To)
	if args.From == "" || args.To == "" || from == to || strings.HasPrefix(to+"/", from+"/") || strings.HasPrefix(from+"/", to+"/") {
		return usageError{fmt.Errorf("copy %q to %q: one must not be inside the other", args.From, args.To)}
	}
	opts.Progress = h.progress("", args.Total)
	result, err := Copy(ctx, args.From, args.To, ReadOptions{}, opts)
	if err != nil {
		return err
	}
	return h.say(WriteResult{true, result})
}
