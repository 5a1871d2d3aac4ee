package backup

import (
	"encoding/json"
	"time"
)

// AppInfo is one line of the list of apps.
type AppInfo struct {
	// Name is unique on its platform.
	Name string `json:"name"`
	// Kind is "compose", "group" (label dentropy.app) or "container".
	Kind string `json:"kind"`
	// Platform is the name of the platform it runs on.
	Platform string `json:"platform"`
	// Containers are the names of its containers, sorted; Running counts those that run.
	Containers []string `json:"containers"`
	Running    int      `json:"running"`
	// Volumes are the names of its volumes and the paths of its bind mounts, sorted.
	Volumes []string `json:"volumes"`
	// Self says that this program runs in it: it can be backed up hot only, and is
	// never stopped.
	Self bool `json:"self,omitempty"`
}

// App is one application as its platform knows it, with everything that is needed
// to run it again. It holds secrets: Redact parts them from the rest before any of it
// is shown or written in clear.
type App struct {
	Name     string `json:"name"`
	Kind     string `json:"kind"`
	Platform string `json:"platform"`
	// Format names the shape of the settings in it: "docker".
	Format string `json:"format"`
	// Source is the engine and host that it was captured from.
	Source Source `json:"source"`
	// Project is set for a compose project.
	Project *Project `json:"project,omitempty"`
	// Containers in the order in which they start.
	Containers []Container `json:"containers"`
	Volumes    []Volume    `json:"volumes"`
	Networks   []Network   `json:"networks"`
	Images     []Image     `json:"images"`
	Self       bool        `json:"self,omitempty"`
	// Warnings are for the user: what will not be as it was.
	Warnings []string `json:"warnings,omitempty"`
}

// Source tells where an app was captured.
type Source struct {
	Engine        string `json:"engine"` // "docker 20.10.24"
	API           string `json:"api,omitempty"`
	OS            string `json:"os,omitempty"`
	Arch          string `json:"arch"` // as Go names it: amd64
	Kernel        string `json:"kernel,omitempty"`
	StorageDriver string `json:"storage_driver,omitempty"`
	// HostID tells hosts apart without naming one: a hash.
	HostID string `json:"host_id,omitempty"`
}

// Project is a compose project.
type Project struct {
	Name        string   `json:"name"`
	Dir         string   `json:"dir,omitempty"`          // label working_dir, on the engine's host
	ConfigFiles []string `json:"config_files,omitempty"` // absolute paths
	EnvFiles    []string `json:"env_files,omitempty"`
}

// State of a container.
type State string

// The states of a container.
const (
	Created    State = "created"
	Running    State = "running"
	Paused     State = "paused"
	Restarting State = "restarting"
	Exited     State = "exited"
	Dead       State = "dead"
)

// Container is one container of an app.
type Container struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Service string `json:"service,omitempty"` // compose service; "" without compose
	Image   string `json:"image"`             // the reference it was made with
	ImageID string `json:"image_id"`
	State   State  `json:"state"`
	Health  string `json:"health,omitempty"` // healthy, unhealthy, starting; "" without a check

	StartedAt  time.Time `json:"started_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	// DependsOn are containers of this app that start before it. It holds no cycles.
	DependsOn []Dependency `json:"depends_on,omitempty"`
	Quiesce   Quiesce      `json:"quiesce"`
	Mounts    []Mount      `json:"mounts,omitempty"`
	Layer     Layer        `json:"layer,omitzero"`
	// Routes are the routing labels it carries, for display.
	Routes map[string]string `json:"routes,omitempty"`
	// Settings are all settings, in the engine's own words, whatever its version:
	// for docker an object {"Config", "HostConfig", "Networks"}.
	Settings json.RawMessage `json:"settings"`
}

// Dependency is a container that starts earlier.
type Dependency struct {
	Container string `json:"container"` // its name
	// Condition is "started", "healthy" or "completed".
	Condition string `json:"condition"`
}

// Mode says how a container comes to rest.
type Mode string

// The modes.
const (
	Stop  Mode = "stop"
	Pause Mode = "pause"
	Hot   Mode = "hot" // it goes on running
)

// Quiesce says how a container comes to rest, from its labels.
type Quiesce struct {
	Mode Mode   `json:"mode"`
	Pre  []Hook `json:"pre,omitempty"`  // before it stops; a failure ends the backup
	Post []Hook `json:"post,omitempty"` // after it runs again, always
	// NoRestart leaves it stopped (docker-volume-backup.stop-during-backup-no-restart).
	NoRestart bool `json:"no_restart,omitempty"`
	// Why says which label or rule decided.
	Why string `json:"why,omitempty"`
}

// Hook is a command run inside the container.
type Hook struct {
	Command []string `json:"command"` // ["/bin/sh", "-c", text] for a label's text
	User    string   `json:"user,omitempty"`
	Label   string   `json:"label"` // where it is from
}

// Mount is a volume in a container.
type Mount struct {
	Volume   string `json:"volume"` // Volume.ID
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only,omitempty"`
	Subpath  string `json:"subpath,omitempty"`
}

