package docker

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"gopkg.in/yaml.v3"

	"github.com/dentropy/dentropycloud/backup"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestComposeOverride reads answers and holds the adapted compose file against
// testdata/override.txtar: each answer is followed by its file.
func TestComposeOverride(t *testing.T) {
	const golden = "testdata/override.txtar"
	file, err := txtar.ParseFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(file.Files); i += 2 {
		in, out := file.Files[i], &file.Files[i+1]
		var answers backup.Answers
		if err := json.Unmarshal(in.Data, &answers); err != nil {
			t.Fatalf("%s: %v", in.Name, err)
		}
		m, app := archived("")
		app.Volumes[0].Options = map[string]string{}
		_, d, err := planRestore(m, app, answers, bare())
		if err != nil {
			t.Fatalf("%s: %v", in.Name, err)
		}
		got := "none\n"
		if d.Override {
			if got, err = composeOverride(app, d); err != nil {
				t.Fatalf("%s: %v", in.Name, err)
			}
			var any map[string]yaml.Node
			if err := yaml.Unmarshal([]byte(got), &any); err != nil {
				t.Errorf("%s: it is no YAML: %v\n%s", in.Name, err, got)
			}
		}
		if *update {
			out.Data = []byte(got)
			continue
		}
		if diff := cmp.Diff(string(out.Data), got); diff != "" {
			t.Errorf("%s: override differs (-want +got):\n%s", in.Name, diff)
		}
	}
	if *update {
		if err := os.WriteFile(golden, txtar.Format(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{
		"plain": `"plain"`, "a: b #c": `"a: b #c"`, "$HOME": `"$$HOME"`, "line\nend": `"line\nend"`, `"`: `"\""`,
	} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
		var back string
		if err := yaml.Unmarshal([]byte(quote(in)), &back); err != nil || strings.ReplaceAll(back, "$$", "$") != in {
			t.Errorf("quote(%q) is read as %q, %v", in, back, err)
		}
	}
}
