package backup

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"filippo.io/age"
)

// A file that was given as a key and is none: what is wrong with it is told by line, in
// words of this program. Nothing of what is in the file goes into an error, since it may be
// a key that lacks one letter.

// keyPrefix begins age's own keys, whatever their kind.
const keyPrefix = "AGE-SECRET-KEY-"

// rightKey says what a key looks like.
const rightKey = "a right file has a line that begins with AGE-SECRET-KEY-1 (lines with # are comments), or is an SSH key of the kind ed25519 or RSA without a passphrase"

// noKey says what is wrong with a file of keys, and what to do.
func noKey(wrong, hint string) error {
	return &Problem{Message: wrong, Hint: hint}
}

// whyNoIdentities says what is wrong with a text of which age reads no keys.
func whyNoIdentities(text []byte) error {
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
		return noKey("it is no text", rightKey)
	}
	other := 0 // the first line that is nothing, and of what kind it is
	what := ""
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimRight(line, "\r\n")
		trimmed := strings.TrimSpace(strings.TrimPrefix(line, "\ufeff"))
		upper := strings.ToUpper(trimmed)
		is := "neither a key nor a comment"
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case strings.Contains(upper, keyPrefix):
			key, _, _ := strings.Cut(upper[strings.Index(upper, keyPrefix):], " ")
			switch {
			case !wellFormed(key):
				return noKey(fmt.Sprintf("line %d holds what begins as a key does, and is none: it was cut off, or a letter of it is wrong", n), "copy the whole key again; "+rightKey)
			case key == line:
				continue
			case upper == key && trimmed != upper:
				return noKey(fmt.Sprintf("line %d is a key in small letters", n), "write it in capitals, as it was made")
			}
			return noKey(fmt.Sprintf("line %d is a key with something before or behind it", n), "leave nothing but the key on its line")
		case strings.HasPrefix(upper, "AGE-PLUGIN-"):
			return noKey(fmt.Sprintf("line %d is a key of a plugin of age, which this program cannot use", n), "decrypt the archive with age -d, and give what comes out")
		case strings.HasPrefix(trimmed, "age1"), strings.HasPrefix(trimmed, "ssh-"):
			is = "a public key: it encrypts, and only its private half opens"
		case strings.HasPrefix(trimmed, "PuTTY-User-Key-File"):
			return noKey("it is a key of PuTTY", "export it as an OpenSSH key with puttygen; "+rightKey)
		case strings.HasPrefix(trimmed, "-----BEGIN"):
			return noKey(fmt.Sprintf("line %d begins an SSH key, and there is something before it", n), "remove all before that line")
		}
		if other == 0 {
			other, what = n, is
		}
	}
	if other == 0 {
		return noKey("there is no key in it", rightKey)
	}
	return noKey(fmt.Sprintf("line %d is %s", other, what), rightKey)
}

// wellFormed reports whether age reads a line.
func wellFormed(line string) bool {
	ids, err := age.ParseIdentities(strings.NewReader(line))
	return err == nil && len(ids) > 0
}

// whyNoSSHKey says what is wrong with a text that begins as an SSH key does.
func whyNoSSHKey(text []byte, err error) error {
	head, _, _ := bytes.Cut(bytes.TrimSpace(text), []byte{'\n'})
	switch {
	case bytes.Contains(head, []byte("PUBLIC KEY")), bytes.Contains(head, []byte("CERTIFICATE")):
		return noKey("it is a public key or a certificate: it encrypts at most, and only the private half opens", rightKey)
	case strings.Contains(err.Error(), "passphrase"), bytes.Contains(text, []byte("ENCRYPTED")):
		return noKey("it is an SSH key with a passphrase", "take the passphrase off a copy with ssh-keygen -p")
	case !bytes.Contains(text, []byte("-----END")):
		return noKey("it is an SSH key that was cut off", "copy the whole file again")
	}
	return noKey("it is not an SSH key that opens archives", rightKey)
}
