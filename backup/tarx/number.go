package tarx

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// parseNumber reads a numeric field: octal digits between spaces and NULs, or base 256
// where the highest bit is set.
func parseNumber(field []byte) (int64, error) {
	if field[0]&0x80 != 0 {
		return parseBase256(field)
	}
	text := bytes.TrimLeft(field, " ")
	if i := bytes.IndexAny(text, " \x00"); i >= 0 {
		if len(bytes.Trim(text[i:], " \x00")) > 0 {
			return 0, fmt.Errorf("%w: number %q", ErrHeader, field)
		}
		text = text[:i]
	}
	var n int64
	for _, c := range text {
		if c < '0' || c > '7' {
			return 0, fmt.Errorf("%w: number %q", ErrHeader, field)
		}
		n = n<<3 | int64(c-'0') // at most 12 digits: 36 bits
	}
	return n, nil
}

// parseBase256 reads two's complement, most significant byte first. The highest bit
// marks the field and is not part of the number; the one below is its sign.
func parseBase256(field []byte) (int64, error) {
	n := int64(field[0]&0x7f) << 57 >> 57 // with the sign of bit 6
	for _, c := range field[1:] {
		if n > 1<<55-1 || n < -1<<55 {
			return 0, fmt.Errorf("%w: number %q is too large", ErrHeader, field)
		}
		n = n<<8 | int64(c)
	}
	return n, nil
}

// parseDecimal reads a number of a record: digits only.
func parseDecimal(text string) (int64, error) {
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return 0, fmt.Errorf("%w: number %q", ErrHeader, text)
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: number %q", ErrHeader, text)
	}
	return n, nil
}

// parseTime reads seconds as signed decimal. Digits below the nanosecond are dropped,
// downwards as time goes.
func parseTime(text string) (time.Time, error) {
	whole, fraction, hasFraction := strings.Cut(text, ".")
	digits, negative := strings.CutPrefix(whole, "-")
	bad := func() (time.Time, error) { return time.Time{}, fmt.Errorf("%w: time %q", ErrHeader, text) }
	if digits == "" || strings.Trim(digits, "0123456789") != "" || strings.Trim(fraction, "0123456789") != "" {
		return bad()
	}
	if hasFraction && fraction == "" {
		return bad()
	}
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return bad()
	}
	var ns int64
	if len(fraction) > 9 {
		if below := strings.Trim(fraction[9:], "0"); negative && below != "" {
			ns = 1
		}
		fraction = fraction[:9]
	}
	for i, scale := 0, int64(1e8); i < len(fraction); i, scale = i+1, scale/10 {
		ns += int64(fraction[i]-'0') * scale
	}
	if negative && ns > 0 {
		if sec == -1<<63 {
			return bad()
		}
		sec, ns = sec-1, 1e9-ns
	}
	return time.Unix(sec, ns), nil
}
