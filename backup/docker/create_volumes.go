package docker

import (
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/mount"

	"github.com/dentropy/dentropycloud/backup"
)

// editVolumes makes a container use the planned volumes. Its mounts are known by their
// targets.
func editVolumes(c *backup.Container, _ *containerPlan, s *settings, env *bodyEnv) error {
	planned := map[string]*volumePlan{}
	for _, m := range c.Mounts {
		planned[path.Clean(m.Target)] = env.d.volume(m.Volume)
	}
	covered := map[string]bool{} // targets that Binds and Mounts name
	binds, moved, err := editBinds(s, planned, covered)
	if err != nil {
		return err
	}
	mounts, changed, err := editMounts(s, planned, covered)
	if err != nil {
		return err
	}
	for _, m := range moved {
		mounts, changed = append(mounts, m), true
	}
	inherited, err := inheritsVolumes(s)
	if err != nil {
		return err
	}
	for _, m := range c.Mounts {
		target := path.Clean(m.Target)
		v := planned[target]
		if v == nil || covered[target] || v.Kind == backup.Tmpfs || inherited && env.otherMounts(c, m) {
			continue
		}
		// An anonymous volume: it has a name now.
		added, err := volumeMount(v, m.Target, m.ReadOnly)
		if err != nil {
			return err
		}
		mounts, changed = append(mounts, added), true
	}
	if binds != nil {
		if err := s.host.set("Binds", binds); err != nil {
			return err
		}
	}
	if changed {
		return s.host.set("Mounts", mounts)
	}
	return nil
}

// inheritsVolumes reports whether a container has volumes from others.
func inheritsVolumes(s *settings) (bool, error) {
	var from []string
	err := s.host.get("VolumesFrom", &from)
	return len(from) > 0, err
}

// otherMounts reports whether another container of the app has the same mount, which is
// then inherited.
func (env *bodyEnv) otherMounts(c *backup.Container, m backup.Mount) bool {
	return slices.ContainsFunc(env.app.Containers, func(o backup.Container) bool {
		return o.Name != c.Name && slices.ContainsFunc(o.Mounts, func(x backup.Mount) bool { return x.Volume == m.Volume && x.Target == m.Target })
	})
}

// editBinds rewrites HostConfig.Binds: "source:target[:options]". One that becomes a
// volume of which the data is restored moves to the mounts, if need be. It returns nil
// where nothing changes.
func editBinds(s *settings, planned map[string]*volumePlan, covered map[string]bool) (binds []string, moved []object, err error) {
	var old []string
	if err := s.host.get("Binds", &old); err != nil {
		return nil, nil, err
	}
	changed := false
	for _, b := range old {
		source, target, options := splitBind(b)
		if target == "" { // an anonymous volume in the short form
			binds = append(binds, b)
			continue
		}
		covered[path.Clean(target)] = true
		v := planned[path.Clean(target)]
		if v == nil || v.Name == "" || v.Name == source || v.Kind == backup.Tmpfs {
			binds = append(binds, b)
			continue
		}
		changed = true
		now := v.Name + ":" + target
		if options != "" {
			now += ":" + options
		}
		if strings.Contains(v.Name, ":") { // which would part it
			m, err := volumeMount(v, target, hasOption(options, "ro"))
			if err != nil {
				return nil, nil, err
			}
			moved = append(moved, m)
			continue
		}
		binds = append(binds, now)
	}
	if !changed {
		return nil, moved, nil
	}
	if binds == nil {
		binds = []string{}
	}
	return binds, moved, nil
}

// splitBind takes a bind apart. Options hold no slash, targets begin with one.
func splitBind(b string) (source, target, options string) {
	parts := strings.SplitN(b, ":", 3)
	switch len(parts) {
	case 1:
		return "", "", ""
	case 2:
		return parts[0], parts[1], ""
	}
	return parts[0], parts[1], parts[2]
}

func hasOption(options, want string) bool {
	return slices.Contains(strings.Split(options, ","), want)
}

// editMounts rewrites HostConfig.Mounts.
func editMounts(s *settings, planned map[string]*volumePlan, covered map[string]bool) (mounts []object, changed bool, err error) {
	if err := s.host.get("Mounts", &mounts); err != nil {
		return nil, false, err
	}
	for i, raw := range mounts {
		m, err := canonical(raw, mountFields)
		if err != nil {
			return nil, false, err
		}
		target := m.text("Target")
		covered[path.Clean(target)] = true
		v := planned[path.Clean(target)]
		if v == nil || v.Name == "" || v.Kind == backup.Tmpfs {
			continue
		}
		if v.Kind == backup.Named && m.text("Type") == "volume" {
			dropped, err := dropDriver(m)
			if err != nil {
				return nil, false, err
			}
			if dropped {
				mounts[i], changed = m, true
			}
		}
		if m.text("Source") == v.Name && m.text("Type") == kindOf(v) {
			continue
		}
		if m.text("Type") != kindOf(v) {
			// Options of one kind mean nothing to another.
			var readOnly bool
			if err := m.get("ReadOnly", &readOnly); err != nil {
				return nil, false, err
			}
			if m, err = volumeMount(v, target, readOnly); err != nil {
				return nil, false, err
			}
		} else if err := m.set("Source", v.Name); err != nil {
			return nil, false, err
		}
		mounts[i], changed = m, true
	}
	return mounts, changed, nil
}

// mountFields are the names of a mount's fields that are looked at.
var mountFields = map[string]string{"type": "Type", "source": "Source", "target": "Target", "readonly": "ReadOnly", "volumeoptions": "VolumeOptions"}

// kindOf is the type of mount that a volume needs.
func kindOf(v *volumePlan) string {
	if v.Kind == backup.Named {
		return "volume"
	}
	return "bind"
}

// dropDriver takes the driver out of the mount of a named volume, which is there by the
// time it is mounted: from one that somebody removed in between, an engine would make
// whatever the archive says.
func dropDriver(m object) (dropped bool, err error) {
	options := object{}
	if err := m.get("VolumeOptions", &options); err != nil {
		return false, err
	}
	if options, err = canonical(options, fieldNames[mount.VolumeOptions]()); err != nil {
		return false, err
	}
	if _, ok := options["DriverConfig"]; !ok {
		return false, nil
	}
	delete(options, "DriverConfig")
	return true, m.set("VolumeOptions", options)
}

// volumeMount makes a mount. NoCopy: an engine fills an empty volume with what the image
// has there, and changes its owner; this one holds what it should.
func volumeMount(v *volumePlan, target string, readOnly bool) (object, error) {
	m := object{}
	set := func(key string, value any) error { return m.set(key, value) }
	kind := kindOf(v)
	err := errors.Join(set("Type", kind), set("Source", v.Name), set("Target", target))
	if readOnly {
		err = errors.Join(err, set("ReadOnly", true))
	}
	if kind == "volume" {
		err = errors.Join(err, set("VolumeOptions", map[string]any{"NoCopy": true}))
	}
	return m, err
}
