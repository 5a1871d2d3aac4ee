package docker

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/network"

	"github.com/dentropy/dentropycloud/backup"
)

// networkWish is what the archive says about a network, typed.
type networkWish struct {
	driver   string
	internal bool
	ipv6     bool
	options  map[string]string
	// subnets are those that were set; every bridge has one, and the archive cannot tell
	// whether the user chose it.
	subnets []netip.Prefix
}

// readNetwork reads a network's settings as far as a plan depends on them.
func readNetwork(n *backup.Network) (networkWish, error) {
	w := networkWish{driver: cmp.Or(n.Driver, "bridge")}
	if len(n.Settings) == 0 {
		return w, nil
	}
	var in network.Inspect
	if err := json.Unmarshal(n.Settings, &in); err != nil {
		return w, fmt.Errorf("settings of network %q: %w", n.Name, err)
	}
	w.driver, w.internal, w.ipv6, w.options = cmp.Or(in.Driver, w.driver), in.Internal, in.EnableIPv6, in.Options
	for _, c := range in.IPAM.Config {
		if p, err := netip.ParsePrefix(c.Subnet); err == nil {
			w.subnets = append(w.subnets, p.Masked())
		}
	}
	return w, nil
}

// networks settles what becomes of each network.
func (pl *planner) networks() error {
	for i := range pl.app.Networks {
		n := &pl.app.Networks[i]
		ans, answered := pl.ans.Networks[n.Name]
		if answered {
			pl.use("networks", n.Name)
		}
		np := networkPlan{Was: n.Name, Name: n.Name, Predefined: n.Predefined || isPredefined(n.Name), External: n.External, Static: true}
		if np.Predefined && ans.Name == "" {
			pl.d.Networks = append(pl.d.Networks, np)
			continue
		}
		if np.Predefined {
			np.Predefined = isPredefined(ans.Name)
		}
		want, err := readNetwork(n)
		if err != nil {
			return &backup.Problem{Message: "the archive's settings make no sense: " + err.Error(), Object: n.Name}
		}
		switch {
		case ans.Name != "":
			np.Name = ans.Name
		case !n.External:
			np.Name = pl.derive(n.Name)
		}
		if !volumeName.MatchString(np.Name) || len(np.Name) > mostEngineName {
			return &backup.Problem{Message: fmt.Sprintf("%q cannot be the name of a network", np.Name), Hint: "give another one: --network " + n.Name + "=NEW", Object: n.Name}
		}
		if err := pl.subnetAnswer(&np, want, ans); err != nil {
			return err
		}
		pl.network(n, &np, want, ans)
		pl.d.Networks = append(pl.d.Networks, np)
	}
	return nil
}

func isPredefined(name string) bool {
	return name == network.NetworkBridge || name == network.NetworkHost || name == network.NetworkNone
}

// subnetAnswer takes the answer about a subnet.
func (pl *planner) subnetAnswer(np *networkPlan, want networkWish, ans backup.NetworkAnswer) error {
	switch ans.Subnet {
	case "":
	case subnetAuto:
		np.Subnet, np.Static = subnetAuto, false
	default:
		p, err := netip.ParsePrefix(ans.Subnet)
		if err != nil {
			return &backup.Problem{Message: fmt.Sprintf("%q is no subnet", ans.Subnet), Hint: "give one such as 10.9.0.0/24, or auto", Object: np.Was}
		}
		np.Subnet = p.Masked().String()
		if len(want.subnets) > 0 && slices.Contains(want.subnets, p.Masked()) {
			np.Subnet = "" // as it was
		}
	}
	return nil
}

const subnetAuto = "auto"

