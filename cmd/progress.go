package dentropycmd

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/dentropy/dentropycloud/backup"
)

const (
	// defaultWidth is that of a terminal that does not tell.
	defaultWidth = 80
	// barWidth leaves room for figures on a terminal of 80 columns.
	barWidth = 20
	// minBarTerm is the width below which there is no bar, only figures.
	minBarTerm = 60
)

// screen is a terminal, or what stands for one in tests.
type screen interface {
	io.Writer
	// Width gives the columns, 0 where it is not a terminal.
	Width() int
}

// fileScreen is a file that may be a terminal.
type fileScreen struct{ *os.File }

// Width gives the columns, 0 where it is not a terminal.
func (f fileScreen) Width() int {
	if !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	w, _, err := term.GetSize(int(f.Fd()))
	if err != nil || w <= 0 {
		return defaultWidth
	}
	return w
}

// screenOf finds out whether w is a terminal that lines can be redrawn on.
func screenOf(w io.Writer, getenv func(string) string) (screen, bool) {
	var s screen
	switch w := w.(type) {
	case screen:
		s = w
	case *os.File:
		s = fileScreen{w}
	default:
		return nil, false
	}
	return s, s.Width() > 0 && getenv("TERM") != "dumb"
}

// phaseWords are what the phases of an operation are called for people.
var phaseWords = map[string]string{
	"capture":  "looking at the app",
	"estimate": "measuring",
	"prepare":  "preparing",
	"quiesce":  "bringing the app to rest",
	"read":     "reading volumes",
	"start":    "starting the app again",
	"images":   "reading images",
	"write":    "writing the archive",
	"plan":     "planning",
	"fill":     "filling volumes",
	"verify":   "checking what was written",
	"swap":     "changing places with the old set",
	"create":   "creating containers",
	"probe":    "asking the site",
	"rollback": "taking it back",
	"clean":    "cleaning up",
	"check":    "checking the archive",
	"salvage":  "looking for what is whole",
}

func phaseWord(phase string) string {
	if w := phaseWords[phase]; w != "" {
		return w
	}
	return clean(phase)
}

// progress shows how far an operation is: on a terminal one line for each phase,
// redrawn until the phase is over; elsewhere one plain line when a phase begins.
type progress struct {
	w      io.Writer
	screen screen // nil: not a terminal
	p      *printer
	now    func() time.Time

	mu       sync.Mutex // guards all below, and the terminal
	phase    string
	began    time.Time
	drawn    time.Time // by showSome
	last     backup.JobView
	open     bool // a line stands unfinished
	paused   bool
	warnings int // that were shown
}

func newProgress(w io.Writer, getenv func(string) string) *progress {
	g := &progress{w: w, p: newPrinter(w, getenv), now: time.Now}
	if s, ok := screenOf(w, getenv); ok {
		g.screen = s
		g.p.colour = getenv("NO_COLOR") == ""
	}
	return g
}

// show takes the next view of the job.
func (g *progress) show(v backup.JobView) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.paused && v.State == "running" {
		return
	}
	for ; g.warnings < len(v.Warnings); g.warnings++ {
		if g.open { // it is drawn again below
			g.p.printf("\r\x1b[K")
		}
		g.p.printf("%s %s\n", g.p.paint(yellow, "!"), clean(v.Warnings[g.warnings]))
	}
	if v.State != "" && v.State != "running" {
		g.finish(v.State == "done")
		return
	}
	if v.Progress.Phase == "" {
		return
	}
	if v.Progress.Phase != g.phase {
		g.finish(true)
		g.phase, g.began = v.Progress.Phase, g.now()
		if g.screen == nil {
			g.p.printf("%s\n", g.words(v.Progress))
		}
	}
	g.last = v
	if g.screen != nil {
		g.open = true
		g.p.printf("\r\x1b[K%s", g.line(v, g.screen.Width()))
	}
}

