package dentropycmd

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dentropy/dentropycloud/backup"
)

func setUpBackupKey(cmd *cobra.Command) {
	cmd.Use = "key [--confirm [<proof>]] [--forget] [flags]"
	cmd.Short = "Prints the recovery kit: the key that opens your archives"
	cmd.Long = `
Prints the recovery kit, which opens the archives of this installation on any machine,
and makes the key where there is none yet. Print it or put it into a password manager,
away from this machine, and prove that you have it: on a terminal you are asked for the
last 8 characters of the private key; elsewhere give them with --confirm.

	$ dentropy backup key > /media/usb/dentropy-recovery-kit.txt
	$ dentropy backup key --confirm LAST8CHR

--forget then removes the private half from this machine, so that whoever breaks into it
cannot read old archives. Backups go on; 'restore' and 'archive' then need --identity.

EXIT STATUS

	0  the kit was printed; the proof was right; the private key was removed
	1  it was not: the reason is on standard error
`
	addressFlags(cmd.Flags())
	fs := cmd.Flags()
	fs.String("confirm", "", "`proof` that you have a copy: the last 8 characters of the private key; asked if left out")
	fs.Lookup("confirm").NoOptDefVal = askProof
	fs.Bool("forget", false, "remove the private key from this machine, once a copy is proven")
	fs.Bool("yes", false, "do not ask before --forget")
	cmd.Args = func(c *cobra.Command, args []string) error {
		// pflag takes a value that may be left out behind an "=" only
		if proof, _ := c.Flags().GetString("confirm"); len(args) == 1 && proof == askProof {
			return c.Flags().Set("confirm", args[0])
		}
		return noArgs(c, args)
	}
	cmd.RunE = runBackupKey
}

// askProof stands for a --confirm without a proof. It is no proof: too short.
const askProof = "?"

// keyFolder is where the keys are that whoever does the work uses. It is empty where
// that is an older version, which does not say.
func keyFolder(cmd *cobra.Command, w worker) (string, error) {
	st, err := w.key(cmd.Context())
	return st.Folder, err
}

func runBackupKey(cmd *cobra.Command, _ []string) error {
	dir, theirs, err := findKeyFolder(cmd)
	if err != nil {
		return err
	}
	keys, err := backup.OpenKeys(dir)
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("the key in %s belongs to another user: run this as that user, or with sudo", dir)
	}
	if err != nil {
		return err
	}
	// The kit of any other key would open nothing.
	if here := keys.Status().Recipients; len(theirs) > 0 && !slices.Equal(here, theirs) {
		return fmt.Errorf("the running dentropy encrypts archives to %s, and the key in %s is not that one: run this on the machine, and in the container, where that dentropy runs",
			strings.Join(theirs, ", "), dir)
	}
	proof, _ := cmd.Flags().GetString("confirm")
	forget, _ := cmd.Flags().GetBool("forget")
	talk := newPrinter(cmd.ErrOrStderr(), os.Getenv)
	switch proof {
	case "":
	case askProof:
		if err := proveKey(cmd, keys, talk); err != nil {
			return err
		}
	default:
		if err := keys.Confirm(proof); err != nil {
			return err
		}
		talk.printf("dentropy: noted: you have a copy of the key\n")
	}
	if forget {
		return forgetKey(cmd, keys, talk)
	}
	if proof != "" {
		return talk.err
	}
	st := keys.Status()
	if len(st.Recipients) > 0 && !st.Private {
		return fmt.Errorf("the private key is not on this machine any more; archives are encrypted to %s, and the kit that you keep opens them", strings.Join(st.Recipients, ", "))
	}
	made, err := keys.Ensure()
	if err != nil {
		return err
	}
	if made {
		talk.printf("dentropy: a key for archives was made in %s\n", dir)
	} else {
		talk.printf("dentropy: this is the key in %s\n", dir)
	}
	kit, err := keys.Kit()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprint(cmd.OutOrStdout(), kit); err != nil {
		return err
	}
	if st.Stored {
		talk.printf("dentropy: that you have a copy is noted already\n")
		return talk.err
	}
	return proveKey(cmd, keys, talk)
}

// findKeyFolder finds the keys of a running dentropy, and whom it encrypts to; else those
// in the data folder.
func findKeyFolder(cmd *cobra.Command) (dir string, recipients []string, err error) {
	c, err := findRunning(cmd.Context(), cmd.Flags(), os.Getenv)
	if err != nil {
		return "", nil, err
	}
	if c != nil {
		st, err := (&remote{c: c}).key(cmd.Context())
		if err == nil && st.Folder == "" {
			err = errors.New("the running dentropy does not say where its key is: is it another version?")
		}
		return st.Folder, st.Recipients, err
	}
	dir, err = workDir(cmd)
	return keysDir(dir), nil, err
}

// proveKey asks for the proof that the kit was stored.
func proveKey(cmd *cobra.Command, keys *backup.Keys, talk *printer) error {
	how := verbPrefix() + " backup key --confirm LAST-8-CHARACTERS"
	who, done := newAsker(cmd, false)
	defer done()
	if who == nil {
		talk.printf("dentropy: keep this away from this machine, then prove it: %s\n", how)
		return talk.err
	}
	talk.printf("\nKeep this in another place now: on paper, in a password manager. From that copy, type the\nlast 8 characters of the private key. (Enter: later, with %s)\n", how)
	const tries = 3
	for range tries {
		proof, err := who.ask("Last 8 characters", "later")
		if err != nil && !errors.Is(err, errNoAnswer) {
			return err
		}
		if err != nil || proof == "later" {
			talk.printf("dentropy: until it is proven, each backup reminds you\n")
			return talk.err
		}
		if err := keys.Confirm(proof); err == nil {
			talk.printf("dentropy: noted: you have a copy of the key\n")
			return talk.err
		}
		talk.printf("    those are not the last 8 characters\n")
	}
	return errors.New("the proof was wrong three times; the key is as it was: run this again when you have the copy at hand")
}

func forgetKey(cmd *cobra.Command, keys *backup.Keys, talk *printer) error {
	st := keys.Status()
	if yes, _ := cmd.Flags().GetBool("yes"); !yes && st.Private && st.Stored {
		who, done := newAsker(cmd, false)
		defer done()
		if who == nil {
			return errors.New("--forget removes the private key from this machine: add --yes")
		}
		ok, err := who.yes("Remove the private key from this machine? Archives can then be opened with your copy only", false)
		if err != nil {
			return err
		}
		if !ok {
			return errors.New("the key is as it was")
		}
	}
	if err := keys.Forget(); err != nil {
		return err
	}
	talk.printf("dentropy: the private key is gone from this machine; archives go on being encrypted to %s\n", strings.Join(st.Recipients, ", "))
	return talk.err
}
