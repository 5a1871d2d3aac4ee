package docker

import (
	"path"
	"slices"
	"strings"

	"github.com/dentropy/dentropycloud/backup"
)

// path looks at a path of the host that a container sees.
func (r *reviewer) path(p, target string) {
	for _, s := range engineSockets {
		if within(s, p) || p != "/" && within(p, s) {
			r.add(riskSocket, "it sees %s at %s: who rules the engine rules the host", p, target)
			return
		}
	}
	if base := path.Base(p); base == "docker.sock" || base == "containerd.sock" || base == "podman.sock" {
		r.add(riskSocket, "it sees %s at %s: who rules the engine rules the host", p, target)
		return
	}
	switch why, system := isSystem(p, r.pl.f.root); {
	case system:
		r.add(riskPath, "it sees %s of the host at %s (%s)", p, target, why)
	case r.pl.ownPath(p), r.pl.answeredPath(p):
		r.show(riskPath, "it sees %s of the host at %s", p, target)
	default:
		r.add(riskPath, "it sees %s of the host at %s", p, target)
	}
}

// inProject reports whether a path is below the project's folder, and that folder one
// that an archive may choose.
func (pl *planner) inProject(p string) bool {
	return pl.d.Dir != "" && within(pl.d.Dir, p) && (pl.answeredDir() || plainFolder(pl.d.Dir)) && !hidden(strings.TrimPrefix(p, pl.d.Dir))
}

// ownPath reports whether what is at a path is the app's, wherever an archive says that
// its project is: the path is in the project's folder, and the folder is too.
func (pl *planner) ownPath(p string) bool {
	return pl.inProject(p) && (pl.ownDir() || pl.oldSees(p) || pl.filled(p))
}

// answeredDir reports whether the user named the project's folder.
func (pl *planner) answeredDir() bool {
	return pl.ans.ProjectDir != "" && path.Clean(pl.ans.ProjectDir) == pl.d.Dir
}

// ownDir reports whether nothing of others is in the project's folder: the user named it,
// the restore makes it, or it is that of the app that is here and is
// replaced, or in the way. One whose content is not known is another's.
func (pl *planner) ownDir() bool {
	have, known := pl.f.paths[pl.d.Dir]
	return pl.answeredDir() || known && (!have.exists || have.dir && have.empty) ||
		slices.ContainsFunc(pl.f.of(pl.d.App), func(c contFact) bool { return c.dir != "" && c.dir == pl.d.Dir })
}

// oldSees reports whether the app that is here, and is replaced or in the way, sees a path
// already.
func (pl *planner) oldSees(p string) bool {
	return slices.ContainsFunc(pl.f.of(pl.d.App), func(c contFact) bool {
		return slices.ContainsFunc(c.paths, func(q string) bool { return within(q, p) })
	})
}

// filled reports whether all that is at a path comes out of the archive.
func (pl *planner) filled(p string) bool {
	return slices.ContainsFunc(pl.d.Volumes, func(v volumePlan) bool {
		return v.Fill && (v.Make || v.Swap) && (v.Kind == backup.Bind || v.Kind == backup.BindFile) && within(v.Name, p)
	})
}

// answeredPath reports whether the user named the path.
func (pl *planner) answeredPath(p string) bool {
	for _, a := range pl.ans.Volumes {
		if a.Path != "" && path.Clean(a.Path) == p {
			return true
		}
	}
	return false
}

// roots are folders below which people keep the folders of their projects.
var roots = []string{"/srv", "/opt", "/home", "/root", "/mnt", "/media", "/data", "/storage", "/docker", "/containers", "/stacks", "/apps", "/volume1", "/volume2", "/pool", "/tank"}

// plainFolder reports whether a project's folder is one of those that harm nothing: it
// lies in a folder for such things, and is no home and nothing hidden in one, where a
// file may be a program that starts by itself.
func plainFolder(dir string) bool {
	for _, root := range roots {
		rest, ok := strings.CutPrefix(dir, root+"/")
		if !ok {
			continue
		}
		depth := strings.Count(rest, "/") + 1
		return (root != "/home" || depth > 1) && !hidden(rest)
	}
	return false
}

func hidden(p string) bool {
	return slices.ContainsFunc(strings.Split(p, "/"), func(s string) bool { return strings.HasPrefix(s, ".") })
}

// projectDir looks at where the archive wants to write on the host.
func (r *reviewer) projectDir() {
	pl := r.pl
	for _, v := range pl.d.Volumes {
		if !v.Fill || v.Kind != backup.ProjectTree && v.Kind != backup.Bind && v.Kind != backup.BindFile {
			continue
		}
		why, system := isSystem(v.Name, pl.f.root)
		switch {
		case system:
			r.add(riskPath, "files of the archive are written into %s of the host (%s)", v.Name, why)
		case pl.mayWrite(&v):
			r.show(riskPath, "files of the archive are written into %s of the host", v.Name)
		case v.Kind == backup.ProjectTree && !v.Make && plainFolder(v.Name):
			r.add(riskPath, "files of the archive are written into %s of the host, which is there already", v.Name)
		default:
			r.add(riskPath, "files of the archive are written into %s of the host", v.Name)
		}
	}
}

// mayWrite reports whether an archive may write to a place without being asked.
func (pl *planner) mayWrite(v *volumePlan) bool {
	switch {
	case v.Kind == backup.ProjectTree:
		return pl.answeredDir() || plainFolder(v.Name) && pl.ownDir()
	case pl.answeredPath(v.Name):
		return true
	}
	return pl.inProject(v.Name) && (v.Make || pl.ownDir() || pl.oldSees(v.Name))
}