// showSome is show for who calls very often: most views are left out.
func (g *progress) showSome(v backup.JobView) {
	const every = 100 * time.Millisecond
	g.mu.Lock()
	skip := v.Progress.Phase == g.phase && g.now().Sub(g.drawn) < every && v.Progress.Done < v.Progress.Total
	if !skip {
		g.drawn = g.now()
	}
	g.mu.Unlock()
	if !skip {
		g.show(v)
	}
}

// finish ends the line of the phase, if one stands.
func (g *progress) finish(well bool) {
	if !g.open {
		return
	}
	g.open = false
	mark := g.p.paint(green, "✓")
	if !well {
		mark = g.p.paint(red, "✗")
	}
	v := g.last.Progress
	parts := []string{phaseWord(g.phase)}
	if v.Total > 0 || v.Done > 0 {
		parts = append(parts, backup.FormatBytes(v.Done))
	}
	if v.Files > 0 {
		parts = append(parts, count(v.Files, "file"))
	}
	d := g.now().Sub(g.began)
	parts = append(parts, took(d))
	if well && v.Done > 0 && d >= time.Second {
		parts = append(parts, backup.FormatBytes(int64(float64(v.Done)/d.Seconds()))+"/s")
	}
	g.p.printf("\r\x1b[K%s %s\n", mark, cut(strings.Join(parts, "  "), g.screen.Width()-3))
}

// pause ends the line that stands, so that something else can be said, and shows
// nothing until resume.
func (g *progress) pause() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.finish(true)
	g.phase, g.paused = "", true
}

func (g *progress) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = false
}

// vanish takes the line that stands away, as if nothing had been shown.
func (g *progress) vanish() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open {
		g.p.printf("\r\x1b[K")
	}
	g.open, g.phase = false, ""
}

// end ends the line that stands, if the job has not done so.
func (g *progress) end(well bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.finish(well)
}

// waiting says what is going on, for somebody who wants to leave.
func (g *progress) waiting() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.phase == "" {
		return "the job to end"
	}
	return g.words(g.last.Progress)
}

func (g *progress) words(v backup.Progress) string {
	s := phaseWord(v.Phase)
	if v.Text != "" && v.Text != s {
		s += ": " + clean(v.Text)
	}
	return s
}

// line is the phase as it is: word, bar, figures, and what it does now.
func (g *progress) line(v backup.JobView, width int) string {
	pr := v.Progress
	figures := []string{}
	if pr.Total > 0 {
		share := min(1, max(0, float64(pr.Done)/float64(pr.Total)))
		if width >= minBarTerm {
			full := int(share * barWidth)
			figures = append(figures, strings.Repeat("█", full)+strings.Repeat("░", barWidth-full))
		}
		figures = append(figures, fmt.Sprintf("%3d %%", int(share*100)),
			backup.FormatBytes(pr.Done)+" of "+backup.FormatBytes(pr.Total))
	} else if pr.Done > 0 {
		figures = append(figures, backup.FormatBytes(pr.Done))
	}
	if v.Rate > 0 {
		figures = append(figures, backup.FormatBytes(int64(v.Rate))+"/s")
	}
	if v.Left > 0 {
		left := took(max(v.Left.Round(time.Second), time.Second))
		figures = append(figures, strings.Replace(left, ".0 s", " s", 1)+" left")
	}
	if len(figures) == 0 && pr.Files > 0 {
		figures = append(figures, count(pr.Files, "file"))
	}
	s := phaseWord(pr.Phase)
	if len(figures) > 0 {
		s += "  " + strings.Join(figures, "  ")
	}
	if pr.Text != "" && pr.Text != phaseWord(pr.Phase) {
		s += "  " + clean(pr.Text)
	}
	// one column stays free, or some terminals wrap
	return "· " + cut(s, width-3)
}

// cut shortens text to a number of columns.
func cut(s string, width int) string {
	if width <= 0 {
		return ""
	}
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}
