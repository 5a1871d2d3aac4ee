package docker

import (
	"context"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"crypto/rand"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/volume"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

const (
	// smallProject and smallProjectFiles bound a project's folder that is kept whole.
	smallProject      = 64 << 20
	smallProjectFiles = 5000
	// transitExtra is how much more than the data there must be room for, as a part of it:
	// headers of many small files are longer than the blocks that they lie in.
	transitExtra = 20
	// stopGuess and startGuess are how long a container takes to end and to begin, where
	// nothing is known about it.
	stopGuess  = 2 * time.Second
	startGuess = time.Second
	// rateGuess is how fast data is read where the helper could not tell, in bytes per
	// second.
	rateGuess = 100 << 20
	// estimateTimeout bounds measuring: ten million files on a slow disk.
	estimateTimeout = 30 * time.Minute
)

// measured is what the helper's task measure tells.
type measured struct {
	Volumes     map[string]backup.VolumeSize `json:"volumes"`
	TransitFree int64                        `json:"transit_free"`
	TransitDisk string                       `json:"transit_disk"`
	Rate        int64                        `json:"rate"`
}

// Estimate implements backup.Platform.
func (p *Platform) Estimate(ctx context.Context, app *backup.App, opts backup.FreezeOptions) (*backup.Estimate, error) {
	report := opts.Report
	if report == nil {
		report = func(backup.Progress) {}
	}
	plan, err := planRest(app, opts.Mode)
	if err != nil {
		return nil, err
	}
	report(backup.Progress{Phase: "estimate", Text: "helper image"})
	if _, err := p.EnsureHelper(ctx); err != nil {
		return nil, err
	}
	p.sweepHelpers(ctx) // a process that is gone may have left some
	if err := p.ensureTransit(ctx); err != nil {
		return nil, err
	}
	if err := p.foreign(ctx, app); err != nil {
		return nil, err
	}
	if err := p.avoid(ctx, app, opts.Avoid); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, estimateTimeout)
	defer cancel()
	report(backup.Progress{Phase: "estimate", Text: "size of the data"})
	m, err := p.measure(ctx, app, report)
	if err != nil {
		return nil, err
	}
	est := reckon(app, plan, m, opts.Mode)
	if err := room(est); err != nil {
		return nil, err
	}
	if err := roomForImages(est, opts.TempDir); err != nil {
		return nil, err
	}
	return est, beside(est, m.TransitDisk, opts.TempDir)
}

// beside notes what lies on disks of this machine while the archive is written, and checks
// that data and images fit where they are on the same one.
func beside(est *backup.Estimate, transit, dir string) error {
	est.Beside = map[string]int64{}
	data := est.Bytes + est.Bytes/transitExtra
	if transit != "" {
		est.Beside[transit] += data
	}
	if est.ImageBytes == 0 || dir == "" {
		return nil
	}
	images := backup.DiskOf(dir)
	if images == "" {
		return nil
	}
	est.Beside[images] += est.ImageBytes
	need := est.Beside[images] + transitReserve
	if images != transit || est.TransitFree < 0 || est.TransitFree >= need {
		return nil
	}
	return &backup.Problem{
		Message: fmt.Sprintf("the data and its images need %s on one disk, that of the transit volume and of %s, and %s are left there", backup.FormatBytes(need), dir, backup.FormatBytes(est.TransitFree)),
		Hint:    "make room, or leave images out with --images never", Object: dir,
	}
}

// reckon makes an estimate of what was measured.
func reckon(app *backup.App, plan restPlan, m measured, mode backup.Mode) *backup.Estimate {
	est := &backup.Estimate{Volumes: map[string]backup.VolumeSize{}, TransitFree: m.TransitFree}
	var resting int64 // bytes that are read while the app rests
	for i := range app.Volumes {
		v := &app.Volumes[i]
		if v.Action != backup.Include {
			continue
		}
		size := m.Volumes[v.ID]
		est.Volumes[v.ID] = size
		est.Bytes += size.Bytes
		est.Files += size.Files
		if c := consistencyOf(app, v, mode); c == "stopped" || c == "paused" {
			resting += size.Bytes
		}
	}
	for _, im := range app.Images {
		if im.Include {
			est.ImageBytes += im.Size
		}
	}
	for _, c := range app.Containers {
		if c.Layer.Include {
			est.ImageBytes += c.Layer.Bytes
		}
	}
	est.Stops, est.Pauses = haltedNames(plan.halt, backup.Stop), haltedNames(plan.halt, backup.Pause)
	slices.Reverse(est.Stops)
	slices.Reverse(est.Pauses)
	if len(plan.halt) == 0 {
		est.Basis = "nothing is stopped"
		return est
	}
	rate := m.Rate
	if rate <= 0 {
		rate = rateGuess
	}
	// Rounded up: an app is offline for a moment whatever it holds.
	reading := time.Duration(float64(resting)/float64(rate)*float64(time.Second)) + time.Second
	grace := time.Duration(depth(plan.halt)) * (stopGuess + startGuess)
	est.Downtime = (reading + grace).Round(time.Second)
	count := "one container"
	if n := len(plan.halt); n > 1 {
		count = fmt.Sprintf("%d containers", n)
	}
	est.Basis = fmt.Sprintf("%s to read at about %s a second, and %s to stop and start", backup.FormatBytes(resting), backup.FormatBytes(rate), count)
	return est
}

