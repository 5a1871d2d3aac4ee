package backup

import (
	"context"
	"encoding/json"
	"time"
)

// Answers say where to run, store and route what is restored. The zero value keeps
// everything as it was, and refuses every conflict and every risk.
type Answers struct {
	// Platform is the name of the platform to run on. Default: the only one, else the
	// first.
	Platform string `json:"platform,omitempty"`
	// Name is the new name of the app, which is the compose project's or the container's.
	// Default: as it was. Another one gives new names to all that is named after the
	// project.
	Name string `json:"name,omitempty"`
	// ProjectDir is where the compose files go, on the engine's host. Default: where they
	// were. "none": nowhere.
	ProjectDir string `json:"project_dir,omitempty"`
	// Volumes by Volume.ID or name in the archive.
	Volumes map[string]VolumeAnswer `json:"volumes,omitempty"`
	// Networks by name in the archive.
	Networks map[string]NetworkAnswer `json:"networks,omitempty"`
	// Containers maps names in the archive to new names.
	Containers map[string]string `json:"containers,omitempty"`
	// Ports maps published ports "<container or service>:<container port>/<proto>" or
	// "<host port>/<proto>" (proto may be left out: tcp) to "[<ip>:]<port>", "auto" (any
	// free one) or "none".
	Ports map[string]string `json:"ports,omitempty"`
	// Routes by "<container or service>" (its default route) or
	// "<container or service>.<route name>".
	Routes map[string]RouteAnswer `json:"routes,omitempty"`
	// OnConflict is what happens where a name is taken: "refuse", "replace" (what is there
	// is kept for undo) or "rename" (a free name). Default: refuse.
	OnConflict string `json:"on_conflict,omitempty"`
	// Allow are the kinds of risks (Risk.Kind) that are accepted; "all" is all.
	Allow []string `json:"allow,omitempty"`
	// NoStart makes everything and starts nothing.
	NoStart bool `json:"no_start,omitempty"`
	// NoProbe does not ask the site before the restore counts as done.
	NoProbe bool `json:"no_probe,omitempty"`
	// Verify is "full" (what was written is read again) or "stream" (only what came in is
	// checked). Default: full.
	Verify string `json:"verify,omitempty"`
}

// VolumeAnswer says where the data of a volume goes. At most one of Name, Path and
// Driver's options decides; the zero value keeps kind, name, driver.
type VolumeAnswer struct {
	// Name is a named volume.
	Name string `json:"name,omitempty"`
	// Path is a folder of the engine's host (a bind mount).
	Path string `json:"path,omitempty"`
	// Driver and Options make the named volume; an NFS volume is driver local with
	// type=nfs, o=addr=…, device=:/….
	Driver  string            `json:"driver,omitempty"`
	Options map[string]string `json:"options,omitempty"`
	// Existing uses what is there under the name or path, and restores no data into it.
	Existing bool `json:"existing,omitempty"`
	// Empty makes the volume without its data.
	Empty bool `json:"empty,omitempty"`
}

// NetworkAnswer says which network takes the place of one.
type NetworkAnswer struct {
	Name string `json:"name,omitempty"`
	// Subnet is a prefix, or "auto" for one of the engine's choice; static addresses of
	// containers are then dropped, or moved where the new prefix holds them.
	Subnet string `json:"subnet,omitempty"`
	// Existing uses the network of that name as it is.
	Existing bool `json:"existing,omitempty"`
}

// RouteAnswer gives a route other hosts. Fields left empty stay as they were.
type RouteAnswer struct {
	Host string `json:"host,omitempty"` // comma-separated
	Path string `json:"path,omitempty"`
	TLS  string `json:"tls,omitempty"`
	Port string `json:"port,omitempty"`
	// None takes the route away.
	None bool `json:"none,omitempty"`
}

