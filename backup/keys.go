package backup

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"filippo.io/age"
)

// The files of a Keys.
const (
	identityFile  = "identity.txt"
	recipientFile = "recipient.txt"
	storedFile    = "stored.json"
	// proofLength is how many characters of the key prove that somebody has a copy: more
	// than is remembered from a glance, few enough to type.
	proofLength = 8
)

// Keys are the age keys of one installation: an identity made at first use, and its
// recipient. Folder and files are private to their owner. Its methods may be called from
// any goroutine; two processes may share the folder.
type Keys struct {
	dir string

	mu        sync.Mutex // guards all below
	identity  *age.X25519Identity
	recipient *age.X25519Recipient
	stored    bool
}

// storedRecord is stored.json: the user has proven to have a copy of this key.
type storedRecord struct {
	Recipient string    `json:"recipient"`
	Time      time.Time `json:"time"`
}

// OpenKeys reads the keys in dir, which need not be there.
func OpenKeys(dir string) (*Keys, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the folder of keys: %w", err)
	}
	k := &Keys{dir: dir}
	if err := k.loadLocked(); err != nil {
		return nil, err
	}
	return k, nil
}

// loadLocked reads what is in the folder.
func (k *Keys) loadLocked() error {
	k.identity, k.recipient, k.stored = nil, nil, false
	text, err := readPrivate(filepath.Join(k.dir, identityFile))
	switch {
	case err == nil:
		if k.identity, err = parseOwnIdentity(text); err != nil {
			return fmt.Errorf("read the key in %s: %w", filepath.Join(k.dir, identityFile), err)
		}
		k.recipient = k.identity.Recipient()
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := k.loadRecipientLocked(); err != nil {
		return err
	}
	return k.loadStoredLocked()
}

func (k *Keys) loadRecipientLocked() error {
	path := filepath.Join(k.dir, recipientFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the recipient: %w", err)
	}
	r, err := age.ParseX25519Recipient(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("read the recipient in %s: %w", path, err)
	}
	if k.identity != nil && k.identity.Recipient().String() != r.String() {
		return fmt.Errorf("the recipient in %s does not belong to the key beside it: remove the one that is wrong", path)
	}
	k.recipient = r
	return nil
}

func (k *Keys) loadStoredLocked() error {
	path := filepath.Join(k.dir, storedFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read whether the key is stored: %w", err)
	}
	var rec storedRecord
	if err := json.Unmarshal(text, &rec); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	// A record of an earlier key says nothing about this one.
	k.stored = k.recipient != nil && rec.Recipient == k.recipient.String()
	return nil
}

// readPrivate reads a file that only its owner may read, and makes it so.
func readPrivate(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(path, 0o600); err != nil {
			return nil, fmt.Errorf("the key in %s can be read by others, run chmod 600 on it: %w", path, err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	return text, nil
}

// parseOwnIdentity reads the one key in the text of an identity file.
func parseOwnIdentity(text []byte) (*age.X25519Identity, error) {
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		id, err := age.ParseX25519Identity(line)
		if err != nil {
			// age's error may quote the line.
			return nil, errors.New("the file does not hold a key as age-keygen writes it")
		}
		return id, nil
	}
	return nil, errors.New("the file holds no key")
}

// Ensure makes an identity where there is none, durably, and reports whether it did.
func (k *Keys) Ensure() (created bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	// Another process may have made or removed it meanwhile.
	if err := k.loadLocked(); err != nil {
		return false, err
	}
	if k.recipient == nil {
		if created, err = k.createLocked(); err != nil {
			return false, err
		}
	}
	// The recipient is written again where a crash came between the two files.
	if _, err := os.Stat(filepath.Join(k.dir, recipientFile)); errors.Is(err, fs.ErrNotExist) {
		if err := writeDurable(k.dir, recipientFile, []byte(k.recipient.String()+"\n"), true); err != nil {
			return false, fmt.Errorf("write the recipient: %w", err)
		}
	}
	return created, nil
}

// createLocked makes a key, or takes the one that another process makes at this moment.
func (k *Keys) createLocked() (created bool, err error) {
	if err := MakeFolder(k.dir); err != nil {
		return false, fmt.Errorf("make the folder of keys: %w", err)
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return false, fmt.Errorf("make a key: %w", err)
	}
	text := fmt.Sprintf("# created: %s\n# public key: %s\n%s\n", time.Now().UTC().Format(time.RFC3339), id.Recipient(), id)
	err = writeDurable(k.dir, identityFile, []byte(text), false)
	if errors.Is(err, fs.ErrExist) {
		return false, k.loadLocked()
	}
	if err != nil {
		return false, fmt.Errorf("write the key: %w", err)
	}
	k.identity, k.recipient = id, id.Recipient()
	return true, nil
}

// writeDurable writes a file of dir that only its owner may read, so that after a crash it
// is there whole or not at all. Without replace it is fs.ErrExist where it is there.
func writeDurable(dir, name string, data []byte, replace bool) error {
	f, err := os.CreateTemp(dir, "."+name+".*")
	if err != nil {
		return err
	}
	tmp := f.Name()
	defer os.Remove(tmp) //nolint:errcheck // it is gone after a rename
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	path := filepath.Join(dir, name)
	if replace {
		err = os.Rename(tmp, path)
	} else {
		err = os.Link(tmp, path)
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}

// Recipients are whom archives are encrypted to: empty where there is no key yet.
func (k *Keys) Recipients() []age.Recipient {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.recipient == nil {
		return nil
	}
	return []age.Recipient{k.recipient}
}

// Identities open archives: empty where the private half is not kept here.
func (k *Keys) Identities() []age.Identity {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.identity == nil {
		return nil
	}
	return []age.Identity{k.identity}
}

// KeyStatus is what can be shown of the keys.
type KeyStatus struct {
	Recipients []string `json:"recipients"` // age1…
	// Private says that the private half is here, Stored that the user has proven to have
	// a copy elsewhere.
	Private bool `json:"private"`
	Stored  bool `json:"stored"`
	// Folder is where the private half is, or would be: a path on the machine where the
	// work is done.
	Folder string `json:"folder"`
}

// Status says what there is.
func (k *Keys) Status() KeyStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := KeyStatus{Recipients: []string{}, Private: k.identity != nil, Stored: k.stored, Folder: k.dir}
	if k.recipient != nil {
		s.Recipients = append(s.Recipients, k.recipient.String())
	}
	return s
}

// Kit is the recovery kit: text to be printed and kept elsewhere, with the private key.
func (k *Keys) Kit() (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.identity == nil {
		return "", k.noIdentityLocked("print the recovery kit")
	}
	return kitText(k.identity, time.Now()), nil
}

// noIdentityLocked says why there is no private half here.
func (k *Keys) noIdentityLocked(verb string) error {
	if k.recipient != nil {
		return fmt.Errorf("%s: the private key is not on this machine any more", verb)
	}
	return fmt.Errorf("%s: there is no key yet: it is made by the first backup", verb)
}

// Confirm notes that the user has a copy, if proof is the last 8 characters of the
// private key.
func (k *Keys) Confirm(proof string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.identity == nil {
		return k.noIdentityLocked("confirm the key")
	}
	key := k.identity.String()
	proof = strings.ToUpper(strings.TrimSpace(proof))
	if subtle.ConstantTimeCompare([]byte(proof), []byte(key[len(key)-proofLength:])) != 1 {
		return fmt.Errorf("those are not the last %d characters of the private key: compare them with your copy of the recovery kit", proofLength)
	}
	text, err := json.Marshal(storedRecord{Recipient: k.recipient.String(), Time: time.Now().UTC()})
	if err != nil {
		return fmt.Errorf("note that the key is stored: %w", err)
	}
	if err := writeDurable(k.dir, storedFile, append(text, '\n'), true); err != nil {
		return fmt.Errorf("note that the key is stored: %w", err)
	}
	k.stored = true
	return nil
}

// Forget removes the private half from this machine, once it is confirmed.
func (k *Keys) Forget() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.identity == nil {
		return k.noIdentityLocked("forget the key")
	}
	if !k.stored {
		return errors.New("forget the key: first prove that you have a copy of the recovery kit: without the key no archive can be opened")
	}
	// The public half must outlast it: without it the next backup would make a new key.
	if err := writeDurable(k.dir, recipientFile, []byte(k.recipient.String()+"\n"), true); err != nil {
		return fmt.Errorf("forget the key: %w", err)
	}
	// A process that was killed while it wrote the key left it under a second name.
	left, err := filepath.Glob(filepath.Join(k.dir, "."+identityFile+".*"))
	if err != nil {
		return fmt.Errorf("forget the key: %w", err)
	}
	for _, path := range append(left, filepath.Join(k.dir, identityFile)) {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("forget the key: %w", err)
		}
	}
	k.identity = nil
	if err := syncDir(k.dir); err != nil {
		return fmt.Errorf("forget the key: %w", err)
	}
	return nil
}

// kitText is the recovery kit. It says what it is to somebody who has never seen this
// program.
func kitText(id *age.X25519Identity, now time.Time) string {
	return fmt.Sprintf(`DENTROPY RECOVERY KIT                                   printed %s

This is the key to the backups of one installation of Dentropy Cloud. Who has
it can read them; without it nobody can, and nobody can make it again. Keep it
away from the machine that it protects: printed on paper, in a password
manager, or both.

  private key   %s
  public key    %s

To open a backup with Dentropy Cloud, put the line that begins with
AGE-SECRET-KEY-1 into a file of its own, key.txt, and run

  dentropy restore --identity key.txt FILE.dentropy.tar.age

To open it without: it is encrypted with age (https://age-encryption.org), and
inside is a tar with a README that says how to go on by hand.

  age -d -i key.txt FILE.dentropy.tar.age > FILE.dentropy.tar
  tar -xOf FILE.dentropy.tar dentropy/00-README.txt

To prove that this kit is stored, run dentropy backup key --confirm and type
the last %d characters of the private key.
`, now.UTC().Format("2006-01-02"), id, id.Recipient(), proofLength)
}
