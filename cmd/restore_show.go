package dentropycmd

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dentropy/dentropycloud/backup"
)

// showInside says what an archive holds, before anything is done with it.
func showInside(p *printer, label string, m *backup.Manifest) {
	app := m.App
	p.printf("%s\n", clean(label))
	kind := app.Kind
	if app.Project != nil && app.Project.Dir != "" {
		kind += " in " + app.Project.Dir
	}
	line := func(what, value string) {
		if value != "" {
			p.printf("  %-11s %s\n", what, clean(value))
		}
	}
	line("app", app.Name+" ("+kind+")")
	line("made", m.Created.Local().Format("2006-01-02 15:04:05 MST")+", "+p.ago(m.Created)+" ago, by "+m.Tool)
	line("from", strings.Join(nonEmpty(app.Source.Engine, app.Source.OS, app.Source.Arch), ", "))
	var bytes, files int64
	for _, t := range m.Trees {
		bytes += t.Bytes
		files += t.Files
	}
	line("data", fmt.Sprintf("%s in %s", backup.FormatBytes(bytes), count(files, "file")))
	for i, c := range app.Containers {
		if i == 0 {
			p.printf("  %s\n", count(len(app.Containers), "container"))
		}
		p.printf("    %s\n", clean(containerLine(c)))
	}
	for i, v := range volumesInOrder(app.Volumes) {
		if i == 0 {
			p.printf("  %s\n", count(len(app.Volumes), "volume"))
		}
		text := volumeLine(v)
		if t := m.Trees[v.ID]; t != nil {
			text += fmt.Sprintf(", %s in %s", backup.FormatBytes(t.Bytes), count(t.Files, "file"))
			if severe := severeNotes(t); severe > 0 {
				text += fmt.Sprintf(", %s torn or missing", count(severe, "file"))
			}
		}
		p.printf("    %s\n", clean(text))
	}
	switch {
	case m.ImagesInside:
		line("images", "inside")
	case len(app.Containers) > 0:
		line("images", "none: they are pulled again")
	}
	line("encryption", m.Encryption)
	for _, w := range slices.Concat(app.Warnings, m.Warnings) {
		p.printf("  %s %s\n", p.paint(yellow, "!"), clean(w))
	}
}

func nonEmpty(words ...string) []string {
	return slices.DeleteFunc(words, func(s string) bool { return s == "" })
}

func severeNotes(t *backup.Tree) int {
	n := 0
	for _, note := range t.Notes {
		if note.Severe() {
			n++
		}
	}
	return n
}

func containerLine(c backup.Container) string {
	s := c.Name + " from " + c.Image
	if c.State != "" && c.State != backup.Running {
		s += ", was " + string(c.State)
	}
	for _, k := range sortedKeys(c.Routes) {
		if strings.HasSuffix(k, "host") {
			s += ", serves " + c.Routes[k]
		}
	}
	return s
}

func volumeLine(v backup.Volume) string {
	s := v.Name
	if s == "" {
		s = v.ID
	}
	s += " (" + string(v.Kind)
	if v.Driver != "" && v.Driver != "local" {
		s += ", driver " + v.Driver
	}
	s += ")"
	switch v.Action {
	case backup.Include:
	case backup.Reference:
		s += ": not inside, it must be there"
	case backup.Skip:
		s += ": not inside"
	}
	if v.Action != backup.Include && v.Reason != "" {
		s += " (" + v.Reason + ")"
	}
	return s
}

func volumesInOrder(vs []backup.Volume) []backup.Volume {
	return slices.SortedFunc(slices.Values(vs), func(a, b backup.Volume) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// showRisks is the review of what reaches beyond the app.
func showRisks(p *printer, risks []backup.Risk) {
	if len(risks) == 0 {
		p.printf("\nReview: nothing in it reaches beyond the app.\n")
		return
	}
	p.printf("\nReview: settings that reach beyond the app\n")
	for _, r := range risks {
		mark, c := "·", plain
		if !r.Allowed {
			mark, c = "!", red
		}
		who := ""
		if r.Container != "" {
			who = r.Container + ": "
		}
		p.printf("  %s %s%s\n", p.paint(c, mark), clean(who+r.Text), p.paint(faint, " ("+clean(r.Kind)+")"))
	}
}

// showPlan shows what a restore will do, and what stands in its way.
func showPlan(p *printer, plan *backup.Plan) {
	p.printf("\nPlan: %s on %s", dash(plan.App), dash(plan.Platform))
	if plan.Bytes > 0 {
		p.printf(", %s to write", backup.FormatBytes(plan.Bytes))
		if plan.Free > 0 {
			p.printf(" (%s free)", backup.FormatBytes(plan.Free))
		}
	}
	p.printf("\n")
	for i, s := range plan.Steps {
		p.printf("  %2d. %s\n", i+1, clean(s))
	}
	for _, c := range plan.Conflicts {
		if c.Resolved {
			p.printf("  %s %s: %s\n", p.paint(green, "✓"), clean(c.Text), clean(c.Resolution))
		}
	}
	for _, w := range plan.Warnings {
		p.printf("  %s %s\n", p.paint(yellow, "!"), clean(w))
	}
	showObstacles(p, plan)
}

// showObstacles says what must be answered before anything is done.
func showObstacles(p *printer, plan *backup.Plan) {
	for _, c := range plan.Conflicts {
		if c.Resolved {
			continue
		}
		p.printf("  %s %s\n", p.paint(red, "✗"), clean(c.Text))
		if len(c.Choices) > 0 {
			p.printf("      → %s\n", clean(strings.Join(c.Choices, "  or  ")))
		}
		if c.Hint != "" {
			p.printf("      → %s\n", clean(c.Hint))
		}
	}
	for _, kind := range deniedKinds(plan) {
		p.printf("  %s %s is not accepted\n      → --allow %s\n", p.paint(red, "✗"), clean(kind), clean(kind))
	}
}

func deniedKinds(plan *backup.Plan) []string {
	var kinds []string
	for _, r := range plan.Risks {
		if !r.Allowed && !slices.Contains(kinds, r.Kind) {
			kinds = append(kinds, r.Kind)
		}
	}
	return kinds
}

// showUndos lists the restores that can be taken back.
func showUndos(p *printer, undos []backup.Undo) {
	if len(undos) == 0 {
		p.printf("No restore can be undone: there was none, or what it needs was removed.\n")
		return
	}
	var rows [][]string
	for _, u := range undos {
		rows = append(rows, []string{dash(u.ID), dash(u.App), dash(u.Platform), u.Time.Local().Format(time.DateTime), dash(u.Archive), dash(u.Summary)})
	}
	p.table([]string{"ID", "APP", "ON", "RESTORED", "FROM", "UNDO WOULD"}, rows, nil)
}

// showNoUndo says, at the end where it is read, that a restore cannot be undone, and what
// is there to do it by hand.
func showNoUndo(p *printer, res *backup.RestoreResult) {
	if res.NoUndo == "" {
		return
	}
	p.printf("  %-10s %s\n", "undo", p.paint(yellow, "! not possible now: "+clean(res.NoUndo)))
	for i, kept := range res.Kept {
		what := "kept"
		if i > 0 {
			what = ""
		}
		p.printf("  %-10s %s\n", what, clean(kept))
	}
	if len(res.Kept) > 0 {
		p.printf("  %-10s this holds what was there before; remove it when you do not need it\n", "")
	}
}
