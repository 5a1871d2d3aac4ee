package docker

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
)

func TestHealthLog(t *testing.T) {
	app := &backup.App{Containers: []backup.Container{{
		Name: "db", Settings: json.RawMessage(`{"Config":{"Env":["PASSWORD=hunter2 and\nmore","SHORT=a"]}}`),
	}}}
	failed := func(text string) *container.HealthcheckResult {
		return &container.HealthcheckResult{ExitCode: 1, Output: text}
	}
	for _, test := range []struct {
		name string
		log  []*container.HealthcheckResult
		want string
	}{
		{name: "none"},
		{name: "only good ones", log: []*container.HealthcheckResult{{Output: "fine"}, nil}},
		{name: "the last that failed", log: []*container.HealthcheckResult{failed("first"), failed("second"), {Output: "fine"}}, want: "second"},
		{name: "a secret of two lines", log: []*container.HealthcheckResult{failed("wrong: hunter2 and\nmore!\n")}, want: "wrong: …!"},
		{name: "a short value is a word", log: []*container.HealthcheckResult{failed("a table")}, want: "a table"},
		{name: "lines and control characters", log: []*container.HealthcheckResult{failed("one\n\ttwo\x1b[2J\xff\n")}, want: "one two·[2J·"},
		{name: "a flood", log: []*container.HealthcheckResult{failed(strings.Repeat("ü", 5000))}, want: strings.Repeat("ü", healthLogMost) + "…"},
	} {
		if got := healthLog(app, test.log); got != test.want {
			t.Errorf("%s: healthLog = %q, want %q", test.name, got, test.want)
		}
	}
}
