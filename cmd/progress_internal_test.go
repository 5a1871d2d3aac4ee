package dentropycmd

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dentropy/dentropycloud/backup"
)

// fakeScreen is a terminal of a given width.
type fakeScreen struct {
	bytes.Buffer
	width int
}

func (s *fakeScreen) Width() int { return s.width }

// jobSteps is a backup as it is seen, one view every second.
var jobSteps = []backup.JobView{
	{State: "running", Progress: backup.Progress{Phase: "quiesce", Text: "stopping shop-db-1"}},
	{State: "running", Progress: backup.Progress{Phase: "read", Done: 0, Total: 2e9}},
	{State: "running", Progress: backup.Progress{Phase: "read", Text: "volume db", Done: 1e9, Total: 2e9, Files: 10}, Rate: 480e6, Left: 2 * time.Second},
	{State: "running", Progress: backup.Progress{Phase: "read", Done: 2e9, Total: 2e9, Files: 21}, Rate: 500e6},
	{State: "running", Progress: backup.Progress{Phase: "write", Text: "hostile \x1b[2J", Done: 5e8}, Warnings: []string{"volume files: 1 files vanished"}},
	{State: "done", Warnings: []string{"volume files: 1 files vanished"}},
}

func TestProgress(t *testing.T) {
	for _, name := range []string{"wide", "narrow", "plain", "colour"} {
		t.Run(name, func(t *testing.T) {
			screen := &fakeScreen{width: map[string]int{"wide": 100, "narrow": 40, "colour": 80}[name]}
			env := map[string]string{"NO_COLOR": "1"}
			if name == "colour" {
				env = nil
			}
			g := newProgress(screen, func(k string) string { return env[k] })
			now := time.Unix(0, 0)
			g.now = func() time.Time { return now }
			for _, v := range jobSteps {
				g.show(v)
				now = now.Add(time.Second)
			}
			// what a terminal gets, with each redrawn line on its own
			got := strings.NewReplacer("\r\x1b[K", "⏎", "\x1b", "␛").Replace(screen.String())
			got = strings.ReplaceAll(got, "⏎", "\n⏎")
			path := "testdata/progress/" + name + ".txt"
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("progress differs (-want +got); -update writes it:\n%s", diff)
			}
			for line := range strings.SplitSeq(screen.String(), "\r\x1b[K") {
				if name == "colour" || screen.width == 0 {
					break
				}
				line, _, _ = strings.Cut(line, "\n")
				if n := len([]rune(line)); n >= screen.width && !strings.HasPrefix(line, "!") {
					t.Errorf("a line of %d columns on a terminal of %d: %q", n, screen.width, line)
				}
			}
		})
	}
}

func TestProgressIsQuietWhilePaused(t *testing.T) {
	screen := &fakeScreen{width: 80}
	g := newProgress(screen, func(string) string { return "" })
	g.show(jobSteps[0])
	g.pause()
	before := screen.Len()
	g.show(jobSteps[1])
	if screen.Len() != before {
		t.Errorf("while a question stands, %q is written", screen.String()[before:])
	}
	g.resume()
	g.show(jobSteps[2])
	if !strings.Contains(screen.String()[before:], "reading volumes") {
		t.Errorf("after the question, %q is written, want the phase", screen.String()[before:])
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 9_990_000: "10 MB", 999_600_000: "1.0 GB", 1_234_567_890: "1.2 GB", 1 << 62: "4.6 EB"} {
		if got := backup.FormatBytes(n); got != want {
			t.Errorf("backup.FormatBytes(%d) = %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0 s", 1: "1 ms", 850 * time.Millisecond: "850 ms", 4200 * time.Millisecond: "4.2 s",
		59 * time.Second: "59 s", 192 * time.Second: "3m12s", 90 * time.Minute: "1h30m"} {
		if got := took(d); got != want {
			t.Errorf("took(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestProgressWarningInPhase(t *testing.T) {
	screen := &fakeScreen{width: 100}
	g := newProgress(screen, func(k string) string { return map[string]string{"NO_COLOR": "1"}[k] })
	probe := backup.Progress{Phase: "probe"}
	g.show(backup.JobView{State: "running", Progress: probe})
	g.show(backup.JobView{State: "running", Progress: probe, Warnings: []string{"names have changed"}})
	g.show(backup.JobView{State: "done", Progress: probe, Warnings: []string{"names have changed"}})
	if got := strings.Count(screen.String(), "✓ asking the site"); got != 1 {
		t.Errorf("the phase ended %d times, want once:\n%s", got, screen)
	}
	if got := strings.Count(screen.String(), "! names have changed\n"); got != 1 {
		t.Errorf("the warning was shown %d times, want once:\n%s", got, screen)
	}
}
