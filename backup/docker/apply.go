package docker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/docker/docker/api/types/system"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// archive is the source of a restore: what of backup.Reader it uses. All data is held
// against its hash by the time Next is called again.
type archive interface {
	Manifest() *backup.Manifest
	App() (*backup.App, error)
	Next() (*backup.Member, error)
	io.Reader
	// Finish reads what is left, and returns nil only for a complete and undamaged archive.
	Finish(ctx context.Context) error
}

var _ archive = (*backup.Reader)(nil)

// labelRestore is the operation that made a volume or a network. Only what has it is
// ever removed.
const labelRestore = "dentropy.backup.restore"

// rollbackTimeout bounds taking a restore back where nobody waits any more.
const rollbackTimeout = 15 * time.Minute

// restore is one restore at work.
type restore struct {
	p    *Platform
	plan *backup.Plan
	d    *detail
	app  *backup.App
	m    *backup.Manifest
	in   archive
	opts backup.ApplyOptions
	c    *changeover

	api  string // version
	root string // where the engine keeps volumes
	// images are ids on this engine, by ids in the archive.
	images map[string]string
	total  int64 // bytes that will be filled
}

// Apply implements backup.Platform.
func (p *Platform) Apply(ctx context.Context, plan *backup.Plan, in *backup.Reader, opts backup.ApplyOptions, j backup.Journal) (*backup.Undo, error) {
	return p.apply(ctx, plan, in, opts, j)
}

func (p *Platform) apply(ctx context.Context, plan *backup.Plan, in archive, opts backup.ApplyOptions, j backup.Journal) (*backup.Undo, error) {
	r, err := p.newRestore(plan, in, opts, j)
	if err != nil {
		return nil, err
	}
	defer r.c.leaveGuard(ctx) // where it panics; else there is none by then
	undo, err := r.run(ctx)
	if err == nil {
		return undo, nil
	}
	// Whatever was done is taken back, whether or not anybody waits for it.
	r.opts.Report(backup.Progress{Phase: "rollback"})
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	if rerr := r.c.rollBack(back); rerr != nil {
		return nil, errors.Join(err, rerr)
	}
	return nil, asBefore(err)
}

// asBefore says of an error that what had been done was taken back.
func asBefore(err error) error {
	const text = "everything is as it was before"
	if p, ok := err.(*backup.Problem); ok { //nolint:errorlint // one that is wrapped keeps its words
		q := *p
		q.Message += "; " + text
		return &q
	}
	return fmt.Errorf("%w; %s", err, text)
}

// newRestore begins a restore, and touches nothing.
func (p *Platform) newRestore(plan *backup.Plan, in archive, opts backup.ApplyOptions, j backup.Journal) (*restore, error) {
	if opts.Report == nil {
		opts.Report = func(backup.Progress) {}
	}
	if opts.Resting == nil {
		opts.Resting = func(*backup.Resting) {}
	}
	opts.HealthTimeout = cmp.Or(opts.HealthTimeout, healthTimeout)
	r := &restore{p: p, plan: plan, d: new(detail), in: in, m: in.Manifest(), opts: opts, images: map[string]string{}}
	if !plan.Ready() {
		return nil, &backup.NotReadyError{Plan: plan}
	}
	if err := json.Unmarshal(plan.Detail, r.d); err != nil {
		return nil, fmt.Errorf("read the plan: %w", err)
	}
	app, err := in.App()
	if err != nil {
		return nil, fmt.Errorf("read settings of the app: %w", err)
	}
	r.app = app
	if err := r.fits(); err != nil {
		return nil, err
	}
	r.c = &changeover{p: p, op: j.Op(), j: j, opts: opts, why: "restore", create: r.create}
	return r, nil
}

// fits holds the plan against the app: it must be about the same volumes and containers.
func (r *restore) fits() error {
	if len(r.d.Containers) != len(r.app.Containers) || len(r.d.Volumes) != len(r.app.Volumes) || len(r.d.Networks) != len(r.app.Networks) {
		return errOtherPlan
	}
	for i, v := range r.d.Volumes {
		if v.ID != r.app.Volumes[i].ID {
			return errOtherPlan
		}
	}
	for i, c := range r.d.Containers {
		if c.Was != r.app.Containers[i].Name {
			return errOtherPlan
		}
	}
	return nil
}

var errOtherPlan = errors.New("the plan is of another archive: plan again")

func (r *restore) warn(format string, args ...any) {
	r.opts.Report(backup.Progress{Warning: fmt.Sprintf(format, args...)})
}

