package backup_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
	"github.com/dentropy/dentropycloud/backup"
	"golang.org/x/crypto/ssh"
)

func openKeys(t *testing.T, dir string) *backup.Keys {
	t.Helper()
	k, err := backup.OpenKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func privateKey(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "identity.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "AGE-SECRET-KEY-1") {
			return strings.TrimSpace(line)
		}
	}
	t.Fatalf("no key in %q", b)
	return ""
}

func TestKeysLife(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "keys")
	k := openKeys(t, dir)
	if s := k.Status(); len(s.Recipients) != 0 || s.Private || s.Stored || s.Recipients == nil {
		t.Errorf("Status without a key = %+v", s)
	}
	if _, err := k.Kit(); err == nil {
		t.Error("Kit without a key: no error")
	}
	if created, err := k.Ensure(); err != nil || !created {
		t.Fatalf("Ensure = %v, %v; want a new key", created, err)
	}
	if created, err := k.Ensure(); err != nil || created {
		t.Errorf("Ensure again = %v, %v; want the same key", created, err)
	}
	for path, want := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, "identity.txt"): 0o600, filepath.Join(dir, "recipient.txt"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want mode %v", path, info, err, want)
		}
	}
	key := privateKey(t, dir)
	kit, err := k.Kit()
	if err != nil || !strings.Contains(kit, key) || !strings.Contains(kit, k.Status().Recipients[0]) {
		t.Errorf("Kit = %q, %v", kit, err)
	}
	if err := k.Forget(); err == nil {
		t.Error("Forget before Confirm: no error")
	}
	for _, bad := range []string{"", "12345678", key[:8], key} {
		if err := k.Confirm(bad); err == nil || strings.Contains(err.Error(), key) {
			t.Errorf("Confirm(%d characters that are wrong) = %v", len(bad), err)
		}
	}
	if err := k.Confirm(" " + strings.ToLower(key[len(key)-8:]) + "\n"); err != nil {
		t.Errorf("Confirm = %v", err)
	}
	if s := openKeys(t, dir).Status(); !s.Stored || !s.Private {
		t.Errorf("Status after Confirm = %+v", s)
	}
	// what a process that was killed while it made the key leaves
	second := filepath.Join(dir, ".identity.txt.123")
	if err := os.Link(filepath.Join(dir, "identity.txt"), second); err != nil {
		t.Fatal(err)
	}
	if err := k.Forget(); err != nil {
		t.Fatalf("Forget = %v", err)
	}
	if _, err := os.Lstat(second); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Forget the key is still in %s: %v", second, err)
	}
	k = openKeys(t, dir)
	if s := k.Status(); s.Private || !s.Stored || len(s.Recipients) != 1 || len(k.Identities()) != 0 || len(k.Recipients()) != 1 {
		t.Errorf("Status after Forget = %+v", s)
	}
	if created, err := k.Ensure(); err != nil || created {
		t.Errorf("Ensure after Forget = %v, %v; want no new key", created, err)
	}
	// What was encrypted still opens with the kit.
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, k.Recipients()...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	ids, err := backup.ParseIdentities(strings.NewReader(key))
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(&sealed, ids...)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != "hello" {
		t.Errorf("decrypted %q, %v", got, err)
	}
}

// Of several processes that begin at once one makes the key, and all have it.
func TestKeysEnsureAtOnce(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	var mu sync.Mutex
	created, recipients := 0, make(map[string]bool)
	for range 8 {
		k := openKeys(t, dir)
		wg.Go(func() {
			c, err := k.Ensure()
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if c {
				created++
			}
			recipients[k.Status().Recipients[0]] = true
		})
	}
	wg.Wait()
	if created != 1 || len(recipients) != 1 {
		t.Errorf("%d keys were made, and %d are in use; want 1", created, len(recipients))
	}
}

