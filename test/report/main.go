// Command report reads what `go test -json` prints and shows what a person wants to
// see: each package's closing line, the whole output of each test that failed, and the
// tests that were skipped. With CI=true a skipped test is a failure, unless -may-skip
// matches its name: a tool that is missing must not pass for a test that has passed.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

func main() {
	pattern := flag.String("may-skip", "^$", "regular expression of the tests that may be skipped in CI")
	flag.Parse()
	maySkip, err := regexp.Compile(*pattern)
	if err != nil {
		fmt.Fprintln(os.Stderr, "report: -may-skip:", err)
		os.Exit(2)
	}
	if os.Getenv("CI") != "true" {
		maySkip = nil
	}
	ok, err := report(os.Stdin, os.Stdout, maySkip)
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// event is one line of `go test -json`; see `go doc test2json`.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	// ImportPath is set instead of Package on the output of a failing build.
	ImportPath string
}

// report copies what matters from events to out and tells whether all is well. maySkip
// matches the tests that may be skipped; nil lets all of them be.
func report(events io.Reader, out io.Writer, maySkip *regexp.Regexp) (bool, error) {
	r := reporter{out: out, maySkip: maySkip, output: make(map[source][]string)}
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			r.line(line)
		}
		if err == io.EOF {
			return r.verdict(), nil
		}
		if err != nil {
			return false, fmt.Errorf("read events: %w", err)
		}
	}
}

// source is what an event is about; the test is empty for the package itself.
type source struct{ pkg, test string }

type reporter struct {
	out     io.Writer
	maySkip *regexp.Regexp
	// output of what has not ended yet
	output map[source][]string

	passed, failed, broken int // tests, tests, packages
	skipped                []string
	missed                 int // skipped, and should not have been
}

func (r *reporter) line(line string) {
	var e event
	if json.Unmarshal([]byte(line), &e) != nil {
		fmt.Fprint(r.out, line) // the go command's own words
		return
	}
	from := source{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "output":
		if e.Test == "" && closing(e.Output) {
			fmt.Fprint(r.out, e.Output)
			return
		}
		r.output[from] = append(r.output[from], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.packageEnds(e)
		} else {
			r.testEnds(e)
		}
		delete(r.output, from)
	}
}

func (r *reporter) testEnds(e event) {
	output := r.output[source{e.Package, e.Test}]
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		fmt.Fprint(r.out, strings.Join(output, ""))
	case "skip":
		if r.maySkip != nil && !r.maySkip.MatchString(e.Test) {
			r.missed++
		}
		r.skipped = append(r.skipped, fmt.Sprintf("%s.%s: %s", e.Package, e.Test, reason(output)))
	}
}

// packageEnds shows, where a package fails, what it said itself, and what the tests said
// that a panic or a timeout has ended without a word.
func (r *reporter) packageEnds(e event) {
	if e.Action != "fail" {
		return
	}
	r.broken++
	for from, text := range r.output {
		if from.pkg == e.Package {
			fmt.Fprint(r.out, strings.Join(text, ""))
			delete(r.output, from)
		}
	}
}

// verdict writes the closing lines.
func (r *reporter) verdict() bool {
	for _, s := range r.skipped {
		fmt.Fprintln(r.out, "skipped", s)
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, len(r.skipped))
	if r.missed > 0 {
		fmt.Fprintf(r.out, "%d of the skipped tests must run in CI\n", r.missed)
	}
	return r.failed+r.broken+r.missed == 0
}

// closing tells whether a line is the last word about a package.
func closing(line string) bool {
	return strings.HasPrefix(line, "ok  \t") || strings.HasPrefix(line, "FAIL\t") || strings.HasPrefix(line, "?   \t")
}

// reason is what a skipped test said of it.
func reason(output []string) string {
	for _, line := range output {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			return line
		}
	}
	return "no reason given"
}
