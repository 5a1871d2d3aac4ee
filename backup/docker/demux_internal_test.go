package docker

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// framed puts text into frames of a container's output.
func framed(kind byte, parts ...string) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, kind, 0, 0, 0)
		b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	return b
}

func TestDemux(t *testing.T) {
	in := append(framed(frameStdout, "ra", "", "w"), framed(frameStderr, `{"a":`, "1}\nplain\n", `{"b":2}`)...)
	in = append(in, framed(frameStdout, " bytes\n")...)
	var lines []string
	d := &demux{r: iotest.OneByteReader(bytes.NewReader(in)), raw: true, line: func(l []byte) { lines = append(lines, string(l)) }}
	out, err := io.ReadAll(d)
	if err != nil || string(out) != "raw bytes\n" {
		t.Errorf("output %q, %v", out, err)
	}
	if got := strings.Join(lines, " "); got != `{"a":1} {"b":2}` || d.tail() != "plain" {
		t.Errorf("lines %s, tail %q", got, d.tail())
	}

	lines = nil
	d = &demux{r: bytes.NewReader(framed(frameStdout, "{\"x\":1}\nword\n")), line: func(l []byte) { lines = append(lines, string(l)) }}
	if out, err := io.ReadAll(d); err != nil || len(out) != 0 || len(lines) != 1 || d.tail() != "word" {
		t.Errorf("lines %q of output that is not raw, tail %q, %v", lines, d.tail(), err)
	}
}

func TestDemuxOdd(t *testing.T) {
	for name, in := range map[string][]byte{
		"cut in a head":     {1, 0, 0},
		"cut in a frame":    framed(frameStdout, "hello")[:10],
		"no frame":          []byte("HTTP/1.1 500 no"),
		"an unknown stream": framed(3, "x"),
		"standard input":    framed(0, "x"),
	} {
		d := &demux{r: bytes.NewReader(in), raw: true}
		if _, err := io.ReadAll(d); name == "cut in a frame" && err != nil {
			continue // its end looks the same as the output's; the exit code tells
		} else if err == nil && name != "cut in a frame" {
			t.Errorf("%s: no error", name)
		}
	}
	long := strings.Repeat("x", mostLine)
	n := 0
	d := &demux{r: bytes.NewReader(append(framed(frameStdout, "{"+long, long+"}\n{}\n"), framed(frameStderr, strings.Repeat("word\n", 10000))...)), line: func([]byte) { n++ }}
	if _, err := io.ReadAll(d); err != nil || n != 1 || len(d.tail()) > mostTail {
		t.Errorf("%d lines, tail of %d bytes, %v; want one line, a bounded tail", n, len(d.tail()), err)
	}
}

func FuzzDemux(f *testing.F) {
	f.Add(framed(frameStdout, "a\nb"), true)
	f.Add(framed(frameStderr, "{}\n"), false)
	f.Fuzz(func(t *testing.T, in []byte, raw bool) {
		d := &demux{r: bytes.NewReader(in), raw: raw, line: func(l []byte) {
			if len(l) == 0 || l[0] != '{' {
				t.Errorf("line %q", l)
			}
		}}
		out, _ := io.ReadAll(d)
		if len(out) > len(in) || !raw && len(out) > 0 {
			t.Errorf("%d bytes of %d", len(out), len(in))
		}
	})
}

// A line that is too long is dropped, and not without a word.
func TestDemuxLost(t *testing.T) {
	for _, n := range []int{10, 2 * mostLine} {
		text := "{\"done\":1}\n" + strings.Repeat("x", n) + "\n"
		var in bytes.Buffer
		for len(text) > 0 {
			part := text[:min(len(text), 16<<10)]
			text = text[len(part):]
			in.Write([]byte{frameStdout, 0, 0, 0, 0, 0, byte(len(part) >> 8), byte(len(part))})
			in.WriteString(part)
		}
		d := &demux{r: &in, line: func([]byte) {}}
		if _, err := io.Copy(io.Discard, d); err != nil {
			t.Fatal(err)
		}
		if want := n > mostLine; d.lost() != want {
			t.Errorf("a line of %d bytes: lost %v, want %v", n, d.lost(), want)
		}
	}
}