// Plan is what a restore will do.
type Plan struct {
	Platform string `json:"platform"`
	App      string `json:"app"`
	// Answers are those that it follows from.
	Answers Answers `json:"answers"`
	// Steps are what will be done, in order, in words.
	Steps []string `json:"steps"`
	// Questions are choices that the user may want to make; each has a default.
	Questions []Question `json:"questions"`
	// Conflicts are what stands in the way. With one unresolved nothing is done.
	Conflicts []Conflict `json:"conflicts"`
	// Risks are settings that reach beyond the app. With one not allowed nothing is done.
	Risks []Risk `json:"risks"`
	// Warnings are what will not be as it was.
	Warnings []string `json:"warnings,omitempty"`
	// Hosts are the names that the restored app asks for, for the probe.
	Hosts []string `json:"hosts,omitempty"`
	// Bytes will be written to the engine's disk; Free is what there is (0: unknown).
	Bytes int64 `json:"bytes"`
	Free  int64 `json:"free,omitempty"`
	// Detail is the platform's own plan.
	Detail json.RawMessage `json:"detail,omitempty"`
}

// Shown is a copy without what may hold secrets: the platform's own, and the options of
// volumes' drivers in the answers.
func (p *Plan) Shown() *Plan {
	out := *p
	out.Detail = nil
	out.Answers.Volumes = make(map[string]VolumeAnswer, len(p.Answers.Volumes))
	for id, v := range p.Answers.Volumes {
		public, _ := Redact(&App{Volumes: []Volume{{Options: v.Options}}})
		v.Options = public.Volumes[0].Options
		out.Answers.Volumes[id] = v
	}
	return &out
}

// Ready reports whether nothing stands in the way.
func (p *Plan) Ready() bool {
	for _, c := range p.Conflicts {
		if !c.Resolved {
			return false
		}
	}
	for _, r := range p.Risks {
		if !r.Allowed {
			return false
		}
	}
	return true
}

// Question is one choice.
type Question struct {
	// Key is the answer's place in Answers: "volumes.db.name", "routes.web.host".
	Key string `json:"key"`
	// Topic is "run", "store" or "route".
	Topic   string `json:"topic"`
	Text    string `json:"text"`
	Default string `json:"default"`
	// Flag is the same as a flag of the verb.
	Flag string `json:"flag"`
}

// Conflict is something that stands in the way.
type Conflict struct {
	// Kind is "container", "volume", "network", "subnet", "port", "path", "host", "image",
	// "arch", "space", "project".
	Kind string `json:"kind"`
	Name string `json:"name"`
	Text string `json:"text"`
	// Choices are what can be answered, as flags; Hint says it in words.
	Choices []string `json:"choices,omitempty"`
	Hint    string   `json:"hint,omitempty"`
	// Resolved says that the answers settle it, and Resolution how.
	Resolved   bool   `json:"resolved"`
	Resolution string `json:"resolution,omitempty"`
}

// Risk is a setting that reaches beyond the app.
type Risk struct {
	// Kind is "privileged", "host-path", "docker-socket", "host-network", "host-pid",
	// "host-ipc", "host-users", "device", "capability", "security-opt", "setuid",
	// "host-port", "host-name", "volume-driver", "runtime", "cgroup", "sysctl", "hook".
	Kind      string `json:"kind"`
	Container string `json:"container,omitempty"`
	Text      string `json:"text"`
	// Allowed says that the answers accept it. Some kinds are shown only, and always
	// allowed: see docs.
	Allowed bool `json:"allowed"`
}

// ApplyOptions are what Apply and Undo need beside the plan.
type ApplyOptions struct {
	HealthTimeout time.Duration
	TempDir       string
	Report        func(Progress)
	Resting       func(*Resting)
	// Probe asks the site of a host through the route and returns once it answers, or why
	// not. nil where no proxy runs here.
	Probe func(ctx context.Context, host string) error
}

// Undo is what takes a restore back.
type Undo struct {
	ID       string    `json:"id"`
	Platform string    `json:"platform"`
	App      string    `json:"app"`
	Archive  string    `json:"archive"`
	Time     time.Time `json:"time"`
	// Summary says what an undo does.
	Summary string `json:"summary"`
	// Kept are what the restore has set aside and an undo brings back, in words: "the
	// volume shop_data.pre-restore-0123456789ab".
	Kept []string `json:"kept,omitempty"`
	// Detail is the platform's own record. It holds secrets, and is kept 0600.
	Detail json.RawMessage `json:"detail"`
}
