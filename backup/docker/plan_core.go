package docker

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/dentropy/dentropycloud/backup"
)

// planner makes a plan of what an archive says, of answers and of what is there. It
// does nothing but think.
type planner struct {
	m   *backup.Manifest
	app *backup.App
	ans backup.Answers
	f   *facts

	p *backup.Plan
	d *detail
	// settings of the containers, by name in the archive.
	settings map[string]*settings
	// old are the containers that are set aside.
	old []contFact
	// taken are names that this plan uses itself.
	taken map[string]bool
	// bound are the addresses on which each port of the host is published; nports and
	// nbindings count them.
	bound             map[portSlot][]string
	nports, nbindings int
	// used are the keys of answers that meant something.
	used map[string]bool
}

// What Answers.OnConflict may be.
const (
	onRefuse  = "refuse"
	onReplace = "replace"
	onRename  = "rename"
)

var (
	// projectName is what compose takes as a project's name.
	projectName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)
	// mostEngineName bounds names of containers, volumes and networks.
	mostEngineName = 200
)

// planRestore says what restoring an app would do. app is untrusted: it comes out of an
// archive.
func planRestore(m *backup.Manifest, app *backup.App, ans backup.Answers, f *facts) (*backup.Plan, *detail, error) {
	if app.Format != Format {
		return nil, nil, &backup.Problem{Message: fmt.Sprintf("the archive holds settings of the format %q, and this platform takes %q: %v", app.Format, Format, errNotOurs), Object: app.Name}
	}
	pl := &planner{
		m: m, app: app, ans: ans, f: f,
		p: &backup.Plan{
			Platform: f.platform, Answers: ans, Steps: []string{}, Questions: []backup.Question{},
			Conflicts: []backup.Conflict{}, Risks: []backup.Risk{},
		},
		d:        &detail{Kind: app.Kind},
		settings: map[string]*settings{}, taken: map[string]bool{}, used: map[string]bool{}, bound: map[portSlot][]string{},
	}
	for _, step := range []func() error{
		pl.check, pl.identity, pl.existing, pl.images, pl.networks, pl.volumes, pl.containers,
		pl.routes, pl.ports, pl.composeLabels, pl.unusedAnswers, pl.risks, pl.space,
	} {
		if err := step(); err != nil {
			return nil, nil, err
		}
	}
	pl.questions()
	pl.steps()
	return pl.p, pl.d, nil
}

// check refuses what no engine would take, before anything is made of it.
func (pl *planner) check() error {
	bad := func(format string, args ...any) error {
		return &backup.Problem{Message: "the archive's settings make no sense: " + fmt.Sprintf(format, args...), Object: pl.app.Name}
	}
	switch pl.ans.OnConflict {
	case "", onRefuse, onReplace, onRename:
	default:
		return &backup.Problem{Message: fmt.Sprintf("on conflict %q is not known", pl.ans.OnConflict), Hint: "use refuse, replace or rename"}
	}
	switch pl.ans.Verify {
	case "", verifyFull, verifyStream:
	default:
		return &backup.Problem{Message: fmt.Sprintf("verify %q is not known", pl.ans.Verify), Hint: "use full or stream"}
	}
	if len(pl.app.Containers) == 0 {
		return bad("it has no containers")
	}
	volumes := map[string]bool{}
	for _, v := range pl.app.Volumes {
		if volumes[v.ID] {
			return bad("two volumes have the id %q", v.ID)
		}
		volumes[v.ID] = true
	}
	for i := range pl.app.Volumes {
		if err := pl.checkVolume(&pl.app.Volumes[i]); err != nil {
			return err
		}
	}
	if pr := pl.app.Project; pr != nil && pr.Dir != "" && (!path.IsAbs(pr.Dir) || path.Clean(pr.Dir) != pr.Dir) {
		return bad("%q cannot be the folder of a project", pr.Dir)
	}
	if err := pl.checkImages(); err != nil {
		return err
	}
	for id := range pl.m.Trees {
		if !volumes[id] {
			return bad("there is data of a volume %q, which the app does not have", id)
		}
	}
	names := map[string]bool{}
	for i := range pl.app.Containers {
		c := &pl.app.Containers[i]
		if names[c.Name] || !volumeName.MatchString(c.Name) {
			return bad("%q cannot be the name of a container", c.Name)
		}
		names[c.Name] = true
		s, err := readSettings(c)
		if err != nil {
			return bad("%v", err)
		}
		if _, err := s.typed(); err != nil {
			return bad("settings of container %q: %v", c.Name, err)
		}
		pl.settings[c.Name] = s
		for _, mt := range c.Mounts {
			if !volumes[mt.Volume] || !strings.HasPrefix(mt.Target, "/") {
				return bad("container %q mounts %q at %q", c.Name, mt.Volume, mt.Target)
			}
		}
	}
	return nil
}

