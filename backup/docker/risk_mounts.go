package docker

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"

	"github.com/dentropy/dentropycloud/backup"
)

// request is what makes a container, as an engine reads it.
type request struct {
	container.Config
	HostConfig       container.HostConfig
	NetworkingConfig network.NetworkingConfig
}

// request makes the request for a container as a restore will, and reads it as the engine
// will. What the archive says of itself may be a lie, this is what comes true.
func (pl *planner) request(c *backup.Container, cp *containerPlan) (*request, error) {
	made, err := createBody(c, cp, &bodyEnv{app: pl.app, d: pl.d, api: pl.f.api})
	if err != nil {
		return nil, pl.senseless("%v", err)
	}
	req := new(request)
	if err := json.Unmarshal(made.body, req); err != nil {
		return nil, pl.senseless("settings of container %q: %v", c.Name, err)
	}
	for _, ep := range made.connect {
		if req.NetworkingConfig.EndpointsConfig == nil {
			req.NetworkingConfig.EndpointsConfig = map[string]*network.EndpointSettings{}
		}
		var s network.EndpointSettings
		if err := ep.config.into(&s); err != nil {
			return nil, pl.senseless("settings of container %q: %v", c.Name, err)
		}
		req.NetworkingConfig.EndpointsConfig[ep.network] = &s
	}
	return req, nil
}

// senseless refuses an archive whose settings no capture has written.
func (pl *planner) senseless(format string, args ...any) error {
	return &backup.Problem{Message: "the archive's settings make no sense: " + fmt.Sprintf(format, args...), Object: pl.app.Name}
}

// isNew reports whether a container that a request names is one of those that are made.
func (pl *planner) isNew(name string) bool {
	return slices.ContainsFunc(pl.d.Containers, func(cp containerPlan) bool { return cp.Name == name })
}

// networks looks at networks and links that are not the app's.
func (r *reviewer) networks(req *request) {
	pl := r.pl
	names := sortedKeys(req.NetworkingConfig.EndpointsConfig)
	if mode := string(req.HostConfig.NetworkMode); !strings.Contains(mode, ":") {
		names = append(names, mode)
	}
	for _, name := range names {
		planned := slices.ContainsFunc(pl.d.Networks, func(np networkPlan) bool { return np.Name == name })
		if name == "" || planned || isPredefined(name) || name == network.NetworkDefault {
			continue
		}
		if slices.ContainsFunc(pl.f.networks, func(n netFact) bool { return n.name == name || strings.HasPrefix(n.id, name) }) {
			r.add(riskNetwork, "it is on the network %q, which is not in the archive", name)
		}
	}
	links := slices.Clone(req.HostConfig.Links)
	for _, name := range sortedKeys(req.NetworkingConfig.EndpointsConfig) {
		if ep := req.NetworkingConfig.EndpointsConfig[name]; ep != nil {
			links = append(links, ep.Links...)
		}
	}
	for _, l := range links {
		if target, _, _ := strings.Cut(l, ":"); !pl.isNew(target) {
			r.add(riskNetwork, "it is linked to the container %q, which is not in the archive", target)
		}
	}
}

// mountReview looks at the mounts of one container.
type mountReview struct {
	*reviewer
	listed map[string]*volumePlan // what the archive says is there, by target
}

// mounts looks at what a container sees of the host. Each mount is one that the archive
// lists, a path of the host, which is shown, or something new that the engine makes for
// the container alone; others are refused.
func (r *reviewer) mounts(c *backup.Container, h *container.HostConfig) error {
	m := mountReview{reviewer: r, listed: map[string]*volumePlan{}}
	for _, mt := range c.Mounts {
		m.listed[path.Clean(mt.Target)] = r.pl.d.volume(mt.Volume)
	}
	for _, b := range h.Binds {
		if err := m.bind(b); err != nil {
			return err
		}
	}
	for i := range h.Mounts {
		if err := m.mount(&h.Mounts[i]); err != nil {
			return err
		}
	}
	if h.VolumeDriver != "" && h.VolumeDriver != "local" {
		r.show(riskVolume, "its anonymous volumes are made by the driver %q", h.VolumeDriver)
	}
	return nil
}

// bind looks at an entry of HostConfig.Binds: "source:target[:options]", or "target" alone
// for an anonymous volume.
func (m *mountReview) bind(b string) error {
	parts := strings.Split(b, ":")
	switch {
	case len(parts) == 1 && path.IsAbs(b):
		return nil
	case len(parts) > 3, len(parts) < 2, parts[0] == "", !path.IsAbs(parts[1]):
		return m.pl.senseless("%s has the bind %q", m.name, b)
	}
	if path.IsAbs(parts[0]) {
		return m.sees(parts[0], parts[1])
	}
	return m.uses(parts[0], parts[1])
}

