package docker

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/dentropy/dentropycloud/backup"
)

// special looks at files that run with the rights of their owner, and at devices, in the
// data of volumes. In a volume that only containers see, they do what they would do in an
// image, where each has su: they are shown. On a path of the host, each of its users can
// run them: that needs acceptance. Of an archive that does not say, nothing is said here,
// and cameSpecial looks at what came.
func (r *reviewer) special() {
	for i := range r.pl.d.Volumes {
		v := &r.pl.d.Volumes[i]
		tree := r.pl.m.Trees[v.ID]
		if !v.Fill || tree == nil || tree.Special == nil {
			continue
		}
		s := tree.Special
		note := r.show
		if inReach(v, &r.pl.app.Volumes[i]) {
			note = r.add
		}
		if s.SetID > 0 {
			note(riskSetID, "%s%s", setIDText(v, s.SetID), exampleText(s))
		}
		if s.Devices > 0 {
			note(riskDevice, "%s", devicesText(v, s.Devices))
		}
	}
}

// inReach reports whether the data of a volume is where users of the host get at it: on a
// path of the host, or in a volume that is one. What an engine keeps itself is its own.
func inReach(v *volumePlan, was *backup.Volume) bool {
	if v.Kind != backup.Named {
		return true
	}
	bind := slices.ContainsFunc(strings.Split(was.Options["o"], ","), isBindOption)
	return v.Make && !v.Asked && bind
}

func setIDText(v *volumePlan, n int64) string {
	return fmt.Sprintf("volume %s holds %s (setuid, setgid or capabilities)", v.ID, counted(n, "file that runs with the rights of its owner", "files that run with the rights of their owner"))
}

func devicesText(v *volumePlan, n int64) string {
	return fmt.Sprintf("volume %s holds %s", v.ID, counted(n, "device", "devices"))
}

func counted(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// exampleText names some of the files. The archive has chosen the names.
func exampleText(s *backup.Special) string {
	if len(s.Examples) == 0 {
		return ""
	}
	var names []string
	for _, e := range s.Examples[:min(len(s.Examples), backup.MaxExamples)] {
		names = append(names, plainText(e, backup.MaxExample))
	}
	return ", such as " + strings.Join(names, " and ")
}

// plainText makes one short line of the text of others.
func plainText(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r == unicode.ReplacementChar || !unicode.IsPrint(r):
			return '·'
		}
		return r
	}, s)
	n := 0
	for i := range s {
		if n++; n > most {
			return s[:i] + "…"
		}
	}
	return s
}

// cameSpecial holds what came against what the review has shown. A path of the host gets
// nothing of it that was not accepted.
func (r *restore) cameSpecial(v *volumePlan, said *backup.Special, w *written) error {
	if said != nil {
		if said.SetID != w.SetID || said.Devices != w.Devices {
			return readArchive(fmt.Errorf("%w: volume %s came with %d files that run with the rights of their owner and %d devices, and the manifest says %d and %d",
				backup.ErrCorrupt, v.ID, w.SetID, w.Devices, said.SetID, said.Devices))
		}
		return nil // it was in the review
	}
	was := slices.IndexFunc(r.app.Volumes, func(a backup.Volume) bool { return a.ID == v.ID })
	for _, f := range []struct {
		kind string
		n    int64
		text string
	}{
		{riskSetID, w.SetID, setIDText(v, w.SetID)}, {riskDevice, w.Devices, devicesText(v, w.Devices)},
	} {
		allow := r.plan.Answers.Allow
		switch {
		case f.n == 0:
		case was >= 0 && inReach(v, &r.app.Volumes[was]) && !slices.Contains(allow, f.kind) && !slices.Contains(allow, acceptAll):
			return &backup.Problem{
				Message: f.text + ", which its manifest does not say, and would go into " + v.Name + " of the host",
				Hint:    "--allow " + f.kind + " accepts it", Object: v.ID,
			}
		default:
			r.warn("%s", f.text)
		}
	}
	return nil
}
