package docker

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/dentropy/dentropycloud/backup"
)

// volumes settles where each volume goes.
func (pl *planner) volumes() error {
	for i := range pl.app.Volumes {
		v := &pl.app.Volumes[i]
		ans := pl.volumeAnswer(v)
		vp := volumePlan{ID: v.ID, Kind: v.Kind, Was: v.Name, Name: v.Name, External: v.External, Driver: v.Driver}
		vp.Fill = v.Action == backup.Include && pl.m.Trees[v.ID] != nil && !ans.Existing && !ans.Empty
		if err := checkVolumeAnswer(v, ans); err != nil {
			return err
		}
		switch {
		case v.Kind == backup.Tmpfs:
			vp.Fill, vp.Driver = false, ""
		case ans.Path != "":
			if vp.Kind != backup.BindFile {
				vp.Kind = backup.Bind
			}
			vp.Name, vp.Driver = path.Clean(ans.Path), ""
			pl.hostPath(v, &vp, ans)
		case v.Kind == backup.ProjectTree:
			vp.Name = pl.d.Dir
			if vp.Name == "" {
				vp.Fill = false
				break
			}
			pl.hostPath(v, &vp, ans)
		case (v.Kind == backup.Bind || v.Kind == backup.BindFile) && ans.Name == "" && ans.Driver == "":
			vp.Name = pl.move(v.Name)
			pl.hostPath(v, &vp, ans)
		default:
			if err := pl.named(v, &vp, ans); err != nil {
				return err
			}
		}
		pl.d.Volumes = append(pl.d.Volumes, vp)
	}
	pl.tellStays()
	return nil
}

// tellStays says what of a folder that is replaced is not.
func (pl *planner) tellStays() {
	for i := range pl.d.Volumes {
		for k := range pl.d.Volumes {
			in, out := &pl.d.Volumes[i], &pl.d.Volumes[k]
			host := func(v *volumePlan) bool { return v.Kind == backup.Bind || v.Kind == backup.BindFile }
			if host(in) && host(out) && !in.Fill && out.Fill && out.Swap && in.Name != out.Name && within(out.Name, in.Name) {
				pl.warn("%s lies in %s, which is replaced, and is not in the archive: it stays as it is", in.Name, out.Name)
			}
		}
	}
}

// volumeAnswer finds the answer about a volume, by its id or its name.
func (pl *planner) volumeAnswer(v *backup.Volume) backup.VolumeAnswer {
	for _, key := range []string{v.ID, v.Name} {
		if a, ok := pl.ans.Volumes[key]; ok && key != "" {
			pl.use("volumes", key)
			return a
		}
	}
	return backup.VolumeAnswer{}
}

func checkVolumeAnswer(v *backup.Volume, a backup.VolumeAnswer) error {
	problem := func(text, hint string) error {
		return &backup.Problem{Message: fmt.Sprintf("volume %s: %s", v.ID, text), Hint: hint, Object: v.ID}
	}
	zero := a.Name == "" && a.Path == "" && a.Driver == "" && !a.Existing && !a.Empty
	switch {
	case zero:
		return nil
	case v.Kind == backup.Tmpfs:
		return problem("it is in memory only, and goes nowhere", "leave the answer out")
	case v.Kind == backup.ProjectTree:
		return problem("the project's folder is not answered as a volume", "use --project-dir")
	case a.Path != "" && (a.Name != "" || a.Driver != ""):
		return problem("a path excludes a name and a driver", "give one of them")
	case a.Path != "" && !strings.HasPrefix(a.Path, "/"):
		return problem(fmt.Sprintf("%q is no absolute path", a.Path), "give a path on the engine's host")
	case a.Name != "" && (!volumeName.MatchString(a.Name) || len(a.Name) > mostEngineName):
		return problem(fmt.Sprintf("%q cannot be the name of a volume", a.Name), "use letters, digits, dot, dash and underscore")
	case v.Kind == backup.BindFile && (a.Name != "" || a.Driver != ""):
		return problem("it is a single file, which a named volume cannot be", "use path:/where/it/goes")
	}
	return nil
}