func TestKeysFolder(t *testing.T) {
	dir := t.TempDir()
	k := openKeys(t, dir)
	if _, err := k.Ensure(); err != nil {
		t.Fatal(err)
	}
	// A crash between the two files.
	if err := os.Remove(filepath.Join(dir, "recipient.txt")); err != nil {
		t.Fatal(err)
	}
	want := k.Status().Recipients[0]
	k = openKeys(t, dir)
	if created, err := k.Ensure(); err != nil || created || k.Status().Recipients[0] != want {
		t.Errorf("Ensure = %v, %v with %v; want the key that was there", created, err, k.Status().Recipients)
	}
	if _, err := os.Stat(filepath.Join(dir, "recipient.txt")); err != nil {
		t.Errorf("the recipient is not written again: %v", err)
	}
	// A key that others can read.
	if err := os.Chmod(filepath.Join(dir, "identity.txt"), 0o644); err != nil {
		t.Fatal(err)
	}
	openKeys(t, dir)
	if info, err := os.Stat(filepath.Join(dir, "identity.txt")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v, %v; want 0600", info.Mode(), err)
	}
	// Halves that do not belong together, and damage: an error, never a new key, and the
	// key never in it.
	key := privateKey(t, dir)
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "recipient.txt"), []byte(other.Recipient().String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.OpenKeys(dir); err == nil {
		t.Error("OpenKeys with another's recipient: no error")
	}
	if err := os.WriteFile(filepath.Join(dir, "identity.txt"), []byte(key[:len(key)-1]), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.OpenKeys(dir); err == nil || strings.Contains(err.Error(), key[20:40]) {
		t.Errorf("OpenKeys with a damaged key = %v", err)
	}
}

func TestParseRecipients(t *testing.T) {
	dir := t.TempDir()
	id := testIdentity(t)
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sshPub)))
	file := filepath.Join(dir, "recipients")
	if err := os.WriteFile(file, []byte("# ours\n\n"+id.Recipient().String()+"\n"+line+" me@home\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := backup.ParseRecipients([]string{id.Recipient().String(), " " + line, "@" + file})
	if err != nil || len(got) != 4 {
		t.Fatalf("ParseRecipients = %d, %v; want 4", len(got), err)
	}
	for _, bad := range []string{"", "age1x", "ssh-dss AAAA", "bob@example.org", "@" + dir + "/none", "@" + dir, testKey, strings.ToLower(testKey)} {
		if _, err := backup.ParseRecipients([]string{bad}); err == nil || strings.Contains(strings.ToUpper(err.Error()), testKey) {
			t.Errorf("ParseRecipients(%.10q) = %v, want an error", bad, err)
		}
	}
	// An archive to an SSH key, opened with it.
	made := makeArchive(t, archiveOptions{encryption: "all", recipients: got[1:2]})
	block, err := ssh.MarshalPrivateKey(priv, "")
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(dir, "id_ed25519")
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	ids, err := backup.ParseIdentityFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readAll(bytes.NewReader(made.bytes), ids...); err != nil {
		t.Errorf("with the SSH key: %v", err)
	}
	sealedKey, err := ssh.MarshalPrivateKeyWithPassphrase(priv, "", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"none": "", "public": id.Recipient().String(), "damaged": testKey[:40], "with a passphrase": string(pem.EncodeToMemory(sealedKey)),
		"encrypted": "age-encryption.org/v1\n-> X", "large": strings.Repeat("#\n", 1<<20),
	} {
		if _, err := backup.ParseIdentities(strings.NewReader(text)); err == nil || strings.Contains(err.Error(), testKey[20:40]) {
			t.Errorf("ParseIdentities of a key that is %s = %v, want an error without the key", name, err)
		}
	}
	if _, err := backup.ParseIdentityFile(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ParseIdentityFile of no file = %v", err)
	}
}

// The age tool opens what we encrypt with a kit's key.
func TestKitWithAge(t *testing.T) {
	tool := ageTool(t)
	dir := t.TempDir()
	k := openKeys(t, dir)
	if _, err := k.Ensure(); err != nil {
		t.Fatal(err)
	}
	made := makeArchive(t, archiveOptions{encryption: "all", recipients: k.Recipients()})
	cmd := exec.CommandContext(t.Context(), tool, "-d", "-i", filepath.Join(dir, "identity.txt"))
	cmd.Stdin = bytes.NewReader(made.bytes)
	plain, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readAll(bytes.NewReader(plain), k.Identities()...); err != nil {
		t.Errorf("what age decrypted: %v", err)
	}
}
