package docker

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
)

// The kinds of risks. Those of the second group are shown only, and always allowed: they
// do not reach further than any container does. A kind of the first group needs
// acceptance unless its text says why it does not: the app's own paths in the project's
// folder, capabilities that do no harm, and what the answers themselves have named.
const (
	riskPrivileged = "privileged"
	riskPath       = "host-path"
	riskSocket     = "docker-socket"
	riskNetwork    = "host-network"
	riskPID        = "host-pid"
	riskIPC        = "host-ipc"
	riskUsers      = "host-users"
	riskDevice     = "device"
	riskCapability = "capability"
	riskSecurity   = "security-opt"
	riskVolume     = "volume-driver"
	riskRuntime    = "runtime"
	riskCgroup     = "cgroup"
	riskSetID      = "setuid"

	riskPort   = "host-port"
	riskSysctl = "sysctl"
	riskHook   = "hook"
	riskUTS    = "host-name"
)

// acceptAll accepts every kind.
const acceptAll = "all"

// harmlessCaps are capabilities that a container has by itself, or that give it no way
// out.
var harmlessCaps = []string{
	"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW", "SETFCAP",
	"SETGID", "SETPCAP", "SETUID", "SYS_CHROOT", "IPC_LOCK", "LEASE", "NET_BROADCAST", "SYS_NICE", "SYS_RESOURCE", "WAKE_ALARM",
	"BLOCK_SUSPEND",
}

// sockets are files and folders by which an engine, or the machine, is ruled.
var engineSockets = []string{
	"/var/run/docker.sock", "/run/docker.sock", "/var/run/docker", "/run/docker", "/run/containerd", "/var/run/containerd",
	"/run/podman", "/var/run/podman", "/run/crio", "/var/run/crio", "/run/systemd", "/var/run/systemd", "/run/dbus", "/var/run/dbus",
}

// risks collects what reaches beyond the app. It is read from the requests as the engine
// will get them, not from what the archive says about itself.
func (pl *planner) risks() error {
	for i := range pl.d.Containers {
		cp := &pl.d.Containers[i]
		c := pl.container(cp.Was)
		req, err := pl.request(c, cp)
		if err != nil {
			return err
		}
		r := &reviewer{pl: pl, name: cp.Name}
		r.isolation(&req.HostConfig)
		r.networks(req)
		r.privileges(&req.HostConfig)
		r.devices(&req.HostConfig)
		if err := r.mounts(c, &req.HostConfig); err != nil {
			return err
		}
		r.shown(&req.Config, &req.HostConfig)
		for _, k := range pl.settings[cp.Was].unknown() {
			pl.warn("%s has the setting %s, which this program does not know: it cannot say what it does", cp.Name, k)
		}
	}
	r := &reviewer{pl: pl}
	r.projectDir()
	r.volumes()
	r.special()
	return nil
}

// reviewer looks at one container.
type reviewer struct {
	pl   *planner
	name string
}

// add notes a risk that needs acceptance.
func (r *reviewer) add(kind, format string, args ...any) {
	r.note(backup.Risk{
		Kind: kind, Container: r.name, Text: fmt.Sprintf(format, args...),
		Allowed: slices.Contains(r.pl.ans.Allow, kind) || slices.Contains(r.pl.ans.Allow, acceptAll),
	})
}

// show notes a risk that is shown only.
func (r *reviewer) show(kind, format string, args ...any) {
	r.note(backup.Risk{Kind: kind, Container: r.name, Text: fmt.Sprintf(format, args...), Allowed: true})
}

func (r *reviewer) note(risk backup.Risk) {
	if !slices.Contains(r.pl.p.Risks, risk) {
		r.pl.p.Risks = append(r.pl.p.Risks, risk)
	}
}

// isolation looks at namespaces that are not the container's own.
func (r *reviewer) isolation(h *container.HostConfig) {
	foreign := func(mode string) (string, bool) {
		ref, ok := strings.CutPrefix(mode, "container:")
		return ref, ok && !r.pl.isNew(ref)
	}
	if h.NetworkMode == "host" {
		r.add(riskNetwork, "it is on the host's own network, and reaches all that listens on the host alone")
	}
	if ref, ok := foreign(string(h.NetworkMode)); ok {
		r.add(riskNetwork, "it uses the network of the container %q, which is not in the archive", ref)
	} else if strings.HasPrefix(string(h.NetworkMode), "ns:") {
		r.add(riskNetwork, "it uses a network namespace of the host: %q", string(h.NetworkMode))
	}
	if h.PidMode == "host" {
		r.add(riskPID, "it sees all processes of the host, and with root's rights may enter them")
	} else if ref, ok := foreign(string(h.PidMode)); ok {
		r.add(riskPID, "it sees the processes of the container %q, which is not in the archive", ref)
	}
	if h.IpcMode == "host" {
		r.add(riskIPC, "it shares memory with processes of the host")
	} else if ref, ok := foreign(string(h.IpcMode)); ok {
		r.add(riskIPC, "it shares memory with the container %q, which is not in the archive", ref)
	}
	if h.UsernsMode == "host" {
		r.add(riskUsers, "its root is the host's root")
	}
	for _, v := range h.VolumesFrom {
		ref, _, _ := strings.Cut(v, ":")
		if !r.pl.isNew(ref) {
			r.add(riskPath, "it uses all volumes of the container %q, which is not in the archive", ref)
		}
	}
	if h.UTSMode == "host" {
		r.show(riskUTS, "it uses the host's name")
	}
	if h.CgroupnsMode == "host" && !r.pl.f.hostCgroups {
		r.show(riskCgroup, "it sees the host's cgroups")
	}
	if h.CgroupParent != "" {
		r.add(riskCgroup, "it runs in the cgroup %q of the host", h.CgroupParent)
	}
	if h.Cgroup != "" {
		r.add(riskCgroup, "it shares the cgroup %q", string(h.Cgroup))
	}
}

