package backuptest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/dentropy/dentropycloud/backup"
)

// Platform is a backup.Platform on an Engine.
type Platform struct {
	name   string
	engine *Engine

	// Step is called before each thing that is done: "list", "capture", "estimate",
	// "stop:<container>", "read:<volume>", "start:<container>", "segments", "index",
	// "images", "close", "plan", "fill:<volume>", "finish", "swap", "undo", "forget",
	// "recover", and "journal:<step>" after an entry is on disk. Its error is that thing's.
	// nil: all goes well.
	Step func(step string) error
	// Notes are added to the trees of all volumes.
	Notes []backup.Note
	// Downtime is what an estimate says. Default: 0.
	Downtime time.Duration
}

// NewPlatform makes a platform.
func NewPlatform(name string, engine *Engine) *Platform { return &Platform{name: name, engine: engine} }

func (p *Platform) step(ctx context.Context, name string) error {
	if p.Step != nil {
		if err := p.Step(name); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (p *Platform) append(ctx context.Context, j backup.Journal, step string, data any) error {
	if err := j.Append(step, data); err != nil {
		return err
	}
	return p.step(ctx, "journal:"+step)
}

// Name is the platform's name.
func (p *Platform) Name() string { return p.name }

// Apps lists the apps.
func (p *Platform) Apps(ctx context.Context) ([]backup.AppInfo, error) {
	if err := p.step(ctx, "list"); err != nil {
		return nil, err
	}
	var out []backup.AppInfo
	err := p.engine.change(func(w *world) error {
		for _, name := range slices.Sorted(maps.Keys(w.Apps)) {
			info := backup.AppInfo{Name: name, Kind: "container", Platform: p.name, Containers: []string{}, Volumes: []string{}}
			for _, c := range w.Apps[name].Containers {
				info.Containers = append(info.Containers, c.Name)
				info.Volumes = append(info.Volumes, c.Volumes...)
				if c.Running {
					info.Running++
				}
			}
			out = append(out, info)
		}
		return nil
	})
	return out, err
}

// Capture reads an app.
func (p *Platform) Capture(ctx context.Context, name string, _ backup.CaptureOptions) (*backup.App, error) {
	if err := p.step(ctx, "capture"); err != nil {
		return nil, err
	}
	a, err := p.engine.App(name)
	if err != nil {
		return nil, err
	}
	app := &backup.App{
		Name: name, Kind: "container", Platform: p.name, Format: "docker",
		Source: backup.Source{Engine: "memory", Arch: "amd64"}, Containers: []backup.Container{},
		Volumes: []backup.Volume{}, Networks: []backup.Network{}, Images: []backup.Image{},
	}
	for _, c := range a.Containers {
		env := []string{}
		for _, k := range slices.Sorted(maps.Keys(c.Env)) {
			env = append(env, k+"="+c.Env[k])
		}
		settings, err := json.Marshal(map[string]any{"Config": map[string]any{"Env": env}})
		if err != nil {
			return nil, err
		}
		out := backup.Container{ID: "id-" + c.Name, Name: c.Name, State: backup.Exited, Settings: settings, Quiesce: backup.Quiesce{Mode: backup.Stop}}
		if c.Running {
			out.State = backup.Running
		}
		for _, v := range c.Volumes {
			out.Mounts = append(out.Mounts, backup.Mount{Volume: v, Target: "/" + v})
			app.Volumes = append(app.Volumes, backup.Volume{ID: v, Kind: backup.Named, Name: v, Class: "data", Action: backup.Include})
		}
		app.Containers = append(app.Containers, out)
	}
	return app, nil
}

// Estimate measures an app's volumes.
func (p *Platform) Estimate(ctx context.Context, app *backup.App, _ backup.FreezeOptions) (*backup.Estimate, error) {
	if err := p.step(ctx, "estimate"); err != nil {
		return nil, err
	}
	est := &backup.Estimate{Volumes: map[string]backup.VolumeSize{}, Downtime: p.Downtime, TransitFree: 1 << 40}
	for _, v := range app.Volumes {
		files, err := p.engine.Files(v.Name)
		if err != nil {
			return nil, err
		}
		size := backup.VolumeSize{Files: int64(len(files))}
		for _, text := range files {
			size.Bytes += int64(len(text))
		}
		est.Volumes[v.ID] = size
		est.Bytes += size.Bytes
		est.Files += size.Files
	}
	for _, c := range slices.Backward(app.Containers) {
		if c.State == backup.Running {
			est.Stops = append(est.Stops, c.Name)
		}
	}
	return est, nil
}

// stopped is what the journal says before anything stops.
type stopped struct {
	App   string
	Names []string // in the order in which they start
}

// Freeze stops the app, copies its volumes into transit and starts it again.
func (p *Platform) Freeze(ctx context.Context, app *backup.App, est *backup.Estimate, opts backup.FreezeOptions, j backup.Journal) (frozen backup.Frozen, err error) {
	began := time.Now()
	todo := stopped{App: app.Name, Names: slices.Clone(est.Stops)}
	slices.Reverse(todo.Names)
	if err := p.append(ctx, j, "stop", todo); err != nil {
		return nil, err
	}
	if opts.Resting != nil {
		opts.Resting(&backup.Resting{Platform: p.name, App: app.Name, Containers: todo.Names, Why: "backup", Back: began.Add(est.Downtime)})
	}
	rep := backup.QuiesceReport{}
	defer func() {
		back := p.start(context.WithoutCancel(ctx), todo)
		if back != nil {
			err = errors.Join(err, fmt.Errorf("%w: %w", backup.ErrLeftStopped, back))
		} else if opts.Resting != nil {
			opts.Resting(nil)
		}
		if err != nil {
			frozen = nil
			_ = p.clear(j.Op())
			return
		}
		rep.Downtime = time.Since(began)
		frozen.(*memFrozen).report = rep
		if err = p.append(context.WithoutCancel(ctx), j, "started", nil); err != nil {
			frozen = nil
			_ = p.clear(j.Op())
		}
	}()
	for _, name := range est.Stops {
		if err := p.step(ctx, "stop:"+name); err != nil {
			return nil, err
		}
		if err := p.engine.setRunning(app.Name, name, false); err != nil {
			return nil, err
		}
		rep.Stopped = append(rep.Stopped, backup.StoppedContainer{Name: name, Mode: backup.Stop})
	}
	f := &memFrozen{p: p, op: j.Op(), trees: map[string]*backup.Tree{}, data: map[string]packed{}}
	for i := range app.Volumes {
		v := &app.Volumes[i]
		if err := p.read(ctx, f, v); err != nil {
			return nil, err
		}
		v.Consistency = "stopped"
	}
	return f, nil
}

// read copies one volume into transit.
func (p *Platform) read(ctx context.Context, f *memFrozen, v *backup.Volume) error {
	if err := p.step(ctx, "read:"+v.Name); err != nil {
		return err
	}
	var files Files
	err := p.engine.change(func(w *world) error {
		files = w.Volumes[v.Name]
		if w.Transit[f.op] == nil {
			w.Transit[f.op] = map[string]Files{}
		}
		w.Transit[f.op][v.Name] = files
		return nil
	})
	if err != nil {
		return err
	}
	t, data, err := pack(v.ID, files)
	if err != nil {
		return err
	}
	t.Notes = p.Notes
	f.trees[v.ID], f.data[v.ID] = t, data
	return nil
}

func (p *Platform) start(ctx context.Context, todo stopped) error {
	for _, name := range todo.Names {
		if err := p.step(ctx, "start:"+name); err != nil {
			return err
		}
		if err := p.engine.setRunning(todo.App, name, true); err != nil {
			return err
		}
	}
	return nil
}

func (p *Platform) clear(op string) error {
	return p.engine.change(func(w *world) error { delete(w.Transit, op); return nil })
}

// memFrozen is the data of an app in transit.
type memFrozen struct {
	p      *Platform
	op     string
	trees  map[string]*backup.Tree
	data   map[string]packed
	report backup.QuiesceReport
}

func (f *memFrozen) Trees() map[string]*backup.Tree { return f.trees }
func (f *memFrozen) Report() backup.QuiesceReport   { return f.report }

func (f *memFrozen) Segments(ctx context.Context, volume string) (io.ReadCloser, error) {
	if err := f.p.step(ctx, "segments"); err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(f.data[volume].segments)), nil
}

func (f *memFrozen) Index(ctx context.Context, volume string) (io.ReadCloser, error) {
	if err := f.p.step(ctx, "index"); err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(f.data[volume].index)), nil
}

func (f *memFrozen) Images(ctx context.Context) (io.ReadCloser, error) {
	if err := f.p.step(ctx, "images"); err != nil {
		return nil, err
	}
	return nil, fs.ErrNotExist
}

func (f *memFrozen) Close(ctx context.Context) error {
	if err := f.p.step(ctx, "close"); err != nil {
		return err
	}
	return f.p.clear(f.op)
}

// Interface guards
var (
	_ backup.Platform = (*Platform)(nil)
	_ backup.Frozen   = (*memFrozen)(nil)
)
