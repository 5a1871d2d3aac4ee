package backup_test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dentropy/dentropycloud/backup"
)

// What a manifest says about special files arrives; one that says nothing about them is
// of an older program, and stays readable.
func TestManifestSpecial(t *testing.T) {
	made := makeArchive(t, archiveOptions{encryption: "none"})
	parts := takeApart(t, made.bytes)
	want := &backup.Special{SetID: 1, Examples: []string{"bin/su"}}
	editManifest(t, parts, func(m map[string]any) {
		db := m["trees"].(map[string]any)["db"].(map[string]any)
		db["files"], db["entries"] = 3, 5
		db["special"] = map[string]any{"setid": 1, "devices": 0, "examples": []string{"bin/su"}}
	})
	r, err := backup.NewReader(bytes.NewReader(seal(t, parts, made.manifest.ID)))
	if err != nil {
		t.Fatal(err)
	}
	trees := r.Manifest().Trees
	if diff := cmp.Diff(want, trees["db"].Special); diff != "" {
		t.Errorf("Special (-want +got):\n%s", diff)
	}
	if got := trees["media"].Special; got != nil {
		t.Errorf("Special of a tree that does not say = %+v, want nil: not known", got)
	}
}
