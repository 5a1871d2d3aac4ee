package backup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// decrypted takes the encryption off a stream, if there is one.
func decrypted(r io.Reader, identities []age.Identity) (io.Reader, error) {
	src := &eofReader{r: r}
	br := bufio.NewReaderSize(src, outerBuffer)
	intro, err := br.Peek(len(ageArmor))
	if err != nil && src.err != nil && !errors.Is(src.err, io.EOF) {
		return nil, fmt.Errorf("read the archive: %w", src.err)
	}
	var enc io.Reader = br
	switch {
	case bytes.HasPrefix(intro, []byte(ageMagic)):
	case bytes.HasPrefix(intro, []byte(ageArmor)):
		enc = armor.NewReader(br)
	default:
		return br, nil
	}
	plain, err := openAge(enc, identities)
	if err != nil {
		return nil, src.explain(err)
	}
	return &plainReader{r: plain, src: src}, nil
}

// openAge begins to decrypt. Its error wraps ErrNoKey where no identity fits.
func openAge(r io.Reader, identities []age.Identity) (io.Reader, error) {
	if len(identities) == 0 {
		return nil, errNoKeyGiven()
	}
	plain, err := age.Decrypt(r, slices.Clone(identities)...) // age sorts what it is given
	return plain, keyError(err)
}

func errNoKeyGiven() error {
	return &Problem{
		Message: "the archive is encrypted, and no key was given",
		Hint:    "name the file of the recovery kit's private key, or the passphrase that the archive was made with",
		Err:     ErrNoKey,
	}
}

// keyError tells a wrong key from other errors of age.
func keyError(err error) error {
	var none *age.NoIdentityMatchError
	if !errors.As(err, &none) {
		return err
	}
	return &Problem{
		Message: ErrNoKey.Error(),
		Hint:    "it was encrypted to another key or passphrase: try that of the recovery kit that was printed where the archive was made",
		Err:     ErrNoKey,
	}
}

// eofReader remembers how a stream ended.
type eofReader struct {
	r   io.Reader
	err error
}

func (e *eofReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil {
		e.err = err
	}
	return n, err
}

// explain says what an error of age means: the stream's own, one that ended too early, or
// damage.
func (e *eofReader) explain(err error) error {
	switch {
	case errors.Is(err, ErrNoKey):
		return err
	case e.err != nil && !errors.Is(e.err, io.EOF):
		return fmt.Errorf("read the archive: %w", e.err)
	case e.err != nil:
		// age cannot tell a last piece that is short from one that is damaged.
		return fmt.Errorf("%w: the encryption ends too early, or its last 64 KiB are damaged", ErrIncomplete)
	}
	return fmt.Errorf("%w: it cannot be decrypted: %w", ErrCorrupt, err)
}

// plainReader is a decrypted stream with errors that say what they mean.
type plainReader struct {
	r   io.Reader
	src *eofReader
}

func (p *plainReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = p.src.explain(err)
	}
	return n, err
}

// newBytesEOF is an eofReader of bytes.
func newBytesEOF(b []byte) *eofReader { return &eofReader{r: bytes.NewReader(b)} }
