package backup

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// stalls reads and writes nothing until it is released.
type stalls struct{ released chan struct{} }

func (s stalls) Read([]byte) (int, error)        { <-s.released; return 0, io.EOF }
func (s stalls) Write(p []byte) (n int, _ error) { <-s.released; return len(p), nil }

func TestEndableReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stalls{make(chan struct{})}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		e := &endable{r: io.MultiReader(strings.NewReader("abc"), s)}
		back := e.until(ctx)
		b := make([]byte, 2)
		if n, err := io.ReadFull(e, b); err != nil || string(b) != "ab" {
			t.Errorf("Read = %d, %v, want ab", n, err)
		}
		back() // what it has is still there without a context
		if n, err := e.Read(b); err != nil || string(b[:n]) != "c" {
			t.Errorf("Read = %q, %v, want c", b[:n], err)
		}
		e.until(ctx)
		began := time.Now()
		if _, err := e.Read(b); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Hour {
			t.Errorf("Read = %v after %v, want the end of the context after an hour", err, time.Since(began))
		}
		e.until(t.Context())
		if _, err := e.Read(b); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the next Read = %v: somebody else reads the stream already", err)
		}
		close(s.released)
	})
}

// Reads are as they are without a context in between.
func TestEndableReaderIsTheStream(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	for _, r := range []io.Reader{bytes.NewReader(data), iotest.HalfReader(bytes.NewReader(data)), iotest.DataErrReader(bytes.NewReader(data))} {
		e := &endable{r: r, ctx: t.Context()}
		got, err := io.ReadAll(iotest.HalfReader(e))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("ReadAll = %d bytes, %v, want %d", len(got), err, len(data))
		}
	}
	broken := errors.New("broken")
	e := &endable{r: io.MultiReader(strings.NewReader("x"), iotest.ErrReader(broken)), ctx: t.Context()}
	if got, err := io.ReadAll(e); string(got) != "x" || !errors.Is(err, broken) {
		t.Errorf("ReadAll = %q, %v, want x and its error", got, err)
	}
}

// slow takes a minute for each piece.
type slow struct{ got bytes.Buffer }

func (s *slow) Write(p []byte) (int, error) {
	<-time.After(time.Minute)
	return s.got.Write(p)
}

func TestEndableWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 10 * time.Minute
		s := stalls{make(chan struct{})}
		w := &endableWriter{ctx: t.Context(), w: s, limit: limit}
		began := time.Now()
		if _, err := w.Write([]byte("x")); HintOf(err) == "" || time.Since(began) != limit {
			t.Errorf("Write to nobody = %v after %v, want what to do after %v", err, time.Since(began), limit)
		}
		if _, err := w.Write([]byte("x")); err == nil {
			t.Error("a write beside one that is under way")
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		w = &endableWriter{ctx: ctx, w: s, limit: limit}
		if _, err := w.Write([]byte("x")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Write = %v, want the end of the context", err)
		}
		close(s.released)

		// who is slow takes something
		data := bytes.Repeat([]byte("0123456789"), 300_000)
		to := new(slow)
		w = &endableWriter{ctx: t.Context(), w: to, limit: limit}
		if n, err := w.Write(data); n != len(data) || err != nil || !bytes.Equal(to.got.Bytes(), data) {
			t.Errorf("Write = %d, %v, want all %d bytes", n, err, len(data))
		}
	})
}
