package backup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Journal takes down what an operation is about to do. An entry is on disk, with its
// folder, when Append returns.
type Journal interface {
	// Op is the operation's id: 12 lowercase hex digits, unique. Containers, volumes and
	// folders of the operation are labelled or named with it.
	Op() string
	Append(step string, data any) error
}

// Operation is what a journal says about itself.
type Operation struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind"` // backup, restore, undo
	Platform string    `json:"platform"`
	App      string    `json:"app"`
	Time     time.Time `json:"time"`
}

// Entry is one line of a journal.
type Entry struct {
	Time time.Time       `json:"time"`
	Step string          `json:"step"`
	Data json.RawMessage `json:"data,omitempty"`
}

// Steps that the Manager itself takes down; those of a Platform have other names.
const (
	// stepEnd says that nothing is left to do: only the file is still there.
	stepEnd = "manager.end"
	// StepUndo may be written by a Platform's Apply, with the Undo as its data, at the
	// moment from which on Recover finishes the restore instead of taking it back: the
	// Manager then keeps the record even if the process dies before Apply returns.
	StepUndo = "undo"
	// StepUndone may be written by a Platform's Undo at the moment from which on Recover
	// finishes the undo instead of taking it back: its record is then of no use any more.
	StepUndone = "undone"
	// stepUndoes names the undo record that an undo works off.
	stepUndoes = "manager.undoes"
)

// journalSuffix ends the names of journals; one that is being made has another.
const (
	journalSuffix    = ".ndjson"
	newJournalSuffix = ".new"
)

// mostJournal bounds what is read of a journal. One of a large app is far below: some
// settings for each of its containers.
const mostJournal = 256 << 20

// fileJournal is a journal in a file, which is locked as long as the operation's
// process lives.
type fileJournal struct {
	op   Operation
	path string

	mu   sync.Mutex // guards all below
	f    *os.File
	good int64 // where the last whole line ends
	// steps are those of all entries.
	steps map[string]bool
	// broken is set where a torn line could not be taken back.
	broken error
}

// createJournal makes the journal of an operation. It appears under its name only
// when it is locked and holds its first line: whoever can lock a journal of that name
// knows that its process is gone.
func createJournal(dir string, op Operation) (*fileJournal, error) {
	path := filepath.Join(dir, op.ID+journalSuffix)
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("create journal %s: %w", op.ID, fs.ErrExist)
	}
	fresh := filepath.Join(dir, op.ID+newJournalSuffix)
	f, err := os.OpenFile(fresh, os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	j := &fileJournal{op: op, path: path, f: f}
	if err := j.begin(fresh); err != nil {
		_ = f.Close()
		_ = os.Remove(fresh)
		return nil, fmt.Errorf("create journal: %w", err)
	}
	return j, nil
}

func (j *fileJournal) begin(fresh string) error {
	if err := flock(j.f); err != nil {
		return err
	}
	if err := j.write(j.op); err != nil {
		return err
	}
	if err := os.Rename(fresh, j.path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(j.path))
}

// Op is the operation's id.
func (j *fileJournal) Op() string { return j.op.ID }

// Append adds an entry; it is on disk when Append returns.
func (j *fileJournal) Append(step string, data any) error {
	e := Entry{Time: time.Now().UTC(), Step: step}
	if data != nil {
		raw, err := json.Marshal(data)
		if err != nil {
			return fmt.Errorf("write journal: %w", err)
		}
		e.Data = raw
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.f == nil {
		return fmt.Errorf("write journal: %w", os.ErrClosed)
	}
	if err := j.write(e); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	if j.steps == nil {
		j.steps = map[string]bool{}
	}
	j.steps[step] = true
	return nil
}

// write adds a line and brings it to the disk. What a full disk leaves of a line is
// taken back, so that the next one does not stand in the same.
func (j *fileJournal) write(v any) error {
	if j.broken != nil {
		return j.broken
	}
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if _, err = j.f.Write(line); err == nil {
		err = j.f.Sync()
	}
	if err == nil {
		j.good += int64(len(line))
		return nil
	}
	if back := j.f.Truncate(j.good); back != nil {
		j.broken = fmt.Errorf("the journal ends in half a line: %w", errors.Join(err, back))
	}
	return err
}

// has reports whether an entry of a step has been taken down.
func (j *fileJournal) has(step string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.steps[step]
}

// finish ends the journal of an operation that has nothing left to do.
func (j *fileJournal) finish() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.f == nil {
		return nil
	}
	// the entry first: were the removal lost, nobody would do anything again
	err := j.write(Entry{Time: time.Now().UTC(), Step: stepEnd})
	if rm := os.Remove(j.path); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
		err = errors.Join(err, rm)
	} else if err = syncDir(filepath.Dir(j.path)); err != nil {
		err = fmt.Errorf("remove journal: %w", err)
	}
	_ = j.f.Close() // gives the lock back; the file is gone
	j.f = nil
	return err
}