// privileges looks at what its processes may do.
func (r *reviewer) privileges(h *container.HostConfig) {
	if h.Privileged {
		r.add(riskPrivileged, "it is privileged: it can do everything that the host's root can")
	}
	for _, c := range h.CapAdd {
		name := strings.TrimPrefix(strings.ToUpper(c), "CAP_")
		if slices.Contains(harmlessCaps, name) {
			r.show(riskCapability, "it has the capability %s", name)
			continue
		}
		r.add(riskCapability, "it has the capability %s", name)
	}
	for _, o := range h.SecurityOpt {
		low := strings.ToLower(strings.Replace(o, ":", "=", 1))
		key, value, _ := strings.Cut(low, "=")
		switch {
		case key == "no-new-privileges", key == "label" && (value != "disable" || h.Privileged), key == "credentialspec":
			// An engine gives privileged containers label=disable by itself.
		case key == "seccomp" && strings.HasPrefix(strings.TrimSpace(value), "{"):
			r.add(riskSecurity, "it brings a seccomp profile of its own, which may allow any system call")
		case key == "apparmor" && value == "docker-default", key == "seccomp" && (value == "builtin" || value == "default"):
		default:
			r.add(riskSecurity, "it loosens its isolation: %s", shorten(o))
		}
	}
	if !h.Privileged && (h.MaskedPaths != nil && len(h.MaskedPaths) == 0 || h.ReadonlyPaths != nil && len(h.ReadonlyPaths) == 0) {
		r.add(riskSecurity, "it sees parts of /proc and /sys that are hidden otherwise")
	}
	switch h.Runtime {
	case "", "runc", "io.containerd.runc.v2":
	default:
		r.add(riskRuntime, "it is run by %q", h.Runtime)
		if len(r.pl.f.runtimes) > 0 && !slices.Contains(r.pl.f.runtimes, h.Runtime) {
			r.pl.warn("%s wants the runtime %s, which the engine does not have", r.name, h.Runtime)
		}
	}
}

// shorten cuts a long text for display.
func shorten(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

func (r *reviewer) devices(h *container.HostConfig) {
	for _, d := range h.Devices {
		r.add(riskDevice, "it has the device %s", d.PathOnHost)
	}
	for _, rule := range h.DeviceCgroupRules {
		r.add(riskDevice, "it has the devices %q", rule)
	}
	for _, q := range h.DeviceRequests {
		r.add(riskDevice, "it wants devices of %q: %s", q.Driver, strings.Join(append(slices.Clone(q.DeviceIDs), slices.Concat(q.Capabilities...)...), ", "))
	}
}

// shown are settings that a user may want to know of.
func (r *reviewer) shown(cfg *container.Config, h *container.HostConfig) {
	const system = 1024
	for _, port := range sortedPorts(h.PortBindings) {
		for _, b := range h.PortBindings[port] {
			n, _, ok := portRange(b.HostPort)
			if ok && n > 0 && n < system && (b.HostIP == "" || b.HostIP == "0.0.0.0" || b.HostIP == "::") {
				r.show(riskPort, "it takes port %s/%s on all addresses of the host", b.HostPort, port.Proto())
			}
		}
	}
	for _, k := range sortedKeys(h.Sysctls) {
		r.show(riskSysctl, "it sets %s", k)
	}
	for _, l := range sortedKeys(cfg.Labels) {
		if l == labelPre || l == labelPost || strings.HasPrefix(l, offen) && (strings.HasSuffix(l, "-pre") || strings.HasSuffix(l, "-post")) {
			r.show(riskHook, "its label %s runs a command in it at each backup", l)
		}
	}
}

// planJSON is the plan as it goes into the plan of the interface.
func planJSON(d *detail) (json.RawMessage, error) { return json.Marshal(d) }
