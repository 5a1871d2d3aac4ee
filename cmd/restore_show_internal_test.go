package dentropycmd

import (
	"bytes"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
)

// That a restore cannot be undone stands at its end, with what is left of before.
func TestShowNoUndo(t *testing.T) {
	for _, test := range []struct {
		name string
		res  backup.RestoreResult
		want string
	}{
		{name: "it can", res: backup.RestoreResult{Undo: "0123456789ab"}},
		{name: "it cannot", res: backup.RestoreResult{NoUndo: "no space\x1b[2J"}, want: "  undo       ! not possible now: no space·[2J\n"},
		{
			name: "it cannot, and something is kept",
			res:  backup.RestoreResult{NoUndo: "no space", Kept: []string{"the volume a.pre-restore-1", "/srv/a.pre-restore-1"}},
			want: "  undo       ! not possible now: no space\n  kept       the volume a.pre-restore-1\n             /srv/a.pre-restore-1\n" +
				"             this holds what was there before; remove it when you do not need it\n",
		},
	} {
		var out bytes.Buffer
		showNoUndo(&printer{w: &out}, &test.res)
		if got := out.String(); got != test.want {
			t.Errorf("%s: it says %q, want %q", test.name, got, test.want)
		}
	}
}
