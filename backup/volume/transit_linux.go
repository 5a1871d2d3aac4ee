package volume

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup"
)

const (
	// flushEvery is how much is written to a file before the kernel is asked to begin
	// writing it to disk, so that the fsync at its end does not have all of it to wait for.
	flushEvery = 8 << 20
	// syncing is how many files are synced at the same time.
	syncing = 4
)

// Transit is a Sink of files in a folder:
//
//	<id>.tar.zst.00000 …, <id>.files.ndjson.zst, <id>.tree.json
//
// Each is written under a name ending in .partial, synced, and renamed. The last one is
// there only if all others are, and complete.
type Transit struct {
	dir, id string
	reserve int64

	wg   sync.WaitGroup
	slot chan struct{}
	mu   sync.Mutex
	errs error // guarded by mu
}

// NewTransit makes a sink of the folder dir, where reserve bytes must stay free.
func NewTransit(dir, id string, reserve int64) *Transit {
	return &Transit{dir: dir, id: id, reserve: reserve, slot: make(chan struct{}, syncing)}
}

// Segment implements Sink.
func (t *Transit) Segment(n int) (io.WriteCloser, error) {
	return t.create(fmt.Sprintf("%s.tar.zst.%05d", t.id, n))
}

// Index implements Sink.
func (t *Transit) Index() (io.WriteCloser, error) { return t.create(t.id + ".files.ndjson.zst") }

// Commit waits until all files are on disk and writes the tree beside them. It returns
// the size and hash of that file.
func (t *Transit) Commit(tree *backup.Tree) (backup.Blob, error) {
	t.wg.Wait()
	if err := t.failed(); err != nil {
		return backup.Blob{}, err
	}
	data, err := json.Marshal(tree)
	if err != nil {
		return backup.Blob{}, err
	}
	f, err := t.create(t.id + ".tree.json")
	if err != nil {
		return backup.Blob{}, err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Close())
	t.wg.Wait()
	if err = errors.Join(err, t.failed()); err != nil {
		return backup.Blob{}, err
	}
	if err := syncDir(t.dir); err != nil {
		return backup.Blob{}, fmt.Errorf("sync transit folder %s: %w", t.dir, err)
	}
	return blobOf(data), nil
}

// Wait ends what is under way, after an error elsewhere.
func (t *Transit) Wait() { t.wg.Wait() }

func (t *Transit) failed() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.errs
}

func (t *Transit) fail(err error) {
	t.mu.Lock()
	t.errs = errors.Join(t.errs, err)
	t.mu.Unlock()
}

// create begins a file.
func (t *Transit) create(name string) (io.WriteCloser, error) {
	if err := t.failed(); err != nil {
		return nil, err
	}
	if err := t.room(0); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(t.dir, name+".partial"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, t.explain("write to", err)
	}
	return &transitFile{t: t, f: f, name: name}, nil
}

// room refuses n bytes after which less than the reserve would be free.
func (t *Transit) room(n int64) error {
	free, err := freeSpace(t.dir)
	if err != nil {
		return fmt.Errorf("ask for free space in transit folder %s: %w", t.dir, err)
	}
	if free-n < t.reserve && t.reserve > 0 {
		return fmt.Errorf("%w in transit folder %s: %d bytes are free, of which %d must stay free; make room there, or choose another transit volume",
			ErrSpace, t.dir, free, t.reserve)
	}
	return nil
}

// explain makes a full disk understandable.
func (t *Transit) explain(doing string, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w in transit folder %s: %w; make room there, or choose another transit volume", ErrSpace, t.dir, err)
	}
	return fmt.Errorf("%s transit folder %s: %w", doing, t.dir, err)
}

// transitFile is one file that is being written.
type transitFile struct {
	t    *Transit
	f    *os.File
	name string
	size int64
	sent int64 // to disk
	// short says that not all came that should have.
	short bool
}

func (w *transitFile) Write(p []byte) (int, error) {
	if err := w.t.room(int64(len(p))); err != nil {
		w.short = true
		return 0, err
	}
	n, err := w.f.Write(p)
	w.size += int64(n)
	if err != nil {
		w.short = true
		return n, w.t.explain("write to", err)
	}
	if w.size-w.sent >= flushEvery {
		// Only a hint: fsync comes later, and tells whether all went well.
		_ = unix.SyncFileRange(int(w.f.Fd()), w.sent, w.size-w.sent, unix.SYNC_FILE_RANGE_WRITE)
		w.sent = w.size
	}
	return n, nil
}

// Close syncs and renames the file in the background; Commit waits for that. One that
// could not be written whole stays .partial: Write has told why.
func (w *transitFile) Close() error {
	if w.short {
		w.t.fail(fmt.Errorf("%s in transit folder %s is not whole", w.name, w.t.dir))
		return w.f.Close()
	}
	w.t.slot <- struct{}{}
	w.t.wg.Go(func() {
		defer func() { <-w.t.slot }()
		path := filepath.Join(w.t.dir, w.name)
		err := w.f.Sync()
		err = errors.Join(err, w.f.Close())
		if err == nil {
			err = os.Rename(path+".partial", path)
		}
		if err != nil {
			w.t.fail(w.t.explain("write to", err))
		}
	})
	return nil
}

// Abort implements frame.Aborter: the file stays .partial.
func (w *transitFile) Abort() { _ = w.f.Close() }

func blobOf(data []byte) backup.Blob {
	sum := sha256.Sum256(data)
	return backup.Blob{Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// freeSpace is how much may be written to the file system of dir.
func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * widen(st.Frsize), nil
}
