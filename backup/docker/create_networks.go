package docker

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/dentropy/dentropycloud/backup"
)

// endpoints gives the networks that a container is made with, and those that it is
// connected to afterwards.
func endpoints(c *backup.Container, s *settings, env *bodyEnv) (first map[string]object, more []endpoint, err error) {
	mode := s.host.text("NetworkMode")
	if mode == "host" || mode == "none" || strings.HasPrefix(mode, "container:") || strings.HasPrefix(mode, "ns:") {
		delete(s.config, "MacAddress")
		return nil, nil, nil
	}
	all := map[string]object{}
	for _, was := range sortedKeys(s.networks) {
		np := env.d.network(was)
		if np == nil {
			np = &networkPlan{Was: was, Name: was, Predefined: isPredefined(was), Static: true}
		}
		ep, err := env.endpoint(c, s.networks[was], np)
		if err != nil {
			return nil, nil, fmt.Errorf("network %q: %w", was, err)
		}
		all[np.Name] = ep
	}
	main := mode
	if main == "" || main == "default" {
		main = "bridge"
	}
	multi := !older(env.api, multiEndpoint)
	mac := s.config.text("MacAddress")
	for _, name := range sortedKeys(all) {
		ep := all[name]
		if name == main && mac == "" && !multi && ep.text("MacAddress") != "" {
			mac = ep.text("MacAddress")
			if err := s.config.set("MacAddress", mac); err != nil {
				return nil, nil, err
			}
		}
		if name == main && multi && mac != "" && ep.text("MacAddress") == "" {
			if err := ep.set("MacAddress", mac); err != nil {
				return nil, nil, err
			}
		}
		switch {
		case name == main && isPredefined(name) && len(ep) == 0 && (!multi || len(all) == 1):
			// It is connected to that without a word.
		case name == main || multi:
			if first == nil {
				first = map[string]object{}
			}
			if !multi {
				delete(ep, "MacAddress")
			}
			first[name] = ep
		default:
			more = append(more, endpoint{network: name, config: ep})
		}
	}
	if multi && first != nil && first[main] == nil && !strings.HasPrefix(main, "ns:") {
		// Otherwise the engine would leave out the network that the container is made for.
		first[main] = object{}
	}
	return first, more, nil
}

// operationalFields are what the engine fills in by itself; for archives that hold them.
var operationalFields = []string{
	"NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway",
	"GlobalIPv6Address", "GlobalIPv6PrefixLen", "DNSNames",
}

// endpoint gives a container's place on a network.
func (env *bodyEnv) endpoint(c *backup.Container, was object, np *networkPlan) (object, error) {
	ep := was.clone()
	for _, k := range operationalFields {
		delete(ep, k)
	}
	for k, v := range ep {
		if emptyNull(v) {
			delete(ep, k)
		}
	}
	if np.Predefined || isPredefined(np.Name) {
		for _, k := range []string{"Aliases", "IPAMConfig", "Links"} {
			delete(ep, k) // refused on a predefined network
		}
	} else if err := env.addresses(ep, np); err != nil {
		return nil, err
	}
	var aliases, links []string
	if err := errors.Join(ep.get("Aliases", &aliases), ep.get("Links", &links)); err != nil {
		return nil, err
	}
	if len(aliases) > 0 {
		short := c.ID[:min(len(c.ID), shortIDLen)]
		now := aliases[:0:0]
		for _, a := range aliases {
			if a == c.Name {
				a = env.newName(a)
			}
			if (short == "" || a != short) && !slices.Contains(now, a) {
				now = append(now, a)
			}
		}
		if !slices.Equal(now, aliases) {
			if err := ep.set("Aliases", now); err != nil {
				return nil, err
			}
		}
	}
	if len(links) > 0 {
		for i, l := range links {
			links[i] = env.link(l)
		}
		return ep, ep.set("Links", links)
	}
	return ep, nil
}

// addresses keeps, moves or drops static addresses.
func (env *bodyEnv) addresses(ep object, np *networkPlan) error {
	fixed := staticIPs(ep)
	if !fixed.any() || np.Static && np.Subnet == "" {
		return nil
	}
	ipam := object{}
	if err := ep.get("IPAMConfig", &ipam); err != nil {
		return err
	}
	var from []netip.Prefix
	for i := range env.app.Networks {
		if n := &env.app.Networks[i]; n.Name == np.Was {
			if w, err := readNetwork(n); err == nil {
				from = w.subnets
			}
		}
	}
	to, err := netip.ParsePrefix(np.Subnet)
	for key, old := range map[string]string{"IPv4Address": fixed.IPv4Address, "IPv6Address": fixed.IPv6Address} {
		delete(ipam, key)
		if old == "" || err != nil {
			continue
		}
		if now, ok := moveIP(old, from, to); ok {
			if err := ipam.set(key, now); err != nil {
				return err
			}
		}
	}
	if len(ipam) == 0 {
		delete(ep, "IPAMConfig")
		return nil
	}
	return ep.set("IPAMConfig", ipam)
}
