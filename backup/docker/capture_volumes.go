package docker

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"

	"github.com/dentropy/dentropycloud/backup"
)

// The classes of volumes.
const (
	classData    = "data"
	classProject = "project"
	classSystem  = "system"
	classShared  = "shared"
)

// reasonAsked is why a volume is included that would not be by itself, or not wholly.
const reasonAsked = "included as asked"

// systemPaths belong to the host, with all below them. systemRoots do so themselves
// only: below them is room for data.
var (
	systemPaths = []string{
		"/dev", "/proc", "/sys", "/run", "/var/run", "/boot", "/lib", "/lib64", "/lib/modules", "/bin", "/sbin", "/usr",
		"/etc/localtime", "/etc/timezone", "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/machine-id", "/etc/hostname", "/etc/hosts",
		"/etc/resolv.conf", "/etc/ssl", "/etc/ca-certificates", "/etc/pki", "/etc/os-release", "/var/lib/docker", "/var/lib/containerd", "/var/lib/kubelet",
		"/var/lib/containers", "/snap", "/tmp/.X11-unix",
	}
	systemRoots = []string{"/", "/etc", "/var", "/var/lib", "/var/log", "/home", "/root", "/opt", "/srv", "/mnt", "/media", "/tmp"}
)

// notSystem are below systemPaths and yet hold what people put there.
var notSystem = []string{"/usr/local", "/usr/src"}

