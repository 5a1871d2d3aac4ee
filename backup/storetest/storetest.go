// Package storetest is what every backup.Store must do, a store in memory, and one that
// fails on demand.
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) backup.Store { return mine(t) })
//	}
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dentropy/dentropycloud/backup"
)

// Name is the name of an archive of an app, one for each n.
func Name(app string, n int) string {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(time.Duration(n) * time.Second)
	return backup.ArchiveName(app, at, fmt.Sprintf("%08x", n), n%2 == 1)
}

// Run runs the suite. Each call of open gives a new, empty store.
func Run(t *testing.T, open func(t *testing.T) backup.Store) {
	t.Helper()
	tests := []struct {
		name string
		test func(*testing.T, backup.Store)
	}{
		{"write and read", testRoundTrip},
		{"nothing is seen before commit", testInvisible},
		{"abort", testAbort},
		{"an abandoned upload", testAbandoned},
		{"no overwriting", testNoOverwrite},
		{"two uploads of one name", testRace},
		{"remove", testRemove},
		{"list is sorted", testList},
		{"names", testNames},
		{"read at", testReadAt},
		{"many at once", testConcurrent},
		{"context", testContext},
		{"check", testCheck},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, open(t)) })
	}
}

// put writes an archive.
func put(ctx context.Context, s backup.Store, name string, data []byte) error {
	u, err := s.Create(ctx, name)
	if err != nil {
		return err
	}
	if _, err := u.Write(data); err != nil {
		return errors.Join(err, u.Abort())
	}
	if err := u.Commit(); err != nil {
		return errors.Join(err, u.Abort())
	}
	return nil
}

// get reads an archive.
func get(ctx context.Context, s backup.Store, name string) ([]byte, error) {
	o, err := s.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(o)
	return b, errors.Join(err, o.Close())
}

// names lists a store.
func names(t *testing.T, s backup.Store) []string {
	t.Helper()
	list, err := s.List(t.Context())
	if err != nil {
		t.Fatalf("List = %v", err)
	}
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = e.Name
	}
	return out
}

// wantNames holds a store's list against what it should be.
func wantNames(t *testing.T, s backup.Store, want ...string) {
	t.Helper()
	if got := names(t, s); !slices.Equal(got, want) {
		t.Errorf("List = %q, want %q", got, want)
	}
}

func mustPut(t *testing.T, s backup.Store, name string, data []byte) {
	t.Helper()
	if err := put(t.Context(), s, name, data); err != nil {
		t.Fatalf("write %s: %v", name, err)
	}
}

func testRoundTrip(t *testing.T, s backup.Store) {
	wantNames(t, s)
	name, data := Name("shop", 0), bytes.Repeat([]byte("0123456789"), 100_000)
	before := time.Now().Add(-time.Minute)
	mustPut(t, s, name, data)
	got, err := get(t.Context(), s, name)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("read back %d bytes, %v; want the %d that were written", len(got), err, len(data))
	}
	list, err := s.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != name || list[0].Size != int64(len(data)) || list[0].Modified.Before(before) {
		t.Errorf("List = %+v, %v", list, err)
	}
	mustPut(t, s, Name("empty", 0), nil)
	if got, err := get(t.Context(), s, Name("empty", 0)); err != nil || len(got) != 0 {
		t.Errorf("an empty archive: %d bytes, %v", len(got), err)
	}
}

func testInvisible(t *testing.T, s backup.Store) {
	name := Name("shop", 0)
	u, err := s.Create(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	wantNames(t, s)
	if _, err := s.Open(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open before Commit = %v, want ErrNotExist", err)
	}
	if err := u.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := u.Abort(); err != nil {
		t.Errorf("Abort after Commit = %v, want nil", err)
	}
	wantNames(t, s, name)
}

func testAbort(t *testing.T, s backup.Store) {
	name := Name("shop", 0)
	u, err := s.Create(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := u.Abort(); err != nil {
			t.Errorf("Abort = %v, want nil", err)
		}
	}
	if err := u.Commit(); err == nil {
		t.Error("Commit after Abort: no error")
	}
	wantNames(t, s)
	mustPut(t, s, name, []byte("whole"))
	wantNames(t, s, name)
}

// testAbandoned: an upload that nobody ends is never seen and blocks no other name.
func testAbandoned(t *testing.T, s backup.Store) {
	u, err := s.Create(t.Context(), Name("shop", 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, Name("shop", 2), []byte("whole"))
	if err := s.Check(t.Context(), 1); err != nil {
		t.Errorf("Check = %v", err)
	}
	wantNames(t, s, Name("shop", 2))
	if err := u.Commit(); err != nil { // it was not abandoned after all
		t.Errorf("Commit beside others = %v", err)
	}
	wantNames(t, s, Name("shop", 0), Name("shop", 2))
}

func testNoOverwrite(t *testing.T, s backup.Store) {
	name := Name("shop", 0)
	mustPut(t, s, name, []byte("first"))
	if err := put(t.Context(), s, name, []byte("second")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("writing over an archive = %v, want ErrExist", err)
	}
	if got, err := get(t.Context(), s, name); err != nil || string(got) != "first" {
		t.Errorf("it holds %q, %v; want %q", got, err, "first")
	}
	wantNames(t, s, name)
}

// testRace: of several uploads of one name one wins, whole.
func testRace(t *testing.T, s backup.Store) {
	name := Name("shop", 0)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { errs[i] = put(t.Context(), s, name, bytes.Repeat([]byte{byte('a' + i)}, 10_000)) })
	}
	wg.Wait()
	var won []int
	for i, err := range errs {
		switch {
		case err == nil:
			won = append(won, i)
		case !errors.Is(err, fs.ErrExist):
			t.Errorf("upload %d = %v, want nil or ErrExist", i, err)
		}
	}
	if len(won) != 1 {
		t.Fatalf("uploads %v won, want one", won)
	}
	got, err := get(t.Context(), s, name)
	if want := bytes.Repeat([]byte{byte('a' + won[0])}, 10_000); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the archive is not that of the winner: %d bytes, %v", len(got), err)
	}
}