// network settles one network that is not the engine's own.
func (pl *planner) network(n *backup.Network, np *networkPlan, want networkWish, ans backup.NetworkAnswer) {
	have := pl.f.network(np.Name)
	flag := "--network " + n.Name
	c := backup.Conflict{
		Kind: "network", Name: np.Name,
		Choices: []string{flag + "=existing", flag + "=NEW", "--on-conflict rename"},
		Hint:    "use the one that is there with " + flag + "=existing, or give another name with " + flag + "=NEW",
	}
	switch {
	case pl.taken["network\x00"+np.Name]:
		// Two networks of the archive become one, as answered.
		np.Make = false
		return
	case have == nil && ans.Existing:
		c.Text, c.Choices = fmt.Sprintf("there is no network %s", np.Name), []string{flag + "=NEW"}
		pl.conflict(c, "")
	case have == nil:
		pl.makeNetwork(n, np, want)
	case ans.Existing || np.External:
		pl.fits(np, have, want)
	default:
		pl.takenNetwork(n, np, want, have, c)
	}
	pl.taken["network\x00"+np.Name] = true
}

// takenNetwork settles a network whose name is taken.
func (pl *planner) takenNetwork(n *backup.Network, np *networkPlan, want networkWish, have *netFact, c backup.Conflict) {
	users := pl.f.usersOf(func(u contFact) bool { return slices.Contains(u.networks, np.Name) })
	foreign := slices.ContainsFunc(users, func(u string) bool { return u != pl.d.App }) || have.project != "" && have.project != pl.d.Project
	c.Text = fmt.Sprintf("there is a network %s already", np.Name)
	same := want.same(have) && np.Subnet == ""
	switch {
	case same && !foreign:
		pl.fits(np, have, want)
	case !foreign && pl.ans.OnConflict == onReplace && want.driver == have.driver && want.internal == have.internal:
		pl.fits(np, have, want)
		np.Subnet = ""
		pl.conflict(c, "it is used as it is")
	case pl.ans.OnConflict == onRename:
		np.Name = pl.freeName(np.Name, func(s string) bool { return pl.f.network(s) != nil || pl.taken["network\x00"+s] })
		pl.conflict(c, "it is made as "+np.Name)
		pl.makeNetwork(n, np, want)
	default:
		if foreign {
			c.Text += ", which is " + cmp.Or(strings.Join(users, ", "), have.project) + "'s"
		} else {
			c.Text += ", with other settings"
		}
		pl.conflict(c, "")
	}
}

// same reports whether a network that is there is what is wished for.
func (w networkWish) same(have *netFact) bool {
	return w.driver == have.driver && w.internal == have.internal && w.ipv6 == have.ipv6 &&
		maps.Equal(w.options, have.options) && slices.Equal(w.subnets, have.subnets)
}

// fits uses a network that is there, and looks whether static addresses fit into it.
func (pl *planner) fits(np *networkPlan, have *netFact, want networkWish) {
	np.Static = len(want.subnets) == 0 || slices.ContainsFunc(want.subnets, func(p netip.Prefix) bool { return slices.Contains(have.subnets, p) })
	if !np.Static {
		pl.dropsStatic(np, "the network "+np.Name+" has another subnet")
	}
}

// dropsStatic warns of each container that loses its static address.
func (pl *planner) dropsStatic(np *networkPlan, why string) {
	for _, c := range pl.app.Containers {
		if ep := pl.settings[c.Name].networks[np.Was]; staticIPs(ep).any() {
			pl.warn("%s gets another address than %s, since %s", c.Name, staticIPs(ep), why)
		}
	}
}

