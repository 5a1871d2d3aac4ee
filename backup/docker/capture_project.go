package docker

import (
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
)

// projectFile are the names in a project's folder that belong to it whatever else is
// there.
var projectFile = []string{
	".env", "compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml",
	"compose.override.yaml", "compose.override.yml", "docker-compose.override.yaml", "docker-compose.override.yml",
	"Dockerfile", ".dockerignore", "Makefile", "README.md",
}

// projectVolumes are the project's folder, and compose files that lie elsewhere.
func projectVolumes(f volumeFacts, volumes []backup.Volume, ids idMaker) []backup.Volume {
	pr := f.project
	if pr.Dir == "" {
		return nil
	}
	have := func(p string) *backup.Volume {
		for i := range volumes {
			if v := &volumes[i]; (v.Kind == backup.Bind || v.Kind == backup.BindFile) && v.Name == p {
				return v
			}
		}
		return nil
	}
	var around *backup.Volume // a volume that holds the project's folder
	for i := range volumes {
		if v := &volumes[i]; v.Kind == backup.Bind && v.Action == backup.Include && within(v.Name, pr.Dir) {
			around = v
		}
	}
	dir := backup.Volume{
		ID: ids.make("project"), Kind: backup.ProjectTree, Name: pr.Dir,
		Class: classProject, Action: backup.Include, Reason: "the project's folder",
	}
	root := use{mount: container.MountPoint{Destination: pr.Dir}, label: "project"}
	system, isSys := isSystem(pr.Dir, f.dataRoot)
	switch {
	case around != nil:
		dir.Action, dir.Reason = backup.Skip, "it is in the volume "+around.ID
	case named(f.opts.ExcludePaths, &dir, root):
		dir.Action, dir.Reason = backup.Skip, "left out as asked"
	case named(f.opts.IncludePaths, &dir, root):
		dir.Reason = reasonAsked
	case isSys:
		// Compose files may lie in a home folder or in /opt itself.
		dir.Only, dir.Reason = projectOnly(pr), "compose files only: "+system
	}
	out := []backup.Volume{dir}
	for _, file := range slices.Concat(pr.ConfigFiles, pr.EnvFiles) {
		if within(pr.Dir, file) || have(file) != nil || slices.ContainsFunc(out, func(v backup.Volume) bool { return v.Name == file }) {
			continue
		}
		v := backup.Volume{
			ID: ids.make("project-" + path.Base(file)), Kind: backup.BindFile, Name: file,
			Class: classProject, Action: backup.Include, Reason: "a compose file outside of the project's folder",
		}
		if reason, sys := isSystem(file, f.dataRoot); sys {
			v.Action, v.Reason = backup.Reference, reason
		}
		out = append(out, v)
	}
	return out
}

// projectOnly are the files of a project's folder that are kept whatever else is there.
func projectOnly(pr *backup.Project) []string {
	only := map[string]bool{}
	for _, name := range projectFile {
		only[name] = true
	}
	for _, file := range slices.Concat(pr.ConfigFiles, pr.EnvFiles) {
		if file != pr.Dir && within(pr.Dir, file) {
			only[strings.TrimPrefix(file, strings.TrimSuffix(pr.Dir, "/")+"/")] = true
		}
	}
	return slices.Sorted(maps.Keys(only))
}