// within reports whether p is dir or below it.
func within(dir, p string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

// isSystem reports whether a path of the host is the system's, and why. dataRoot is
// where the engine keeps its own.
func isSystem(p, dataRoot string) (reason string, yes bool) {
	switch {
	case strings.HasSuffix(p, ".sock"):
		return "a socket of the host", true
	case dataRoot != "" && within(dataRoot, p):
		return "the engine's own data", true
	case slices.Contains(systemRoots, p):
		return "too much of the host to be this app's: name a folder below it", true
	}
	for _, s := range notSystem {
		if p != s && within(s, p) {
			return "", false
		}
	}
	for _, s := range systemPaths {
		if within(s, p) {
			return "it belongs to the host's system", true
		}
	}
	return "", false
}

// use is a mount of a container.
type use struct {
	mount container.MountPoint
	by    string // the container's name
	label string // its service, or its name
}

// otherUse is a mount of another app.
type otherUse struct {
	app string
	rw  bool
}

// othersOf collects what other apps mount, by the name of the volume or the path.
func othersOf(groups []group) map[string][]otherUse {
	out := map[string][]otherUse{}
	for _, g := range groups {
		seen := map[string]int{}
		for _, s := range g.members {
			for _, m := range s.Mounts {
				key := mountKey(m)
				if key == "" {
					continue
				}
				if i, ok := seen[key]; ok {
					out[key][i].rw = out[key][i].rw || m.RW
					continue
				}
				seen[key] = len(out[key])
				out[key] = append(out[key], otherUse{app: g.name, rw: m.RW})
			}
		}
	}
	return out
}

// mountKey names what is mounted: a volume or a path of the host.
func mountKey(m container.MountPoint) string {
	switch m.Type {
	case mount.TypeVolume:
		return m.Name
	case mount.TypeBind:
		if !strings.HasPrefix(m.Source, "/") {
			return ""
		}
		return path.Clean(m.Source)
	}
	return ""
}

// volumeFacts are what is known about the host beside mounts.
type volumeFacts struct {
	project  *backup.Project
	dataRoot string
	others   map[string][]otherUse
	opts     backup.CaptureOptions
	// isFile reports of a bind mount whether it is one file.
	isFile func(use) bool
}

// volumesOf makes the volumes of an app of its containers' mounts, and each container's
// mounts of those, by its name.
func volumesOf(uses []use, f volumeFacts) (volumes []backup.Volume, mounts map[string][]backup.Mount, warnings []string) {
	mounts = map[string][]backup.Mount{}
	ids := idMaker{}
	byKey := map[string]int{}
	rw := map[string]bool{}
	for _, u := range uses {
		if key := mountKey(u.mount); key != "" {
			rw[key] = rw[key] || u.mount.RW
		}
	}
	for _, u := range uses {
		key := mountKey(u.mount)
		if key == "" { // one for each: a tmpfs, an image
			key = u.by + "\x00" + u.mount.Destination
		}
		i, ok := byKey[key]
		if !ok {
			v := newVolume(u)
			w := classify(&v, rw[key], f, u)
			warnings = append(warnings, w...)
			v.ID = ids.make(volumeLabel(&v, u))
			i = len(volumes)
			byKey[key] = i
			volumes = append(volumes, v)
		}
		mounts[u.by] = append(mounts[u.by], backup.Mount{Volume: volumes[i].ID, Target: u.mount.Destination, ReadOnly: !u.mount.RW})
	}
	if f.project != nil {
		volumes = append(volumes, projectVolumes(f, volumes, ids)...)
	}
	for _, list := range mounts {
		slices.SortFunc(list, func(a, b backup.Mount) int { return cmp.Compare(a.Target, b.Target) })
	}
	return volumes, mounts, warnings
}

// newVolume says what a mount is.
func newVolume(u use) backup.Volume {
	switch m := u.mount; m.Type {
	case mount.TypeVolume:
		kind := backup.Named
		if isAnonymous(m.Name) {
			kind = backup.Anonymous
		}
		return backup.Volume{Kind: kind, Name: m.Name, Driver: m.Driver}
	case mount.TypeBind:
		return backup.Volume{Kind: backup.Bind, Name: path.Clean(m.Source)}
	default:
		return backup.Volume{Kind: backup.Tmpfs, Name: m.Destination, Driver: string(m.Type)}
	}
}

// isAnonymous reports whether an engine made up the name of a volume.
func isAnonymous(name string) bool {
	const digits = 64
	return len(name) == digits && strings.Trim(name, "0123456789abcdef") == ""
}

// classify decides what becomes of a volume's data, and why. rw says that the app
// writes to it.
func classify(v *backup.Volume, rw bool, f volumeFacts, u use) (warnings []string) {
	v.Class, v.Action, v.Reason = classData, backup.Include, "the app's data"
	if v.Kind == backup.Tmpfs {
		v.Class, v.Action, v.Reason = classSystem, backup.Skip, "what is in memory is not kept"
		if v.Driver != string(mount.TypeTmpfs) {
			v.Action, v.Reason = backup.Reference, "a mount of type "+v.Driver+" is made again"
		}
		return nil
	}
	others := f.others[v.Name]
	anyRW := false
	for _, o := range others {
		v.UsedBy = append(v.UsedBy, o.app)
		anyRW = anyRW || o.rw
	}
	slices.Sort(v.UsedBy)
	if v.Kind == backup.Bind {
		if f.isFile != nil && f.isFile(u) {
			v.Kind = backup.BindFile
		}
		system, isSys := isSystem(v.Name, f.dataRoot)
		switch {
		case isSys:
			v.Class, v.Action, v.Reason = classSystem, backup.Reference, system
		case len(others) > 0 && (anyRW || !rw):
			v.Class, v.Action = classShared, backup.Reference
			v.Reason = "also used by " + strings.Join(v.UsedBy, ", ") + ": include it with --include " + shellWord(v.Name)
			warnings = append(warnings, fmt.Sprintf("%s is not in the backup: %s", v.Name, v.Reason))
		case f.project != nil && f.project.Dir != "" && within(f.project.Dir, v.Name):
			v.Reason = "the app's data, in the project's folder"
		}
	} else if len(others) > 0 {
		v.Class, v.Reason = classShared, "also used by "+strings.Join(v.UsedBy, ", ")
		if anyRW {
			warnings = append(warnings, fmt.Sprintf("the volume %s is also used by %s: what they write while it is read may be torn", v.Name, strings.Join(v.UsedBy, ", ")))
		}
	}
	switch {
	case named(f.opts.ExcludePaths, v, u):
		v.Action, v.Reason = backup.Skip, "left out as asked"
	case named(f.opts.IncludePaths, v, u):
		v.Action, v.Reason = backup.Include, reasonAsked
	}
	return warnings
}

// named reports whether a list of the user's names a volume: by its name or path, or by
// where it is mounted as "container:/path".
func named(list []string, v *backup.Volume, u use) bool {
	return slices.ContainsFunc(list, func(s string) bool {
		if strings.HasPrefix(s, "/") {
			return path.Clean(s) == v.Name
		}
		return s == v.Name || s == u.by+":"+u.mount.Destination || s == u.label+":"+u.mount.Destination
	})
}

// volumeLabel is what a volume is called in the archive, before it is made unique.
func volumeLabel(v *backup.Volume, u use) string {
	switch v.Kind {
	case backup.Named:
		return v.Name
	case backup.Bind, backup.BindFile:
		return cmp.Or(path.Base(v.Name), "bind")
	default:
		return u.label + "-" + path.Base(u.mount.Destination)
	}
}

// idMaker makes ids that are unique in an app.
type idMaker map[string]bool

// make makes a text an id: [a-z0-9][a-z0-9._-]*.
func (m idMaker) make(s string) string {
	const most = 60 // members of archives are called after it
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) {
			b.WriteRune(r)
		} else {
			b.WriteByte('-')
		}
	}
	id := strings.Trim(b.String(), "._-")
	id = strings.TrimRight(id[:min(len(id), most)], "._-")
	if id == "" {
		id = "volume"
	}
	base := id
	for n := 2; m[id]; n++ {
		id = fmt.Sprintf("%s-%d", base, n)
	}
	m[id] = true
	return id
}

// hostPath is where a volume lies on the engine's host, "" where that is the engine's
// business.
func hostPath(v *backup.Volume) string {
	switch v.Kind {
	case backup.Bind, backup.BindFile, backup.ProjectTree:
		return v.Name
	case backup.Named, backup.Anonymous:
		device := v.Options["device"]
		if v.Driver == "local" && strings.HasPrefix(device, "/") && slices.ContainsFunc(strings.Split(v.Options["o"], ","), isBindOption) {
			return path.Clean(device)
		}
	}
	return ""
}

func isBindOption(o string) bool { return o == "bind" || o == "rbind" }

// nest takes folders that are volumes of their own out of those that they lie in.
func nest(volumes []backup.Volume) {
	for i := range volumes {
		outer := &volumes[i]
		dir := hostPath(outer)
		if dir == "" || outer.Action != backup.Include {
			continue
		}
		for j := range volumes {
			inner := &volumes[j]
			p := hostPath(inner)
			if i == j || p == "" || p == dir || !within(dir, p) {
				continue
			}
			if inner.Kind == backup.ProjectTree && inner.Action != backup.Include {
				continue
			}
			if outer.Exclude == nil {
				outer.Exclude = map[string]string{}
			}
			outer.Exclude[strings.TrimPrefix(p, strings.TrimSuffix(dir, "/")+"/")] = "volume " + inner.ID
		}
	}
}
