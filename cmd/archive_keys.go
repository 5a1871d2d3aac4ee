package dentropycmd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/dentropy/dentropycloud/backup"
)

// keyFlags are what opens an encrypted archive.
func keyFlags(fs *pflag.FlagSet) {
	fs.StringArray("identity", nil, "`file` with a private key that opens the archive (age or ssh); may be repeated [DENTROPY_IDENTITY]")
	passphraseFlags(fs)
}

func passphraseFlags(fs *pflag.FlagSet) {
	fs.Bool("passphrase", false, "ask for a passphrase on the terminal")
	fs.String("passphrase-file", "", "`file` with the passphrase, its first line [DENTROPY_PASSPHRASE_FILE]")
}

// passphrase gives the passphrase that the flags or the environment name, "" for none.
// twice asks two times, for a new one.
func passphrase(cmd *cobra.Command, getenv func(string) string, twice bool) (string, error) {
	path, _ := cmd.Flags().GetString("passphrase-file")
	ask, _ := cmd.Flags().GetBool("passphrase")
	if path == "" && !ask {
		path = getenv("DENTROPY_PASSPHRASE_FILE")
	}
	if path != "" {
		return readPassphrase(path)
	}
	if !ask {
		return "", nil
	}
	tty, err := openTTY()
	if err != nil {
		return "", errors.New("--passphrase asks on a terminal, and there is none: use --passphrase-file or DENTROPY_PASSPHRASE_FILE")
	}
	defer func() { _ = tty.Close() }()
	read := func(prompt string) (string, error) {
		_, _ = fmt.Fprint(tty, prompt)
		b, err := term.ReadPassword(int(tty.Fd()))
		_, _ = fmt.Fprintln(tty)
		if err != nil {
			return "", fmt.Errorf("read the passphrase: %w", err)
		}
		return string(b), nil
	}
	p, err := read("Passphrase: ")
	if err != nil {
		return "", err
	}
	if p == "" {
		return "", errors.New("the passphrase is empty")
	}
	if twice {
		again, err := read("Passphrase again: ")
		if err != nil {
			return "", err
		}
		if again != p {
			return "", errors.New("the two passphrases differ: nothing was done")
		}
	}
	return p, nil
}

func readPassphrase(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read the passphrase: %w", err)
	}
	defer func() { _ = f.Close() }()
	const most = 4096
	line, err := bufio.NewReader(io.LimitReader(f, most)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the passphrase: %w", err)
	}
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", fmt.Errorf("the first line of %s is empty: it should be the passphrase", path)
	}
	return line, nil
}

// openTTY opens the terminal that the process belongs to, whatever its standard input
// is.
func openTTY() (*os.File, error) {
	return os.OpenFile("/dev/tty", os.O_RDWR, 0)
}

// archiveKeys are the identities that may open an archive.
type archiveKeys struct {
	ids []age.Identity
	// given says that some were named on the command line: a running dentropy may not
	// have them.
	given bool
}

// openKeys collects the identities: those that are named, and the ones in folders of keys.
func openKeys(cmd *cobra.Command, getenv func(string) string, folders ...string) (archiveKeys, error) {
	var k archiveKeys
	files, _ := cmd.Flags().GetStringArray("identity")
	if len(files) == 0 && getenv("DENTROPY_IDENTITY") != "" {
		files = []string{getenv("DENTROPY_IDENTITY")}
	}
	for _, path := range files {
		ids, err := identitiesIn(path)
		if err != nil {
			return k, err
		}
		k.ids = append(k.ids, ids...)
		k.given = true
	}
	p, err := passphrase(cmd, getenv, false)
	if err != nil {
		return k, err
	}
	if p != "" {
		id, err := backup.PassphraseIdentity(p)
		if err != nil {
			return k, err
		}
		k.ids = append(k.ids, id)
		k.given = true
	}
	for _, dir := range slices.Compact(folders) {
		if dir != "" {
			k.ids = append(k.ids, ownKey(dir))
		}
	}
	return k, nil
}

// ownKey is the key in a folder, read when an archive asks for it: what a pipe brings may
// be the first archive there is, whose key is made meanwhile.
type ownKey string

// Unwrap implements age.Identity.
func (dir ownKey) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	own, err := backup.OpenKeys(string(dir))
	if errors.Is(err, os.ErrPermission) {
		return nil, age.ErrIncorrectIdentity // that no key opens it is told
	}
	if err != nil {
		return nil, err
	}
	for _, id := range own.Identities() {
		key, err := id.Unwrap(stanzas)
		if !errors.Is(err, age.ErrIncorrectIdentity) {
			return key, err
		}
	}
	return nil, age.ErrIncorrectIdentity
}

// identitiesIn reads a file of private keys. The recovery kit as it was printed is one
// too, with words around its key.
func identitiesIn(path string) ([]age.Identity, error) {
	ids, err := backup.ParseIdentityFile(path)
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return ids, err
	}
	f, openErr := os.Open(path)
	if openErr != nil {
		return nil, openErr
	}
	defer func() { _ = f.Close() }()
	const most = 64 << 10 // the kit is a page
	text, readErr := io.ReadAll(io.LimitReader(f, most))
	if readErr != nil {
		return nil, fmt.Errorf("read the key: %w", readErr)
	}
	keys := privateKey.FindAll(text, -1)
	if len(keys) == 0 {
		return nil, err
	}
	ids, kitErr := backup.ParseIdentities(bytes.NewReader(bytes.Join(keys, []byte("\n"))))
	if kitErr != nil {
		return nil, err // which has the lines of the file
	}
	return ids, nil
}

var privateKey = regexp.MustCompile(`\bAGE-SECRET-KEY-1[0-9A-Z]+\b`)
