package volume

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
)

// mostLine is what who runs a helper takes of one line.
const mostLine = 1 << 20

// TestNotesAreShort: a result is one line, whatever the names of files are.
func TestNotesAreShort(t *testing.T) {
	for _, name := range []string{"f", strings.Repeat("n/", 2000), strings.Repeat("\x01", 4000), strings.Repeat("<", 4000), strings.Repeat("\u2028", 1000)} {
		var n notes
		for i := range 2 * backup.MaxNotes {
			n.add(fmt.Sprint(name, i), "skipped", "a socket")
		}
		n.add("last", "changed", "it is torn")
		list, lost := n.take()
		text, err := json.Marshal(WriteResult{Done: true, Result: Result{Notes: list, NotesLost: lost}})
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > mostLine || len(list) == 0 || len(list)+lost != 2*backup.MaxNotes+1 {
			t.Errorf("%d notes and %d lost in %d bytes", len(list), lost, len(text))
		}
		if last := list[len(list)-1]; name == "f" && (last.Path != "last" || len(list) != backup.MaxNotes) {
			t.Errorf("%d notes, the last is %+v; want the severe one kept", len(list), last)
		}
	}
}

func TestMergeIsBounded(t *testing.T) {
	root := t.TempDir()
	name := strings.Repeat("n", 240)
	for i := range 2000 {
		put(t, root, fmt.Sprintf("a/%s%04d", name, i), "x")
	}
	put(t, root, "b/x", "x")
	if r, err := runHost(t, root, HostStep{Op: "merge", A: "a", B: "b"}); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("merge of long names tells of %d entries, %v; want it refused", len(r.Merge), err)
	}
	deep := strings.Repeat("d/", 150)
	put(t, root, "c/"+deep+"f", "x")
	put(t, root, "d/"+deep+"f", "y")
	if _, err := runHost(t, root, HostStep{Op: "merge", A: "c", B: "d"}); err == nil || !strings.Contains(err.Error(), "deep") {
		t.Errorf("merge of deep folders = %v, want it refused", err)
	}
}
