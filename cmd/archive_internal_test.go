//go:build linux

package dentropycmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/volume"
)

// testIdentity is a key for archives of tests, and the file that it is in.
func testIdentity(t *testing.T) (*age.X25519Identity, string) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kit.txt")
	if err := os.WriteFile(path, []byte("# kept elsewhere\n"+id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return id, path
}

// testTree is a folder with what a volume has.
func testTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	at := time.Unix(1_700_000_000, 0)
	for name, text := range map[string]string{"etc/app.conf": "port 80\n", "etc/deep/x": "x", "readme": strings.Repeat("words ", 1000)} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		os.Link(filepath.Join(dir, "readme"), filepath.Join(dir, "zz-link")),
		os.Symlink("../../etc/passwd", filepath.Join(dir, "etc/out")),
		os.WriteFile(filepath.Join(dir, "bad\x1b[2J"), nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Type()&os.ModeSymlink != 0 {
			return err
		}
		return os.Chtimes(path, at, at)
	}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// makeArchive writes an archive of testManifest's app, with a real volume "db", and an
// empty one "media".
func makeArchive(t *testing.T, encryption string, to ...age.Recipient) []byte {
	t.Helper()
	return makeArchiveOf(t, testManifest(), t.TempDir(), encryption, to...)
}

// makeArchiveOf does so with other settings, and other data for the volume "media".
func makeArchiveOf(t *testing.T, m *backup.Manifest, media, encryption string, to ...age.Recipient) []byte {
	t.Helper()
	m.ID, m.Encryption = backup.NewArchiveID(m.Created), ""
	m.App.Volumes[1].Action = backup.Include
	m.App.Containers[0].Settings = json.RawMessage(`{"Config":{"Env":["PASSWORD=hunter2-hunter2"]}}`)
	m.App.Containers[1].Settings = json.RawMessage(`{}`)
	var b bytes.Buffer
	w, err := backup.NewWriter(&b, backup.WriterOptions{Encryption: encryption, Recipients: to})
	if err != nil {
		t.Fatal(err)
	}
	transit := t.TempDir()
	m.Trees = map[string]*backup.Tree{}
	for id, root := range map[string]string{"db": testTree(t), "media": media} {
		sink := volume.NewTransit(transit, id, 0)
		tree, err := volume.Read(t.Context(), root, sink, volume.ReadOptions{Volume: id})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sink.Commit(tree); err != nil {
			t.Fatal(err)
		}
		m.Trees[id] = tree
	}
	if err := w.Start(m, m.App); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"db", "media"} {
		parts, err := filepath.Glob(filepath.Join(transit, id+".tar.zst.*"))
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(parts)
		var data []byte
		for _, p := range parts {
			part, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			data = append(data, part...)
		}
		index, err := os.ReadFile(filepath.Join(transit, id+".files.ndjson.zst"))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Volume(m.Trees[id], bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		if err := w.FileIndex(m.Trees[id], bytes.NewReader(index)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// verbOn runs a verb on an archive, given as a file or on standard input.
func verbOn(t *testing.T, archive []byte, stream bool, verb string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	data := t.TempDir()
	name := "-"
	if !stream {
		name = filepath.Join(data, "archive")
		if err := os.WriteFile(name, archive, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	words := append(strings.Fields(verb), name)
	stdout, stderr, err = runTalk(t.Context(), bytes.NewReader(archive), append(append(words, args...), "--data-dir", data)...)
	if !stream {
		stdout, stderr = strings.ReplaceAll(stdout, name, "ARCHIVE"), strings.ReplaceAll(stderr, name, "ARCHIVE")
	}
	return stdout, stderr, err
}

func TestArchiveVerbs(t *testing.T) {
	id, kit := testIdentity(t)
	for name, archive := range map[string][]byte{
		"plain": makeArchive(t, "none"), "encrypted": makeArchive(t, "all", id.Recipient()),
	} {
		for _, stream := range []bool{false, true} {
			t.Run(name+map[bool]string{true: " stream"}[stream], func(t *testing.T) {
				key := []string{"--identity", kit}
				if name == "plain" {
					key = nil
				}
				out, errOut, err := verbOn(t, archive, stream, "archive ls", append(key, "shop_db", "-r")...)
				if err != nil {
					t.Fatalf("ls = %v, %s", err, errOut)
				}
				var names []string
				for line := range strings.Lines(out) {
					f := strings.Fields(line)
					names = append(names, strings.Join(f[6:], " "))
				}
				want := []string{".", "bad·[2J", "etc", "etc/app.conf", "etc/deep", "etc/deep/x", "etc/out -> ../../etc/passwd", "readme", "zz-link -> readme"}
				if diff := cmp.Diff(want, names); diff != "" {
					t.Errorf("ls -r differs (-want +got):\n%s\n%s", diff, out)
				}
				out, _, err = verbOn(t, archive, stream, "archive ls", append(key, "db:etc")...)
				if err != nil || strings.Count(out, "\n") != 3 || !strings.HasPrefix(out, "-rw-r-----") {
					t.Errorf("ls of one folder = %v\n%s", err, out)
				}
				out, _, err = verbOn(t, archive, stream, "archive cat", append(key, "shop_db:etc/app.conf")...)
				if err != nil || out != "port 80\n" {
					t.Errorf("cat = %q, %v", out, err)
				}
				out, _, err = verbOn(t, archive, stream, "archive show", key...)
				if err != nil || !strings.Contains(out, "shop-db-1 from postgres:17") || strings.Contains(out, "hunter2") {
					t.Errorf("show = %v\n%s", err, out)
				}
				out, errOut, err = verbOn(t, archive, stream, "archive verify", key...)
				if err != nil || out != "✓ the archive of shop is complete and undamaged\n" {
					t.Errorf("verify = %v, %q, %s", err, out, errOut)
				}
				dir := t.TempDir()
				if _, errOut, err := verbOn(t, archive, stream, "archive extract", append(key, "-C", dir)...); err != nil {
					t.Errorf("extract = %v, %s", err, errOut)
				}
				text, err := os.ReadFile(filepath.Join(dir, "db/etc/app.conf"))
				if string(text) != "port 80\n" {
					t.Errorf("extracted %q, %v", text, err)
				}
				if link, err := os.Readlink(filepath.Join(dir, "db/etc/out")); link != "../../etc/passwd" {
					t.Errorf("extracted a link to %q, %v", link, err)
				}
				if _, errOut, err := verbOn(t, archive, stream, "archive extract", append(key, "-C", dir)...); err == nil || !strings.Contains(errOut, "is there already") {
					t.Errorf("extract again = %v, %s", err, errOut)
				}
			})
		}
	}
}

// A file that is mounted by itself is a volume of its own.
func TestExtractSingleFile(t *testing.T) {
	m := testManifest()
	for i := range m.App.Volumes {
		if v := &m.App.Volumes[i]; v.ID == "media" {
			v.Kind, v.Name = backup.BindFile, "/srv/shop/nginx.conf"
		}
	}
	conf := filepath.Join(t.TempDir(), "conf")
	if err := os.WriteFile(conf, []byte("listen 80;"), 0o640); err != nil {
		t.Fatal(err)
	}
	archive := makeArchiveOf(t, m, conf, "none")
	for _, stream := range []bool{false, true} {
		dir := t.TempDir()
		if _, errOut, err := verbOn(t, archive, stream, "archive extract", "-C", dir); err != nil {
			t.Fatalf("extract, stream %v = %v, %s", stream, err, errOut)
		}
		if text, err := os.ReadFile(filepath.Join(dir, "media/nginx.conf")); string(text) != "listen 80;" {
			t.Errorf("extracted %q, %v", text, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "db/etc/app.conf")); err != nil {
			t.Error(err)
		}
	}
}

func TestExtractSaysWhatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	_, errOut, err := verbOn(t, makeArchive(t, "none"), false, "archive extract", "db:nope", "media", "-C", dir)
	if err == nil || !strings.Contains(errOut, "nope") {
		t.Errorf("extract = %v, %s, want an error that names what is missing", err, errOut)
	}
	if _, err := os.Stat(filepath.Join(dir, "media")); err != nil {
		t.Errorf("the other volume: %v", err)
	}
}

func TestArchiveParts(t *testing.T) {
	archive := makeArchive(t, "none")
	for _, stream := range []bool{false, true} {
		dir := t.TempDir()
		if _, errOut, err := verbOn(t, archive, stream, "archive extract", "db:etc/deep", "-C", dir); err != nil {
			t.Fatalf("extract = %v, %s", err, errOut)
		}
		var got []string
		if err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			rel, _ := filepath.Rel(dir, path)
			got = append(got, rel)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{".", "db", "db/etc", "db/etc/deep", "db/etc/deep/x"}, got); diff != "" {
			t.Errorf("stream %v: extracted (-want +got):\n%s", stream, diff)
		}
		_, errOut, err := verbOn(t, archive, stream, "archive extract", "db:nothing", "-C", t.TempDir())
		if err == nil || strings.Count(errOut, "\n") > 2 {
			t.Errorf("stream %v: a path that is not there = %v, %s", stream, err, errOut)
		}
		_, errOut, err = verbOn(t, archive, stream, "archive cat", "db:etc")
		if err == nil || !strings.Contains(errOut, "no file") {
			t.Errorf("stream %v: cat of a folder = %v, %s", stream, err, errOut)
		}
		_, errOut, err = verbOn(t, archive, stream, "archive ls", "dbx")
		if err == nil || !strings.Contains(errOut, `the archive holds no volume "dbx": it holds /srv/media, shop_db`) {
			t.Errorf("stream %v: another volume = %v, %s", stream, err, errOut)
		}
	}
}

func TestArchiveDamaged(t *testing.T) {
	archive := makeArchive(t, "none")
	// Cut off within the second volume, and flipped in the first.
	cut := archive[:bytes.Index(archive, []byte("dentropy/50-volumes/media.tar.zst.00000\x00"))+520]
	out, errOut, err := verbOn(t, cut, false, "archive verify")
	if err == nil || !strings.Contains(out, "✓ volume db is whole") || !strings.Contains(out, "✗ volume media is not") ||
		!strings.Contains(errOut, "dentropy: the archive is incomplete") {
		t.Errorf("verify of one cut off = %v\n%s%s", err, out, errOut)
	}
	dir := t.TempDir()
	_, errOut, err = verbOn(t, cut, false, "archive extract", "db", "-C", dir)
	if text, _ := os.ReadFile(filepath.Join(dir, "db/etc/app.conf")); err != nil || string(text) != "port 80\n" {
		t.Errorf("extract of what is whole = %v, %q\n%s", err, text, errOut)
	}
	_, errOut, err = verbOn(t, cut, true, "archive verify")
	if err == nil || !strings.Contains(errOut, "the archive is incomplete") {
		t.Errorf("verify of a stream cut off = %v, %s", err, errOut)
	}
	flipped := bytes.Clone(archive)
	at := bytes.Index(flipped, []byte("dentropy/50-volumes/db.tar.zst.00000\x00")) + 600
	flipped[at] ^= 1
	for _, stream := range []bool{false, true} {
		_, errOut, err = verbOn(t, flipped, stream, "archive verify")
		if err == nil || !strings.Contains(errOut, "the archive is damaged") {
			t.Errorf("stream %v: verify of one with a flipped bit = %v, %s", stream, err, errOut)
		}
	}
	out, _, err = verbOn(t, flipped, false, "archive verify", "--json")
	var res verified
	if jerr := json.Unmarshal([]byte(out), &res); jerr != nil || err == nil || res.Good || !slices.Equal(res.Whole, []string{"media"}) || !slices.Equal(res.Lost, []string{"db"}) {
		t.Errorf("verify --json = %v, %v, %s", jerr, err, out)
	}
	if _, errOut, err = verbOn(t, []byte("hello"), false, "archive show"); err == nil || strings.Count(errOut, "\n") != 1 {
		t.Errorf("show of what is no archive = %v, %s", err, errOut)
	}
}

func TestArchiveNeedsAKey(t *testing.T) {
	id, _ := testIdentity(t)
	_, other := testIdentity(t)
	archive := makeArchive(t, "all", id.Recipient())
	for _, stream := range []bool{false, true} {
		_, errOut, err := verbOn(t, archive, stream, "archive show")
		if err == nil || !strings.Contains(errOut, "--identity FILE") || strings.Count(errOut, "\n") != 1 {
			t.Errorf("stream %v: without a key = %v, %s", stream, err, errOut)
		}
		_, errOut, err = verbOn(t, archive, stream, "archive show", "--identity", other)
		if err == nil || !strings.Contains(errOut, "another one") {
			t.Errorf("stream %v: with another key = %v, %s", stream, err, errOut)
		}
	}
}

// TestRestoreIsStreamed holds that the verb opens an archive itself, and sends a running
// dentropy all of it, decrypted, once, and its head for a plan.
func TestRestoreIsStreamed(t *testing.T) {
	id, kit := testIdentity(t)
	plain := makeArchive(t, "none")
	for name, archive := range map[string][]byte{"plain": plain, "encrypted": makeArchive(t, "all", id.Recipient())} {
		for _, stream := range []bool{false, true} {
			a := newFakeAPI(t)
			var whole []byte
			a.mux.HandleFunc("POST /dentropy/restores", func(w http.ResponseWriter, r *http.Request) {
				var body bytes.Buffer
				if err := formArchive(&body, r); err != nil {
					t.Error(err)
				}
				ar, err := backup.NewReader(bytes.NewReader(body.Bytes()))
				if err != nil {
					t.Errorf("%s: what was sent cannot be read: %v", name, err)
					return
				}
				if app, err := ar.App(); err != nil || !bytes.Contains(app.Containers[0].Settings, []byte("hunter2-hunter2")) {
					t.Errorf("%s: the secrets are not in what was sent: %v", name, err)
				}
				plan := &backup.Plan{App: "shop", Platform: "docker", Steps: []string{"one"}}
				if r.URL.Query().Get("dry_run") == "1" {
					if ar.Finish(t.Context()) == nil {
						t.Errorf("%s: the whole archive was sent for a plan", name)
					}
					a.answer(w, http.StatusOK, map[string]any{"plan": plan, "manifest": ar.Manifest()})
					return
				}
				whole = body.Bytes()
				res := backup.RestoreResult{App: "shop", Platform: "docker", Undo: "0123456789ab", Plan: plan}
				a.job(r.URL.Query().Get("job"), false, running("fill", ""), backup.JobView{State: "done"})
				a.answer(w, http.StatusOK, map[string]any{"result": res})
			})
			file := "-"
			if !stream {
				file = filepath.Join(t.TempDir(), "x")
				if err := os.WriteFile(file, archive, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			out, errOut, err := runTalk(t.Context(), bytes.NewReader(archive), "restore", file, "--yes", "--identity", kit, "--data-dir", a.dir)
			if err != nil || !strings.Contains(out, "shop runs again on docker") {
				t.Errorf("%s, stream %v: restore = %v\n%s", name, stream, err, errOut)
			}
			if err := func() error {
				ar, err := backup.NewReader(bytes.NewReader(whole))
				if err != nil {
					return err
				}
				return ar.Finish(t.Context())
			}(); err != nil {
				t.Errorf("%s, stream %v: what was sent is not whole: %v", name, stream, err)
			}
		}
	}
}

// formArchive reads the archive out of a form, as a running dentropy does.
func formArchive(to *bytes.Buffer, r *http.Request) error {
	form, err := r.MultipartReader()
	if err != nil {
		return err
	}
	for _, name := range []string{"answers", "archive"} {
		p, err := form.NextPart()
		if err != nil || p.FormName() != name {
			return fmt.Errorf("want part %q: %w", name, err)
		}
		to.Reset()
		if _, err := to.ReadFrom(p); err != nil {
			return err
		}
	}
	_, err = form.NextPart()
	if errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("want the end of the form: %w", err)
}

// storeAPI serves one archive as a store of a running dentropy does.
func storeAPI(t *testing.T, archive []byte) *fakeAPI {
	a := newFakeAPI(t)
	a.mux.HandleFunc("GET /dentropy/archives/local/"+storedName+"/download", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(archive))
	})
	return a
}

func TestArchiveInAStore(t *testing.T) {
	a := storeAPI(t, makeArchive(t, "none"))
	out, errOut, err := runTalk(t.Context(), nil, "archive", "cat", "local:"+storedName, "db:etc/app.conf", "--data-dir", a.dir)
	if err != nil || out != "port 80\n" {
		t.Errorf("cat = %q, %v, %s", out, err, errOut)
	}
	out, errOut, err = runTalk(t.Context(), nil, "archive", "verify", "local:"+storedName, "--data-dir", a.dir)
	if err != nil || !strings.Contains(out, "complete and undamaged") {
		t.Errorf("verify = %q, %v, %s", out, err, errOut)
	}
	other := strings.Replace(storedName, "shop", "blog", 1)
	if _, errOut, err = runTalk(t.Context(), nil, "archive", "show", "local:"+other, "--data-dir", a.dir); err == nil {
		t.Errorf("show of one that is not there = %v, %s", err, errOut)
	}
}

func TestRemoteObject(t *testing.T) {
	content := make([]byte, 2*remoteBlock+12345)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range content {
		content[i] = byte(rng.Uint32())
	}
	a := storeAPI(t, content)
	c, err := newClient(setUp(t, setUpEvents, "--data-dir", a.dir).Flags(), func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	o, err := openRemote(t.Context(), c, archiveURI("local", storedName)+"/download")
	if err != nil || o.Size() != int64(len(content)) {
		t.Fatalf("openRemote() = %v, %v, want %d bytes", o, err, len(content))
	}
	for _, at := range []int64{0, 5, remoteBlock - 3, remoteBlock, 2*remoteBlock - 1, int64(len(content)) - 7, int64(len(content)) - 1} {
		for _, n := range []int{0, 1, 10, remoteBlock + 100} {
			got := make([]byte, n)
			k, err := o.ReadAt(got, at)
			want := content[at:min(at+int64(n), int64(len(content)))]
			if k != len(want) || !bytes.Equal(got[:k], want) || (err == nil) != (k == n) {
				t.Errorf("ReadAt(%d bytes, %d) = %d, %v, want %d", n, at, k, err, len(want))
			}
		}
	}
	if n, err := o.ReadAt(make([]byte, 1), int64(len(content))); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("ReadAt(end) = %d, %v, want EOF", n, err)
	}
	whole, err := io.ReadAll(o)
	if err != nil || !bytes.Equal(whole, content) || o.Close() != nil {
		t.Errorf("read from the front: %d bytes, %v", len(whole), err)
	}
}
