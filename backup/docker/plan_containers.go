package docker

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/dentropy/dentropycloud/backup"
)

// containerName gives a container's new name, before it is held against those that are
// there.
func (pl *planner) containerName(c *backup.Container) string {
	if name := pl.ans.Containers[c.Name]; name != "" {
		return name
	}
	if pl.app.Kind == kindContainer {
		return pl.d.App
	}
	return pl.derive(c.Name)
}

// containers settles names, images and state of the containers.
func (pl *planner) containers() error {
	for i := range pl.app.Containers {
		c := &pl.app.Containers[i]
		if pl.ans.Containers[c.Name] != "" {
			pl.use("containers", c.Name)
		}
		cp := containerPlan{Was: c.Name, Name: pl.containerName(c), ImageID: c.ImageID, Set: map[string]string{}}
		if !volumeName.MatchString(cp.Name) || len(cp.Name) > mostEngineName {
			return &backup.Problem{Message: fmt.Sprintf("%q cannot be the name of a container", cp.Name), Hint: "give another one: --rename " + c.Name + "=NEW", Object: c.Name}
		}
		switch c.State {
		case backup.Running, backup.Restarting:
			cp.Start = true
		case backup.Paused:
			cp.Start, cp.Paused = true, true
		}
		pl.takenName(c, &cp)
		pl.taken["container\x00"+cp.Name] = true
		cp.Image = pl.imageFor(c)
		if pl.app.Kind == kindGroup && pl.d.App != pl.app.Name {
			cp.Set[labelApp] = pl.d.App
		}
		pl.d.Containers = append(pl.d.Containers, cp)
	}
	return nil
}

// takenName settles a container's name that is taken.
func (pl *planner) takenName(c *backup.Container, cp *containerPlan) {
	have := pl.f.named(cp.Name)
	if have == nil { // an engine takes the beginning of an id for a name
		have = pl.f.withID(cp.Name)
	}
	ours := pl.taken["container\x00"+cp.Name]
	if !ours && (have == nil || pl.isOld(have.id)) {
		return
	}
	conflict := backup.Conflict{
		Kind: "container", Name: cp.Name,
		Choices: []string{"--rename " + c.Name + "=NEW", "--on-conflict rename"},
		Hint:    "give another name: --rename " + c.Name + "=NEW",
	}
	switch {
	case ours:
		conflict.Text = fmt.Sprintf("two containers of the archive would be %s", cp.Name)
	case have.app == pl.d.App:
		// It is part of the app that is here: that is a conflict already.
		if pl.ans.OnConflict != onRename {
			return
		}
		conflict.Text = fmt.Sprintf("there is a container %s already", cp.Name)
	default:
		conflict.Text = fmt.Sprintf("there is a container %s already, which is %s's", cp.Name, cmp.Or(have.app, "nobody"))
	}
	if pl.ans.OnConflict != onRename {
		pl.conflict(conflict, "")
		return
	}
	cp.Name = pl.freeName(cp.Name, func(s string) bool { return pl.f.named(s) != nil || pl.taken["container\x00"+s] })
	pl.conflict(conflict, "it is restored as "+cp.Name)
}

// images settles where each image comes from.
func (pl *planner) images() error {
	byID := map[string]*backup.Image{}
	for i := range pl.app.Images {
		byID[pl.app.Images[i].ID] = &pl.app.Images[i]
	}
	for i := range pl.app.Containers {
		c := &pl.app.Containers[i]
		id, inside := c.ImageID, false
		if c.Layer.Include && c.Layer.ImageID != "" {
			id, inside = c.Layer.ImageID, true
		}
		if pl.taken["image\x00"+id] {
			continue
		}
		pl.taken["image\x00"+id] = true
		im := byID[id]
		if im == nil {
			im = &backup.Image{ID: id, Include: inside}
			if c.Image != "" && !inside {
				im.Refs = []string{c.Image}
			}
		}
		pl.image(c, im, inside)
		if base := byID[c.ImageID]; inside && base != nil && base.Include && !pl.taken["image\x00"+base.ID] {
			// Compose looks for it by its name, and pulls or builds what it does not find.
			pl.taken["image\x00"+base.ID] = true
			pl.image(c, base, false)
		}
	}
	return nil
}