// Layer is what a container has written outside its volumes (docker diff).
type Layer struct {
	Changes int   `json:"changes,omitempty"` // paths, without those that do not matter
	Bytes   int64 `json:"bytes,omitempty"`
	// Sample are a few of the paths, for display.
	Sample []string `json:"sample,omitempty"`
	// Include says that it goes into the archive, as an image of its own.
	Include bool `json:"include,omitempty"`
	// ImageID is that image's, set while frozen.
	ImageID string `json:"image_id,omitempty"`
}

// VolumeKind says what a volume is on its engine.
type VolumeKind string

// The kinds of volumes.
const (
	Named       VolumeKind = "named"
	Anonymous   VolumeKind = "anonymous"
	Bind        VolumeKind = "bind"    // a folder of the host
	BindFile    VolumeKind = "file"    // a single file of the host
	ProjectTree VolumeKind = "project" // the compose project's folder
	Tmpfs       VolumeKind = "tmpfs"
)

// Action says what happens to a volume's data.
type Action string

// The actions.
const (
	Include   Action = "include"
	Reference Action = "reference" // it must be there where the app is restored
	Skip      Action = "skip"
)

// Volume is one tree of files.
type Volume struct {
	// ID is unique in its app and names its members in the archive: [a-z0-9][a-z0-9._-]*.
	ID   string     `json:"id"`
	Kind VolumeKind `json:"kind"`
	// Name is the volume's name, or the path on the engine's host.
	Name    string            `json:"name"`
	Driver  string            `json:"driver,omitempty"`
	Options map[string]string `json:"options,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	// External says that the app's compose file does not make it.
	External bool `json:"external,omitempty"`
	// Class is "data", "project", "system" or "shared"; Reason says why, and why the
	// action, in words.
	Class  string `json:"class"`
	Action Action `json:"action"`
	Reason string `json:"reason,omitempty"`
	// UsedBy are other apps with the same volume.
	UsedBy []string `json:"used_by,omitempty"`
	// Exclude are paths below it that are not read, relative, with their reasons: other
	// volumes, mostly.
	Exclude map[string]string `json:"exclude,omitempty"`
	// Only, where not empty, are the only paths that are read (of a large project folder).
	Only []string `json:"only,omitempty"`
	// Consistency is how it was read: "stopped", "paused", "hook", "hot".
	Consistency string `json:"consistency,omitempty"`
}

// Network is a network that containers of the app are attached to.
type Network struct {
	Name   string            `json:"name"`
	Driver string            `json:"driver"`
	Labels map[string]string `json:"labels,omitempty"`
	// External says that it was there before the app: not made by its compose file.
	External bool `json:"external,omitempty"`
	// Predefined networks are the engine's: bridge, host, none.
	Predefined bool     `json:"predefined,omitempty"`
	Subnets    []string `json:"subnets,omitempty"`
	// Settings are what the engine wants to make it, in its own words.
	Settings json.RawMessage `json:"settings,omitempty"`
}

// Image is an image that containers of the app were made from.
type Image struct {
	ID       string   `json:"id"` // sha256:…
	Refs     []string `json:"refs,omitempty"`
	Digests  []string `json:"digests,omitempty"` // name@sha256:…
	Platform string   `json:"platform"`          // linux/amd64
	Size     int64    `json:"size"`
	// Include says that it travels in the archive; Reason why, or why not.
	Include bool   `json:"include"`
	Reason  string `json:"reason,omitempty"`
}
