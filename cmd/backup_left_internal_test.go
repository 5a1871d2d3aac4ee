package dentropycmd

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/backuptest"
)

// leftBehind is a worker of this process that finds the journal of a backup whose process
// is gone. Steps are what its platform is asked for.
func leftBehind(t *testing.T) (l *local, talk *bytes.Buffer, steps *[]string, fail *error) {
	t.Helper()
	dir := t.TempDir()
	p := backuptest.NewPlatform("docker", backuptest.NewEngine(filepath.Join(dir, "engine.json")))
	steps, fail = new([]string), new(error)
	p.Step = func(step string) error {
		*steps = append(*steps, step)
		if step == "recover" {
			return *fail
		}
		return nil
	}
	m, err := backup.NewManager(backup.Config{Dir: filepath.Join(dir, "backup"), Platforms: []backup.Platform{p}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	const op = "0123456789ab"
	line := fmt.Sprintf(`{"id":%q,"kind":"backup","platform":"docker","app":"shop\u001b[2J","time":"2026-11-24T10:15:00Z"}`+"\n", op)
	if err := os.WriteFile(filepath.Join(dir, "backup", "journal", op+".ndjson"), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	talk = new(bytes.Buffer)
	return &local{m: m, talk: talk}, talk, steps, fail
}

// Whoever lists apps after a crash learns what was left stopped, and it is brought back
// before the list is made.
func TestAppsAfterACrash(t *testing.T) {
	l, talk, steps, _ := leftBehind(t)
	if _, err := l.apps(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(*steps, " "); got != "recover list" {
		t.Errorf("the platform was asked for %q, want that the app is brought back, and then the list", got)
	}
	if got := talk.String(); !strings.Contains(got, "backup of shop·[2J on docker") || strings.Contains(got, "cannot") {
		t.Errorf("it says %q, want which app is brought back", got)
	}
	talk.Reset()
	if _, err := l.apps(t.Context()); err != nil || talk.Len() > 0 {
		t.Errorf("once it is done it says %q, %v", talk.String(), err)
	}
}

// An engine that cannot be asked now keeps nobody from the list.
func TestAppsAfterACrashWithoutAnEngine(t *testing.T) {
	l, talk, steps, fail := leftBehind(t)
	*fail = errors.New("the engine is away")
	if _, err := l.apps(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := talk.String(); !strings.Contains(got, "is brought back first\n") || !strings.Contains(got, "the engine is away") {
		t.Errorf("it says %q, want which app was left stopped, and why it is not back", got)
	}
	if got := strings.Join(*steps, " "); got != "recover list" {
		t.Errorf("the platform was asked for %q, want one attempt, and the list", got)
	}
}
