package backup

import (
	"context"
	"errors"
	"io"
	"time"
)

// Platform is one engine that runs apps.
type Platform interface {
	// Name is unique among the platforms of a Manager: "docker", "docker:nas".
	Name() string
	// Apps lists the apps, sorted by name.
	Apps(ctx context.Context) ([]AppInfo, error)
	// Capture reads all about one app and changes nothing. The error wraps
	// fs.ErrNotExist where there is none of that name.
	Capture(ctx context.Context, app string, opts CaptureOptions) (*App, error)
	// Estimate prepares a freeze without touching the app: it brings the helper image
	// to the engine, measures the volumes, and checks the space of the transit volume.
	Estimate(ctx context.Context, app *App, opts FreezeOptions) (*Estimate, error)
	// Freeze brings the app to rest, reads its volumes into transit and brings it back.
	// When it returns, with an error or without, everything that ran before runs again
	// or the error wraps ErrLeftStopped. The journal knows each step before it is done.
	Freeze(ctx context.Context, app *App, est *Estimate, opts FreezeOptions, j Journal) (Frozen, error)
	// Plan looks at what is there and says what a restore would do, ask and refuse. It
	// changes nothing.
	Plan(ctx context.Context, m *Manifest, app *App, answers Answers) (*Plan, error)
	// Apply does what the plan says, with the data of the archive, and returns what
	// undoes it. On an error everything is as it was, or the error wraps ErrLeftStopped.
	Apply(ctx context.Context, p *Plan, in *Reader, opts ApplyOptions, j Journal) (*Undo, error)
	// Undo brings back what was there before a restore.
	Undo(ctx context.Context, u *Undo, opts ApplyOptions, j Journal) error
	// Forget removes what is kept for an undo.
	Forget(ctx context.Context, u *Undo) error
	// Recover finishes or takes back an operation whose process is gone, from its
	// journal. It can be repeated.
	Recover(ctx context.Context, op Operation, entries []Entry, report func(Progress)) error
}

// ErrLeftStopped says that containers that ran before do not run now, and that the
// program goes on trying.
var ErrLeftStopped = errors.New("containers are left stopped")

// CaptureOptions say what belongs to an app beside what is obvious.
type CaptureOptions struct {
	// Images is "auto" (what cannot be pulled again), "always" or "never". Default: auto.
	Images string `json:"images,omitempty"`
	// Layers is "auto" (what matters), "always" or "never". Default: auto.
	Layers string `json:"layers,omitempty"`
	// IncludePaths and ExcludePaths are volumes (by name) and bind mounts (by path) to be
	// included or left out whatever their class.
	IncludePaths []string `json:"include,omitempty"`
	ExcludePaths []string `json:"exclude,omitempty"`
}

// FreezeOptions say how an app is frozen.
type FreezeOptions struct {
	// Mode overrides the labels of all containers. Default: as the labels say.
	Mode Mode `json:"mode,omitempty"`
	// HealthTimeout bounds the wait for each container to be healthy. Default: 2m.
	HealthTimeout time.Duration `json:"health_timeout,omitempty"`
	// AllowMissing goes on where files cannot be read, with a warning.
	AllowMissing bool `json:"allow_missing,omitempty"`
	// TempDir is a folder of this machine for images on their way.
	TempDir string `json:"-"`
	// Avoid are folders of the local machine that must not be inside a volume that is
	// read: the store's.
	Avoid []string `json:"-"`
	// Report takes progress. It returns quickly.
	Report func(Progress) `json:"-"`
	// Resting is called when containers are about to stop, and again with nil when they
	// run: their routes then say so. It returns when those that are about to stop may be
	// stopped: requests that are under way to them end first. May be nil.
	Resting func(*Resting) `json:"-"`
}

// Resting is an app that is about to be stopped.
type Resting struct {
	Platform string
	App      string
	// Containers are the ids of those that stop.
	Containers []string
	// Why is "backup" or "restore".
	Why string
	// Back is when it is expected to run again.
	Back time.Time
	// Over is set by the Manager when it tells that they run again.
	Over bool
}

// Estimate is what a freeze will take.
type Estimate struct {
	// Volumes by Volume.ID.
	Volumes map[string]VolumeSize `json:"volumes"`
	// Bytes and Files are the sums; TransitFree is the space in transit.
	Bytes       int64 `json:"bytes"`
	Files       int64 `json:"files"`
	TransitFree int64 `json:"transit_free"`
	// ImageBytes are the images that go into the archive.
	ImageBytes int64 `json:"image_bytes,omitempty"`
	// Beside is what lies on disks of this machine until the archive is complete, by
	// DiskOf: a store on the same disk needs room for both.
	Beside map[string]int64 `json:"-"`
	// Downtime is the expected time from the first stop to the last start; 0 where
	// nothing stops. How it was reckoned is in Basis.
	Downtime time.Duration `json:"downtime"`
	Basis    string        `json:"basis,omitempty"`
	// Stops are the names of the containers that will be stopped, in order; Pauses those
	// that will be paused.
	Stops  []string `json:"stops,omitempty"`
	Pauses []string `json:"pauses,omitempty"`
}

// VolumeSize is what a volume holds.
type VolumeSize struct {
	Bytes int64 `json:"bytes"` // allocated
	Files int64 `json:"files"`
}

// Frozen is the data of an app in transit. The app runs again.
type Frozen interface {
	// Trees are the volumes that were read.
	Trees() map[string]*Tree
	// Report is how the app came to rest.
	Report() QuiesceReport
	// Segments gives the segments of a volume, one after the other, Tree.Segments long.
	Segments(ctx context.Context, volume string) (io.ReadCloser, error)
	// Index gives the index of files of a volume.
	Index(ctx context.Context, volume string) (io.ReadCloser, error)
	// Images gives the images that travel as a tar of one OCI layout, which docker load
	// takes as well. The error wraps fs.ErrNotExist where none travels. The caller knows
	// the size of each member from its header.
	Images(ctx context.Context) (io.ReadCloser, error)
	// Close clears the transit. It can be repeated.
	Close(ctx context.Context) error
}

// Progress is how far an operation is.
type Progress struct {
	// Phase is one of "capture", "estimate", "prepare", "quiesce", "read", "start",
	// "images", "write", "plan", "fill", "verify", "swap", "create", "probe", "rollback",
	// "clean".
	Phase string `json:"phase"`
	// Text says what it does now, for people.
	Text string `json:"text,omitempty"`
	// Done of Total, in bytes; Total is 0 where it is not known.
	Done  int64 `json:"done,omitempty"`
	Total int64 `json:"total,omitempty"`
	// Files done.
	Files int64 `json:"files,omitempty"`
	// Warning is set for things that the user should know.
	Warning string `json:"warning,omitempty"`
}
