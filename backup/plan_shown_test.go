package backup_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
)

func TestPlanShown(t *testing.T) {
	p := &backup.Plan{
		Detail: json.RawMessage(`{"env":"hunter2"}`),
		Answers: backup.Answers{Volumes: map[string]backup.VolumeAnswer{
			"data": {Driver: "local", Options: map[string]string{"type": "cifs", "device": "//nas/share", "o": "addr=10.0.0.2,password=hunter2"}},
		}},
	}
	shown, err := json.Marshal(p.Shown())
	if err != nil {
		t.Fatal(err)
	}
	if s := string(shown); strings.Contains(s, "hunter2") || !strings.Contains(s, "//nas/share") {
		t.Errorf("Shown() = %s", s)
	}
	if got := p.Answers.Volumes["data"].Options["o"]; got != "addr=10.0.0.2,password=hunter2" {
		t.Errorf("the plan itself has changed: %q", got)
	}
}
