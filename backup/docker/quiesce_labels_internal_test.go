package docker

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dentropy/dentropycloud/backup"
)

func TestQuiesceOf(t *testing.T) {
	shell := func(s string) []string { return []string{"/bin/sh", "-c", s} }
	tests := []struct {
		name   string
		labels map[string]string
		want   backup.Quiesce // without Why
		why    string
		err    string
	}{
		{name: "nothing", want: backup.Quiesce{Mode: backup.Stop}, why: "default"},
		{name: "pause", labels: map[string]string{labelMode: " Pause "}, want: backup.Quiesce{Mode: backup.Pause}, why: labelMode},
		{name: "unknown mode", labels: map[string]string{labelMode: "freeze"}, err: "want stop, pause or hot"},
		{name: "empty mode", labels: map[string]string{labelMode: ""}, err: "want stop, pause or hot"},
		{
			name: "hooks", labels: map[string]string{labelPre: "pg_dump > /d", labelPost: `["/x", "a b"]`, labelUser: "postgres"},
			want: backup.Quiesce{
				Mode: backup.Stop,
				Pre:  []backup.Hook{{Command: shell("pg_dump > /d"), User: "postgres", Label: labelPre}},
				Post: []backup.Hook{{Command: []string{"/x", "a b"}, User: "postgres", Label: labelPost}},
			},
		},
		{
			name: "a shell's test is no JSON", labels: map[string]string{labelPre: "[ -f /x ] && y"},
			want: backup.Quiesce{Mode: backup.Stop, Pre: []backup.Hook{{Command: shell("[ -f /x ] && y"), Label: labelPre}}},
		},
		{name: "a hook of spaces", labels: map[string]string{labelPre: "  "}, want: backup.Quiesce{Mode: backup.Stop}},
		{
			name: "offen's hooks leave it running", labels: map[string]string{
				offen + "archive-pre": `/bin/sh -c 'mysqldump --all > "/tmp/x y"'`, offen + "archive-pre.user": "me", offen + "copy-post": "touch /done",
			},
			want: backup.Quiesce{
				Mode: backup.Hot,
				Pre:  []backup.Hook{{Command: []string{"/bin/sh", "-c", `mysqldump --all > "/tmp/x y"`}, User: "me", Label: offen + "archive-pre"}},
				Post: []backup.Hook{{Command: []string{"touch", "/done"}, Label: offen + "copy-post"}},
			},
			why: "hooks of docker-volume-backup",
		},
		{
			name: "offen's hooks and stop", labels: map[string]string{offen + "archive-pre": "x", labelOffenStop: "nightly"},
			want: backup.Quiesce{Mode: backup.Stop, Pre: []backup.Hook{{Command: []string{"x"}, Label: offen + "archive-pre"}}}, why: labelOffenStop,
		},
		{name: "offen's stop is off", labels: map[string]string{labelOffenStop: "false"}, want: backup.Quiesce{Mode: backup.Stop}, why: "default"},
		{name: "offen's no restart", labels: map[string]string{labelOffenNoBack: "true"}, want: backup.Quiesce{Mode: backup.Stop, NoRestart: true}},
		{
			name: "our mode wins", labels: map[string]string{offen + "archive-pre": "x", labelMode: "stop"},
			want: backup.Quiesce{Mode: backup.Stop, Pre: []backup.Hook{{Command: []string{"x"}, Label: offen + "archive-pre"}}}, why: labelMode,
		},
		{name: "offen's hook is no command", labels: map[string]string{offen + "copy-pre": `x "y`}, err: "is not closed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := quiesceOf(tt.labels)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error = %v, want it to contain %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(got.Why, tt.why) {
				t.Errorf("why = %q, want it to contain %q", got.Why, tt.why)
			}
			got.Why = ""
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("quiesceOf (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSplitWords(t *testing.T) {
	tests := []struct {
		in   string
		want []string
		err  bool
	}{
		{in: "a b\tc\n", want: []string{"a", "b", "c"}},
		{in: `a 'b "c" \d' "e 'f' \" \x"`, want: []string{"a", `b "c" \d`, `e 'f' " \x`}},
		{in: `a\ b ''`, want: []string{"a b", ""}},
		{in: `x"y"z`, want: []string{"xyz"}},
		{in: `a 'b`, err: true},
		{in: `a \`, err: true},
		{in: "  ", err: true},
	}
	for _, tt := range tests {
		got, err := splitWords(tt.in)
		if (err != nil) != tt.err || !cmp.Equal(got, tt.want) {
			t.Errorf("splitWords(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}
