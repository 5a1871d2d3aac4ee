package docker

import (
	"cmp"
	"maps"
	"slices"

	"github.com/dentropy/dentropycloud/backup"
)

// detail is this platform's own plan of a restore: names and decisions, no secrets.
// What is made of it comes from the archive's settings at the time it is applied.
type detail struct {
	App  string `json:"app"`
	Kind string `json:"kind"`
	// OldProject and Project are names of compose projects, "" without compose.
	OldProject string `json:"old_project,omitempty"`
	Project    string `json:"project,omitempty"`
	// OldDir and Dir are the project's folder as it was and as it will be; "" for none.
	OldDir string `json:"old_dir,omitempty"`
	Dir    string `json:"dir,omitempty"`
	// Override says that an adapted compose file is written into Dir.
	Override bool `json:"override,omitempty"`

	Volumes  []volumePlan  `json:"volumes"`
	Networks []networkPlan `json:"networks"`
	// Containers in the order in which they are made and started.
	Containers []containerPlan `json:"containers"`
	Images     []imagePlan     `json:"images"`
	// Old are the containers that are set aside, in no order.
	Old []oldPlan `json:"old,omitempty"`
}

// volumePlan is what becomes of one volume of the archive.
type volumePlan struct {
	ID   string            `json:"id"`
	Kind backup.VolumeKind `json:"kind"` // Named, Bind, BindFile, ProjectTree or Tmpfs: what it becomes
	Was  string            `json:"was"`
	// Name is the volume's name, or the path on the engine's host.
	Name string `json:"name"`
	// Fill restores data into it.
	Fill bool `json:"fill,omitempty"`
	// Make says that it is not there yet.
	Make bool `json:"make,omitempty"`
	// Swap says that something of the same app is there: it is exchanged and kept.
	Swap bool `json:"swap,omitempty"`
	// Driver is the volume's, "" for the default.
	Driver string `json:"driver,omitempty"`
	// Asked says that driver and options are those of the answers.
	Asked bool `json:"asked,omitempty"`
	// External is one that is not the app's.
	External bool `json:"external,omitempty"`
}

// networkPlan is what becomes of one network.
type networkPlan struct {
	Was  string `json:"was"`
	Name string `json:"name"`
	// Make says that it is not there yet.
	Make bool `json:"make,omitempty"`
	// Subnet is "" (as it was), "auto", or another prefix.
	Subnet     string `json:"subnet,omitempty"`
	Predefined bool   `json:"predefined,omitempty"`
	External   bool   `json:"external,omitempty"`
	// Static says that containers keep their static addresses.
	Static bool `json:"static,omitempty"`
}

// containerPlan is what becomes of one container.
type containerPlan struct {
	Was  string `json:"was"` // its name in the archive
	Name string `json:"name"`
	// Image is what it is made from: a reference or an id.
	Image   string `json:"image"`
	ImageID string `json:"image_id"` // in the archive
	// Set and Unset are changes of its labels; Unset is in any case of letters.
	Set   map[string]string `json:"set,omitempty"`
	Unset []string          `json:"unset,omitempty"`
	// Ports are changed bindings, by container port "80/tcp"; nil is "not published".
	Ports map[string][]portBinding `json:"ports,omitempty"`
	// Start says that it ran when it was captured.
	Start  bool `json:"start"`
	Paused bool `json:"paused,omitempty"`
}

type portBinding struct {
	IP   string `json:"HostIp"`
	Port string `json:"HostPort"`
}

// imagePlan is where an image comes from.
type imagePlan struct {
	ID string `json:"id"`
	// How is "present", "inside" or "pull".
	How string `json:"how"`
	// Pull is the reference that it is pulled by.
	Pull string `json:"pull,omitempty"`
	// Refs are those that it gets where they are free.
	Refs []string `json:"refs,omitempty"`
	Size int64    `json:"size,omitempty"`
}

// Where images come from.
const (
	imagePresent = "present"
	imageInside  = "inside"
	imagePull    = "pull"
)

// oldPlan is a container that is set aside.
type oldPlan struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// volume gives the plan of a volume by its id in the archive.
func (d *detail) volume(id string) *volumePlan {
	for i := range d.Volumes {
		if d.Volumes[i].ID == id {
			return &d.Volumes[i]
		}
	}
	return nil
}

// network gives the plan of a network by its name in the archive.
func (d *detail) network(was string) *networkPlan {
	for i := range d.Networks {
		if d.Networks[i].Was == was {
			return &d.Networks[i]
		}
	}
	return nil
}

// renamed reports whether anything has another name than in the archive.
func (d *detail) renamed() bool {
	if d.Project != d.OldProject {
		return true
	}
	for _, v := range d.Volumes {
		if v.Kind != backup.ProjectTree && v.Kind != backup.Tmpfs && (v.Name != v.Was || v.Asked) && !v.becameNamed() {
			return true
		}
	}
	for _, n := range d.Networks {
		if n.Name != n.Was || n.Subnet != "" {
			return true
		}
	}
	for _, c := range d.Containers {
		if c.Name != c.Was || len(c.Ports) > 0 || c.routed() {
			return true
		}
	}
	return false
}

// becameNamed reports an anonymous volume that has a name now: compose does not mind.
func (v *volumePlan) becameNamed() bool {
	return v.Kind == backup.Named && isAnonymous(v.Was)
}

// routed reports whether labels of routes are changed.
func (cp *containerPlan) routed() bool {
	for k := range cp.Set {
		if routeLabel.MatchString(k) {
			return true
		}
	}
	return slices.ContainsFunc(cp.Unset, routeLabel.MatchString)
}

// sortedKeys gives the keys of a map in order.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
