package local_test

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/local"
	"github.com/dentropy/dentropycloud/backup/storetest"
)

// The test binary is also the process that is killed while it writes.
const envWriter = "DENTROPY_TEST_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envWriter); dir != "" {
		writeAndWait(dir)
	}
	m.Run()
}

// writeAndWait writes half an archive and waits to be killed.
func writeAndWait(dir string) {
	s, err := local.New(dir)
	if err == nil {
		var u backup.Upload
		if u, err = s.Create(context.Background(), storetest.Name("shop", 0)); err == nil {
			_, err = u.Write([]byte("half"))
		}
	}
	if err != nil {
		os.Stdout.WriteString("error " + err.Error() + "\n")
	} else {
		os.Stdout.WriteString("ready\n")
	}
	select {}
}

func newStore(t *testing.T) *local.Store {
	t.Helper()
	s, err := local.New(filepath.Join(t.TempDir(), "a", "backups"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) backup.Store { return newStore(t) })
}

func put(t *testing.T, s *local.Store, name, data string) {
	t.Helper()
	u, err := s.Create(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Write([]byte(data)); err != nil {
		t.Fatal(err)
	}
	if err := u.Commit(); err != nil {
		t.Fatal(err)
	}
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func TestModes(t *testing.T) {
	s := newStore(t)
	name := storetest.Name("shop", 0)
	put(t, s, name, "x")
	for path, want := range map[string]fs.FileMode{s.Dir(): 0o700, filepath.Join(s.Dir(), name): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v; want %v", path, info.Mode().Perm(), err, want)
		}
	}
	if got := entries(t, s.Dir()); len(got) != 1 {
		t.Errorf("the folder holds %q, want the archive alone", got)
	}
}

// A writer that is killed leaves nothing that can be seen, and what it leaves goes away;
// that of one that lives stays.
func TestKilledWriter(t *testing.T) {
	s := newStore(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), envWriter+"="+s.Dir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("the writer says %q, %v", line, err)
	}
	if err := s.Check(t.Context(), 1); err != nil {
		t.Error(err)
	}
	if got := entries(t, s.Dir()); len(got) != 1 || !strings.HasSuffix(got[0], ".partial") {
		t.Errorf("beside a living writer the folder holds %q, want its unfinished archive", got)
	}
	if _, err := s.Create(t.Context(), storetest.Name("shop", 0)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create of what another process writes = %v, want ErrExist", err)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if list, err := s.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("List after the kill = %v, %v; want none", list, err)
	}
	if err := s.Check(t.Context(), 1); err != nil {
		t.Error(err)
	}
	if got := entries(t, s.Dir()); len(got) != 0 {
		t.Errorf("after the kill the folder holds %q, want nothing", got)
	}
	put(t, s, storetest.Name("shop", 0), "whole")
}

func TestLinksAreNotFollowed(t *testing.T) {
	s := newStore(t)
	put(t, s, storetest.Name("shop", 2), "x")
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	name := storetest.Name("shop", 0)
	if err := os.Symlink(victim, filepath.Join(s.Dir(), name)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of a link = %v, want ErrNotExist", err)
	}
	if _, err := s.Create(t.Context(), name); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create over a link = %v, want ErrExist", err)
	}
	if err := os.Symlink(victim, filepath.Join(s.Dir(), "."+storetest.Name("shop", 4)+".partial")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), storetest.Name("shop", 4)); err == nil {
		t.Error("Create through a link: no error")
	}
	list, err := s.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != storetest.Name("shop", 2) {
		t.Errorf("List = %v, %v", list, err)
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "precious" {
		t.Errorf("the file behind the links holds %q, %v", got, err)
	}
}

// Other files in the folder are nobody's business.
func TestOtherFilesStay(t *testing.T) {
	s := newStore(t)
	put(t, s, storetest.Name("shop", 0), "x")
	for _, name := range []string{"notes.txt", ".hidden.partial", "shop.dentropy.tar", ".shop.partial"} {
		if err := os.WriteFile(filepath.Join(s.Dir(), name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Check(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if got := entries(t, s.Dir()); len(got) != 5 {
		t.Errorf("the folder holds %q", got)
	}
	if list, err := s.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("List = %v, %v; want the archive alone", list, err)
	}
}

func TestNoSpace(t *testing.T) {
	s := newStore(t)
	err := s.Check(t.Context(), 1<<60)
	if !errors.Is(err, syscall.ENOSPC) || backup.HintOf(err) == "" {
		t.Errorf("Check of too much = %v (hint %q), want ENOSPC with a hint", err, backup.HintOf(err))
	}
	if got := entries(t, s.Dir()); len(got) != 0 {
		t.Errorf("Check leaves %q", got)
	}
}

// A really full disk: the error says so, and nothing stays.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s, err := local.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context(), 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Check of a small disk = %v, want ENOSPC", err)
	}
	u, err := s.Create(t.Context(), storetest.Name("shop", 0))
	if err != nil {
		t.Fatal(err)
	}
	_, err = u.Write(make([]byte, 1<<20))
	if !errors.Is(err, syscall.ENOSPC) || backup.HintOf(err) == "" {
		t.Errorf("Write to a full disk = %v (hint %q), want ENOSPC with a hint", err, backup.HintOf(err))
	}
	if err := u.Abort(); err != nil {
		t.Error(err)
	}
	if got := entries(t, dir); len(got) != 0 {
		t.Errorf("the folder holds %q, want nothing", got)
	}
}

func TestMissingFolder(t *testing.T) {
	s := newStore(t)
	if list, err := s.List(t.Context()); err != nil || list == nil || len(list) != 0 {
		t.Errorf("List = %v, %v; want none", list, err)
	}
	if _, err := s.Open(t.Context(), storetest.Name("shop", 0)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open = %v, want ErrNotExist", err)
	}
	if _, err := os.Stat(s.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading made the folder: %v", err)
	}
}
