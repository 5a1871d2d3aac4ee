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
			if got, err = composeOverride(app, d, answers); err != nil {
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

// What the adapted file says of a volume that is not as the compose files say.
func TestComposeVolume(t *testing.T) {
	device := map[string]string{"type": "none", "o": "bind", "device": "/srv/shop/data"}
	for _, test := range []struct {
		name    string
		edit    func(*backup.Volume)
		answers backup.Answers
		facts   func(*facts)
		volumes string // in the file
		source  string // of the mount
	}{
		{name: "as it was", answers: backup.Answers{Routes: map[string]backup.RouteAnswer{"web": {Host: "b.example.com"}}}},
		{
			name: "another's, renamed", edit: func(v *backup.Volume) {
				v.Name, v.External, v.Labels = "vault", true, map[string]string{labelProject: "bank", labelComposeVolume: "conf"}
			},
			answers: backup.Answers{Volumes: map[string]backup.VolumeAnswer{"vault": {Name: "vault2"}}},
			volumes: "  \"restored_data\":\n    external: true\n    name: \"vault2\"\n", source: "restored_data",
		},
		{
			name: "of no known key", edit: func(v *backup.Volume) { v.Labels = nil },
			answers: backup.Answers{Name: "test"},
			volumes: "  \"restored_data\":\n    external: true\n    name: \"test_data\"\n", source: "restored_data",
		},
		{
			name: "one that is there", answers: backup.Answers{Volumes: map[string]backup.VolumeAnswer{"data": {Name: "mine", Existing: true}}},
			facts:   func(f *facts) { f.volumes["mine"] = volFact{driver: "local"} },
			volumes: "  \"data\": !override\n    external: true\n    name: \"mine\"\n",
		},
		{
			name: "a path that may be relative, with the folder moved", edit: func(v *backup.Volume) { v.Options = device },
			answers: backup.Answers{ProjectDir: "/srv/moved", Allow: []string{"all"}},
			volumes: "  \"data\":\n    name: \"shop_data\"\n    driver: \"local\"\n    driver_opts: !override\n      \"device\": \"/srv/shop/data\"\n      \"o\": \"bind\"\n      \"type\": \"none\"\n",
		},
	} {
		m, app := archived("")
		if test.edit != nil {
			test.edit(&app.Volumes[0])
		}
		f := bare()
		f.paths["/srv/moved"], f.paths["/srv/moved/conf"] = pathFact{}, pathFact{}
		if test.facts != nil {
			test.facts(f)
		}
		p, d, err := planRestore(m, app, test.answers, f)
		if err != nil || !p.Ready() || !d.Override {
			t.Fatalf("%s: %v, %+v, an adapted file: %v", test.name, err, p.Conflicts, d.Override)
		}
		got, err := composeOverride(app, d, test.answers)
		if err != nil {
			t.Fatal(err)
		}
		_, volumes, _ := strings.Cut(got, "\nvolumes:\n")
		volumes, _, _ = strings.Cut(volumes, "networks:\n")
		if diff := cmp.Diff(test.volumes, volumes); diff != "" {
			t.Errorf("%s: volumes differ (-want +got):\n%s", test.name, diff)
		}
		if want := "source: \"" + test.source + "\""; strings.Contains(got, want) != (test.source != "") {
			t.Errorf("%s: the file is\n%s\nwant %s in it", test.name, got, want)
		}
		labels := (&restore{d: d, app: app, c: &changeover{op: "0"}}).volumeLabels(&backup.Volume{Name: app.Volumes[0].Name, Options: app.Volumes[0].Options, Labels: map[string]string{labelComposeHash: "x"}}, &d.Volumes[0])
		if _, kept := labels[labelComposeHash]; kept != (test.volumes == "") {
			t.Errorf("%s: compose's hash is kept: %v, want it where the volume is as it was", test.name, kept)
		}
	}
}