// image settles one image.
func (pl *planner) image(c *backup.Container, im *backup.Image, layer bool) {
	ip := imagePlan{ID: im.ID, Size: im.Size}
	for _, ref := range im.Refs {
		switch {
		case layer:
		case ownRef(ref):
			pl.warn("the image of %s does not get the name %s: such are this program's own", c.Name, ref)
		default:
			ip.Refs = append(ip.Refs, ref)
		}
	}
	name := cmp.Or(c.Image, im.ID)
	present := pl.f.imageIDs[im.ID]
	for _, d := range im.Digests {
		present = present || pl.f.imageIDs[d]
	}
	why, asked := pl.f.unpullable[im.ID]
	switch {
	case present:
		ip.How = imagePresent
	case im.Include && pl.m.ImagesInside:
		ip.How = imageInside
	case len(im.Digests) > 0 && (!asked || why == ""):
		ip.How, ip.Pull = imagePull, im.Digests[0]
	default:
		pl.conflict(backup.Conflict{
			Kind: "image", Name: name,
			Text: fmt.Sprintf("the image %s is not in the archive, not on the engine, and cannot be pulled%s", name, prefixed(": ", why)),
			Hint: "bring exactly this image to the engine with docker pull or docker load, or make the archive with --image",
		}, "")
	}
	pl.d.Images = append(pl.d.Images, ip)
	if present || im.Platform == "" {
		return
	}
	os, rest, _ := strings.Cut(im.Platform, "/")
	arch, _, _ := strings.Cut(rest, "/")
	arch = goArch(arch)
	fits := pl.f.arch == "" || arch == "" || arch == "unknown" || arch == pl.f.arch ||
		arch == "386" && pl.f.arch == "amd64" || arch == "arm" && pl.f.arch == "arm64"
	if !fits || pl.f.os != "" && os != "" && os != pl.f.os {
		pl.conflict(backup.Conflict{
			Kind: "arch", Name: name,
			Text: fmt.Sprintf("the image %s is for %s, and the engine runs on %s/%s", name, im.Platform, cmp.Or(pl.f.os, "linux"), pl.f.arch),
			Hint: "restore it on an engine of the same architecture; where the engine emulates it, bring the image there with docker load first",
		}, "")
	}
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// imageFor is what a container is made from: the reference that it was made with, as far
// as that means the same image here.
func (pl *planner) imageFor(c *backup.Container) string {
	if c.Layer.Include && c.Layer.ImageID != "" {
		return c.Layer.ImageID
	}
	if c.Image == "" || isImageID(c.Image) || ownRef(c.Image) {
		return c.ImageID
	}
	if id := pl.f.imageRefs[normalRef(c.Image)]; id != "" && id != c.ImageID {
		for i := range pl.app.Images {
			im := &pl.app.Images[i]
			if im.ID != c.ImageID {
				continue
			}
			for _, d := range im.Digests {
				if pl.f.imageIDs[d] && pl.f.imageRefs[d] == id {
					return c.Image // the same image under another engine's id
				}
			}
		}
		pl.warn("%s is another image here than in the archive: %s is made from the archive's, by its id", c.Image, c.Name)
		return c.ImageID
	}
	return c.Image
}

// normalRef gives a reference its tag.
func normalRef(ref string) string {
	if strings.Contains(ref, "@") {
		return ref
	}
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref
	}
	return ref + ":latest"
}

// composeLabels brings compose's labels in line with new names.
func (pl *planner) composeLabels() error {
	d := pl.d
	if d.OldProject == "" {
		return nil
	}
	changedDir := d.Dir != d.OldDir && d.Dir != ""
	d.Override = d.renamed() && d.Dir != ""
	for i := range d.Containers {
		cp := &d.Containers[i]
		labels, err := pl.settings[cp.Was].labels()
		if err != nil {
			return err
		}
		if d.Project != d.OldProject && labels[labelProject] == d.OldProject {
			cp.Set[labelProject] = d.Project
		}
		if changedDir {
			for _, key := range []string{labelWorkingDir, labelConfigFiles, labelEnvFiles} {
				if old := labels[key]; old != "" {
					files := strings.Split(old, ",")
					for i, f := range files {
						files[i] = pl.move(f)
					}
					if now := strings.Join(files, ","); now != old {
						cp.Set[key] = now
					}
				}
			}
		}
		if d.Override && labels[labelConfigFiles] != "" {
			files := cmp.Or(cp.Set[labelConfigFiles], labels[labelConfigFiles])
			override := d.Dir + "/" + overrideFile
			if !strings.HasSuffix(files, override) {
				cp.Set[labelConfigFiles] = files + "," + override
			}
		}
	}
	return nil
}

// overrideFile is the adapted compose file, in the project's folder.
const overrideFile = "compose.dentropy.yaml"
