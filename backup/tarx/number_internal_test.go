package tarx

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestParseNumber(t *testing.T) {
	tests := []struct {
		field string
		want  int64
		ok    bool
	}{
		{"0000644\x00", 0o644, true},
		{"   644 \x00", 0o644, true},
		{"77777777777", 1<<33 - 1, true},
		{"\x00\x00\x00\x00", 0, true},
		{"        ", 0, true},
		{"12\x00 \x00", 0o12, true},
		{"12\x0034", 0, false},
		{"0008", 0, false},
		{"-1", 0, false},
		{"0x10", 0, false},
		{"\x80\x00\x00\x01", 1, true},
		{"\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff", math.MaxInt64, true},
		{"\x80\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00", 0, false},
		{"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", -1, true},
		{"\xff\xff\xff\xff\x80\x00\x00\x00\x00\x00\x00\x00", math.MinInt64, true},
		{"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", 0, false},
		{"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 0, false},
	}
	for _, tt := range tests {
		got, err := parseNumber([]byte(tt.field))
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("parseNumber(%q) = %d, %v, want %d, %v", tt.field, got, err, tt.want, tt.ok)
		}
	}
}

func TestTime(t *testing.T) {
	tests := []struct {
		text    string
		sec, ns int64
		exact   bool
	}{
		{"0", 0, 0, true},
		{"1764000000.123456789", 1764000000, 123456789, true},
		{"1.5", 1, 5e8, true},
		{"1.500", 1, 5e8, false},
		{"1.0000000019", 1, 1, false},
		{"-1", -1, 0, true},
		{"-1.5", -2, 5e8, true},
		{"-0.000000001", -1, 999999999, true},
		{"-0.0000000001", -1, 999999999, false},
		{"-1.9999999999", -2, 0, false},
		{"9223372036854775807", math.MaxInt64, 0, true},
		{"-9223372036854775808", math.MinInt64, 0, true},
	}
	for _, tt := range tests {
		got, err := parseTime(tt.text)
		if err != nil || got.Unix() != tt.sec || int64(got.Nanosecond()) != tt.ns {
			t.Errorf("parseTime(%q) = %d, %d, %v, want %d, %d", tt.text, got.Unix(), got.Nanosecond(), err, tt.sec, tt.ns)
		}
		if text := string(appendTime(nil, time.Unix(tt.sec, tt.ns))); tt.exact && text != tt.text {
			t.Errorf("appendTime(%d, %d) = %q, want %q", tt.sec, tt.ns, text, tt.text)
		}
	}
	for _, text := range []string{"", "-", ".5", "1.", "+1", "1e5", " 1", "1.5.5", "--1", "9223372036854775808", "-9223372036854775808.5", "0x1"} {
		if got, err := parseTime(text); err == nil {
			t.Errorf("parseTime(%q) = %v, want an error", text, got)
		}
	}
}

func TestAppendRecordLength(t *testing.T) {
	for n := range 12000 {
		b := appendRecord(nil, "k", strings.Repeat("v", n))
		key, value, rest, err := nextRecord(b)
		if err != nil || key != "k" || len(value) != n || len(rest) != 0 {
			t.Fatalf("record of %d bytes: %q of %d bytes, %v", n, key, len(value), err)
		}
	}
}
