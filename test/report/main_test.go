package main

import (
	"regexp"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	tests := []struct {
		name   string
		events string
		may    string // empty: not CI
		ok     bool
		want   []string
		not    []string
	}{
		{
			name: "passed",
			events: `{"Action":"output","Package":"p","Test":"TestA","Output":"chatter\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`,
			ok:   true,
			want: []string{"ok  \tp\t0.1s\n", "1 passed, 0 failed, 0 skipped\n"},
			not:  []string{"chatter"},
		},
		{
			name: "failed",
			events: `{"Action":"output","Package":"p","Test":"TestA","Output":"got 1, want 2\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
`,
			want: []string{"got 1, want 2\n", "FAIL\tp\t0.1s\n", "0 passed, 1 failed, 0 skipped\n"},
		},
		{
			name: "a panic names its test although nothing ends it",
			events: `{"Action":"output","Package":"p","Test":"TestA","Output":"panic: oh\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
`,
			want: []string{"panic: oh\n", "0 passed, 0 failed, 0 skipped\n"},
		},
		{
			name: "does not build",
			events: `{"ImportPath":"p","Action":"build-output","Output":"p/a.go:1: syntax error\n"}
{"ImportPath":"p","Action":"build-fail"}
{"Action":"output","Package":"p","Output":"FAIL\tp [build failed]\n"}
{"Action":"fail","Package":"p"}
`,
			want: []string{"syntax error", "FAIL\tp [build failed]\n"},
		},
		{
			name: "skipped",
			events: `{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:1: no pebble\n"}
{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p"}
`,
			ok:   true,
			want: []string{"skipped p.TestA: a_test.go:1: no pebble\n", "0 passed, 0 failed, 1 skipped\n"},
		},
		{
			name:   "skipped where nothing may be",
			events: `{"Action":"skip","Package":"p","Test":"TestA"}` + "\n",
			may:    "^Fuzz",
			want:   []string{"no reason given", "1 of the skipped tests must run in CI"},
		},
		{
			name:   "skipped where it may be",
			events: `{"Action":"skip","Package":"p","Test":"FuzzA/seed#0"}` + "\n",
			may:    "^Fuzz",
			ok:     true,
			want:   []string{"0 passed, 0 failed, 1 skipped"},
		},
		{name: "not JSON", events: "go: no such file\n", ok: true, want: []string{"go: no such file\n"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			var may *regexp.Regexp
			if tt.may != "" {
				may = regexp.MustCompile(tt.may)
			}
			ok, err := report(strings.NewReader(tt.events), &out, may)
			if err != nil || ok != tt.ok {
				t.Errorf("report = %v, %v, want %v", ok, err, tt.ok)
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("output lacks %q:\n%s", want, out.String())
				}
			}
			for _, not := range tt.not {
				if strings.Contains(out.String(), not) {
					t.Errorf("output has %q:\n%s", not, out.String())
				}
			}
		})
	}
}