// makeNetwork makes one, and looks whether its subnet is free.
func (pl *planner) makeNetwork(n *backup.Network, np *networkPlan, want networkWish) {
	np.Make = true
	if np.External {
		pl.warn("the network %s was not the app's own: it is made, since there is none here", np.Name)
	}
	switch want.driver {
	case "macvlan", "ipvlan":
		pl.warn("the network %s is on the host's interface %q: see that this host has it, on the same network", np.Name, want.options["parent"])
		return // its subnet is the LAN's on purpose
	case "overlay":
		pl.warn("the network %s is an overlay: it works only on a swarm", np.Name)
		return
	}
	if np.Subnet == subnetAuto {
		pl.dropsStatic(np, "the subnet is chosen by the engine")
		return
	}
	subnets := want.subnets
	if np.Subnet != "" {
		if p, err := netip.ParsePrefix(np.Subnet); err == nil {
			subnets = []netip.Prefix{p}
		}
	}
	for _, p := range subnets {
		by := pl.subnetTaken(p)
		if by == "" {
			pl.taken["subnet\x00"+p.String()] = true
			continue
		}
		flag := "--network " + n.Name
		c := backup.Conflict{
			Kind: "subnet", Name: p.String(), Text: fmt.Sprintf("the subnet %s of the network %s is taken by %s", p, np.Name, by),
			Choices: []string{flag + "=subnet:auto", flag + "=subnet:SUBNET"}, Hint: "let the engine choose with " + flag + "=subnet:auto",
		}
		if !pl.hasStatic(np.Was) || pl.ans.OnConflict == onRename {
			np.Subnet, np.Static = subnetAuto, false
			pl.dropsStatic(np, "its subnet is taken by "+by)
			pl.conflict(c, "the engine chooses another one")
			return
		}
		pl.conflict(c, "")
	}
}

// hasStatic reports whether a container has a static address on a network.
func (pl *planner) hasStatic(network string) bool {
	return slices.ContainsFunc(pl.app.Containers, func(c backup.Container) bool {
		return staticIPs(pl.settings[c.Name].networks[network]).any()
	})
}

// subnetTaken says what overlaps with a prefix, "" for nothing.
func (pl *planner) subnetTaken(p netip.Prefix) string {
	for _, n := range pl.f.networks {
		for _, have := range n.subnets {
			if have.Overlaps(p) {
				return fmt.Sprintf("the network %s (%s)", n.name, have)
			}
		}
	}
	for _, have := range pl.f.lan {
		if have.Overlaps(p) {
			return fmt.Sprintf("the host's network %s", have)
		}
	}
	for k := range pl.taken {
		if s, ok := strings.CutPrefix(k, "subnet\x00"); ok {
			if have, err := netip.ParsePrefix(s); err == nil && have.Overlaps(p) {
				return "another network of the archive"
			}
		}
	}
	return ""
}

// static are a container's fixed addresses on a network.
type static struct {
	IPv4Address string `json:",omitempty"`
	IPv6Address string `json:",omitempty"`
}

func (s static) any() bool { return s.IPv4Address != "" || s.IPv6Address != "" }

func (s static) String() string {
	return strings.TrimSpace(s.IPv4Address + " " + s.IPv6Address)
}

// staticIPs reads the fixed addresses of a container's place on a network.
func staticIPs(ep object) static {
	var s static
	if ep == nil || ep.get("IPAMConfig", &s) != nil {
		return static{}
	}
	return s
}

// moveIP gives an address the same place in another prefix; false where that does not
// hold it.
func moveIP(text string, from []netip.Prefix, to netip.Prefix) (string, bool) {
	ip, err := netip.ParseAddr(text)
	if err != nil || ip.Is4() != to.Addr().Is4() {
		return "", false
	}
	for _, p := range from {
		if !p.Contains(ip) {
			continue
		}
		base, addr, start := p.Masked().Addr().AsSlice(), ip.AsSlice(), to.Masked().Addr().AsSlice()
		out := make([]byte, len(addr))
		carry := 0
		diff := make([]int, len(addr))
		borrow := 0
		for i := len(addr) - 1; i >= 0; i-- {
			v := int(addr[i]) - int(base[i]) - borrow
			borrow = 0
			if v < 0 {
				v, borrow = v+256, 1
			}
			diff[i] = v
		}
		for i := len(addr) - 1; i >= 0; i-- {
			v := int(start[i]) + diff[i] + carry
			carry, out[i] = v>>8, byte(v)
		}
		moved, ok := netip.AddrFromSlice(out)
		return moved.String(), ok && to.Contains(moved)
	}
	return "", false
}
