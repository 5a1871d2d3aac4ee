package dockerengine_test

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/dentropy/dentropycloud/internal/dockerengine"
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
			if diff := cmp.Diff(tt.want, dockerengine.OwnIDs(fs.FS(root), tt.hostname)); diff != "" {
				t.Errorf("ids (-want +got):\n%s", diff)
			}
		})
	}
}
