package docker

import (
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
)

func TestHookFailed(t *testing.T) {
	err := hookFailed(hookRun{Name: "db", Hook: backup.Hook{Label: labelPre}}, 2, "dump --password=hunter2 --user=me: no such table")
	text := err.Error()
	if strings.Contains(text, "hunter2") || !strings.Contains(text, "no such table") || !strings.Contains(text, "--user=me") {
		t.Errorf("error %q, want what went wrong without the password", text)
	}
	if text := hookFailed(hookRun{Name: "db", Hook: backup.Hook{Label: labelPre}}, 2, "").Error(); !strings.HasSuffix(text, "code 2") {
		t.Errorf("error %q", text)
	}
}
