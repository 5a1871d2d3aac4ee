package storetest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) backup.Store { return new(storetest.Memory) })
}

// A Faulty without faults is the store that it wraps.
func TestFaultyWithoutFaults(t *testing.T) {
	storetest.Run(t, func(*testing.T) backup.Store {
		return &storetest.Faulty{Store: new(storetest.Memory), ShortReads: true}
	})
}

func TestFaultySteps(t *testing.T) {
	for _, step := range []string{"check", "create", "write", "commit", "open", "read", "list", "remove"} {
		mem := new(storetest.Memory)
		name := storetest.Name("shop", 0)
		f := &storetest.Faulty{Store: mem, Fail: func(_ context.Context, s string) error {
			if s == step {
				return storetest.ErrFault
			}
			return nil
		}}
		err := useAll(t.Context(), f, name)
		if !errors.Is(err, storetest.ErrFault) {
			t.Errorf("with %s failing: %v, want ErrFault", step, err)
		}
	}
}

// useAll does everything that a store can.
func useAll(ctx context.Context, s backup.Store, name string) error {
	if err := s.Check(ctx, 1); err != nil {
		return err
	}
	u, err := s.Create(ctx, name)
	if err != nil {
		return err
	}
	if _, err := u.Write([]byte("0123456789")); err != nil {
		return errors.Join(err, u.Abort())
	}
	if err := u.Commit(); err != nil {
		return errors.Join(err, u.Abort())
	}
	o, err := s.Open(ctx, name)
	if err != nil {
		return err
	}
	if _, err := io.ReadAll(o); err != nil {
		return err
	}
	if _, err := s.List(ctx); err != nil {
		return err
	}
	return s.Remove(ctx, name)
}

func TestFaultyBytes(t *testing.T) {
	mem := new(storetest.Memory)
	name := storetest.Name("shop", 0)
	full := &storetest.Faulty{Store: mem, WriteLimit: 4}
	u, err := full.Create(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := u.Write([]byte("0123456789")); n != 4 || !errors.Is(err, storetest.ErrFault) {
		t.Errorf("Write over the limit = %d, %v; want 4, ErrFault", n, err)
	}
	lossy := &storetest.Faulty{Store: mem, LoseFrom: 6}
	if u, err = lossy.Create(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if n, err := u.Write([]byte("01234")); n != 5 || err != nil {
			t.Errorf("Write that is lost = %d, %v; want 5, nil", n, err)
		}
	}
	if err := u.Commit(); err != nil {
		t.Fatal(err)
	}
	cut := &storetest.Faulty{Store: mem, ReadLimit: 3}
	o, err := cut.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(o); err != nil || string(got) != "012" || o.Size() != 6 {
		t.Errorf("a cut archive is %q of %d, %v; want 012 of 6", got, o.Size(), err)
	}
	buf := make([]byte, 4)
	if n, err := o.ReadAt(buf, 1); n != 2 || !errors.Is(err, io.EOF) || !bytes.Equal(buf[:2], []byte("12")) {
		t.Errorf("ReadAt = %d, %v", n, err)
	}
}
