package backup

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testOp(id string) Operation {
	return Operation{ID: id, Kind: kindBackup, Platform: "docker", App: "shop", Time: time.Unix(1700000000, 0).UTC()}
}

func TestJournalIsReadBack(t *testing.T) {
	dir := t.TempDir()
	op := testOp("0123456789ab")
	j, err := createJournal(dir, op)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Append("stop", []string{"db", "web"}); err != nil {
		t.Fatal(err)
	}
	if err := j.Append("started", nil); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, op.ID+journalSuffix)
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("journal = %v, %v, want mode 0600", fi.Mode(), err)
	}
	if _, err := openDead(path); !errors.Is(err, errAlive) {
		t.Errorf("openDead of a journal in use = %v, want errAlive", err)
	}
	if got, err := peekJournal(path); err != nil || got != op {
		t.Errorf("peekJournal = %v, %v, want %v", got, err, op)
	}
	j.abandon()
	if err := j.Append("late", nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Append after the end = %v, want os.ErrClosed", err)
	}
	d, err := openDead(path)
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	for _, e := range d.entries {
		steps = append(steps, e.Step+string(e.Data))
	}
	if diff := cmp.Diff([]string{`stop["db","web"]`, "started"}, steps); diff != "" || d.op != op || d.over() {
		t.Errorf("journal = %v, over %v: %s", d.op, d.over(), diff)
	}
	if _, err := openDead(path); !errors.Is(err, errAlive) {
		t.Errorf("a second openDead = %v, want errAlive", err)
	}
	if err := d.finish(); err != nil {
		t.Fatal(err)
	}
	if left, err := journals(dir); len(left) > 0 || err != nil {
		t.Errorf("journals = %v, %v, want none", left, err)
	}
}

func TestJournalThatIsOverIsGone(t *testing.T) {
	dir := t.TempDir()
	j, err := createJournal(dir, testOp("0123456789ab"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := createJournal(dir, j.op); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second journal of one operation: %v, want fs.ErrExist", err)
	}
	if err := j.finish(); err != nil {
		t.Fatal(err)
	}
	if list, err := os.ReadDir(dir); len(list) > 0 || err != nil {
		t.Errorf("folder holds %v, %v, want nothing", list, err)
	}
}

// A line that kill -9 or a full disk cut off was never written; garbage between whole
// lines costs these lines only.
func TestReadJournalTorn(t *testing.T) {
	head, _ := json.Marshal(testOp("0123456789ab"))
	first := string(head) + "\n"
	a, b := `{"step":"a"}`+"\n", `{"step":"b"}`+"\n"
	tests := []struct {
		name, text, want string
		lost             int
		fails            bool
	}{
		{name: "whole", text: first + a + b, want: "ab"},
		{name: "last line torn", text: first + a + b[:len(b)-3], want: "a"},
		{name: "last line without its end", text: first + a + b[:len(b)-1], want: "a"},
		{name: "garbage between", text: first + a + "\x00\x00\x00\n" + b, want: "ab", lost: 1},
		{name: "first line only", text: first},
		{name: "first line torn", text: first[:20], fails: true},
		{name: "no id", text: "{}\n", fails: true},
		{name: "id that leads elsewhere", text: `{"id":"../../../x"}` + "\n", fails: true},
		{name: "empty", fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, entries, lost, err := readJournal(strings.NewReader(tt.text))
			got := ""
			for _, e := range entries {
				got += e.Step
			}
			if got != tt.want || lost != tt.lost || (err != nil) != tt.fails {
				t.Errorf("readJournal = %q, %d lost, %v, want %q, %d, error %v", got, lost, err, tt.want, tt.lost, tt.fails)
			}
		})
	}
}

// What a full disk leaves of a line is taken back, so that the next one is whole.
func TestJournalOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	j, err := createJournal(dir, testOp("0123456789ab"))
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Append("a", nil); err != nil {
		t.Fatal(err)
	}
	whole := j.f
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = full.Close() }()
	j.f = full
	if err := j.Append("b", nil); err == nil {
		t.Error("Append on a full disk succeeds")
	}
	// the device cannot be truncated: nothing may be added to what may be half a line
	j.f = whole
	if err := j.Append("c", nil); err == nil {
		t.Error("Append to a journal that may end in half a line succeeds")
	}
	j.abandon()
}

func TestJournalsInTheMakingAreSwept(t *testing.T) {
	dir := t.TempDir()
	for name, age := range map[string]time.Duration{"old" + newJournalSuffix: 2 * time.Hour, "fresh" + newJournalSuffix: 0} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		when := time.Now().Add(-age)
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	sweepJournals(dir)
	list, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(list) != 1 || !strings.HasSuffix(list[0], "fresh"+newJournalSuffix) {
		t.Errorf("left = %v, %v, want the fresh one", list, err)
	}
}

func FuzzJournal(f *testing.F) {
	head, _ := json.Marshal(testOp("0123456789ab"))
	f.Add([]byte(string(head) + "\n" + `{"step":"a","data":{"x":1}}` + "\n{\"st"))
	f.Add([]byte("\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		op, entries, lost, err := readJournal(bytes.NewReader(b))
		if err != nil {
			return
		}
		if !validOp(op.ID) {
			t.Errorf("id = %q", op.ID)
		}
		if lines := bytes.Count(b, []byte{'\n'}); len(entries)+lost != lines-1 {
			t.Errorf("%d entries and %d lost of %d whole lines", len(entries), lost, lines-1)
		}
		for _, e := range entries {
			if e.Step == "" {
				t.Error("an entry without a step")
			}
		}
	})
}

func TestLockName(t *testing.T) {
	names := map[string]string{}
	for _, pair := range [][2]string{
		{"docker", "shop"}, {"docker", "Shop"}, {"docker", "a-b"}, {"docker-a", "b"}, {"docker", "../x"}, {"docker", "/etc/x"},
		{"docker", strings.Repeat("x", 300)}, {"docker", strings.Repeat("x", 301)}, {"docker:nas", "shop"}, {"docker", ""}, {"docker", "\x00"},
	} {
		name := lockName(pair[0], pair[1])
		if before, ok := names[name]; ok {
			t.Errorf("lockName(%q) = %q, as of %q", pair, name, before)
		}
		names[name] = pair[0] + "/" + pair[1]
		if len(name) > 200 || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
			t.Errorf("lockName(%q) = %q, want a plain file name", pair, name)
		}
	}
	if got := lockName("docker", "shop"); got != "docker-shop.lock" {
		t.Errorf("lockName = %q, want docker-shop.lock", got)
	}
}
