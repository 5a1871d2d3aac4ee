package docker

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// on makes an attachment to a network whose id is "id-<name>".
func on(name, ip string) attachment {
	n := attachment{name: name, id: "id-" + name}
	if a := parseAddr(ip); a.Is6() {
		n.ip6 = a
	} else {
		n.ip4 = a
	}
	return n
}

func published(port int, hostIP string, public int) publication {
	return publication{port, parseAddr(hostIP), public}
}

func TestEndpointFor(t *testing.T) {
	host := place{}
	inside := place{
		inside: true, id: "self", name: "dentropy", networks: map[string]string{"id-web": "web", "id-mesh": "mesh", "id-dark": "dark"},
		gateways: []netip.Addr{netip.MustParseAddr("10.1.0.1")},
	}
	remote := place{remote: "nas.lan"}
	infos := map[string]networkInfo{
		"id-dark": {driver: "bridge", internal: true}, "id-lan": {driver: "macvlan"}, "id-mesh": {driver: "overlay"}, "id-web": {driver: "bridge"},
	}
	vpn := facts{name: "vpn", state: stateRunning, networks: []attachment{on("web", "10.1.0.9")}, published: []publication{published(80, "0.0.0.0", 9080)}}
	hostVPN := facts{name: "vpn", state: stateRunning, mode: "host"}
	dead := facts{name: "vpn", state: stateExited}
	tests := []struct {
		name    string
		c       facts
		net     *facts // default: c itself
		at      place
		port    int    // default: 80
		label   string // network named by a label
		config  string // network named in the configuration
		want    []string
		reason  string // part of the first candidate's
		problem string // part of it
	}{
		{name: "host, default bridge", at: host, c: facts{networks: []attachment{on("bridge", "172.17.0.2")}}, want: []string{"172.17.0.2:80"}, reason: `network "bridge" can be reached from the host`},
		{name: "host, several in order of name", at: host, c: facts{networks: []attachment{on("b", "10.2.0.2"), on("a", "10.3.0.2")}}, want: []string{"10.3.0.2:80", "10.2.0.2:80"}},
		{name: "host, internal last", at: host, c: facts{networks: []attachment{on("dark", "10.9.0.2"), on("web", "10.1.0.2")}}, want: []string{"10.1.0.2:80", "10.9.0.2:80"}},
		{name: "host, published as well", at: host, c: facts{networks: []attachment{on("web", "10.1.0.2")}, published: []publication{published(80, "0.0.0.0", 8080), published(80, "::", 8080)}}, want: []string{"10.1.0.2:80", "127.0.0.1:8080"}},
		{name: "host, published on IPv6 only", at: host, c: facts{published: []publication{published(80, "::", 8080)}}, want: []string{"[::1]:8080"}},
		{name: "host, published on one address", at: host, c: facts{published: []publication{published(80, "192.168.1.4", 8080)}}, want: []string{"192.168.1.4:8080"}, reason: "port 80 is published as 8080"},
		{name: "host, another port published", at: host, c: facts{published: []publication{published(81, "0.0.0.0", 8081)}}, problem: "publish port 80"},
		{name: "host, macvlan", at: host, c: facts{networks: []attachment{on("lan", "192.168.1.77")}}, problem: "no address that can be reached from the host (it is on: lan)"},
		{name: "host, macvlan named by a label", at: host, label: "lan", c: facts{networks: []attachment{on("lan", "192.168.1.77")}}, want: []string{"192.168.1.77:80"}, reason: `network "lan" is named by a label`},
		{name: "host, overlay but published", at: host, c: facts{networks: []attachment{on("mesh", "10.0.1.5")}, published: []publication{published(80, "0.0.0.0", 8080)}}, want: []string{"127.0.0.1:8080"}},
		{name: "IPv6 only", at: host, c: facts{networks: []attachment{on("six", "fd00::5")}}, want: []string{"[fd00::5]:80"}},
		{name: "both families", at: host, c: facts{networks: []attachment{{name: "web", id: "id-web", ip4: netip.MustParseAddr("10.1.0.2"), ip6: netip.MustParseAddr("fd00::5")}}}, want: []string{"10.1.0.2:80"}},
		{name: "no network at all", at: host, c: facts{}, problem: "it is on: none"},

		{name: "inside, shared", at: inside, c: facts{networks: []attachment{on("app", "10.5.0.2"), on("web", "10.1.0.2")}}, want: []string{"10.1.0.2:80"}, reason: `network "web" is shared with our container`},
		{name: "inside, shared overlay", at: inside, c: facts{networks: []attachment{on("mesh", "10.0.1.5")}}, want: []string{"10.0.1.5:80"}},
		{name: "inside, two shared, internal last", at: inside, c: facts{networks: []attachment{on("dark", "10.9.0.2"), on("web", "10.1.0.2")}}, want: []string{"10.1.0.2:80", "10.9.0.2:80"}},
		{name: "inside, same name but another network", at: inside, c: facts{networks: []attachment{{name: "web", id: "other", ip4: netip.MustParseAddr("10.1.0.2")}}}, problem: "no network is shared"},
		{name: "inside, nothing shared", at: inside, c: facts{networks: []attachment{on("app", "10.5.0.2")}}, problem: `no network is shared with our container (it is on: app): run "docker network connect <one of them> dentropy", or publish port 80`},
		{name: "inside, nothing shared but published", at: inside, c: facts{networks: []attachment{on("app", "10.5.0.2")}, published: []publication{published(80, "0.0.0.0", 8080)}}, want: []string{"10.1.0.1:8080"}},
		{name: "inside, published on loopback", at: inside, c: facts{published: []publication{published(80, "127.0.0.1", 8080)}}, problem: "published on 127.0.0.1 only"},
		{name: "inside, a label wins", at: inside, label: "app", c: facts{networks: []attachment{on("app", "10.5.0.2"), on("web", "10.1.0.2")}}, want: []string{"10.5.0.2:80", "10.1.0.2:80"}},

		{name: "label with the project left out", at: host, label: "back", c: facts{labels: map[string]string{labelProject: "shop"}, networks: []attachment{on("a", "10.3.0.2"), on("shop_back", "10.4.0.2")}}, want: []string{"10.4.0.2:80", "10.3.0.2:80"}, reason: `network "shop_back" is named by a label`},
		{name: "label as it is before the project", at: host, label: "back", c: facts{labels: map[string]string{labelProject: "shop"}, networks: []attachment{on("back", "10.3.0.2"), on("shop_back", "10.4.0.2")}}, want: []string{"10.3.0.2:80", "10.4.0.2:80"}},
		{name: "label names an id", at: host, label: "id-b", c: facts{networks: []attachment{on("a", "10.3.0.2"), on("b", "10.4.0.2")}}, want: []string{"10.4.0.2:80", "10.3.0.2:80"}},
		{name: "label names a network that it is not on", at: host, label: "nope", c: facts{networks: []attachment{on("a", "10.3.0.2")}}, want: []string{"10.3.0.2:80"}, reason: `the container is not on network "nope", named by a label`},
		{name: "label wrong and nothing else", at: inside, label: "nope", c: facts{networks: []attachment{on("a", "10.3.0.2")}}, problem: `the container is not on network "nope", named by a label; no network is shared`},
		{name: "configuration", at: host, config: "b", c: facts{networks: []attachment{on("a", "10.3.0.2"), on("b", "10.4.0.2")}}, want: []string{"10.4.0.2:80", "10.3.0.2:80"}, reason: "named in the configuration"},
		{name: "label before configuration", at: host, config: "b", label: "a", c: facts{networks: []attachment{on("a", "10.3.0.2"), on("b", "10.4.0.2")}}, want: []string{"10.3.0.2:80", "10.4.0.2:80"}},

		{name: "remote, published", at: remote, c: facts{networks: []attachment{on("web", "10.1.0.2")}, published: []publication{published(80, "0.0.0.0", 8080), published(80, "::", 8080)}}, want: []string{"nas.lan:8080"}},
		{name: "remote, not published", at: remote, c: facts{networks: []attachment{on("web", "10.1.0.2")}}, problem: "on another machine and port 80 is not published"},
		{name: "remote, published on loopback", at: remote, c: facts{published: []publication{published(80, "127.0.0.1", 8080)}}, problem: "published on 127.0.0.1 only"},

		{name: "host mode from the host", at: host, c: facts{mode: "host", networks: []attachment{{name: "host"}}}, want: []string{"127.0.0.1:80"}, reason: "it uses the host's network"},
		{name: "host mode from a container", at: inside, c: facts{mode: "host"}, want: []string{"10.1.0.1:80"}},
		{name: "host mode from a container without a way out", at: place{inside: true}, c: facts{mode: "host"}, problem: "cannot reach: attach our container to a bridge network"},
		{name: "host mode, remote", at: remote, c: facts{mode: "host"}, want: []string{"nas.lan:80"}},
		{name: "mode none", at: host, c: facts{name: "one", mode: "none"}, problem: `docker network connect <network> one`},
		{name: "mode none, attached later", at: host, c: facts{name: "one", mode: "none", networks: []attachment{on("web", "10.1.0.2")}}, want: []string{"10.1.0.2:80"}},

		{name: "another's network", at: host, net: &vpn, c: facts{mode: "container:x"}, want: []string{"10.1.0.9:80", "127.0.0.1:9080"}, reason: `(it uses the network of container "vpn")`},
		{name: "another's network, inside", at: inside, net: &vpn, c: facts{mode: "container:x"}, want: []string{"10.1.0.9:80", "10.1.0.1:9080"}},
		{name: "another's network, remote", at: remote, net: &vpn, c: facts{mode: "container:x"}, want: []string{"nas.lan:9080"}},
		{name: "another's network is the host's", at: host, net: &hostVPN, c: facts{mode: "container:x"}, want: []string{"127.0.0.1:80"}},
		{name: "another's network, stopped", at: host, net: &dead, c: facts{mode: "container:x"}, problem: `container "vpn", which does not run: start that`},

		{name: "the only port", at: host, port: -1, c: facts{exposed: []int{3000}, networks: []attachment{on("web", "10.1.0.2")}}, want: []string{"10.1.0.2:3000"}},
		{name: "no port", at: host, port: -1, c: facts{networks: []attachment{on("web", "10.1.0.2")}}, problem: "exposes no TCP port"},
		{name: "several ports", at: host, port: -1, c: facts{exposed: []int{80, 443}, networks: []attachment{on("web", "10.1.0.2")}}, problem: "several TCP ports are exposed (80, 443)"},
		{name: "stopped", at: host, c: facts{state: stateExited, networks: []attachment{on("web", "")}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.c.state == "" {
				tt.c.state = stateRunning
			}
			q := ask{c: &tt.c, net: tt.net, port: tt.port, want: tt.label, wantedBy: "by a label"}
			if q.net == nil {
				q.net = &tt.c
			}
			if q.port == 0 {
				q.port = 80
			}
			q.port = max(q.port, 0)
			if q.want == "" {
				q.want, q.wantedBy = tt.config, "in the configuration"
			}
			ep, _ := endpointFor(q, tt.at, infos)
			var got []string
			for _, c := range ep.Candidates {
				got = append(got, c.Address)
				if c.Reason == "" {
					t.Errorf("candidate %s without a reason", c.Address)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("candidates (-want +got):\n%s\nproblem: %s", diff, ep.Problem)
			}
			if len(got) > 0 && !strings.Contains(ep.Candidates[0].Reason, tt.reason) {
				t.Errorf("reason = %q, want it to contain %q", ep.Candidates[0].Reason, tt.reason)
			}
			if !strings.Contains(ep.Problem, tt.problem) || (ep.Problem == "") != (tt.problem == "") {
				t.Errorf("problem = %q, want it to contain %q", ep.Problem, tt.problem)
			}
		})
	}
	t.Run("another's network, unknown", func(t *testing.T) {
		ep, _ := endpointFor(ask{c: &facts{state: stateRunning, mode: "container:" + strings.Repeat("ab", 32)}, port: 80}, host, nil)
		if want := "the network of container abababababab, which does not exist"; !strings.Contains(ep.Problem, want) {
			t.Errorf("problem = %q, want it to contain %q", ep.Problem, want)
		}
	})
}
