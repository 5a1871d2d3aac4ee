package dentropycmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/dentropy/dentropycloud/backup"
)

// storeArchive tells STORE:NAME from a path. What is there as a file is a file.
func storeArchive(arg string) (store, name string, ok bool) {
	store, name, ok = strings.Cut(arg, ":")
	if !ok || store == "" || strings.ContainsAny(arg, `/\`) {
		return "", "", false
	}
	if _, err := backup.ParseArchiveName(name); err != nil {
		return "", "", false
	}
	if _, err := os.Lstat(arg); err == nil {
		return "", "", false
	}
	return store, name, true
}

// openStream opens FILE, - or STORE:NAME for reading from the front.
func openStream(ctx context.Context, cmd *cobra.Command, w worker, arg string) (io.ReadCloser, error) {
	if arg == "-" {
		in := cmd.InOrStdin()
		if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return nil, errors.New("standard input is a terminal: send an archive to it (dentropy … - < FILE), or name the file")
		}
		return io.NopCloser(in), nil
	}
	if store, name, ok := storeArchive(arg); ok {
		return w.open(ctx, store, name)
	}
	f, err := os.Open(arg)
	if store, _, ok := strings.Cut(arg, ":"); ok && errors.Is(err, os.ErrNotExist) && !strings.Contains(arg, "/") {
		return nil, fmt.Errorf("open the archive: there is no file %s, nor can an archive in store %s be called so (`%s archive ls` lists them)", arg, store, verbPrefix())
	}
	if err != nil {
		return nil, fmt.Errorf("open the archive: %w (an archive of a store is named STORE:NAME, see `%s archive ls`)", cause2(err, arg), verbPrefix())
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		_ = f.Close()
		return nil, fmt.Errorf("%s is a folder: name the archive in it", arg)
	}
	return f, nil
}

// cause2 names the path once.
func cause2(err error, path string) error { return fmt.Errorf("%s: %w", path, cause(err)) }

// openInput opens an archive for a restore and reads its head.
func openInput(ctx context.Context, cmd *cobra.Command, w worker, arg string, keys archiveKeys) (*archiveInput, error) {
	in := &archiveInput{label: arg}
	if store, name, ok := storeArchive(arg); ok {
		in.store, in.name = store, name
		if r, isRemote := w.(*remote); isRemote && !keys.given {
			m, err := r.manifest(ctx, store, name)
			in.manifest = m
			return in, err
		}
	}
	rc, err := openStream(ctx, cmd, w, arg)
	if err != nil {
		return nil, err
	}
	in.file = rc
	if in.reader, err = backup.OpenReader(ctx, rc, keys.ids...); err != nil {
		return nil, errors.Join(explainArchive(err, keys), rc.Close())
	}
	in.manifest = in.reader.Manifest()
	if _, err := in.reader.App(); err != nil { // the secrets may have a key of their own
		return nil, errors.Join(explainArchive(err, keys), rc.Close())
	}
	return in, nil
}

// explainArchive says what to do about an archive that cannot be opened.
func explainArchive(err error, keys archiveKeys) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, backup.ErrNoKey) && keys.given:
		return errors.New("the key or passphrase that was given does not open this archive: it was made with another one")
	case errors.Is(err, backup.ErrNoKey):
		return errors.New("no key on this machine opens this archive: give the recovery kit, saved as a file, with --identity FILE, or --passphrase if it was encrypted with one")
	}
	return err
}