func testRemove(t *testing.T, s backup.Store) {
	name := Name("shop", 0)
	if err := s.Remove(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Remove of nothing = %v, want ErrNotExist", err)
	}
	if _, err := s.Open(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of nothing = %v, want ErrNotExist", err)
	}
	mustPut(t, s, name, []byte("x"))
	if err := s.Remove(t.Context(), name); err != nil {
		t.Errorf("Remove = %v", err)
	}
	wantNames(t, s)
	mustPut(t, s, name, []byte("y"))
}

func testList(t *testing.T, s backup.Store) {
	for _, n := range []int{5, 1, 3} {
		mustPut(t, s, Name("shop", n), nil)
	}
	mustPut(t, s, Name("blog", 9), nil)
	wantNames(t, s, Name("blog", 9), Name("shop", 1), Name("shop", 3), Name("shop", 5))
}

// testNames: what is no archive's name never reaches a file system.
func testNames(t *testing.T, s backup.Store) {
	good := Name("shop", 0)
	for _, bad := range []string{
		"", ".", "..", "../" + good, "/tmp/" + good, "a/" + good, good + "/", good + "\x00", "." + good, good + ".partial",
		"shop.tar", "-" + good, good[1:] + "x", `..\` + good,
	} {
		if u, err := s.Create(t.Context(), bad); err == nil {
			t.Errorf("Create(%q): no error", bad)
			_ = u.Abort() // it should not be there at all
		}
		if _, err := s.Open(t.Context(), bad); err == nil {
			t.Errorf("Open(%q): no error", bad)
		}
		if err := s.Remove(t.Context(), bad); err == nil {
			t.Errorf("Remove(%q): no error", bad)
		}
	}
	wantNames(t, s)
}

func testReadAt(t *testing.T, s backup.Store) {
	name, data := Name("shop", 0), make([]byte, 100_000)
	for i := range data {
		data[i] = byte(i * 7 >> 3)
	}
	mustPut(t, s, name, data)
	o, err := s.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if o.Size() != int64(len(data)) {
		t.Errorf("Size = %d, want %d", o.Size(), len(data))
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			buf := make([]byte, 1000)
			for off := g * 100; off+len(buf) <= len(data); off += 7919 {
				if n, err := o.ReadAt(buf, int64(off)); n != len(buf) || err != nil || !bytes.Equal(buf, data[off:off+n]) {
					t.Errorf("ReadAt(%d) = %d, %v", off, n, err)
				}
			}
		})
	}
	wg.Wait()
	buf := make([]byte, 10)
	if n, err := o.ReadAt(buf, int64(len(data))-4); n != 4 || !errors.Is(err, io.EOF) {
		t.Errorf("ReadAt over the end = %d, %v; want 4, EOF", n, err)
	}
	if n, err := o.ReadAt(buf, int64(len(data))+4); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("ReadAt behind the end = %d, %v; want 0, EOF", n, err)
	}
}

func testConcurrent(t *testing.T, s backup.Store) {
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 5 {
				name := Name("shop", g*100+i)
				data := bytes.Repeat([]byte(name), 100)
				if err := put(t.Context(), s, name, data); err != nil {
					t.Errorf("write %s: %v", name, err)
					return
				}
				if got, err := get(t.Context(), s, name); err != nil || !bytes.Equal(got, data) {
					t.Errorf("read %s: %d bytes, %v", name, len(got), err)
				}
				if _, err := s.List(t.Context()); err != nil {
					t.Errorf("List = %v", err)
				}
				if i%2 == 0 {
					if err := s.Remove(t.Context(), name); err != nil {
						t.Errorf("remove %s: %v", name, err)
					}
				}
				if err := s.Check(t.Context(), 0); err != nil {
					t.Errorf("Check = %v", err)
				}
			}
		})
	}
	wg.Wait()
	if got := names(t, s); len(got) != 8 {
		t.Errorf("%d archives are left, want 8: %q", len(got), got)
	}
}

func testContext(t *testing.T, s backup.Store) {
	mustPut(t, s, Name("shop", 2), []byte("x"))
	ctx, cancel := context.WithCancel(t.Context())
	u, err := s.Create(ctx, Name("shop", 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := u.Write([]byte("more")); !errors.Is(err, context.Canceled) {
		t.Errorf("Write after cancel = %v, want Canceled", err)
	}
	if err := u.Commit(); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit after cancel = %v, want Canceled", err)
	}
	if err := u.Abort(); err != nil {
		t.Errorf("Abort after cancel = %v, want nil", err)
	}
	for name, err := range map[string]error{
		"Check":  s.Check(ctx, 0),
		"Create": second(s.Create(ctx, Name("shop", 4))),
		"Open":   second(s.Open(ctx, Name("shop", 2))),
		"List":   second(s.List(ctx)),
		"Remove": s.Remove(ctx, Name("shop", 2)),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s after cancel = %v, want Canceled", name, err)
		}
	}
	wantNames(t, s, Name("shop", 2))
}

func second[T any](_ T, err error) error { return err }

func testCheck(t *testing.T, s backup.Store) {
	for _, need := range []int64{0, 1, 4096} {
		if err := s.Check(t.Context(), need); err != nil {
			t.Errorf("Check(%d) = %v", need, err)
		}
	}
	wantNames(t, s)
	if s.String() == "" {
		t.Error("the store has no name")
	}
}