// mount looks at an entry of HostConfig.Mounts.
func (m *mountReview) mount(mt *mount.Mount) error {
	if !path.IsAbs(mt.Target) {
		return m.pl.senseless("%s has a mount at %q", m.name, mt.Target)
	}
	if o := mt.VolumeOptions; o != nil && o.DriverConfig != nil {
		m.driver(mt.Source, o.DriverConfig.Name, o.DriverConfig.Options)
	}
	switch mt.Type {
	case mount.TypeBind, mount.TypeNamedPipe:
		if !path.IsAbs(mt.Source) {
			return m.pl.senseless("%s mounts %q of the host", m.name, mt.Source)
		}
		return m.sees(mt.Source, mt.Target)
	case mount.TypeVolume:
		if mt.Source == "" {
			return m.fits(mt.Target, "", false) // an anonymous one
		}
		return m.uses(mt.Source, mt.Target)
	case mount.TypeTmpfs:
	case mount.TypeImage:
		m.add(riskVolume, "it sees the image %s at %s", mt.Source, mt.Target)
	case mount.TypeCluster:
		m.add(riskVolume, "it uses the cluster's volume %s at %s", mt.Source, mt.Target)
	default:
		return m.pl.senseless("%s has a mount of the type %q", m.name, string(mt.Type))
	}
	return nil
}

// sees looks at a path of the host at a target.
func (m *mountReview) sees(source, target string) error {
	source = path.Clean(source)
	if err := m.fits(target, source, true); err != nil {
		return err
	}
	m.path(source, target)
	return nil
}

// uses looks at a volume at a target: one of the archive's. Any other may be another
// app's.
func (m *mountReview) uses(volume, target string) error {
	if m.listed[path.Clean(target)] == nil {
		return m.pl.senseless("%s uses the volume %q at %s, which the archive does not list", m.name, volume, target)
	}
	return m.fits(target, volume, false)
}

// fits holds what is mounted at a target against what the archive lists there.
func (m *mountReview) fits(target, source string, isPath bool) error {
	v := m.listed[path.Clean(target)]
	switch {
	case v == nil, v.Kind == backup.ProjectTree && v.Name == "" && isPath: // the path is looked at for itself
		return nil
	case v.Kind != backup.Tmpfs && isPath == (v.Kind != backup.Named) && source == v.Name:
		return nil
	}
	return m.pl.senseless("%s has %q at %s, where the archive lists the volume %s of the kind %q", m.name, source, target, v.ID, string(v.Kind))
}

// volumes looks at named volumes that are something else behind.
func (r *reviewer) volumes() {
	for i := range r.pl.d.Volumes {
		v := &r.pl.d.Volumes[i]
		was := &r.pl.app.Volumes[i]
		if v.Kind != backup.Named || v.Asked || !v.Make {
			continue
		}
		r.driver(v.Name, v.Driver, was.Options)
	}
}

// driver looks at what a volume is made of.
func (r *reviewer) driver(name, driver string, options map[string]string) {
	if driver != "" && driver != "local" {
		for _, k := range sortedKeys(options) {
			if path.IsAbs(options[k]) { // most likely of the host
				r.add(riskVolume, "the volume %s is made by the driver %q of %s", name, driver, options[k])
				return
			}
		}
		r.show(riskVolume, "the volume %s is made by the driver %q", name, driver)
		return
	}
	if len(options) == 0 {
		return
	}
	device, kind := options["device"], strings.ToLower(options["type"])
	bind := slices.ContainsFunc(strings.Split(options["o"], ","), isBindOption)
	switch {
	case bind && r.pl.ownPath(path.Clean(device)):
		r.show(riskPath, "the volume %s is %s of the host", name, device)
	case bind: // whatever its type says
		r.add(riskPath, "the volume %s is %s of the host", name, device)
	case strings.HasPrefix(kind, "nfs"), kind == "cifs", kind == "smb3":
		r.show(riskVolume, "the volume %s is on another machine: %s", name, device)
	case kind == "tmpfs", kind == "" && device == "": // a quota, or the like
	case device == "":
		r.add(riskPath, "the volume %s is mounted by the host: a file system of the type %q", name, kind)
	default:
		r.add(riskPath, "the volume %s is %s of the host", name, device)
	}
}
