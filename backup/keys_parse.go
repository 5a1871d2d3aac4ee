package backup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
)

const (
	// maxKeyFile bounds a file of keys: it is a file of a few lines, and what is given by
	// mistake may be a disk.
	maxKeyFile = 1 << 20
	// maxWorkFactor bounds the memory that a foreign archive can ask for with a
	// passphrase: 2^20 blocks of 1 KiB, where age itself writes 2^18.
	maxWorkFactor = 20
)

// ParseRecipients reads whom an archive is encrypted to: "age1…", "ssh-ed25519 …",
// "ssh-rsa …", or "@path" for a file with one on each line.
func ParseRecipients(texts []string) ([]age.Recipient, error) {
	var out []age.Recipient
	for _, text := range texts {
		text = strings.TrimSpace(text)
		if path, ok := strings.CutPrefix(text, "@"); ok {
			more, err := recipientsFile(path)
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
			continue
		}
		r, err := parseRecipient(text)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// recipientsFile reads a file of recipients, comments and empty lines.
func recipientsFile(path string) ([]age.Recipient, error) {
	text, err := readKeyFile(path)
	if err != nil {
		return nil, fmt.Errorf("read recipients: %w", err)
	}
	var out []age.Recipient
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		r, err := parseRecipient(line)
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", path, n, err)
		}
		out = append(out, r)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("read recipients: there is none in %s", path)
	}
	return out, nil
}

func parseRecipient(text string) (age.Recipient, error) {
	var r age.Recipient
	var err error
	switch {
	case strings.HasPrefix(strings.ToUpper(text), "AGE-SECRET-KEY-"), strings.HasPrefix(text, "AGE-PLUGIN-"):
		// It must not be quoted, be it misspelt in lower case.
		return nil, errors.New("this is a private key: a recipient is its public half and begins with age1")
	case strings.HasPrefix(text, "ssh-"):
		r, err = agessh.ParseRecipient(text)
	case strings.HasPrefix(text, "age1pq1"):
		r, err = age.ParseHybridRecipient(text)
	default:
		r, err = age.ParseX25519Recipient(text)
	}
	if err != nil {
		return nil, fmt.Errorf("read the recipient %q: it is neither age1…, nor ssh-ed25519 …, nor ssh-rsa …: %w", text, err)
	}
	return r, nil
}

// ParseIdentityFile reads the private keys in a file: those of age, one on each line, or
// one SSH key without a passphrase.
func ParseIdentityFile(path string) ([]age.Identity, error) {
	text, err := readKeyFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	ids, err := ParseIdentities(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read the key in %s: %w", path, err)
	}
	return ids, nil
}

// ParseIdentities reads private keys as ParseIdentityFile does. What is in r never is in
// the error.
func ParseIdentities(r io.Reader) ([]age.Identity, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxKeyFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxKeyFile {
		return nil, errors.New("too large for a key")
	}
	if bytes.HasPrefix(text, []byte(ageMagic)) || bytes.HasPrefix(text, []byte(ageArmor)) {
		return nil, noKey("it is itself encrypted", "decrypt it with age -d first, and give what comes out")
	}
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("-----BEGIN")) {
		id, err := agessh.ParseIdentity(text)
		if err != nil {
			return nil, whyNoSSHKey(text, err)
		}
		return []age.Identity{id}, nil
	}
	ids, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		return nil, whyNoIdentities(text) // age quotes lines
	}
	return ids, nil
}

// readKeyFile reads a small file.
func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxKeyFile {
		return nil, fmt.Errorf("%s is too large for a file of keys", path)
	}
	return text, nil
}

// PassphraseRecipient encrypts with a passphrase. It must be an archive's only recipient.
func PassphraseRecipient(passphrase string) (age.Recipient, error) {
	r, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, errors.New("the passphrase is empty")
	}
	return r, nil
}

// PassphraseIdentity opens what PassphraseRecipient encrypted.
func PassphraseIdentity(passphrase string) (age.Identity, error) {
	id, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, errors.New("the passphrase is empty")
	}
	id.SetMaxWorkFactor(maxWorkFactor)
	return id, nil
}
