package self

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// detail is what takes a restore back.
type detail struct {
	// Op is the restore's: folders are called after it.
	Op    string `json:"op"`
	Parts []part `json:"parts"`
}

// part is a path in the data folder that is swapped as a whole.
type part struct {
	Path string `json:"path"`
	// Had says that it was there before, Has that it is in the archive.
	Had bool `json:"had,omitempty"`
	Has bool `json:"has,omitempty"`
}

// parts lists what is swapped below rel: names in the data or in the new folder, but
// for those that are not part of the state. Folders that hold such are gone through.
func (p *Platform) parts(fresh, rel string) ([]part, error) {
	exclude, err := p.exclude()
	if err != nil {
		return nil, err
	}
	return partsBelow(p.opts.Data, fresh, rel, exclude)
}

func partsBelow(data, fresh, rel string, exclude map[string]string) (out []part, err error) {
	names := map[string]*part{}
	var order []string
	list := func(root string, mark func(*part)) error {
		entries, err := os.ReadDir(filepath.Join(root, rel))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		for _, e := range entries {
			path := filepath.Join(rel, e.Name())
			if names[path] == nil {
				names[path] = &part{Path: path}
				order = append(order, path)
			}
			mark(names[path])
		}
		return err
	}
	if err := errors.Join(
		list(data, func(p *part) { p.Had = true }),
		list(fresh, func(p *part) { p.Has = true }),
	); err != nil {
		return nil, err
	}
	for _, path := range order {
		_, skip := exclude[filepath.ToSlash(path)]
		within := false
		for e := range exclude {
			within = within || strings.HasPrefix(e, filepath.ToSlash(path)+"/")
		}
		switch {
		case skip, strings.HasPrefix(path, newPrefix), strings.HasPrefix(path, beforePrefix):
		case within:
			below, err := partsBelow(data, fresh, path, exclude)
			if err != nil {
				return nil, err
			}
			out = append(out, below...)
		default:
			out = append(out, *names[path])
		}
	}
	return out, nil
}

// swap puts the old aside and the new in its place.
func (p *Platform) swap(ctx context.Context, d detail) error {
	root := p.opts.Data
	// also where there was nothing: an undo knows by it that there is something to undo
	if err := os.MkdirAll(filepath.Join(root, beforePrefix+d.Op), 0o700); err != nil {
		return fmt.Errorf("make the folder for what was there: %w", err)
	}
	for _, part := range d.Parts {
		if err := ctx.Err(); err != nil {
			return err
		}
		if part.Had {
			if err := move(root, part.Path, filepath.Join(root, beforePrefix+d.Op)); err != nil {
				return err
			}
		}
		if part.Has {
			if err := move(filepath.Join(root, newPrefix+d.Op), part.Path, root); err != nil {
				return err
			}
		}
	}
	return syncTree(root, d)
}

// takeBack makes everything as it was, however far swap came. It can be repeated.
func (p *Platform) takeBack(d detail) error {
	root := p.opts.Data
	fresh, before := filepath.Join(root, newPrefix+d.Op), filepath.Join(root, beforePrefix+d.Op)
	gone := before + goneSuffix
	if !there(fresh) && !there(before) { // done before: what is there now came later
		return os.RemoveAll(gone)
	}
	for _, part := range d.Parts {
		if part.Has && !there(filepath.Join(fresh, part.Path)) && there(filepath.Join(root, part.Path)) &&
			(!part.Had || there(filepath.Join(before, part.Path))) {
			if err := move(root, part.Path, fresh); err != nil {
				return err
			}
		}
		if part.Had && there(filepath.Join(before, part.Path)) {
			if err := move(before, part.Path, root); err != nil {
				return err
			}
		}
	}
	if err := syncTree(root, d); err != nil {
		return err
	}
	// Both go with one rename: were one of them left by a crash, it would look half done.
	err := os.MkdirAll(before, 0o700)
	if err == nil && there(fresh) {
		err = os.Rename(fresh, filepath.Join(before, newPrefix+d.Op))
	}
	if err == nil {
		err = os.Rename(before, gone)
	}
	if err != nil {
		return fmt.Errorf("clear what was restored: %w", err)
	}
	return os.RemoveAll(gone)
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// move renames what is at rel in one folder to rel in another.
func move(from, rel, to string) error {
	if err := os.MkdirAll(filepath.Dir(filepath.Join(to, rel)), 0o700); err != nil {
		return fmt.Errorf("swap %s: %w", rel, err)
	}
	if err := os.Rename(filepath.Join(from, rel), filepath.Join(to, rel)); err != nil {
		return fmt.Errorf("swap %s: %w", rel, err)
	}
	return nil
}

// syncTree brings the names that were moved to the disk.
func syncTree(root string, d detail) error {
	dirs := map[string]bool{root: true}
	for _, base := range []string{root, filepath.Join(root, newPrefix+d.Op), filepath.Join(root, beforePrefix+d.Op)} {
		for _, part := range d.Parts {
			dirs[filepath.Join(base, filepath.Dir(part.Path))] = true
		}
	}
	for dir := range dirs {
		f, err := os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = errors.Join(f.Sync(), f.Close())
		}
		if err != nil {
			return fmt.Errorf("sync folder: %w", err)
		}
	}
	return nil
}
