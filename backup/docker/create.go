package docker

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/dentropy/dentropycloud/backup"
)

// What a new container does not get from the settings of the one that was captured. All
// else is handed on as it came, known to this program or not.
//
//   - Config.Hostname where it is the short id of the old container, or where another
//     namespace decides it; Config.ExposedPorts beside another container's network;
//   - Config.MacAddress and the MacAddress of a network unless the user set it;
//   - Config.Image, HostConfig.NetworkMode, PidMode, IpcMode, VolumesFrom, Links, Binds,
//     Mounts, PortBindings where what they name has another name now;
//   - of the networks the addresses that the engine gave, aliases that an engine made up,
//     and what the predefined networks refuse.

// multiEndpoint is the first API that takes several networks when a container is made,
// and a MAC address for each.
const multiEndpoint = "1.44"

// bodyEnv is what a container's settings are rewritten with.
type bodyEnv struct {
	app *backup.App
	d   *detail
	api string
	// ids are the new containers by their name in the archive.
	ids map[string]string
}

// endpoint is a network that a container is connected to after it was made.
type endpoint struct {
	network string
	config  object
}

// newContainer is the request that makes a container, and what it is connected to
// before it starts.
type newContainer struct {
	body    []byte
	connect []endpoint
}

// createBody makes the request for one container.
func createBody(c *backup.Container, cp *containerPlan, env *bodyEnv) (*newContainer, error) {
	s, err := readSettings(c)
	if err != nil {
		return nil, err
	}
	s = s.clone()
	for _, edit := range []func(*backup.Container, *containerPlan, *settings, *bodyEnv) error{
		editNames, editConfig, editVolumes, editPorts,
	} {
		if err := edit(c, cp, s, env); err != nil {
			return nil, fmt.Errorf("settings of container %q: %w", c.Name, err)
		}
	}
	first, more, err := endpoints(c, s, env)
	if err != nil {
		return nil, fmt.Errorf("settings of container %q: %w", c.Name, err)
	}
	body := s.config
	if err := body.set("HostConfig", s.host); err != nil {
		return nil, err
	}
	if len(first) > 0 {
		if err := body.set("NetworkingConfig", map[string]any{"EndpointsConfig": first}); err != nil {
			return nil, err
		}
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("settings of container %q: %w", c.Name, err)
	}
	return &newContainer{body: raw, connect: more}, nil
}

// resolve gives the new container for a reference to one: by name, id or short id.
func (env *bodyEnv) resolve(ref string) string {
	for i := range env.app.Containers {
		c := &env.app.Containers[i]
		if ref == c.Name || ref == c.ID || len(ref) >= shortIDLen && strings.HasPrefix(c.ID, ref) {
			if id := env.ids[c.Name]; id != "" {
				return id
			}
			for _, cp := range env.d.Containers {
				if cp.Was == c.Name {
					return cp.Name
				}
			}
		}
	}
	return ref
}

// newName gives a container's new name by its old one.
func (env *bodyEnv) newName(name string) string {
	for _, cp := range env.d.Containers {
		if cp.Was == name {
			return cp.Name
		}
	}
	return name
}

// editNames rewrites what refers to other containers and to networks.
func editNames(_ *backup.Container, _ *containerPlan, s *settings, env *bodyEnv) error {
	for _, key := range []string{"NetworkMode", "PidMode", "IpcMode"} {
		mode := s.host.text(key)
		now := mode
		if ref, ok := strings.CutPrefix(mode, "container:"); ok {
			now = "container:" + env.resolve(ref)
		} else if key == "NetworkMode" {
			if np := env.d.network(mode); np != nil {
				now = np.Name
			}
		}
		if now != mode {
			if err := s.host.set(key, now); err != nil {
				return err
			}
		}
	}
	var from []string
	if err := s.host.get("VolumesFrom", &from); err != nil {
		return err
	}
	if len(from) > 0 {
		for i, f := range from {
			ref, mode, hasMode := strings.Cut(f, ":")
			from[i] = env.resolve(ref)
			if hasMode {
				from[i] += ":" + mode
			}
		}
		if err := s.host.set("VolumesFrom", from); err != nil {
			return err
		}
	}
	var links []string
	if err := s.host.get("Links", &links); err != nil {
		return err
	}
	if len(links) > 0 {
		for i, l := range links {
			links[i] = env.link(l)
		}
		return s.host.set("Links", links)
	}
	return nil
}

// link rewrites a link. Engines show "/db:/web/database" for what they take as
// "db:database".
func (env *bodyEnv) link(l string) string {
	target, alias, ok := strings.Cut(l, ":")
	target = strings.TrimPrefix(target, "/")
	if !ok {
		alias = target
	}
	return env.newName(target) + ":" + path.Base(alias)
}

// editConfig rewrites image, host name and labels.
func editConfig(c *backup.Container, cp *containerPlan, s *settings, _ *bodyEnv) error {
	if err := s.config.set("Image", cp.Image); err != nil {
		return err
	}
	mode := s.host.text("NetworkMode")
	host := s.config.text("Hostname")
	switch {
	case c.ID != "" && host == c.ID[:min(len(c.ID), shortIDLen)], strings.HasPrefix(mode, "container:"), s.host.text("UTSMode") == "host":
		delete(s.config, "Hostname") // the engine refuses or overwrites it, or gives another
	}
	if strings.HasPrefix(mode, "container:") {
		// The ports are those of the container whose network it is, and the engine refuses
		// them here, the image's own as well.
		delete(s.config, "ExposedPorts")
		delete(s.config, "Domainname")
	}
	if len(cp.Set)+len(cp.Unset) == 0 {
		return nil
	}
	labels, err := s.labels()
	if err != nil {
		return err
	}
	return s.config.set("Labels", cp.changed(labels))
}

// editPorts publishes ports where the plan says otherwise than the archive.
func editPorts(_ *backup.Container, cp *containerPlan, s *settings, _ *bodyEnv) error {
	if len(cp.Ports) == 0 {
		return nil
	}
	bindings := map[string]json.RawMessage{}
	if err := s.host.get("PortBindings", &bindings); err != nil {
		return err
	}
	for port, list := range cp.Ports {
		if len(list) == 0 {
			delete(bindings, port)
			continue
		}
		raw, err := json.Marshal(list)
		if err != nil {
			return err
		}
		bindings[port] = raw
	}
	return s.host.set("PortBindings", bindings)
}
