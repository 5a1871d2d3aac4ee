package docker

import (
	"path"
	"regexp"
	"strings"

	"github.com/dentropy/dentropycloud/backup"
)

// pulledBy is how an image is pulled again: by what it is, never by a tag, which would
// become another image for all apps.
var pulledBy = regexp.MustCompile(`^[^@\s]+@sha(256:[0-9a-f]{64}|512:[0-9a-f]{128})$`)

// ownRepos are the images that this program makes for itself. Who has given one of these
// names to another image would be run in the place of this program.
var ownRepos = []string{helperRepo, layerRepo, undoRepo}

// ownRef reports whether a reference is one of this program's own images.
func ownRef(ref string) bool {
	ref, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		ref = ref[:i]
	}
	for _, registry := range []string{"docker.io/", "index.docker.io/"} {
		ref = strings.TrimPrefix(ref, registry)
	}
	ref = strings.TrimPrefix(ref, "library/")
	for _, own := range ownRepos {
		if ref == own {
			return true
		}
	}
	return false
}

// checkVolume refuses volumes that no capture has written.
func (pl *planner) checkVolume(v *backup.Volume) error {
	absolute := path.IsAbs(v.Name) && path.Clean(v.Name) == v.Name
	var ok bool
	switch v.Kind {
	case backup.Named, backup.Anonymous:
		ok = v.Name != "" && !path.IsAbs(v.Name) // what else an engine would not take can be renamed
	case backup.Bind, backup.BindFile:
		ok = absolute
	case backup.ProjectTree:
		ok = absolute && pl.app.Project != nil && pl.app.Project.Dir == v.Name
	case backup.Tmpfs:
		ok = pl.m.Trees[v.ID] == nil
	default:
		return pl.senseless("the volume %s is of the kind %q, which is not known", v.ID, string(v.Kind))
	}
	if !ok {
		return pl.senseless("%q cannot be a volume of the kind %q", v.Name, string(v.Kind))
	}
	return nil
}

// checkImages refuses ids and digests of images that are names: what is removed, looked
// for or pulled by such would be somebody else's.
func (pl *planner) checkImages() error {
	for i := range pl.app.Images {
		im := &pl.app.Images[i]
		if !isImageID(im.ID) {
			return pl.senseless("%q cannot be the id of an image", im.ID)
		}
		for _, d := range im.Digests {
			if !pulledBy.MatchString(d) {
				return pl.senseless("%q cannot be the digest of an image", d)
			}
		}
	}
	for i := range pl.app.Containers {
		c := &pl.app.Containers[i]
		if !isImageID(c.ImageID) || c.Layer.ImageID != "" && !isImageID(c.Layer.ImageID) {
			return pl.senseless("%q cannot be the id of the image of %s", c.ImageID, c.Name)
		}
	}
	return nil
}
