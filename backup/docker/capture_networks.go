package docker

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// networks reads the networks that containers of the app are on.
func (c *capture) networks(ctx context.Context) error {
	ids := map[string]string{} // by name
	for _, r := range c.raws {
		if r.NetworkSettings == nil {
			continue
		}
		for name, ep := range r.NetworkSettings.Networks {
			if ids[name] == "" {
				ids[name] = name
				if ep != nil && ep.NetworkID != "" {
					ids[name] = ep.NetworkID
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(ids)) {
		var in network.Inspect
		var raw []byte
		err := c.p.call(ctx, "inspect network "+name, func(ctx context.Context, conn *dockerengine.Conn) (err error) {
			in, raw, err = conn.NetworkInspectWithRaw(ctx, ids[name], network.InspectOptions{})
			if errdefs.IsNotFound(err) { // it was made again under its name since the container was
				in, raw, err = conn.NetworkInspectWithRaw(ctx, name, network.InspectOptions{})
			}
			return err
		})
		if errdefs.IsNotFound(err) {
			c.warn("the network %s does not exist: containers that want it would not start now", name)
			c.app.Networks = append(c.app.Networks, backup.Network{Name: name})
			continue
		}
		if err != nil {
			return err
		}
		n, err := networkOf(in, raw, c.app.Project)
		if err != nil {
			return err
		}
		c.app.Networks = append(c.app.Networks, n)
	}
	slices.SortFunc(c.app.Networks, func(a, b backup.Network) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}

// shownOnly are the fields of a network that are no settings.
var shownOnly = []string{"Id", "Created", "Containers", "Peers", "Services", "Status"}

// networkOf makes a network of what the engine says.
func networkOf(in network.Inspect, raw []byte, project *backup.Project) (backup.Network, error) {
	var settings map[string]json.RawMessage
	if err := json.Unmarshal(raw, &settings); err != nil {
		return backup.Network{}, err
	}
	for _, key := range shownOnly {
		delete(settings, key)
	}
	text, err := json.Marshal(settings)
	if err != nil {
		return backup.Network{}, err
	}
	n := backup.Network{Name: in.Name, Driver: in.Driver, Labels: in.Labels, Settings: text}
	n.Predefined = slices.Contains([]string{network.NetworkBridge, network.NetworkHost, network.NetworkNone}, in.Name)
	n.External = !n.Predefined && (project == nil || in.Labels[labelProject] != project.Name)
	for _, cfg := range in.IPAM.Config {
		if cfg.Subnet != "" {
			n.Subnets = append(n.Subnets, cfg.Subnet)
		}
	}
	return n, nil
}
