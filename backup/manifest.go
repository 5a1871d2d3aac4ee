package backup

import "time"

// FormatVersion is the version of the archive format that this program writes. It
// reads all versions from 1 on.
const FormatVersion = 1

// Manifest is the first thing an archive says about itself. It holds no secrets, and
// nothing in it is to be believed about what a restore may do: that is decided from
// the settings themselves.
type Manifest struct {
	Format int `json:"format"`
	// ID is a UUIDv7.
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	// Tool is the name and version of the program that wrote it.
	Tool string `json:"tool"`
	// App is the captured app without secrets: see Redact.
	App *App `json:"app"`
	// Trees are the volumes that are inside, by Volume.ID.
	Trees map[string]*Tree `json:"trees"`
	// ImagesInside says that an OCI layout follows.
	ImagesInside bool `json:"images_inside,omitempty"`
	// Quiesce is how the app came to rest, and for how long.
	Quiesce QuiesceReport `json:"quiesce"`
	// Encryption is "all", "secrets" or "none".
	Encryption string `json:"encryption"`
	// Status is "complete", or "warnings" where there are any, here or in App.Warnings.
	Status   string   `json:"status"`
	Warnings []string `json:"warnings,omitempty"`
}

// QuiesceReport tells how the app came to rest.
type QuiesceReport struct {
	// Stopped are containers in the order in which they were stopped.
	Stopped []StoppedContainer `json:"stopped,omitempty"`
	// Downtime is from the first stop called to the last container started (healthy,
	// where it has a check); DataDowntime from the last stop returned to the first
	// start called. In nanoseconds.
	Downtime     time.Duration `json:"downtime"`
	DataDowntime time.Duration `json:"data_downtime"`
	Hooks        []HookReport  `json:"hooks,omitempty"`
}

// StoppedContainer is a container that was brought to rest.
type StoppedContainer struct {
	Name string `json:"name"`
	Mode Mode   `json:"mode"`
	// ExitCode of a stopped one; 137 means that it was killed and its data may not be
	// clean.
	ExitCode int           `json:"exit_code"`
	Took     time.Duration `json:"took"`
}

// HookReport is a hook that was run.
type HookReport struct {
	Container string        `json:"container"`
	Label     string        `json:"label"`
	ExitCode  int           `json:"exit_code"`
	Took      time.Duration `json:"took"`
}
