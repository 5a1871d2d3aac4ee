package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/dentropy/dentropycloud/backup"
)

// volumeArg is a volume in the arguments of the helper's tasks.
type volumeArg struct {
	ID      string            `json:"id"`
	Path    string            `json:"path"`
	Exclude map[string]string `json:"exclude,omitempty"`
	Only    []string          `json:"only,omitempty"`
	Bytes   int64             `json:"bytes,omitempty"`
}

// helperVolumes are volumes for a helper, and where it finds them.
func helperVolumes(volumes []*backup.Volume, est *backup.Estimate) (args []volumeArg, mounts []helperMount) {
	for _, v := range volumes {
		a := volumeArg{ID: v.ID, Path: volumeRoot + v.ID, Exclude: v.Exclude, Only: v.Only}
		if est != nil {
			a.Bytes = est.Volumes[v.ID].Bytes
		}
		m := helperMount{target: a.Path}
		if v.Kind == backup.Named || v.Kind == backup.Anonymous {
			m.volume = v.Name
		} else {
			m.bind = v.Name
		}
		args, mounts = append(args, a), append(mounts, m)
	}
	return args, mounts
}

// readVolumes reads volumes into transit: first those that nobody writes to, for which a
// change is an error.
func (f *freeze) readVolumes(ctx context.Context, volumes []*backup.Volume) error {
	var quiet, busy []*backup.Volume
	for _, v := range volumes {
		still := v.Consistency == "stopped" || v.Consistency == "paused"
		if still && len(v.UsedBy) == 0 && !f.opts.AllowMissing {
			quiet = append(quiet, v)
		} else {
			busy = append(busy, v)
		}
	}
	for _, part := range []struct {
		list  []*backup.Volume
		quiet bool
	}{{quiet, true}, {busy, false}} {
		if len(part.list) == 0 {
			continue
		}
		if err := f.readSome(ctx, part.list, part.quiet); err != nil {
			return err
		}
	}
	return nil
}

func (f *freeze) readSome(ctx context.Context, volumes []*backup.Volume, quiet bool) error {
	args, mounts := helperVolumes(volumes, f.est)
	var total int64
	if f.est != nil {
		total = f.est.Bytes
	}
	names := map[string]string{}
	var most int64 // of all volumes so far, since the helper counts each by itself
	sum := f.read
	done := map[string]int64{}
	for _, v := range volumes {
		names[v.ID] = v.Name
	}
	err := f.p.runHelper(ctx, helperTask{
		op: f.j.Op(), name: "read", caps: readCaps, mounts: append(mounts, f.p.transitMount(true)),
		input: map[string]any{
			"volumes": args, "transit": f.dir, "allow_missing": f.opts.AllowMissing, "quiesced": quiet, "reserve": int64(transitReserve),
		},
		detached: true,
		line: func(line []byte) {
			var l struct {
				Volume string `json:"volume"`
				progressLine
			}
			if json.Unmarshal(line, &l) != nil {
				return
			}
			n, ok := l.bytes()
			if !ok {
				return
			}
			sum += n - done[l.Volume]
			done[l.Volume] = n
			most = max(most, sum)
			f.opts.Report(backup.Progress{Phase: "read", Text: names[l.Volume], Done: most, Total: max(total, most), Files: l.Files})
		},
	})
	f.read = max(f.read, most)
	if err != nil {
		return fmt.Errorf("read the data: %w", err)
	}
	return nil
}

// thaw gives what was read. The app runs again.
func (f *freeze) thaw(ctx context.Context) (*frozen, error) {
	f.opts.Report(backup.Progress{Phase: "clean"})
	z := &frozen{f: f, trees: map[string]*backup.Tree{}}
	if err := f.fetchTrees(ctx, append(f.atRest(), f.running()...), z.trees); err != nil {
		return nil, err
	}
	if f.opts.TempDir != "" {
		z.imageDir = filepath.Join(f.opts.TempDir, "images")
	}
	for i := range f.app.Containers {
		c := &f.app.Containers[i]
		if c.Layer.ImageID == "" {
			continue
		}
		im, err := f.p.layerImage(ctx, c, f.layerRef(c))
		if err != nil {
			return nil, err
		}
		f.app.Images = append(f.app.Images, im)
	}
	return z, nil
}

// mostTrees bounds the trees of an app in JSON: that of 10 TB has some 150,000 segments.
const mostTrees = 512 << 20

// fetchTrees gets what the helper has taken down about volumes that it read.
func (f *freeze) fetchTrees(ctx context.Context, volumes []*backup.Volume, trees map[string]*backup.Tree) error {
	if len(volumes) == 0 {
		return nil
	}
	files := []string{}
	for _, v := range volumes {
		files = append(files, v.ID+".tree.json")
	}
	out := &limitedBuffer{most: mostTrees}
	err := f.p.runHelper(ctx, helperTask{
		op: f.j.Op(), name: "send", mounts: []helperMount{f.p.transitMount(false)}, stdout: out,
		input: map[string]any{"dir": f.dir, "files": files},
	})
	if err != nil {
		return fmt.Errorf("read what was read: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(out.b)) // they follow each other
	for _, v := range volumes {
		var tree backup.Tree
		if err := dec.Decode(&tree); err != nil {
			return fmt.Errorf("read what was read of %s: %w", v.Name, err)
		}
		if tree.Volume != v.ID {
			return fmt.Errorf("read what was read of %s: it is of %q", v.Name, tree.Volume)
		}
		trees[v.ID] = &tree
	}
	return nil
}

// limitedBuffer keeps what is written to it, up to a limit.
type limitedBuffer struct {
	b    []byte
	most int
}

func (l *limitedBuffer) Write(p []byte) (int, error) {
	if len(l.b)+len(p) > l.most {
		return 0, errors.New("the helper's answer is too long")
	}
	l.b = append(l.b, p...)
	return len(p), nil
}

func ignoreNotFound(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
