package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
)

// member is one member of an archive.
type member struct {
	name string
	data []byte
}

func readMembers(t *testing.T, archive string) []member {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []member
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, member{h.Name, data})
	}
}

// writeMembers writes an archive by hand, by what docs/archive-format.md says: hashes,
// index and end marker are right, whatever the members hold.
func writeMembers(t *testing.T, members []member) string {
	t.Helper()
	members = slices.Clone(members)
	var manifest struct{ ID, Status string }
	for _, m := range members {
		if m.name == "dentropy/10-manifest.json" && members[0].name == "dentropy/00-FORMAT" {
			members[0].data = fmt.Appendf(nil, "dentropy-app-archive 1\nmanifest %x\n", sha256.Sum256(m.data))
			if err := json.Unmarshal(m.data, &manifest); err != nil {
				t.Fatal(err)
			}
		}
	}
	var archive, sums bytes.Buffer
	var lines []string
	var indexAt, indexSize int
	w := tar.NewWriter(&archive)
	for _, m := range members {
		at := archive.Len() + 512
		if pad := at % 512; pad > 0 {
			at += 512 - pad
		}
		switch m.name {
		case "dentropy/91-index.json":
			m.data = fmt.Appendf(nil, "{\"format\":1,\"id\":%q,\"members\":[\n%s\n]}\n", manifest.ID, strings.Join(lines, ",\n"))
			indexAt, indexSize = at, len(m.data)
		case "dentropy/92-SHA256SUMS":
			m.data = sums.Bytes()
		case "dentropy/99-END":
			m.data = fmt.Appendf(nil, "dentropy-app-archive 1 end\nid %s\nindex %d %d\nsums %x\nstatus %s\ntotal %d\n",
				manifest.ID, indexAt, indexSize, sha256.Sum256(sums.Bytes()), manifest.Status, at+512+1024)
			m.data = append(append(m.data, bytes.Repeat([]byte(" "), 511-len(m.data))...), '\n')
		}
		if err := w.WriteHeader(&tar.Header{Name: m.name, Mode: 0o644, Size: int64(len(m.data)), Format: tar.FormatUSTAR}); err != nil {
			t.Fatal(err)
		}
		if archive.Len() != at {
			t.Fatalf("%s begins at %d, want %d", m.name, archive.Len(), at)
		}
		if _, err := w.Write(m.data); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(m.data)
		lines = append(lines, fmt.Sprintf("{\"name\":%q,\"offset\":%d,\"size\":%d,\"sha256\":\"%x\"}", m.name, at, len(m.data), sum))
		if m.name != "dentropy/92-SHA256SUMS" {
			fmt.Fprintf(&sums, "%x  %s\n", sum, m.name)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "hostile.dentropy.tar")
	if err := os.WriteFile(file, archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func zstd(t *testing.T, data []byte) []byte {
	t.Helper()
	cmd := exec.Command("zstd", "-q", "-c")
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// withVolume puts another tar in the place of a volume's, and makes the manifest agree.
func withVolume(t *testing.T, members []member, volume string, data []byte) []member {
	t.Helper()
	packed := zstd(t, data)
	sum := sha256.Sum256(packed)
	out := slices.Clone(members)
	first := true
	prefix := "dentropy/50-volumes/" + volume + ".tar.zst."
	out = slices.DeleteFunc(out, func(m member) bool {
		if !strings.HasPrefix(m.name, prefix) {
			return false
		}
		was := first
		first = false
		return !was
	})
	for i, m := range out {
		switch {
		case strings.HasPrefix(m.name, prefix):
			out[i].data = packed
		case m.name == "dentropy/10-manifest.json":
			var manifest map[string]any
			if err := json.Unmarshal(m.data, &manifest); err != nil {
				t.Fatal(err)
			}
			tree := manifest["trees"].(map[string]any)[volume].(map[string]any)
			tree["tar_size"] = len(data)
			tree["segments"] = []any{map[string]any{
				"size": len(packed), "sha256": hex.EncodeToString(sum[:]), "raw": len(data),
				"frames": []any{map[string]any{"size": len(packed), "raw": len(data)}},
			}}
			b, err := json.Marshal(manifest)
			if err != nil {
				t.Fatal(err)
			}
			out[i].data = b
		}
	}
	return out
}

// hostileTars are what nobody's volume holds: ways out of it.
func hostileTars(t *testing.T, outside string) map[string][]byte {
	t.Helper()
	rel := "../../../../../../../../../../.." + outside
	file := func(name string) *tar.Header { return &tar.Header{Name: name, Mode: 0o644, Size: 5} }
	link := func(kind byte, name, target string) *tar.Header {
		return &tar.Header{Typeflag: kind, Name: name, Linkname: target, Mode: 0o777}
	}
	root := &tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}
	many := []*tar.Header{root}
	for n := range 20_000 {
		many = append(many, &tar.Header{Name: fmt.Sprint("./", n), Mode: 0o644})
	}
	out := make(map[string][]byte)
	for name, headers := range map[string][]*tar.Header{
		"absolute name":            {root, file(outside + "/pwned")},
		"name with dots":           {root, file(rel + "/pwned")},
		"dots in the middle":       {root, file("./a/../../../../.." + outside + "/pwned")},
		"through a symbolic link":  {root, link(tar.TypeSymlink, "./out", outside), file("./out/pwned")},
		"through a relative link":  {root, link(tar.TypeSymlink, "./out", rel), file("./out/pwned")},
		"over a symbolic link":     {root, link(tar.TypeSymlink, "./out", outside+"/canary"), file("./out")},
		"hard link to the outside": {root, link(tar.TypeLink, "./in", outside+"/canary"), file("./in")},
		"hard link with dots":      {root, link(tar.TypeLink, "./in", rel+"/canary"), file("./in")},
		"hard link through a link": {root, link(tar.TypeSymlink, "./out", outside), link(tar.TypeLink, "./in", "./out/canary"), file("./in")},
		"the same name twice":      {root, file("./a"), file("./a")},
		"more than it says":        many,
		"another volume, benign":   {root, {Name: "./a", Mode: 0o644, Size: 5, PAXRecords: map[string]string{"VENDOR.x": "y"}}},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(make([]byte, h.Size)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		out[name] = b.Bytes()
	}
	// Says to be a terabyte.
	var bomb bytes.Buffer
	w := tar.NewWriter(&bomb)
	if err := w.WriteHeader(&tar.Header{Name: "./bomb", Mode: 0o644, Size: 1 << 40}); err != nil {
		t.Fatal(err)
	}
	out["a bomb"] = append(bomb.Bytes(), make([]byte, 64<<20)...)
	return out
}

// An archive from anywhere may want anything. It gets nothing but its own volumes.
func TestHostileArchives(t *testing.T) {
	e := newEngine(t)
	a := e.smallApp("hostile")
	d := up(t)
	members := readMembers(t, d.backup("hostile", "--encrypt", "none", "--image", "never"))
	// What is written by hand is right, or the rest would prove nothing.
	d.must("archive", "verify", writeMembers(t, members))
	outside := t.TempDir()
	canary := filepath.Join(outside, "canary")
	if err := os.WriteFile(canary, []byte("alive"), 0o644); err != nil {
		t.Fatal(err)
	}
	volume := ""
	for _, m := range members {
		if rest, ok := strings.CutPrefix(m.name, "dentropy/50-volumes/"); ok {
			volume, _, _ = strings.Cut(rest, ".tar.zst.")
		}
	}
	if volume == "" {
		t.Fatal("there is no volume in the archive")
	}
	try := func(t *testing.T, file string) {
		t.Helper()
		sub := *d
		sub.t = t
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// Not as a file, whose end would be looked at first.
		r := sub.verbIn(data, "restore", "-", "--yes", "--as", "hostile2", "--route", "web=hostile2.localhost")
		refusal(t, []string{"restore"}, r, nil)
		if strings.Contains(r.stderr, "must be settled") {
			t.Errorf("it is refused for another reason: %v", r)
		}
		t.Logf("%.700s", r.stderr[max(0, len(r.stderr)-400):])
		if b, err := os.ReadFile(canary); err != nil || string(b) != "alive" {
			t.Errorf("the canary is %q, %v", b, err)
		}
		if list, err := os.ReadDir(outside); err != nil || len(list) != 1 {
			t.Errorf("outside there is %v, %v", list, err)
		}
		then := inventory{containers: a.states, volumes: append(a.before.volumes, "hostile_data"), networks: append(a.before.networks, "hostile_default")}
		if left := e.inventory().left(then); len(left) > 0 {
			t.Errorf("it leaves %q", left)
		}
	}
	for name, data := range hostileTars(t, outside) {
		t.Run(name, func(t *testing.T) { try(t, writeMembers(t, withVolume(t, members, volume, data))) })
	}
	for name, change := range map[string]func([]member) []member{
		"member with dots": func(ms []member) []member {
			return slices.Insert(slices.Clone(ms), 5, member{"dentropy/../../etc/passwd", []byte("x")})
		},
		"absolute member": func(ms []member) []member {
			return slices.Insert(slices.Clone(ms), 5, member{outside + "/pwned", []byte("x")})
		},
		"volume that nobody has": func(ms []member) []member {
			return slices.Insert(slices.Clone(ms), len(ms)-4, member{"dentropy/50-volumes/other.tar.zst.00000", []byte("x")})
		},
		"two manifests": func(ms []member) []member { return slices.Insert(slices.Clone(ms), 2, ms[2]) },
		"no end":        func(ms []member) []member { return ms[:len(ms)-1] },
		"turned round": func(ms []member) []member {
			out := slices.Clone(ms)
			slices.Reverse(out)
			return out
		},
	} {
		t.Run(name, func(t *testing.T) { try(t, writeMembers(t, change(members))) })
	}
	a.check(t, d)
}

// What reaches beyond an app is shown, and refused unless it is allowed by its name.
func TestRiskyRestore(t *testing.T) {
	e, d := newEngine(t), up(t)
	before := e.inventory()
	t.Cleanup(func() { e.clear(before) })
	host := t.TempDir()
	_, err := e.c.ContainerCreate(t.Context(),
		&container.Config{Image: serverImage, Cmd: []string{"-name", "risky"}},
		&container.HostConfig{
			Privileged: true, NetworkMode: "host", PidMode: "host", IpcMode: "host", CapAdd: []string{"SYS_ADMIN"},
			Binds: []string{host + ":/host", "/var/run/docker.sock:/var/run/docker.sock"}, SecurityOpt: []string{"seccomp=unconfined"},
			Resources: container.Resources{Devices: []container.DeviceMapping{{PathOnHost: "/dev/null", PathInContainer: "/dev/x", CgroupPermissions: "rwm"}}},
		}, nil, nil, "risky")
	if err != nil {
		t.Fatal(err)
	}
	archive := d.backup("risky")
	if err := e.c.ContainerRemove(context.WithoutCancel(t.Context()), "risky", container.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	kinds := []string{"privileged", "host-network", "host-pid", "host-ipc", "docker-socket", "device", "capability", "security-opt"}
	r := d.refuses(kinds, "restore", archive, "--yes")
	if left := e.inventory().left(before); len(left) > 0 {
		t.Errorf("%q was made: %v", left, r)
	}
	d.refuses([]string{"privileged"}, "restore", archive, "--yes", "--allow", "host-network")
	d.must("restore", archive, "--yes", "--allow", "all", "--no-start")
	info, err := e.c.ContainerInspect(t.Context(), "risky")
	if err != nil || !info.HostConfig.Privileged || info.HostConfig.PidMode != "host" {
		t.Errorf("risky is %+v, %v", info.HostConfig, err)
	}
	d.must("restore", "--undo", "--yes")
	if left := e.inventory().left(before); len(left) > 0 {
		t.Errorf("the undone restore leaves %q", left)
	}
}
