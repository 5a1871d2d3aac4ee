package docker

import (
	"maps"
	"slices"

	"github.com/dentropy/dentropycloud/backup"
)

// What Compose (v2.40) does with a volume that is there when it starts a project: one
// whose label config-hash does not fit the compose files it asks to make anew ("data will
// be lost"; with --yes it does not ask). One without that label, or external, it takes as
// it is. So a restored volume that is not as the compose files say has no such label, see
// volumeLabels, and the adapted file says of each volume what it is now: name, driver and
// options, since after a "down --volumes" Compose would make another one otherwise. What is
// not Compose's to make or remove is external.

// volumeKey is what the project's compose files call a volume; "" where that is not known:
// the label of an external one is another project's.
func volumeKey(was *backup.Volume) string {
	if was.Kind != backup.Named || was.External {
		return ""
	}
	return was.Labels[labelComposeVolume]
}

// ownKey is what the adapted file calls a volume that the compose files have no name for,
// or one that is not known.
func ownKey(v *volumePlan) string { return "restored_" + v.ID }

// mounts writes mounts that have become something else. Compose merges by target.
func (y *yamlText) mounts(app *backup.App, d *detail, c *backup.Container) {
	head := false
	for _, m := range c.Mounts {
		i := slices.IndexFunc(app.Volumes, func(v backup.Volume) bool { return v.ID == m.Volume })
		if i < 0 || d.volume(m.Volume) == nil {
			continue
		}
		v, was := d.volume(m.Volume), &app.Volumes[i]
		bind := was.Kind == backup.Bind || was.Kind == backup.BindFile
		becomesBind := v.Kind == backup.Bind || v.Kind == backup.BindFile
		switch {
		case was.Kind == backup.Tmpfs, v.becameNamed():
			continue // compose keeps what a container has there
		case bind && becomesBind && (v.Name == was.Name || moved(d, was.Name) == v.Name):
			continue // a path relative to the project moves with it
		case !bind && !becomesBind && (volumeKey(was) != "" || v.Name == was.Name && !v.Asked):
			continue // its name is written below, or is as it was
		}
		if !head {
			y.line(2, "volumes:")
			head = true
		}
		kind, source := "bind", v.Name
		if !becomesBind {
			kind, source = "volume", ownKey(v)
		}
		y.line(3, "- type: %s", kind)
		y.line(3, "  source: %s", quote(source))
		y.line(3, "  target: %s", quote(m.Target))
		if m.ReadOnly {
			y.line(3, "  read_only: true")
		}
	}
}

// volumes writes what volumes are that are not as the compose files say.
func (y *yamlText) volumes(app *backup.App, d *detail, ans backup.Answers) {
	head := false
	for i := range d.Volumes {
		one := &yamlText{}
		one.volume(d, &d.Volumes[i], &app.Volumes[i], ans)
		if one.b.Len() == 0 {
			continue
		}
		if !head {
			y.line(0, "volumes:")
			head = true
		}
		y.b.WriteString(one.b.String())
	}
}

func (y *yamlText) volume(d *detail, v *volumePlan, was *backup.Volume, ans backup.Answers) {
	if v.Kind != backup.Named || v.becameNamed() || was.Kind == backup.Anonymous {
		return
	}
	key := volumeKey(was)
	asBefore := was.Kind == backup.Named && v.Name == was.Name && !v.Asked
	external := func(key, override string) {
		y.line(1, "%s:%s", quote(key), override)
		y.line(2, "external: true")
		y.line(2, "name: %s", quote(v.Name))
	}
	switch {
	case key == "" && asBefore:
	case key == "": // the mounts name it
		external(ownKey(v), "")
	case !v.Make && !v.Swap && !asBefore: // it was there: somebody else made it
		external(key, " !override")
	case asBefore && d.Project == d.OldProject && !v.ownOptions(d, was):
	default:
		y.line(1, "%s:", quote(key))
		y.line(2, "name: %s", quote(v.Name))
		if v.ownOptions(d, was) {
			y.driver(v, was, ans)
		}
	}
}

// ownOptions reports whether driver and options of a volume cannot be what the compose
// files say: they were answered, or a path in them may be relative to the project's
// folder, which has moved.
func (v *volumePlan) ownOptions(d *detail, was *backup.Volume) bool {
	return v.Asked || len(was.Options) > 0 && d.Dir != d.OldDir
}

// driver writes what a volume was made with, instead of what the compose files say.
func (y *yamlText) driver(v *volumePlan, was *backup.Volume, ans backup.Answers) {
	options := was.Options
	if v.Asked {
		options = answerFor(ans, was).Options
	}
	driver := v.Driver
	if driver == "" {
		driver = "local"
	}
	y.line(2, "driver: %s", quote(driver))
	if len(options) == 0 {
		y.line(2, "driver_opts: !override {}")
		return
	}
	y.line(2, "driver_opts: !override")
	for _, k := range slices.Sorted(maps.Keys(options)) {
		y.line(3, "%s: %s", quote(k), quote(options[k]))
	}
}

// answerFor is the answer about a volume.
func answerFor(ans backup.Answers, v *backup.Volume) backup.VolumeAnswer {
	if a, ok := ans.Volumes[v.ID]; ok {
		return a
	}
	return ans.Volumes[v.Name]
}
