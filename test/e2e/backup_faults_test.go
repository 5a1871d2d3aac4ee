package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/docker/docker/api/types/volume"
)

// asRoot runs a command as root.
func asRoot(t *testing.T, args ...string) string {
	t.Helper()
	if os.Getuid() != 0 {
		args = append([]string{"sudo"}, args...)
	}
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return string(out)
}

// small mounts a file system of a few megabytes.
func small(t *testing.T, dir, size string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	asRoot(t, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%s,mode=0700,uid=%d,gid=%d", size, os.Getuid(), os.Getgid()), "tmpfs", dir)
	t.Cleanup(func() { asRoot(t, "umount", "-l", dir) })
}

// The disk of the archive is too small, and that is known before anything stops; or it
// fills up while the archive is written: the app runs, and nothing is left.
func TestFullTarget(t *testing.T) {
	e := newEngine(t)
	a := e.smallApp("target")
	d := up(t)
	eventually(t, "its site answers", d.servedBy(a.host, "/", "web"))
	store := filepath.Join(d.data, "backups")
	small(t, store, "4m")
	stop := a.events()
	d.refuses([]string{store, "free"}, "backup", "target", "--yes", "--image", "never")
	if got := stop(); has(got, "web die") {
		t.Errorf("the app was stopped for a disk that is too small: %q", got)
	}
	a.check(t, d)
	mustBeEmpty(t, store)

	// Enough now, and gone when it is needed.
	asRoot(t, "mount", "-o", "remount,size=100m", store)
	r := d.begin("backup", "target", "--yes", "--image", "never")
	if !r.when(func() bool { return len(d.journals()) > 0 }) {
		t.Fatalf("no journal: %s", r.out)
	}
	hog := filepath.Join(store, "hog")
	if err := os.WriteFile(hog, make([]byte, 98<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	r.wait(t)
	if r.cmd.ProcessState.ExitCode() == 0 || !strings.Contains(r.out.String(), "space") {
		t.Errorf("a backup to a full disk: exit %d\n%s", r.cmd.ProcessState.ExitCode(), r.out)
	}
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	a.check(t, d)
	mustBeEmpty(t, store)
	d.backup("target", "--image", "never") // and now it works
	a.check(t, d)

	out, err := exec.Command("bash", "-c", fmt.Sprintf("%q backup target --yes --image never -o - --data-dir %q >/dev/full", config.bin, d.data)).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "space") {
		t.Errorf("a backup to /dev/full: %v\n%s", err, out)
	}
	a.check(t, d)
}

// The disk of the transit is too small, and that is known before anything stops; or it
// fills up while the app is stopped: the app runs, and nothing is left.
func TestFullTransit(t *testing.T) {
	e := newEngine(t)
	disk, err := os.MkdirTemp("", "e2e-transit")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(disk) })
	small(t, disk, "300m")
	// A hook fills the volume when the space has been looked at.
	a := e.smallApp("transit", `db|dentropy.backup.pre=["/server","fill","/data/grown","120"]`)
	if _, err := e.c.VolumeInspect(t.Context(), transitVolume); err == nil {
		e.must("remove the transit volume of earlier tests", e.c.VolumeRemove(t.Context(), transitVolume, false))
	}
	_, err = e.c.VolumeCreate(t.Context(), volume.CreateOptions{
		Name: transitVolume, Driver: "local", DriverOpts: map[string]string{"type": "none", "o": "bind", "device": disk},
	})
	e.must("create a small transit volume", err)
	t.Cleanup(func() { e.c.VolumeRemove(context.WithoutCancel(t.Context()), transitVolume, true) })
	d := up(t)
	eventually(t, "its site answers", d.servedBy(a.host, "/", "web"))

	stop := a.events()
	d.refuses([]string{"space"}, "backup", "transit", "--yes", "--image", "never")
	if got := stop(); !has(got, "web start") {
		t.Errorf("the app was not stopped, so that this proves little: %q", got)
	}
	a.tree = e.tree("transit_data") // it has grown
	a.check(t, d)
	if n := len(d.archives()); n != 0 {
		t.Errorf("%d archives", n)
	}

	stop = a.events()
	d.refuses([]string{"transit", "left"}, "backup", "transit", "--yes", "--image", "never")
	if got := stop(); has(got, "web die") {
		t.Errorf("the app was stopped for a disk that is too small: %q", got)
	}
	a.check(t, d)
}

