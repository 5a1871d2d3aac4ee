package backup_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/dentropy/dentropycloud/backup"
	"github.com/google/go-cmp/cmp"
)

func TestArchiveRoundTrip(t *testing.T) {
	for _, enc := range []string{"all", "secrets", "none"} {
		t.Run(enc, func(t *testing.T) {
			a := makeArchive(t, archiveOptions{encryption: enc})
			if got := int64(len(a.bytes)); got != a.summary.Size {
				t.Errorf("Summary.Size = %d, want %d", a.summary.Size, got)
			}
			if got := sum(a.bytes); got != a.summary.SHA256 {
				t.Errorf("Summary.SHA256 = %s, want %s", a.summary.SHA256, got)
			}
			r, err := backup.NewReader(bytes.NewReader(a.bytes), testIdentity(t))
			if err != nil {
				t.Fatal(err)
			}
			app, err := r.App()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(testApp(), app); diff != "" {
				t.Errorf("App (-want +got):\n%s", diff)
			}
			var db []byte
			var names []string
			for {
				m, err := r.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, m.Name)
				if m.Kind == backup.MemberSegment && m.Volume == "db" {
					b, err := io.ReadAll(r)
					if err != nil {
						t.Fatal(err)
					}
					db = append(db, b...)
				}
			}
			if !bytes.Equal(db, a.volumes["db"].segments) {
				t.Errorf("the segments of db have %d bytes, not the %d that were written", len(db), len(a.volumes["db"].segments))
			}
			if len(names) < 8 || !strings.HasPrefix(names[0], "dentropy/30-images/") || names[len(names)-1] != "dentropy/90-files/media.ndjson.zst" {
				t.Errorf("members are %q", names)
			}
			if err := r.Finish(t.Context()); err != nil {
				t.Errorf("Finish after the end = %v, want nil", err)
			}
		})
	}
}

func TestArchiveIsDeterministic(t *testing.T) {
	a, b := makeArchive(t, archiveOptions{encryption: "none"}), makeArchive(t, archiveOptions{encryption: "none"})
	if !bytes.Equal(a.bytes, b.bytes) {
		t.Error("the same input gave two archives")
	}
	if got := string(a.bytes[512:535]); got != "dentropy-app-archive 1\n" {
		t.Errorf("at offset 512 there is %q", got)
	}
	if len(a.bytes)%512 != 0 {
		t.Errorf("the archive has %d bytes, not whole blocks", len(a.bytes))
	}
	if end := a.bytes[len(a.bytes)-1536:][:512]; !bytes.HasPrefix(end, []byte("dentropy-app-archive 1 end\nid "+a.manifest.ID)) {
		t.Errorf("the end marker is %q", end)
	}
}

func TestArchiveNeedsKey(t *testing.T) {
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	a := makeArchive(t, archiveOptions{encryption: "all"})
	for _, ids := range [][]age.Identity{nil, {other}} {
		_, err := backup.NewReader(bytes.NewReader(a.bytes), ids...)
		if !errors.Is(err, backup.ErrNoKey) || backup.HintOf(err) == "" {
			t.Errorf("NewReader with %d wrong keys = %v (hint %q), want ErrNoKey with a hint", len(ids), err, backup.HintOf(err))
		}
	}
	b := makeArchive(t, archiveOptions{encryption: "secrets"})
	r, err := backup.NewReader(bytes.NewReader(b.bytes))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.App(); !errors.Is(err, backup.ErrNoKey) || backup.HintOf(err) == "" {
		t.Errorf("App without a key = %v, want ErrNoKey with a hint", err)
	}
	if r.Manifest().App.Name != "shop" {
		t.Errorf("the manifest's app is %q", r.Manifest().App.Name)
	}
	if err := r.Finish(t.Context()); err != nil {
		t.Errorf("Finish without a key = %v", err)
	}
	for _, secret := range []string{"hunter2", "s3cr3t"} {
		if bytes.Contains(b.bytes, []byte(secret)) {
			t.Errorf("the archive holds %q in clear", secret)
		}
	}
}

func TestArchivePassphrase(t *testing.T) {
	rec, err := backup.PassphraseRecipient("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	rec.(*age.ScryptRecipient).SetWorkFactor(10)
	a := makeArchive(t, archiveOptions{recipients: []age.Recipient{rec}})
	id, err := backup.PassphraseIdentity("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	r, err := backup.NewReader(bytes.NewReader(a.bytes), id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.App(); err != nil {
		t.Error(err)
	}
	wrong, err := backup.PassphraseIdentity("wrong")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := backup.NewReader(bytes.NewReader(a.bytes), wrong); !errors.Is(err, backup.ErrNoKey) {
		t.Errorf("NewReader with a wrong passphrase = %v, want ErrNoKey", err)
	}
}

// Every cut gives an error, and every cut behind the head tells that the archive is not
// complete.
func TestArchiveTruncated(t *testing.T) {
	for _, enc := range []string{"none", "all"} {
		a := makeArchive(t, archiveOptions{encryption: enc, volumes: smallVolumes(t)})
		for n := 0; n < len(a.bytes); n += 512 {
			for _, cut := range []int{n, n + 1, n + 511} {
				if cut >= len(a.bytes) {
					continue
				}
				if _, err := readAll(bytes.NewReader(a.bytes[:cut]), testIdentity(t)); !errors.Is(err, backup.ErrIncomplete) {
					if enc == "none" || cut > 300 && !errors.Is(err, backup.ErrCorrupt) {
						t.Fatalf("%s: cut at %d of %d: %v, want ErrIncomplete", enc, cut, len(a.bytes), err)
					}
				}
			}
		}
	}
}

// Every flipped bit gives an error.
func TestArchiveFlipped(t *testing.T) {
	for _, enc := range []string{"none", "all"} {
		a := makeArchive(t, archiveOptions{encryption: enc, volumes: smallVolumes(t)})
		step := 17 // of headers of 512 bytes every byte comes up in one or the other
		if testing.Short() || enc == "all" {
			step = 97
		}
		for i := 0; i < len(a.bytes); i += step {
			a.bytes[i] ^= 1 << (i % 8)
			_, err := readAll(bytes.NewReader(a.bytes), testIdentity(t))
			a.bytes[i] ^= 1 << (i % 8)
			if err == nil {
				t.Fatalf("%s: with a bit of byte %d of %d flipped: no error", enc, i, len(a.bytes))
			}
		}
	}
}

func TestArchiveTrailingGarbage(t *testing.T) {
	a := makeArchive(t, archiveOptions{encryption: "none"})
	for _, more := range []string{"x", strings.Repeat("\x00", 512)} {
		if _, err := readAll(strings.NewReader(string(a.bytes) + more)); !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("with %d bytes behind it: %v, want ErrCorrupt", len(more), err)
		}
	}
}
