package backup_test

import (
	"strings"
	"testing"
	"time"

	"github.com/dentropy/dentropycloud/backup"
)

func TestArchiveName(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 999, time.FixedZone("X", 3600))
	const id = "01940000-0000-7000-8000-0000DEADBEEF"
	for _, tt := range []struct{ app, want string }{
		{"shop", "shop-20260102T020405Z-deadbeef.dentropy.tar"},
		{"My Shop/../x", "My-Shop-..-x-20260102T020405Z-deadbeef.dentropy.tar"},
		{"../../etc", "etc-20260102T020405Z-deadbeef.dentropy.tar"},
		{"-rf", "rf-20260102T020405Z-deadbeef.dentropy.tar"},
		{"", "app-20260102T020405Z-deadbeef.dentropy.tar"},
		{"日本", "app-20260102T020405Z-deadbeef.dentropy.tar"},
		{strings.Repeat("a", 300), strings.Repeat("a", 100) + "-20260102T020405Z-deadbeef.dentropy.tar"},
	} {
		for _, enc := range []bool{false, true} {
			want := tt.want
			if enc {
				want += ".age"
			}
			got := backup.ArchiveName(tt.app, at, id, enc)
			if got != want {
				t.Errorf("ArchiveName(%q) = %q, want %q", tt.app, got, want)
			}
			info, err := backup.ParseArchiveName(got)
			if err != nil || !info.Time.Equal(at.Truncate(time.Second)) || info.ID != "deadbeef" || info.Encrypted != enc {
				t.Errorf("ParseArchiveName(%q) = %+v, %v", got, info, err)
			}
		}
	}
	for _, bad := range []string{
		"", "shop.dentropy.tar", "shop-20260102T020405Z-deadbeef.dentropy.tar.partial", ".shop-20260102T020405Z-deadbeef.dentropy.tar",
		"a/shop-20260102T020405Z-deadbeef.dentropy.tar", "shop-20261302T020405Z-deadbeef.dentropy.tar", "shop-20260102T020405Z-DEADBEEF.dentropy.tar",
		strings.Repeat("a", 101) + "-20260102T020405Z-deadbeef.dentropy.tar", "shop--20260102T020405Z-deadbeef.dentropy.tar\n",
	} {
		if info, err := backup.ParseArchiveName(bad); err == nil {
			t.Errorf("ParseArchiveName(%q) = %+v, want an error", bad, info)
		}
	}
}

func TestNewArchiveID(t *testing.T) {
	at := time.UnixMilli(0x0194_1234_5678)
	a, b := backup.NewArchiveID(at), backup.NewArchiveID(at)
	if a == b || !strings.HasPrefix(a, "01941234-5678-7") || len(a) != 36 || !strings.Contains("89ab", a[19:20]) {
		t.Errorf("NewArchiveID = %q, %q", a, b)
	}
}