func mustBeEmpty(t *testing.T, dir string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range list {
		t.Errorf("%s holds %s", dir, entry.Name())
	}
}

// Whatever is wrong with an archive, it says so and nothing is changed.
func TestDamagedArchives(t *testing.T) {
	e := newEngine(t)
	a := e.smallApp("damaged")
	d := up(t)
	for _, encryption := range []string{"all", "none"} {
		whole, err := os.ReadFile(d.backup("damaged", "--encrypt", encryption))
		if err != nil {
			t.Fatal(err)
		}
		var cases []struct {
			name string
			data []byte
		}
		add := func(name string, data []byte) {
			cases = append(cases, struct {
				name string
				data []byte
			}{name, data})
		}
		for n := range 4 {
			add(fmt.Sprintf("cut off at %d/4", n), whole[:len(whole)*n/4])
		}
		add("cut off before its end", whole[:len(whole)-1025])
		for n := range 8 {
			flipped := append([]byte{}, whole...)
			flipped[(len(flipped)-1)*n/8+len(flipped)/16] ^= 0x10
			add(fmt.Sprintf("bit flipped in eighth %d", n), flipped)
		}
		add("zeros", make([]byte, 1<<20))
		add("text", []byte(strings.Repeat("this is no archive\n", 1000)))
		add("begins twice", append(append([]byte{}, whole[:len(whole)/3]...), whole...))
		dir := t.TempDir()
		for _, c := range cases {
			t.Run(encryption+" "+c.name, func(t *testing.T) {
				file := filepath.Join(dir, "damaged.dentropy.tar")
				if err := os.WriteFile(file, c.data, 0o600); err != nil {
					t.Fatal(err)
				}
				sub := *d
				sub.t = t
				if r := sub.verb("archive", "verify", file); r.exit == 0 {
					t.Errorf("archive verify takes it: %v", r)
				} else {
					refusal(t, []string{"verify"}, r, nil)
				}
				r := sub.verb("restore", file, "--yes", "--as", "damaged2", "--route", "web=damaged2.localhost")
				refusal(t, []string{"restore"}, r, nil)
				if strings.Contains(r.stderr, "must be settled") {
					t.Errorf("it is refused for another reason: %v", r)
				}
				if left := e.inventory().left(inventory{containers: a.states, volumes: append(a.before.volumes, "damaged_data"), networks: append(a.before.networks, "damaged_default")}); len(left) > 0 {
					t.Errorf("it leaves %q", left)
				}
			})
		}
	}
	a.check(t, d)
}

// A dentropy that is killed while it runs a verb on its own, on a machine where no other
// runs: the next verb brings the app back first.
func TestKilledVerb(t *testing.T) {
	e := newEngine(t)
	a := e.smallApp("alone")
	d := prepare(t)
	verb := []string{"backup", "alone", "--yes", "--docker", d.docker}
	steps, _ := d.profile(verb...)
	d.verifyAll()
	for _, at := range spread(len(steps), 3) {
		r := d.begin(verb...)
		r.when(func() bool { return len(d.steps()) >= at })
		r.cmd.Process.Signal(syscall.SIGKILL)
		r.wait(t)
		d.must(append([]string{"backup"}, verb[1:]...)...)
		eventually(t, "the app is as it was", a.asBefore)
		eventually(t, "nothing is left over", a.nothingLeft(d))
		d.verifyAll()
	}
	// Ctrl-C is answered by bringing the app back, too.
	for _, at := range spread(len(steps), 3) {
		r := d.begin(verb...)
		r.when(func() bool { return len(d.steps()) >= at })
		r.cmd.Process.Signal(os.Interrupt)
		r.wait(t)
		if err := a.asBefore(); err != nil {
			t.Errorf("after Ctrl-C at step %d: %v\n%s", at, err, r.out)
		}
		eventually(t, "nothing is left over", a.nothingLeft(d))
		d.verifyAll()
	}
}
