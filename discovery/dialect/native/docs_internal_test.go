package native

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/dentropy/dentropycloud/discovery"
)

func readPage(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../../docs/labels.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// rows gives the cells of the table below a heading.
func rows(t *testing.T, page, heading string) [][]string {
	t.Helper()
	_, section, ok := strings.Cut(page, "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("the page has no heading %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var table [][]string
	for line := range strings.Lines(section) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.ReplaceAll(line, `\|`, "\x00"), "|"), "|")
		for i, c := range cells {
			cells[i] = strings.TrimSpace(strings.ReplaceAll(c, "\x00", "|"))
		}
		table = append(table, cells)
	}
	if len(table) < 3 {
		t.Fatalf("below %q there is no table", heading)
	}
	return table[2:] // head and rule
}

func TestPageListsTheKeys(t *testing.T) {
	var want [][]string
	for _, k := range keys {
		want = append(want, []string{"`" + k.name + "`", k.values, k.def})
	}
	if diff := cmp.Diff(want, rows(t, readPage(t), "Keys")); diff != "" {
		t.Errorf("the table of docs/labels.md (-code +page):\n%s", diff)
	}
}

func TestPageListsReservedWordsAndLimits(t *testing.T) {
	page := strings.Join(strings.Fields(readPage(t)), " ")
	for _, want := range []string{
		"Reserved first words, which never name a route: `" + strings.Join(reserved, "`, `") + "`.",
		fmt.Sprintf("Per container %d routes; per route %d hosts, %d paths and %d addresses or prefixes; per value %d KiB.",
			maxRoutes, maxHosts, maxPaths, maxPrefixes, maxValue>>10),
		fmt.Sprintf("A name has letters, digits, `-` and `_`, at most %d.", maxName),
	} {
		if !strings.Contains(page, want) {
			t.Errorf("docs/labels.md does not say %q", want)
		}
	}
}

func TestPageQuotesMessages(t *testing.T) {
	for _, row := range rows(t, readPage(t), "When a label is wrong") {
		label, value, _ := strings.Cut(strings.Trim(row[0], "`"), "=")
		if strings.HasPrefix(row[0], "``") {
			value, _ = strings.CutSuffix(strings.TrimPrefix(row[0], "``"+label+"="), "``")
		}
		_, problems := new(Dialect).Parse(discovery.Labelled{Labels: map[string]string{label: value}, Ports: []int{80}})
		if len(problems) == 0 {
			t.Errorf("%s=%s is no problem", label, value)
			continue
		}
		p := problems[0]
		if got := fmt.Sprintf("%s (%s)", p.Reason, p.Hint); got != row[1] {
			t.Errorf("for %s=%s the page says %q, Parse %q", label, value, row[1], got)
		}
	}
}

// Every label in the text, the table of wrong ones aside, is a good one.
func TestPageLabelsAreGood(t *testing.T) {
	page := readPage(t)
	before, after, _ := strings.Cut(page, "\n## When a label is wrong\n")
	_, after, _ = strings.Cut(after, "\n## ")
	found := 0
	for _, m := range regexp.MustCompile("`(dentropy\\.[^`=<]+)=([^`]+)`").FindAllStringSubmatch(before+after, -1) {
		found++
		labels := map[string]string{m[1]: m[2]}
		if i := strings.LastIndexByte(m[1], '.'); m[1][i:] != ".host" {
			labels[m[1][:i]+".host"] = "a.example.com"
		}
		routes, problems := new(Dialect).Parse(discovery.Labelled{Labels: labels, Ports: []int{80}})
		if len(routes) != 1 || len(problems) != 0 {
			t.Errorf("%s gives %v, %v, want one route", m[0], routes, problems)
		}
	}
	if found < 10 {
		t.Errorf("found %d labels in the page, want at least 10", found)
	}
}

func TestPageComposeFiles(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(readPage(t), -1)
	if len(blocks) == 0 {
		t.Fatal("the page has no compose file")
	}
	for _, b := range blocks {
		var file struct {
			Services map[string]struct {
				Expose []string          `yaml:"expose"`
				Labels map[string]string `yaml:"labels"`
			} `yaml:"services"`
		}
		if err := yaml.Unmarshal([]byte(b[1]), &file); err != nil {
			t.Errorf("%v in\n%s", err, b[1])
			continue
		}
		for name, s := range file.Services {
			in := discovery.Labelled{Name: name, Labels: s.Labels}
			for _, e := range s.Expose {
				p, err := strconv.Atoi(e)
				if err != nil {
					t.Errorf("expose %q of %s: %v", e, name, err)
				}
				in.Ports = append(in.Ports, p)
			}
			slices.Sort(in.Ports)
			routes, problems := new(Dialect).Parse(in)
			if len(routes) == 0 || len(problems) != 0 {
				t.Errorf("service %s gives %v, %v, want routes and no problem", name, routes, problems)
			}
		}
	}
}
