// Command bench measures what the project promises about speed, and writes the
// figures as Markdown. It starts the real binary against a scripted Docker
// engine that serves any number of containers, all on loopback.
//
//	go run ./test/bench -binary bin/dentropy [-only latency,reload,…] [-o docs/performance.md]
//
// Figures of a machine say little by themselves: where a peer exists (Caddy's own
// ways in), it runs beside ours in the same run and the ratio is given.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// section is one table of the report.
type section struct {
	name, title string
	run         func(*bench) (table, error)
}

var sections = []section{
	{"latency", "From a container's start event to the first 200", latency},
	{"start", "Start with containers that run already, and memory", start},
	{"churn", "1,000 events beside 100 websockets and a steady load", churn},
	{"reload", "Beside Caddy's own ways in: an added site", added},
	{"random", "Beside Caddy's own ways in: random hosts", random},
	{"request", "CPU per request beside the same site in a static Caddyfile", perRequest},
	{"certificate", "Time to the first certificate", certificate},
	{"backup", "Backup: the helper beside tar, zstd and cat", packing},
	{"restore", "Restore: the helper beside zstd and tar", unpacking},
	{"downtime", "Backup and restore of an app through Docker", throughDocker},
}

type table struct {
	head []string
	rows [][]string
	note string
}

func (t *table) add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		switch v := c.(type) {
		case time.Duration:
			row[i] = millis(v)
		case float64:
			row[i] = fmt.Sprintf("%.2f", v)
		default:
			row[i] = fmt.Sprint(v)
		}
	}
	t.rows = append(t.rows, row)
}

func millis(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/1e6) }

// bench is what the sections share.
type bench struct {
	binary  string
	dir     string
	profile string // where a CPU profile goes; "" for none
	sets    []dataset
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	binary := flag.String("binary", "bin/dentropy", "the program to measure")
	only := flag.String("only", "", "comma-separated names of sections; default all")
	profile := flag.String("profile", "", "file for a CPU profile of the program during the request section")
	out := flag.String("o", "", "file to write; default standard output")
	flag.Parse()
	dir, err := os.MkdirTemp("", "dentropy-bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	b := &bench{binary: *binary, dir: dir, profile: *profile}
	var report strings.Builder
	preface(&report)
	for _, s := range sections {
		if *only != "" && !strings.Contains(","+*only+",", ","+s.name+",") {
			continue
		}
		fmt.Fprintln(os.Stderr, "measuring:", s.title)
		t, err := s.run(b)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		write(&report, s, t)
		write(os.Stderr, s, t)
	}
	if *out == "" {
		_, err := io.WriteString(os.Stdout, report.String())
		return err
	}
	return os.WriteFile(*out, []byte(report.String()), 0o644)
}

func preface(w io.Writer) {
	cpu := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel := ""
	if b, err := exec.Command("uname", "-r").Output(); err == nil {
		kernel = strings.TrimSpace(string(b))
	}
	fmt.Fprintf(w, `# Performance

Written by `+"`make bench`"+` (test/bench); do not edit. Each section can be had alone:
`+"`go run ./test/bench -binary bin/dentropy -only <name>`"+`.

Machine: %s, %d cores, Linux %s, %s; %s. Program, engine, backends and load
share those cores, so trust the ratios more than the absolute figures.
`, cpu, runtime.NumCPU(), kernel, runtime.Version(), time.Now().UTC().Format("2006-01-02"))
}

func write(w io.Writer, s section, t table) {
	fmt.Fprintf(w, "\n## %s (`%s`)\n\n| %s |\n|%s\n", s.title, s.name, strings.Join(t.head, " | "), strings.Repeat("---|", len(t.head)))
	for _, row := range t.rows {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
	}
	if t.note != "" {
		fmt.Fprintf(w, "\n%s\n", t.note)
	}
}