// run does all of it, to the point from which on it is not taken back.
func (r *restore) run(ctx context.Context) (*backup.Undo, error) {
	for _, step := range []func(context.Context) error{
		r.prepare, r.pull, r.makeNetworks, r.makeVolumes, r.stagePaths,
		r.stream, r.checkImages, r.verify, r.mergePlan, r.c.setAside, r.c.exchange, r.place, r.c.make,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	if err := r.c.start(ctx, !r.plan.Answers.NoStart); err != nil {
		return nil, r.withHealthLog(ctx, err)
	}
	if err := r.probe(ctx); err != nil {
		return nil, err
	}
	undo, err := r.c.undo(ctx, r)
	if err != nil {
		return nil, err
	}
	// From here on it is finished, not taken back.
	if err := r.c.append(backup.StepUndo, undo); err != nil {
		return nil, err
	}
	r.c.committed = true
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	if err := r.c.finish(end); err != nil {
		// What is left over is in nobody's way but compose's.
		r.warn("the old containers are still there, stopped: %v", err)
	}
	r.howTo()
	return undo, nil
}

// howTo says how to go on with compose.
func (r *restore) howTo() {
	if r.d.Override {
		r.warn("settings differ from the compose file: use %s from now on, or move what is in the last file into the one before", composeCommand(r.app, r.d))
	}
}

// composeCommand is how compose is called with the adapted file, for a shell.
func composeCommand(app *backup.App, d *detail) string {
	files := []string{d.Dir + "/compose.yaml"}
	if app.Project != nil && len(app.Project.ConfigFiles) > 0 {
		files = nil
		for _, f := range app.Project.ConfigFiles {
			if f = moved(d, f); f != d.Dir+"/"+overrideFile {
				files = append(files, f)
			}
		}
	}
	words := []string{"docker", "compose", "-p", d.Project}
	for _, f := range append(files, d.Dir+"/"+overrideFile) {
		words = append(words, "-f", f)
	}
	for i := range words {
		words[i] = shellWord(words[i])
	}
	return strings.Join(words, " ")
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:@%+,=-]+$`)

// shellWord quotes a word for a shell where it needs it.
func shellWord(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// prepare checks what can be checked before anything is changed, and takes down what
// will be.
func (r *restore) prepare(ctx context.Context) error {
	r.opts.Report(backup.Progress{Phase: "prepare"})
	if _, err := r.p.EnsureHelper(ctx); err != nil {
		return err
	}
	err := r.p.call(ctx, "ask what it is", func(ctx context.Context, c *dockerengine.Conn) error {
		var info system.Info
		info, err := c.Info(ctx)
		r.root, r.api, r.c.machine = info.DockerRootDir, c.ClientVersion(), info.Name
		return err
	})
	if err != nil {
		return err
	}
	c := r.c
	c.api = r.api
	c.rec.App = r.d.App
	c.rec.VolumeRoot = path.Join(r.root, "volumes")
	for _, o := range r.d.Old {
		old, err := r.p.oldOne(ctx, o.ID)
		if err != nil {
			return err
		}
		if old != nil {
			c.rec.Old = append(c.rec.Old, *old)
		}
	}
	orderOld(c.rec.Old)
	for i := range r.d.Volumes {
		v := &r.d.Volumes[i]
		switch {
		case v.Kind == backup.Named && v.Swap:
			keep := v.Name + ".pre-restore-" + c.op
			c.rec.Volumes = append(c.rec.Volumes, keep)
			c.rec.Swaps = append(c.rec.Swaps, swapped{Final: v.Name, Keep: keep})
		case v.Kind == backup.Named && v.Make:
			c.rec.Volumes = append(c.rec.Volumes, v.Name)
		}
		if v.Fill {
			r.total += max(r.m.Trees[v.ID].Bytes, 0)
		}
	}
	for _, n := range r.d.Networks {
		if n.Make {
			c.rec.Networks = append(c.rec.Networks, n.Name)
		}
	}
	for i := range r.d.Containers {
		cp := &r.d.Containers[i]
		c.rec.New = append(c.rec.New, newOne{
			Temp: cp.Name + ".restore-" + c.op, Name: cp.Name, Start: cp.Start, Paused: cp.Paused,
			DependsOn: r.dependencies(&r.app.Containers[i]),
		})
	}
	if err := r.planPaths(ctx); err != nil {
		return err
	}
	if err := r.absentImages(ctx); err != nil {
		return err
	}
	return c.begin()
}

// dependencies gives a container's dependencies under their new names.
func (r *restore) dependencies(c *backup.Container) []backup.Dependency {
	env := &bodyEnv{d: r.d}
	var out []backup.Dependency
	for _, d := range c.DependsOn {
		out = append(out, backup.Dependency{Container: env.newName(d.Container), Condition: d.Condition})
	}
	return out
}

// create gives the request for the container of the given number.
func (r *restore) create(ctx context.Context, i int, ids map[string]string) (*newContainer, error) {
	cp := &r.d.Containers[i]
	byOld := map[string]string{}
	for k := range r.d.Containers {
		if id := ids[r.d.Containers[k].Name]; id != "" {
			byOld[r.d.Containers[k].Was] = id
		}
	}
	image, err := r.imageOf(ctx, &r.app.Containers[i], cp)
	if err != nil {
		return nil, err
	}
	cp.Image = image
	return createBody(&r.app.Containers[i], cp, &bodyEnv{app: r.app, d: r.d, api: r.api, ids: byOld})
}

// probe asks the site of each host, where there is somebody who can.
func (r *restore) probe(ctx context.Context) error {
	if r.opts.Probe == nil || r.plan.Answers.NoProbe || r.plan.Answers.NoStart {
		return nil
	}
	for _, host := range r.plan.Hosts {
		r.opts.Report(backup.Progress{Phase: "probe", Text: host})
		limited, cancel := context.WithTimeout(ctx, r.opts.HealthTimeout)
		err := r.opts.Probe(limited, host)
		cancel()
		if err != nil {
			return &backup.Problem{
				Message: fmt.Sprintf("%s does not answer after the restore: %v", host, err),
				Hint:    "--no-probe restores it nevertheless", Object: host, Err: err,
			}
		}
	}
	return nil
}