// named settles a named volume.
func (pl *planner) named(v *backup.Volume, vp *volumePlan, ans backup.VolumeAnswer) error {
	vp.Kind = backup.Named
	switch {
	case ans.Name != "":
		vp.Name = ans.Name
	case v.Kind == backup.Anonymous:
		vp.Name = pl.nameFor(v)
	case v.Kind == backup.Bind:
		vp.Name = volumeNameOf(pl.d.App + "_" + path.Base(v.Name))
	case !v.External:
		vp.Name = pl.derive(v.Name)
	}
	if ans.Driver != "" {
		vp.Driver, vp.Asked = ans.Driver, true
	} else if v.Kind == backup.Bind {
		vp.Driver = ""
	}
	if !volumeName.MatchString(vp.Name) || len(vp.Name) > mostEngineName {
		return &backup.Problem{Message: fmt.Sprintf("%q cannot be the name of a volume", vp.Name), Hint: "give another one: --volume " + v.ID + "=name:NEW", Object: v.ID}
	}
	have, exists := pl.f.volumes[vp.Name]
	key := "volume\x00" + vp.Name
	switch {
	case pl.taken[key]:
		pl.conflict(pl.volumeConflict(v, fmt.Sprintf("two volumes of the archive would be %s", vp.Name)), "")
		return nil
	case exists && (ans.Existing || !vp.Fill && v.Action != backup.Include):
		pl.useExisting(v, vp, ans)
	case exists && !vp.Fill && !ans.Empty:
		// an earlier version of it, of which the archive has no data
	case exists:
		pl.takenVolume(v, vp, have)
	case ans.Existing:
		pl.conflict(pl.volumeConflict(v, fmt.Sprintf("there is no volume %s", vp.Name)), "")
	case v.Action != backup.Include && !ans.Empty && v.External && !vp.Asked:
		c := pl.volumeConflict(v, fmt.Sprintf("the app wants the volume %s, which is not in the archive and not here", vp.Name))
		c.Choices = []string{"--volume " + v.ID + "=empty", "--volume " + v.ID + "=existing:NAME"}
		pl.conflict(c, "")
	default:
		vp.Make = true
		if v.Action == backup.Include && !vp.Fill && !ans.Empty {
			pl.warn("the volume %s is made without data: the archive has none of it", vp.Name)
		}
	}
	pl.taken["volume\x00"+vp.Name] = true
	return nil
}

// useExisting takes a volume that is here as it is. One of another app gives its data
// away: that needs an answer.
func (pl *planner) useExisting(v *backup.Volume, vp *volumePlan, ans backup.VolumeAnswer) {
	vp.Fill = false
	users := pl.f.volumeUsers(vp.Name)
	project := pl.f.volumes[vp.Name].project
	foreign := slices.ContainsFunc(users, func(u string) bool { return u != pl.d.App }) || project != "" && project != pl.d.Project
	if !foreign {
		return
	}
	who := cmp.Or(strings.Join(users, ", "), project)
	c := pl.volumeConflict(v, fmt.Sprintf("the app would use the volume %s, which is %s's", vp.Name, who))
	c.Choices = []string{"--volume " + v.ID + "=existing", "--volume " + v.ID + "=empty", "--volume " + v.ID + "=name:NEW"}
	if ans.Existing {
		pl.conflict(c, "it is shared, as answered")
		return
	}
	pl.conflict(c, "")
}

// takenVolume settles a volume whose name is taken.
func (pl *planner) takenVolume(v *backup.Volume, vp *volumePlan, have volFact) {
	users := pl.f.volumeUsers(vp.Name)
	c := pl.volumeConflict(v, fmt.Sprintf("there is a volume %s already", vp.Name))
	mine := pl.ownUsers(users) && (have.project == "" || have.project == pl.d.Project)
	if !mine && len(users)+len(have.project) > 0 {
		c.Text += ", which is " + cmp.Or(strings.Join(users, ", "), have.project) + "'s"
	}
	swappable := vp.Driver == "" || vp.Driver == have.driver
	plain := cmp.Or(have.driver, "local") == "local" && len(have.options) == 0 && !vp.Asked && len(pl.optionsOf(vp)) == 0
	switch {
	case pl.ans.OnConflict == onReplace && mine && swappable && plain:
		vp.Swap = true
		pl.conflict(c, "its data is set aside, and kept for an undo")
	case pl.ans.OnConflict == onRename:
		vp.Name = pl.freeName(vp.Name, func(s string) bool { _, ok := pl.f.volumes[s]; return ok || pl.taken["volume\x00"+s] })
		vp.Make = true
		pl.conflict(c, "it is restored as "+vp.Name)
	default:
		if pl.ans.OnConflict == onReplace {
			if mine {
				c.Text += ": it is not a plain volume of the driver local, so that it cannot be exchanged"
			}
			c.Choices = slices.DeleteFunc(c.Choices, func(s string) bool { return s == "--on-conflict replace" })
		}
		pl.conflict(c, "")
	}
}

func (pl *planner) optionsOf(vp *volumePlan) map[string]string {
	for i := range pl.app.Volumes {
		if v := &pl.app.Volumes[i]; v.ID == vp.ID && !vp.Asked {
			return v.Options
		}
	}
	return nil
}

func (pl *planner) volumeConflict(v *backup.Volume, text string) backup.Conflict {
	id := "--volume " + v.ID
	return backup.Conflict{
		Kind: "volume", Name: v.ID, Text: text,
		Choices: []string{id + "=name:NEW", id + "=existing", "--on-conflict replace", "--on-conflict rename"},
		Hint:    "choose another name with " + id + "=name:NEW, or keep what is there with " + id + "=existing",
	}
}

// nameFor gives an anonymous volume a name that tells what it is.
func (pl *planner) nameFor(v *backup.Volume) string {
	for _, c := range pl.app.Containers {
		for _, m := range c.Mounts {
			if m.Volume == v.ID {
				return volumeNameOf(pl.containerName(&c) + "_" + strings.Trim(m.Target, "/"))
			}
		}
	}
	return volumeNameOf(pl.d.App + "_" + v.ID)
}

