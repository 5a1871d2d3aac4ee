package backup_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/dentropy/dentropycloud/backup"
)

// Whoever gives a wrong file as a key learns which file, what is wrong and what a right one
// looks like, and nothing of the key is told.
func TestWhyNoKey(t *testing.T) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	marshal := func(passphrase string) string {
		block, err := ssh.MarshalPrivateKey(priv, "")
		if passphrase != "" {
			block, err = ssh.MarshalPrivateKeyWithPassphrase(priv, "", []byte(passphrase))
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(block))
	}
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	// a letter of the key that is another one
	wrong := []byte(testKey)
	if wrong[30] = 'Q'; testKey[30] == 'Q' {
		wrong[30] = 'P'
	}
	const right = "AGE-SECRET-KEY-1"
	for _, test := range []struct{ name, text, want, hint string }{
		{"empty", "", "there is no key in it", right},
		{"comments only", "# created: today\n\n", "there is no key in it", right},
		{"cut", "# mine\n" + testKey[:50] + "\n", "line 2 holds what begins as a key does", "copy the whole key again"},
		{"mistyped", string(wrong), "line 1 holds what begins as a key does", right},
		{"a kit that is mistyped", "Recovery kit\n\n  key: " + string(wrong) + "\n", "line 3 holds what begins as a key does", right},
		{"small letters", strings.ToLower(testKey), "line 1 is a key in small letters", "in capitals"},
		{"spaces", "\n  " + testKey + "  \n", "line 2 is a key with something before or behind it", "nothing but the key"},
		{"a public key", "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\n", "line 1 is a public key", right},
		{"a public SSH key", string(ssh.MarshalAuthorizedKey(sshPub)), "line 1 is a public key", "without a passphrase"},
		{"a key of a plugin", "AGE-PLUGIN-YUBIKEY-1QQQQQ", "line 1 is a key of a plugin", "age -d"},
		{"PuTTY's", "PuTTY-User-Key-File-3: ssh-ed25519\n", "a key of PuTTY", "puttygen"},
		{"something else", testKey + "\nhello\n", "line 2 is neither a key nor a comment", right},
		{"a picture", "\x89PNG\x00\xff", "it is no text", right},
		{"encrypted", "age-encryption.org/v1\n-> X25519 y\n", "it is itself encrypted", "age -d"},
		{"encrypted, in letters", "-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n-----END AGE ENCRYPTED FILE-----\n", "it is itself encrypted", "age -d"},
		{"with a passphrase", marshal("secret"), "an SSH key with a passphrase", "ssh-keygen -p"},
		{"SSH, cut", marshal("")[:200], "an SSH key that was cut off", "again"},
		{"something before it", "hello\n" + marshal(""), "line 2 begins an SSH key", "remove all before"},
		{"a certificate", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "a public key or a certificate", right},
	} {
		path := filepath.Join(t.TempDir(), "key.txt")
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := backup.ParseIdentityFile(path)
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), test.want) || !strings.Contains(backup.HintOf(err), test.hint) {
			t.Errorf("%s: %v (%s), want the file, %q and %q", test.name, err, backup.HintOf(err), test.want, test.hint)
			continue
		}
		told := strings.ToUpper(err.Error() + backup.HintOf(err))
		for i := 20; i+10 <= len(testKey); i += 10 {
			if strings.Contains(told, testKey[i:i+10]) {
				t.Errorf("%s: %v tells of the key", test.name, err)
			}
		}
	}
}
