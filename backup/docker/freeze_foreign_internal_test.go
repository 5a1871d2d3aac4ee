package docker

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
)

// Another data folder has other locks: of a program that uses it only the guard is seen.
func TestForeignGuard(t *testing.T) {
	app := &backup.App{Name: "shop", Containers: []backup.Container{{ID: "c1", Name: "web"}, {ID: "c2", Name: "db"}}}
	guardOf := func(spec guardSpec) string {
		text, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		in, err := json.Marshal(map[string]any{"Id": "g1", "Config": map[string]any{"Cmd": []string{roleGuard, string(text)}}})
		if err != nil {
			t.Fatal(err)
		}
		return string(in)
	}
	const list = `[{"Id":"g1","Names":["/dentropy-aa-guard-bb"],"Labels":{"dentropy.backup.role":"guard","dentropy.backup.job":"aa"}}]`
	for _, tt := range []struct {
		name, list string
		inspect    any
		refuses    bool
	}{
		{"none", `[]`, nil, false},
		{"that has gone", list, 404, false},
		{"of another version", list, `{"Id":"g1","Config":{"Cmd":["guard","{"]}}`, false},
		{"of another app", list, guardOf(guardSpec{Op: "aa", Halt: []halted{{ID: "c9"}}}), false},
		{"of a backup", list, guardOf(guardSpec{Op: "aa", Halt: []halted{{ID: "c9"}, {ID: "c2"}}}), true},
		{"of a restore", list, guardOf(guardSpec{Op: "aa", Old: []oldOne{{halted: halted{ID: "c1"}, Restart: container.RestartPolicy{}}}}), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, p := newFake(t)
			f.on("GET /containers/json", tt.list)
			if tt.inspect != nil {
				f.on("GET /containers/g1/json", tt.inspect)
			}
			err := p.foreign(t.Context(), app)
			if refused := errors.Is(err, backup.ErrLocked) && backup.HintOf(err) != ""; refused != tt.refuses || !refused && err != nil {
				t.Errorf("foreign = %v, want that it refuses: %v", err, tt.refuses)
			}
		})
	}
}

func TestBeside(t *testing.T) {
	dir := t.TempDir()
	here := backup.DiskOf(dir)
	if here == "" {
		t.Skip("disks have no names here")
	}
	const gb = 1 << 30
	for _, tt := range []struct {
		name    string
		transit string
		est     backup.Estimate
		here    int64
		refuses bool
	}{
		{"data alone", here, backup.Estimate{Bytes: 20 * gb, TransitFree: 30 * gb}, 21 * gb, false},
		{"images elsewhere", "other", backup.Estimate{Bytes: 20 * gb, ImageBytes: 20 * gb, TransitFree: 30 * gb}, 20 * gb, false},
		{"both, and room", here, backup.Estimate{Bytes: 20 * gb, ImageBytes: 20 * gb, TransitFree: 50 * gb}, 41 * gb, false},
		{"both, and room for each", here, backup.Estimate{Bytes: 20 * gb, ImageBytes: 20 * gb, TransitFree: 30 * gb}, 41 * gb, true},
		{"nothing is known", "", backup.Estimate{Bytes: 20 * gb, TransitFree: -1}, 0, false},
	} {
		err := beside(&tt.est, tt.transit, dir)
		if got := tt.est.Beside[here]; got != tt.here || (err != nil) != tt.refuses || err != nil && backup.HintOf(err) == "" {
			t.Errorf("%s: %d bytes here, %v; want %d, and that it refuses: %v", tt.name, got, err, tt.here, tt.refuses)
		}
	}
}
