package docker

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/dentropy/dentropycloud/discovery/sourcetest"
)

func TestOwnIDs(t *testing.T) {
	ours, other := strings.Repeat("a1", 32), strings.Repeat("b2", 32)
	tests := []struct {
		name      string
		mountinfo string
		cgroup    string
		hostname  string
		want      []string
	}{
		{name: "nothing", hostname: "server"},
		{
			name:      "Docker",
			mountinfo: "501 500 254:1 /var/lib/docker/containers/" + ours + "/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/vda1 rw\n502 500 254:1 /var/lib/docker/containers/" + ours + "/hostname /etc/hostname rw - ext4 /dev/vda1 rw\n",
			cgroup:    "0::/\n", hostname: ours[:12],
			want: []string{ours, ours[:12]},
		},
		{
			name:      "a host that sees the mounts of its containers",
			mountinfo: "90 30 0:50 / /var/lib/docker/overlay2/" + other + "/merged rw - overlay overlay rw\n91 30 0:51 / /var/lib/docker/containers/" + other + "/mounts/shm rw - tmpfs shm rw\n",
			cgroup:    "0::/system.slice/docker.service\n", hostname: "server",
		},
		{
			name:      "Podman",
			mountinfo: "700 690 0:40 /containers/storage/overlay-containers/" + ours + "/userdata/hosts /etc/hosts rw - tmpfs tmpfs rw\n",
			hostname:  "box", want: []string{ours},
		},
		{name: "control groups of version 1", cgroup: "12:pids:/docker/" + ours + "\n11:cpu:/docker/" + ours + "\n", hostname: "x", want: []string{ours}},
		{name: "systemd's control groups", cgroup: "1:name=systemd:/system.slice/docker-" + ours + ".scope\n", hostname: "x", want: []string{ours}},
		{name: "host name alone", hostname: "0123456789ab", want: []string{"0123456789ab"}},
		{name: "host name that is too long", hostname: "0123456789abc"},
		{name: "broken files", mountinfo: "1 2\n\n", cgroup: "::\n/", hostname: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := fstest.MapFS{}
			for name, text := range map[string]string{"proc/self/mountinfo": tt.mountinfo, "proc/self/cgroup": tt.cgroup} {
				if text != "" {
					root[name] = &fstest.MapFile{Data: []byte(text)}
				}
			}
			if diff := cmp.Diff(tt.want, ownIDs(fs.FS(root), tt.hostname)); diff != "" {
				t.Errorf("ids (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFindPlace(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
	e.AddNetwork(sourcetest.Network{Name: "web", ID: "id-web"})
	ids := e.Load(
		sourcetest.Container{Name: "plain", Networks: []sourcetest.Attachment{{Network: "web", IP: "10.1.0.2", Gateway: "10.1.0.1"}}},
		sourcetest.Container{Name: "in-host-mode", NetworkMode: "host"},
	)
	ids = append(ids, e.Load(sourcetest.Container{Name: "sidecar", NetworkMode: "container:" + ids[0]})...)
	ep, err := resolveEndpoint(Config{Endpoint: e.Endpoint()}, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	conn, err := ep.dial(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.close()
	tests := []struct {
		name       string
		ids        []string
		remote     string
		inside     bool
		wantRemote string
	}{
		{name: "on the host"},
		{name: "on another machine", remote: "nas", wantRemote: "nas"},
		{name: "in a container of another engine", ids: []string{strings.Repeat("c", 64)}, remote: "nas", wantRemote: "nas"},
		{name: "in a container", ids: []string{ids[0]}, inside: true},
		{name: "in a container, by TCP through a socket proxy", ids: []string{ids[0]}, remote: "socket-proxy", inside: true},
		{name: "in a container that uses another's network", ids: []string{ids[2]}, inside: true},
		{name: "in a container that uses the host's network", ids: []string{ids[1]}, remote: "socket-proxy"},
		{name: "second guess", ids: []string{strings.Repeat("c", 64), ids[0][:12]}, inside: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := findPlace(t.Context(), conn, tt.ids, tt.remote)
			if err != nil {
				t.Fatal(err)
			}
			if got.inside != tt.inside || got.remote != tt.wantRemote {
				t.Errorf("place = %+v, want inside %v, remote %q", got, tt.inside, tt.wantRemote)
			}
			if tt.inside && (got.networks["id-web"] != "web" || len(got.gateways) != 1 || got.gateways[0].String() != "10.1.0.1") {
				t.Errorf("networks %v and gateways %v, want web and 10.1.0.1", got.networks, got.gateways)
			}
		})
	}
	e.Break(sourcetest.PathInspect, sourcetest.Fault{Status: 500, Message: "broken"})
	if _, err := findPlace(t.Context(), conn, ids[:1], ""); err == nil {
		t.Error("findPlace with a broken engine succeeded, want an error: unknown is not the host")
	}
}
