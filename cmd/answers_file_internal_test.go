package dentropycmd

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/tools/txtar"

	"github.com/dentropy/dentropycloud/backup"
)

func TestAnswersFile(t *testing.T) {
	paths, err := filepath.Glob("testdata/answers/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			in := map[string]string{}
			for _, f := range ar.Files {
				in[f.Name] = string(f.Data)
			}
			a, err := readAnswers(strings.NewReader(in["in"]))
			got := map[string]string{"in": in["in"]}
			if err != nil {
				got["error"] = err.Error() + "\n"
			} else {
				raw, err := json.MarshalIndent(a, "", "  ")
				if err != nil {
					t.Fatal(err)
				}
				got["want"] = string(raw) + "\n"
			}
			if *update {
				files := []txtar.File{{Name: "in", Data: []byte(in["in"])}}
				for _, name := range []string{"want", "error"} {
					if got[name] != "" {
						files = append(files, txtar.File{Name: name, Data: []byte(got[name])})
					}
				}
				ar.Files = files
				if err := os.WriteFile(path, txtar.Format(ar), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(in, got); diff != "" {
				t.Errorf("answers differ (-want +got); -update writes them:\n%s", diff)
			}
		})
	}
}

func TestWriteAnswers(t *testing.T) {
	questions := []backup.Question{{Key: "volumes.db.name", Text: "Volume db", Default: "db", Flag: "--volume db=name:…"}}
	for _, tt := range []struct {
		name string
		a    backup.Answers
		want string
	}{
		{"none", backup.Answers{}, `# Answers for: dentropy restore FILE --answers THIS-FILE
# What is not in here keeps its default.
# What can be answered, with the default:
#   volumes.db.name: db   (Volume db)
{}
`},
		{"some", backup.Answers{
			Name: "yes", Ports: map[string]string{"web:80": "08081"}, NoProbe: true,
			Volumes: map[string]backup.VolumeAnswer{"db": {Driver: "local", Options: map[string]string{"o": "addr=1,rw"}}},
		}, `# Answers for: dentropy restore FILE --answers THIS-FILE
# What is not in here keeps its default.
name: yes
volumes:
  db:
    driver: local
    options:
      o: addr=1,rw
ports:
  web:80: "08081"
no_probe: true

# What can be answered, with the default:
#   volumes.db.name: db   (Volume db)
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := writeAnswers(&b, tt.a, questions); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, b.String()); diff != "" {
				t.Errorf("the file differs (-want +got):\n%s", diff)
			}
			got, err := readAnswers(&b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.a, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("what is read again differs (-written +read):\n%s", diff)
			}
		})
	}
}

// FuzzAnswers holds that no file makes the reader panic or use much more than its
// size, and that what was read is read again as it was from what is written of it.
func FuzzAnswers(f *testing.F) {
	paths, err := filepath.Glob("testdata/answers/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		ar, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(ar.Files[0].Data)
	}
	f.Add([]byte("name: \"\\u0085 \\x00\"\nports: {\"\": x, ? \"a\\nb\" : \"# c\"}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := readAnswers(bytes.NewReader(text))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := writeAnswers(&b, a, nil); err != nil {
			t.Fatalf("writeAnswers(%+v) = %v", a, err)
		}
		written := b.String()
		again, err := readAnswers(&b)
		if err != nil {
			t.Fatalf("%+v is written as\n%s\nwhich reads %v", a, written, err)
		}
		if diff := cmp.Diff(a, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%s\ndiffers (-read +read again):\n%s", written, diff)
		}
	})
}
