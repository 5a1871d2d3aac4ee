package tarx

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// binaryACL makes the kernel's form of entries of tag, permissions and id.
func binaryACL(entries ...[3]uint32) string {
	b := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return string(b)
}

const none = aclNoID

func TestACL(t *testing.T) {
	full := binaryACL([3]uint32{1, 6, none}, [3]uint32{2, 5, 0}, [3]uint32{2, 7, 4294967294}, [3]uint32{4, 0, none},
		[3]uint32{8, 1, 2147483648}, [3]uint32{16, 7, none}, [3]uint32{32, 4, none})
	const fullText = "user::rw-,user:0:r-x,user:4294967294:rwx,group::---,group:2147483648:--x,mask::rwx,other::r--"
	small := binaryACL([3]uint32{1, 7, none}, [3]uint32{4, 5, none}, [3]uint32{32, 0, none})
	tests := []struct {
		name, text, raw string
		exact           bool // the text is ours
		err             error
	}{
		{"full", fullText, full, true, nil},
		{"small", "user::rwx,group::r-x,other::---", small, true, nil},
		{"lines", strings.ReplaceAll(fullText, ",", "\n") + "\n", full, false, nil},
		{"comments", "# file: x\nuser::rwx\ngroup::r-x\t#effective:r--\nother::---\n", small, false, nil},
		{"short", "u::rwx,g::rx,o::-", small, false, nil},
		{"two fields", "user::rwx,group::r-x,other:---", small, false, nil},
		{"unsorted", "other::---,user::rwx,group::r-x", small, false, nil},
		{"number beside the name", strings.Replace(fullText, "user:0:r-x", "user:lisa:r-x:0", 1), full, false, nil},
		{"root", strings.Replace(fullText, "user:0:r-x", "user:root:r-x", 1), full, false, nil},
		{"empty", "", "", false, nil},
		{"name", "user::rwx,user:lisa:rwx,group::r-x,mask::rwx,other::---", "", false, errACLName},
		{"twice", "user::rwx,user::rwx,group::r-x,other::---", "", false, ErrHeader},
		{"no mask", "user::rwx,user:1:rwx,group::r-x,other::---", "", false, ErrHeader},
		{"no other", "user::rwx,group::r-x", "", false, ErrHeader},
		{"named mask", "user::rwx,group::r-x,mask:1:rwx,other::---", "", false, ErrHeader},
		{"permissions", "user::rwX,group::r-x,other::---", "", false, ErrHeader},
		{"no id", "user::rwx,user:4294967295:rwx,group::r-x,mask::rwx,other::---", "", false, ErrHeader},
		{"large id", "user::rwx,user:4294967296:rwx,group::r-x,mask::rwx,other::---", "", false, ErrHeader},
		{"nonsense", "x", "", false, ErrHeader},
		{"too long", strings.Repeat("user::rwx,", 8192), "", false, ErrHeader},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			raw, err := aclFromText(tt.text)
			if raw != tt.raw || !errors.Is(err, tt.err) {
				t.Errorf("aclFromText(%.200q) = %q, %v, want %q, %v", tt.text, raw, err, tt.raw, tt.err)
			}
			if !tt.exact {
				return
			}
			if text, ok := aclToText(tt.raw); text != tt.text || !ok {
				t.Errorf("aclToText(%q) = %q, %v, want %q", tt.raw, text, ok, tt.text)
			}
		})
	}
}

// TestACLThatIsNone has values that only the raw form keeps.
func TestACLThatIsNone(t *testing.T) {
	small := [][3]uint32{{1, 7, none}, {4, 5, none}, {32, 0, none}}
	tests := map[string]string{
		"empty":       "",
		"no entries":  binaryACL(),
		"cut off":     binaryACL(small...)[:15],
		"version":     "\x03" + binaryACL(small...)[1:],
		"unknown tag": binaryACL(append(small, [3]uint32{64, 0, none})...),
		"permissions": binaryACL([3]uint32{1, 15, none}, small[1], small[2]),
		"id":          binaryACL([3]uint32{1, 7, 0}, small[1], small[2]),
		"unsorted":    binaryACL(small[1], small[0], small[2]),
		"incomplete":  binaryACL(small[:2]...),
	}
	for name, raw := range tests {
		t.Run(name, func(t *testing.T) {
			if text, ok := aclToText(raw); ok {
				t.Errorf("aclToText(%q) = %q, want none", raw, text)
			}
		})
	}
}

func TestIsMode(t *testing.T) {
	small := binaryACL([3]uint32{1, 7, none}, [3]uint32{4, 5, none}, [3]uint32{32, 1, none})
	if !isMode(small, 0o4751) || isMode(small, 0o750) || isMode("", 0) {
		t.Error("isMode(0751) is for mode 0751 alone")
	}
}

// FuzzACL looks for text that comes back as something else.
func FuzzACL(f *testing.F) {
	for _, s := range []string{
		"user::rwx,group::r-x,other::---", "user::rw-\nuser:1:r-x\ngroup::---\nmask::rwx\nother::r--\n",
		"u::rwx,g:2:rx:3,g::r,m:rwx,o:-", "user:root:rwx", "#\n,,",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		raw, err := aclFromText(text)
		if err != nil {
			if !errors.Is(err, ErrHeader) && !errors.Is(err, errACLName) {
				t.Fatalf("aclFromText(%q): untyped error %v", text, err)
			}
			return
		}
		if raw == "" {
			return
		}
		ours, ok := aclToText(raw)
		if !ok {
			t.Fatalf("aclToText(%q) has no text", raw)
		}
		if back, err := aclFromText(ours); back != raw || err != nil {
			t.Fatalf("aclFromText(%q) = %q, %v, want %q", ours, back, err, raw)
		}
	})
}
