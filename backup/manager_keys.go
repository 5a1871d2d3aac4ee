package backup

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"filippo.io/age"
)

// CheckRecipients refuses, without asking any engine, what Backup would refuse because
// there is nobody to encrypt to, or because a word of the request means nothing.
func (m *Manager) CheckRecipients(req BackupRequest) error {
	if err := req.check(); err != nil {
		return err
	}
	cfg := m.config()
	_, _, err := cfg.recipients(&req)
	return err
}

// Identities open the archives that were made here, where the private half is kept.
func (m *Manager) Identities() ([]age.Identity, error) {
	cfg := m.config()
	if cfg.Keys == nil {
		return nil, nil
	}
	if err := cfg.Keys.refresh(); err != nil {
		return nil, err
	}
	return cfg.Keys.Identities(), nil
}

// refresh reads the keys again, which another process may have made or taken away.
func (k *Keys) refresh() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.loadLocked()
}

// recipients says how an archive is encrypted, and to whom.
func (c *Config) recipients(req *BackupRequest) (encryption string, to []age.Recipient, err error) {
	encryption = cmp.Or(req.Encryption, EncryptAll)
	switch encryption {
	case EncryptAll, EncryptSecrets:
	case EncryptNone:
		if req.Passphrase != "" || len(req.Recipients) > 0 {
			return "", nil, &Problem{Message: "encryption is off, and yet there is somebody to encrypt to", Hint: "leave out one of the two"}
		}
		return encryption, nil, nil
	default:
		return "", nil, &Problem{Message: fmt.Sprintf("encryption %q is not known", encryption), Hint: "use all, secrets or none"}
	}
	switch {
	case req.Passphrase != "" && len(req.Recipients) > 0:
		return "", nil, &Problem{Message: "an archive is encrypted with a passphrase or to recipients, not both", Hint: "leave out one of the two"}
	case req.Passphrase != "":
		r, err := PassphraseRecipient(req.Passphrase)
		return encryption, []age.Recipient{r}, err
	case len(req.Recipients) > 0:
		to, err = ParseRecipients(req.Recipients)
		if err != nil {
			return "", nil, err
		}
	default:
		if c.Keys != nil {
			if err := c.Keys.refresh(); err != nil {
				return "", nil, err
			}
			to = c.Keys.Recipients()
		}
		to = append(slices.Clone(to), c.Recipients...)
	}
	if len(to) == 0 {
		return "", nil, &Problem{
			Message: "the archive would hold secrets in clear: there is no key to encrypt it to",
			Hint:    "make a key with: dentropy backup key; or name recipients; or leave it unencrypted with --encrypt none",
			Object:  req.App, Err: ErrNoRecipient,
		}
	}
	return encryption, to, nil
}

// testEncryption proves that the recipients can be encrypted to, and that our own key,
// if it is among them and here, opens that: a wrong key shows now, not when the archive
// is needed.
func (b *backupRun) testEncryption() error {
	// Its data are secrets: the private key of all archives, and those of certificates.
	if b.app.Self && b.encryption != EncryptAll && !b.req.DryRun {
		return &Problem{
			Message: "the data of dentropy itself hold the private key that opens every archive: they are not written in clear",
			Hint:    "leave --encrypt out, or give --passphrase", Object: b.app.Name,
		}
	}
	if len(b.recipients) == 0 || b.req.Passphrase != "" { // nothing about a passphrase can be wrong, and each trial takes a second
		return nil
	}
	const sample = "dentropy"
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, b.recipients...)
	if err == nil {
		_, err = io.WriteString(w, sample)
		err = errors.Join(err, w.Close())
	}
	if err != nil {
		return fmt.Errorf("try the encryption: %w", err)
	}
	if !b.opensWithOwnKey() {
		return nil
	}
	var plain []byte
	r, err := age.Decrypt(&sealed, b.cfg.identities()...)
	if err == nil {
		plain, err = io.ReadAll(r)
	}
	if err == nil && string(plain) != sample {
		err = errors.New("something else came out")
	}
	if err != nil {
		return fmt.Errorf("try the key: what it encrypts cannot be opened with it: %w", err)
	}
	return nil
}

// opensWithOwnKey reports whether the archive can be read here: it is not encrypted, or
// to our own key, whose private half is here.
func (b *backupRun) opensWithOwnKey() bool {
	if len(b.recipients) == 0 {
		return true
	}
	return b.req.Passphrase == "" && len(b.req.Recipients) == 0 && len(b.cfg.identities()) > 0
}

// identities are those of our own key, if they are here.
func (c *Config) identities() []age.Identity {
	if c.Keys == nil {
		return nil
	}
	return c.Keys.Identities()
}

// KeyStatus says what can be shown of the keys.
func (m *Manager) KeyStatus() (KeyStatus, error) {
	cfg := m.config()
	if cfg.Keys == nil {
		return KeyStatus{Recipients: []string{}}, nil
	}
	if err := cfg.Keys.refresh(); err != nil {
		return KeyStatus{}, err
	}
	return cfg.Keys.Status(), nil
}

// EnsureKey makes this installation's key where there is none, and reports whether it
// did.
func (m *Manager) EnsureKey() (created bool, err error) {
	cfg := m.config()
	if cfg.Keys == nil {
		return false, errors.New("make a key: no folder for keys is configured")
	}
	if created, err = cfg.Keys.Ensure(); created {
		cfg.Log.Info("key made: keep its recovery kit elsewhere, see dentropy backup key")
	}
	return created, err
}