// The values of Answers.Verify.
const (
	verifyFull   = "full"
	verifyStream = "stream"
)

// identity settles the names of app, project and the project's folder.
func (pl *planner) identity() error {
	d, app := pl.d, pl.app
	d.App = cmp.Or(pl.ans.Name, app.Name)
	if pr := app.Project; pr != nil {
		d.OldProject, d.OldDir = pr.Name, pr.Dir
		d.Project = d.OldProject
		if pl.ans.Name != "" {
			d.Project = pl.ans.Name
		}
	}
	if bare, ok := strings.CutPrefix(d.App, "container:"); ok && app.Kind == kindContainer {
		d.App = bare // it was told apart from a project that need not be here
	}
	if pl.ans.OnConflict == onRename && len(pl.f.of(d.App)) > 0 && pl.ans.Name == "" {
		was := d.App
		d.App = pl.freeName(d.App, func(s string) bool { return len(pl.f.of(s)) > 0 })
		if d.Project != "" {
			d.Project = d.App
		}
		pl.conflict(backup.Conflict{Kind: "project", Name: was, Text: fmt.Sprintf("an app %s is here already", was)}, "it is restored as "+d.App)
	}
	switch {
	case d.Project != d.OldProject && !projectName.MatchString(d.Project):
		return &backup.Problem{Message: fmt.Sprintf("%q cannot be the name of a compose project", d.Project), Hint: "use lowercase letters, digits, - and _, such as --as shop-test", Object: d.Project}
	case app.Kind == kindContainer && !volumeName.MatchString(d.App), !plainName(d.App):
		return &backup.Problem{Message: fmt.Sprintf("%q cannot be the name of an app", d.App), Hint: "use letters, digits, - and _", Object: d.App}
	}
	pl.p.App = d.App
	return pl.projectDir()
}

// projectDir settles where the compose files go.
func (pl *planner) projectDir() error {
	d := pl.d
	switch dir := pl.ans.ProjectDir; {
	case dir == "none":
		d.Dir = ""
	case dir != "":
		if !strings.HasPrefix(dir, "/") {
			return &backup.Problem{Message: fmt.Sprintf("the project folder %q is no absolute path", dir), Hint: "give a path on the engine's host, such as /srv/" + d.App, Object: dir}
		}
		d.Dir = path.Clean(dir)
	case d.OldDir == "" || d.OldDir == "/":
		d.Dir = ""
	case d.Project != d.OldProject:
		// the old folder is another app's by now, or will be
		if base := path.Base(d.OldDir); base == d.OldProject {
			d.Dir = path.Join(path.Dir(d.OldDir), d.Project)
		} else {
			d.Dir = d.OldDir + "-" + d.Project
		}
	default:
		d.Dir = d.OldDir
	}
	return nil
}

// existing looks for the app as it is here now.
func (pl *planner) existing() error {
	have := pl.f.of(pl.d.App)
	if len(have) == 0 {
		return nil
	}
	c := backup.Conflict{
		Kind: "project", Name: pl.d.App,
		Text:    fmt.Sprintf("an app %s is here already, with %s", pl.d.App, enumerate(have, func(c contFact) string { return c.name })),
		Choices: []string{"--on-conflict replace", "--on-conflict rename", "--as NEW"},
		Hint:    "replace sets aside what is here and keeps it for dentropy restore --undo",
	}
	for _, h := range have {
		switch {
		case h.self:
			c.Text = fmt.Sprintf("this program runs in the app %s, or reaches the network through it: it cannot be replaced", pl.d.App)
		case h.autoRemove:
			c.Text = fmt.Sprintf("the container %s of the app %s removes itself when it stops: it cannot be set aside", h.name, pl.d.App)
		default:
			continue
		}
		c.Choices, c.Hint = c.Choices[1:], "restore it under another name"
		pl.conflict(c, "")
		return nil
	}
	if pl.ans.OnConflict != onReplace {
		pl.conflict(c, "")
		return nil
	}
	pl.old = have
	for _, h := range have {
		pl.d.Old = append(pl.d.Old, oldPlan{ID: h.id, Name: h.name})
	}
	pl.conflict(c, "what is here is set aside, and kept for an undo")
	return nil
}

