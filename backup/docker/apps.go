package docker

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unicode"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// Labels that say to whom a container belongs.
const (
	labelApp            = "dentropy.app"
	labelProject        = "com.docker.compose.project"
	labelService        = "com.docker.compose.service"
	labelNumber         = "com.docker.compose.container-number"
	labelOneoff         = "com.docker.compose.oneoff"
	labelDependsOn      = "com.docker.compose.depends_on"
	labelWorkingDir     = "com.docker.compose.project.working_dir"
	labelConfigFiles    = "com.docker.compose.project.config_files"
	labelEnvFiles       = "com.docker.compose.project.environment_file"
	labelComposeVolume  = "com.docker.compose.volume"
	labelSwarmService   = "com.docker.swarm.service.name"
	labelKubernetesType = "io.kubernetes.docker.type"
)

// The kinds of apps.
const (
	kindCompose   = "compose"
	kindGroup     = "group"
	kindContainer = "container"
)

// group is the containers of one app.
type group struct {
	name, kind string
	members    []container.Summary
	// self says that stopping it would stop this program, or its path to the user.
	self bool
}

// groupApps sorts containers into apps. What is another manager's, or ours, or was run
// once only, is no app.
func groupApps(list []container.Summary) []group {
	apps := map[string]*group{}
	var alone []container.Summary
	for i := range list {
		s := list[i]
		name, kind := appOf(s.Labels)
		switch kind {
		case "":
			continue
		case kindContainer:
			alone = append(alone, s)
			continue
		}
		g := apps[name]
		if g == nil {
			g = &group{name: name, kind: kind}
			apps[name] = g
		}
		if kind == kindGroup {
			g.kind = kindGroup
		}
		g.members = append(g.members, s)
	}
	for _, s := range alone {
		name := containerName(s)
		if name == "" {
			continue // it is being removed
		}
		if apps[name] != nil {
			name = "container:" + name // a project has the same name
		}
		apps[name] = &group{name: name, kind: kindContainer, members: []container.Summary{s}}
	}
	out := make([]group, 0, len(apps))
	for _, g := range apps {
		slices.SortFunc(g.members, func(a, b container.Summary) int { return cmp.Compare(containerName(a), containerName(b)) })
		out = append(out, *g)
	}
	slices.SortFunc(out, func(a, b group) int { return cmp.Compare(a.name, b.name) })
	return out
}

// appOf reads from a container's labels which app it belongs to: kind is "" for none,
// and kindContainer, without a name, for an app of its own.
func appOf(labels map[string]string) (name, kind string) {
	switch {
	case labels[labelRole] != "" && labels[labelJob] != "":
		return "", "" // a helper or guard of ours
	case labels[labelKubernetesType] != "":
		return "", ""
	case strings.EqualFold(labels[labelOneoff], "true"):
		return "", ""
	}
	if app := strings.TrimSpace(labels[labelApp]); plainName(app) {
		return app, kindGroup
	}
	if project := labels[labelProject]; plainName(project) {
		return project, kindCompose
	}
	return "", kindContainer
}

// plainName reports whether a label's text can be the name of an app.
func plainName(s string) bool {
	const most = 128
	return s != "" && len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool {
		return r == '/' || r == '\\' || !unicode.IsPrint(r) || r == unicode.ReplacementChar
	})
}

// containerName is the name of a container: the one that is no alias of a link.
func containerName(s container.Summary) string {
	for _, n := range s.Names {
		if n = strings.TrimPrefix(n, "/"); n != "" && !strings.Contains(n, "/") {
			return n
		}
	}
	return ""
}

// markSelf finds the apps that must not be stopped: the one that this program runs in,
// and the one whose network it uses. own are what our own container's id may be.
func markSelf(groups []group, own []string) {
	find := func(ref string) (app, member int) {
		for i := range groups {
			for j, s := range groups[i].members {
				if strings.HasPrefix(s.ID, ref) || containerName(s) == ref {
					return i, j
				}
			}
		}
		return -1, -1
	}
	for _, id := range own {
		i, j := find(id)
		if i < 0 {
			continue
		}
		groups[i].self = true
		if ref, ok := strings.CutPrefix(groups[i].members[j].HostConfig.NetworkMode, "container:"); ok {
			if k, _ := find(ref); k >= 0 {
				groups[k].self = true
			}
		}
		return
	}
}

// ownIDs are what our own container's id may be; none outside of one.
func ownIDs() []string {
	host, _ := os.Hostname() // without a name of its own the machine has no short id either
	return dockerengine.OwnIDs(os.DirFS("/"), host)
}

// groups lists all apps of the engine.
func (p *Platform) groups(ctx context.Context) ([]group, error) {
	var list []container.Summary
	err := p.call(ctx, "list containers", func(ctx context.Context, c *dockerengine.Conn) (err error) {
		list, err = c.ContainerList(ctx, container.ListOptions{All: true})
		return err
	})
	if err != nil {
		return nil, err
	}
	groups := groupApps(list)
	if p.ep.Host() == "" { // elsewhere we are no container
		markSelf(groups, ownIDs())
	}
	return groups, nil
}

// Apps implements backup.Platform.
func (p *Platform) Apps(ctx context.Context) ([]backup.AppInfo, error) {
	groups, err := p.groups(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]backup.AppInfo, 0, len(groups))
	for _, g := range groups {
		info := backup.AppInfo{Name: g.name, Kind: g.kind, Platform: p.Name(), Self: g.self}
		seen := map[string]bool{}
		for _, s := range g.members {
			info.Containers = append(info.Containers, containerName(s))
			if s.State == string(backup.Running) {
				info.Running++
			}
			for _, m := range s.Mounts {
				if name := cmp.Or(m.Name, m.Source); name != "" && !seen[name] {
					seen[name] = true
					info.Volumes = append(info.Volumes, name)
				}
			}
		}
		slices.Sort(info.Containers)
		slices.Sort(info.Volumes)
		out = append(out, info)
	}
	return out, nil
}

// findGroup gives the app of that name, and all the others.
func (p *Platform) findGroup(ctx context.Context, name string) (group, []group, error) {
	groups, err := p.groups(ctx)
	if err != nil {
		return group{}, nil, err
	}
	i := slices.IndexFunc(groups, func(g group) bool { return g.name == name })
	if i < 0 {
		return group{}, nil, &backup.Problem{
			Message: fmt.Sprintf("there is no app %q on %s", name, p.Name()),
			Hint:    "dentropy apps lists them", Object: name, Err: fs.ErrNotExist,
		}
	}
	g := groups[i]
	for _, s := range g.members {
		if s.Labels[labelSwarmService] != "" {
			return group{}, nil, &backup.Problem{
				Message: fmt.Sprintf("%s is a task of the swarm service %s: swarm would start it again while it is read", containerName(s), s.Labels[labelSwarmService]),
				Hint:    "run it with compose to back it up", Object: name,
			}
		}
	}
	return g, slices.Delete(slices.Clone(groups), i, i+1), nil
}