// depth is how many containers that stop depend on each other in a row.
func depth(list []halted) int {
	level := map[string]int{}
	most := 0
	for _, h := range list { // each after those that it depends on
		n := 1
		for _, d := range h.DependsOn {
			n = max(n, level[d.Container]+1)
		}
		if h.Mode == backup.Pause {
			n-- // that takes no time
		}
		level[h.Name] = n
		most = max(most, n)
	}
	return most
}

// room checks that the transit volume holds the data.
func room(est *backup.Estimate) error {
	need := est.Bytes + est.Bytes/transitExtra + transitReserve
	if est.TransitFree < 0 || est.TransitFree >= need {
		return nil
	}
	return &backup.Problem{
		Message: fmt.Sprintf("the transit volume has %s left, and this backup may need %s", backup.FormatBytes(est.TransitFree), backup.FormatBytes(need)),
		Hint:    "make room on the engine's disk, leave volumes out with --exclude, or make the transit volume yourself on a larger disk",
	}
}

// roomForImages checks that images on their way fit in a folder of this machine.
func roomForImages(est *backup.Estimate, dir string) error {
	if est.ImageBytes == 0 || dir == "" {
		return nil
	}
	free, ok := backup.FreeSpace(dir)
	if !ok || free >= est.ImageBytes+transitReserve {
		return nil
	}
	return &backup.Problem{
		Message: fmt.Sprintf("images need %s in %s, and %s are left there", backup.FormatBytes(est.ImageBytes+transitReserve), dir, backup.FormatBytes(free)),
		Hint:    "make room, or leave images out with --images never", Object: dir,
	}
}

// measure asks a helper how large the volumes are. A project's folder that is large is
// cut down to the files that make the project; one that is not there is left out.
func (p *Platform) measure(ctx context.Context, app *backup.App, report func(backup.Progress)) (measured, error) {
	op := randomOp()
	run := func(volumes []*backup.Volume) (m measured, err error) {
		args, mounts := helperVolumes(volumes, nil)
		err = p.helperResult(ctx, helperTask{
			op: op, name: "measure", caps: readCaps, mounts: append(mounts, p.transitMount(false)),
			input: map[string]any{"volumes": args, "transit": transitDir},
		}, &m)
		return m, err
	}
	var data []*backup.Volume
	all := measured{Volumes: map[string]backup.VolumeSize{}}
	for i := range app.Volumes {
		v := &app.Volumes[i]
		switch {
		case v.Action != backup.Include:
			continue
		case v.Class != classProject:
			data = append(data, v)
			continue
		}
		m, err := run([]*backup.Volume{v})
		if err != nil && missing(err) {
			v.Action, v.Reason = backup.Skip, "it is not on the engine's host"
			report(backup.Progress{Phase: "estimate", Warning: fmt.Sprintf("%s is not on the engine's host: the compose files are not in the backup", v.Name)})
			continue
		}
		if err != nil {
			return all, fmt.Errorf("measure the project's folder: %w", err)
		}
		size := m.Volumes[v.ID]
		if v.Kind == backup.ProjectTree && len(v.Only) == 0 && v.Reason != reasonAsked && app.Project != nil && (size.Bytes > smallProject || size.Files > smallProjectFiles) {
			v.Only = projectOnly(app.Project)
			v.Reason = fmt.Sprintf("compose files only: the folder holds %s in %d files", backup.FormatBytes(size.Bytes), size.Files)
			report(backup.Progress{Phase: "estimate", Warning: fmt.Sprintf("of %s only the compose files are in the backup: it holds %s in %d files; include all of it with --include %s", v.Name, backup.FormatBytes(size.Bytes), size.Files, v.Name)})
			if m, err = run([]*backup.Volume{v}); err != nil {
				return all, fmt.Errorf("measure the project's folder: %w", err)
			}
			size = m.Volumes[v.ID]
		}
		all.Volumes[v.ID] = size
	}
	m, err := run(data)
	if err != nil {
		if missing(err) {
			err = &backup.Problem{Message: err.Error(), Hint: "leave it out with --exclude, or bring it back", Err: err}
		}
		return all, fmt.Errorf("measure the data: %w", err)
	}
	for id, size := range m.Volumes {
		all.Volumes[id] = size
	}
	all.TransitFree, all.TransitDisk, all.Rate = m.TransitFree, m.TransitDisk, m.Rate
	return all, nil
}