// isOld reports whether a container is set aside.
func (pl *planner) isOld(id string) bool {
	return slices.ContainsFunc(pl.old, func(c contFact) bool { return c.id == id })
}

// ownUsers reports whether all users are the app that is set aside.
func (pl *planner) ownUsers(users []string) bool {
	return !slices.ContainsFunc(users, func(u string) bool { return u != pl.d.App || len(pl.old) == 0 })
}

// conflict notes what stands in the way; resolution is "" where the answers do not
// settle it.
func (pl *planner) conflict(c backup.Conflict, resolution string) {
	c.Resolved, c.Resolution = resolution != "", resolution
	pl.p.Conflicts = append(pl.p.Conflicts, c)
}

func (pl *planner) warn(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(pl.p.Warnings, text) {
		pl.p.Warnings = append(pl.p.Warnings, text)
	}
}

// derive gives the new name of something that compose named after the project.
func (pl *planner) derive(old string) string {
	d := pl.d
	if d.Project == d.OldProject || d.OldProject == "" {
		return old
	}
	for _, sep := range []string{"_", "-"} {
		if rest, ok := strings.CutPrefix(old, d.OldProject+sep); ok {
			return d.Project + sep + rest
		}
	}
	if old == d.OldProject {
		return d.Project
	}
	return old
}

// freeName appends a number to a name that is taken.
func (pl *planner) freeName(base string, taken func(string) bool) string {
	name := base
	for n := 2; taken(name); n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	return name
}

// move gives a path's new place, where it is in the project's folder.
func (pl *planner) move(p string) string {
	d := pl.d
	if d.OldDir == "" || d.Dir == "" || d.OldDir == "/" || !within(d.OldDir, p) {
		return p
	}
	return d.Dir + strings.TrimPrefix(p, d.OldDir)
}

// enumerate puts names in a sentence.
func enumerate[T any](items []T, name func(T) string) string {
	const most = 5
	var out []string
	for i, it := range items {
		if i == most {
			out = append(out, fmt.Sprintf("%d more", len(items)-most))
			break
		}
		out = append(out, name(it))
	}
	return strings.Join(out, ", ")
}

// unusedAnswers refuses answers about what the archive does not hold: most likely they
// were meant for something else.
func (pl *planner) unusedAnswers() error {
	for _, g := range []struct {
		what string
		keys []string
	}{
		{"volumes", sortedKeys(pl.ans.Volumes)},
		{"networks", sortedKeys(pl.ans.Networks)},
		{"containers", sortedKeys(pl.ans.Containers)},
		{"ports", sortedKeys(pl.ans.Ports)},
		{"routes", sortedKeys(pl.ans.Routes)},
	} {
		for _, k := range g.keys {
			if !pl.used[g.what+"\x00"+k] {
				return &backup.Problem{
					Message: fmt.Sprintf("the answer for %s %q is about nothing in the archive", strings.TrimSuffix(g.what, "s"), k),
					Hint:    "dentropy restore --dry-run shows what is in it", Object: k,
				}
			}
		}
	}
	return nil
}

// use notes that an answer meant something.
func (pl *planner) use(what, key string) { pl.used[what+"\x00"+key] = true }

// space holds what will be written against what there is.
func (pl *planner) space() error {
	for _, v := range pl.d.Volumes {
		if t := pl.m.Trees[v.ID]; v.Fill && t != nil {
			pl.p.Bytes += max(t.Stored, 0)
		}
	}
	for _, im := range pl.d.Images {
		if im.How != imagePresent {
			pl.p.Bytes += max(im.Size, 0)
		}
	}
	pl.p.Free = pl.f.free
	if pl.f.free > 0 && pl.p.Bytes+spaceReserve > pl.f.free {
		pl.conflict(backup.Conflict{
			Kind: "space", Name: pl.f.platform,
			Text: fmt.Sprintf("the engine's disk has %s free, and %s will be written", backup.FormatBytes(pl.f.free), backup.FormatBytes(pl.p.Bytes)),
			Hint: "make room on the engine's host",
		}, "")
	}
	return nil
}

// spaceReserve is left free on the engine's disk: an engine whose disk is full stops
// working for all its apps.
const spaceReserve = 64 << 20