// volumeNameOf makes a text the name of a volume.
func volumeNameOf(s string) string {
	const most = 120
	var b strings.Builder
	for _, r := range s {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-' {
			b.WriteRune(r)
		} else {
			b.WriteByte('_')
		}
	}
	name := strings.TrimLeft(b.String(), "._-")
	return cmp.Or(name[:min(len(name), most)], "volume")
}

// hostPath settles a folder or a file of the host.
func (pl *planner) hostPath(v *backup.Volume, vp *volumePlan, ans backup.VolumeAnswer) {
	have, known := pl.f.paths[vp.Name]
	key := "path\x00" + vp.Name
	c := backup.Conflict{Kind: "path", Name: vp.Name, Choices: []string{
		"--volume " + v.ID + "=path:PATH", "--volume " + v.ID + "=existing", "--on-conflict replace", "--on-conflict rename",
	}}
	c.Hint = "choose another folder, or keep what is there with --volume " + v.ID + "=existing"
	if v.Kind == backup.ProjectTree {
		c.Choices = []string{"--project-dir FOLDER", "--project-dir none", "--on-conflict replace", "--on-conflict rename"}
		c.Hint = "choose another folder with --project-dir"
	}
	switch {
	case pl.taken[key] && vp.Fill:
		c.Text = "two volumes of the archive would be " + vp.Name
		pl.conflict(c, "")
	case !vp.Fill:
		pl.referenced(v, vp, ans, have, known)
	case !known:
		pl.warn("it is not known whether %s is there: it is looked at again before anything is changed", vp.Name)
		vp.Make = true
	case !have.exists || have.dir && have.empty && vp.Kind != backup.BindFile:
		vp.Make = true
	case have.dir == (vp.Kind == backup.BindFile):
		c.Text = fmt.Sprintf("%s is of another kind: a file is no folder", vp.Name)
		c.Choices = c.Choices[:2]
		pl.conflict(c, "")
	case v.Kind == backup.ProjectTree && pl.ans.OnConflict != onRename:
		// Compose files that are there stay: they may have been changed since.
		vp.Swap = pl.ans.OnConflict == onReplace
		how := "what is there stays, and only what is missing is added"
		if vp.Swap {
			how = "files of the archive take the place of those that are there, which are kept for an undo"
		}
		c.Text = vp.Name + " is there already"
		pl.conflict(c, how)
	default:
		pl.takenPath(vp, c)
	}
	pl.taken["path\x00"+vp.Name] = true
}

// takenPath settles a path that holds something.
func (pl *planner) takenPath(vp *volumePlan, c backup.Conflict) {
	users := pl.f.pathUsers(vp.Name)
	c.Text = vp.Name + " is there already"
	mine := pl.ownUsers(users)
	if !mine {
		c.Text += ", and used by " + strings.Join(users, ", ")
	}
	_, system := isSystem(vp.Name, "")
	switch {
	case pl.ans.OnConflict == onReplace && mine && !system:
		vp.Swap = true
		pl.conflict(c, "what is there is set aside, and kept for an undo")
	case pl.ans.OnConflict == onRename:
		base := vp.Name
		vp.Name = pl.freeName(base, func(s string) bool {
			have, known := pl.f.paths[s]
			return s == base || known && have.exists || pl.taken["path\x00"+s] || len(pl.f.pathUsers(s)) > 0
		})
		if vp.Kind == backup.ProjectTree {
			pl.d.Dir = vp.Name
		}
		vp.Make = true
		pl.conflict(c, "it is restored as "+vp.Name)
	default:
		if pl.ans.OnConflict == onReplace {
			c.Choices = slices.DeleteFunc(c.Choices, func(s string) bool { return s == "--on-conflict replace" })
		}
		pl.conflict(c, "")
	}
}

// referenced looks at a path that the archive has no data of.
func (pl *planner) referenced(v *backup.Volume, vp *volumePlan, ans backup.VolumeAnswer, have pathFact, known bool) {
	if v.Kind == backup.ProjectTree {
		return
	}
	switch {
	case known && !have.exists && ans.Empty:
		vp.Make = true
	case known && !have.exists:
		c := backup.Conflict{
			Kind: "path", Name: vp.Name,
			Text:    fmt.Sprintf("the app wants %s of the host, which is not in the archive and not here", vp.Name),
			Choices: []string{"--volume " + v.ID + "=path:PATH", "--volume " + v.ID + "=empty"},
			Hint:    "make it, or name what takes its place: --volume " + v.ID + "=path:/…",
		}
		if vp.Kind == backup.BindFile || strings.HasSuffix(vp.Name, ".sock") {
			c.Choices = c.Choices[:1]
		}
		pl.conflict(c, "")
	case !known:
		pl.warn("the app uses %s of the host, which is not in the archive: see that it is there", vp.Name)
	}
}