// abandon lets go of the journal and leaves it, for Recover to work off.
func (j *fileJournal) abandon() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.f != nil {
		_ = j.f.Close() // all that counts has been synced
		j.f = nil
	}
}

// deadJournal is a journal whose process is gone, locked by us.
type deadJournal struct {
	op      Operation
	entries []Entry
	// lost counts lines that make no sense.
	lost int
	path string
	f    *os.File
}

// errAlive says that the operation of a journal is under way, or over.
var errAlive = errors.New("the operation is under way")

// openDead takes the journal at path, or returns errAlive.
func openDead(path string) (*deadJournal, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errAlive
	}
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	d := &deadJournal{path: path, f: f}
	if err := d.take(); err != nil {
		_ = f.Close()
		return nil, err
	}
	return d, nil
}

func (d *deadJournal) take() error {
	if err := flock(d.f); errors.Is(err, errHeld) {
		return errAlive
	} else if err != nil {
		return fmt.Errorf("lock journal: %w", err)
	}
	// its owner may have ended and removed it while we opened it
	ours, err := d.f.Stat()
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	named, err := os.Lstat(d.path)
	if err != nil || !os.SameFile(ours, named) {
		return errAlive
	}
	d.op, d.entries, d.lost, err = readJournal(d.f)
	return err
}

func (d *deadJournal) finish() error {
	defer d.abandon()
	if err := os.Remove(d.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove journal: %w", err)
	}
	return syncDir(filepath.Dir(d.path))
}

func (d *deadJournal) abandon() { _ = d.f.Close() }

// over reports whether the operation had nothing left to do.
func (d *deadJournal) over() bool { return d.has(stepEnd) }

// has reports whether there is an entry of a step.
func (d *deadJournal) has(step string) bool {
	return slices.ContainsFunc(d.entries, func(e Entry) bool { return e.Step == step })
}

// find gives the data of the last entry of a step.
func (d *deadJournal) find(step string) json.RawMessage {
	for _, e := range slices.Backward(d.entries) {
		if e.Step == step {
			return e.Data
		}
	}
	return nil
}

// readJournal reads a journal. A last line that is cut off counts as never written:
// what it announces was not done. Other lines that make no sense are skipped and
// counted, since each of the rest may be what brings an app back.
func readJournal(r io.Reader) (op Operation, entries []Entry, lost int, err error) {
	b, err := io.ReadAll(io.LimitReader(r, mostJournal))
	if err != nil {
		return op, nil, 0, fmt.Errorf("read journal: %w", err)
	}
	first, rest, whole := bytes.Cut(b, []byte{'\n'})
	if !whole {
		return op, nil, 0, errors.New("read journal: it has no first line")
	}
	if err := json.Unmarshal(first, &op); err != nil {
		return op, nil, 0, fmt.Errorf("read journal: first line: %w", err)
	}
	if !validOp(op.ID) {
		return op, nil, 0, fmt.Errorf("read journal: %q is no id of an operation", op.ID)
	}
	for {
		line, more, whole := bytes.Cut(rest, []byte{'\n'})
		if !whole {
			return op, entries, lost, nil
		}
		rest = more
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil || e.Step == "" {
			lost++
			continue
		}
		entries = append(entries, e)
	}
}

// journals lists the journals in dir, by name.
func journals(dir string) ([]string, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list journals: %w", err)
	}
	var out []string
	for _, e := range list {
		if strings.HasSuffix(e.Name(), journalSuffix) {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out, nil
}

// sweepJournals removes journals that were begun and never came to be: nothing was
// done under them. Those of the last hour may be in the making.
func sweepJournals(dir string) {
	const inTheMaking = time.Hour
	list, err := filepath.Glob(filepath.Join(dir, "*"+newJournalSuffix))
	if err != nil {
		return
	}
	for _, path := range list {
		if fi, err := os.Lstat(path); err == nil && time.Since(fi.ModTime()) > inTheMaking {
			_ = os.Remove(path) // tried again the next time
		}
	}
}

// validOp reports whether id is one of an operation: 12 lowercase hex digits.
func validOp(id string) bool {
	const digits = 12
	return len(id) == digits && strings.Trim(id, "0123456789abcdef") == ""
}
