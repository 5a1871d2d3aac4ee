package dentropycmd

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// clean makes text fit to be shown on a terminal: names and labels are written by
// others, and could otherwise move the cursor or hide what follows.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r == utf8.RuneError, unicode.IsControl(r), unicode.Is(unicode.Cf, r):
			return '·'
		}
		return r
	}, s)
}

// colour is an SGR sequence.
type colour string

const (
	green  colour = "\x1b[32m"
	yellow colour = "\x1b[33m"
	red    colour = "\x1b[31m"
	faint  colour = "\x1b[2m"
	plain  colour = ""
)

// printer writes for people: in colour where that is wanted.
type printer struct {
	w      io.Writer
	colour bool
	now    time.Time
	err    error
}

// newPrinter colours on a terminal only, and not where NO_COLOR is set.
func newPrinter(w io.Writer, getenv func(string) string) *printer {
	p := &printer{w: w, now: time.Now()}
	if f, ok := w.(*os.File); ok {
		p.colour = term.IsTerminal(int(f.Fd())) && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
	}
	return p
}

func (p *printer) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(p.w, format, args...); p.err == nil {
		p.err = err
	}
}

func (p *printer) paint(c colour, s string) string {
	if !p.colour || c == plain || s == "" {
		return s
	}
	return string(c) + s + "\x1b[0m"
}

// table writes rows in columns. Only the last column may be coloured: a sequence
// would count as width.
func (p *printer) table(head []string, rows [][]string, colours []colour) {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{head}, rows...) {
		_, _ = fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	_ = tw.Flush() // into memory
	for i, line := range strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n") {
		line = strings.TrimRight(line, " ")
		switch {
		case i == 0:
			line = p.paint(faint, line)
		case i-1 < len(colours):
			line = p.paint(colours[i-1], line)
		}
		p.printf("%s\n", line)
	}
}

// ago says how long something has lasted: "3m", "2d".
func (p *printer) ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return span(p.now.Sub(t))
}

// in says when something will be: "in 3m", "now".
func (p *printer) in(t time.Time) string {
	if d := t.Sub(p.now); d >= time.Second {
		return "in " + span(d)
	}
	return "now"
}

func span(d time.Duration) string {
	const day = 24 * time.Hour
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 2*day:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d/day))
	}
}

// dash stands for what is not there.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return clean(s)
}