// missing reports whether an error says that a path is not on the engine's host.
func missing(err error) bool { return strings.Contains(err.Error(), "on the engine's host") }

// randomOp is the id of an operation without a journal: one that changes nothing.
func randomOp() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// avoid refuses folders of this machine inside a volume that is read: a backup would
// hold itself.
func (p *Platform) avoid(ctx context.Context, app *backup.App, folders []string) error {
	if len(folders) == 0 || p.ep.Host() != "" {
		return nil // elsewhere they are another machine's
	}
	own, err := p.ownMounts(ctx)
	if err != nil {
		return err
	}
	for i := range app.Volumes {
		v := &app.Volumes[i]
		if v.Action != backup.Include || len(v.Only) > 0 {
			continue
		}
		at, err := p.placeOf(ctx, v)
		if err != nil {
			return err
		}
		for _, folder := range folders {
			if holds(v, at, onHost(folder, own)) {
				return &backup.Problem{
					Message: fmt.Sprintf("%s is inside %s, which would be read: the backup would hold itself", folder, v.Name),
					Hint:    "leave it out with --exclude " + v.Name + ", or keep archives elsewhere", Object: v.Name,
				}
			}
		}
	}
	return nil
}

// hostFolder is a folder of this machine as its engine's host has it.
type hostFolder struct {
	path   string // "" where it is nowhere on the host
	volume string // or the named volume that it is in
}

// onHost finds a folder on the host. Where this program runs in a container, own are what
// is mounted in it.
func onHost(folder string, own []container.MountPoint) hostFolder {
	if own == nil {
		if real, err := filepath.EvalSymlinks(folder); err == nil {
			folder = real
		}
		return hostFolder{path: folder}
	}
	best := -1
	for i, m := range own {
		if within(m.Destination, folder) && (best < 0 || len(m.Destination) > len(own[best].Destination)) {
			best = i
		}
	}
	if best < 0 {
		return hostFolder{}
	}
	m := own[best]
	return hostFolder{path: filepath.Join(m.Source, strings.TrimPrefix(folder, m.Destination)), volume: m.Name}
}

// holds reports whether a folder is in a volume that lies at a path of the host, and is
// not taken out of it.
func holds(v *backup.Volume, at string, f hostFolder) bool {
	if f.volume != "" && f.volume == v.Name {
		return true
	}
	if at == "" || f.path == "" || !within(at, f.path) {
		return false
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(f.path, at), "/")
	for ex := range v.Exclude {
		if within(ex, rel) {
			return false
		}
	}
	return true
}

// ownMounts are what is mounted in the container that this program runs in; nil where it
// runs in none of the engine's.
func (p *Platform) ownMounts(ctx context.Context) ([]container.MountPoint, error) {
	for _, id := range ownIDs() {
		var in container.InspectResponse
		err := p.call(ctx, "inspect our own container", func(ctx context.Context, c *dockerengine.Conn) (err error) {
			in, err = c.ContainerInspect(ctx, id)
			return ignoreNotFound(err)
		})
		if err != nil {
			return nil, err
		}
		if in.ContainerJSONBase != nil {
			return append([]container.MountPoint{}, in.Mounts...), nil
		}
	}
	return nil, nil
}

// placeOf is where a volume lies on the engine's host, "" where only the engine knows.
func (p *Platform) placeOf(ctx context.Context, v *backup.Volume) (string, error) {
	if at := hostPath(v); at != "" {
		return at, nil
	}
	if v.Kind != backup.Named && v.Kind != backup.Anonymous {
		return "", nil
	}
	var in volume.Volume
	err := p.call(ctx, "inspect volume "+v.Name, func(ctx context.Context, c *dockerengine.Conn) (err error) {
		in, err = c.VolumeInspect(ctx, v.Name)
		return ignoreNotFound(err)
	})
	return in.Mountpoint, err
}
