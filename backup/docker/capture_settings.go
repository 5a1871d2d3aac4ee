package docker

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
)

// rawContainer is what an engine says about a container, parts of it as it said them.
type rawContainer struct {
	container.InspectResponse
	config, host map[string]json.RawMessage
	networks     map[string]map[string]json.RawMessage
	platform     string
}

// readContainer reads the answer of an engine. Whatever it holds beyond what is known
// here stays in the raw parts.
func readContainer(in container.InspectResponse, raw []byte) (*rawContainer, error) {
	if in.ContainerJSONBase == nil || in.Config == nil || in.HostConfig == nil || in.State == nil {
		return nil, fmt.Errorf("inspect container: the engine's answer lacks its settings")
	}
	var parts struct {
		Config, HostConfig map[string]json.RawMessage
		NetworkSettings    struct {
			Networks map[string]map[string]json.RawMessage
		}
		Platform string
	}
	if err := json.Unmarshal(raw, &parts); err != nil {
		return nil, fmt.Errorf("inspect container: %w", err)
	}
	return &rawContainer{InspectResponse: in, config: parts.Config, host: parts.HostConfig, networks: parts.NetworkSettings.Networks, platform: parts.Platform}, nil
}

func (r *rawContainer) name() string { return strings.TrimPrefix(r.Name, "/") }

// shortIDLen is how much of a container's id is its host name by default.
const shortIDLen = 12

// settings are a container's Config, HostConfig and Networks as the user set them.
// containerOf gives a container's name by its id or name, networkOf a network's; machine is
// the name of the engine's host.
func (r *rawContainer) settings(containerOf, networkOf func(string) string, machine string) (json.RawMessage, error) {
	short := r.ID[:min(len(r.ID), shortIDLen)]
	switch mode := r.HostConfig.NetworkMode; {
	case mode.IsContainer():
		// They are the other container's and the image's, and an engine refuses to be told.
		for _, key := range []string{"Hostname", "Domainname", "ExposedPorts"} {
			delete(r.config, key)
		}
	case r.Config.Hostname == short, mode.IsHost() && r.Config.Hostname == machine:
		delete(r.config, "Hostname") // it was not set, and the next container has another
	}
	for _, key := range []string{"NetworkMode", "PidMode", "IpcMode"} {
		var mode string
		if json.Unmarshal(r.host[key], &mode) != nil {
			continue
		}
		changed := mode
		if ref, ok := strings.CutPrefix(mode, "container:"); ok {
			changed = "container:" + containerOf(ref)
		} else if key == "NetworkMode" {
			changed = networkOf(mode)
		}
		if changed != mode {
			r.host[key] = quoted(changed)
		}
	}
	if from := r.HostConfig.VolumesFrom; len(from) > 0 {
		changed := slices.Clone(from)
		for i, f := range from {
			ref, mode, _ := strings.Cut(f, ":")
			changed[i] = containerOf(ref)
			if mode != "" {
				changed[i] += ":" + mode
			}
		}
		raw, err := json.Marshal(changed)
		if err != nil {
			return nil, err
		}
		r.host["VolumesFrom"] = raw
	}
	networks := map[string]map[string]json.RawMessage{}
	for name, ep := range r.networks {
		networks[networkOf(name)] = r.endpoint(name, ep, short)
	}
	return json.Marshal(map[string]any{
		"Name": r.name(), "Platform": r.platform, "Config": r.config, "HostConfig": r.host, "Networks": networks,
	})
}

// operational are the fields of a container's place on a network that the engine fills
// in. All others are settings.
var operational = slices.Concat(operationalFields, []string{"MacAddress"})

// endpoint keeps what was set of a container's place on a network.
func (r *rawContainer) endpoint(name string, ep map[string]json.RawMessage, short string) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	for k, v := range ep {
		if !slices.Contains(operational, k) && string(v) != "null" {
			out[k] = v
		}
	}
	var aliases []string
	if json.Unmarshal(out["Aliases"], &aliases) == nil {
		aliases = slices.DeleteFunc(aliases, func(a string) bool {
			return a == short || a == r.Config.Hostname // the engine adds both by itself
		})
		delete(out, "Aliases")
		if len(aliases) > 0 {
			raw, err := json.Marshal(aliases)
			if err == nil {
				out["Aliases"] = raw
			}
		}
	}
	// An engine shows the address that a user asked for in Config; any other was made up,
	// and the next container gets its own.
	mac := r.Config.MacAddress //nolint:staticcheck // it is how the engine says so
	if s := r.NetworkSettings; mac != "" && s != nil && s.Networks[name] != nil {
		mode := string(r.HostConfig.NetworkMode)
		if mode == name || mode == "default" && name == network.NetworkBridge || len(r.networks) == 1 {
			out["MacAddress"] = quoted(mac)
		}
	}
	return out
}

// quoted is a text as JSON.
func quoted(s string) json.RawMessage {
	b, err := json.Marshal(s)
	if err != nil {
		return json.RawMessage(`""`) // a text always becomes JSON
	}
	return b
}

// users are the containers whose namespaces or volumes it uses, or that it is linked
// to: by id or name.
func (r *rawContainer) users() []string {
	var refs []string
	h := r.HostConfig
	for _, mode := range []string{string(h.NetworkMode), string(h.PidMode), string(h.IpcMode)} {
		if ref, ok := strings.CutPrefix(mode, "container:"); ok {
			refs = append(refs, ref)
		}
	}
	for _, f := range h.VolumesFrom {
		ref, _, _ := strings.Cut(f, ":")
		refs = append(refs, ref)
	}
	links := slices.Clone(h.Links)
	if r.NetworkSettings != nil {
		for _, ep := range r.NetworkSettings.Networks {
			if ep != nil {
				links = append(links, ep.Links...)
			}
		}
	}
	for _, l := range links {
		ref, _, _ := strings.Cut(strings.TrimPrefix(l, "/"), ":")
		refs = append(refs, ref)
	}
	return refs
}
