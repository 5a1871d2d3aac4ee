package backup

import (
	"errors"

	"filippo.io/age"
)

// Keys are the age keys of one installation: an identity made at first use, and further
// recipients. Folder and files are private to their owner.
type Keys struct{}

// OpenKeys reads the keys in dir, which need not be there.
func OpenKeys(dir string) (*Keys, error) { return nil, errors.ErrUnsupported }

// Ensure makes an identity where there is none, durably, and reports whether it did.
func (k *Keys) Ensure() (created bool, err error) { return false, errors.ErrUnsupported }

// Recipients are whom archives are encrypted to: empty where there is no key yet.
func (k *Keys) Recipients() []age.Recipient { return nil }

// Identities open archives: empty where the private half is not kept here.
func (k *Keys) Identities() []age.Identity { return nil }

// KeyStatus is what can be shown of the keys.
type KeyStatus struct {
	Recipients []string `json:"recipients"` // age1…
	// Private says that the private half is here, Stored that the user has proven to have
	// a copy elsewhere.
	Private bool `json:"private"`
	Stored  bool `json:"stored"`
}

// Status says what there is.
func (k *Keys) Status() KeyStatus { return KeyStatus{} }

// Kit is the recovery kit: text to be printed and kept elsewhere, with the private key.
func (k *Keys) Kit() (string, error) { return "", errors.ErrUnsupported }

// Confirm notes that the user has a copy, if proof is the last 8 characters of the
// private key.
func (k *Keys) Confirm(proof string) error { return errors.ErrUnsupported }

// Forget removes the private half from this machine, once it is confirmed.
func (k *Keys) Forget() error { return errors.ErrUnsupported }
